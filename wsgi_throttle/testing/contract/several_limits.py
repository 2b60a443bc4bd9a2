"""The part of the contract that is about several limits, shadow charges, reset, close and keys."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from ...decision import Limit
from ...storage import Storage
from ...strategies import STRATEGIES
from .charges import (
    HOUR_MS,
    Fixtures,
    charge,
    every_strategy,
    limit,
    new_bucket,
    take,
    used,
)

HOSTILE = {
    "long": "header:X-API-Key:" + "a" * 300,
    "percent escapes": "cookie:id:%7B%7D%25%2C%0D%0A%00",
    "another's brackets": "ip:192.0.2.1}:login:{ip:192.0.2.1",
    "the limit's own text": "ip:sliding-window/2/3600000/2",
    "colons": "a:b::c:",
    "punctuation": "~@:/+=-._*?[]\\\"'$`",
    "letters beyond ASCII": "user:\u00fc\u4e2d\U0001f600",
    "empty": "",
}


class SeveralLimits(Fixtures):
    """What is counted together, what is counted apart, and what is forgotten."""

    @every_strategy
    def test_all_are_charged_or_none(self, storage: Storage, bucket: str, strategy: str) -> None:
        wide, narrow = limit(5, strategy=strategy), limit(2, HOUR_MS + 1, strategy)
        both = [charge(bucket, wide), charge(bucket, narrow)]
        assert [take(storage, both).granted for _ in range(4)] == [True, True, False, False]
        assert used(storage, bucket, wide) == 2
        decision = take(storage, both)
        assert [bool(outcome.wait_ms) for outcome in decision.outcomes] == [False, True]
        assert decision.refusing == [(both[1], decision.outcomes[1])]

    def test_a_refusal_by_one_bucket_leaves_the_others_alone(self, storage: Storage) -> None:
        user, address, everybody = new_bucket("user:42"), new_bucket(), new_bucket("all")
        mixed = [
            charge(user, limit(1)),
            charge(user, limit(9, strategy="fixed-window")),
            charge(address, limit(9, strategy="token-bucket")),
            charge(everybody, limit(9)),
        ]
        assert [take(storage, mixed).granted for _ in range(3)] == [True, False, False]
        assert [used(storage, one.bucket, one.limit) for one in mixed] == [1, 1, 1, 1]

    def test_buckets_count_apart(self, storage: Storage) -> None:
        one, other = new_bucket(), new_bucket()
        assert take(storage, [charge(one, limit(1))]).granted
        assert take(storage, [charge(other, limit(1))]).granted
        assert not take(storage, [charge(one, limit(1))]).granted

    @pytest.mark.parametrize(
        "other",
        [
            limit(2),
            limit(1, HOUR_MS * 2),
            limit(1, strategy="fixed-window"),
            Limit("token-bucket", 1, HOUR_MS, 1),
        ],
        ids=lambda limit: limit.tag,
    )
    def test_limits_of_one_bucket_count_apart(
        self, storage: Storage, bucket: str, other: Limit
    ) -> None:
        take(storage, [charge(bucket, limit(1))])
        assert take(storage, [charge(bucket, other)]).granted
        assert not take(storage, [charge(bucket, limit(1))]).granted

    def test_a_limit_that_is_left_out_for_a_while_is_kept(
        self, storage: Storage, bucket: str
    ) -> None:
        first, second = limit(2), limit(3, strategy="token-bucket")
        take(storage, [charge(bucket, first)])
        for _ in range(3):
            take(storage, [charge(bucket, second)])
        assert used(storage, bucket, first) == 1
        assert used(storage, bucket, second) == 3

    def test_many_limits_of_one_bucket(self, storage: Storage, bucket: str) -> None:
        limits = [limit(n, HOUR_MS + n, name) for n in range(1, 9) for name in STRATEGIES]
        charges = [charge(bucket, one) for one in limits]
        assert take(storage, charges).granted
        assert not take(storage, charges).granted
        assert [used(storage, bucket, one) for one in limits] == [1] * len(limits)

    def test_a_decision_holds_nothing_of_the_storage(self, storage: Storage, bucket: str) -> None:
        """The application gets it, and may keep it, compare it or pickle it."""
        for enforce in (True, False):
            charges = [charge(bucket, limit(3)), charge(new_bucket(), limit(2), enforce=enforce)]
            decision = take(storage, charges)
            assert decision.charges == charges
            assert {type(number) for found in decision.measured for number in found} == {int}
            assert {len(found) for found in decision.measured} == {3}
            assert pickle.loads(pickle.dumps(decision)) == decision

    def test_reach_says_who_counts_together(self, storage: Storage) -> None:
        """Derive from StorageContract for "process", and else from SharedStorageContract."""
        assert storage.reach in self.reaches

    def test_ping_counts_nothing_and_does_not_raise(self, storage: Storage) -> None:
        storage.ping()
        storage.close()
        storage.ping()

    def test_a_request_without_charges_is_granted(self, storage: Storage) -> None:
        decision = take(storage, [])
        assert decision.granted
        assert list(decision.outcomes) == []

    def test_a_shadow_charge_is_counted_and_never_refuses(
        self, storage: Storage, bucket: str
    ) -> None:
        real, shadow = limit(4), limit(2, strategy="fixed-window")
        both = [charge(bucket, real), charge(bucket, shadow, enforce=False)]
        decisions = [take(storage, both) for _ in range(5)]
        assert [decision.granted for decision in decisions] == [True] * 4 + [False]
        assert [bool(decision.outcomes[1].wait_ms) for decision in decisions[:4]] == [0, 0, 1, 1]
        assert used(storage, bucket, shadow) == 2

    def test_a_refusal_charges_no_shadow(self, storage: Storage, bucket: str) -> None:
        real, shadow = limit(1), limit(5, strategy="token-bucket")
        both = [charge(bucket, shadow, enforce=False), charge(bucket, real)]
        for _ in range(3):
            take(storage, both)
        assert used(storage, bucket, shadow) == 1

    def test_reset_forgets_these_limits_of_these_buckets_alone(self, storage: Storage) -> None:
        one, other = new_bucket(), new_bucket()
        first, second = limit(2), limit(3, strategy="token-bucket")
        for bucket in (one, other):
            take(storage, [charge(bucket, first), charge(bucket, second)])
        assert storage.reset([charge(one, first)]) == 1
        assert used(storage, one, first) == 0
        assert used(storage, one, second) == 1
        assert used(storage, other, first) == 1
        # The first was forgotten before, so that nothing is counted there.
        three = [charge(one, first), charge(one, second), charge(other, first)]
        assert storage.reset(three) == 2
        assert used(storage, one, second) == 0
        assert used(storage, other, first) == 0
        assert used(storage, other, second) == 1

    def test_reset_of_what_was_never_seen_is_no_error(self, storage: Storage, bucket: str) -> None:
        assert storage.reset([charge(bucket, limit(2))]) == 0
        assert storage.reset([]) == 0
        assert take(storage, [charge(bucket, limit(2))]).granted

    def test_close_may_be_called_twice_and_before_use(
        self, open_storage: Callable[[], Storage]
    ) -> None:
        storage = open_storage()
        storage.close()
        storage = open_storage()
        take(storage, [])
        storage.close()
        storage.close()

    @pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE)
    def test_whatever_a_client_sends_is_a_key_like_any(self, storage: Storage, key: str) -> None:
        bucket = new_bucket(key)
        near = [
            bucket + "x",
            bucket[:-1],
            bucket.upper() + "X",
            bucket + ":sliding-window/2/3600000/2",
        ]
        assert [take(storage, [charge(bucket, limit(2))]).granted for _ in range(3)] == [
            True,
            True,
            False,
        ]
        assert [used(storage, other, limit(2)) for other in near] == [0] * len(near)
