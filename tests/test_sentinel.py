"""redis+sentinel://, with a master, a replica and a Sentinel of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from support.charges import take
from support.redis import Server, eventually, programs
from wsgi_throttle.decision import Charge, Limit
from wsgi_throttle.errors import StorageError
from wsgi_throttle.storage import open_storage

SERVICE = "counters"
LIMIT = Limit("sliding-window", 1000, 3_600_000, 1000)
CHARGES = [Charge("test_sentinel:{all}", LIMIT, 1, True, "rule")]


def master_known_to(sentinel: Server) -> dict[str, Any]:
    state = sentinel.client.sentinel_master(SERVICE)
    assert isinstance(state, dict)
    return state


class Group(NamedTuple):
    master: Server
    replica: Server
    sentinel: Server

    @property
    def uri(self) -> str:
        # The first address has no Sentinel: it may be down.
        return f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.sentinel.port}/{SERVICE}"

    def names_the_replica(self) -> bool:
        port: int = master_known_to(self.sentinel)["port"]
        return port == self.replica.port


@pytest.fixture(scope="module", params=programs())
def redis_program(request: pytest.FixtureRequest) -> str:
    """Each server that is installed."""
    return programs()[request.param]


@pytest.fixture
def group(new_redis: Callable[..., Server]) -> Group:
    master = new_redis()
    replica = new_redis(replicaof=f"127.0.0.1 {master.port}")
    eventually(lambda: replica.client.info("replication")["master_link_status"] == "up")
    directives = {
        "sentinel monitor": f"{SERVICE} 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds": f"{SERVICE} 300",
        "sentinel failover-timeout": f"{SERVICE} 2000",
    }
    sentinel = new_redis(sentinel=True, **directives)

    def has_found_all() -> bool:
        replicas: int = master_known_to(sentinel)["num-slaves"]
        return replicas == 1

    eventually(has_found_all, patience_s=30)
    return Group(master, replica, sentinel)


def test_it_counts_on_the_master_and_follows_a_failover(group: Group) -> None:
    storage = open_storage(group.uri, timeout_s=5)
    assert take(storage, CHARGES).outcomes[0].remaining == 999
    assert group.master.client.dbsize() == 1
    eventually(lambda: group.replica.client.dbsize() == 1)

    group.master.kill()
    eventually(group.names_the_replica, patience_s=30)

    def counts_again() -> bool:
        try:
            return take(storage, CHARGES).outcomes[0].remaining < 999
        except StorageError:
            return False

    eventually(counts_again, patience_s=30)
    assert group.replica.client.info("replication")["role"] == "master"
    storage.close()


def test_it_leaves_a_master_that_was_demoted(group: Group) -> None:
    storage = open_storage(group.uri, timeout_s=5)
    with ThreadPoolExecutor(8) as pool:  # so that there are several connections to the old master
        list(pool.map(lambda _: take(storage, CHARGES), range(100)))
    eventually(lambda: group.replica.client.dbsize() == 1)
    sentinel = group.sentinel.client
    eventually(lambda: sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE), patience_s=30)
    eventually(group.names_the_replica, patience_s=30)
    # Sentinel does this too, but up to ten seconds later.
    group.master.client.replicaof("127.0.0.1", str(group.replica.port))

    refusals = []

    def counts_again() -> bool:
        try:
            return take(storage, CHARGES).granted
        except StorageError as error:
            refusals.append(str(error))
            return False

    eventually(counts_again, patience_s=30)
    assert ["READONLY" in refusal for refusal in refusals] == [True]
    assert group.replica.client.info("replication")["role"] == "master"
    storage.close()


def test_a_service_that_sentinel_does_not_know_is_a_storage_error(group: Group) -> None:
    storage = open_storage(group.uri.replace(SERVICE, "another"), timeout_s=5)
    with pytest.raises(StorageError, match="another"):
        take(storage, CHARGES)
    storage.close()
