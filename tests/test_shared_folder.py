"""Which folder shared:// uses, and which file in it: found, shared, taken over or passed."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from threading import Thread

import lmdb
import pytest

from support.charges import take
from support.servers import ROOT, wait_until
from support.users import NOBODY, run_as
from wsgi_throttle.decision import Charge, Limit
from wsgi_throttle.errors import StorageError
from wsgi_throttle.storage.shared import location, places, report, stamp
from wsgi_throttle.storage.shared.folder import exclusively, unusable, user_name
from wsgi_throttle.storage.shared.location import Location
from wsgi_throttle.storage.shared.storage import SharedStorage
from wsgi_throttle.testing.contract.workers import in_child, start_child

MB = 1 << 20
CHARGES = [Charge("t:{ip:192.0.2.1}", Limit("sliding-window", 100, 3_600_000, 100), 1, True, "r")]
APP = "namespace:test"
NAMED = Location(None, APP)
"""A user who is not the one that runs the tests."""


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two places in which folders are made."""
    made = tmp_path / "memory", tmp_path / "disk"
    for path in made:
        path.mkdir()
    monkeypatch.setattr(location, "BASES", tuple(map(str, made)))
    return made


@pytest.fixture
def new() -> Iterator[Callable[..., SharedStorage]]:
    made: list[SharedStorage] = []

    def new(folder: Path | None = None, application_id: str = APP) -> SharedStorage:
        made.append(SharedStorage(folder, application_id=application_id, size_bytes=MB))
        return made[-1]

    yield new
    for storage in made:
        storage.close()


def used(storage: SharedStorage) -> int:
    """How many requests it has counted, with one more."""
    return 100 - take(storage, CHARGES).outcomes[0].remaining


def in_other_process(application_id: str = APP) -> int:
    """What a worker that starts now counts."""
    count = in_child(lambda: used(SharedStorage(application_id=application_id, size_bytes=MB)))
    assert isinstance(count, int)
    return count


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


# --- PID namespaces ------------------------------------------------------------------------------


