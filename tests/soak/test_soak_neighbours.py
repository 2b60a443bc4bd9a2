"""One client makes as much load as it can on a busy machine: what happens to another client?"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from support.redis import Server as Redis
from support.servers import Server, gunicorn

pytestmark = pytest.mark.soak

SECONDS = 12
CONNECTIONS = 64
RULES = """
storage: "{storage}"
rules:
  - {{name: local, path: /local, limits: 5 per hour, on_storage_error: local}}
  - {{name: deny, path: /deny, limits: 1000000 per hour, on_storage_error: deny}}
"""


@contextmanager
def hogs(number: int) -> Iterator[None]:
    """Processes that use all of the processor's time that they get."""
    processes = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ask(
    server: Server, path: str, source: str, over: threading.Event, pause_s: float
) -> Counter[int]:
    """Ask again and again on one connection. Return how often each status came."""
    statuses: Counter[int] = Counter()
    connection = server.connect(source)
    while not over.wait(pause_s):
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
        except (OSError, HTTPException):  # the server has closed an idle connection
            connection.close()
    connection.close()
    return statuses


@pytest.mark.parametrize("storage", ["redis", "shared"])
def test_a_client_with_many_connections_on_a_busy_machine_harms_no_other(
    storage: str,
    new_redis: Callable[..., Redis],
    tmp_path: Path,
    new_client: Callable[[], str],
) -> None:
    tmp_path.chmod(0o700)
    uri = new_redis().uri if storage == "redis" else f"shared://{tmp_path}?size=1mb"
    (tmp_path / "throttle.yaml").write_text(RULES.format(storage=uri))
    loud, quiet = new_client(), new_client()
    over = threading.Event()
    found: dict[str, Counter[int]] = {}

    def quiet_asks(path: str) -> None:
        found[path] = ask(server, path, quiet, over, 0.03)

    threading_options = ("--worker-class=gthread", "--threads=64")
    with (
        gunicorn("plain:application", *threading_options, cwd=tmp_path, workers=2) as server,
        hogs(4),
    ):
        threads = [
            threading.Thread(target=ask, args=(server, "/deny", loud, over, 0))
            for _ in range(CONNECTIONS)
        ]
        threads += [
            threading.Thread(target=quiet_asks, args=(path,)) for path in ("/local", "/deny")
        ]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
        over.set()
        for thread in threads:
            thread.join()
        outages = server.log.count(". Until it answers again")
    print(storage, found, f"{outages} outages")
    assert found["/local"][200] == 5
    assert found["/deny"].total() > 50
    assert found["/deny"][503] < found["/deny"].total() / 100
