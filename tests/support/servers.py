"""Starts real servers for tests on free ports, waits until they answer, and stops them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple, TypeAlias

ROOT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 60
STOP_DEADLINE_S = 10
DECIDING = {"REDIS_URL", "SECRET_KEY", "THROTTLE_MODE", "WSGI_THROTTLE_CONFIG"}
"""Variables of the environment that no test's server inherits, since they change its
configuration."""


def wait_until(
    condition: Callable[[], object], deadline_s: float = 30, what: str = "the condition"
) -> Any:
    """Ask until ``condition()`` is true, and return what it returned.

    :raises AssertionError: it was not true within ``deadline_s``.
    """
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_s} s")
        time.sleep(0.01)
    return found


class Response(NamedTuple):
    status: int
    headers: Message
    """Looked up in any case; ``get_all`` returns all headers of a name."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


Address: TypeAlias = "tuple[str, int] | str"
"""(host, port), or the path of a unix socket."""


class Server:
    """A server process that is ready to answer."""

    def __init__(self, process: subprocess.Popen[bytes], address: Address, log: IO[bytes]) -> None:
        self.process = process
        self.address = address
        self._log = log

    @property
    def log(self) -> str:
        """Everything that the server has written so far."""
        self._log.flush()
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where it listens, unless it listens on a unix socket."""
        assert not isinstance(self.address, str), self.address
        return self.address

    def connect(self, source: str = "", timeout: float = 30) -> http.client.HTTPConnection:
        """A connection, not opened yet.

        :param source: the client's own address, any of 127.0.0.0/8.
        """
        if isinstance(self.address, str):
            return UnixConnection(self.address, timeout)
        return http.client.HTTPConnection(
            *self.address, timeout=timeout, source_address=(source, 0) if source else None
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        source: str = "",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request, on a connection of its own."""
        connection = self.connect(source)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def post(self, path: str, form: str = "", **options: Any) -> Response:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        headers.update(options.pop("headers", {}))
        return self.request("POST", path, body=form, headers=headers, **options)

    def signal(self, number: signal.Signals) -> None:
        """Signal the process that was started; of gunicorn that is the master."""
        self.process.send_signal(number)


@contextmanager
def running(
    command: list[str],
    *,
    ready: Callable[[str], Address | None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: tuple[int, ...] = (),
) -> Iterator[Server]:
    """Run ``command`` until the block ends.

    :param ready: called with the log so far; returns the address that the server listens on, or
        None as long as it is not ready. The block begins when it is.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in DECIDING}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cwd or ROOT,
            env={**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})},
            pass_fds=pass_fds,
        )
        server = Server(process, "", log)
        try:
            end = time.monotonic() + START_DEADLINE_S
            while not (address := ready(server.log)):
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"{command} did not start:\n{server.log[-5000:]}")
                time.sleep(0.01)
            server.address = address
            yield server
        finally:
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def gunicorn(
    app: str,
    *options: str,
    workers: int = 4,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    unix_socket: Path | None = None,
) -> Iterator[Server]:
    """Run gunicorn until the block ends, which begins when all workers have loaded ``app``.

    :param app: ``module:callable``, found in ``cwd``, in tests/ or in the repository's root.
    :param options: of gunicorn's command line, such as ``--preload``.
    :param unix_socket: where it listens, in place of a free port of 127.0.0.1.
    """
    listener: socket.socket | None = None
    address: Address
    if unix_socket:
        address, bind = str(unix_socket), f"unix:{unix_socket}"
    else:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        address, bind = listener.getsockname(), f"fd://{listener.fileno()}"
    command = [sys.executable, "-m", "gunicorn", f"--config={ROOT / 'tests' / 'gunicorn_conf.py'}"]
    command += [f"--workers={workers}", f"--bind={bind}", *options, app]
    try:
        with running(
            command,
            ready=lambda log: address if log.count("worker is ready") >= workers else None,
            env=env,
            cwd=cwd,
            pass_fds=(listener.fileno(),) if listener else (),
        ) as server:
            if listener:
                listener.close()  # so that connections are refused when the server has ended
            yield server
    finally:
        if listener:
            listener.close()