class Container:
    """A process in a PID namespace of its own, which counts in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopped = False
        self._requests, self._at_requests = os.pipe()
        self._answers, self._at_answers = os.pipe()
        self._wait = start_child(lambda: unshare_pids() and in_child(self._serve))

    def _serve(self) -> None:
        storage = SharedStorage(self._folder, size_bytes=MB)
        while os.read(self._requests, 1) == b"?":
            os.write(self._at_answers, f"{used(storage)} {storage.folder}".encode())

    def used(self) -> tuple[int, Path]:
        """How many requests its file has counted, with one more; where the file is."""
        os.write(self._at_requests, b"?")
        count, _, folder = os.read(self._answers, 1000).decode().partition(" ")
        return int(count), Path(folder)

    def stop(self) -> None:
        """End it. Harmless the second time."""
        if self._stopped:
            return
        self._stopped = True
        os.write(self._at_requests, b".")
        self._wait()
        for end in (self._requests, self._at_requests, self._answers, self._at_answers):
            os.close(end)


def unshare_pids() -> bool:
    """Let the children of this process, which has no thread, be in a new PID namespace, as
    unshare(1) does. Returns whether that is allowed."""
    user, pid = 0x10000000, 0x20000000
    libc = ctypes.CDLL(None)
    if libc.unshare(pid) == 0:
        return True
    me = os.geteuid()
    if libc.unshare(user | pid) != 0:
        return False
    Path("/proc/self/uid_map").write_text(f"{me} {me} 1")
    return True


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Callable[[], Container]]:
    """A function that starts a container whose counters are in a folder common to all."""
    if not in_child(unshare_pids):
        pytest.skip("may not make a PID namespace")
    made: list[Container] = []

    def start() -> Container:
        made.append(Container(tmp_path / "common"))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def data_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("data.mdb*"))


def test_twenty_starts_in_twenty_namespaces_go_on_with_one_file(
    tmp_path: Path, container: Callable[[], Container]
) -> None:
    for number in range(1, 21):
        started = container()
        assert started.used() == (number, tmp_path / "common")
        started.stop()
    assert data_files(tmp_path / "common") == ["data.mdb"]


def test_two_namespaces_at_once_count_in_two_files(
    tmp_path: Path, container: Callable[[], Container]
) -> None:
    folder = tmp_path / "common"
    first, second = container(), container()
    assert [first.used(), second.used()] == [(1, folder), (1, folder / "2")]
    assert [first.used(), second.used()] == [(2, folder), (2, folder / "2")]
    first.stop()
    second.stop()
    again = container(), container()
    assert [one.used()[0] for one in again] == [3, 3]
    assert data_files(folder) == ["2/data.mdb", "data.mdb"]


def test_workers_of_a_namespace_stay_together_when_an_earlier_file_becomes_free(
    tmp_path: Path,
    container: Callable[[], Container],
    new: Callable[..., SharedStorage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "common"
    other = container()
    other.used()
    running = new(folder)
    assert used(running) == 1
    (warning,) = warnings_of(caplog)
    assert "another PID namespace" in warning
    assert f"counts in {folder / '2'}" in warning
    assert "Redis" in warning
    other.stop()
    assert in_child(lambda: used(SharedStorage(folder, size_bytes=MB))) == 2
    running.close()
    assert used(running) == 3
    assert len(warnings_of(caplog)) == 1


def test_a_file_that_was_taken_over_is_shared_by_all_workers_of_its_new_namespace(
    tmp_path: Path, container: Callable[[], Container]
) -> None:
    folder = tmp_path / "common"
    before = container()
    before.used()
    before.stop()
    storage = SharedStorage(folder, size_bytes=2 * MB)  # and keeps the size that it has
    assert used(storage) == 2
    assert in_child(lambda: used(SharedStorage(folder, size_bytes=2 * MB))) == 3
    storage.close()
    assert used(storage) == 4
    assert data_files(folder) == ["data.mdb"]
    storage.close()


def test_a_file_that_a_process_has_open_is_not_set_aside_at_a_start(
    tmp_path: Path, new: Callable[..., SharedStorage], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "counters"
    running = new(folder)
    assert used(running) == 1
    found = stamp.Stamp.read(folder)
    assert found
    found._replace(program="wsgi_throttle shared layout 0").write(folder)
    assert in_child(lambda: used(SharedStorage(folder, size_bytes=MB))) == 1
    assert used(running) == 2
    assert data_files(folder) == ["2/data.mdb", "data.mdb"]
    running.close()
    shutil.rmtree(folder / "2")
    assert used(running) == 1
    assert data_files(folder) == ["data.mdb", "data.mdb.aside"]


def test_a_child_keeps_its_parents_lock_for_as_long_as_it_has_the_file_open(
    tmp_path: Path, new: Callable[..., SharedStorage], container: Callable[[], Container]
) -> None:
    folder = tmp_path / "common"
    storage = new(folder)
    assert used(storage) == 1
    assert in_child(lambda: used(storage)) == 2  # and closes what it inherited
    other = container()
    assert other.used() == (1, folder / "2")
    other.stop()
    storage.close()
    shutil.rmtree(folder / "2")
    assert container().used() == (3, folder)


# --- where the folder is -------------------------------------------------------------------------


def squat(path: Path) -> Callable[[], None]:
    """Make a folder of this name that is not ours, and return a function that removes it."""
    path.mkdir(0o755)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:  # without root's rights: one that others could have filled is not ours either
        path.chmod(0o777)
    return path.rmdir


def test_a_folder_that_another_user_made_first_does_not_stop_or_split_the_counting(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage]
) -> None:
    name = NAMED.expected(MB).name
    free = squat(bases[0] / name)
    storage = new()
    assert used(storage) == 1
    assert storage.folder == bases[0] / f"{name}.2"
    free()
    assert in_other_process() == 2
    storage.close()
    squat(bases[0] / name)
    assert used(storage) == 3
    assert not any(bases[1].iterdir())


def test_where_all_names_are_taken_or_nothing_can_be_made_the_next_place_is_used(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "MAX_NAMES", 2)
    name = NAMED.expected(MB).name
    freeing = [squat(bases[0] / name), squat(bases[0] / f"{name}.2")]
    assert used(new()) == 1
    assert new().folder == bases[1] / name
    for free in freeing:
        free()
    assert in_other_process() == 2
    bases[0].rmdir()
    assert in_other_process("namespace:other") == 1


def test_what_is_no_folder_of_ours_is_passed(
    bases: tuple[Path, Path], tmp_path: Path, new: Callable[..., SharedStorage]
) -> None:
    name = NAMED.expected(MB).name
    (tmp_path / "elsewhere").mkdir(0o700)
    (bases[0] / name).symlink_to(tmp_path / "elsewhere")
    (bases[0] / f"{name}.2").write_text("a file")
    (bases[0] / f"{name}.3").mkdir()
    (bases[0] / f"{name}.3").chmod(0o770)
    (bases[0] / f"{name}.x").mkdir(0o700)
    storage = new()
    assert used(storage) == 1
    assert storage.folder == bases[0] / f"{name}.4"
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.usefixtures("bases")
def test_no_place_depends_on_the_environment(
    new: Callable[..., SharedStorage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert used(new()) == 1
    for name in ("TMPDIR", "TMP", "TEMP", "HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert in_other_process() == 2


def test_a_folder_is_made_where_there_is_room_and_found_where_there_is_none_left(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    full: set[str] = {str(bases[0])}
    has_room = location.has_room
    monkeypatch.setattr(
        location, "has_room", lambda base, size: base not in full and has_room(base, size)
    )
    storage = new()
    assert used(storage) == 1
    assert storage.folder.parent == bases[1]
    full ^= set(map(str, bases))
    assert in_other_process() == 2
    full |= set(map(str, bases))
    with pytest.raises(StorageError, match="make a folder, owned by user"):
        used(new(application_id="namespace:other"))


def test_a_folder_with_nothing_in_it_is_not_used_where_there_is_no_room(
    bases: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is left behind where a file could not be made."""
    (bases[0] / NAMED.expected(MB).name).mkdir(0o700)
    assert NAMED.find_or_make(MB).parent == bases[0]
    monkeypatch.setattr(location, "has_room", lambda base, _: base == str(bases[1]))
    assert NAMED.find_or_make(MB).parent == bases[1]


