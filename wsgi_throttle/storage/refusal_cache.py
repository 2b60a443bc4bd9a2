"""What a process remembers of clients that were refused, so as not to ask for each of their tries.

A client that is over its limit and keeps asking would otherwise cost as much as one that is not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import TypeAlias

from ..decision import NEVER_MS, Charge, Charges, Decision, Measured
from . import Storage
from .fork import ForkLock

LONGEST_NS = 1_000_000_000
"""After how long the storage is asked again at the latest, so that a reset, a failover or an edit
takes effect."""

TOLD_NS = 10_000_000
"""For how long one answer serves for all tries of a client."""

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
    told: Decision
    """What was told last, and is again until this time."""
    told_until_ns: int


class BlockedClients:
    """A storage that answers by itself for charges which it saw refused less than their wait, and
    less than a second, ago. A shadow charge is never answered for.

    :param storage: who is asked.
    :param clock_ns: monotonic nanoseconds.
    """

    def __init__(self, storage: Storage, *, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._storage = storage
        self._clock_ns = clock_ns
        self._lock = ForkLock()
        self._refusals: OrderedDict[_Key, _Refusal] = OrderedDict()
        self._last_until_ns = 0  # of all of them

    def take(self, charges: Sequence[Charge]) -> Decision:
        """As the storage's. In a decision that was remembered, charges which the storage was not
        asked about then are told as untouched, and waits may be TOLD_NS too long."""
        clock_ns = self._clock_ns
        now_ns = clock_ns()
        if self._refusals:
            if now_ns >= self._last_until_ns:
                self.clear()
            if charges.__class__ is not Charges:
                charges = Charges.of(charges)
            buckets = charges.buckets
            for place, limit, cost, enforce, _ in charges.lines:
                refusal = self._refusals.get((buckets[place], limit.tag, cost))
                if refusal and enforce and now_ns < refusal.until_ns:
                    told = refusal.told
                    if now_ns < refusal.told_until_ns and told[1] is charges:
                        return told
                    return _again(refusal, charges, now_ns)
        decision = self._storage.take(charges)
        if not decision.granted:
            self._remember(decision, now_ns)
        return decision

    def reset(self, charges: Sequence[Charge]) -> None:
        try:
            self._storage.reset(charges)
        finally:
            self.clear()

    def close(self) -> None:
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
        answered_ns = self._clock_ns()
        with self._lock:
            for (bucket, limit, cost, _, _), outcome in decision.refusing:
                until_ns = asked_ns + min(outcome.wait_ms * 1_000_000, LONGEST_NS)
                key = (bucket, limit.tag, cost)
                self._refusals[key] = _Refusal(until_ns, answered_ns, decision, decision, 0)
                self._refusals.move_to_end(key)
                self._last_until_ns = max(self._last_until_ns, until_ns)
            while len(self._refusals) > MOST or self._oldest().until_ns <= asked_ns:
                self._refusals.popitem(last=False)

    def _oldest(self) -> _Refusal:
        return next(iter(self._refusals.values()))


def _again(refusal: _Refusal, charges: Sequence[Charge], now_ns: int) -> Decision:
    """The decision as it would be told now."""
    _, asked, measured = refusal.decision
    passed_ms = (now_ns - refusal.answered_ns) // 1_000_000
    if asked is not charges and asked != charges:
        measured = _matching(refusal.decision, charges)
    told = []
    for wait_ms, remaining, reset_ms in [one[:3] for one in measured]:
        if wait_ms < NEVER_MS:
            wait_ms = wait_ms - passed_ms if wait_ms > passed_ms else 0
        if reset_ms:
            reset_ms = reset_ms - passed_ms if reset_ms > passed_ms else 1
        told.append((wait_ms, remaining, reset_ms))
    refusal.told = Decision(False, charges, told)
    refusal.told_until_ns = now_ns + TOLD_NS
    return refusal.told


def _matching(decision: Decision, charges: Sequence[Charge]) -> list[Measured]:
    """What was measured, for other charges, some of which are among those of the decision."""
    known = {
        (charge.bucket, charge.limit.tag, charge.cost): found
        for charge, found in zip(decision.charges, decision.measured, strict=True)
    }
    return [
        known.get((bucket, limit.tag, cost)) or (0, limit.burst, 0)
        for bucket, limit, cost, _, _ in charges
    ]
