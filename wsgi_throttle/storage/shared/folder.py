"""A folder of shared://: whether it may be trusted, where in it the files are, and its locks.

Each process that has a data file open holds a shared flock(2) on it. So whoever gets that lock
exclusively knows that nobody has the file open. The file ``open.lock`` is locked by the process
that inspects, creates or removes the others.

A slot is where one data file is. The first one is the folder itself; the others are folders in it,
named ``2``, ``3`` and so on, for PID namespaces (containers) that use it at the same time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import StorageError, StorageURIError

try:
    import fcntl
    import pwd
except ImportError as missing:
    raise StorageURIError(
        "shared:// needs Linux or macOS: use memory:// (each process counts alone) or redis://"
    ) from missing

MAX_SLOTS = 64

FILES = ("format", "data.mdb", "lock.mdb")
"""What is in a slot. In the order in which they are removed: without "format" nobody opens the
other two."""


def ensure_private(folder: Path, *, make: bool = True) -> None:
    """Make the folder if it is missing, and refuse one that other users could have filled.

    :param make: False if it is not to be made.
    :raises StorageError: it is such a one.
    :raises OSError: it is missing and not made.
    """
    if make:
        with suppress(FileExistsError):
            folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StorageError(
            f"{folder} is not a folder, or a symbolic link, which is not followed", remedy=ANOTHER
        )
    if found.st_uid != os.geteuid():
        raise StorageError(
            f"{folder} belongs to user {user_name(found.st_uid)}, and this process runs as "
            f"{user_name(os.geteuid())}",
            remedy=f"give it to the user that serves, with chown, or {ANOTHER}",
        )
    if found.st_mode & 0o022:
        raise StorageError(f"{folder} may be written by others", remedy=f"chmod 700 {folder}")


def unusable(folder: Path, error: Exception, size_bytes: int = 0) -> StorageError:
    """What to raise where the folder, or a file in it, cannot be used.

    :param size_bytes: of the file that was to be made.
    """
    reason = getattr(error, "strerror", None) or str(error)
    reason = reason.removeprefix(f"{folder}: ")
    numbers = [number for number in _REMEDIES if os.strerror(number) in reason]  # LMDB has no errno
    return StorageError(
        f"{folder} cannot be used ({reason})",
        remedy=_REMEDIES[numbers[0] if numbers else errno.EACCES].format(
            user=user_name(os.geteuid()), size=size_bytes >> 20, another=ANOTHER
        ),
    )


def broken(folder: Path, error: Exception) -> StorageError:
    """What to raise where a file that was opened cannot be used, nor a new one instead."""
    return StorageError(
        f"{folder} cannot be used ({error})",
        remedy="restart the server; if that is no help, remove the folder, and all counts with it",
    )


def user_name(uid: int) -> str:
    """The name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


ANOTHER = "name another folder in the storage URI, as in shared:///run/app"

_NO_ROOM = (
    "make room for the {size} MB of the file, ask for less with ?size=, or {another} (in a Docker "
    "container /dev/shm has 64 MB unless it is started with --shm-size)"
)

_REMEDIES = {
    errno.EACCES: "see that it belongs to user {user} and has mode 700, or {another}",
    errno.ENOENT: "make it, owned by user {user}, with mode 700",
    errno.EROFS: "mount it so that user {user} may write to it, or {another}",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "raise the limit of this process for the size of files (ulimit -f), or ask for "
    "less than {size} MB with ?size=",
    errno.EMFILE: "raise the limit of this process for open files (ulimit -n)",
}
"""What to do against an error of the system, by its number; the first row where there is none."""


def slots(folder: Path) -> Iterator[Path]:
    """Where the data files of a folder are, or can be."""
    yield folder
    for number in range(2, MAX_SLOTS + 1):
        yield folder / str(number)


def has_files(slot: Path) -> bool:
    """Whether there is a data file, or a part of what belongs to one."""
    return any(os.path.lexists(slot / name) for name in FILES)


@contextmanager
def exclusively(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of all processes that inspect or create files in the folder.

    Gives False where the folder was removed before the lock was had, or where ``wait`` is False and
    another process has the lock.
    """
    path = folder / "open.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        locked = _flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield locked and _is_at(lock, path)
    finally:
        os.close(lock)


def lock_data(slot: Path, *, alone: bool) -> int:
    """Lock the data file and return the descriptor that holds the lock.

    :param alone: ask for the exclusive lock, which nobody gets while a process has the file open.
    :raises BlockingIOError: the lock is not to be had.
    :raises OSError: there is no data file.
    """
    file = os.open(slot / "data.mdb", os.O_RDWR | os.O_NOFOLLOW)
    if _flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB):
        return file
    os.close(file)
    raise BlockingIOError


def share_data(lock: int) -> None:
    """Make an exclusive lock a shared one. Requires that the folder's lock is held, since there is
    an instant without any."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def _flock(file: int, operation: int) -> bool:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False