# --- folders of files that are gone --------------------------------------------------------------


@pytest.fixture
def forsaken(bases: tuple[Path, Path], tmp_path: Path, new: Callable[..., SharedStorage]) -> Path:
    """A folder whose rule file is gone, that was not used for more than an hour."""
    storage = new(application_id=str(tmp_path / "throttle.yaml"))
    used(storage)
    folder = storage.folder
    storage.close()
    age(folder)
    return folder


def age(folder: Path, seconds: float = location.UNUSED_S + 60) -> None:
    for slot in (folder, folder / "2"):
        if (slot / "data.mdb").exists():
            os.utime(slot / "data.mdb", (time.time() - seconds,) * 2)


def restamp(folder: Path, **changed: str) -> None:
    found = stamp.Stamp.read(folder)
    assert found
    found._replace(**changed).write(folder)


_numbers = count(1)


def make_another() -> None:
    """Start an application that has no folder yet."""
    Location(None, f"namespace:{next(_numbers)}").find_or_make(MB)


def test_a_folder_of_a_file_that_is_gone_is_removed_when_another_is_made(forsaken: Path) -> None:
    make_another()
    assert not forsaken.exists()


def keep_path(folder: Path) -> None:
    found = stamp.Stamp.read(folder)
    assert found
    Path(found.path).write_text("here")


