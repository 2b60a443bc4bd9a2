"""How the data file of shared:// is opened: a sound one that this process may share, or a new one.

``data.mdb`` and ``lock.mdb`` are LMDB's own files. ``format`` is written last and says of which
version and boot these two are, and for whom (stamp.py). A file that a process has open is never set
aside, nor taken over from another PID namespace: the folder's next slot is used instead.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import lmdb

from ...errors import StorageError
from .folder import (
    ANOTHER,
    FILES,
    MAX_SLOTS,
    ensure_private,
    exclusively,
    has_files,
    lock_data,
    share_data,
    slots,
    unusable,
)
from .stamp import Stamp

_LOCK_BYTES = 8192  # the size that LMDB gives lock.mdb with max_readers=126

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

    folder: Path
    """The folder that was asked for. The file is in one of its slots."""
    env: lmdb.Environment
    lock: int
    """A descriptor of the data file, which holds the shared lock."""
    data: Path
    inode: tuple[int, int]
    """(device, inode) of the data file."""
    size_bytes: int
    fault: str = ""
    """Why the file that was there before was set aside; empty if none was."""
    passed: str = ""
    """Why the folder's first slot could not be used; empty if it could."""

    def is_current(self) -> bool:
        """Whether the file at this path is still the one that is open."""
        try:
            return _inode(self.data) == self.inode
        except OSError:
            return False

    def note_use(self) -> None:
        """Let everybody see, by the file's time of modification, that it is in use: what is
        written through mapped memory does not show."""
        with suppress(OSError):
            os.utime(self.lock)

    def close(self) -> None:
        """Close the file. Its lock is given back once no forked process has it either."""
        self.note_use()
        self.env.close()
        os.close(self.lock)


def open_folder(folder: Path, size_bytes: int, path: str = "") -> Opened:
    """Open the file in this folder that this process may share. A sound one is taken as it is,
    whatever its size. One that is damaged or of another version or boot is set aside (renamed to
    ``*.aside``) and a new one is created, unless a process has it open.

    The caller makes sure that this process does not have the file open.

    :param size_bytes: of a new file.
    :param path: of the rule file that the counters belong to; empty if they belong to none.
    :raises StorageError: the folder cannot be made, belongs to another user or may be written by
        others, or the disk is full.
    """
    try:
        for _ in range(100):
            ensure_private(folder)
            with exclusively(folder) as locked:
                if locked:
                    return _open(folder, size_bytes, path)._replace(folder=folder)
    except (OSError, lmdb.Error) as error:
        raise unusable(folder, error, size_bytes) from error
    raise StorageError(
        f"{folder} cannot be used, since it is removed again and again", remedy=ANOTHER
    )


def set_aside(opened: Opened) -> None:
    """Rename a damaged file, which was open, with those that belong to it. Other processes that
    have it open notice that the inode is another.

    :raises StorageError: they cannot be renamed.
    """
    try:
        with exclusively(opened.folder):
            if opened.is_current():
                _set_aside(opened.data.parent)
    except OSError as error:
        raise unusable(opened.folder, error) from error


# --- with the lock of the folder held -------------------------------------------------------------


def _open(folder: Path, size_bytes: int, path: str) -> Opened:
    mine = Stamp.here(size_bytes, path)
    found: list[tuple[Path, Stamp | None, str]] = []
    for slot in slots(folder):
        stamp, fault = _inspect(slot)
        # Whatever has become free meanwhile, all processes of a PID namespace stay together.
        if stamp and stamp.pid == mine.pid:
            try:
                return _open_sound(slot, stamp, mine, lock_data(slot, alone=False))
            except DAMAGE as error:
                stamp, fault = None, str(error)
        found.append((slot, stamp, fault))
    passed = ""
    for slot, stamp, fault in found:
        try:
            lock = lock_data(slot, alone=True)
        except BlockingIOError:
            passed = passed or fault or "another PID namespace (container) has it open"
            continue
        except OSError:  # there is no data file
            return _replace(slot, size_bytes, mine, fault, passed)
        if stamp:
            share_data(lock)
            try:
                return _open_sound(slot, stamp, mine, lock)._replace(passed=passed)
            except DAMAGE as error:
                fault = str(error)
        else:
            os.close(lock)
        return _replace(slot, size_bytes, mine, fault, passed)
    raise StorageError(
        f"{folder} cannot be used, since {MAX_SLOTS} containers (PID namespaces) use it",
        remedy=ANOTHER,
    )


