"""What memory:// promises beyond the contract of every storage: its memory is bounded."""

from __future__ import annotations

import pytest

from support.charges import take
from wsgi_throttle.decision import Charge, Limit
from wsgi_throttle.errors import StorageURIError
from wsgi_throttle.storage.memory import MemoryStorage
from wsgi_throttle.testing import ManualClock

MINUTE = Limit("sliding-window", 2, 60_000, 2)
SECOND = Limit("token-bucket", 2, 1_000, 2)
MANY = Limit("sliding-window", 10, 60_000, 10)


def charge(client: int | str, limit: Limit = MINUTE) -> list[Charge]:
    return [Charge(f"t:1:login:ip:{{ip:{client}}}", limit, 1, True, "login")]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_keeps_no_more_clients_than_it_may(clock: ManualClock) -> None:
    storage = MemoryStorage(max_clients=100, clock=clock)
    for client in range(1_000):
        take(storage, charge(client))
        assert storage.size <= 100
    assert storage.size == 88


@pytest.mark.parametrize("buckets", [1, 2])
def test_the_client_charged_longest_ago_is_forgotten_first(
    clock: ManualClock, buckets: int
) -> None:
    storage = MemoryStorage(max_clients=4 * buckets, clock=clock)

    def remaining(client: str) -> list[int]:
        charges = [*charge(client, MANY), *charge(f"{client}'s user", MANY)][:buckets]
        return [outcome.remaining for outcome in take(storage, charges).outcomes]

    for client in ["a", "b", "c", "a", "d", "e"]:
        remaining(client)
    assert remaining("a") == [7] * buckets
    assert remaining("b") == [9] * buckets


