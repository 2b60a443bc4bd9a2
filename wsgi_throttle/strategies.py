"""How a limit counts: pure functions on tuples of integers, and the all-or-nothing loop.

Every time is an integer of milliseconds by the storage's clock and an argument, so that nothing
here reads a clock. The same verbs stand in storage/take.lua, and tests/test_agreement.py holds the
two against each other. Products stay below 2**51, so that Lua's doubles are exact.

A state is a tuple of integers; ``()`` is the state of a client who was never seen. Windows are half
open: what was counted at t is free again at exactly t + window_ms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple, TypeAlias

from .decision import NEVER_MS, Charge, Decision, Limit, Outcome

State: TypeAlias = tuple[int, ...]

_new = tuple.__new__  # what a named tuple's own __new__ calls, at half the cost

LARGEST = 1 << 51
"""Everything that is added or multiplied here stays below it."""

GRAINS = 60
"""Into how many parts a sliding window of a large quota is divided."""


class Strategy(NamedTuple):
    """The verbs of one arithmetic."""

    advance: Callable[[State, Limit, int], State]
    """(state, limit, now): the state with what has passed taken off and stamps later than now
    clamped to it, which bounds what a clock that was set back can do."""
    wait: Callable[[State, Limit, int, int], int]
    """(advanced state, limit, now, cost): milliseconds until the cost fits; 0 if it does."""
    charge: Callable[[State, Limit, int, int], State]
    """(advanced state, limit, now, cost that fits): the state with the cost counted."""
    describe: Callable[[State, Limit, int], tuple[int, int]]
    """(advanced state, limit, now): how much is left, and milliseconds until that next grows."""
    lifetime_ms: Callable[[Limit], int]
    """(limit): after how long without a charge any state is as good as none."""
    largest: Callable[[Limit], int]
    """(limit): the largest number that a verb meets, times of day apart."""


# --- fixed-window: (opened_ms, used) -------------------------------------------------------------


def _fixed_advance(state: State, limit: Limit, now: int) -> State:
    if not state:
        return state
    opened, used = state
    if opened > now:
        return (now, used)
    return () if now - opened >= limit.window_ms else state


def _fixed_wait(state: State, limit: Limit, now: int, cost: int) -> int:
    if cost > limit.quota:
        return NEVER_MS
    if not state or state[1] + cost <= limit.quota:
        return 0
    return state[0] + limit.window_ms - now


def _fixed_charge(state: State, limit: Limit, now: int, cost: int) -> State:
    return (state[0], state[1] + cost) if state else (now, cost)


def _fixed_describe(state: State, limit: Limit, now: int) -> tuple[int, int]:
    if not state:
        return limit.quota, 0
    return limit.quota - state[1], state[0] + limit.window_ms - now


# --- sliding-window: (sum, at_ms, count, at_ms, count, ...), oldest first -------------------------


def _sliding_advance(state: State, limit: Limit, now: int) -> State:
    if not state:
        return state
    if state[-2] > now:
        state = _sliding_clamp(state, limit, now)
    oldest = now - limit.window_ms
    if state[1] > oldest:
        return state
    total, kept = state[0], 1
    while kept < len(state) and state[kept] <= oldest:
        total -= state[kept + 1]
        kept += 2
    return (total, *state[kept:]) if total else ()


def _sliding_clamp(state: State, limit: Limit, now: int) -> State:
    kept = len(state)
    late = 0
    while kept > 1 and state[kept - 2] > now:
        late += state[kept - 1]
        kept -= 2
    return _sliding_append(state[0], state[1:kept], limit, now, late)


def _sliding_append(total: int, entries: State, limit: Limit, now: int, count: int) -> State:
    """The state of a total that these entries and one more hit add up to."""
    grain = 1 if limit.quota <= GRAINS else -(-limit.window_ms // GRAINS)
    if entries and entries[-2] // grain == now // grain:
        return (total, *entries[:-2], now, entries[-1] + count)
    return (total, *entries, now, count)


def _sliding_wait(state: State, limit: Limit, now: int, cost: int) -> int:
    if cost > limit.quota:
        return NEVER_MS
    if not state:
        return 0
    missing = state[0] + cost - limit.quota
    if missing <= 0:
        return 0
    entry = 1
    while missing > state[entry + 1]:
        missing -= state[entry + 1]
        entry += 2
    return state[entry] + limit.window_ms - now


def _sliding_charge(state: State, limit: Limit, now: int, cost: int) -> State:
    if not state:
        return (cost, now, cost)
    return _sliding_append(state[0] + cost, state[1:], limit, now, cost)


def _sliding_describe(state: State, limit: Limit, now: int) -> tuple[int, int]:
    if not state:
        return limit.quota, 0
    return limit.quota - state[0], state[1] + limit.window_ms - now


# --- token-bucket: (at_ms, level), a full bucket is () --------------------------------------------


def _token_units(limit: Limit) -> tuple[int, int, int]:
    """What a token weighs, what flows in each millisecond and what the bucket holds, in units so
    small that all three are whole."""
    divisor = gcd(limit.window_ms, limit.quota)
    weight = limit.window_ms // divisor
    return weight, limit.quota // divisor, limit.burst * weight


def _token_advance(state: State, limit: Limit, now: int) -> State:
    if not state:
        return state
    at, level = state
    if at >= now:
        return state if at == now else (now, level)
    _, flow, capacity = _token_units(limit)
    level += (now - at) * flow
    return (now, level) if level < capacity else ()


def _token_wait(state: State, limit: Limit, now: int, cost: int) -> int:
    if cost > limit.burst:
        return NEVER_MS
    if not state:
        return 0
    weight, flow, _ = _token_units(limit)
    missing = cost * weight - state[1]
    return -(-missing // flow) if missing > 0 else 0


def _token_charge(state: State, limit: Limit, now: int, cost: int) -> State:
    weight, _, capacity = _token_units(limit)
    return (now, (state[1] if state else capacity) - cost * weight)


def _token_describe(state: State, limit: Limit, now: int) -> tuple[int, int]:
    if not state:
        return limit.burst, 0
    weight, flow, _ = _token_units(limit)
    remaining, over = divmod(state[1], weight)
    return remaining, -(-(weight - over) // flow)


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
    "sliding-window": Strategy(
        _sliding_advance,
        _sliding_wait,
        _sliding_charge,
        _sliding_describe,
        _window_ms,
        _window_largest,
    ),
    "fixed-window": Strategy(
        _fixed_advance, _fixed_wait, _fixed_charge, _fixed_describe, _window_ms, _window_largest
    ),
    "token-bucket": Strategy(
        _token_advance,
        _token_wait,
        _token_charge,
        _token_describe,
        _token_lifetime_ms,
        _token_largest,
    ),
}

ALIASES = {"moving-window": "sliding-window", "sliding-window-counter": "sliding-window"}
"""The incumbents' names for what one of ours does, or does better."""


