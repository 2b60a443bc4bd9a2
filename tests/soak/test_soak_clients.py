"""More clients than there is room for, and so many requests that a leak would be seen."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, thread_time_ns

import pytest

from support.redis import Server
from support.servers import ROOT
from support.site_under_load import resident_bytes
from wsgi_throttle.decision import Limit, Term, Terms
from wsgi_throttle.storage.shared.storage import SharedStorage

pytestmark = pytest.mark.soak

CLIENTS = 1_000_000
MAX_TAKE_MS = 20
LIMITS = [
    Limit("sliding-window", 5, 60_000, 5),
    Limit("sliding-window", 20, 3_600_000, 20),
]


def buckets(client: str) -> tuple[str, ...]:
    return (f"throttle:1:login:ip:{{ip:{client}}}",)


def test_a_million_clients_on_shared_storage_of_the_default_size(tmp_path: Path) -> None:
    storage = SharedStorage(application_id=str(tmp_path))
    take = storage.prepare(Terms(Term(0, limit, 1, True, "login") for limit in LIMITS))
    over = buckets("over-its-limit")
    while take(over).granted:
        pass
    folder = storage.folder
    wall_ns = array("q", bytes(8 * CLIENTS))
    cpu_ns = array("q", bytes(8 * CLIENTS))
    grown = []
    gc.collect()
    gc.freeze()  # pytest's own objects are many, and going through them would take long
    try:
        for number in range(CLIENTS):
            taken = buckets(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            cpu, wall = thread_time_ns(), perf_counter_ns()
            granted = take(taken).granted
            wall_ns[number] = perf_counter_ns() - wall
            cpu_ns[number] = thread_time_ns() - cpu
            assert granted
            if number % 1000 == 0:
                assert not take(over).granted
            if number % (CLIENTS // 4) == CLIENTS // 4 - 1:
                grown.append((resident_bytes(), disk_bytes(folder)))
        assert not take(over).granted
    finally:
        gc.unfreeze()
        storage.close()
        shutil.rmtree(folder)
    walls, cpus = sorted(wall_ns), sorted(cpu_ns)
    indexes = {"p50": CLIENTS // 2, "p99.99": CLIENTS - CLIENTS // 10_000, "max": CLIENTS - 1}
    for name, index in indexes.items():
        print(f"{name}: {walls[index] / 1e3:.1f} us, of the processor {cpus[index] / 1e3:.1f} us")
    print("resident and on disk after each quarter, MB:", [(a >> 20, b >> 20) for a, b in grown])
    # The longest wall time says more about a busy machine than about the storage.
    assert walls[indexes["p99.99"]] < MAX_TAKE_MS * 1_000_000
    assert cpus[-1] < MAX_TAKE_MS * 1_000_000
    # The first quarter is left out: the file fills up, and its pages count as this process's too.
    _, (full_resident, full_disk), *others = grown
    for resident, disk in others:
        assert resident < 1.05 * full_resident
        assert disk == full_disk


def disk_bytes(folder: Path) -> int:
    return sum(512 * os.stat(path).st_blocks for path in folder.iterdir())


RANDOM_CLIENTS = """
import random, sys
from support.site_under_load import resident_bytes
from wsgi_throttle import Throttle

throttle = Throttle(lambda environ, start: start("200 OK", []) or [], {
    "storage": sys.argv[1],
    "storage_timeout": "10 s",
    "rules": [{"path": "/<name>/**", "limits": "5 per minute; 20 per hour"}],
})
chance, statuses = random.Random(5), {}

def count(status, headers, exc_info=None):
    statuses[status[:3]] = statuses.get(status[:3], 0) + 1

def requests(number):
    for _ in range(number):
        # One request in four is of a few clients over their limit, the others are of a million.
        client = chance.getrandbits(chance.choice([8, 20, 20, 20]))
        throttle({
            "REQUEST_METHOD": chance.choice(["GET", "POST", "PUT"]),
            "PATH_INFO": f"/{client % 1000}/{client}",
            "REMOTE_ADDR": f"10.{client >> 16}.{client >> 8 & 255}.{client & 255}",
            "HTTP_ACCEPT": chance.choice(["*/*", "text/html", "application/json", f"a/{client}"]),
        }, count)

requests(2_000_000)  # until max_clients is reached and the heap no longer grows
before = resident_bytes()
requests(2_000_000)
print(before, resident_bytes(), statuses)
"""


@pytest.mark.parametrize("storage", ["memory", "shared", "redis"])
def test_2_million_requests_of_random_clients_leave_memory_as_it_was(
    storage: str, tmp_path: Path, new_redis: Callable[..., Server]
) -> None:
    tmp_path.chmod(0o700)
    uris = {"memory": "memory://", "shared": f"shared://{tmp_path}"}
    uri = uris.get(storage) or new_redis().uri
    found = subprocess.run(
        [sys.executable, "-c", RANDOM_CLIENTS, uri],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    before, after, statuses = found.stdout.split(" ", 2)
    print(f"{storage}: {int(before) / 2**20:.1f} MB, then {int(after) / 2**20:.1f}; {statuses}")
    assert int(after) < 1.05 * int(before)