def _inspect(slot: Path) -> tuple[Stamp | None, str]:
    """(stamp, fault). The stamp is None where there is no file or it cannot be used; the fault says
    why not, and is empty where there is no file."""
    if not has_files(slot):
        return None, ""
    for name in FILES:
        try:
            mode = (slot / name).lstat().st_mode
        except FileNotFoundError:
            return None, f"{name} is missing"
        if not stat.S_ISREG(mode):
            return None, f"{name} is not a regular file"
    size = (slot / "data.mdb").stat().st_size
    stamp = Stamp.read(slot)
    if not stamp or not stamp.is_same_data(Stamp.here(size, "")):
        return None, "it is of another program, version or boot, or was cut off"
    if (slot / "lock.mdb").stat().st_size != _LOCK_BYTES:
        return None, "lock.mdb has a wrong size"
    return stamp, ""


def _open_sound(slot: Path, stamp: Stamp, mine: Stamp, lock: int) -> Opened:
    """Open a file that passed inspection, and stamp it anew if it was another's.

    :param lock: the descriptor that holds the shared lock. It is closed if this fails.
    """
    mine = mine._replace(size=stamp.size)
    if stamp != mine:
        try:
            mine.write(slot)
        except BaseException:
            os.close(lock)
            raise
    return _opened(slot, int(stamp.size), lock)


def _replace(slot: Path, size_bytes: int, mine: Stamp, fault: str, passed: str) -> Opened:
    """Create a file, and set aside what is there."""
    if fault:
        _set_aside(slot)
    try:
        opened = _create(slot, size_bytes, mine)
    except OSError as error:
        if not fault or error.errno != errno.ENOSPC:
            raise
        for name in FILES:  # the files that were set aside may be what fills the disk
            with suppress(FileNotFoundError):
                (slot / f"{name}.aside").unlink()
        opened = _create(slot, size_bytes, mine)
    return opened._replace(fault=fault, passed=passed)


def _set_aside(slot: Path) -> None:
    for name in FILES:
        with suppress(FileNotFoundError):
            (slot / name).replace(slot / f"{name}.aside")


def _create(slot: Path, size_bytes: int, mine: Stamp) -> Opened:
    opened = None
    try:
        slot.mkdir(0o700, exist_ok=True)
        # Writing to mapped memory that the disk has no room for is a SIGBUS, which kills the
        # process. So all of the room is allocated before.
        _allocate(slot / "lock.mdb", _LOCK_BYTES, os.O_CREAT | os.O_EXCL)
        data = slot / "data.mdb"
        os.close(os.open(data, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # to be locked
        opened = _opened(slot, size_bytes, lock_data(slot, alone=False))
        _allocate(data, size_bytes)
        mine.write(slot)
    except BaseException:
        if opened:
            opened.close()
        for name in FILES:
            with suppress(OSError):
                (slot / name).unlink()
        raise
    return opened


def _opened(slot: Path, size_bytes: int, lock: int) -> Opened:
    """Open the file, and close the descriptor that locks it if that fails."""
    try:
        env = lmdb.open(
            str(slot),
            map_size=size_bytes,
            mode=0o600,
            writemap=True,
            sync=False,
            metasync=False,
            meminit=False,
            readahead=False,
        )
    except BaseException:
        os.close(lock)
        raise
    data = slot / "data.mdb"
    return Opened(slot, env, lock, data, _inode(data), size_bytes)


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
