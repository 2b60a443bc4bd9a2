"""Refusals that are remembered: what they answer, for how long, and when the storage is asked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest

from support.charges import take
from wsgi_throttle.clock import MS
from wsgi_throttle.decision import NEVER_MS, Charge, Decision, Limit, Outcome, Take, Term, Terms
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


def test_a_refusal_is_told_from_memory_only_where_all_limits_are_known(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    hour = charge(Limit("sliding-window", 1, 3_600_000, 1), bucket="t:other:{ip:192.0.2.1}")
    assert take(storage, [hour]).granted
    assert take(storage, [charge()]).granted
    assert not take(storage, [charge()]).granted
    assert asked.asked == 3
    clock.pass_ms(500)
    both = take(storage, [hour, charge()])
    assert asked.asked == 4
    assert both.retry_after_s == 3600
    assert [outcome.wait_ms for outcome in both.outcomes] == [3_599_500, 59_500]
    clock.pass_ms(500)
    assert take(storage, [hour, charge()]).outcomes[0].wait_ms == 3_599_000
    assert asked.asked == 4
    assert not take(storage, [charge()]).granted
    assert asked.asked == 4, "what was learnt anew is known for a second from then on"


def test_what_is_known_may_come_from_several_decisions(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    other = charge(HOUR, bucket="t:other:{ip:192.0.2.1}")
    third = charge(HOUR, bucket="t:third:{ip:192.0.2.1}")
    take(storage, [charge()])
    take(storage, [charge(), other])
    clock.pass_ms(400)
    take(storage, [charge(), third])
    seen = asked.asked
    clock.pass_ms(599)
    told = take(storage, [charge(), other, third])
    assert asked.asked == seen
    assert [outcome.wait_ms for outcome in told.outcomes] == [59_001, 0, 0]
    clock.pass_ms(1)
    take(storage, [charge(), other, third])
    assert asked.asked == seen + 1, "the other limit is not known any more"


def test_a_limit_that_fitted_is_known_no_longer_once_it_was_charged(
    asked: Counting, storage: RefusalCache
) -> None:
    """Within the 10 ms, too, in which one decision answers all."""
    once = charge(Limit("fixed-window", 1, 3_600_000, 1), bucket="t:other:{ip:192.0.2.1}")
    take(storage, [charge()])
    terms, buckets = Terms.of([charge(), once])
    ask = storage.prepare(terms)
    for _ in range(3):
        assert ask(buckets).retry_after_s == 60
    assert asked.asked == 2
    assert take(storage, [once]).granted
    assert ask(buckets).retry_after_s == 3600


def test_one_decision_answers_no_longer_than_all_that_it_tells_is_known(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    other = charge(HOUR, bucket="t:other:{ip:192.0.2.1}")
    take(storage, [charge()])
    take(storage, [charge(), other])
    clock.pass_ms(500)
    take(storage, [charge(), charge(HOUR)])
    terms, buckets = Terms.of([charge(), other])
    ask = storage.prepare(terms)
    clock.pass_ms(499)
    told = ask(buckets)
    assert ask(buckets) is told
    assert asked.asked == 3
    clock.pass_ms(1)
    ask(buckets)
    assert asked.asked == 4


def test_what_fitted_is_known_no_longer_than_something_refuses(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    """Afterwards another process may grant a request that uses it up."""
    other = charge(HOUR, bucket="t:other:{ip:192.0.2.1}")
    take(storage, [charge(QUICK)])
    assert not take(storage, [charge(QUICK), other]).granted
    clock.pass_ms(100)
    assert take(storage, [charge(QUICK)]).granted
    assert not take(storage, [charge(QUICK)]).granted
    seen = asked.asked
    assert not take(storage, [charge(QUICK), other]).granted
    assert asked.asked == seen + 1


def test_a_limit_by_a_key_that_clients_choose_is_left_out_where_it_is_not_known(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    terms = Terms(
        [
            Term(0, HOUR, 1, True, "chosen", is_client_controlled=True),
            Term(1, MINUTE, 1, True, "rule"),
            Term(1, HOUR, 1, True, "rule-2"),
        ]
    )
    ask = storage.prepare(terms)

    def request(value: int) -> tuple[str, ...]:
        return (f"t:{{path:id:{value}}}", "t:{ip:192.0.2.1}")

    ask(request(0))
    assert ask(request(0)).terms == terms
    assert ask(request(0), [1, 1, 1]).terms == terms, "a value that is known is told of"
    for number in range(1, 100):
        clock.pass_ms(10)
        told = ask(request(number), None if number % 2 else [1, 1, 1])
        assert [charge.policy for charge in told.charges] == ["rule", "rule-2"]
        assert {charge.bucket for charge in told.charges} == {"t:{ip:192.0.2.1}"}
        assert [outcome.wait_ms for outcome in told.outcomes] == [60_000 - 10 * number, 0]
        assert told.retry_after_s == -(-(60_000 - 10 * number) // 1000)
    assert asked.asked == 2
    clock.pass_ms(10)
    assert ask(request(100)).terms == terms


def test_a_limit_by_a_key_that_clients_choose_refuses_from_memory_too(
    asked: Counting, storage: RefusalCache
) -> None:
    terms = Terms([Term(0, MINUTE, 1, True, "chosen", is_client_controlled=True)])
    ask = storage.prepare(terms)
    ask(("t:{path:id:1}",))
    for _ in range(5):
        assert not ask(("t:{path:id:1}",)).granted
    assert asked.asked == 2


def test_a_shadow_charge_that_is_not_known_is_left_out(
    asked: Counting, storage: RefusalCache
) -> None:
    take(storage, [charge()])
    take(storage, [charge()])
    shadow = charge(HOUR, bucket="t:shadow:{ip:192.0.2.1}", enforce=False)
    assert take(storage, [shadow, charge()]).charges == [charge()]
    assert asked.asked == 2


def test_a_look_before_a_body_is_told_of_all_limits_that_refuse_too(
    asked: Counting, storage: RefusalCache
) -> None:
    hour = charge(Limit("sliding-window", 1, 3_600_000, 1), bucket="t:other:{ip:192.0.2.1}")
    terms, buckets = Terms.of([hour, charge()])
    look = storage.prepare_look(terms)
    assert look(buckets) is None
    take(storage, [hour])
    take(storage, [charge()])
    take(storage, [charge()])
    seen = asked.asked
    for _ in range(2):
        refusal = look(buckets)
        assert refusal is not None
        assert refusal.retry_after_s == 3600
        assert not take(storage, [hour, charge()]).granted
    assert asked.asked == seen + 1


@pytest.mark.parametrize("seed", range(20))
def test_who_waits_as_told_and_asks_nothing_meanwhile_is_admitted_by_all_limits_that_were_told(
    seed: int,
) -> None:
    random = Random(seed)
    clock = Clock()
    storage = RefusalCache(Counting(clock), clock=clock)
    limits = [
        Charge(f"t:{number}:{{ip:192.0.2.1}}", limit, cost, True, f"rule-{number}")
        for number, (limit, cost) in enumerate(
            [
                (Limit("sliding-window", 3, 300, 3), 1),
                (Limit("sliding-window", 5, 1_100, 5), 2),
                (Limit("token-bucket", 2, 900, 4), 1),
                (Limit("fixed-window", 4, 2_500, 4), 1),
            ]
        )
    ]
    refused = 0
    for _ in range(400):
        clock.pass_ms(random.choice([0, 0.4, 3, 20, 150]))
        request = random.sample(limits, random.randint(1, 4))
        decision = take(storage, request)
        if decision.granted or random.random() < 0.8:
            continue
        refused += 1
        clock.pass_ms(max(outcome.wait_ms for outcome in decision.outcomes))
        assert take(storage, decision.charges).granted
    assert refused > 20


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
    assert asked.asked == 3


def test_the_wait_of_another_cost_is_measured_anew_once_a_smaller_one_was_charged(
    clock: Clock, asked: Counting, storage: RefusalCache
) -> None:
    take(storage, [charge(HOUR, cost=2)])
    clock.pass_ms(1000)
    assert take(storage, [charge(HOUR, cost=4)]).outcomes[0].wait_ms == 3_599_000
    assert take(storage, [charge(HOUR, cost=2)]).granted
    assert take(storage, [charge(HOUR, cost=4)]).outcomes[0].wait_ms == 3_600_000
    assert asked.asked == 4


def test_costs_of_one_limit_are_known_beside_each_other_and_not_without_bound(
    asked: Counting, storage: RefusalCache
) -> None:
    much = Limit("sliding-window", 1_000, 60_000, 1_000)
    take(storage, [charge(much, cost=1_000)])
    for _ in range(2):
        for cost in range(1, refusal_cache.MAX_LIMITS + 1):
            assert not take(storage, [charge(much, cost=cost)]).granted
    assert asked.asked == 1 + refusal_cache.MAX_LIMITS
    take(storage, [charge(much, cost=999)])
    take(storage, [charge(much, cost=1)])
    assert asked.asked == 1 + refusal_cache.MAX_LIMITS + 2


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
    monkeypatch.setattr(refusal_cache, "MAX_BUCKETS", 10)
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
