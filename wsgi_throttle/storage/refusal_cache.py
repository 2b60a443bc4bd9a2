"""A cache of refusals, so that a client that is refused again and again costs the storage little.

Without it, each request of a client that is over its limit would cost a round trip to the storage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..clock import MONOTONIC, MS, Clock
from ..decision import NEVER_MS, Charge, Decision, Measured, Take, Terms
from . import Storage
from .fork import ForkLock
from .look import Look, prepare_look

MAX_AGE_NS = 1_000_000_000
"""A refusal is kept for no longer than this, so that a reset by another process, a failover or an
edit of the rules takes effect."""

REPLY_NS = 10_000_000
"""For how long the same Decision answers all requests of a client. Its waits are not updated."""

MAX_REFUSALS = 10_000
"""How many refusals are kept. For a client whose refusal was dropped the storage is asked, which is
slower and nothing worse."""

_Key: TypeAlias = tuple[str, str, int]  # bucket, limit.tag, cost


@dataclass(slots=True)
class _Refusal:
    until_ns: int
    """When it ends. The wait counts from before the storage was asked, so that nobody is refused
    for longer than the storage said."""
    answered_ns: int
    """When the storage had answered. Waits in replies are counted from here, so that none is too
    short."""
    decision: Decision
    """The storage's answer."""
    reply: Decision
    """The last answer that was given in its place. It is given again until ``reply_until_ns``."""
    reply_until_ns: int


class RefusalCache:
    """A storage that wraps another one and remembers what that has refused.

    A request with a charge that was refused is refused again without asking, until the wait of that
    charge is over, and for a second at most. Shadow charges are not remembered, since they refuse
    nothing. A look always asks the wrapped storage.

    Any thread may call every method, and so may a forked child, which has its own copy from then
    on.

    :param storage: the storage to wrap.
    :param clock: may not step back.
    """

    def __init__(self, storage: Storage, *, clock: Clock = MONOTONIC) -> None:
        self._storage = storage
        self._clock = clock
        self._lock = ForkLock()
        self._refusals: OrderedDict[_Key, _Refusal] = OrderedDict()
        self._last_until_ns = 0  # when the last of them ends

    @property
    def reach(self) -> str:
        """See :class:`.Storage`."""
        return self._storage.reach

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`.

        A remembered refusal is less exact than the storage's own answer. Waits may be REPLY_NS too
        long; and charges that were not part of the refused request look as if nothing was used of
        their limits.
        """
        inner_take = self._storage.prepare(terms)
        clock, refusals = self._clock, self._refusals
        enforced = [
            (index, terms[index].bucket, terms[index].limit.tag, terms[index].cost)
            for index in terms.enforced
        ]

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            now_ns = clock()
            if refusals and not look:
                if now_ns >= self._last_until_ns:
                    self.clear()
                for index, bucket, tag, cost in enforced:
                    if costs is not None:
                        cost = costs[index]
                    refusal = refusals.get((buckets[bucket], tag, cost))
                    if refusal and now_ns < refusal.until_ns:
                        reply = refusal.reply
                        if (
                            now_ns < refusal.reply_until_ns
                            and reply[1] is terms  # fields by index, which is faster than by name
                            and reply[2] == buckets
                            and reply[4] == costs
                        ):
                            return reply
                        return _reply(refusal, terms, buckets, costs, now_ns)
            decision = inner_take(buckets, costs, look)
            if not decision.granted:
                self._remember(decision, now_ns)
            return decision

        return take

    def prepare_look(self, terms: Terms) -> Look:
        """As the storage's, but that a refusal which is remembered is not asked for again."""
        ask = prepare_look(self._storage, terms)
        clock, refusals = self._clock, self._refusals
        enforced = [terms[index] for index in terms.enforced]

        def look(buckets: tuple[str, ...]) -> Decision | None:
            now_ns = clock()
            for term in enforced if refusals else ():
                refusal = refusals.get((buckets[term.bucket], term.limit.tag, term.cost))
                if refusal and now_ns < refusal.until_ns:
                    return _reply(refusal, terms, buckets, None, now_ns)
            decision = ask(buckets)
            if decision:
                self._remember(decision, now_ns)
            return decision

        return look

    def reset(self, charges: Sequence[Charge]) -> None:
        """See :class:`.Storage`."""
        try:
            self._storage.reset(charges)
        finally:
            self.clear()

    def ping(self) -> None:
        """See :class:`.Storage`."""
        self._storage.ping()

    def close(self) -> None:
        """See :class:`.Storage`."""
        self._storage.close()
        self.clear()

    def clear(self) -> None:
        """Forget all refusals, so that the storage is asked for every charge again."""
        with self._lock:
            self._refusals.clear()

    @property
    def size(self) -> int:
        """How many refusals are remembered."""
        return len(self._refusals)

    def _remember(self, decision: Decision, asked_ns: int) -> None:
        answered_ns = self._clock()
        with self._lock:
            for (bucket, limit, cost, *_), outcome in decision.refusing:
                until_ns = asked_ns + min(outcome.wait_ms * MS, MAX_AGE_NS)
                key = (bucket, limit.tag, cost)
                self._refusals[key] = _Refusal(until_ns, answered_ns, decision, decision, 0)
                self._refusals.move_to_end(key)
                self._last_until_ns = max(self._last_until_ns, until_ns)
            while len(self._refusals) > MAX_REFUSALS or self._oldest().until_ns <= asked_ns:
                self._refusals.popitem(last=False)

    def _oldest(self) -> _Refusal:
        return next(iter(self._refusals.values()))


def _reply(
    refusal: _Refusal,
    terms: Terms,
    buckets: tuple[str, ...],
    costs: Sequence[int] | None,
    now_ns: int,
) -> Decision:
    """The decision for these terms, one of which the storage has refused: its answer, less the time
    that has passed since."""
    passed_ms = (now_ns - refusal.answered_ns) // MS
    measured: list[Measured] = []
    for wait_ms, remaining, reset_ms in _measured(refusal.decision, terms, buckets, costs):
        if wait_ms < NEVER_MS:
            wait_ms = wait_ms - passed_ms if wait_ms > passed_ms else 0
        if reset_ms:
            reset_ms = reset_ms - passed_ms if reset_ms > passed_ms else 1
        measured.append((wait_ms, remaining, reset_ms))
    refusal.reply = Decision(False, terms, buckets, measured, costs)
    refusal.reply_until_ns = now_ns + REPLY_NS
    return refusal.reply


def _measured(
    decision: Decision, terms: Terms, buckets: tuple[str, ...], costs: Sequence[int] | None
) -> Sequence[Measured]:
    """For each of these terms what the decision measured; if it has none for a term, the values of
    an unused limit."""
    if (decision.terms, decision.buckets, decision.costs) == (terms, buckets, costs):
        return decision.measured
    known = {
        (charge.bucket, charge.limit.tag, charge.cost): found
        for charge, found in zip(decision.charges, decision.measured, strict=True)
    }
    asked = Decision(False, terms, buckets, (), costs)
    return [
        known.get((bucket, limit.tag, cost)) or (0, limit.burst, 0)
        for bucket, limit, cost, *_ in asked.charges
    ]
