"""Contenders take turns, so that what else the machine does falls on all alike.

A turn is many requests, as a server has one application to serve. The last ones are timed, each by
itself, and their median counts, so that one which is interrupted, or sets off a garbage collection,
does not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any, NamedTuple

AGAIN = 100
"""Untimed requests of each turn, one a client, after others had the processor's caches: in a server
there are no others."""
TURN = 20
"""Timed ones."""


class Effort(NamedTuple):
    rounds: int
    turns: int
    """Of each contender in each round."""
    warm_up: int
    """Untimed calls of each contender before the first round."""
    quick: bool = False


FULL = Effort(20, 5, 1300)
QUICK = Effort(5, 2, 1300, quick=True)


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
    """The contender whose time is taken off, in each round; without one, that of a call of
    nothing."""


_NOTHING = Contender("", lambda count: [None] * count, lambda _: None)


class Samples:
    """Microseconds a call, above the bare one, of each contender in each round."""

    def __init__(self, contenders: Sequence[Contender], effort: Effort) -> None:
        by_name = {contender.name: contender for contender in contenders} | {"": _NOTHING}
        for contender in contenders:
            for argument in contender.prepare(effort.warm_up):
                contender.call(argument)
        self._us: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        order = list(contenders)
        shuffle = random.Random(0).shuffle
        for _ in range(effort.rounds):
            costs_us: dict[str, list[float]] = {contender.name: [] for contender in contenders}
            for _ in range(effort.turns):
                shuffle(order)
                for contender in order:
                    # Side by side, since both change by more than they differ.
                    bare_us = _turn_us(by_name[contender.bare])
                    costs_us[contender.name].append(_turn_us(contender) - bare_us)
            for name, costs in costs_us.items():
                self._us[name].append(median(costs))

    def cost_us(self, name: str) -> Spread:
        return Spread.of(self._us[name])

    def ratio(self, name: str, base: str) -> Spread:
        """How many times the other's cost, round by round."""
        pairs = zip(self._us[name], self._us[base], strict=True)
        return Spread.of([a / b for a, b in pairs])


def _turn_us(contender: Contender) -> float:
    call, arguments = contender.call, list(contender.prepare(AGAIN + TURN))
    for _ in range(AGAIN):
        call(arguments.pop())
    times_ns = []
    while arguments:
        argument = arguments.pop()
        started = perf_counter_ns()
        call(argument)
        times_ns.append(perf_counter_ns() - started)
        del argument  # nobody keeps it, as no server keeps a request
    return median(times_ns) / 1000
