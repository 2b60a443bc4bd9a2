"""How a limit counts: pure functions on tuples of integers, and the all-or-nothing loop.

Every time is an integer of milliseconds by the storage's clock and an argument, so that nothing
here reads a clock. The same arithmetic stands in storage/take.lua, and tests/test_agreement.py
holds the two against each other. Products stay below 2**51, so that Lua's doubles are exact.

A state is a tuple of integers; ``()`` is the state of a client who was never seen. Windows are half
open: what was counted at t is free again at exactly t + window_ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import gcd
from typing import NamedTuple, TypeAlias

from .cache import Bounded
from .decision import NEVER_MS, Charge, Decision, Limit, Line

State: TypeAlias = tuple[int, ...]

_new = tuple.__new__  # what a named tuple's own __new__ calls, at half the cost

LARGEST = 1 << 51
"""Everything that is added or multiplied here stays below it."""

GRAINS = 60
"""Into how many parts a sliding window of a large quota is divided."""


Spent: TypeAlias = tuple[int, int, int, State]
"""Milliseconds until the cost fits, how much is left, milliseconds until that next grows, and the
state afterwards."""

Spend: TypeAlias = Callable[[State, int, int], Spent]
"""(state, now, cost): count the cost if it fits, for which it then waits 0 ms. A cost of 0 only
looks.

Either way what has passed is taken off, and stamps later than now are clamped to it, which bounds
what a clock that was set back can do. A state that does not change is returned as the very object
that was given."""


class Strategy(NamedTuple):
    """One arithmetic."""

    spend_by: Callable[[Limit], Spend]
    """How clients spend by this limit."""
    lifetime_ms: Callable[[Limit], int]
    """After how long without a charge any state is as good as none."""
    largest: Callable[[Limit], int]
    """The largest number that is met on the way, times of day apart."""


# --- fixed-window: (opened_ms, used) -------------------------------------------------------------


def _fixed(limit: Limit) -> Spend:
    quota, window_ms = limit.quota, limit.window_ms

    def spend(state: State, now: int, cost: int) -> Spent:
        if state:
            opened, used = state
            if opened > now:
                opened = now
                state = (now, used)
            reset_ms = opened + window_ms - now
            if reset_ms > 0:
                remaining = quota - used
                if cost > remaining:
                    return reset_ms if cost <= quota else NEVER_MS, remaining, reset_ms, state
                if cost:
                    state = (opened, used + cost)
                return 0, remaining - cost, reset_ms, state
        if cost > quota:
            return NEVER_MS, quota, 0, ()
        return (0, quota - cost, window_ms, (now, cost)) if cost else (0, quota, 0, ())

    return spend


# --- sliding-window: (count, at_ms, count, at_ms, ..., sum of all counts), oldest first -----------


def _sliding(limit: Limit) -> Spend:
    quota, window_ms = limit.quota, limit.window_ms
    grain = -(-window_ms // GRAINS) if quota > GRAINS else 1

    def spend(state: State, now: int, cost: int) -> Spent:
        if state:
            if state[-2] > now:
                before, late = _clamp(state, now)
                state = spend(before, now, late)[3]
            if state[1] <= now - window_ms:
                state = _drop(state, now - window_ms)
        if not state:
            if cost > quota:
                return NEVER_MS, quota, 0, ()
            return (0, quota - cost, window_ms, (cost, now, cost)) if cost else (0, quota, 0, ())
        total = state[-1]
        remaining = quota - total
        if cost > remaining:
            wait_ms = NEVER_MS
            if cost <= quota:
                wait_ms = _wait(state, now - window_ms, cost - remaining)
            return wait_ms, remaining, state[1] + window_ms - now, state
        if cost:
            # Of long logs a sum is made in half the time that a starred display takes.
            if state[-2] // grain == now // grain:
                state = state[:-3] + (state[-3] + cost, now, total + cost)  # noqa: RUF005
            else:
                state = state[:-1] + (cost, now, total + cost)  # noqa: RUF005
        # The first entry may be the one that has grown, and is as old as its newest hit.
        return 0, remaining - cost, state[1] + window_ms - now, state

    return spend


def _drop(state: State, oldest: int) -> State:
    """The state without the entries of this instant and before."""
    total, kept = state[-1], 0
    while kept < len(state) - 1 and state[kept + 1] <= oldest:
        total -= state[kept]
        kept += 2
    return (*state[kept:-1], total) if total else ()


def _clamp(state: State, now: int) -> tuple[State, int]:
    """The state without the entries later than now, and what they count."""
    kept = len(state) - 1
    late = 0
    while kept and state[kept - 1] > now:
        late += state[kept - 2]
        kept -= 2
    return (*state[:kept], state[-1] - late) if kept else (), late


def _wait(state: State, oldest: int, missing: int) -> int:
    """Milliseconds until so much has got older than the oldest that counts now."""
    entry = 0
    while missing > state[entry]:
        missing -= state[entry]
        entry += 2
    return state[entry + 1] - oldest


# --- token-bucket: (at_ms, level), a full bucket is () --------------------------------------------


def _token(limit: Limit) -> Spend:
    weight, flow, capacity = _token_units(limit)

    def spend(state: State, now: int, cost: int) -> Spent:
        level = capacity
        if state:
            at, level = state
            if at > now:
                state = (now, level)
            elif at < now:
                level += (now - at) * flow
                state = (now, level) if level < capacity else ()
                level = min(level, capacity)
        missing = cost * weight - level
        wait_ms = 0
        if missing > 0:
            wait_ms = -(-missing // flow) if cost * weight <= capacity else NEVER_MS
        elif cost:
            level = -missing
            state = (now, level)
        remaining, over = divmod(level, weight)
        return wait_ms, remaining, -(-(weight - over) // flow) if state else 0, state

    return spend


def _token_units(limit: Limit) -> tuple[int, int, int]:
    """What a token weighs, what flows in each millisecond and what the bucket holds, in units so
    small that all three are whole."""
    divisor = gcd(limit.window_ms, limit.quota)
    weight = limit.window_ms // divisor
    return weight, limit.quota // divisor, limit.burst * weight


def _token_lifetime_ms(limit: Limit) -> int:
    _, flow, capacity = _token_units(limit)
    return -(-capacity // flow) if flow else 1


def _token_largest(limit: Limit) -> int:
    return max(_token_units(limit))


def _window_ms(limit: Limit) -> int:
    return limit.window_ms


def _window_largest(limit: Limit) -> int:
    return max(limit.quota, limit.window_ms)


STRATEGIES: dict[str, Strategy] = {
    "sliding-window": Strategy(_sliding, _window_ms, _window_largest),
    "fixed-window": Strategy(_fixed, _window_ms, _window_largest),
    "token-bucket": Strategy(_token, _token_lifetime_ms, _token_largest),
}

ALIASES = {"moving-window": "sliding-window", "sliding-window-counter": "sliding-window"}
"""The incumbents' names for what one of ours does, or does better."""

