"""A circuit breaker around a storage, so that requests do not wait for one that has failed.

The pattern is described in Michael Nygard, "Release It!". Here an open circuit is an outage.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TypeVar

from ..clock import MONOTONIC, SECOND, Clock
from ..decision import Charge, Decision, Take, Terms, key_in
from ..errors import StorageDownError, StorageError, StorageRequestError
from . import Storage
from .fork import ForkLock, mark, notice_fork

FIRST_DELAY_NS = SECOND // 2
MAX_DELAY_NS = 30 * SECOND
"""The longest time between two probes."""

FAILURES = (OSError, StorageError)
"""What a storage raises when it cannot be reached or used; it turns the errors of its library into
one of these. Any other exception is a bug in this package, and begins no outage."""

AT_ONCE = (ConnectionRefusedError, StorageDownError)
"""Failures of which a single one begins an outage."""

IN_A_ROW = 3
"""So many failures in a row begin an outage, if at least two clients have met them. What is wrong
for one client alone, or what one client can bring about, is no outage."""

WATCHED_CALLS = 20
"""An outage also begins when half of so many calls have failed, whoever made them."""

T = TypeVar("T")

_log = logging.getLogger("wsgi_throttle")


@dataclass
class _Outage:
    """From the first failure until a request is counted again. Changed only under the lock."""

    began_ns: int
    cause: str
    """The text of the last error."""
    delay_ns: int
    """From the last failure to the next probe."""
    probe_at_ns: int
    """Time of the next probe. It begins later if the one before still waits for an answer."""
    probing: bool = False
    half_open: bool = False
    """The storage has answered a probe. The next request tries it; all others are still kept away
    until that has succeeded."""


class _RecentCalls:
    """How the last WATCHED_CALLS calls ended, watched from the first failure on until all of them
    have succeeded. The calls before a first failure need not be kept: they have succeeded.

    Any thread may call every method: each step is one operation of a list or deque.
    """

    def __init__(self) -> None:
        self._ended: deque[frozenset[str] | None] = deque(maxlen=WATCHED_CALLS)
        """None for a success; for a failure, the keys of the request."""

    def succeeded(self) -> bool:
        """Add a success. Return whether there is no failure left among the calls."""
        self._ended.append(None)
        return not any(keys is not None for keys in self._ended.copy())

    def failed(self, buckets: Iterable[str]) -> bool:
        """Add a failure. Return whether there are now so many that an outage begins.

        :param buckets: those of the request.
        """
        self._ended.append(_keys(buckets))
        ended = list(self._ended)
        failures = [keys for keys in ended if keys is not None]
        if len(failures) >= WATCHED_CALLS // 2:
            return True
        row = ended[-IN_A_ROW:]
        of_row = [keys for keys in row if keys is not None]
        # One client may send different keys, but then its requests have one in common: its address.
        return len(of_row) == IN_A_ROW and not frozenset.intersection(*of_row)


def _keys(buckets: Iterable[str]) -> frozenset[str]:
    """The keys in these buckets, apart from ``all``, which every client has."""
    return frozenset(map(key_in, buckets)) - {"all"}


class CircuitBreaker:
    """A storage that wraps another one and does not call it while that has failed.

    An outage begins when three calls in a row have failed for at least two clients, when half of
    the last twenty have failed, and at once when nobody can be counted
    (:class:`.StorageDownError`). What is wrong with a single request
    (:class:`.StorageRequestError`) never begins one.

    During an outage every call raises :class:`.StorageError` at once. The first request after half
    a second starts a probe: a short-lived daemon thread that calls :meth:`.Storage.ping`. As long
    as that fails, the delay before the next probe doubles, up to 30 s. Once a probe succeeds, one
    request tries the storage; if the storage answers it, the outage is over. So a request waits for
    a failed storage only if it came before the outage began, or if it is the one that tries.

    Beginning and end of an outage are logged once each, on ``wsgi_throttle``. Any thread may call
    every method. A forked child inherits the outage and makes probes of its own.

    :param storage: the storage to wrap.
    :param on_change: called with (failed, cause) when an outage has begun and when it has ended, by
        the thread whose request noticed; the cause is empty at the end.
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
        self._recent: _RecentCalls | None = None
        """Set while one of the last calls has failed."""
        self._lock = ForkLock(after_in_child=self._forget_probe)

    def __repr__(self) -> str:
        return repr(self._storage)

    @property
    def reach(self) -> str:
        """See :class:`.Storage`."""
        return self._storage.reach

    @property
    def retry_after_s(self) -> int:
        """Seconds until the next probe, rounded up; at least 1, and 1 if there is no outage."""
        outage = self._outage
        left_ns = outage.probe_at_ns - self._clock() if outage else 0
        return max(1, -(-left_ns // SECOND))

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`.

        The function that it returns raises :class:`.StorageError` when the storage fails, and
        during an outage. Exceptions that are not in FAILURES pass through unchanged.
        """
        inner_take = self._storage.prepare(terms)

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            if self._outage:
                return self._call(partial(inner_take, buckets, costs, look), buckets)
            try:
                decision = inner_take(buckets, costs, look)
            except FAILURES as error:
                raise self._failed(error, None, buckets) from error
            if self._recent:
                self._succeeded()
            return decision

        return take

    def reset(self, charges: Sequence[Charge]) -> int:
        """See :class:`.Storage`.

        :raises StorageError: the storage failed, or an outage goes on.
        """
        buckets = [charge.bucket for charge in charges]
        return self._call(partial(self._storage.reset, charges), buckets)

    def ping(self) -> None:
        """See :class:`.Storage`. Calls it during an outage too; neither begins nor ends one."""
        self._storage.ping()

    def close(self) -> None:
        """See :class:`.Storage`."""
        self._storage.close()

    def _call(self, action: Callable[[], T], buckets: Iterable[str]) -> T:
        outage = self._outage
        if outage and not self._claim_trial(outage):
            raise StorageError(f"{self._storage!r} is left alone: {outage.cause}")
        try:
            result = action()
        except FAILURES as error:
            raise self._failed(error, outage, buckets) from error
        if outage:
            self._recovered(outage)
        elif self._recent:
            self._succeeded()
        return result

    def _succeeded(self) -> None:
        recent = self._recent
        if recent and recent.succeeded():
            self._recent = None

    def _claim_trial(self, outage: _Outage) -> bool:
        """Return True to the one caller that is to try a storage that answers probes again. Start a
        probe for the others if it is time."""
        if not mark[0]:
            notice_fork()
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
        """Start the probe's thread. Requires that the lock is not held: under gevent, starting a
        thread lets other greenlets run, and one that waits for the lock would stop all of them.
        """
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
        except Exception as error:  # noqa: BLE001 - any exception means that it has not answered
            failure = error
        with self._lock:
            outage.probing = False
            if failure:
                self._back_off(outage, failure)
            else:
                outage.half_open = True

    def _back_off(self, outage: _Outage, error: Exception) -> None:
        """Double the delay before the next probe. Requires that the lock is held."""
        outage.cause = str(error)
        outage.delay_ns = min(2 * outage.delay_ns, MAX_DELAY_NS)
        outage.probe_at_ns = self._clock() + outage.delay_ns

    def _failed(
        self, error: Exception, tried_outage: _Outage | None, buckets: Iterable[str]
    ) -> StorageError:
        """Begin an outage if this failure is one too many, or go on with ``tried_outage``, which
        this request tried to end. Return the exception to raise."""
        if isinstance(error, StorageRequestError):  # the storage has answered
            if tried_outage:
                self._recovered(tried_outage)
            return StorageRequestError(str(error))
        failure = StorageError(str(error))
        with self._lock:
            if tried_outage:
                self._back_off(tried_outage, error)
                return failure
            if self._outage:  # another request was first to notice
                return failure
            if self._recent is None:
                self._recent = _RecentCalls()
            if not self._recent.failed(buckets) and not isinstance(error, AT_ONCE):
                return failure
            self._recent = None
            now = self._clock()
            self._outage = _Outage(now, str(error), FIRST_DELAY_NS, now + FIRST_DELAY_NS)
        self._log_outage(error)
        self._on_change(True, str(error))
        return failure

    def _log_outage(self, error: Exception) -> None:
        remedy = getattr(error, "remedy", "")
        _log.log(
            logging.ERROR if remedy else logging.WARNING,
            "%r cannot count: %s. Until then requests are treated as on_storage_error says."
            if remedy
            else "%r failed (%s). Until it answers again requests are treated as on_storage_error "
            "says. Check that it runs, can be reached and answers within storage_timeout.",
            self._storage,
            error,
            extra={"storage": repr(self._storage)},
        )

    def _recovered(self, outage: _Outage) -> None:
        with self._lock:
            if self._outage is not outage:  # another thread ended it; there may be a new one
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
        # A child does not have the thread of its parent's probe.
        if self._outage:
            self._outage.probing = False
