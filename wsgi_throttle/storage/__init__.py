"""Where the counters live: one protocol, and a class for each URI scheme."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from ..decision import Charge, Take, Terms
from ..errors import StorageURIError
from .uri import split


class Storage(Protocol):
    """One engine. All methods may be called by any thread, and after a fork by the child too.

    What costs a request little or much stands here: :meth:`prepare` is asked once for all requests
    of the same terms, the function that it returns for each of them. A storage that gives back what
    a request did not use will have one more method, ``settle(receipts)``, beside ``prepare``: best
    effort, never raising into a request.
    """

    @property
    def reach(self) -> str:
        """Who counts together: ``process``, this one alone; ``host``, the processes of one
        application on this host; ``network``, whoever can reach the server, other applications
        included."""

    def prepare(self, terms: Terms) -> Take:
        """The function that charges clients by these terms. Waits for nothing, and asks nobody.

        The terms of one bucket stand side by side, and no two share both bucket and limit. There
        may be none: then every request is granted.
        """

    def reset(self, charges: Sequence[Charge]) -> None:
        """Forget what these buckets have counted for these limits.

        :raises StorageError: the storage did not answer.
        """

    def ping(self) -> None:
        """Ask whether the storage answers. Counts nothing.

        :raises StorageError: it did not.
        """

    def close(self) -> None:
        """Give back files and connections. May be called twice; they are opened anew if need be."""


SCHEMES: dict[str, str] = {
    "memory": "wsgi_throttle.storage.memory:MemoryStorage",
    "shared": "wsgi_throttle.storage.shared.storage:SharedStorage",
    "redis": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "rediss": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "unix": "wsgi_throttle.storage.redis.storage:RedisStorage",
    "redis+sentinel": "wsgi_throttle.storage.redis.storage:RedisStorage",
}
"""URI scheme -> ``module:class``, imported when a configuration names it. The class has a
``from_uri(uri, *, application_id, timeout_s)``."""


def open_storage(uri: str, *, application_id: str = "", timeout_s: float = 0.1) -> Storage:
    """The storage that a URI names. Connects to nothing: a server that is down is no error here.

    :param application_id: what tells this application's counters from another's of the same host,
        for storages that are not named in full by their URI (the path of the configuration).
    :param timeout_s: the longest a request may wait for a server, each time it asks.
    :raises StorageURIError: an unknown scheme or option, or a value that does not fit.
    """
    scheme = split(uri).scheme
    if scheme not in SCHEMES or "://" not in uri:
        # What stands before a :// is no secret; the rest may be.
        is_scheme = uri.lower().startswith(f"{scheme}://")
        wrong = (
            f'"{scheme}" is not a storage scheme'
            if is_scheme
            else "no scheme stands before its ://"
        )
        wrong = wrong if "://" in uri else "it has no ://"
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise StorageURIError(f"{wrong}: use one of {known}, as in redis://127.0.0.1:6379/0")
    module, _, name = SCHEMES[scheme].partition(":")
    storage: Storage = getattr(import_module(module), name).from_uri(
        uri, application_id=application_id, timeout_s=timeout_s
    )
    return storage
