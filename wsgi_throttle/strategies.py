"""How a limit counts: pure functions on tuples of integers, and the all-or-nothing loop.

Every time is an integer of milliseconds by the storage's clock and an argument, so that nothing
here reads a clock. The same arithmetic stands in storage/redis/take.lua, which
tests/test_agreement.py holds against this. Products stay below 2**51, so that Lua's doubles are
exact.

A state is a tuple of integers; ``()`` is the state of a client who was never seen. Windows are half
open: what was counted at t is free again at exactly t + window_ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import gcd
from typing import NamedTuple, TypeAlias

from .cache import Bounded
from .decision import NEVER_MS, Limit, Measured, Term

State: TypeAlias = tuple[int, ...]

LARGEST = 1 << 51
"""Everything that is added or multiplied here stays below it."""

GRAINS = 60
"""Into how many parts a sliding window of a large quota is divided."""


StepResult: TypeAlias = tuple[Measured, State]
"""What was measured (milliseconds until the cost fits, how much is left, milliseconds until that
next grows), and the state afterwards."""

Step: TypeAlias = Callable[[State, int, int], StepResult]
"""(state, now, cost): count the cost if it fits, for which it then waits 0 ms. A cost of 0 only
looks.

Either way what has passed is taken off, and stamps later than now are clamped to it, which bounds
what a clock that was set back can do. A state that does not change is returned as the very object
that was given."""


class Strategy(NamedTuple):
    """One arithmetic."""

    compile: Callable[[Limit], Step]
    """Makes the step of a limit."""
    lifetime_ms: Callable[[Limit], int]
    """Idle time after which any state may be deleted (its TTL)."""
    largest: Callable[[Limit], int]
    """Upper bound of every intermediate product, to be kept below LARGEST; timestamps excluded."""


# --- fixed-window: (opened_ms, used) -------------------------------------------------------------


def _fixed(limit: Limit) -> Step:
    quota, window_ms = limit.quota, limit.window_ms

    def step(state: State, now: int, cost: int) -> StepResult:
        if state:
            opened, used = state
            if opened > now:
                opened = now
                state = (now, used)
            reset_ms = opened + window_ms - now
            if reset_ms > 0:
                remaining = quota - used
                if cost > remaining:
                    wait_ms = reset_ms if cost <= quota else NEVER_MS
                    return (wait_ms, remaining, reset_ms), state
                if cost:
                    state = (opened, used + cost)
                return (0, remaining - cost, reset_ms), state
        if cost > quota:
            return (NEVER_MS, quota, 0), ()
        if not cost:
            return (0, quota, 0), ()
        return (0, quota - cost, window_ms), (now, cost)

    return step


# --- sliding-window: (count, at_ms, count, at_ms, ..., sum of all counts), oldest first -----------


def _sliding(limit: Limit) -> Step:
    quota, window_ms = limit.quota, limit.window_ms
    grain = -(-window_ms // GRAINS) if quota > GRAINS else 1

    def step(state: State, now: int, cost: int) -> StepResult:
        if state:
            if state[-2] > now:
                before, late = _clamp(state, now)
                state = step(before, now, late)[1]
            if state[1] <= now - window_ms:
                state = _drop(state, now - window_ms)
        if not state:
            if cost > quota:
                return (NEVER_MS, quota, 0), ()
            if not cost:
                return (0, quota, 0), ()
            return (0, quota - cost, window_ms), (cost, now, cost)
        total = state[-1]
        remaining = quota - total
        if cost > remaining:
            wait_ms = NEVER_MS
            if cost <= quota:
                wait_ms = _wait(state, now - window_ms, cost - remaining)
            return (wait_ms, remaining, state[1] + window_ms - now), state
        if cost:
            # Of long logs a sum is made in half the time that a starred display takes.
            if state[-2] // grain == now // grain:
                state = state[:-3] + (state[-3] + cost, now, total + cost)  # noqa: RUF005
            else:
                state = state[:-1] + (cost, now, total + cost)  # noqa: RUF005
        # The first entry may be the one that has grown, and is as old as its newest hit.
        return (0, remaining - cost, state[1] + window_ms - now), state

    return step


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


def _token(limit: Limit) -> Step:
    weight, flow, capacity = _token_units(limit)

    def step(state: State, now: int, cost: int) -> StepResult:
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
        reset_ms = -(-(weight - over) // flow) if state else 0
        return (wait_ms, remaining, reset_ms), state

    return step


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

Compiled: TypeAlias = tuple[Step, int, bool]
"""A term as :func:`take` needs it: the step of its limit, its cost, and whether it is enforced."""


def compile_terms(terms: Iterable[Term]) -> tuple[Compiled, ...]:
    """These terms as :func:`take` needs them, which a storage makes once."""
    return tuple((step_of(limit), cost, enforce) for _, limit, cost, enforce, *_ in terms)


def with_costs(compiled: Iterable[Compiled], costs: Sequence[int]) -> list[Compiled]:
    """The same with other costs.

    :param costs: for each term.
    """
    return [(step, cost, enforce) for (step, _, enforce), cost in zip(compiled, costs, strict=True)]


def step_of(limit: Limit) -> Step:
    """How this limit counts. Made once for equal limits."""
    tag = limit.tag
    return _steps.get(tag) or _steps.keep(tag, STRATEGIES[limit.strategy].compile(limit))


_steps: Bounded[str, Step] = Bounded(4096)


def take(
    compiled: Iterable[Compiled], states: Sequence[State], now: int
) -> tuple[bool, list[Measured], list[State]]:
    """Judge the terms of a request against their states: all of the enforced ones are counted, or
    none.

    A shadow term is counted where the request is granted and it fits by itself. No two terms may
    share both bucket and limit.

    :param states: the state of each term, ``()`` where there is none.
    :param now: milliseconds by the storage's clock.
    :return: whether the request is granted, and for each term what was measured and the state
        afterwards. A state that is not the very object that was passed in has changed and is to be
        saved, ``()`` meaning to be deleted.
    """
    measured: list[Measured] = []
    after: list[State] = []
    index = 0  # counted by hand: enumerate and zip cost as much as a tenth of a limit
    for step, cost, enforce in compiled:
        found, state = step(states[index], now, cost)
        if found[0] and enforce:
            return _refuse(compiled, states, now)
        measured.append(found)
        after.append(state)
        index += 1  # noqa: SIM113
    return True, measured, after


def _refuse(
    compiled: Iterable[Compiled], states: Sequence[State], now: int
) -> tuple[bool, list[Measured], list[State]]:
    """Look at every term and count none, whatever fitted before one that did not."""
    measured: list[Measured] = []
    after: list[State] = []
    for (step, cost, _), state in zip(compiled, states, strict=True):
        wait_ms = step(state, now, cost)[0][0]
        (_, remaining, reset_ms), looked = step(state, now, 0)
        measured.append((wait_ms, remaining, reset_ms))
        after.append(looked)
    return False, measured, after
