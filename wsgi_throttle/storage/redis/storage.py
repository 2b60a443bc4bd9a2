"""Counting in Redis, for many hosts: one script call a request, by the server's own clock."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha1
from pathlib import Path
from struct import pack
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlencode, urlsplit

from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...cache import Prepared
from ...decision import Charge, Charges, Decision, Limit, Line
from ...errors import StorageError, StorageURIError
from ...strategies import STRATEGIES
from ..fork import ForkLock
from ..uri import options, whole_number
from .pool import Connections, Link

SCRIPT = Path(__file__).with_name("take.lua").read_bytes()

CONNECT_TIMEOUT_S = 1.0
"""For each step of connecting, which no request waits for."""

MOST_CONNECTIONS = 32
"""Of one process, unless the URI says ``max_connections``."""

SENTINEL_PORT = 26379

_OPTIONS = {"db", "username", "password", "client_name", "max_connections"}
_TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
}
_KNOWN_OPTIONS = {
    "redis": _OPTIONS,
    "rediss": _OPTIONS | _TLS_OPTIONS,
    "unix": _OPTIONS,
    "redis+sentinel": _OPTIONS | _TLS_OPTIONS | {"ssl", "sentinel_username", "sentinel_password"},
}

_Prepared: TypeAlias = tuple[bytes, bytes, list[tuple[int, str]], bytes]
"""Of a command for these lines: how it begins, how many keys there are, the place of the bucket of
each key and its limit, and all arguments."""

Connect: TypeAlias = Callable[[], AbstractConnection]


class RedisStorage:
    """Counters in a Redis or Valkey server, 6.2 or newer, or in what Sentinel names as the master.

    Each state has a key of its own, ``bucket:limit``, and is forgotten by the server once it can
    no longer matter. Safe for any thread, and for a forked child, which connects anew.

    :param connect: makes an open connection of redis-py; called by a short-lived daemon thread.
    :param timeout_s: the longest wait for an open connection, and again for the reply.
    :param name: where the server is, for messages; without secrets.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        timeout_s: float,
        most_connections: int = MOST_CONNECTIONS,
        name: str = "redis://",
        script: bytes = SCRIPT,
    ) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._most = most_connections
        self._name = name
        self._load = b"*3\r\n" + _bulk(b"SCRIPT") + _bulk(b"LOAD") + _bulk(script)
        self._eval = _bulk(b"EVAL") + _bulk(script)
        digest = sha1(script, usedforsecurity=False).hexdigest()
        self._evalsha = _bulk(b"EVALSHA") + _bulk(digest.encode())
        self._prepared: Prepared[_Prepared] = Prepared(1024)
        self._connections: Connections | None = None
        self._at_fork = ForkLock(after_in_child=self._forget_connections)  # guards nothing

    @classmethod
    def from_uri(cls, uri: str, *, identity: str = "", timeout_s: float = 0.1) -> RedisStorage:
        """The storage of a ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://`` URI.

        Connects to nothing.

        :param identity: not used: the URI says in full where the counters are.
        :raises StorageURIError: an unknown option, or a value that does not fit.
        """
        scheme = urlsplit(uri).scheme
        found = options(uri, _KNOWN_OPTIONS[scheme])
        whole_number("db", found.get("db", "0"), least=0)
        most = found.get("max_connections", str(MOST_CONNECTIONS))
        find = _via_sentinel if scheme == "redis+sentinel" else _direct
        try:
            connect, name = find(uri, found)
        except RedisError as error:
            raise StorageURIError(f"a {scheme}:// URI that redis-py cannot use: {error}") from error
        return cls(
            connect,
            timeout_s=timeout_s,
            most_connections=whole_number("max_connections", most, least=1),
            name=name,
        )

    def __repr__(self) -> str:
        return f"<RedisStorage {self._name}>"

    def take(self, charges: Sequence[Charge]) -> Decision:
        """See :class:`.Storage`. One round trip; without charges, it asks whether Redis answers."""
        evalsha, evaluate = self._take_commands(charges)
        return _decision(charges, self._ask(evalsha, evaluate))

    def reset(self, charges: Sequence[Charge]) -> None:
        """See :class:`.Storage`."""
        if charges:
            keys = b"".join(map(_key, charges))
            command = b"*%d\r\n%b%b" % (1 + len(charges), _bulk(b"DEL"), keys)
            line = self._ask(command)
            if not re.fullmatch(b":[0-9]+", line):
                raise StorageError(f"not an answer to DEL: {line[:80]!r}")

    def close(self) -> None:
        """See :class:`.Storage`."""
        connections, self._connections = self._connections, None
        if connections:
            connections.discard_idle()  # one in use is closed when it is given back to nobody

    def _take_commands(self, charges: Sequence[Charge]) -> tuple[bytes, Callable[[], bytes]]:
        """The command that takes, and a function that makes the one which brings the script."""
        if charges.__class__ is not Charges:
            charges = Charges.of(charges)
        lines, buckets = charges.lines, charges.buckets
        known = self._prepared.get(id(lines))
        begin, keys, tags, arguments = known[1] if known else self._prepare(lines)
        words = [begin, self._evalsha, keys]
        for place, tag in tags:
            key = f"{buckets[place]}:{tag}".encode()
            words.append(b"$%d\r\n%b\r\n" % (len(key), key))
        words.append(arguments)
        return b"".join(words), lambda: b"".join((words[0], self._eval, *words[2:]))

    def _prepare(self, lines: Sequence[Line]) -> _Prepared:
        begin, keys = b"*%d\r\n" % (3 + 2 * len(lines)), _bulk(b"%d" % len(lines))
        tags = [(place, limit.tag) for place, limit, _, _, _ in lines]
        arguments = [_argument(limit, cost, enforce) for _, limit, cost, enforce, _ in lines]
        return self._prepared.keep_for(lines, (begin, keys, tags, b"".join(arguments)))

    def _ask(self, command: bytes, unknown_script: Callable[[], bytes] | None = None) -> bytes:
        """Send the command, once, and return the line that answers it.

        :param unknown_script: what to send in its place where the server does not have the script,
            and so has charged nothing.
        :raises StorageError: the server could not be asked, did not answer in time, or refused.
        """
        connections = self._connections or self._first_connections()
        link = connections.borrow()
        deadline = monotonic() + self._timeout_s
        try:
            line = link.ask(command, deadline)
            if unknown_script and line.startswith(b"-NOSCRIPT"):
                line = link.ask(unknown_script(), deadline)
            if line.startswith(b"-"):
                raise StorageError(f"Redis answered {line[:200].decode(errors='replace')!r}")
        except BaseException as error:
            connections.discard(link)
            if not isinstance(error, (OSError, StorageError)):
                raise
            connections.discard_idle()
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"no answer of Redis: {error}") from error
        connections.give_back(link)
        return line

    def _open(self) -> Link:
        """A connection to a server that answers and knows the script."""
        connection = self._connect()
        connection.send_packed_command([self._load], check_health=False)
        connection.read_response()
        return Link(connection)

    def _first_connections(self) -> Connections:
        # Made by the first request and not before: between the fork of a preloaded application and
        # its first request gevent replaces what locks are made of. Where two threads are first, one
        # of the two sets goes by itself.
        made = Connections(self._open, most=self._most, timeout_s=self._timeout_s)
        self._connections = made
        return made

    def _forget_connections(self) -> None:
        # The inherited ones are the parent's. Dropped, they are closed here and stay open there.
        self._connections = None


