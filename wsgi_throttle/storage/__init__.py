"""Where the counters are kept: the protocol of all storages, and a class for each URI scheme."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, runtime_checkable

from ..decision import Charge, Take, Terms
from ..errors import StorageURIError
from .uri import split


class Storage(Protocol):
    """What the engine needs of a storage. Any thread may call every method, and so may a forked
    child.

    :meth:`prepare` is called once for all requests that have the same terms; the function that it
    returns is called for each request. So whatever can be computed beforehand belongs in
    :meth:`prepare`.
    """

    @property
    def reach(self) -> str:
        """Who shares the counters: ``process``, nobody but the threads of this process; ``host``,
        the processes of one application on this host; ``network``, everybody who can reach the
        server, which includes other applications."""

    def prepare(self, terms: Terms) -> Take:
        """The function that charges clients by these terms. Does no I/O and waits for nothing.

        :param terms: those of one bucket stand side by side, and no two have both the same bucket
            and the same limit. Without any, every request is granted.
        """

    def reset(self, charges: Sequence[Charge]) -> int:
        """Forget what these buckets have counted for these limits, so that the clients may use all
        of their quotas again.

        :param charges: those of one bucket follow each other.
        :return: for how many of them something was counted.
        :raises StorageError: the storage did not answer.
        """

    def ping(self) -> None:
        """Return if the storage answers. Counts nothing.

        :raises StorageError: it does not.
        """

    def close(self) -> None:
        """Close files and connections. They are opened again if the storage is used again, so it
        does no harm to call this twice or too early."""


class Report(NamedTuple):
    """Where a storage counts and what is wrong with that, in words for the operator."""

    where: tuple[str, ...]
    """The user of this process first, then others who count for the same application."""
    problems: tuple[str, ...]


@runtime_checkable
class Reporting(Protocol):
    """A storage that can say where it counts."""

    def report(self) -> Report:
        """Look whether counting can work for the user of this process. Makes and opens nothing."""


SCHEMES: dict[str, str] = {
    "memory": "wsgi_throttle.storage.memory:MemoryStorage",
    "shared": "wsgi_throttle.storage.shared.storage:SharedStorage",
    "redis": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "rediss": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "valkey": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "valkeys": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "unix": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "redis+sentinel": "wsgi_throttle.storage.redis.storage:RedisStorage",
}
"""URI scheme -> ``module:class``, imported when a configuration names the scheme. The class has a
class method ``from_uri(uri, *, application_id, timeout_s)``."""


def open_storage(uri: str, *, application_id: str = "", timeout_s: float = 0.1) -> Storage:
    """The storage that a URI names. Connects to nothing and opens nothing: a server that is down is
    no error here.

    :param application_id: tells this application's counters from those of others on the same host,
        where the URI does not (``shared://`` without a folder). If it is an absolute path, the
        counters belong to that file.
    :param timeout_s: seconds that a request waits for a server at most, for a free connection and
        again for the reply.
    :raises StorageURIError: an unknown scheme or option, a value that is not allowed, or a storage
        that does not work with this system or with the installed library.
    """
    scheme = split(uri).scheme
    if scheme not in SCHEMES or "://" not in uri:
        # The message quotes only the scheme: the rest of the URI may contain a password.
        if "://" not in uri:
            wrong = "it has no ://"
        elif uri.lower().startswith(f"{scheme}://"):
            wrong = f'"{scheme}" is not a storage scheme'
        else:
            wrong = "what stands before its :// is not a storage scheme"
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise StorageURIError(f"{wrong}: use one of {known}, as in redis://127.0.0.1:6379/0")
    module, _, name = SCHEMES[scheme].partition(":")
    storage: Storage = getattr(import_module(module), name).from_uri(
        uri, application_id=application_id, timeout_s=timeout_s
    )
    return storage
