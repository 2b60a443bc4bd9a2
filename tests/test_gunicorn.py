"""One count for all workers, threads and greenlets of every kind of gunicorn worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from servers import gunicorn

WORKERS = {
    "4 sync workers": ["--worker-class=sync"],
    "4 sync workers, preloaded": ["--worker-class=sync", "--preload"],
    "4 gthread workers of 4 threads": ["--worker-class=gthread", "--threads=4"],
    "4 gevent workers": ["--worker-class=gevent"],
    "4 gevent workers, preloaded": ["--worker-class=gevent", "--preload"],
}

# What is asked is how exact the count is: a machine under load is not to look like an outage.
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