# --- what is sent and what comes back ------------------------------------------------------------


def _bulk(text: bytes) -> bytes:
    """One word of a command, as the Redis serialization protocol (RESP2) writes it."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _key(charge: Charge) -> bytes:
    return _bulk(f"{charge.bucket}:{charge.limit.tag}".encode())


def _argument(limit: Limit, cost: int, enforce: bool) -> bytes:
    """What take.lua is to know of a charge."""
    lifetime_ms = STRATEGIES[limit.strategy].lifetime_ms(limit)
    numbers = pack(">B5d", enforce, cost, limit.quota, limit.window_ms, limit.burst, lifetime_ms)
    return _bulk(numbers + limit.strategy.encode() + b"\0")


def _decision(charges: Sequence[Charge], line: bytes) -> Decision:
    """What a reply of take.lua says."""
    try:
        granted, *numbers = map(int, line[1:].split())
    except ValueError:
        granted, numbers = -1, []
    if line[:1] != b"+" or granted not in (0, 1) or len(numbers) != 3 * len(charges):
        raise StorageError(f"not an answer of take.lua: {line[:80]!r}")
    three = iter(numbers)
    return Decision(granted == 1, charges, list(zip(three, three, three, strict=True)))


# --- where the server is -------------------------------------------------------------------------


def _direct(uri: str, found: dict[str, str]) -> tuple[Connect, str]:
    """How to connect to the server that a URI of redis-py names, and a name for it."""
    parts = urlsplit(uri)
    new_connection = _connections_of(uri)

    def connect() -> AbstractConnection:
        connection = new_connection()
        connection.connect()
        return connection

    return connect, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _via_sentinel(uri: str, found: dict[str, str]) -> tuple[Connect, str]:
    """How to connect to the master of the moment, and a name for it."""
    parts = urlsplit(uri)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path[1:].partition("/")
    if not hosts or not service:
        raise StorageURIError(
            "Sentinel needs hosts and a service: redis+sentinel://host:26379,other:26379/service"
        )
    addresses = []
    for host in hosts.split(","):
        address = urlsplit(f"//{host}")
        addresses.append((address.hostname or "localhost", _port(address) or SENTINEL_PORT))

    tls = found.get("ssl", "false")
    if tls not in ("true", "false"):
        raise StorageURIError(f'ssl is "{tls}": use true or false')
    scheme = "rediss" if tls == "true" else "redis"
    query = urlencode({name: found[name] for name in found if name in _OPTIONS | _TLS_OPTIONS})
    new_connection = _connections_of(f"{scheme}://{user}{at}/{db}?{query}")

    settings = {name: new_connection.keywords.get(name) for name in _TLS_OPTIONS if name in found}
    settings |= _settings() | {"ssl": tls == "true"}
    settings |= {name: found.get(f"sentinel_{name}") for name in ("username", "password")}

    def connect() -> AbstractConnection:
        sentinel = Sentinel(addresses, sentinel_kwargs=settings)
        try:
            host, port = sentinel.discover_master(service)
        finally:
            for client in sentinel.sentinels:
                client.close()
        connection = new_connection(host=host, port=port)
        connection.connect()
        return connection

    return connect, f"redis+sentinel://{hosts}/{service}"


def _connections_of(uri: str) -> partial[AbstractConnection]:
    """What makes connections to this server, not open yet, with settings that are known to fit."""
    parts = urlsplit(uri)
    _port(parts)
    # No message shows a part of the URI that a password may have run into.
    if parts.fragment:
        raise StorageURIError("# ends a URI: write %23 in a password")
    if parts.scheme == "unix":
        if not parts.path:
            raise StorageURIError("a unix:// URI names a socket: unix:///run/redis/redis.sock")
    elif not re.fullmatch("/?[0-9]*", parts.path):
        raise StorageURIError("after the host stands the number of a database, as in /0")
    try:
        pool = ConnectionPool.from_url(uri, **_settings())
    except ValueError as error:
        raise StorageURIError(str(error)) from error
    new_connection = partial(pool.connection_class, **pool.connection_kwargs)
    new_connection()
    return new_connection


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # whose text may hold a part of the password
        raise StorageURIError(
            "the port is not a number (in a password, : / ? # @ are written %3A %2F %3F %23 %40)"
        ) from None


def _settings() -> dict[str, Any]:
    """What every connection of ours has, whatever the URI says."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": CONNECT_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }
    # To introduce the library takes two round trips, and older servers do not know how.
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters:
        return settings | {"driver_info": None}
    return settings | {"lib_name": None, "lib_version": None}
