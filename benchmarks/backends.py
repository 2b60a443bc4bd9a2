"""A Redis server and a folder of the benchmarks' own, for the storages that are measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import redis

ROOM_BYTES = 512 << 20


class Backends(NamedTuple):
    folder: Path
    redis_socket: str
    """The path of its unix socket; empty if this machine has no Redis server."""

    def shared(self, name: str) -> Path:
        """A folder for the counters of shared://; the same folder each time for the same name."""
        found = self.folder / name
        found.mkdir(mode=0o700, exist_ok=True)
        return found

    def ours(self) -> dict[str, str]:
        """The name of each storage, and its URI for wsgi_throttle."""
        found = {"memory": "memory://", "shared": f"shared://{self.shared('shared')}"}
        return found | ({"Redis": f"unix://{self.redis_socket}"} if self.redis_socket else {})

    def theirs(self) -> dict[str, str]:
        """The name of each storage, and its URI for Flask-Limiter."""
        found = {"memory": "memory://"}
        return found | ({"Redis": f"redis+unix://{self.redis_socket}"} if self.redis_socket else {})

    def redis(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=self.redis_socket)


@contextmanager
def backends() -> Iterator[Backends]:
    with TemporaryDirectory(dir=_memory()) as name:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if not program:
            print(
                "Redis is left out: there is no redis-server here (apt install redis-server)",
                file=sys.stderr,
            )
            yield Backends(Path(name), "")
            return
        socket = Path(name, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", name]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not socket.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            found = Backends(Path(name), str(socket))
            found.redis().ping()
            yield found
        finally:
            process.terminate()
            process.wait()


def _memory() -> str | None:
    """A folder whose files are in memory and which has room for all counters. None stands for the
    system's temporary folder."""
    found = "/dev/shm"
    roomy = os.access(found, os.W_OK) and shutil.disk_usage(found).free > ROOM_BYTES
    return found if roomy else None
