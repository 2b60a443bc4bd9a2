"""Sends requests at a steady rate, and keeps every answer, while a test stops or breaks
something."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

from support.servers import Server, wait_until

RATE = 300
"""Requests a second that are aimed at. A busy machine manages fewer."""
THREADS = 8
PATIENCE_S = 30.0


class Answer(NamedTuple):
    path: str
    source: str
    at: float
    """When the request was sent, in seconds of the monotonic clock."""
    seconds: float
    status: int
    head: str
    """The status line and the header lines, as they came."""

    def header(self, name: str) -> str:
        """Its value; empty if it is absent."""
        for line in self.head.splitlines():
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return ""


class Load:
    """GET requests for each of these paths from each of these addresses, by turns, while the block
    of
    :meth:`running` lasts.

    ``answers`` and ``errors`` may be read at any time. An error is a request that got no answer, or
    a part of one.

    :param rate: requests a second, of all threads together.
    """

    def __init__(
        self,
        server: Server,
        paths: Sequence[str],
        sources: Sequence[str] = ("127.0.0.1",),
        *,
        rate: float = RATE,
        threads: int = THREADS,
    ) -> None:
        self.answers: list[Answer] = []
        self.errors: list[str] = []
        self._server = server
        self._plan = [(path, source) for source in sources for path in paths]
        self._pause_s = threads / rate
        self._threads = threads
        self._numbers = count()
        self._began = self._ended = 0.0

    @contextmanager
    def running(self) -> Iterator[Load]:
        over = threading.Event()
        clients = [threading.Thread(target=self._run, args=(over,)) for _ in range(self._threads)]
        self._began = time.monotonic()
        for client in clients:
            client.start()
        try:
            yield self
        finally:
            over.set()
            for client in clients:
                client.join()
            self._ended = time.monotonic()

    def until(self, what: Callable[[], object], name: str, patience_s: float = PATIENCE_S) -> None:
        """Go on until ``what()`` is true."""
        wait_until(what, patience_s, name)

    def go_on(self, seconds: float) -> None:
        """Go on for so long, and until at least some requests have been answered."""
        answered, end = len(self.answers), time.monotonic() + seconds
        self.until(
            lambda: time.monotonic() >= end and len(self.answers) >= answered + 20,
            "20 more answers",
            PATIENCE_S + seconds,
        )

    @property
    def slowest_s(self) -> float:
        return max(answer.seconds for answer in self.answers)

    @property
    def rate(self) -> float:
        """Requests a second that were answered."""
        return len(self.answers) / ((self._ended or time.monotonic()) - self._began)

    def statuses(self) -> dict[str, Counter[int]]:
        """For each path, how often it was answered with each status."""
        found: dict[str, Counter[int]] = {}
        for answer in list(self.answers):
            found.setdefault(answer.path, Counter())[answer.status] += 1
        return found

    def _run(self, over: threading.Event) -> None:
        next_at = time.monotonic()
        while not over.wait(max(0.0, next_at - time.monotonic())):
            # Requests that a slow machine has missed are not sent later in a burst.
            next_at = max(next_at + self._pause_s, time.monotonic() - self._pause_s)
            path, source = self._plan[next(self._numbers) % len(self._plan)]
            began = time.monotonic()
            try:
                status, head = get(self._server, path, source)
            except (OSError, ValueError) as error:
                self.errors.append(f"{path}: {error!r}")
                continue
            seconds = time.monotonic() - began
            self.answers.append(Answer(path, source, began, seconds, status, head))


def get(server: Server, path: str, source: str) -> tuple[int, str]:
    """Send a request on a connection of its own.

    :return: the status and the head of the answer.
    :raises ValueError: what came is not a whole answer.
    """
    host, port = server.host_and_port
    with socket.create_connection((host, port), PATIENCE_S, (source, 0)) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    answer = Answer(path, source, 0, 0, int(head[9:12] or 0), head)
    if len(body) != int(answer.header("Content-Length") or -1):
        raise ValueError(f"not a whole answer: {received[:200]!r}")
    return answer.status, head
