"""Contenders take turns, so that what else the machine does falls on all alike.

Each has a process of its own, as a server has one application to serve: Python fits its code to
what that code was last used for. A turn is many requests, of which the last are timed, each by
itself. Their median counts, so that one which is interrupted, or sets off a garbage collection,
does not.
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
"""Untimed requests of each turn, one a client, after others had the processor's caches, which they
have not in a server."""
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
        """How many times the other's cost, round by round."""
        pairs = zip(self._us[name], self._us[base], strict=True)
        return Spread.of([a / b for a, b in pairs])


@contextmanager
def _turns(contender: Contender, bare: Contender, warm_up: int) -> Iterator[Callable[[], float]]:
    """A function that lets the contender have a turn, in its process, and returns what it cost."""
    context = multiprocessing.get_context("fork")  # since an application cannot be pickled
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
    gc.freeze()  # what the parent made is neither looked at nor copied
    if hasattr(os, "sched_setaffinity"):  # one processor for all, which is warm from the last turn
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for argument in contender.prepare(warm_up):
        contender.call(argument)
    while True:
        parent.recv()
        # Side by side, since both change by more than they differ.
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
        del argument  # nobody keeps it, as no server keeps a request
    return median(times_ns) / 1000
