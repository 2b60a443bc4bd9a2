"""Open connections to a Redis server, and a pool that makes new ones in the background.

redis-py only connects (addresses, authentication, TLS). After that its socket is used directly:
every reply is one line, and one deadline holds for all of its bytes together, where redis-py would
start its timeout again with each piece.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...errors import StorageDownError, StorageError, StorageRequestError
from ..patience import shared_deadline
from .address import SOCKET_ATTRIBUTE

if TYPE_CHECKING:
    from redis.connection import AbstractConnection

MAX_REPLY_BYTES = 1 << 16
"""No reply to a command of this package is longer."""
RECV_BYTES = 1 << 12
"""Size of the buffer of one read."""

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """One open connection. Only one thread may use it at a time.

    :param connection: an open connection of redis-py, which nobody else uses.
    """

    __slots__ = ("_connection", "_socket")

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        sock: Any = getattr(connection, SOCKET_ATTRIBUTE)
        sock.settimeout(0)
        self._socket = sock

    def is_clean(self) -> bool:
        """Whether the connection is open and has no unread bytes, as it must be before each use."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except _WOULD_BLOCK:
            return True
        except OSError:
            pass
        return False

    def ask(self, command: bytes, deadline: float) -> bytes:
        """Send a command whose reply is one line, and return that line without its line end.

        It is not checked that the bytes are one line of the protocol: the caller does that. A reply
        that has come is read even if this thread only gets to run after the deadline, as happens on
        a busy machine.

        :param deadline: seconds by the monotonic clock, for sending and receiving all of it.
        :raises OSError: there is no whole reply by then, or the connection is lost.
        :raises StorageError: the reply is too long.
        """
        sock = self._socket
        # The socket does not block yet: usually the kernel's buffer takes the command at once.
        try:
            sent = sock.send(command)
        except _WOULD_BLOCK:
            sent = 0
        if sent < len(command):
            sock.settimeout(_left_s(deadline))
            sock.sendall(command[sent:])
        reply = b""
        while not reply.endswith(b"\r\n"):
            part = _receive(sock, deadline)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            reply += part
            if len(reply) > MAX_REPLY_BYTES:
                raise StorageError(f"not a reply of Redis, since it is too long: {reply[:80]!r}")
        return reply[:-2]

    def close(self) -> None:
        """Close the connection. In a forked child that inherited it, the parent's stays open."""
        self._connection.disconnect()


def _receive(sock: Any, deadline: float) -> bytes:
    """What arrives before the deadline. After the deadline, what has arrived already.

    :raises TimeoutError: nothing has.
    """
    left = deadline - monotonic()
    if left > 0:
        sock.settimeout(left)
        try:
            received: bytes = sock.recv(RECV_BYTES)
            return received
        except TimeoutError:
            pass
    sock.settimeout(0)
    try:
        received = sock.recv(RECV_BYTES)
    except _WOULD_BLOCK:
        raise TimeoutError("timed out") from None
    return received


def _left_s(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class ConnectionPool:
    """The open connections of one process to one server, each lent to one caller at a time.

    Callers do not connect themselves. While some wait, a short-lived daemon thread opens one
    connection after the other, so a name server or Redis server that hangs holds up that thread
    only, and callers wait no longer than their timeout. Any thread may call every method; a forked
    child must make a pool of its own.

    :param connect: returns an open connection, or raises. Called by the daemon thread only.
    :param max_size: how many connections may be open at once.
    :param timeout_s: the longest time that :meth:`borrow` may wait.
    """

    def __init__(
        self, connect: Callable[[], Connection], *, max_size: int, timeout_s: float
    ) -> None:
        self._connect = connect
        self._max_size = max_size
        self._timeout_s = timeout_s
        # A stack: the connection used last is lent first, so that those which a burst opened stay
        # idle until the server closes them. append() and pop() of a list are atomic, so that only
        # callers that have to wait take the lock.
        self._idle: list[Connection] = []
        self._changed = Condition()
        # Guarded by _changed; _waiting may be read without it.
        self._open = 0
        self._waiting = 0
        self._connecting = False
        self._failures = 0
        self._failure: Exception | None = None

    def borrow(self) -> Connection:
        """An open connection, which the caller must give back or discard.

        :raises StorageDownError: connecting was refused, or failed and no connection is open.
        :raises StorageRequestError: all connections that may be open are in use. Whether the server
            works, the requests that use them will find out.
        :raises StorageError: connecting failed in another way, or takes longer than the timeout.
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
        """Return a borrowed connection whose last reply was read to its end."""
        self._idle.append(connection)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def discard(self, connection: Connection) -> None:
        """Close a borrowed connection: it is broken, or a reply may still arrive on it."""
        connection.close()
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def discard_idle(self) -> None:
        """Close the connections that nobody has borrowed."""
        while self._idle:
            try:
                self.discard(self._idle.pop())
            except IndexError:  # another thread took the last one
                return

    def _wait(self) -> Connection:
        deadline = monotonic() + self._timeout_s
        deadline = min(deadline, shared_deadline.get() or deadline)
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
                        raise self._not_connected() from self._failure
                    left = deadline - monotonic()
                    if left <= 0:
                        raise self._not_in_time()
                    self._start_connecting()
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _not_connected(self) -> StorageError:
        """The exception for callers that wait, after connecting has failed. Requires that the lock
        is held."""
        refused = isinstance(self._failure, ConnectionRefusedError) or (
            self._failure and isinstance(self._failure.__context__, ConnectionRefusedError)
        )
        kind = StorageDownError if refused or not self._open else StorageError
        return kind(f"cannot connect: {self._failure}")

    def _not_in_time(self) -> StorageError:
        """The exception for a caller that has waited too long. Requires that the lock is held."""
        if self._open >= self._max_size:
            return StorageRequestError(
                f"all {self._max_size} connections were in use for {self._timeout_s} s: raise "
                "max_connections in the storage's URI"
            )
        return StorageError(f"no open connection within {self._timeout_s} s")

    def _start_connecting(self) -> None:
        """Start the thread that connects, unless it runs. Requires that the lock is held."""
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
            except Exception as error:  # noqa: BLE001 - whatever it is, callers wait to be told
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
