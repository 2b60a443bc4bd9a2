"""Contenders take turns, round after round, so that what else the machine does falls on all alike.

A round's figure is the best of a few batches, each too short to be interrupted often: waiting for
the processor would make the slow contenders look slower than they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter_ns
from typing import Any, NamedTuple

BATCHES = 5
BATCH = 20
AGAIN = 20
"""Untimed calls before the batches, after others had the processor's caches."""


class Effort(NamedTuple):
    rounds: int
    warm_up: int
    """Untimed calls of each contender before the first round."""
    quick: bool = False


FULL = Effort(40, 1300)
QUICK = Effort(4, 200, quick=True)


class Spread(NamedTuple):
    """The median of the rounds, and the middle half of them."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(*quantiles(values, n=4))


@dataclass(frozen=True)
class Contender:
    name: str
    prepare: Callable[[int], Sequence[Any]]
    """Makes the arguments of so many calls, untimed."""
    call: Callable[[Any], object]
    bare: str = ""
    """The contender whose time is taken off, in each round."""


class Samples:
    """Microseconds a call, of each contender in each round."""

    def __init__(self, contenders: Sequence[Contender], effort: Effort) -> None:
        self._bare = {contender.name: contender.bare for contender in contenders}
        self._us: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for contender in contenders:
            _one_by_one(contender, effort.warm_up)
        order = list(contenders)
        shuffle = random.Random(0).shuffle
        for _ in range(effort.rounds):
            shuffle(order)
            for contender in order:
                _one_by_one(contender, AGAIN)
                self._us[contender.name].append(_best_us(contender))

    def costs_us(self, name: str) -> list[float]:
        """What a call costs above the bare one, in each round."""
        whole, bare = self._us[name], self._us.get(self._bare[name])
        return [a - b for a, b in zip(whole, bare, strict=True)] if bare else whole

    def cost_us(self, name: str) -> Spread:
        return Spread.of(self.costs_us(name))

    def ratio(self, name: str, base: str) -> Spread:
        """How many times the other's cost, round by round."""
        pairs = zip(self.costs_us(name), self.costs_us(base), strict=True)
        return Spread.of([a / b for a, b in pairs])


def _one_by_one(contender: Contender, count: int) -> None:
    for argument in contender.prepare(count):
        contender.call(argument)


def _best_us(contender: Contender) -> float:
    call, arguments = contender.call, list(contender.prepare(BATCHES * BATCH))
    times_ns = []
    for _ in range(BATCHES):
        started = perf_counter_ns()
        for _ in range(BATCH):
            call(arguments.pop())  # and nobody keeps it, as no server keeps a request
        times_ns.append(perf_counter_ns() - started)
    return min(times_ns) / BATCH / 1000
