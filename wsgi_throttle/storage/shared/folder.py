"""The folder of shared://: where it is, whether it may be trusted, and how it is opened.

It has four files. ``data.mdb`` and ``lock.mdb`` are LMDB's own. ``format`` is written last and says
of which version, size and boot these two are. ``open.lock`` is locked by the process that inspects
or creates the others.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import lmdb

from ...errors import StorageError, StorageURIError
from .record import LAYOUT

try:
    import fcntl
except ImportError as missing:
    raise StorageURIError(
        "shared:// needs Linux or macOS: use memory:// (each process counts alone) or redis://"
    ) from missing

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the folder in it is private and checked
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_LOCK_BYTES = 8192  # the size that LMDB gives lock.mdb with max_readers=126
_FILES = ("format", "data.mdb", "lock.mdb")
"""In the order in which they are removed: without "format" nobody opens the other two."""

DAMAGE = (
    lmdb.BadDbiError,
    lmdb.BadRslotError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.MapFullError,
    lmdb.MapResizedError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)
"""What LMDB raises when the file is damaged or full, so that a new file helps. It does not help
against other errors: no memory, no permission, a full disk."""


class Opened(NamedTuple):
    """A file that this process has open."""

    env: lmdb.Environment
    data: Path
    inode: tuple[int, int]
    """(device, inode) of the data file."""
    size_bytes: int
    fault: str
    """Why the file that was there before was set aside; empty if none was."""

    def is_current(self) -> bool:
        """Whether the file at this path is still the one that is open."""
        try:
            return _inode(self.data) == self.inode
        except OSError:
            return False


def derived_folder(application_id: str, size_bytes: int) -> Path:
    """The folder of an application whose URI names none: in shared memory if that is large enough,
    else in the temporary folder.

    How much is free at the moment does not count: all processes must choose the same folder.
    """
    base = SHARED_MEMORY
    try:
        room = os.statvfs(base)
        fits = room.f_blocks * room.f_frsize >= size_bytes + (1 << 20)
    except OSError:
        fits = False
    if not fits or not os.access(base, os.W_OK | os.X_OK):
        base = tempfile.gettempdir()
    name = blake2b(os.path.abspath(application_id).encode(errors="surrogateescape"), digest_size=8)
    return Path(base, f"wsgi_throttle-{os.geteuid()}-{name.hexdigest()}")


def open_folder(folder: Path, size_bytes: int, *, any_size: bool = False) -> Opened:
    """Open the file in this folder. One that is damaged, of another version or boot, or of another
    size is set aside (renamed to ``*.aside``), and a new one is created.

    The caller makes sure that this process does not have the file open.

    :param any_size: open a sound file of another size as well.
    :raises StorageError: the folder cannot be made, belongs to another user or may be written by
        others, or the disk is full.
    """
    try:
        _ensure_private(folder)
        with _exclusively(folder):
            return _open(folder, size_bytes, any_size)
    except (OSError, lmdb.Error) as error:
        raise StorageError(f"{folder} cannot be used: {error}") from error


def set_aside(folder: Path) -> None:
    """Rename the files of this folder. Other processes that have them open notice that the inode is
    another.

    :raises StorageError: they cannot be renamed.
    """
    try:
        with _exclusively(folder):
            _set_aside(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be used: {error}") from error


def _ensure_private(folder: Path) -> None:
    """Make the folder if it is missing, and refuse one that other users could have filled."""
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StorageError(f"{folder} is not a folder, or a symbolic link, which is not followed")
    if found.st_uid != os.geteuid():
        raise StorageError(
            f"{folder} belongs to user {found.st_uid} and this process runs as {os.geteuid()}: "
            "remove it, or name another in the storage URI"
        )
    if found.st_mode & 0o022:
        raise StorageError(f"{folder} may be written by others: chmod 700 it")


@contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    """Hold the lock of all processes that inspect or create the files."""
    lock = os.open(folder / "open.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open(folder: Path, size_bytes: int, any_size: bool) -> Opened:
    found_bytes, fault = _inspect(folder)
    if found_bytes and found_bytes != size_bytes and not any_size:
        fault = f"it has {found_bytes} bytes and {size_bytes} are asked for"
    elif found_bytes:
        try:
            return _opened(folder, found_bytes, "")
        except DAMAGE as error:
            fault = str(error)
    if fault:
        _set_aside(folder)
    try:
        return _create(folder, size_bytes, fault)
    except OSError as error:
        if not fault or error.errno != errno.ENOSPC:
            raise
    for name in _FILES:  # the files that were set aside may be what fills the disk
        with suppress(FileNotFoundError):
            (folder / f"{name}.aside").unlink()
    return _create(folder, size_bytes, fault)


def _inspect(folder: Path) -> tuple[int, str]:
    """(size in bytes, fault). The size is 0 where there is no file or it cannot be used; the fault
    says why not, and is empty where there is no file."""
    if not any(os.path.lexists(folder / name) for name in _FILES):
        return 0, ""
    for name in _FILES:
        try:
            mode = (folder / name).lstat().st_mode
        except FileNotFoundError:
            return 0, f"{name} is missing"
        if not stat.S_ISREG(mode):
            return 0, f"{name} is not a regular file"
    size = (folder / "data.mdb").stat().st_size
    text = (folder / "format").read_bytes()[:1000]
    if text != _format(size):
        return 0, "it is of another program, version or boot, or was cut off"
    if (folder / "lock.mdb").stat().st_size != _LOCK_BYTES:
        return 0, "lock.mdb has a wrong size"
    return size, ""


def _format(size_bytes: int) -> bytes:
    """The content of ``format``. It names the boot, since timestamps are CLOCK_MONOTONIC, which
    starts again with each boot."""
    try:
        boot = Path(BOOT_ID).read_text().strip()
    except OSError:  # not Linux: strategies take timestamps of the future for now, which must do
        boot = "unknown"
    return f"wsgi_throttle shared layout {LAYOUT}\nsize {size_bytes}\nboot {boot}\n".encode()


def _set_aside(folder: Path) -> None:
    for name in _FILES:
        with suppress(FileNotFoundError):
            (folder / name).replace(folder / f"{name}.aside")


def _create(folder: Path, size_bytes: int, fault: str) -> Opened:
    opened = None
    try:
        # Writing to mapped memory that the disk has no room for is a SIGBUS, which kills the
        # process. So all of the room is allocated before.
        _allocate(folder / "lock.mdb", _LOCK_BYTES, os.O_CREAT | os.O_EXCL)
        opened = _opened(folder, size_bytes, fault)
        _allocate(opened.data, size_bytes)
        draft = folder / "format.new"
        draft.write_bytes(_format(size_bytes))
        draft.chmod(0o600)
        draft.replace(folder / "format")
    except BaseException:
        if opened:
            opened.env.close()
        for name in _FILES:
            with suppress(OSError):
                (folder / name).unlink()
        raise
    return opened


def _opened(folder: Path, size_bytes: int, fault: str) -> Opened:
    env = lmdb.open(
        str(folder),
        map_size=size_bytes,
        mode=0o600,
        writemap=True,
        sync=False,
        metasync=False,
        meminit=False,
        readahead=False,
    )
    data = folder / "data.mdb"
    return Opened(env, data, _inode(data), size_bytes, fault)


def _allocate(path: Path, size_bytes: int, flags: int = 0) -> None:
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size_bytes)
        else:  # macOS, for development
            os.ftruncate(file, size_bytes)
    finally:
        os.close(file)


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
