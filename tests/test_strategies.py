"""What each strategy guarantees, tried with clients that choose the worst moments.

Time is a number here. Of a client only its admitted requests matter, since the guarantees are about
those: a list of (instant, cost).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise, product

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from wsgi_throttle.decision import NEVER_MS, Charge, Decision, Limit, Terms
from wsgi_throttle.strategies import (
    ALIASES,
    LARGEST,
    STRATEGIES,
    State,
    compile_terms,
    step_of,
    take,
)

YEAR_MS = 365 * 86_400_000
START = 1_000_000_000
GRAINS = 60
MOST_INTEGERS = 1 + 2 * 61

QUOTAS = [1, 2, 5, 59, 60, 61, 62, 119, 121, 1_000, 99_999, 100_000]
WINDOWS_MS = [1, 2, 59, 60, 61, 100, 119, 121, 1_000, 3_599_999, 86_400_000, YEAR_MS]

every_strategy = pytest.mark.parametrize("name", STRATEGIES)


def judge(charges: list[Charge], states: list[State], now: int) -> tuple[Decision, list[State]]:
    terms, buckets = Terms.of(charges)
    granted, measured, after = take(compile_terms(terms), states, now)
    return Decision(granted, terms, buckets, measured), after


class Client:
    """A client of one limit, with the requests that it was granted."""

    def __init__(self, limit: Limit, now: int = START) -> None:
        self.limit = limit
        self.now = now
        self.state: State = ()
        self.admitted: list[tuple[int, int]] = []

    def ask(self, cost: int = 1) -> Decision:
        charges = [Charge("b", self.limit, cost, True, "rule")]
        decision, (self.state,) = judge(charges, [self.state], self.now)
        if decision.granted and cost:
            self.admitted.append((self.now, cost))
        return decision

    def left(self) -> int:
        remaining: int = self.ask(0).outcomes[0].remaining
        return remaining

    def ask_for_all(self) -> None:
        if left := self.left():
            assert self.ask(left).granted


def most_in_any_window(admitted: Iterable[tuple[int, int]], window_ms: int) -> int:
    """The largest sum of costs in any window, its end not included."""
    inside: deque[tuple[int, int]] = deque()
    total = most = 0
    for at, cost in admitted:
        inside.append((at, cost))
        total += cost
        while inside[0][0] <= at - window_ms:
            total -= inside.popleft()[1]
        most = max(most, total)
    return most


def limit_of(name: str, quota: int, window_ms: int, burst: int | None = None) -> Limit:
    return Limit(name, quota, window_ms, quota if burst is None else burst)


quotas = st.sampled_from(QUOTAS) | st.integers(1, 100_000)
windows = st.sampled_from(WINDOWS_MS) | st.integers(1, YEAR_MS)
moves = st.lists(
    st.tuples(
        st.sampled_from(["stay", "tick", "wait", "too early", "grain", "window", "edge", "part"]),
        st.integers(0, 1 << 40),
        st.sampled_from(["one", "all", "half", "too much", "look"]),
    ),
    max_size=80,
)


def play(client: Client, moves: Iterable[tuple[str, int, str]]) -> Iterator[None]:
    """Send requests again and again, at instants and with costs at the edges of what is allowed."""
    window_ms = client.limit.window_ms
    grain_ms = -(-window_ms // GRAINS)
    wait_ms = 0
    for pause, number, cost in moves:
        client.now += {
            "stay": 0,
            "tick": 1,
            "wait": wait_ms,
            "too early": max(wait_ms - 1, 0),
            "grain": -client.now % grain_ms,
            "window": window_ms,
            "edge": max(window_ms - 1, 0),
            "part": number % (window_ms + 1),
        }[pause]
        left = client.left()
        asked = {"one": 1, "all": left, "half": left // 2, "too much": left + 1, "look": 0}[cost]
        decision = client.ask(min(asked, client.limit.burst))
        wait_ms = decision.outcomes[0].wait_ms
        assert wait_ms < NEVER_MS
        yield


# --- sliding-window: never more than N in any window of W ----------------------------------------


@settings(max_examples=300)
@given(quotas, windows, moves)
def test_sliding_window_never_admits_more_than_its_quota_in_any_window(
    quota: int, window_ms: int, moves: list[tuple[str, int, str]]
) -> None:
    client = Client(limit_of("sliding-window", quota, window_ms))
    for _ in play(client, moves):
        assert len(client.state) <= MOST_INTEGERS
    assert most_in_any_window(client.admitted, window_ms) <= quota


@pytest.mark.parametrize("window_ms", WINDOWS_MS)
@pytest.mark.parametrize("quota", QUOTAS)
def test_no_pair_of_bursts_beats_the_sliding_window(quota: int, window_ms: int) -> None:
    """Use a part of the quota at one instant, the rest at a second, and all that is left at a
    third."""
    grain_ms = -(-window_ms // GRAINS)
    pauses = {0, 1, grain_ms - 1, grain_ms, grain_ms + 1, window_ms // 2}
    pauses |= {window_ms - grain_ms, window_ms - 1, window_ms, window_ms + 1}
    steps = sorted(pause for pause in pauses if pause >= 0)
    for phase, first, second, third in product((0, 1, grain_ms - 1), steps, steps, steps):
        client = Client(limit_of("sliding-window", quota, window_ms), START * 60 + phase)
        client.ask(max(quota // 2, 1))
        for pause in (first, second, third):
            client.now += pause
            client.ask_for_all()
        assert most_in_any_window(client.admitted, window_ms) <= quota


@pytest.mark.parametrize("window_ms", [1, 7, 60, 61, 100, 1_000, 3_001])
@pytest.mark.parametrize("quota", [1, 3, 60, 61, 100, 777])
def test_a_client_that_asks_every_millisecond_gets_its_share(quota: int, window_ms: int) -> None:
    client = Client(limit_of("sliding-window", quota, window_ms))
    windows = 20
    for _ in range(windows * window_ms):
        client.ask()
        client.now += 1
        assert len(client.state) <= MOST_INTEGERS
    owed = min(quota, window_ms)  # the client asks once a millisecond at most
    assert len(client.admitted) * (GRAINS + 1) >= windows * owed * GRAINS
    assert most_in_any_window(client.admitted, window_ms) <= quota


@pytest.mark.parametrize("quota", [61, 1_000, 100_000])
def test_a_client_that_always_takes_all_there_is_gets_its_share_of_long_windows(
    quota: int,
) -> None:
    client = Client(limit_of("sliding-window", quota, YEAR_MS))
    windows = 50
    while client.now < START + windows * YEAR_MS:
        client.ask_for_all()
        client.now += client.ask().outcomes[0].wait_ms
    total = sum(cost for _, cost in client.admitted)
    assert total * (GRAINS + 1) >= windows * quota * GRAINS


@pytest.mark.parametrize("quota", [1, 2, 59, 60])
def test_up_to_60_hits_are_free_again_each_at_its_own_instant(quota: int) -> None:
    client = Client(limit_of("sliding-window", quota, 10_000))
    for number in range(quota):
        client.now = START + 37 * number
        assert client.ask().granted
    for number in range(quota):
        client.now = START + 37 * number + 9_999
        assert not client.ask().granted
        client.now += 1
        assert client.ask().granted


@settings(max_examples=200)
@given(quotas, windows, st.lists(st.integers(-YEAR_MS, YEAR_MS), max_size=150))
def test_the_state_stays_small_even_where_the_clock_steps_back(
    quota: int, window_ms: int, steps: list[int]
) -> None:
    client = Client(limit_of("sliding-window", quota, window_ms), 1 << 45)
    for step in steps:
        client.now = max(client.now + step % (2 * window_ms + 2) * (1 if step > 0 else -1), 1)
        client.ask()
        assert len(client.state) <= MOST_INTEGERS
        assert sum(client.state[:-1:2]) == (client.state[-1] if client.state else 0) <= quota


# --- fixed-window and token-bucket ---------------------------------------------------------------


@settings(max_examples=200)
@given(quotas, windows, moves)
def test_fixed_window_admits_its_quota_from_the_first_hit_on_and_twice_that_over_an_edge(
    quota: int, window_ms: int, moves: list[tuple[str, int, str]]
) -> None:
    client = Client(limit_of("fixed-window", quota, window_ms))
    for _ in play(client, moves):
        assert len(client.state) <= 2
    opened, used = -YEAR_MS, 0
    for at, cost in client.admitted:
        if at - opened >= window_ms:
            opened, used = at, 0
        used += cost
        assert used <= quota
    assert most_in_any_window(client.admitted, window_ms) <= 2 * quota


def test_fixed_window_does_admit_twice_its_quota_over_an_edge() -> None:
    client = Client(limit_of("fixed-window", 10, 1_000))
    client.ask()
    for client.now in (START + 999, START + 1_000):
        client.ask_for_all()
    assert most_in_any_window(client.admitted, 1_000) == 19


@settings(max_examples=200)
@given(quotas, windows, st.integers(1, 1_000), moves)
@example(quota=7, window_ms=1_000, burst=3, moves=[("part", 1, "all")] * 50)
def test_token_bucket_admits_a_burst_and_then_its_rate(
    quota: int, window_ms: int, burst: int, moves: list[tuple[str, int, str]]
) -> None:
    assume((window_ms * burst) < LARGEST)
    client = Client(limit_of("token-bucket", quota, window_ms, burst))
    for _ in play(client, moves):
        assert len(client.state) <= 2
    for start in range(len(client.admitted)):
        total = 0
        first = client.admitted[start][0]
        for at, cost in client.admitted[start:]:
            total += cost
            assert total * window_ms <= burst * window_ms + quota * (at - first)


@pytest.mark.parametrize(
    ("quota", "window_ms", "burst"), [(1, 7, 1), (7, 1_000, 3), (3, 1_000, 10), (1_000, 60_000, 1)]
)
def test_token_bucket_gives_the_whole_rate_to_who_asks_every_millisecond(
    quota: int, window_ms: int, burst: int
) -> None:
    client = Client(limit_of("token-bucket", quota, window_ms, burst))
    for _ in range(10 * window_ms):
        client.ask()
        client.now += 1
    last_ms = 10 * window_ms - 1
    assert len(client.admitted) == burst + quota * last_ms // window_ms


# --- all of them ---------------------------------------------------------------------------------


@every_strategy
@settings(max_examples=150)
@given(quota=quotas, window_ms=windows, moves=moves, cost=st.integers(1, 100_000))
def test_a_wait_is_exact(
    name: str, quota: int, window_ms: int, moves: list[tuple[str, int, str]], cost: int
) -> None:
    assume(quota * window_ms < LARGEST)
    client = Client(limit_of(name, quota, window_ms))
    step = step_of(client.limit)
    cost = min(cost, quota)
    for _ in play(client, moves):
        (wait_ms, _, _), state = step(client.state, client.now, cost)
        if wait_ms:
            for later, fits in ((wait_ms, True), (wait_ms - 1, False)):
                now = client.now + later
                assert (step(state, now, cost)[0][0] == 0) is fits


@every_strategy
@settings(max_examples=150)
@given(quota=quotas, window_ms=windows, moves=moves)
def test_what_is_left_grows_at_the_reset_and_not_before(
    name: str, quota: int, window_ms: int, moves: list[tuple[str, int, str]]
) -> None:
    assume(quota * window_ms < LARGEST)
    client = Client(limit_of(name, quota, window_ms))
    step = step_of(client.limit)
    for _ in play(client, moves):
        (_, remaining, reset_ms), state = step(client.state, client.now, 0)
        assert 0 <= remaining <= quota
        if not state:
            assert (remaining, reset_ms) == (quota, 0)
            continue
        now = client.now + reset_ms
        assert step(state, now, 0)[0][1] > remaining
        assert step(state, now - 1, 0)[0][1] == remaining


@every_strategy
@settings(max_examples=100)
@given(quota=quotas, window_ms=windows, moves=moves)
def test_after_its_lifetime_a_state_is_as_good_as_none(
    name: str, quota: int, window_ms: int, moves: list[tuple[str, int, str]]
) -> None:
    assume(quota * window_ms < LARGEST)
    client = Client(limit_of(name, quota, window_ms))
    lifetime_ms = STRATEGIES[name].lifetime_ms(client.limit)
    for _ in play(client, moves):
        over = client.now + lifetime_ms
        assert step_of(client.limit)(client.state, over, 0) == ((0, quota, 0), ())


@every_strategy
def test_a_state_of_all_there_is_lasts_for_its_lifetime_to_the_millisecond(name: str) -> None:
    client = Client(limit_of(name, 7, 1_000))
    client.ask_for_all()
    step = step_of(client.limit)
    last = client.now + STRATEGIES[name].lifetime_ms(client.limit) - 1
    assert step(client.state, last, 0)[1] != ()
    assert step(client.state, last + 1, 0)[1] == ()


@pytest.mark.parametrize(
    ("limit", "largest"),
    [
        (Limit("sliding-window", 5, 60_000, 5), 60_000),
        (Limit("fixed-window", 60_000, 5, 60_000), 60_000),
        (Limit("token-bucket", 7, 1_000, 7), 7_000),
    ],
    ids=lambda of: getattr(of, "tag", None),
)
def test_the_largest_number_is_known_beforehand(limit: Limit, largest: int) -> None:
    assert STRATEGIES[limit.strategy].largest(limit) == largest


@every_strategy
@settings(max_examples=100)
@given(quota=quotas, window_ms=windows, moves=moves, back_ms=st.integers(1, YEAR_MS))
def test_a_clock_that_steps_back_gives_nothing_and_refuses_for_a_window_at_most(
    name: str, quota: int, window_ms: int, moves: list[tuple[str, int, str]], back_ms: int
) -> None:
    assume(quota * window_ms < LARGEST)
    client = Client(limit_of(name, quota, window_ms), 1 << 45)
    for _ in play(client, moves):
        pass
    left = client.left()
    client.now -= back_ms
    assert client.left() <= left
    client.ask_for_all()
    wait_ms = client.ask().outcomes[0].wait_ms
    assert 0 < wait_ms <= window_ms
    client.now += window_ms
    assert client.left() == quota


@every_strategy
def test_a_refusal_saves_that_the_clock_stepped_back(name: str) -> None:
    client = Client(limit_of(name, 1, 60_000))
    client.ask()
    before = client.state
    client.now -= 3_600_000
    assert not client.ask().granted
    assert client.state != before
    assert max(client.state) <= max(client.now, 60_000)


@every_strategy
def test_windows_are_half_open(name: str) -> None:
    client = Client(limit_of(name, 1, 1_000))
    granted = []
    for client.now in (START, START, START + 999, START + 1_000, START + 1_999, START + 2_000):
        granted.append(client.ask().granted)
    assert granted == [True, False, False, True, False, True]


@every_strategy
def test_a_quota_of_0_refuses_for_ever(name: str) -> None:
    client = Client(limit_of(name, 0, 1_000))
    for _ in range(3):
        decision = client.ask()
        assert (decision.granted, decision.outcomes[0].wait_ms) == (False, NEVER_MS)
        client.now += 10_000
    assert client.left() == 0


def test_other_names_are_of_strategies_that_there_are() -> None:
    assert set(ALIASES.values()) <= set(STRATEGIES)
    assert not set(ALIASES) & set(STRATEGIES)


# --- the loop ------------------------------------------------------------------------------------

limits = st.builds(
    limit_of,
    st.sampled_from(list(STRATEGIES)),
    st.integers(0, 4) | st.sampled_from([60, 61, 100]),
    st.sampled_from([1, 50, 1_000, 1_001]),
)
requests = st.lists(
    st.tuples(
        st.integers(-60, 400),
        st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=4, max_size=4),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(st.lists(limits, min_size=1, max_size=4, unique=True), requests)
def test_all_enforced_charges_are_counted_or_none(
    limits: list[Limit], requests: list[tuple[int, list[tuple[int, bool]]]]
) -> None:
    states: list[State] = [()] * len(limits)
    now = START
    for step, details in requests:
        now += step
        charges = [
            Charge("b", limit, cost, enforce, "rule")
            for limit, (cost, enforce) in zip(limits, details, strict=False)
        ]
        decision, after = judge(charges, states, now)
        alone = [
            judge([charge], [state], now)[0].outcomes[0]
            for charge, state in zip(charges, states, strict=True)
        ]
        assert [outcome.wait_ms for outcome in decision.outcomes] == [one.wait_ms for one in alone]
        assert decision.granted == (
            not any(
                one.wait_ms and charge.enforce for charge, one in zip(charges, alone, strict=True)
            )
        )
        looks = [charge._replace(cost=0) for charge in charges]
        before_left = [outcome.remaining for outcome in judge(looks, states, now)[0].outcomes]
        after_left = [outcome.remaining for outcome in judge(looks, after, now)[0].outcomes]
        for charge, one, had, has in zip(charges, alone, before_left, after_left, strict=True):
            counted = charge.cost if decision.granted and not one.wait_ms else 0
            assert has == had - counted
        assert [outcome.remaining for outcome in decision.outcomes] == after_left
        states = after


@every_strategy
def test_a_state_that_did_not_change_is_the_very_object_that_was_given(name: str) -> None:
    client = Client(limit_of(name, 2, 60_000))
    client.ask()
    before = client.state
    for decision in (client.ask(0), client.ask(2)):
        assert client.state is before
        assert decision.outcomes[0].remaining == 1


@every_strategy
def test_a_state_that_is_over_is_to_be_deleted(name: str) -> None:
    client = Client(limit_of(name, 2, 60_000))
    client.ask()
    client.now += 60_000
    client.ask(0)
    assert client.state == ()


def test_the_instants_of_a_state_never_go_back() -> None:
    client = Client(limit_of("sliding-window", 1_000, 60_000))
    for step in (5, 900, -3_000, 1, 0, 40_000, -1, 7):
        client.now += step
        client.ask(3)
        stamps = client.state[1::2]
        assert all(earlier <= later for earlier, later in pairwise(stamps))
        assert stamps[-1] == client.now
