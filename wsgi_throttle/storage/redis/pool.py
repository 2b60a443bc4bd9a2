"""Open connections to a Redis server, for callers that must never wait for one to be made.

redis-py connects (addresses, authentication, TLS); from then on its socket is used directly, since
every reply is one line and all of its bytes together have one deadline.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...errors import StorageError
from .address import SOCKET_ATTRIBUTE

if TYPE_CHECKING:
    from redis.connection import AbstractConnection

MAX_REPLY_BYTES = 1 << 16
"""Bytes of a reply; what goes on for longer is not one of ours."""
RECV_BYTES = 1 << 12
"""Bytes that are read at once at most, and room made for."""

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """One open connection, used by one thread at a time.

    :param connection: an open connection of redis-py, which is to have no other user.
    """

    __slots__ = ("_connection", "_socket")

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        sock: Any = getattr(connection, SOCKET_ATTRIBUTE)
        sock.settimeout(0)
        self._socket = sock

    def is_clean(self) -> bool:
        """Whether the connection is open and nothing waits to be read, as it must be before use."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except _WOULD_BLOCK:
            return True
        except OSError:
            pass
        return False

    def ask(self, command: bytes, deadline: float) -> bytes:
        """The server's reply to a command that is answered with one line, without its line end.

        What is no such line may come back as well: it is for the caller to look.

        :param deadline: by the monotonic clock, for all of it.
        :raises OSError: no whole reply by then, or the connection is lost.
        :raises StorageError: it is too long to be one.
        """
        sock = self._socket
        # A command is taken at once unless the buffer is full, so that nothing waits here.
        try:
            sent = sock.send(command)
        except _WOULD_BLOCK:
            sent = 0
        if sent < len(command):
            sock.settimeout(_left_s(deadline))
            sock.sendall(command[sent:])
        reply = b""
        while not reply.endswith(b"\r\n"):
            sock.settimeout(_left_s(deadline))
            part = sock.recv(RECV_BYTES)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            reply += part
            if len(reply) > MAX_REPLY_BYTES:
                raise StorageError(f"not a reply of Redis: {reply[:80]!r}")
        return reply[:-2]

    def close(self) -> None:
        """Close the connection. Where it was inherited, the parent's stays open."""
        self._connection.disconnect()


def _left_s(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class ConnectionPool:
    """The open connections of one process to one server, each lent to one caller at a time.

    Callers wait for an open connection, never for the making of one: a short-lived daemon thread
    makes them, one after the other, while somebody waits. A resolver or a server that hangs thus
    holds that thread alone. Any thread may call every method; a forked child is to make its own.

    :param connect: makes an open connection, or raises. Called by the daemon thread only.
    :param max_size: how many may be open at once.
    :param timeout_s: the longest that :meth:`borrow` may wait.
    """

    def __init__(
        self, connect: Callable[[], Connection], *, max_size: int, timeout_s: float
    ) -> None:
        self._connect = connect
        self._max_size = max_size
        self._timeout_s = timeout_s
        # The last one used comes first, so that what a burst opened is left idle for the server
        # to close. append() and pop() of a list are atomic: only who has to wait takes the lock.
        self._idle: list[Connection] = []
        self._changed = Condition()
        # Guarded by _changed; _waiting may be read without it.
        self._open = 0
        self._waiting = 0
        self._connecting = False
        self._failures = 0
        self._failure: Exception | None = None

    def borrow(self) -> Connection:
        """An open connection, which the caller gives back or discards.

        :raises StorageError: none could be made, or there was none within the timeout.
        """
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._wait()
            if connection.is_clean():
                return connection
            self.discard(connection)

    def give_back(self, connection: Connection) -> None:
        """For a connection whose last reply was read whole."""
        self._idle.append(connection)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def discard(self, connection: Connection) -> None:
        """For a connection that is closed, or of which it is unknown what will be read next."""
        connection.close()
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def discard_idle(self) -> None:
        """Close those that nobody uses, since the server has failed or is not needed any more."""
        while self._idle:
            try:
                self.discard(self._idle.pop())
            except IndexError:  # another thread took the last one
                return

    def _wait(self) -> Connection:
        deadline = monotonic() + self._timeout_s
        with self._changed:
            failures = self._failures
            self._waiting += 1
            try:
                while True:
                    try:
                        return self._idle.pop()
                    except IndexError:
                        pass
                    if self._failures != failures:
                        raise StorageError(f"cannot connect: {self._failure}") from self._failure
                    left = deadline - monotonic()
                    if left <= 0:
                        raise StorageError(f"no open connection within {self._timeout_s} s")
                    self._start_connecting()
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _start_connecting(self) -> None:
        """Start the thread that connects, unless there is one. Requires that the lock is held."""
        if self._connecting or self._open >= self._max_size:
            return
        thread = Thread(
            target=self._connect_while_wanted, name="wsgi_throttle-connect", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter shuts down
            raise StorageError(f"cannot connect: {error}") from error
        self._connecting = True

    def _connect_while_wanted(self) -> None:
        more_wanted = True
        while more_wanted:
            try:
                connection = self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers wait for word
                with self._changed:
                    self._connecting = False
                    self._failures += 1
                    self._failure = error.with_traceback(None)
                    self._changed.notify_all()
                return
            with self._changed:
                self._open += 1
                self._idle.append(connection)
                more_wanted = len(self._idle) < self._waiting and self._open < self._max_size
                self._connecting = more_wanted
                self._changed.notify()
