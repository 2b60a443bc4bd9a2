"""What shared:// does when its folder, file, processes, room or clock are not as it needs them."""

from __future__ import annotations

import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.charges import take
from wsgi_throttle.clock import SECOND
from wsgi_throttle.decision import Charge, Limit
from wsgi_throttle.errors import StorageError, StorageURIError
from wsgi_throttle.storage import open_storage
from wsgi_throttle.storage.shared import eviction, location, places, record, stamp
from wsgi_throttle.storage.shared.eviction import Eviction
from wsgi_throttle.storage.shared.record import Packing, rank
from wsgi_throttle.storage.shared.storage import MIN_BYTES, SharedStorage
from wsgi_throttle.strategies import STRATEGIES, State
from wsgi_throttle.testing import ManualClock
from wsgi_throttle.testing.contract.workers import in_child, run_threads, start_child

ROOT = Path(__file__).parent.parent
MB = 1 << 20
HOUR = Limit("sliding-window", 2, 3_600_000, 2)
MANY = Limit("sliding-window", 1_000_000, 3_600_000, 1_000_000)

pytestmark = pytest.mark.filterwarnings(
    # A fork while threads run, which Python warns about, is what is tested.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


def charge(client: object = "192.0.2.1", limit: Limit = HOUR, cost: int = 1) -> list[Charge]:
    return [Charge(f"t:1:login:ip:{{ip:{client}}}", limit, cost, True, "login")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "counters"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def new(folder: Path) -> Iterator[Callable[..., SharedStorage]]:
    """A function that makes storages in the test's folder, of 1 MB unless the test says
    otherwise."""
    made: list[SharedStorage] = []

    def new(at: Path = folder, **settings: object) -> SharedStorage:
        made.append(SharedStorage(at, **({"size_bytes": MB} | settings)))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for storage in made:
        storage.close()


@pytest.fixture
def always_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the file is still there is checked at each use, and not once a second."""
    monkeypatch.setattr(places, "CHECK_EVERY_NS", 0)


def taken(storage: SharedStorage, tries: int = 3, client: object = "192.0.2.1") -> list[bool]:
    return [take(storage, charge(client)).granted for _ in range(tries)]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


FRESH = [True, True, False]
"""The first three answers, by HOUR, to a client with no counts."""


# --- the folder ----------------------------------------------------------------------------------


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    storage = SharedStorage(tmp_path / "later", size_bytes=MB)
    assert not (tmp_path / "later").exists()
    storage.close()
    assert not (tmp_path / "later").exists()


def test_the_folder_and_its_files_are_for_this_user_alone(
    tmp_path: Path, new: Callable[..., SharedStorage]
) -> None:
    take(new(tmp_path / "made"), charge())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "made").iterdir()}
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert modes == dict.fromkeys(["data.mdb", "lock.mdb", "open.lock", "format"], 0o600)


def test_without_a_folder_it_is_in_shared_memory_named_by_user_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "BASES", (str(tmp_path),))
    storage = SharedStorage(application_id="/srv/app/throttle.yaml", size_bytes=MB)
    assert taken(storage) == FRESH
    storage.close()
    (made,) = tmp_path.iterdir()
    assert made.name.startswith(f"wsgi_throttle-{os.geteuid()}-")
    assert (made / "data.mdb").stat().st_size == MB


def test_two_applications_of_one_user_count_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "BASES", (str(tmp_path),))
    one, same, other = (
        SharedStorage(application_id=path, size_bytes=MB)
        for path in ("/srv/a/throttle.yaml", "/srv/a/throttle.yaml", "/srv/b/throttle.yaml")
    )
    assert taken(one, 1) + taken(same, 2) == FRESH
    assert taken(other) == FRESH
    for storage in (one, same, other):
        storage.close()


def test_a_symbolic_link_is_refused(
    tmp_path: Path, folder: Path, new: Callable[..., SharedStorage]
) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(StorageError, match="symbolic link"):
        take(new(tmp_path / "link"), charge())
    with pytest.raises(StorageURIError, match="symbolic link"):
        open_storage(f"shared://{tmp_path}/link")
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_may_write_is_refused(
    folder: Path, new: Callable[..., SharedStorage]
) -> None:
    folder.chmod(0o777)
    storage = new()
    with pytest.raises(StorageError, match="chmod 700"):
        take(storage, charge())
    folder.chmod(0o700)
    assert taken(storage) == FRESH


def test_a_folder_of_another_user_is_refused(
    folder: Path, new: Callable[..., SharedStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    if mine == 0:
        os.chown(folder, 12345, 12345)
    else:  # without root's rights to give the folder away, this process pretends to be another user
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(StorageError, match="belongs to user"):
        take(new(), charge())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["open.lock", "data.mdb", "lock.mdb", "format"])
def test_a_link_in_place_of_a_file_is_not_followed(
    name: str, tmp_path: Path, folder: Path, new: Callable[..., SharedStorage]
) -> None:
    (tmp_path / "precious").write_text("precious")
    (folder / name).symlink_to(tmp_path / "precious")
    with suppress(StorageError):
        take(new(), charge())
    assert (tmp_path / "precious").read_text() == "precious"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make the folder read-only, even for root."""
    command = ["mount", "--bind", str(folder), str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_folder_that_becomes_read_only_is_an_error_until_it_is_not(
    folder: Path, new: Callable[..., SharedStorage], always_checking: None
) -> None:
    running = new()
    assert taken(running, 1) == [True]
    with read_only(folder):
        assert taken(running, 1) == [True]  # the file that is open stays open
        assert "Read-only" in str(in_child(lambda: taken(running)))
        running.close()
        for _ in range(2):
            with pytest.raises(StorageError, match="Read-only"):
                take(running, charge())
    assert taken(running, 1) == [False]


def test_a_folder_that_becomes_unusable_while_serving_is_a_storage_error(
    folder: Path, new: Callable[..., SharedStorage]
) -> None:
    clock = ManualClock(10_000_000)
    storage = new(clock=clock)
    assert taken(storage) == FRESH
    shutil.rmtree(folder)
    folder.write_text("a file stands where the folder was")
    clock.now_ns += places.CHECK_EVERY_NS
    with pytest.raises(StorageError, match=re.escape(str(folder))):
        take(storage, charge())
    folder.unlink()
    folder.mkdir(0o700)
    assert taken(storage) == FRESH


def test_a_system_without_file_locks_is_told_what_to_use() -> None:
    program = """if True:
        import sys
        sys.modules["fcntl"] = None  # as on Windows
        from wsgi_throttle.errors import StorageURIError
        from wsgi_throttle.storage import open_storage
        for _ in range(2):
            try:
                open_storage("shared://")
            except StorageURIError as error:
                print(error)
        open_storage("memory://").ping()
        """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("use memory://") == 2


@pytest.mark.parametrize(
    "uri",
    [
        "shared://relative/folder",
        "shared:///no/such/folder",
        "shared://?size=1",
        "shared://?size=0mb",
        "shared://?size=-1mb",
        "shared://?size=64 mb",
        "shared://?size=",
        "shared://?size=64mb&size=65mb",
        "shared://?sise=64mb",
        "shared://#here",
        f"shared://{__file__}",
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused(uri: str) -> None:
    with pytest.raises(StorageURIError):
        open_storage(uri)


# --- a file that is damaged, foreign or gone -----------------------------------------------------


def hurt_garbage(folder: Path) -> None:
    (folder / "data.mdb").write_bytes(os.urandom(MB))


def hurt_cut_off(folder: Path) -> None:
    os.truncate(folder / "data.mdb", MB // 2)


def hurt_layout(folder: Path) -> None:
    text = (folder / "format").read_text()
    (folder / "format").write_text(text.replace(f"layout {record.LAYOUT}", "layout 0"))


def hurt_boot(folder: Path) -> None:
    found = stamp.Stamp.read(folder)
    assert found
    found._replace(boot="another").write(folder)


def hurt_format(folder: Path) -> None:
    os.truncate(folder / "format", 100)


def hurt_foreign(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    lmdb.open(str(folder), map_size=MB).close()


def hurt_half_made(folder: Path) -> None:
    (folder / "format").unlink()


def hurt_lock(folder: Path) -> None:
    (folder / "lock.mdb").unlink()


def hurt_lock_cut_off(folder: Path) -> None:
    os.truncate(folder / "lock.mdb", 10)


def hurt_data_folder(folder: Path) -> None:
    (folder / "data.mdb").unlink()
    (folder / "data.mdb").mkdir()


HURTS = {
    name.removeprefix("hurt_"): value for name, value in globals().items() if name[:5] == "hurt_"
}


@pytest.mark.parametrize("hurt", HURTS.values(), ids=HURTS)
def test_a_file_that_is_damaged_or_foreign_is_set_aside_with_one_warning(
    hurt: Callable[[Path], None],
    folder: Path,
    new: Callable[..., SharedStorage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = new()
    assert taken(first) == FRESH
    first.close()
    hurt(folder)
    second = new()
    assert taken(second) == FRESH
    assert taken(second, 1) == [False]
    (warning,) = warnings_of(caplog)
    assert "set aside" in warning
    assert any(path.name.endswith(".aside") for path in folder.iterdir())
    third = new()
    second.close()
    assert taken(third, 1) == [False]
    assert len(warnings_of(caplog)) == 1


def test_a_sound_file_of_another_size_is_taken_as_it_is_and_told_once(
    folder: Path,
    new: Callable[..., SharedStorage],
    always_checking: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = new(size_bytes=MB)
    assert taken(running, 1) == [True]

    def restarted() -> list[bool]:
        return taken(SharedStorage(folder, size_bytes=2 * MB), 1)

    assert in_child(restarted) == [True]
    assert taken(running, 1) == [False]
    running.close()
    for _ in range(3):
        other = new(size_bytes=2 * MB)
        assert taken(other, 1) == [False]
        assert (folder / "data.mdb").stat().st_size == MB
        (warning,) = warnings_of(caplog)
        assert f"{MB} bytes" in warning
        assert "remove the folder" in warning
        caplog.clear()
        assert in_child(lambda: (taken(other, 1), warnings_of(caplog))) == ([False], [])  # noqa: B023
        other.close()
    shutil.rmtree(folder)
    assert taken(other) == FRESH
    assert (folder / "data.mdb").stat().st_size == 2 * MB


@pytest.mark.parametrize("how", ["deleted", "renamed", "emptied"])
def test_a_folder_that_vanishes_is_made_anew_and_all_processes_meet_there(
    how: str,
    folder: Path,
    new: Callable[..., SharedStorage],
    always_checking: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = new()
    assert taken(storage) == FRESH
    ready, at_ready = os.pipe()
    go, at_go = os.pipe()

    def other() -> list[bool]:
        os.close(at_go)
        taken(storage, 1)
        os.write(at_ready, b"x")
        os.read(go, 1)
        return taken(storage, 1)

    result = start_child(other)
    os.read(ready, 1)
    if how == "deleted":
        shutil.rmtree(folder)
    elif how == "renamed":
        folder.rename(folder.with_name("old"))
    else:
        for path in folder.iterdir():
            path.unlink()
    assert taken(storage, 1) == [True]
    os.close(at_go)
    assert result() == [True]
    assert taken(storage, 1) == [False]
    assert any("deleted or replaced" in warning for warning in warnings_of(caplog))


def test_a_folder_that_vanishes_is_noticed_within_a_second(
    folder: Path, new: Callable[..., SharedStorage]
) -> None:
    storage = new()
    assert taken(storage) == FRESH
    shutil.rmtree(folder)
    deadline = time.monotonic() + places.CHECK_EVERY_NS / SECOND + 0.5
    while not take(storage, charge()).granted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_folder_that_cannot_be_made_anew_is_an_error_until_it_can(
    tmp_path: Path, new: Callable[..., SharedStorage], always_checking: None
) -> None:
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True, mode=0o700)
    storage = new(outer / "inner")
    take(storage, charge())
    shutil.rmtree(outer)
    for _ in range(2):
        with pytest.raises(StorageError):
            take(storage, charge())
    outer.mkdir()
    assert taken(storage) == FRESH


def test_damage_that_lmdb_finds_while_serving_costs_the_counters_and_no_request(
    folder: Path,
    new: Callable[..., SharedStorage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = new()
    for client in range(200):
        take(storage, charge(client))
    with open(folder / "data.mdb", "r+b") as file:  # all pages except the two meta pages
        file.seek(2 * 4096)
        file.write(b"\xff" * (MB - 2 * 4096))
    assert taken(storage, client="new") == FRESH
    assert any("set aside" in warning for warning in warnings_of(caplog))


# --- room ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a tmpfs of a given size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        path = tmp_path / "disk"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_is_too_small_is_an_error_and_no_signal(
    small_disk: Callable[[str], Path],
) -> None:
    disk = small_disk("1m")

    def work() -> object:
        storage = SharedStorage(disk / "counters", size_bytes=2 * MB)
        errors = []
        for _ in range(3):
            try:
                take(storage, charge())
            except StorageError as error:
                errors.append(str(error))
        left = sorted(path.name for path in (disk / "counters").iterdir())
        storage.close()
        smaller = SharedStorage(disk / "counters", size_bytes=MB // 2)
        return len(errors), left, taken(smaller)

    assert in_child(work) == (3, ["open.lock"], FRESH)


def test_a_limited_file_size_is_an_error_and_no_signal(folder: Path) -> None:
    def work() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MB // 2, MB // 2))
        storage = SharedStorage(folder, size_bytes=MB)
        with pytest.raises(StorageError):
            take(storage, charge())
        return sorted(path.name for path in folder.iterdir())

    assert in_child(work) == ["open.lock"]


def test_a_disk_that_fills_up_while_serving_is_no_concern(
    small_disk: Callable[[str], Path],
) -> None:
    disk = small_disk("2m")

    def work() -> object:
        storage = SharedStorage(disk / "counters", size_bytes=MB)
        take(storage, charge("first"))
        with suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        for client in range(20_000):
            take(storage, charge(client))
        return os.statvfs(disk).f_bfree

    assert in_child(work) == 0


def test_what_was_set_aside_makes_room_for_the_new_file(
    small_disk: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk("1500k")
    storage = SharedStorage(disk / "counters", size_bytes=MB)
    take(storage, charge())
    storage.close()
    hurt_layout(disk / "counters")
    assert taken(storage) == FRESH
    storage.close()
    assert not (disk / "counters" / "data.mdb.aside").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size_bytes", [MIN_BYTES, 4 * MB], ids="{} bytes".format)
def test_a_flood_of_new_clients_frees_no_client_over_its_limit(
    size_bytes: int, new: Callable[..., SharedStorage], caplog: pytest.LogCaptureFixture
) -> None:
    storage = new(size_bytes=size_bytes)
    for client in range(100):
        taken(storage, 2, f"refused-{client}")
    before = (storage.folder / "data.mdb").stat().st_blocks
    capacity = size_bytes // 80
    for client in range(4 * capacity):
        assert take(storage, charge(client)).granted
    kept = [not take(storage, charge(f"refused-{client}")).granted for client in range(100)]
    assert sum(kept) == 100
    assert (storage.folder / "data.mdb").stat().st_blocks == before
    warnings = warnings_of(caplog)  # one a minute, and a busy machine needs more than one
    assert warnings
    assert all("is full" in warning for warning in warnings)


def test_a_client_whose_record_is_the_last_of_the_file_is_spared_like_any(
    new: Callable[..., SharedStorage],
) -> None:
    """Evictions that are close to the end of the file choose among its first records too."""

    def key(client: object) -> bytes:
        bucket = charge(client)[0].bucket
        return blake2b(bucket.encode(), digest_size=12).digest()

    flood = sorted(range(60_000), key=key)
    last = max((f"refused-{number}" for number in range(600_000)), key=key)
    assert key(last) > key(flood[-1])
    storage = new()
    taken(storage, 2, last)
    for client in flood:
        assert take(storage, charge(client)).granted
    assert not take(storage, charge(last)).granted


def test_expired_clients_make_room_before_live_ones(
    new: Callable[..., SharedStorage], caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(10_000_000)
    storage = new(clock=clock)
    second = Limit("fixed-window", 5, 1_000, 5)
    live = [take(storage, charge(f"live-{client}")) for client in range(50)]
    assert all(live)
    for client in range(30_000):
        take(storage, charge(client, second))
        clock.now_ms += 5
    remaining = [take(storage, charge(f"live-{n}")).outcomes[0].remaining for n in range(50)]
    assert remaining == [0] * 50
    assert warnings_of(caplog) == []


@pytest.mark.slow
def test_records_that_grow_are_counted_as_room_too(new: Callable[..., SharedStorage]) -> None:
    clock = ManualClock(10_000_000)
    storage = new(clock=clock)
    sixty = Limit("sliding-window", 60, 86_400_000, 60)
    for _ in range(60):
        clock.now_ms += 1
        for client in range(3_000):
            assert take(storage, charge(client, sixty)).granted


def test_a_full_file_is_started_anew_rather_than_failing(
    new: Callable[..., SharedStorage],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(eviction, "THRESHOLDS", ())  # so that nothing is ever forgotten
    storage = new(size_bytes=MB // 4)
    for client in range(6_000):
        assert take(storage, charge(client)).granted
    assert any("set aside" in warning for warning in warnings_of(caplog))


def test_a_reader_that_was_killed_does_not_fill_the_file(
    folder: Path, new: Callable[..., SharedStorage], caplog: pytest.LogCaptureFixture
) -> None:
    storage = new()
    taken(storage, 3, "over")

    def work() -> None:
        env = lmdb.open(str(folder), map_size=MB, writemap=True)
        txn = env.begin()
        txn.get(b"anything")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EOFError):
        in_child(work)
    for client in range(20_000):
        take(storage, charge(client))
    assert taken(storage, 1, "over") == [False]
    assert not any("set aside" in warning for warning in warnings_of(caplog))


def test_a_client_whose_counts_have_expired_leaves_no_record(
    folder: Path, new: Callable[..., SharedStorage]
) -> None:
    clock = ManualClock(10_000_000)
    storage = new(clock=clock)
    take(storage, charge())
    clock.now_ms += HOUR.window_ms
    take(storage, charge(cost=0))
    storage.close()
    with lmdb.open(str(folder), map_size=MB) as env:
        assert env.stat()["entries"] == 0


@pytest.mark.parametrize(
    ("limits", "hits", "max_bytes"),
    [
        ([Limit("sliding-window", 5, 60_000, 5)], 5, 128),
        ([Limit("fixed-window", 5, 60_000, 5)], 5, 100),
        ([Limit("token-bucket", 5, 60_000, 5)], 5, 100),
        ([HOUR, Limit("fixed-window", 100, 86_400_000, 100)], 1, 128),
    ],
    ids=["sliding-window", "fixed-window", "token-bucket", "two limits"],
)
def test_a_client_takes_few_bytes(
    limits: list[Limit], hits: int, max_bytes: int, new: Callable[..., SharedStorage]
) -> None:
    clock = ManualClock(10_000_000)
    clock.now_ms = 300 * 86_400_000  # a host that has been up for long
    storage = new(size_bytes=4 * MB, clock=clock)
    for _ in range(hits):
        clock.now_ms += 1  # hits of the same instant would share an entry
        for client in range(5_000):
            bucket = f"t:1:login:ip:{{ip:{client}}}"
            take(storage, [Charge(bucket, limit, 1, True, "login") for limit in limits])
    storage.close()
    with lmdb.open(str(storage.folder), map_size=4 * MB) as env:
        found = env.stat()
    assert found["entries"] == 5_000
    assert (found["branch_pages"] + found["leaf_pages"]) * 4096 / 5_000 <= max_bytes


# --- processes -----------------------------------------------------------------------------------


def test_threads_of_many_processes_admit_exactly_the_quota_of_one_client(
    new: Callable[..., SharedStorage],
) -> None:
    storage = new()
    take(storage, charge("warm"))
    limits = [Limit("sliding-window", 300, 3_600_000, 300), MANY]
    charges = [Charge("t:{ip:192.0.2.1}", limit, 1, True, "rule") for limit in limits]

    def work() -> int:
        granted: list[int] = []
        run_threads(
            lambda: granted.append(sum(take(storage, charges).granted for _ in range(25))), 4
        )
        return sum(granted)

    children = [start_child(work) for _ in range(8)]
    assert sum(int(str(wait())) for wait in children) == 300
    looked = take(storage, [one._replace(cost=0) for one in charges])
    assert [outcome.remaining for outcome in looked.outcomes] == [0, 1_000_000 - 300]


def test_a_process_killed_inside_a_transaction_locks_nobody_out_and_leaves_nothing(
    new: Callable[..., SharedStorage],
) -> None:
    parent = os.getpid()
    readings = count()

    def clock() -> int:
        # The second time that a take asks for is that of its transaction.
        if os.getpid() != parent and next(readings) == 1:
            os.write(writing, b"x")
            signal.pause()
        return time.monotonic_ns()

    storage = new(clock=clock)
    take(storage, charge("other"))
    for round_ in range(20):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            take(storage, charge(round_))
            os._exit(1)
        os.read(reading, 1)
        began = time.monotonic()
        threading.Timer(0.01, os.kill, [child, signal.SIGKILL]).start()
        assert taken(storage, client=round_) == FRESH
        assert time.monotonic() - began >= 0.01  # it had to wait for the transaction
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_processes_killed_at_any_instant_lose_no_counted_request(
    new: Callable[..., SharedStorage],
) -> None:
    storage = new()
    take(storage, charge())
    counted = 0
    for _ in range(10):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            while True:
                take(storage, charge("killed", MANY))
                os.write(writing, b"x")
        os.close(writing)
        counted += len(os.read(reading, 1000))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            counted += len(pipe.read())
        used = MANY.quota - take(storage, charge("killed", MANY, 0)).outcomes[0].remaining
        assert counted <= used <= counted + 1
        counted = used


def test_a_fork_while_storages_are_used_and_closed(
    new: Callable[..., SharedStorage], always_checking: None
) -> None:
    """Children of children count while the parent's threads use, close and open two storages."""
    storage, reopened = new(), new()
    stop = threading.Event()
    numbers = count()

    def busy() -> None:
        while not stop.is_set():
            take(storage, charge(next(numbers), MANY))
            take(reopened, charge(next(numbers), MANY))
            reopened.close()

    def grandchild() -> object:
        return in_child(lambda: taken(storage, client=f"{os.getpid()}"))

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_child(grandchild) == FRESH
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_clock_that_steps_back_refuses_for_no_longer_than_a_window(
    strategy: str, new: Callable[..., SharedStorage]
) -> None:
    clock = ManualClock(10_000_000)
    storage = new(clock=clock)
    limit = Limit(strategy, 2, 60_000, 2)
    assert [take(storage, charge(limit=limit)).granted for _ in range(3)] == FRESH
    clock.now_ms -= 3_600_000
    wait_ms = take(storage, charge(limit=limit)).outcomes[0].wait_ms
    assert 0 < wait_ms <= 60_000
    clock.now_ms += wait_ms
    assert take(storage, charge(limit=limit)).granted


def test_the_clock_is_not_the_wall_clock(
    new: Callable[..., SharedStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = new()
    assert taken(storage) == FRESH
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert taken(storage, 1) == [False]


# --- charges -------------------------------------------------------------------------------------


def test_lists_of_charges_that_begin_alike_are_told_apart(
    new: Callable[..., SharedStorage],
) -> None:
    """What was cached for one list of charges is not used for another."""
    storage = new()
    (one,), (twice,), (other,) = charge("one", MANY), charge("one", MANY, 2), charge("other", MANY)
    (day,) = charge("one", Limit("fixed-window", 1_000, 86_400_000, 1_000))
    for charges in [(one,), (one, other), (one, day), (twice,), (day, one), (one, other), (one,)]:
        take(storage, charges)
    looked = [each._replace(cost=0) for each in (one, day, other)]
    outcomes = take(storage, looked).outcomes
    used = [
        each.limit.quota - found.remaining for each, found in zip(looked, outcomes, strict=True)
    ]
    assert used == [8, 2, 2]


def test_a_list_of_charges_that_was_changed_is_read_again(
    new: Callable[..., SharedStorage],
) -> None:
    storage = new()
    charges = charge("one", MANY)
    take(storage, charges)
    charges += charge("other", MANY)
    take(storage, charges)
    looked = [one._replace(cost=0) for one in charges]
    assert [MANY.quota - found.remaining for found in take(storage, looked).outcomes] == [2, 1]


# --- records -------------------------------------------------------------------------------------

LIMITS = [Limit(name, 60, 60_000 + n, 60) for n in range(2) for name in STRATEGIES]
integers = st.integers(0, (1 << 51) - 1) | st.integers(0, 1 << 17)
states = st.lists(integers, min_size=1, max_size=123).map(tuple)


def fixed(window_ms: int) -> Limit:
    return Limit("fixed-window", 5, window_ms, 5)


@given(st.lists(st.tuples(*[st.just(()) | states] * 3), min_size=1, max_size=6))
def test_records_are_read_as_they_were_written(clients: list[tuple[State, ...]]) -> None:
    packing = Packing(LIMITS[:3])
    for found in clients:
        packed = packing.pack(found, b"", False, 5)
        assert bool(packed) == any(found)
        back, others = packing.unpack(packed, 5)
        assert (tuple(back), others) == (found, b"")


def test_states_whose_lengths_add_up_alike_are_told_apart() -> None:
    packing = Packing(LIMITS[:2])
    for found in [((1, 2), (3, 4, 5, 6)), ((1, 2, 3, 4), (5, 6)), ((1, 2, 3), (4, 5, 6))]:
        assert tuple(packing.unpack(packing.pack(found, b"", False, 5), 5)[0]) == found


@given(st.lists(st.just(()) | states, min_size=2, max_size=6), st.data())
def test_records_are_read_whatever_limits_they_were_written_with(
    found: list[State], data: st.DataObject
) -> None:
    wanted = data.draw(st.permutations(range(len(found))).map(lambda order: order[:-1]))
    packed = Packing(LIMITS[: len(found)]).pack(found, b"", False, 5)
    other = Packing([LIMITS[index] for index in wanted])
    seen, others = other.unpack(packed, 5)
    assert list(seen) == [found[index] for index in wanted]
    again = other.pack(seen, others, False, 5)
    back, rest = Packing(LIMITS[: len(found)]).unpack(again, 5)
    assert list(back) == found
    assert rest == b""


def test_states_of_other_limits_are_kept_until_they_expire() -> None:
    old, new = Packing([fixed(5_000)]), Packing([fixed(60_000)])
    packed = old.pack([(1_000, 3)], b"", False, 1_000)
    states, others = new.unpack(packed, 5_900)
    packed = new.pack([(5_900, 1)], others, False, 5_900)
    assert list(states) == [()]
    assert list(old.unpack(packed, 5_900)[0]) == [(1_000, 3)]
    states, others = new.unpack(packed, 7_000)
    assert (list(states), others) == ([(5_900, 1)], b"")
    assert new.pack([()], others, False, 7_000) == b""


def test_of_several_other_limits_each_expires_for_itself() -> None:
    windows = [5_000, 60_000, 20_000]
    packed = b""
    for window_ms in windows:  # as if three sets of rules had been in use one after the other
        packing = Packing([fixed(window_ms)])
        packed = packing.pack([(0, 1)], packing.unpack(packed, 0)[1], False, 0)
    new = Packing([fixed(1_000)])
    _, others = new.unpack(packed, 10_000)
    packed = new.pack([(10_000, 1)], others, False, 10_000)
    assert rank(packed, 0)[1] == 61
    kept, _ = Packing([fixed(window_ms) for window_ms in windows]).unpack(packed, 10_000)
    assert list(kept) == [(), (0, 1), (0, 1)]
    assert new.unpack(packed, 61_000)[1] == b""


def test_limits_that_are_charged_apart_expire_by_their_own_lifetimes() -> None:
    minute, hour = Packing([fixed(60_000)]), Packing([fixed(3_600_000)])
    both = Packing([fixed(60_000), fixed(3_600_000)])
    for first, second in [(hour, minute), (minute, hour)]:
        packed = first.pack([(0, 1)], b"", False, 0)
        packed = second.pack([(0, 1)], second.unpack(packed, 0)[1], False, 0)
        assert list(both.unpack(packed, 0)[0]) == [(0, 1), (0, 1)]
        assert rank(packed, 3_600_000)[0] == record.WITHIN_LIMIT
        assert rank(packed, 3_602_000)[0] == record.EXPIRED
        _, others = second.unpack(packed, 120_000)
        assert bool(others) == (first is hour)


@pytest.mark.parametrize("number", [1, 2, 255])
def test_up_to_255_limits_of_one_bucket_are_kept(number: int) -> None:
    packing = Packing([fixed(1_000 + n) for n in range(number)])
    found = [(n, 1) for n in range(number)]
    states, others = packing.unpack(packing.pack(found, b"", False, 5), 5)
    assert (list(states), others) == (found, b"")


def test_256_limits_of_one_bucket_are_an_error(new: Callable[..., SharedStorage]) -> None:
    charges = [Charge("t:{ip:192.0.2.1}", fixed(n), 1, True, "rule") for n in range(1, 257)]
    with pytest.raises(StorageError, match="255"):
        take(new(), charges)


def test_expired_records_go_first_then_those_within_their_limit_then_those_over_it() -> None:
    second, hour = Packing([fixed(1_000)]), Packing([fixed(3_600_000)])
    packed = {
        "over": second.pack([(0, 5)], b"", True, 50_000),
        "within, expires late": hour.pack([(0, 1)], b"", False, 50_000),
        "within, expires soon": second.pack([(0, 1)], b"", False, 50_000),
        "expired": second.pack([(0, 5)], b"", True, 1_000),
    }
    assert sorted(packed, key=lambda name: rank(packed[name], 50_000)) == [
        "expired",
        "within, expires soon",
        "within, expires late",
        "over",
    ]


def test_a_lifetime_of_more_than_a_century_is_kept_as_a_century() -> None:
    slow = Packing([Limit("token-bucket", 1, 365 * 86_400_000, 1_000_000)])
    packed = slow.pack([(1, 2)], b"", False, 1 << 40)
    assert rank(packed, 1 << 40)[0] == record.WITHIN_LIMIT


# --- records that something else has written ------------------------------------------------------


def crafted(folder: Path, change: Callable[[bytes, random.Random], bytes], seed: int) -> None:
    """Change every record of a file that nobody has open."""
    chance = random.Random(seed)
    with (
        lmdb.open(str(folder), map_size=MB, sync=False) as environment,
        environment.begin(write=True) as txn,
    ):
        for key, value in list(txn.cursor()):
            txn.put(key, change(bytes(value), chance))


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "noise": lambda record, chance: chance.randbytes(chance.randint(0, 80)),
    "a byte is another": lambda record, chance: (
        record[: (at := chance.randrange(len(record)))] + chance.randbytes(1) + record[at + 1 :]
    ),
    "cut off": lambda record, chance: record[: chance.randrange(len(record))],
    "too long": lambda record, chance: record + chance.randbytes(chance.randint(1, 40)),
    "as many ones": lambda record, chance: b"\xff" * len(record),
    "the integers are noise": lambda record, chance: record[:30] + chance.randbytes(len(record)),
    "all integers are zero": lambda record, chance: record[:30] + bytes(len(record) - 30),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("buckets", [1, 2], ids=["one bucket", "two buckets"])
def test_a_record_that_is_unreadable_is_replaced_and_harms_nobody(
    change: Callable[[bytes, random.Random], bytes],
    buckets: int,
    folder: Path,
    new: Callable[..., SharedStorage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = [Limit(strategy, 3, 3_600_000, 3) for strategy in STRATEGIES]

    def charges(client: int) -> list[Charge]:
        return [
            Charge(f"t:{bucket}:{{{client}}}", limit, 1, True, "rule")
            for bucket in range(buckets)
            for limit in limits
        ]

    storage = new()
    for client in range(60):
        take(storage, charges(client))
    storage.close()
    crafted(folder, change, seed=buckets)
    storage = new()
    before = len(os.listdir(folder))
    for client in range(60):
        decisions = [take(storage, charges(client)) for _ in range(5)]
        assert sum(decision.granted for decision in decisions) <= 3
        for outcome in decisions[-1].outcomes:
            assert 0 <= outcome.wait_ms <= 3_600_000
            assert 0 <= outcome.remaining <= 3
        storage.reset(charges(client))
        assert take(storage, charges(client)).granted
    assert len(os.listdir(folder)) == before  # nothing was set aside
    assert len(warnings_of(caplog)) <= 1


def test_an_unreadable_record_is_logged_once_a_minute_and_reset_deletes_it(
    folder: Path, new: Callable[..., SharedStorage], caplog: pytest.LogCaptureFixture
) -> None:
    storage = new()
    for client in range(5):
        take(storage, charge(client))
    storage.close()
    crafted(folder, lambda record, chance: b"\xff", seed=1)
    storage = new()
    storage.reset(charge(0))
    assert warnings_of(caplog) == []
    for client in range(5):
        assert taken(storage, client=client) == FRESH
    (told,) = warnings_of(caplog)
    assert "unreadable and is replaced" in told


def test_unreadable_records_are_the_first_to_make_room(
    folder: Path, new: Callable[..., SharedStorage]
) -> None:
    environment = lmdb.open(str(folder / "other"), map_size=MB, subdir=False)
    sound = Packing([HOUR]).pack([(1, 2, 1)], b"", True, 3_000)
    with environment.begin(write=True) as txn:
        for number, value in enumerate([sound, b"\xff", b"\x01", sound]):
            txn.put(b"%d" % number, value)
        making = Eviction()
        for left in ({b"0", b"1", b"3"}, {b"0", b"3"}):
            making._evict_worst(txn, b"new", 4_000)
            assert left >= {bytes(key) for key, _ in txn.cursor()} - {b"1", b"2"}
        assert {bytes(key) for key, _ in txn.cursor()} == {b"0", b"3"}
    environment.close()
