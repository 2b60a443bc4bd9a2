"""A server that forks in C, as uWSGI does: no fork hooks are called, and the workers notice all the
same that they are not the process that opened the files and connections."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.charges import take
from support.redis import Server as Redis
from support.servers import Server, running
from wsgi_throttle.decision import Charge, Limit
from wsgi_throttle.errors import StorageDownError, StorageError
from wsgi_throttle.storage import Storage, fork, open_storage
from wsgi_throttle.storage.breaker import CircuitBreaker
from wsgi_throttle.storage.memory import MemoryStorage
from wsgi_throttle.storage.shared.places import places
from wsgi_throttle.storage.shared.storage import SharedStorage
from wsgi_throttle.testing.contract.charges import charge, limit, new_bucket, used
from wsgi_throttle.testing.contract.workers import in_child, start_child

TEN = Limit("sliding-window", 10, 3_600_000, 10)

libc = ctypes.PyDLL(None)  # which keeps the GIL, as uWSGI does


@pytest.fixture
def forks_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """os.fork() is the C function alone."""
    monkeypatch.setattr(os, "fork", libc.fork)


@pytest.fixture(params=["page", "pid"])
def kinds_of_mark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of mark; the one that this system does not use is put in place of its own."""
    if request.param == "pid":
        monkeypatch.setattr(fork, "mark", fork._Pid())
        for module in ("breaker", "redis.storage", "shared.storage"):
            monkeypatch.setattr(f"wsgi_throttle.storage.{module}.mark", fork.mark)


