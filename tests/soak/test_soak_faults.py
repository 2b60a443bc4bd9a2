"""The faults of test_faults.py for longer and more often, and with a Sentinel."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.redis import Server as Redis
from support.site_under_load import TIGHT, WORKERS, edit_rules, now, site
from test_sentinel import Group, group  # noqa: F401 - a fixture

pytestmark = pytest.mark.soak


def test_redis_is_stopped_for_5_seconds(
    new_redis: Callable[..., Redis], tmp_path: Path, new_client: Callable[[], str]
) -> None:
    server = new_redis()
    with site(server.uri, tmp_path, new_client, server) as found:
        load = found.load()
        with load.running():
            load.go_on(1)
            with server.stopped():
                load.go_on(5)
            over_at = now()
            found.wait_for_all_workers(load)
            load.go_on(1)
        figures = found.saw(load, fault_over_at=over_at)
        assert load.errors == []
        assert figures.unavailable
        assert max(found.admitted(load).values()) <= TIGHT * (WORKERS + 1)
        found.check_counters(load)


def test_sentinel_fails_over(
    group: Group,  # noqa: F811
    tmp_path: Path,
    new_client: Callable[[], str],
) -> None:
    with site(group.uri, tmp_path, new_client, group.replica) as found:
        load = found.load()
        with load.running():
            load.until(lambda: found.recoveries == found.failures, "that all count")
            load.go_on(1)
            group.master.kill()
            load.until(group.names_the_replica, "a new master", patience_s=60)
            over_at = now()
            load.until(lambda: found.failures >= WORKERS, "that all have noticed")
            found.wait_for_all_workers(load)
            load.go_on(1)
        figures = found.saw(load, fault_over_at=over_at)
        assert load.errors == []
        assert figures.unavailable
        assert max(found.admitted(load).values()) <= TIGHT * (WORKERS + 2)
        found.check_counters(load)


def test_100_workers_are_killed(
    shared_uri: str, tmp_path: Path, new_client: Callable[[], str]
) -> None:
    kills = 100
    with site(shared_uri, tmp_path, new_client) as found:
        load = found.load()
        with load.running():
            for number in range(kills):
                ready = found.ready
                os.kill(found.workers[number % WORKERS], signal.SIGKILL)
                load.until(lambda: found.ready > ready, "a new worker")  # noqa: B023
            load.go_on(1)
        figures = found.saw(load)
        # A request that the worker had begun dies with it.
        assert figures.errors <= kills
        assert figures.unavailable == figures.over == 0


def test_rules_are_edited_1000_times(
    shared_uri: str, tmp_path: Path, new_client: Callable[[], str]
) -> None:
    with site(shared_uri, tmp_path, new_client) as found:
        edit_rules(found, edits=1000)
