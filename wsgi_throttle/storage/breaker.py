"""A breaker around a storage, so that one that fails costs requests next to no time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TypeVar

from ..clock import MONOTONIC, SECOND, Clock
from ..decision import Charge, Decision, Take, Terms
from ..errors import StorageError
from . import Storage
from .fork import ForkLock

FIRST_DELAY_NS = SECOND // 2
MAX_DELAY_NS = 30 * SECOND

FAILURES = (OSError, StorageError)
"""What a storage raises where it cannot be reached or used. Each turns the errors of the library
that it uses into one of these. Anything else is a mistake in this package, for which no storage is
to be left alone."""

T = TypeVar("T")

_log = logging.getLogger("wsgi_throttle")


@dataclass
class _Outage:
    """From the first failure until a request has been counted again. Guarded by the lock."""

    began_ns: int
    cause: str
    """What it failed of when it was asked last."""
    delay_ns: int
    probe_at_ns: int
    """When the storage is asked again; later, if the thread that asks still waits for an answer."""
    probing: bool = False
    half_open: bool = False
    """The storage has answered: the next request tries it, while the others still stay away."""


class CircuitBreaker:
    """Around a storage, which is left alone once it has failed, until it answers again.

    A failure begins an outage: every call raises :class:`.StorageError` at once, and what becomes
    of the request is for the caller to say. After half a second, then after twice as long each time
    up to 30 s, a short-lived daemon thread asks whether the storage answers, by
    :meth:`.Storage.ping`. If it does then one request tries it, and if that succeeds the outage is
    over. So a request waits for a storage that fails only where it is the first to notice.

    Beginning and end are each logged once on ``wsgi_throttle``. All methods may be called by any
    thread; a forked child inherits the outage, and asks for itself.

    :param on_change: called with (whether the storage has failed, of what) after each beginning and
        end of an outage.
    :param clock: may not step back.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        on_change: Callable[[bool, str], object] = lambda failed, cause: None,
        clock: Clock = MONOTONIC,
    ) -> None:
        self._storage = storage
        self._on_change = on_change
        self._clock = clock
        self._outage: _Outage | None = None
        self._lock = ForkLock(after_in_child=self._forget_probe)

    def __repr__(self) -> str:
        return repr(self._storage)

    @property
    def reach(self) -> str:
        """See :class:`.Storage`."""
        return self._storage.reach

    @property
    def retry_after_s(self) -> int:
        """Whole seconds, rounded up, at least 1, after which the storage may answer again."""
        outage = self._outage
        left_ns = outage.probe_at_ns - self._clock() if outage else 0
        return max(1, -(-left_ns // SECOND))

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`.

        What it returns raises :class:`.StorageError` where the storage failed, or is left alone
        because it had. An exception that is no outage passes through as it is.
        """
        inner_take = self._storage.prepare(terms)

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            if self._outage:
                return self._call(partial(inner_take, buckets, costs, look))
            try:
                return inner_take(buckets, costs, look)
            except FAILURES as error:
                raise self._failed(error, None) from error

        return take

    def reset(self, charges: Sequence[Charge]) -> None:
        """See :class:`.Storage`.

        :raises StorageError: the storage failed, or is left alone because it had.
        """
        self._call(partial(self._storage.reset, charges))

    def ping(self) -> None:
        """See :class:`.Storage`. Asks even where the storage is left alone, and ends no outage."""
        self._storage.ping()

    def close(self) -> None:
        """See :class:`.Storage`."""
        self._storage.close()

    def _call(self, action: Callable[[], T]) -> T:
        outage = self._outage
        if outage and not self._claim_trial(outage):
            raise StorageError(f"{self._storage!r} is left alone: {outage.cause}")
        try:
            result = action()
        except FAILURES as error:
            raise self._failed(error, outage) from error
        if outage:
            self._recovered(outage)
        return result

    def _claim_trial(self, outage: _Outage) -> bool:
        """True for the one call that is to try a storage that answers again."""
        with self._lock:
            now = self._clock()
            if outage.half_open:
                outage.half_open = False
                outage.probe_at_ns = now + outage.delay_ns
                return True
            if now < outage.probe_at_ns or outage.probing:
                return False
            outage.probing = True
        self._start_probe(outage)
        return False

    def _start_probe(self, outage: _Outage) -> None:
        """Start the thread that asks. Requires that the lock is not held: the start of a thread
        lets gevent run other greenlets, which would wait for the lock and never give way."""
        thread = Thread(target=self._probe, args=(outage,), name="wsgi_throttle-probe", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter shuts down
            with self._lock:
                outage.probing = False
                self._back_off(outage, error)

    def _probe(self, outage: _Outage) -> None:
        failure: Exception | None = None
        try:
            self._storage.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, it has not answered
            failure = error
        with self._lock:
            outage.probing = False
            if failure:
                self._back_off(outage, failure)
            else:
                outage.half_open = True

    def _back_off(self, outage: _Outage, error: Exception) -> None:
        """Requires that the lock is held."""
        outage.cause = str(error)
        outage.delay_ns = min(2 * outage.delay_ns, MAX_DELAY_NS)
        outage.probe_at_ns = self._clock() + outage.delay_ns

    def _failed(self, error: Exception, tried_outage: _Outage | None) -> StorageError:
        """Begin an outage, or go on with the one that this request has tried to end, and return
        what its caller is to be told."""
        failure = StorageError(str(error))
        with self._lock:
            if tried_outage:
                self._back_off(tried_outage, error)
                return failure
            if self._outage:  # another request was first to notice
                return failure
            now = self._clock()
            self._outage = _Outage(now, str(error), FIRST_DELAY_NS, now + FIRST_DELAY_NS)
        _log.warning(
            "%r failed (%s). Until it answers again requests are treated as on_storage_error says. "
            "Check that it runs, can be reached and answers within storage_timeout.",
            self._storage,
            error,
            extra={"storage": repr(self._storage)},
        )
        self._on_change(True, str(error))
        return failure

    def _recovered(self, outage: _Outage) -> None:
        with self._lock:
            if self._outage is not outage:  # that one had ended, and another has begun
                return
            self._outage = None
        seconds = (self._clock() - outage.began_ns) / SECOND
        _log.info(
            "%r answers again, after %.1f s",
            self._storage,
            seconds,
            extra={"storage": repr(self._storage), "outage_s": seconds},
        )
        self._on_change(False, "")

    def _forget_probe(self) -> None:
        # The parent's thread does not run here.
        if self._outage:
            self._outage.probing = False
