"""Times contenders in turns, so that what else the machine does affects all of them alike.

Each contender has a process of its own, as an application on a server has: Python adapts its
bytecode to how it was last used, and another contender would undo that. A turn is many requests,
of which the last ones are timed, each by itself. The median counts, so that a request that is
interrupted, or that sets off a garbage collection, does not matter.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any, NamedTuple

AGAIN = 100
"""Untimed requests at the start of each turn, one for each client. They fill the processor's caches
again, which the contender before has used; in a server nobody else would have."""
TURN = 20
"""Timed requests of each turn."""


class Effort(NamedTuple):
    rounds: int
    turns: int
    """How many each contender has in each round."""
    warm_up: int
    """Untimed calls of each contender before the first round."""
    quick: bool = False


FULL = Effort(20, 5, 1300)
QUICK = Effort(5, 2, 1300, quick=True)


class Spread(NamedTuple):
    """The median of the rounds, and the quartiles (the ends of the middle half)."""

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
    """Called with a number, it makes the arguments of so many calls. Not timed."""
    call: Callable[[Any], object]
    bare: str = ""
    """The contender whose time is subtracted, round by round; if empty, the time of an empty
    call."""


_NOTHING = Contender("", lambda count: [None] * count, lambda _: None)


class Samples:
    """Runs the contenders, and keeps for each round what a call cost: microseconds above the bare
    one."""

    def __init__(self, contenders: Sequence[Contender], effort: Effort) -> None:
        by_name = {contender.name: contender for contender in contenders} | {"": _NOTHING}
        self._us: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        with ExitStack() as stack:
            turns = {
                contender.name: stack.enter_context(
                    _turns(contender, by_name[contender.bare], effort.warm_up)
                )
                for contender in contenders
            }
            order = [*turns]
            shuffle = random.Random(0).shuffle
            for _ in range(effort.rounds):
                costs_us: dict[str, list[float]] = {name: [] for name in turns}
                for _ in range(effort.turns):
                    shuffle(order)
                    for name in order:
                        costs_us[name].append(turns[name]())
                for name, costs in costs_us.items():
                    self._us[name].append(median(costs))

    def cost_us(self, name: str) -> Spread:
        return Spread.of(self._us[name])

    def ratio(self, name: str, base: str) -> Spread:
        """The cost divided by that of ``base``, computed round by round."""
        pairs = zip(self._us[name], self._us[base], strict=True)
        return Spread.of([a / b for a, b in pairs])


@contextmanager
def _turns(contender: Contender, bare: Contender, warm_up: int) -> Iterator[Callable[[], float]]:
    """Start the contender's process.

    :return: a function that lets it have a turn, and returns the microseconds of a call.
    """
    context = multiprocessing.get_context("fork")  # an application cannot be pickled
    ours, theirs = context.Pipe()
    process = context.Process(target=_take_turns, args=(theirs, contender, bare, warm_up))
    process.start()
    theirs.close()

    def turn() -> float:
        ours.send(None)
        return float(ours.recv())

    try:
        yield turn
    finally:
        ours.close()
        process.terminate()
        process.join()


def _take_turns(parent: Connection, contender: Contender, bare: Contender, warm_up: int) -> None:
    gc.freeze()  # so that no collection looks at, and copies, what the parent made
    if hasattr(
        os, "sched_setaffinity"
    ):  # all contenders on one processor, which keeps its clock rate
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for argument in contender.prepare(warm_up):
        contender.call(argument)
    while True:
        parent.recv()
        # One right after the other, since the machine's speed changes by more than they differ.
        bare_us = _turn_us(bare)
        parent.send(_turn_us(contender) - bare_us)


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
        del argument  # as a server does with an answered request
    return median(times_ns) / 1000
