"""Counters in Redis, for many hosts. A request calls one script, which uses the server's clock."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

from redis.exceptions import NoPermissionError, ResponseError

from ...decision import Charge, Decision, Take, Terms
from ...errors import StorageError, StorageRequestError
from ...log_once import LogOnce
from ..fork import ForkLock, mark, notice_fork
from ..patience import shared_deadline
from .address import MAX_CONNECTIONS, Connect, parse
from .pool import Connection, ConnectionPool
from .resp import Script, TakeCommand, bulk, delete_command, parse_decision

SCRIPT = Path(__file__).with_name("take.lua").read_bytes()

_INFO_CLUSTER = b"*2\r\n" + bulk(b"INFO") + bulk(b"cluster")
_PING = b"*1\r\n" + bulk(b"PING")

_FOR_ALL = re.compile(
    rb"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM|NOREPLICAS|READONLY|UNKILLABLE"
    rb"|can't run this command)\b"
)
"""What is in the errors that a server answers when it can count nobody. Before version 7, errors of
commands inside a script are quoted in the middle of the line. Any other error concerns the one
command alone: its keys are in several slots of a Cluster, or there is no memory for a new key."""

_REMEDIES = {
    b"OOM": "raise its maxmemory, or set maxmemory-policy to volatile-ttl",
}

_NODE_OF_A_CLUSTER = (
    "%r is a node of a Redis Cluster, which cannot be used here: the counters of one request may "
    "be on several nodes. Name a Redis that is no part of a Cluster"
)

_DENIED = b"-NOPERM"
_MAY_NOT = "; ACL SETUSER must allow its user +eval +evalsha +time +mget +set +del"


class RedisStorage:
    """Counters in a Redis or Valkey server, 6.2 or newer, or in the master that Sentinel names.

    Each state has a key of its own, ``bucket:tag of the limit``, with a TTL. Any thread may call
    every method. A forked child opens connections of its own.

    :param connect: returns an open connection of redis-py; called by a short-lived daemon thread.
    :param timeout_s: the longest wait for an open connection, and again for the reply.
    :param max_connections: how many may be open at once, in each process.
    :param name: the server, for messages; without user and password.
    """

    reach = "network"

    def __init__(
        self,
        connect: Connect,
        *,
        timeout_s: float,
        max_connections: int = MAX_CONNECTIONS,
        name: str = "redis://",
    ) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._name = name
        self._script = Script(SCRIPT)
        self._pool: ConnectionPool | None = None
        self._log_once = LogOnce(60.0)
        self._is_examined = False
        self._at_fork = ForkLock(after_in_child=self._forget_pool)  # only its hook

    @classmethod
    def from_uri(
        cls, uri: str, *, application_id: str = "", timeout_s: float = 0.1
    ) -> RedisStorage:
        """The storage of a ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``, ``unix://``
        or ``redis+sentinel://`` URI.
        Connects to nothing.

        :param application_id: not used: applications are told apart by their ``namespace``.
        :raises StorageURIError: an unknown option, a value that is not allowed, or a version of
            redis-py that cannot be used.
        """
        address = parse(uri)
        return cls(
            address.connect,
            timeout_s=timeout_s,
            max_connections=address.max_connections,
            name=address.name,
        )

    def __repr__(self) -> str:
        return f"<RedisStorage {self._name}>"

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`. Each call of the function that it returns is one round trip."""
        command = TakeCommand(terms).encode
        evalsha, evaluate, ask = self._script.evalsha, self._script.evaluate, self._ask
        on_unreadable = self._log_unreadable

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            if look:
                costs = [0] * len(terms)
            asked = command(evalsha, buckets, costs)
            line = ask(asked, lambda: command(evaluate, buckets, costs))
            return parse_decision(line, terms, buckets, costs, on_unreadable)

        return take

    def reset(self, charges: Sequence[Charge]) -> int:
        """See :class:`.Storage`."""
        if not charges:
            return 0
        line = self._ask(delete_command(charges))
        if not re.fullmatch(b":[0-9]+", line):
            raise StorageError(f"not an answer to DEL: {line[:80]!r}")
        return int(line[1:])

    def ping(self) -> None:
        """See :class:`.Storage`. Where it has to connect, it loads the script as well."""
        line = self._ask(_PING, may_be_denied=True)
        if line != b"+PONG" and not line.startswith(_DENIED):
            raise StorageError(f"not an answer to PING: {line[:80]!r}")

    def close(self) -> None:
        """See :class:`.Storage`."""
        pool, self._pool = self._pool, None
        if pool:
            pool.discard_idle()  # those in use are closed once nothing refers to the pool

    def _ask(
        self,
        command: bytes,
        unknown_script: Callable[[], bytes] | None = None,
        *,
        may_be_denied: bool = False,
    ) -> bytes:
        """Send the command and return the line of its reply. Does not try again after a failure,
        since the request may have been counted.

        :param unknown_script: makes the command to send instead if the server does not have the
            script, and so has counted nothing.
        :param may_be_denied: return it as any other reply if the user may not send this command.
        :raises StorageRequestError: the server refuses this command, which says nothing of others;
            or all connections are in use.
        :raises StorageError: there was no connection, no reply in time, or an error in the reply.
        """
        if not mark[0]:
            notice_fork()
        pool = self._pool or self._new_pool()
        connection = pool.borrow()
        deadline = monotonic() + self._timeout_s
        shared = shared_deadline.get()
        if shared is not None and shared < deadline:
            deadline = shared
        try:
            line = connection.ask(command, deadline)
            if unknown_script and line.startswith(b"-NOSCRIPT"):
                line = connection.ask(unknown_script(), deadline)
            if may_be_denied and line.startswith(_DENIED):
                pass
            elif line.startswith(b"-") and _FOR_ALL.search(line):
                raise StorageError(_answered(line))
        except BaseException as error:
            pool.discard(connection)
            if not isinstance(error, (OSError, StorageError)):
                raise
            pool.discard_idle()
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"no answer from Redis: {error}") from error
        pool.give_back(connection)
        if line.startswith(b"-") and not may_be_denied:
            self._log_refused(line)
            raise StorageRequestError(_answered(line))
        return line

    def _log_refused(self, line: bytes) -> None:
        if line.startswith((b"-CROSSSLOT", b"-MOVED")):
            self._log_once("cluster", logging.ERROR, _NODE_OF_A_CLUSTER, self)
            return
        kind = next((word for word in _REMEDIES if word in line), line[1:].partition(b" ")[0])
        remedy = _REMEDIES.get(kind)
        self._log_once(
            kind,
            logging.WARNING,
            "%r: %s. A request that it refuses is treated as on_storage_error says%s",
            self,
            _answered(line),
            f"; {remedy}" if remedy else "",
        )

    def _log_unreadable(self, number: int) -> None:
        self._log_once(
            "unreadable",
            logging.WARNING,
            "%r: what was counted for a client was unreadable and is replaced (%d limits); does "
            "something else write to keys of this namespace?",
            self,
            number,
        )

    def _open_connection(self) -> Connection:
        """A connection to a server that answers, and now has the script if this user may load it.
        Otherwise the first request sends it."""
        connection = self._connect()
        examine = not self._is_examined
        commands = [self._script.load, *([_INFO_CLUSTER] if examine else [])]
        connection.send_packed_command(commands, check_health=False)
        try:
            connection.read_response()
        except ResponseError as error:
            if not isinstance(error, NoPermissionError) and "unknown command" not in str(error):
                raise
        if examine:
            with suppress(ResponseError):  # then the user may not ask
                if b"cluster_enabled:1" in connection.read_response():
                    self._log_once("cluster", logging.ERROR, _NODE_OF_A_CLUSTER, self)
            self._is_examined = True
        return Connection(connection)

    def _new_pool(self) -> ConnectionPool:
        # Made by the first request and not earlier: gevent may replace threading's locks after a
        # preloaded application has been forked and before its first request. If two threads make
        # one at once, the pool that is not kept is closed when its request is over.
        made = ConnectionPool(
            self._open_connection, max_size=self._max_connections, timeout_s=self._timeout_s
        )
        self._pool = made
        return made

    def _forget_pool(self) -> None:
        # The connections are the parent's. Dropping the pool closes this process's copies only.
        self._pool = None


def _answered(line: bytes) -> str:
    remedy = _MAY_NOT if b"NOPERM" in line or b"can't run this" in line else ""
    return f"Redis answered {line[:200].decode(errors='replace')!r}{remedy}"