@pytest.fixture(params=["shared", "redis"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "redis":
        uri = request.getfixturevalue("redis_uri")
    else:
        uri = f"shared://{tmp_path}?size=1mb"
    storage = open_storage(uri, timeout_s=2)
    yield storage
    storage.close()


def test_this_system_has_the_faster_mark() -> None:
    assert not isinstance(fork.mark, fork._Pid)


@pytest.mark.usefixtures("forks_in_c", "kinds_of_mark")
@pytest.mark.parametrize("warm_up", ["take", "reset", "ping"])
def test_children_of_a_c_fork_count_exactly_and_read_their_own_replies(
    storage: Storage, warm_up: str
) -> None:
    def counts_down(quota: int) -> bool:
        charges = [charge(new_bucket(f"ip:{os.getpid()}"), limit(quota))]
        seen = [take(storage, charges).outcomes[0].remaining for _ in range(100)]
        return seen == list(range(quota - 1, quota - 101, -1))

    bucket = new_bucket()
    if warm_up == "take":
        take(storage, [charge(new_bucket(), limit(1))])
    elif warm_up == "reset":
        storage.reset([charge(bucket, limit(1))])
    else:
        storage.ping()

    def work(quota: int) -> Callable[[], object]:
        def child() -> tuple[bool, int]:
            own = counts_down(quota)
            return own, sum(take(storage, [charge(bucket, limit(50))]).granted for _ in range(40))

        return child

    children = [start_child(work(1000 + 200 * number)) for number in range(4)]
    assert counts_down(5000)
    results = [child() for child in children]
    granted = 0
    for result in results:
        assert isinstance(result, tuple), result
        assert result[0]
        granted += result[1]
    assert granted == used(storage, bucket, limit(50)) == 50


@pytest.mark.usefixtures("forks_in_c")
def test_a_grandchild_notices_too(storage: Storage) -> None:
    bucket = new_bucket()
    assert take(storage, [charge(bucket, limit(3))]).granted

    def child() -> list[object]:
        before = take(storage, [charge(bucket, limit(3))]).granted
        grandchild = in_child(lambda: [take(storage, [charge(bucket, limit(3))]).granted] * 2)
        return [before, grandchild, take(storage, [charge(bucket, limit(3))]).granted]

    assert in_child(child) == [True, [True, True], False]


@pytest.mark.usefixtures("forks_in_c")
def test_a_child_opens_the_file_itself(tmp_path: Path) -> None:
    """What it has inherited works only as long as its parent has the file open."""
    storage = SharedStorage(tmp_path, size_bytes=1 << 20)
    charges = [charge(new_bucket(), limit(3))]
    take(storage, charges)
    assert storage._place
    inherited = storage._place.environment(0)

    def child() -> bool:
        take(storage, charges)
        return storage._place is not None and storage._place.environment(0) is inherited

    assert in_child(child) is False
    assert used(storage, charges[0].bucket, limit(3)) == 2
    storage.close()


@pytest.mark.usefixtures("forks_in_c")
def test_threads_of_a_child_that_notice_together_count_exactly(storage: Storage) -> None:
    bucket = new_bucket()
    take(storage, [charge(new_bucket(), limit(1))])

    def child() -> int:
        barrier = threading.Barrier(8)

        def count(_: int) -> int:
            barrier.wait()
            return sum(take(storage, [charge(bucket, limit(30))]).granted for _ in range(10))

        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(count, range(8)))

    assert in_child(child) == 30
    assert used(storage, bucket, limit(30)) == 30


@pytest.mark.usefixtures("forks_in_c")
def test_a_child_forked_amid_a_transaction_fails_and_hangs_never(tmp_path: Path) -> None:
    """Its parent's thread holds a lock of LMDB for ever in the child's copy of the memory."""
    storage = SharedStorage(tmp_path, size_bytes=1 << 20)
    charges = [Charge(new_bucket(), TEN, 1, True, "rule")]
    take(storage, charges)

    def child() -> list[str]:
        told = []
        for _ in range(2):
            try:
                take(storage, charges)
            except StorageDownError as error:
                told.append(str(error))
        return told

    with places.lock:
        wait = start_child(child)
    told = wait()
    assert isinstance(told, list)
    assert len(told) == 2
    assert all("restart it" in one for one in told)
    assert take(storage, charges).outcomes[0].remaining == 8
    storage.close()


@pytest.mark.usefixtures("forks_in_c")
def test_a_child_that_is_forked_during_a_probe_makes_its_own() -> None:
    probing, release = threading.Event(), threading.Event()
    parent = os.getpid()
    now_ns = [0]

    class Failing(MemoryStorage):
        fails = True

        def ping(self) -> None:
            if os.getpid() == parent:
                probing.set()
                release.wait(10)

        def prepare(self, terms):  # type: ignore[no-untyped-def]
            inner = super().prepare(terms)

            def take(*arguments):  # type: ignore[no-untyped-def]
                if self.fails:
                    raise StorageDownError("gone")
                return inner(*arguments)

            return take

    inner = Failing()
    storage = CircuitBreaker(inner, clock=lambda: now_ns[0])
    charges = [Charge(new_bucket(), TEN, 1, True, "rule")]

    def granted() -> bool:
        try:
            return take(storage, charges).granted
        except StorageError:
            return False

    assert not granted()
    now_ns[0] = 10**9
    assert not granted()
    assert probing.wait(10)
    inner.fails = False

    def child() -> bool:
        granted()
        for thread in threading.enumerate():
            if thread.name == "wsgi_throttle-probe":  # the parent's too, which never ends here
                thread.join(0.5)
        return granted()

    try:
        assert in_child(child) is True
    finally:
        release.set()


# --- real uWSGI ----------------------------------------------------------------------------------

QUOTA = 50


@pytest.fixture(params=["request", "reset", "nothing"])
def warm_up(request: pytest.FixtureRequest) -> str:
    """What the master does with the storage before it forks."""
    return str(request.param)


@pytest.fixture(params=["shared", "redis"])
def uwsgi(
    request: pytest.FixtureRequest, warm_up: str, new_redis: Callable[..., Redis], tmp_path: Path
) -> Iterator[Server]:
    if not importlib.util.find_spec("pyuwsgi"):
        pytest.skip("there is no uWSGI: pip install pyuwsgi")
    tmp_path.chmod(0o700)
    uri = new_redis().uri if request.param == "redis" else f"shared://{tmp_path}?size=1mb"
    command = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", "--master", "--processes=4"]
    command += ["--http-socket=127.0.0.1:0", "--die-on-term", "--module=uwsgi_site"]

    def ready(log: str) -> tuple[str, int] | None:
        port = re.search(r"bound to TCP address 127\.0\.0\.1:(\d+)", log)
        return (
            ("127.0.0.1", int(port[1])) if port and log.count("spawned uWSGI worker") == 4 else None
        )

    with running(
        command, ready=ready, env={"SITE_STORAGE": uri, "SITE_WARM_UP": warm_up}
    ) as server:
        yield server


@pytest.mark.slow
def test_workers_of_uwsgi_admit_exactly_the_quota(uwsgi: Server) -> None:
    def status(_: int) -> int:
        return uwsgi.get("/").status

    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(status, range(4 * QUOTA)))
    assert statuses == {200: QUOTA, 429: 3 * QUOTA}, uwsgi.log[-3000:]
    assert "failed" not in uwsgi.log
    assert len(set(re.findall(r"\[pid: (\d+)\|", uwsgi.log))) > 1
