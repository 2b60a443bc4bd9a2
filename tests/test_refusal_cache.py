"""Refusals that are remembered: what they answer, for how long, and when the storage is asked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest

from support.charges import take
from wsgi_throttle.clock import MS
from wsgi_throttle.decision import NEVER_MS, Charge, Decision, Limit, Outcome, Take, Terms
from wsgi_throttle.errors import StorageError
from wsgi_throttle.storage import refusal_cache
from wsgi_throttle.storage.memory import MemoryStorage
from wsgi_throttle.storage.refusal_cache import RefusalCache
from wsgi_throttle.testing import ManualClock

MINUTE = Limit("sliding-window", 1, 60_000, 1)
HOUR = Limit("sliding-window", 5, 3_600_000, 5)
QUICK = Limit("token-bucket", 1, 100, 1)


class Clock(ManualClock):
    """Starts between two milliseconds, so that a wrong rounding shows."""

    def __init__(self) -> None:
        super().__init__(now_ms=1_000_000.9)

    def pass_ms(self, passed: float) -> None:
        self.now_ns += int(passed * MS)


class Counting(MemoryStorage):
    """Counts how often it is asked, and is slow or fails if a test says so."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._ticking = clock
        self.asked = 0
        self.before_ms = 0.0
        self.after_ms = 0.0
        self.fails = False

    def prepare(self, terms: Terms) -> Take:
        ask = super().prepare(terms)

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            self.asked += 1
            if self.fails:
                raise StorageError("gone")
            self._ticking.pass_ms(self.before_ms)
            decision = ask(buckets, costs, look)
            self._ticking.pass_ms(self.after_ms)
            return decision

        return take


def charge(
    limit: Limit = MINUTE, *, bucket: str = "t:{ip:192.0.2.1}", cost: int = 1, enforce: bool = True
) -> Charge:
    return Charge(bucket, limit, cost, enforce, "rule")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def asked(clock: Clock) -> Counting:
    return Counting(clock)


@pytest.fixture
def storage(clock: Clock, asked: Counting) -> RefusalCache:
    return RefusalCache(asked, clock=clock)