KEPT: dict[str, Callable[[Path], None]] = {
    "the file is there": keep_path,
    "the path cannot be looked at": lambda folder: restamp(folder, path=f"/{'x' * 300}"),
    "another boot": lambda folder: restamp(folder, boot="another"),
    "another PID namespace": lambda folder: restamp(folder, pid="pid:[1]"),
    "another mount namespace": lambda folder: restamp(folder, mount="mnt:[1]"),
    "no path, as by namespace": lambda folder: restamp(folder, path=""),
    "used within the hour": lambda folder: age(folder, location.UNUSED_S - 60),
    "no stamp": lambda folder: (folder / "format").unlink(),
    "another user may write": lambda folder: folder.chmod(0o770),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_a_folder_is_kept_where_one_condition_does_not_hold(
    change: Callable[[Path], None], forsaken: Path
) -> None:
    change(forsaken)
    make_another()
    assert (forsaken / "data.mdb").exists()


def test_a_folder_that_a_process_has_open_is_kept(
    forsaken: Path, new: Callable[..., SharedStorage], tmp_path: Path
) -> None:
    running = new(application_id=str(tmp_path / "throttle.yaml"))
    assert used(running) == 2
    age(forsaken)
    make_another()
    assert (forsaken / "data.mdb").exists()
    assert used(running) == 3
    age(forsaken)
    running.close()
    make_another()  # closing it was a use
    assert (forsaken / "data.mdb").exists()
    age(forsaken)
    make_another()
    assert not forsaken.exists()


def test_a_worker_that_counts_shows_that_it_uses_the_file(
    tmp_path: Path, new: Callable[..., SharedStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CHECK_EVERY_NS", 0)
    storage = new(tmp_path / "counters")
    assert used(storage) == 1
    age(storage.folder)
    take(storage, [one._replace(cost=0) for one in CHARGES])  # writes nothing
    assert time.time() - (storage.folder / "data.mdb").stat().st_mtime < 60


def test_a_named_folder_is_never_removed(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage], tmp_path: Path
) -> None:
    named = bases[0] / f"{location._prefix()}mine"
    storage = new(named, str(tmp_path / "throttle.yaml"))
    used(storage)
    storage.close()
    age(named)
    make_another()
    assert (named / "data.mdb").exists()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux")
def test_a_folder_that_is_removed_while_a_process_waits_for_it_is_made_anew(
    tmp_path: Path, new: Callable[..., SharedStorage]
) -> None:
    folder = tmp_path / "counters"
    folder.mkdir(0o700)
    storage = new(folder)
    counted: list[int] = []
    thread = Thread(target=lambda: counted.append(used(storage)))
    with ExitStack() as again:
        with exclusively(folder) as locked:
            assert locked
            inode = (folder / "open.lock").stat().st_ino
            with exclusively(folder, wait=False) as too:
                assert not too
            thread.start()
            wait_until(lambda: _waits_for(inode))
            folder.rename(tmp_path / "removed")
            folder.mkdir(0o700)
            assert again.enter_context(exclusively(folder))
            new_inode = (folder / "open.lock").stat().st_ino
        wait_until(lambda: _waits_for(new_inode))
        assert counted == []
    thread.join()
    assert counted == [1]
    assert in_child(lambda: used(SharedStorage(folder, size_bytes=MB))) == 2


def _waits_for(inode: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


# --- what cannot work ----------------------------------------------------------------------------


REQUEST = """
import logging, sys
from werkzeug.test import Client
from werkzeug.wrappers import Response
from wsgi_throttle import Throttle
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
throttle = Throttle(Response("ok"), {"default_limits": "5 per hour", "storage": sys.argv[1]})
print(Client(throttle).get("/", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code)
"""


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="wsgi_throttle-tests-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def lines_about(storage: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", REQUEST, storage],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_folder_of_another_user_is_one_error_with_its_remedy(open_to_all: Path) -> None:
    folder = open_to_all / "counters"
    folder.mkdir(0o700)
    told, status = run_as(NOBODY, REQUEST, f"shared://{folder}").splitlines()
    assert status == "200"
    assert told.startswith(
        f"ERROR <SharedStorage shared://{folder}> cannot count: {folder} belongs "
    )
    assert f"to user root, and this process runs as {NOBODY}: give it to the user" in told
    assert "storage_timeout" not in told
    assert not any(folder.iterdir())


def test_a_folder_that_others_may_write_is_one_error_with_its_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "counters"
    folder.mkdir()
    folder.chmod(0o777)
    told, status = lines_about(f"shared://{folder}")
    assert status == "200"
    assert told.startswith("ERROR ")
    assert f"{folder} may be written by others: chmod 700 {folder}. Until then" in told


def test_too_little_room_is_one_error_with_its_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "counters"
    folder.mkdir(0o700)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({MB}, {MB}))\n"
    command = [sys.executable, "-c", limited + REQUEST, f"shared://{folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told, status = done.stdout.splitlines()
    assert status == "200"
    assert told.startswith("ERROR ")
    assert "(File too large): raise the limit of this process for the size of files" in told
    assert "less than 32 MB" in told


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "mode 700, or name another folder in the storage URI"),
        (errno.EPERM, "mode 700, or name another folder in the storage URI"),
        (errno.EROFS, "mount it so that user"),
        (errno.ENOSPC, "make room for the 32 MB of the file"),
        (errno.EDQUOT, "make room for the 32 MB of the file"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOENT, "make it, owned by user"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, lmdb.Error])
def test_every_error_of_a_folder_has_a_remedy(
    kind: type[Exception], number: int, remedy: str
) -> None:
    text = os.strerror(number)
    raised = OSError(number, text) if kind is OSError else lmdb.Error(f"/run/app: {text}")
    error = unusable(Path("/run/app"), raised, 32 * MB)
    assert f"/run/app cannot be used ({text}): " in str(error)
    assert remedy in error.remedy
    assert "{" not in error.remedy


# --- what check says -----------------------------------------------------------------------------


def reported(storage: SharedStorage) -> tuple[list[str], list[str]]:
    where, problems = storage.report()
    return list(where), list(problems)


