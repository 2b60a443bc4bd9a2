"""The part of the contract that is about one limit."""

from __future__ import annotations

import time

import pytest

from ...decision import NEVER_MS, Term, Terms
from ...storage import Storage
from ...strategies import STRATEGIES
from .charges import (
    HOUR_MS,
    PATIENCE_S,
    SHORT_MS,
    Fixtures,
    charge,
    every_strategy,
    limit,
    new_bucket,
    take,
    used,
)


class OneLimit(Fixtures):
    """How many fit, what a cost is, and what a refusal says."""

    @every_strategy
    def test_as_many_fit_as_the_limit_says(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        charges = [charge(bucket, limit(3, strategy=strategy))]
        decisions = [take(storage, charges) for _ in range(5)]
        assert [decision.granted for decision in decisions] == [True, True, True, False, False]
        assert [decision.outcomes[0].remaining for decision in decisions] == [2, 1, 0, 0, 0]
        assert all(decision.outcomes[0].wait_ms == 0 for decision in decisions[:3])
        assert all(decision.charges == charges for decision in decisions)

    @every_strategy
    def test_clients_of_the_same_terms_are_counted_apart(
        self, storage: Storage, strategy: str
    ) -> None:
        """As with rules: all clients have the same terms, and each has buckets of its own."""
        both = [limit(2, strategy=strategy), limit(5, strategy=strategy)]
        terms = Terms(
            [
                Term(0, both[0], 1, True, "a-1"),
                Term(0, both[1], 1, True, "a-2"),
                Term(1, both[1], 2, True, "b"),
            ]
        )
        charging = storage.prepare(terms)
        clients = [(new_bucket(), new_bucket("all")) for _ in range(3)]
        for remaining in ((1, 4, 3), (0, 3, 1)):
            for buckets in clients:
                decision = charging(buckets)
                assert decision.granted
                assert tuple(outcome.remaining for outcome in decision.outcomes) == remaining
        for buckets in clients:
            refused = charging(buckets)
            assert not refused.granted
            assert used(storage, buckets[0], both[0]) == 2
            assert used(storage, buckets[0], both[1]) == 2
            assert used(storage, buckets[1], both[1]) == 4
            assert [one.bucket for one in refused.charges] == [buckets[0], buckets[0], buckets[1]]
        storage.reset(charging(clients[0]).charges)
        assert [charging(buckets).granted for buckets in clients] == [True, False, False]

    @every_strategy
    @pytest.mark.parametrize("buckets", [1, 2])
    def test_costs_replace_those_of_the_terms(
        self, storage: Storage, strategy: str, buckets: int
    ) -> None:
        ten = limit(10, strategy=strategy)
        charges = [charge(new_bucket(), ten, cost=3) for _ in range(buckets)]
        terms, names = Terms.of(charges)
        charging = storage.prepare(terms)
        dear = [5] * buckets
        for costs, granted, left in [(dear, True, 5), (None, True, 2), (dear, False, 2)]:
            decision = charging(names, costs)
            assert decision.granted is granted
            assert [outcome.remaining for outcome in decision.outcomes] == [left] * buckets
            assert [one.cost for one in decision.charges] == (costs or [3] * buckets)
        assert charging(names, [0] * buckets).granted
        assert charging(names, [2] * buckets).outcomes[0].remaining == 0

    @every_strategy
    @pytest.mark.parametrize("buckets", [1, 2])
    def test_a_look_counts_nothing_whatever_the_costs(
        self, storage: Storage, strategy: str, buckets: int
    ) -> None:
        charges = [charge(new_bucket(), limit(2, strategy=strategy)) for _ in range(buckets)]
        terms, names = Terms.of(charges)
        charging = storage.prepare(terms)
        charging(names)
        for costs in (None, [1] * buckets):
            looked = charging(names, costs, look=True)
            assert looked.granted
            assert [outcome.remaining for outcome in looked.outcomes] == [1] * buckets
            assert [one.cost for one in looked.charges] == [0] * buckets
        charging(names)
        assert charging(names, look=True).granted
        assert not charging(names).granted

    @every_strategy
    def test_a_refusal_says_when_it_would_fit(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        hour = limit(1, strategy=strategy)
        started = time.monotonic()
        take(storage, [charge(bucket, hour)])
        outcome = take(storage, [charge(bucket, hour)]).outcomes[0]
        passed_ms = (time.monotonic() - started) * 1000 + 2
        assert HOUR_MS - passed_ms <= outcome.wait_ms <= HOUR_MS
        assert outcome.reset_ms == outcome.wait_ms

    @every_strategy
    def test_it_fits_after_the_wait_and_not_before(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        charges = [charge(bucket, limit(2, SHORT_MS, strategy))]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            asked = time.monotonic()
            decision = take(storage, charges)
            answered = time.monotonic()
            if not decision.granted:
                break
            assert answered < deadline
        # The storage read its clock, of whole milliseconds, between these two; another one may run
        # a little apart.
        wait_s = decision.outcomes[0].wait_ms / 1000
        earliest, latest = asked + wait_s - 0.003, answered + wait_s + 0.003
        asked = time.monotonic()
        while not take(storage, charges).granted:
            assert asked < latest
            asked = time.monotonic()
        assert time.monotonic() >= earliest

    @every_strategy
    @pytest.mark.parametrize("window_ms", [20, 100, 999])
    def test_windows_under_a_second_count(
        self, storage: Storage, bucket: str, strategy: str, window_ms: int
    ) -> None:
        charges = [charge(bucket, limit(5, window_ms, strategy))]
        started = time.monotonic()
        granted = sum(take(storage, charges).granted for _ in range(200))
        windows = (time.monotonic() - started) * 1000 / window_ms
        assert 5 <= granted <= 5 * (windows + 2)

    @every_strategy
    def test_a_quota_of_0_refuses_for_ever(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        decision = take(storage, [charge(bucket, limit(0, strategy=strategy))])
        assert not decision.granted
        assert decision.outcomes[0].wait_ms == NEVER_MS
        assert decision.outcomes[0].remaining == 0

    @every_strategy
    def test_a_cost_counts_that_many_times(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        ten = limit(10, strategy=strategy)
        taken = [take(storage, [charge(bucket, ten, cost)]).granted for cost in (4, 7, 6, 1)]
        assert taken == [True, False, True, False]

    @every_strategy
    def test_a_cost_above_the_limit_never_fits(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        decision = take(storage, [charge(bucket, limit(3, strategy=strategy), cost=4)])
        assert not decision.granted
        assert decision.outcomes[0].wait_ms == NEVER_MS

    @every_strategy
    def test_looking_counts_nothing(self, storage: Storage, bucket: str, strategy: str) -> None:
        two = limit(2, strategy=strategy)
        assert [used(storage, bucket, two) for _ in range(3)] == [0, 0, 0]
        take(storage, [charge(bucket, two)])
        assert [used(storage, bucket, two) for _ in range(3)] == [1, 1, 1]
        take(storage, [charge(bucket, two)])
        decision = take(storage, [charge(bucket, two, cost=0)])
        assert decision.granted
        assert decision.outcomes[0].wait_ms == 0

    def test_a_full_window_of_many_hits_is_kept(self, storage: Storage, bucket: str) -> None:
        many = limit(60)
        taken = [take(storage, [charge(bucket, many)]).granted for _ in range(62)]
        assert taken == [True] * 60 + [False] * 2

    def test_large_numbers_are_kept(self, storage: Storage, bucket: str) -> None:
        year_ms = 365 * 86_400_000
        large = [limit(100_000, year_ms, name) for name in STRATEGIES]
        charges = [charge(bucket, one, 70_000) for one in large]
        assert take(storage, charges).granted
        assert [outcome.remaining for outcome in take(storage, charges).outcomes] == [30_000] * 3
