"""All workers, threads and greenlets of gunicorn count together, whatever kind of worker it is."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.servers import gunicorn, wait_until

pytestmark = pytest.mark.slow

WORKERS = {
    "4 sync workers": ["--worker-class=sync"],
    "4 sync workers, preloaded": ["--worker-class=sync", "--preload"],
    "4 gthread workers of 4 threads": ["--worker-class=gthread", "--threads=4"],
    "4 gevent workers": ["--worker-class=gevent"],
    "4 gevent workers, preloaded": ["--worker-class=gevent", "--preload"],
}

# The counts are to be exact, so a busy machine must not look like an outage.
RULES = """
storage: "{}"
storage_timeout: 20 s
default_limits: 5 per minute
"""


@pytest.mark.parametrize("options", WORKERS.values(), ids=WORKERS)
def test_5_of_200_parallel_requests_are_admitted(
    options: list[str], storage_uri: str, new_client: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "throttle.yaml").write_text(RULES.format(storage_uri))
    client = new_client()
    with (
        gunicorn("served:application", *options, workers=4, cwd=tmp_path) as server,
        ThreadPoolExecutor(50) as clients,
    ):
        answers = clients.map(lambda _: server.get("/", source=client).status, range(200))
        statuses = Counter(answers)
        assert statuses == {200: 5, 429: 195}, server.log
    assert len((tmp_path / "calls.txt").read_text().splitlines()) == 5


def test_greenlets_of_a_preloaded_worker_go_on_while_redis_is_away(tmp_path: Path) -> None:
    # Nothing listens on port 1. If a greenlet held a lock while another one runs, all would hang.
    (tmp_path / "throttle.yaml").write_text(RULES.format("redis://127.0.0.1:1"))
    options = ["--worker-class=gevent", "--preload"]
    with (
        gunicorn("served:application", *options, workers=1, cwd=tmp_path) as server,
        ThreadPoolExecutor(20) as clients,
    ):
        # Long enough for the storage to be tried again, more than once.
        end = time.monotonic() + 2
        statuses = Counter[int]()
        while time.monotonic() < end:
            statuses.update(clients.map(lambda _: server.get("/").status, range(20)))
    assert statuses[200] == 5
    assert statuses.keys() == {200, 429}


def test_hup_takes_the_new_rules_and_keeps_the_counts(
    shared_uri: str, new_client: Callable[[], str], tmp_path: Path
) -> None:
    rules = (
        RULES.format(shared_uri) + "reload: false\nrules: [{path: /other, limits: 1 per hour}]\n"
    )
    (tmp_path / "throttle.yaml").write_text(rules)
    client = new_client()
    with gunicorn("served:application", workers=2, cwd=tmp_path) as server:
        assert [server.get("/", source=client).status for _ in range(5)] == [200] * 5
        (tmp_path / "throttle.yaml").write_text(rules.replace("1 per hour", "7 per hour"))
        server.signal(signal.SIGHUP)

        def limit_of_new_rules() -> bool:
            answer = server.get("/other", source=new_client())
            return answer.headers["X-RateLimit-Limit"] == "7"

        wait_until(lambda: all(limit_of_new_rules() for _ in range(6)))
        assert server.get("/", source=client).status == 429