def test_a_report_says_where_the_counts_are_and_makes_nothing(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage]
) -> None:
    storage = new()
    folder = bases[0] / NAMED.expected(MB).name
    me = user_name(os.geteuid())
    assert reported(storage) == ([f"{folder}, by user {me}, which the first request makes"], [])
    assert not folder.exists()
    used(storage)
    assert reported(new()) == ([f"{folder}, by user {me}"], [])


def test_a_report_names_the_folders_of_other_users(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("may not run programs as another user")
    own = NAMED.expected(MB).name
    other = bases[1] / own.replace(f"-{os.geteuid()}-", f"-{NOBODY}-")
    other.mkdir(0o700)
    where, _ = reported(new())
    assert len(where) == 1  # it has the name of another user's, and is not that user's
    os.chown(other, NOBODY, NOBODY)
    where, problems = reported(new())
    assert where[1:] == [f"{other}, by user {NOBODY}"]
    assert problems == []


def foreign(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("may not run programs as another user")
    os.chown(folder, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("hurt", "told"),
    [
        (lambda folder: folder.chmod(0o777), "chmod 700"),
        (foreign, f"belongs to user {NOBODY}"),
        (lambda folder: folder.rmdir(), "make it, owned by user"),
    ],
    ids=["open to others", "another user's", "gone"],
)
def test_a_report_says_what_is_wrong_with_a_named_folder(
    hurt: Callable[[Path], None], told: str, tmp_path: Path, new: Callable[..., SharedStorage]
) -> None:
    folder = tmp_path / "counters"
    folder.mkdir(0o700)
    storage = new(folder)
    assert reported(storage)[1] == []
    hurt(folder)
    (problem,) = reported(storage)[1]
    assert told in problem


def test_a_report_says_that_files_are_of_another_user(open_to_all: Path) -> None:
    """As root leaves them behind in the folder of the user that serves."""
    folder = open_to_all / "counters"
    folder.mkdir(0o700)
    used(SharedStorage(folder, size_bytes=MB))
    program = """
import sys
from wsgi_throttle.storage import open_storage
print(*open_storage(f"shared://{sys.argv[1]}").report().problems)
"""
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    told = run_as(NOBODY, program, folder)
    assert f"see that it belongs to user {NOBODY} and has mode 700" in told


def test_a_report_says_that_there_is_no_room_or_no_place(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage], tmp_path: Path
) -> None:
    folder = tmp_path / "counters"
    folder.mkdir(0o700)
    huge = SharedStorage(folder, size_bytes=1 << 60)
    assert "make room for" in reported(huge)[1][0]
    for base in bases:
        base.rmdir()
    assert "no folder for the counters can be made" in reported(new())[1][0]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files by which it is told whether systemd removes shared memory."""
    monkeypatch.setattr(report, "LOGIND", (str(tmp_path / "*.conf"),))
    monkeypatch.setattr(report, "SYSTEMD", str(tmp_path / "system"))
    monkeypatch.setattr(report, "LINGERING", str(tmp_path))
    (tmp_path / "system").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "removes"),
    [("", True), ("#RemoveIPC=no", True), ("RemoveIPC=yes", True), ("RemoveIPC = No", False)],
)
def test_systemd_removes_shared_memory_unless_it_is_told_not_to(
    setting: str, removes: bool, systemd: Path
) -> None:
    (systemd / "logind.conf").write_text(f"[Login]\n{setting}\n")
    assert report.removes_ipc(Path("/dev/shm/x"), 1000) == removes


def test_systemd_removes_only_shared_memory_and_only_of_regular_users_who_log_out(
    systemd: Path,
) -> None:
    shared = Path("/dev/shm/x")
    assert report.removes_ipc(shared, NOBODY)
    assert not report.removes_ipc(shared, 999)
    assert not report.removes_ipc(Path("/var/tmp/x"), NOBODY)
    (systemd / str(NOBODY)).touch()  # the user's manager goes on after a logout
    assert not report.removes_ipc(shared, NOBODY)
    (systemd / str(NOBODY)).unlink()
    (systemd / "system").rmdir()
    assert not report.removes_ipc(shared, NOBODY)


def test_a_report_and_the_log_warn_of_what_systemd_removes(
    bases: tuple[Path, Path],
    new: Callable[..., SharedStorage],
    systemd: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(report, "SHARED_MEMORY", str(bases[0]))
    monkeypatch.setattr(report, "FIRST_REGULAR_UID", 0)
    monkeypatch.setattr(places, "CHECK_EVERY_NS", 0)
    storage = new()
    assert used(storage) == 1
    (problem,) = reported(storage)[1]
    assert "write RemoveIPC=no in /etc/systemd/logind.conf" in problem
    shutil.rmtree(storage.folder)
    assert used(storage) == 1
    (warning,) = warnings_of(caplog)
    assert "counting anew. If that was when a user logged out" in warning


# --- a worker that is stopped --------------------------------------------------------------------


def test_a_worker_that_is_stopped_while_counting_makes_the_others_wait_until_it_goes_on(
    tmp_path: Path,
) -> None:
    """LMDB's lock has no time limit. README.md says so."""
    parent = os.getpid()
    readings = count()

    def clock() -> int:
        # The second time that a take asks for is that of its transaction.
        if os.getpid() == stopped and next(readings) == 1:
            os.kill(stopped, signal.SIGSTOP)
        return time.monotonic_ns()

    stopped = -1
    storage = SharedStorage(tmp_path / "counters", size_bytes=MB, clock=clock)
    assert used(storage) == 1
    child = os.fork()
    if child == 0:
        stopped = os.getpid()
        used(storage)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    counted: list[int] = []
    thread = Thread(target=lambda: counted.append(used(storage)))
    thread.start()
    thread.join(0.2)
    assert counted == []
    os.kill(child, signal.SIGCONT)
    thread.join()
    os.waitpid(child, 0)
    assert counted == [3]
    assert os.getpid() == parent
    storage.close()


# --- a reset --------------------------------------------------------------------------------------


RESET = """
import sys
from wsgi_throttle import StorageError, Throttle
config = {"default_limits": "5 per hour", "storage": sys.argv[1], "namespace": sys.argv[2]}
try:
    print(Throttle(None, config).reset("192.0.2.1"))
except StorageError as error:
    print(error)
"""


def test_a_reset_by_another_user_says_whose_the_counters_are_and_makes_no_folder() -> None:
    """In the real places, where the other user could make a folder of its own."""
    namespace = f"test-{os.getpid()}-{time.monotonic_ns()}"
    uri = "shared://?size=1mb"
    request = REQUEST.replace('"storage"', f'"namespace": "{namespace}", "storage"')
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    reset_here = [sys.executable, "-c", RESET, uri, namespace]

    def reset() -> str:
        return subprocess.check_output(reset_here, cwd=ROOT, env=environment, text=True).strip()

    def folders() -> list[Path]:
        digest = Location(None, f"namespace:{namespace}").expected(MB).name.rpartition("-")[2]
        return [path for base in location.BASES for path in Path(base).glob(f"*-{digest}*")]

    me = user_name(os.geteuid())
    try:
        assert run_as(NOBODY, RESET, uri, namespace).strip() == "0"
        assert reset() == "0"
        assert folders() == []
        subprocess.run([sys.executable, "-c", request, uri], cwd=ROOT, env=environment, check=True)
        (folder,) = folders()
        told = run_as(NOBODY, RESET, uri, namespace)
        assert f"{folder}, which belongs to user {me}, and this process runs as {NOBODY}" in told
        assert f"sudo -u {me}" in told
        assert folders() == [folder]
        assert reset() == "1"
        assert reset() == "0"
    finally:
        for path in folders():
            shutil.rmtree(path)


def test_a_reset_in_a_named_folder_makes_no_file_and_tells_of_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "counters"
    folder.mkdir(0o700)
    storage = SharedStorage(folder, size_bytes=MB)
    assert storage.reset(CHARGES) == 0
    assert list(folder.iterdir()) == []
    foreign(folder)
    with pytest.raises(StorageError, match=f"belongs to user {NOBODY}.*sudo -u '#{NOBODY}'"):
        storage.reset(CHARGES)
    os.chown(folder, os.geteuid(), os.getegid())
    take(storage, CHARGES)
    assert storage.reset(CHARGES) == 1
    storage.close()


def test_whoever_has_counters_resets_them_though_another_user_has_some_too(
    bases: tuple[Path, Path], new: Callable[..., SharedStorage]
) -> None:
    storage = new()
    used(storage)
    other = bases[0] / NAMED.expected(MB).name.replace(f"-{os.geteuid()}-", f"-{NOBODY}-")
    other.mkdir(0o700)
    foreign(other)
    assert storage.reset(CHARGES) == 1
    storage.close()
