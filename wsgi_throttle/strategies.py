"""How limits count: pure functions for each strategy, and the loop that counts all terms or none.

Nothing here reads a clock: times are arguments, in milliseconds by the storage's clock. All numbers
are integers, and products stay below 2**51, so that storage/redis/take.lua, which has the same
arithmetic, is exact with Lua's floating-point numbers. tests/test_agreement.py compares the two.

A state is a tuple of integers; ``()`` is that of a client who was never seen, or has used up
nothing. Windows are half open: what was counted at t is free again at exactly t + window_ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import gcd
from typing import NamedTuple, TypeAlias

from .cache import Bounded
from .decision import NEVER_MS, Limit, Measured, Term

State: TypeAlias = tuple[int, ...]

LARGEST = 1 << 51
"""The products of quotas, windows and costs stay below it."""

GRAINS = 60
"""A sliding window with a larger quota is divided into so many grains. The requests of one grain
share one entry of the state, with the time of the latest. So the state stays short and the limit is
never exceeded, and what was used up is free again one grain late at most."""

StepResult: TypeAlias = tuple[Measured, State]
"""What was measured (see :data:`.Measured`), and the state afterwards."""

Step: TypeAlias = Callable[[State, int, int], StepResult]
"""Called with (state, now, cost): counts the cost if it fits, in which case the wait is 0. A cost
of 0 counts nothing.

Either way, what is older than the window is removed, and times later than now are changed to now,
which bounds the harm of a clock that was set back. If the state does not change, the same object is
returned."""


class Strategy(NamedTuple):
    """One way to count, as pure functions of a limit."""

    compile: Callable[[Limit], Step]
    """Makes the function that counts by this limit."""
    lifetime_ms: Callable[[Limit], int]
    """Idle time after which any state may be deleted (its TTL)."""
    largest: Callable[[Limit], int]
    """Upper bound of every intermediate product, to be kept below LARGEST; timestamps excluded."""
    has_burst: bool = False
    """Whether a limit may have a burst of its own, apart from its quota."""


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
            # For a long state, adding tuples is faster than unpacking them.
            if state[-2] // grain == now // grain:
                state = state[:-3] + (state[-3] + cost, now, total + cost)  # noqa: RUF005
            else:
                state = state[:-1] + (cost, now, total + cost)  # noqa: RUF005
        # The first entry is read again, since its time changes if it is the one that has grown.
        return (0, remaining - cost, state[1] + window_ms - now), state

    return step


def _drop(state: State, oldest: int) -> State:
    """The state without the entries of this time and before."""
    total, kept = state[-1], 0
    while kept < len(state) - 1 and state[kept + 1] <= oldest:
        total -= state[kept]
        kept += 2
    return (*state[kept:-1], total) if total else ()


def _clamp(state: State, now: int) -> tuple[State, int]:
    """The state without the entries that are later than now, and the sum of their counts."""
    kept = len(state) - 1
    late = 0
    while kept and state[kept - 1] > now:
        late += state[kept - 2]
        kept -= 2
    return (*state[:kept], state[-1] - late) if kept else (), late


def _wait(state: State, oldest: int, missing: int) -> int:
    """Milliseconds until entries that count ``missing`` together have left the window.

    :param oldest: where the window begins now; entries of this time have just left it.
    """
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
    """The size of a token, what flows in each millisecond, and the capacity of the bucket, in units
    so small that all three are integers."""
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
    "token-bucket": Strategy(_token, _token_lifetime_ms, _token_largest, has_burst=True),
}

ALIASES = {"moving-window": "sliding-window", "sliding-window-counter": "sliding-window"}
"""Names that other rate limiters use -> the strategy here that does the same, or better."""

Compiled: TypeAlias = tuple[Step, int, bool]
"""A term as :func:`take` needs it: the step of its limit, its cost, and whether it may refuse."""


def compile_terms(terms: Iterable[Term]) -> tuple[Compiled, ...]:
    """Convert terms to the form that :func:`take` needs, once for many requests."""
    return tuple((step_of(term.limit), term.cost, term.enforce) for term in terms)


def with_costs(compiled: Iterable[Compiled], costs: Sequence[int]) -> list[Compiled]:
    """The same steps, for a take that is given its costs: a look, whose costs are all 0, or a
    request that uses up more or less than its rule says.

    :param costs: one for each term.
    """
    return [(step, cost, enforce) for (step, _, enforce), cost in zip(compiled, costs, strict=True)]


def step_of(limit: Limit) -> Step:
    """The function that counts by this limit. Equal limits share one."""
    tag = limit.tag
    return _steps.get(tag) or _steps.keep(tag, STRATEGIES[limit.strategy].compile(limit))


_steps: Bounded[str, Step] = Bounded(4096)


def take(
    compiled: Iterable[Compiled], states: Sequence[State], now: int
) -> tuple[bool, list[Measured], list[State]]:
    """Judge a request: count all its enforced terms if every one of them fits, otherwise nothing.

    A shadow term is counted if the request is granted and the term itself fits. No two terms may
    share both bucket and limit.

    :param states: the state of each term, ``()`` where there is none.
    :param now: milliseconds by the storage's clock.
    :return: whether the request is granted, and for each term what was measured and the state
        afterwards. A state that is another object than the one passed in has changed: the caller
        saves it, or deletes what it has saved if the new state is ``()``.
    """
    measured: list[Measured] = []
    after: list[State] = []
    index = 0  # counted by hand, since enumerate and zip are slower
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
    """Measure every term, also those that would fit, and count none."""
    measured: list[Measured] = []
    after: list[State] = []
    for (step, cost, _), state in zip(compiled, states, strict=True):
        wait_ms = step(state, now, cost)[0][0]
        (_, remaining, reset_ms), looked = step(state, now, 0)
        measured.append((wait_ms, remaining, reset_ms))
        after.append(looked)
    return False, measured, after