def take(
    charges: Sequence[Charge], states: Sequence[State], now: int
) -> tuple[Decision, list[State]]:
    """Judge the charges against their states: all of the enforced ones are counted, or none.

    A shadow charge is counted where the request is granted and it fits by itself. No two charges
    may share both bucket and limit.

    :param states: the state of each charge, ``()`` where there is none.
    :param now: milliseconds by the storage's clock.
    :return: the decision, and the state of each charge afterwards; one that is not the very object
        that was passed in has changed and is to be saved, ``()`` meaning to be deleted.
    """
    outcomes = []
    after = []
    for index, (_, limit, cost, enforce, _) in enumerate(charges):
        advance, wait, charge, describe, _, _ = STRATEGIES[limit.strategy]
        state = advance(states[index], limit, now)
        wait_ms = wait(state, limit, now, cost) if cost else 0
        if wait_ms and enforce:
            return _refuse(charges, states, now)
        if cost and not wait_ms:
            state = charge(state, limit, now, cost)
        remaining, reset_ms = describe(state, limit, now)
        outcomes.append(_new(Outcome, (wait_ms, remaining, reset_ms)))
        after.append(state)
    return _new(Decision, (True, charges, outcomes)), after


def _refuse(
    charges: Sequence[Charge], states: Sequence[State], now: int
) -> tuple[Decision, list[State]]:
    """Look at every charge and count none, whatever fitted before one that did not."""
    outcomes = []
    after = []
    for index, (_, limit, cost, _, _) in enumerate(charges):
        advance, wait, _, describe, _, _ = STRATEGIES[limit.strategy]
        state = advance(states[index], limit, now)
        wait_ms = wait(state, limit, now, cost) if cost else 0
        outcomes.append(Outcome(wait_ms, *describe(state, limit, now)))
        after.append(state)
    return Decision(False, charges, outcomes), after
