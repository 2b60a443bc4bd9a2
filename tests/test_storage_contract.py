"""What every storage promises. With one line in STORAGES a new storage is tested by all of this.

Each storage uses its own clock. So windows are either so long that they do not end during a test,
or so short that a test may wait for their end.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from support.charges import take
from support.redis import programs
from wsgi_throttle.decision import NEVER_MS, Charge, Limit, Term, Terms
from wsgi_throttle.storage import Storage, open_storage
from wsgi_throttle.strategies import STRATEGIES

PATIENCE_S = 10.0
HOUR_MS = 3_600_000
SHORT_MS = 150


def _uri_of(program: str) -> Callable[[pytest.FixtureRequest, Path], str]:
    def uri(request: pytest.FixtureRequest, folder: Path) -> str:
        found: str = request.getfixturevalue("redis_servers")(program).uri
        return found

    return uri


STORAGES: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "memory": lambda request, folder: "memory://",
    "shared": lambda request, folder: f"shared://{folder}?size=1mb",
    **{name: _uri_of(program) for name, program in programs().items()},
}
"""Name -> its URI. Processes share the counters of all but memory."""

_buckets = count()

pytestmark = pytest.mark.filterwarnings(
    # Forking with threads is what is tested.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


@pytest.fixture(params=STORAGES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORAGES[request.param](request, tmp_path)


@pytest.fixture
def new_storage(uri: str) -> Iterator[Callable[[], Storage]]:
    opened: list[Storage] = []

    def new() -> Storage:
        opened.append(open_storage(uri, timeout_s=PATIENCE_S))
        return opened[-1]

    yield new
    for storage in opened:
        storage.close()


@pytest.fixture
def storage(new_storage: Callable[[], Storage]) -> Storage:
    return new_storage()


@pytest.fixture
def bucket() -> str:
    return new_bucket()


def new_bucket(key: str = "ip:192.0.2.1") -> str:
    return f"contract:{os.getpid()}:{next(_buckets)}:{{{key}}}"


def limit(quota: int, window_ms: int = HOUR_MS, strategy: str = "sliding-window") -> Limit:
    return Limit(strategy, quota, window_ms, quota)


def charge(bucket: str, limit: Limit, cost: int = 1, enforce: bool = True) -> Charge:
    return Charge(bucket, limit, cost, enforce, "rule")


def used(storage: Storage, bucket: str, limit: Limit) -> int:
    (outcome,) = take(storage, [charge(bucket, limit, cost=0)]).outcomes
    return limit.burst - outcome.remaining


between_processes = pytest.mark.parametrize(
    "uri", sorted(set(STORAGES) - {"memory"}), indirect=True
)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


# --- one limit -----------------------------------------------------------------------------------


@every_strategy
def test_as_many_fit_as_the_limit_says(storage: Storage, bucket: str, strategy: str) -> None:
    charges = [charge(bucket, limit(3, strategy=strategy))]
    decisions = [take(storage, charges) for _ in range(5)]
    assert [decision.granted for decision in decisions] == [True, True, True, False, False]
    assert [decision.outcomes[0].remaining for decision in decisions] == [2, 1, 0, 0, 0]
    assert all(decision.outcomes[0].wait_ms == 0 for decision in decisions[:3])
    assert all(decision.charges == charges for decision in decisions)


@every_strategy
def test_clients_of_the_same_terms_are_counted_apart(storage: Storage, strategy: str) -> None:
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
def test_costs_replace_those_of_the_terms(storage: Storage, strategy: str, buckets: int) -> None:
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
    storage: Storage, strategy: str, buckets: int
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
def test_a_refusal_says_when_it_would_fit(storage: Storage, bucket: str, strategy: str) -> None:
    hour = limit(1, strategy=strategy)
    started = time.monotonic()
    take(storage, [charge(bucket, hour)])
    outcome = take(storage, [charge(bucket, hour)]).outcomes[0]
    passed_ms = (time.monotonic() - started) * 1000 + 2
    assert HOUR_MS - passed_ms <= outcome.wait_ms <= HOUR_MS
    assert outcome.reset_ms == outcome.wait_ms


@every_strategy
def test_it_fits_after_the_wait_and_not_before(
    storage: Storage, bucket: str, strategy: str
) -> None:
    charges = [charge(bucket, limit(2, SHORT_MS, strategy))]
    deadline = time.monotonic() + PATIENCE_S
    while (decision := take(storage, charges)).granted:
        assert time.monotonic() < deadline
    told = time.monotonic() + decision.outcomes[0].wait_ms / 1000
    # The storage rounds to milliseconds, and its clock may differ a little from the test's.
    asked = time.monotonic()
    while not take(storage, charges).granted:
        assert asked < told + 0.003
        asked = time.monotonic()
    assert time.monotonic() >= told - 0.003


@every_strategy
@pytest.mark.parametrize("window_ms", [20, 100, 999])
def test_windows_under_a_second_count(
    storage: Storage, bucket: str, strategy: str, window_ms: int
) -> None:
    charges = [charge(bucket, limit(5, window_ms, strategy))]
    started = time.monotonic()
    granted = sum(take(storage, charges).granted for _ in range(200))
    windows = (time.monotonic() - started) * 1000 / window_ms
    assert 5 <= granted <= 5 * (windows + 2)


@every_strategy
def test_a_quota_of_0_refuses_for_ever(storage: Storage, bucket: str, strategy: str) -> None:
    decision = take(storage, [charge(bucket, limit(0, strategy=strategy))])
    assert not decision.granted
    assert decision.outcomes[0].wait_ms == NEVER_MS
    assert decision.outcomes[0].remaining == 0


@every_strategy
def test_a_cost_counts_that_many_times(storage: Storage, bucket: str, strategy: str) -> None:
    ten = limit(10, strategy=strategy)
    taken = [take(storage, [charge(bucket, ten, cost)]).granted for cost in (4, 7, 6, 1)]
    assert taken == [True, False, True, False]


@every_strategy
def test_a_cost_above_the_limit_never_fits(storage: Storage, bucket: str, strategy: str) -> None:
    decision = take(storage, [charge(bucket, limit(3, strategy=strategy), cost=4)])
    assert not decision.granted
    assert decision.outcomes[0].wait_ms == NEVER_MS


@every_strategy
def test_looking_counts_nothing(storage: Storage, bucket: str, strategy: str) -> None:
    two = limit(2, strategy=strategy)
    assert [used(storage, bucket, two) for _ in range(3)] == [0, 0, 0]
    take(storage, [charge(bucket, two)])
    assert [used(storage, bucket, two) for _ in range(3)] == [1, 1, 1]
    take(storage, [charge(bucket, two)])
    decision = take(storage, [charge(bucket, two, cost=0)])
    assert decision.granted
    assert decision.outcomes[0].wait_ms == 0


def test_a_full_window_of_many_hits_is_kept(storage: Storage, bucket: str) -> None:
    many = limit(60)
    taken = [take(storage, [charge(bucket, many)]).granted for _ in range(62)]
    assert taken == [True] * 60 + [False] * 2


def test_large_numbers_are_kept(storage: Storage, bucket: str) -> None:
    year_ms = 365 * 86_400_000
    large = [limit(100_000, year_ms, name) for name in STRATEGIES]
    charges = [charge(bucket, one, 70_000) for one in large]
    assert take(storage, charges).granted
    assert [outcome.remaining for outcome in take(storage, charges).outcomes] == [30_000] * 3


# --- several limits, several buckets -------------------------------------------------------------


@every_strategy
def test_all_are_charged_or_none(storage: Storage, bucket: str, strategy: str) -> None:
    wide, narrow = limit(5, strategy=strategy), limit(2, HOUR_MS + 1, strategy)
    both = [charge(bucket, wide), charge(bucket, narrow)]
    assert [take(storage, both).granted for _ in range(4)] == [True, True, False, False]
    assert used(storage, bucket, wide) == 2
    decision = take(storage, both)
    assert [bool(outcome.wait_ms) for outcome in decision.outcomes] == [False, True]
    assert decision.refusing == [(both[1], decision.outcomes[1])]


def test_a_refusal_by_one_bucket_leaves_the_others_alone(storage: Storage) -> None:
    user, address, everybody = new_bucket("user:42"), new_bucket(), new_bucket("all")
    mixed = [
        charge(user, limit(1)),
        charge(user, limit(9, strategy="fixed-window")),
        charge(address, limit(9, strategy="token-bucket")),
        charge(everybody, limit(9)),
    ]
    assert [take(storage, mixed).granted for _ in range(3)] == [True, False, False]
    assert [used(storage, one.bucket, one.limit) for one in mixed] == [1, 1, 1, 1]


def test_buckets_count_apart(storage: Storage) -> None:
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
def test_limits_of_one_bucket_count_apart(storage: Storage, bucket: str, other: Limit) -> None:
    take(storage, [charge(bucket, limit(1))])
    assert take(storage, [charge(bucket, other)]).granted
    assert not take(storage, [charge(bucket, limit(1))]).granted


def test_a_limit_that_is_left_out_for_a_while_is_kept(storage: Storage, bucket: str) -> None:
    first, second = limit(2), limit(3, strategy="token-bucket")
    take(storage, [charge(bucket, first)])
    for _ in range(3):
        take(storage, [charge(bucket, second)])
    assert used(storage, bucket, first) == 1
    assert used(storage, bucket, second) == 3


def test_many_limits_of_one_bucket(storage: Storage, bucket: str) -> None:
    limits = [limit(n, HOUR_MS + n, name) for n in range(1, 9) for name in STRATEGIES]
    charges = [charge(bucket, one) for one in limits]
    assert take(storage, charges).granted
    assert not take(storage, charges).granted
    assert [used(storage, bucket, one) for one in limits] == [1] * len(limits)


def test_a_decision_holds_nothing_of_the_storage(storage: Storage, bucket: str) -> None:
    """The application gets it, and may keep it, compare it or pickle it."""
    for enforce in (True, False):
        charges = [charge(bucket, limit(3)), charge(new_bucket(), limit(2), enforce=enforce)]
        decision = take(storage, charges)
        assert decision.charges == charges
        assert {type(number) for found in decision.measured for number in found} == {int}
        assert {len(found) for found in decision.measured} == {3}
        assert pickle.loads(pickle.dumps(decision)) == decision


def test_reach_says_who_counts_together(storage: Storage, uri: str) -> None:
    scheme = uri.partition(":")[0]
    assert storage.reach == {"memory": "process", "shared": "host"}.get(scheme, "network")


def test_ping_counts_nothing_and_does_not_raise(storage: Storage) -> None:
    storage.ping()
    storage.close()
    storage.ping()


def test_a_request_without_charges_is_granted(storage: Storage) -> None:
    decision = take(storage, [])
    assert decision.granted
    assert list(decision.outcomes) == []


# --- shadow charges ------------------------------------------------------------------------------


def test_a_shadow_charge_is_counted_and_never_refuses(storage: Storage, bucket: str) -> None:
    real, shadow = limit(4), limit(2, strategy="fixed-window")
    both = [charge(bucket, real), charge(bucket, shadow, enforce=False)]
    decisions = [take(storage, both) for _ in range(5)]
    assert [decision.granted for decision in decisions] == [True] * 4 + [False]
    assert [bool(decision.outcomes[1].wait_ms) for decision in decisions[:4]] == [0, 0, 1, 1]
    assert used(storage, bucket, shadow) == 2


def test_a_refusal_charges_no_shadow(storage: Storage, bucket: str) -> None:
    real, shadow = limit(1), limit(5, strategy="token-bucket")
    both = [charge(bucket, shadow, enforce=False), charge(bucket, real)]
    for _ in range(3):
        take(storage, both)
    assert used(storage, bucket, shadow) == 1


# --- reset and close -----------------------------------------------------------------------------


def test_reset_forgets_these_limits_of_these_buckets_alone(storage: Storage) -> None:
    one, other = new_bucket(), new_bucket()
    first, second = limit(2), limit(3, strategy="token-bucket")
    for bucket in (one, other):
        take(storage, [charge(bucket, first), charge(bucket, second)])
    storage.reset([charge(one, first)])
    assert used(storage, one, first) == 0
    assert used(storage, one, second) == 1
    assert used(storage, other, first) == 1
    storage.reset([charge(one, first), charge(one, second), charge(other, first)])
    assert used(storage, one, second) == 0
    assert used(storage, other, first) == 0
    assert used(storage, other, second) == 1


def test_reset_of_what_was_never_seen_is_no_error(storage: Storage, bucket: str) -> None:
    storage.reset([charge(bucket, limit(2))])
    storage.reset([])
    assert take(storage, [charge(bucket, limit(2))]).granted


def test_close_may_be_called_twice_and_before_use(new_storage: Callable[[], Storage]) -> None:
    storage = new_storage()
    storage.close()
    storage = new_storage()
    take(storage, [])
    storage.close()
    storage.close()


# --- keys ----------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_client_sends_is_a_key_like_any(storage: Storage, key: str) -> None:
    bucket = new_bucket(key)
    near = [bucket + "x", bucket[:-1], bucket.upper() + "X", bucket + ":sliding-window/2/3600000/2"]
    assert [take(storage, [charge(bucket, limit(2))]).granted for _ in range(3)] == [
        True,
        True,
        False,
    ]
    assert [used(storage, other, limit(2)) for other in near] == [0] * len(near)


# --- threads and processes -----------------------------------------------------------------------


@every_strategy
def test_threads_are_counted_exactly(storage: Storage, bucket: str, strategy: str) -> None:
    charges = [charge(bucket, limit(50, strategy=strategy)), charge(bucket, limit(70))]
    granted: list[int] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        granted.append(sum(take(storage, charges).granted for _ in range(25)))

    run_threads(work, 8)
    assert sum(granted) == 50
    assert used(storage, bucket, limit(70)) == 50


@between_processes
def test_two_storages_of_one_place_count_together(
    uri: str, new_storage: Callable[[], Storage], bucket: str
) -> None:
    one, other = new_storage(), new_storage()
    assert take(one, [charge(bucket, limit(2))]).granted
    assert take(other, [charge(bucket, limit(2))]).granted
    assert not take(one, [charge(bucket, limit(2))]).granted
    one.close()
    assert not take(other, [charge(bucket, limit(2))]).granted


@between_processes
def test_counters_outlive_the_storage_object(
    uri: str, new_storage: Callable[[], Storage], bucket: str
) -> None:
    first = new_storage()
    take(first, [charge(bucket, limit(1))])
    first.close()
    assert not take(new_storage(), [charge(bucket, limit(1))]).granted


def test_a_forked_child_goes_on_where_the_parent_was(storage: Storage, bucket: str) -> None:
    charges = [charge(bucket, limit(5))]
    take(storage, charges)
    child = in_child(lambda: [take(storage, charges).granted for _ in range(5)])
    assert child == [True] * 4 + [False]
    assert take(storage, []).granted  # the parent's own is unharmed


@between_processes
def test_children_of_a_parent_in_use_count_together(
    uri: str, storage: Storage, bucket: str
) -> None:
    charges = [charge(bucket, limit(30))]
    take(storage, [])
    stop = threading.Event()

    def busy() -> None:
        other = [charge(new_bucket(), limit(1_000_000))]
        while not stop.is_set():
            take(storage, other)

    def children() -> int:
        work = [
            start_child(lambda: sum(take(storage, charges).granted for _ in range(15)))
            for _ in range(4)
        ]
        granted = 0
        for result in work:
            number = result()
            assert isinstance(number, int), number  # what a child raised
            granted += number
        return granted

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert children() == 30
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not take(storage, charges).granted


def test_a_fork_while_threads_count_leaves_a_child_that_works(storage: Storage) -> None:
    stop = threading.Event()

    def busy() -> None:
        bucket = new_bucket()
        while not stop.is_set():
            take(storage, [charge(bucket, limit(1_000_000))])

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            bucket = new_bucket()
            taken = in_child(
                lambda: [take(storage, [charge(bucket, limit(2))]).granted for _ in range(3)]  # noqa: B023
            )
            assert taken == [True, True, False]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def run_threads(work: Callable[[], None], number: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_child(work: Callable[[], object]) -> object:
    return start_child(work)()


def start_child(work: Callable[[], object]) -> Callable[[], object]:
    """Do the work in a forked child. Return a function that waits for its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            result = work()
        except BaseException as error:
            result = repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)

    def wait() -> object:
        with os.fdopen(reading, "rb") as pipe:
            result = pickle.load(pipe)
        os.waitpid(child, 0)
        return result

    return wait
