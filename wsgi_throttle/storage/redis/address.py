"""Where the Redis server is: reads the URI, asks Sentinel, and connects by means of redis-py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import SplitResult, urlencode

import redis
from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...errors import StorageURIError
from ..uri import options, split, whole_number

CONNECT_TIMEOUT_S = 1.0
"""Timeout of each step of connecting. No request waits for that: a thread of its own connects."""

MAX_CONNECTIONS = 32
"""Of each process, unless the URI has ``max_connections``."""

SENTINEL_PORT = 26379

SOCKET_ATTRIBUTE = "_sock"
"""The attribute in which redis-py keeps the socket of an open connection; none of its public names
gives it."""

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

_ALL_OPTIONS = set().union(*_KNOWN_OPTIONS.values())
_OTHER_OPTIONS = _ALL_OPTIONS | {
    *("ssl_ca_data", "ssl_exclude_verify_flags", "ssl_include_verify_flags", "ssl_ocsp_context"),
    *("ssl_ocsp_expected_cert", "ssl_validate_ocsp", "ssl_validate_ocsp_stapled"),
}
"""What redis-py has besides, or has for another scheme: a message may name these."""

_NO_EFFECT = {
    *("charset", "decode_responses", "encoding", "encoding_errors", "errors"),
    *("health_check_interval", "legacy_responses", "lib_name", "lib_version", "protocol"),
    *("retry_on_error", "retry_on_timeout", "single_connection_client", "socket_connect_timeout"),
    *("socket_keepalive", "socket_read_size", "socket_timeout", "timeout"),
}
"""Options that redis-py has in URIs. They have no effect on this storage but do no harm, and a
REDIS_URL with them may be meant for all libraries of an application."""

Connect: TypeAlias = Callable[[], AbstractConnection]
"""Returns an open connection of redis-py, or raises what redis-py raises."""


class Address(NamedTuple):
    """A URI of this storage, read."""

    connect: Connect
    name: str
    """The server, for messages; without user and password."""
    max_connections: int


def parse(uri: str) -> Address:
    """Read a ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://`` URI; ``valkey://``
    and ``valkeys://`` are other names of the first two. Connects to nothing.

    :raises StorageURIError: an unknown option, a value that is not allowed, or a version of
        redis-py whose connections have no SOCKET_ATTRIBUTE.
    """
    written = split(uri).scheme
    if written in ("valkey", "valkeys"):
        uri = f"redis{uri[len('valkey') :]}"
    scheme = split(uri).scheme
    given = options(uri, _KNOWN_OPTIONS[scheme], _OTHER_OPTIONS, _NO_EFFECT)
    uri = _with_options(uri, given)
    whole_number("db", given.get("db", "0"), minimum=0)
    max_connections = given.get("max_connections", str(MAX_CONNECTIONS))
    find = _via_sentinel if scheme == "redis+sentinel" else _direct
    try:
        connect, name = find(uri, given)
    except RedisError:  # whose text may quote a secret
        raise StorageURIError(_unusable(given)) from None
    name = f"{written}{name[len(scheme) :]}"
    return Address(connect, name, whole_number("max_connections", max_connections, minimum=1))


def _with_options(uri: str, given: dict[str, str]) -> str:
    """The URI with these options and no others."""
    address, _, _ = uri.partition("?")
    fragment = split(uri).fragment if "?" in uri else ""
    return (
        address + (f"?{urlencode(given)}" if given else "") + (f"#{fragment}" if fragment else "")
    )


def _direct(uri: str, given: dict[str, str]) -> tuple[Connect, str]:
    """How to connect to the server that the URI itself names, without Sentinel, and the server's
    name for messages, which shows no user and no password.

    :param given: the options of the URI, of which this way to connect needs none.
    """
    parts = split(uri)
    new_connection = _connection_factory(uri)

    def connect() -> AbstractConnection:
        connection = new_connection()
        connection.connect()
        return connection

    return connect, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _via_sentinel(uri: str, given: dict[str, str]) -> tuple[Connect, str]:
    """How to connect to the server that Sentinel says is the master, and a name for messages.
    Sentinel is asked for each new connection, so that a failover is followed."""
    parts = split(uri)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path[1:].partition("/")
    if not hosts or not service:
        raise StorageURIError(
            "Sentinel needs hosts and a service: redis+sentinel://host:26379,other:26379/service"
        )
    if "@" in service:
        raise StorageURIError("a service has no @ in its name: in a password / is written %2F")
    addresses = []
    for host in hosts.split(","):
        address = split(f"//{host}")
        addresses.append((address.hostname or "localhost", _port(address) or SENTINEL_PORT))

    tls = given.get("ssl", "false")
    if tls not in ("true", "false"):
        raise StorageURIError("ssl does not fit: use true or false")
    scheme = "rediss" if tls == "true" else "redis"
    query = urlencode({name: given[name] for name in given if name in _OPTIONS | _TLS_OPTIONS})
    new_connection = _connection_factory(f"{scheme}://{user}{at}/{db}?{query}")

    settings = {name: new_connection.keywords.get(name) for name in _TLS_OPTIONS if name in given}
    settings |= _settings() | {"ssl": tls == "true"}
    settings |= {name: given.get(f"sentinel_{name}") for name in ("username", "password")}

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


def _connection_factory(uri: str) -> partial[AbstractConnection]:
    """Makes connections to this server that are not open yet.

    :raises StorageURIError: redis-py does not accept the URI.
    """
    parts = split(uri)
    _port(parts)
    # A password that is not escaped may continue in any later part of the URI, so messages quote
    # none.
    if parts.fragment:
        raise StorageURIError("a # ends the URI: write %23 for # in a password")
    if parts.scheme == "unix":
        if not parts.path:
            raise StorageURIError("a unix:// URI names a socket: unix:///run/redis/redis.sock")
    elif not re.fullmatch("/?[0-9]*", parts.path):
        raise StorageURIError("after the host only the number of a database may follow, as in /0")
    try:
        pool = ConnectionPool.from_url(uri, **_settings())
    except ValueError:  # whose text may hold a value that is a secret
        raise StorageURIError(_unusable(options(uri, _ALL_OPTIONS))) from None
    new_connection = partial(pool.connection_class, **pool.connection_kwargs)
    _check_socket(new_connection())
    return new_connection


def _unusable(found: Collection[str]) -> str:
    """That redis-py refuses a URI with these options."""
    names = ", ".join(sorted(found))
    meant = f" of {names}" if names else ""
    return (
        f"redis-py cannot use this URI: check the values{meant} (ssl_cert_reqs is none, optional "
        "or required)"
    )


def _check_socket(connection: AbstractConnection) -> None:
    """Fail at the start, and not at each request, if this version of redis-py keeps its sockets in
    another attribute."""
    if not hasattr(connection, SOCKET_ATTRIBUTE):
        raise StorageURIError(
            f"redis-py {redis.__version__} cannot be used: its connections have no "
            f"{SOCKET_ATTRIBUTE}; install a version of redis-py that is known to work, such as "
            "redis==5.2.1, or a newer wsgi_throttle"
        )


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # its text may quote a part of the password
        raise StorageURIError(
            "the port is not a number (in a password, : / ? # @ are written %3A %2F %3F %23 %40)"
        ) from None


def _settings() -> dict[str, Any]:
    """Settings of every connection, which take precedence over the URI: the replies that resp.py
    parses are of protocol 2, and a call that fails is not repeated, since it may have counted. The
    pool has a timeout of its own for each reply; these are for connecting."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": CONNECT_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
    }
    # Do not send CLIENT SETINFO: that takes two round trips, and servers before 7.2 refuse it. The
    # first of these names is that of newer versions of redis-py.
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters:
        return settings | {"driver_info": None}
    return settings | {"lib_name": None, "lib_version": None}
