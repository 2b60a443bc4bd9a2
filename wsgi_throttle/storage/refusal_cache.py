"""What a process remembers of clients that were refused, so as not to ask for each of their tries.

A client that is over its limit and keeps asking would otherwise cost as much as one that is not.
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

LONGEST_NS = 1_000_000_000
"""After how long the storage is asked again at the latest, so that a reset, a failover or an edit
takes effect."""

REPLY_NS = 10_000_000
"""For how long one reply serves for all tries of a client."""

MOST = 10_000
"""How many refusals are remembered. Without one the storage is asked, which is only slower."""

_Key: TypeAlias = tuple[str, str, int]  # bucket, limit.tag, cost


@dataclass(slots=True)
class _Refusal:
    until_ns: int
    """Counted from before the storage was asked, so that nobody is refused for longer than its
    answer said."""
    answered_ns: int
    """Counted from here, so that nobody is told too short a wait."""
    decision: Decision
    """What the storage said."""
    reply: Decision
    """What was said last in its place, and is again until the next time."""
    reply_until_ns: int


class RefusalCache:
    """Around a storage: answers by itself for charges which it saw refused less than their wait,
    and less than a second, ago. A shadow charge is never answered for, and a look always asks.

    All methods may be called by any thread, and after a fork by the child too.

    :param storage: who is asked.
    :param clock: may not step back.
    """

    def __init__(self, storage: Storage, *, clock: Clock = MONOTONIC) -> None:
        self._storage = storage
        self._clock = clock
        self._lock = ForkLock()
        self._refusals: OrderedDict[_Key, _Refusal] = OrderedDict()
        self._last_until_ns = 0  # of all of them

    @property
    def reach(self) -> str:
        """See :class:`.Storage`."""
        return self._storage.reach

    def prepare(self, terms: Terms) -> Take:
        """As the storage's. In a decision that was remembered, charges which the storage was not
        asked about then are told as untouched, and waits may be REPLY_NS too long."""
        ask = self._storage.prepare(terms)
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
                            and reply[1] is terms
                            and reply[2] == buckets
                            and reply[4] == costs
                        ):
                            return reply
                        return _reply(refusal, terms, buckets, costs, now_ns)
            decision = ask(buckets, costs, look)
            if not decision.granted:
                self._remember(decision, now_ns)
            return decision

        return take

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
        """Forget all: the storage is asked for every charge again."""
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
                until_ns = asked_ns + min(outcome.wait_ms * MS, LONGEST_NS)
                key = (bucket, limit.tag, cost)
                self._refusals[key] = _Refusal(until_ns, answered_ns, decision, decision, 0)
                self._refusals.move_to_end(key)
                self._last_until_ns = max(self._last_until_ns, until_ns)
            while len(self._refusals) > MOST or self._oldest().until_ns <= asked_ns:
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
    """What the storage would say now of these terms, one of which it has refused."""
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
    """What was measured then, for each of these terms, some of which are among those of the
    decision."""
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