def test_a_limit_that_nobody_used_for_a_while_is_counted_like_any(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    mine = charge("a")
    take(storage, mine)
    clock.now_ms += 60_000
    for client in range(5):
        take(storage, charge(client, SECOND))
    assert [take(storage, mine).granted for _ in range(2)] == [True, True]
    assert not take(storage, charge("a")).granted
    assert storage.size == 6


def test_a_client_that_close_forgot_is_counted_afresh(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    mine = charge("a")
    take(storage, mine)
    storage.close()
    assert [take(storage, mine).granted for _ in range(2)] == [True, True]
    assert not take(storage, charge("a")).granted
    storage.reset(mine)
    assert storage.size == 0


def test_a_flood_does_not_free_clients_over_their_limit(clock: ManualClock) -> None:
    storage = MemoryStorage(max_clients=100, clock=clock)
    for client in range(20):
        take(storage, charge(f"over-{client}"))
        take(storage, charge(f"over-{client}"))
    for client in range(10_000):
        take(storage, charge(client))
    assert not any(take(storage, charge(f"over-{client}")).granted for client in range(20))


def test_a_client_whose_wait_is_over_is_forgotten_like_any(clock: ManualClock) -> None:
    storage = MemoryStorage(max_clients=3, clock=clock)
    take(storage, charge("a"))
    take(storage, charge("a"))
    clock.now_ms += 60_000
    for client in range(3):
        take(storage, charge(client))
    assert storage.size == 3


def test_a_flood_of_clients_over_their_limit_is_bounded_too(clock: ManualClock) -> None:
    storage = MemoryStorage(max_clients=50, clock=clock)
    for client in range(500):
        take(storage, charge(client))
        take(storage, charge(client))
    assert storage.size == 50


def test_a_flood_on_one_limit_spares_the_clients_of_another(clock: ManualClock) -> None:
    storage = MemoryStorage(max_clients=100, clock=clock)
    take(storage, charge("quiet"))
    for client in range(1_000):
        take(storage, charge(client, SECOND))
    assert take(storage, charge("quiet")).outcomes[0].remaining == 0


def test_expired_clients_are_dropped_as_others_come(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    for client in range(100):
        take(storage, charge(client))
    clock.now_ms += 60_000
    for client in range(100, 151):
        take(storage, charge(client))
    assert storage.size == 51


def test_long_windows_do_not_keep_short_ones_alive(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    for client in range(100):
        day = charge(f"{client}, a day", Limit("fixed-window", 5, 86_400_000, 5))
        take(storage, day)
        take(storage, day + charge(f"{client}, a day", SECOND))
        take(storage, charge(client, SECOND))
        clock.now_ms += 2_000
    assert storage.size <= 102


def test_the_states_of_a_limit_that_was_edited_away_expire_too(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    take(storage, charge("a"))
    for client in range(50):
        take(storage, charge(client, SECOND))
    clock.now_ms += 1_000
    for client in range(50, 110):
        take(storage, charge(client))
    assert storage.size == 61


def test_what_expires_while_it_is_charged_is_counted_afresh(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    take(storage, charge("a", SECOND))
    clock.now_ms += 60_000
    both = charge("a") + charge("a", SECOND)
    assert [outcome.remaining for outcome in take(storage, both).outcomes] == [1, 1]
    clock.now_ms += 1_000
    assert [outcome.remaining for outcome in take(storage, both).outcomes] == [0, 1]
    assert [outcome.remaining for outcome in take(storage, both).outcomes] == [0, 1]
    assert storage.size == 1


def test_looking_keeps_nothing(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    take(storage, charge("a"))
    for client in range(10):
        take(storage, [charge(client)[0]._replace(cost=0)])
    assert storage.size == 1


def test_one_rule_does_not_keep_alive_what_another_has_counted(clock: ManualClock) -> None:
    """A bucket of two rules is kept until the long window is over, although the rule with the short
    window charged it last. The records that come after it in the same table expire as usual."""
    storage = MemoryStorage(clock=clock)
    take(storage, charge("both"))
    take(storage, charge("both", SECOND))
    for client in range(50):
        take(storage, charge(client, SECOND))
    clock.now_ms += 1_000
    for client in range(50, 100):
        take(storage, charge(client, SECOND))
    assert storage.size == 51
    assert take(storage, charge("both")).outcomes[0].remaining == 0


def test_limits_that_are_edited_all_the_time_leave_nothing_behind(clock: ManualClock) -> None:
    """Not even if one client is charged by all of them."""
    storage = MemoryStorage(clock=clock)
    for window_ms in range(1_000, 1_100):
        limit = Limit("fixed-window", 5, window_ms, 5)
        for _ in range(3):
            take(storage, charge("busy", limit))
        take(storage, charge(f"a client of {window_ms}", limit))
        clock.now_ms += 2_000
    assert storage.size <= 3
    assert len(storage._tables) <= 3
    assert sum(len(table.groups) for table in storage._tables.values()) <= 3
    (record,) = [table[key] for table in storage._tables.values() for key in table if "busy" in key]
    assert len(record.others) <= 1


def test_a_client_counts_as_one_however_many_limits_it_has(clock: ManualClock) -> None:
    storage = MemoryStorage(max_clients=3, clock=clock)
    for client in "abc":
        take(storage, charge(client) + charge(client, SECOND))
    assert storage.size == 3


def test_reset_and_close_give_the_room_back(clock: ManualClock) -> None:
    storage = MemoryStorage(clock=clock)
    for client in range(3):
        take(storage, charge(client))
    storage.reset(charge(0))
    storage.reset(charge(0))
    assert storage.size == 2
    storage.close()
    assert storage.size == 0


@pytest.mark.parametrize(
    "uri",
    [
        "memory://host",
        "memory:///path",
        "memory://#fragment",
        "memory://?clients=5",
        "memory://?max_clients=0",
        "memory://?max_clients=-1",
        "memory://?max_clients=1e3",
        "memory://?max_clients=",
        "memory://?max_clients=5&max_clients=6",
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused(uri: str) -> None:
    with pytest.raises(StorageURIError):
        MemoryStorage.from_uri(uri)


def test_max_clients_is_an_option_of_the_uri() -> None:
    storage = MemoryStorage.from_uri("memory://?max_clients=5", application_id="/srv/throttle.yaml")
    for client in range(10):
        take(storage, charge(client))
    assert storage.size == 5


@pytest.mark.parametrize(("room", "limits"), [(1, 4), (2, 6), (3, 8)])
def test_less_room_than_a_request_has_limits_is_no_failure(room: int, limits: int) -> None:
    storage = MemoryStorage(max_clients=room)
    many = [Limit("fixed-window", 100 + index, 60_000, 100 + index) for index in range(limits)]
    for client in range(20):
        charges = [Charge(f"client {client}", limit, 1, True, "p") for limit in many]
        assert take(storage, charges).granted
    assert storage.size <= room