Spending: TypeAlias = tuple[Spend, int, bool]
"""What is to be known of a charge to judge it: how it is spent, its cost, and whether it is
enforced."""


def spendings_of(lines: Iterable[Line]) -> tuple[Spending, ...]:
    """Those of the charges that have these lines, which a storage makes once."""
    return tuple((spend_by(limit), cost, enforce) for _, limit, cost, enforce, _ in lines)


def spend_by(limit: Limit) -> Spend:
    """How clients spend by this limit."""
    return _spends.get(limit.tag) or _spends.keep(
        limit.tag, STRATEGIES[limit.strategy].spend_by(limit)
    )


_spends: Bounded[str, Spend] = Bounded(4096)


def take(
    charges: Sequence[Charge], spendings: Iterable[Spending], states: Sequence[State], now: int
) -> Decision:
    """Judge the charges against their states: all of the enforced ones are counted, or none.

    A shadow charge is counted where the request is granted and it fits by itself. No two charges
    may share both bucket and limit.

    :param spendings: those of the charges.
    :param states: the state of each charge, ``()`` where there is none.
    :param now: milliseconds by the storage's clock.
    :return: a decision whose ``measured`` are :data:`Spent`. A state there that is not the very
        object that was passed in has changed and is to be saved, ``()`` meaning to be deleted.
    """
    measured: list[Spent] = []
    index = 0  # counted by hand: enumerate and zip cost as much as a quarter of a limit
    for spend, cost, enforce in spendings:
        spent = spend(states[index], now, cost)
        if spent[0] and enforce:
            return _refuse(charges, spendings, states, now)
        measured.append(spent)
        index += 1  # noqa: SIM113
    return _new(Decision, (True, charges, measured))


def _refuse(
    charges: Sequence[Charge], spendings: Iterable[Spending], states: Sequence[State], now: int
) -> Decision:
    """Look at every charge and count none, whatever fitted before one that did not."""
    measured = []
    for (spend, cost, _), state in zip(spendings, states, strict=True):
        wait_ms = spend(state, now, cost)[0]
        measured.append((wait_ms, *spend(state, now, 0)[1:]))
    return Decision(False, charges, measured)