def test_the_storage_is_asked_once_a_second_for_a_client_over_its_limit(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    take(storage, [charge()])
    for _ in range(5_000):
        assert not take(storage, [charge()]).granted
        clock.pass_ms(1)
    assert asked.asked == 1 + 5


def test_a_refusal_with_a_wait_under_a_second_ends_with_the_wait(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    assert take(storage, [charge(QUICK)]).granted
    assert take(storage, [charge(QUICK)]).outcomes[0].wait_ms == 100
    clock.pass_ms(99)
    assert take(storage, [charge(QUICK)]).outcomes[0].wait_ms == 1
    assert asked.asked == 2
    clock.pass_ms(1)
    assert take(storage, [charge(QUICK)]).granted


def test_the_same_decision_answers_all_requests_within_10_ms(
    clock: Clock, storage: RefusalCache
) -> None:
    terms, buckets = Terms.of([charge()])
    ask = storage.prepare(terms)
    ask(buckets)
    first = ask(buckets)
    told = [ask(buckets)]
    for _ in range(40):
        clock.pass_ms(1)
        told.append(ask((*buckets,)))
    assert all(later is earlier for earlier, later in pairwise(told[:10]))
    assert len({id(one) for one in told}) == 5
    for passed_ms, one in enumerate(told):
        true_wait_ms = first.outcomes[0].wait_ms - passed_ms
        assert true_wait_ms <= one.outcomes[0].wait_ms < true_wait_ms + refusal_cache.REPLY_NS / MS


def test_an_answer_is_not_given_to_other_charges(storage: RefusalCache) -> None:
    mine, more = [charge()], [charge(), charge(HOUR)]
    (mine_terms, buckets), (more_terms, _) = Terms.of(mine), Terms.of(more)
    ask, ask_for_more = storage.prepare(mine_terms), storage.prepare(more_terms)
    ask(buckets)
    ask(buckets)
    assert ask(buckets).charges == mine
    assert ask_for_more(buckets).charges == more
    assert ask(buckets).charges == mine
    assert ask(buckets, [1]).costs == [1]
    assert ask(buckets).costs is None


@pytest.mark.parametrize("passed_ms", [0, 0.3, 0.999, 1, 1.7, 500, 999.9])
def test_waits_are_less_by_the_time_that_has_passed_and_never_too_short(
    clock: Clock, storage: RefusalCache, passed_ms: float
) -> None:
    take(storage, [charge()])
    first = take(storage, [charge()]).outcomes[0]
    clock.pass_ms(passed_ms)
    again = take(storage, [charge()]).outcomes[0]
    assert again == Outcome(first.wait_ms - int(passed_ms), 0, first.reset_ms - int(passed_ms))


def test_a_slow_answer_makes_no_refusal_longer_and_no_wait_too_short(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    take(storage, [charge(QUICK)])
    asked.before_ms, asked.after_ms = 20, 30
    assert take(storage, [charge(QUICK)]).outcomes[0].wait_ms == 80
    asked.before_ms = asked.after_ms = 0
    # 80 ms are left by the storage's clock when it answers. The reply takes another 30 ms, of which
    # the cache takes nothing off the wait.
    assert take(storage, [charge(QUICK)]).outcomes[0].wait_ms == 80
    clock.pass_ms(29)
    assert not take(storage, [charge(QUICK)]).granted
    assert asked.asked == 2
    clock.pass_ms(1)  # now it is 80 ms since the storage was asked
    take(storage, [charge(QUICK)])
    assert asked.asked == 3


def test_the_other_limits_of_a_refused_request_are_answered_as_the_storage_found_them(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    shadow = charge(Limit("fixed-window", 9, 60_000, 9), enforce=False)
    request = [charge(HOUR), charge(), shadow]
    assert take(storage, request).granted
    first = take(storage, request)
    clock.pass_ms(250)
    again = take(storage, request)
    assert asked.asked == 2
    assert again.charges == request
    assert again.refusing == [(request[1], Outcome(59_750, 0, 59_750))]
    assert [outcome.remaining for outcome in again.outcomes] == [4, 0, 8]
    assert again.outcomes[0].reset_ms == first.outcomes[0].reset_ms - 250
    assert [outcome.wait_ms for outcome in again.outcomes] == [0, 59_750, 0]


def test_another_request_with_the_refused_charge_is_refused_too(
    asked: Counting, storage: RefusalCache
) -> None:
    take(storage, [charge()])
    take(storage, [charge(HOUR), charge()])
    other = charge(bucket="t:other:{ip:192.0.2.1}", limit=HOUR)
    seen = asked.asked
    decision = take(storage, [other, charge(), charge(HOUR)])
    assert asked.asked == seen
    assert not decision.granted
    assert [outcome.remaining for outcome in decision.outcomes] == [5, 0, 5]
    assert [charge for charge, _ in decision.refusing] == [charge()]


@pytest.mark.parametrize(
    "other",
    [
        [charge(bucket="t:{ip:192.0.2.2}")],
        [charge(HOUR)],
        [charge(cost=0)],
        [charge(enforce=False)],
        [charge(enforce=False), charge(HOUR)],
    ],
    ids=["another client", "another limit", "a look", "a shadow charge", "a shadow beside another"],
)
def test_the_storage_is_asked_for_charges_that_were_not_refused(
    asked: Counting, storage: RefusalCache, other: list[Charge]
) -> None:
    take(storage, [charge()])
    take(storage, [charge()])
    seen = asked.asked
    assert take(storage, other).granted
    assert asked.asked == seen + 1


def test_a_refused_cost_does_not_refuse_a_smaller_one(
    asked: Counting, storage: RefusalCache
) -> None:
    take(storage, [charge(HOUR, cost=3)])
    assert not take(storage, [charge(HOUR, cost=3)]).granted
    assert take(storage, [charge(HOUR, cost=2)]).granted
    assert not take(storage, [charge(HOUR, cost=3)]).granted
    assert asked.asked == 3


def test_a_shadow_charge_that_did_not_fit_is_not_remembered(
    asked: Counting, storage: RefusalCache
) -> None:
    for expected in (1, 2, 3, 4):
        assert take(storage, [charge(enforce=False)]).granted
        assert asked.asked == expected


def test_a_limit_of_0_is_remembered_and_its_wait_never_ends(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    nothing = Limit("sliding-window", 0, 60_000, 0)
    take(storage, [charge(nothing)])
    clock.pass_ms(500)
    assert take(storage, [charge(nothing)]).outcomes == [Outcome(NEVER_MS, 0, 0)]
    assert asked.asked == 1


def test_of_two_refused_charges_the_one_that_would_fit_now_has_no_wait(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    both = [charge(QUICK), charge()]
    take(storage, both)
    take(storage, both)
    clock.pass_ms(150)
    decision = take(storage, both)
    assert asked.asked == 2
    assert [outcome.wait_ms for outcome in decision.outcomes] == [0, 59_850]


def test_a_reset_takes_effect_at_once(asked: Counting, storage: RefusalCache) -> None:
    take(storage, [charge()])
    take(storage, [charge()])
    storage.reset([charge()])
    assert take(storage, [charge()]).granted


def test_clear_forgets_all(asked: Counting, storage: RefusalCache) -> None:
    take(storage, [charge()])
    take(storage, [charge()])
    storage.clear()
    assert not take(storage, [charge()]).granted
    assert asked.asked == 3


def test_a_failure_of_the_storage_is_not_remembered(asked: Counting, storage: RefusalCache) -> None:
    asked.fails = True
    for _ in range(3):
        with pytest.raises(StorageError):
            take(storage, [charge()])
    asked.fails = False
    assert take(storage, [charge()]).granted


def test_memory_is_bounded_and_the_newest_are_kept(
    asked: Counting, storage: RefusalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusal_cache, "MAX_REFUSALS", 10)
    clients = [charge(bucket=f"t:{{ip:{number}}}") for number in range(50)]
    for client in clients:
        take(storage, [client])
        take(storage, [client])
    seen = asked.asked
    for client in clients[-10:]:
        take(storage, [client])
    assert asked.asked == seen
    take(storage, [clients[0]])
    assert asked.asked == seen + 1


def test_refusals_that_are_over_are_dropped(clock: Clock, storage: RefusalCache) -> None:
    for number in range(50):
        client = charge(QUICK, bucket=f"t:{{ip:{number}}}")
        take(storage, [client])
        take(storage, [client])
    clock.pass_ms(100)
    take(storage, [charge(HOUR)])
    assert storage.size == 0


def test_threads_may_clear_refuse_and_ask_at_once(asked: Counting, storage: RefusalCache) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(300):
                take(storage, [charge(bucket=f"t:{{ip:{number * turn % 7}}}")])
                if turn % 50 == 0:
                    storage.clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
