"""Where the folder of shared:// is, if the URI names none: found, or made in the first place that
can be used. Folders of applications that are gone are removed on that occasion.

Anybody may make a folder in /dev/shm, under the name that ours would have, too. So a folder counts
as ours only if it belongs to this user and no other may write into it; and if the name is taken,
numbers are put behind it.
"""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path
from shlex import quote
from urllib.parse import unquote

from ...errors import StorageError, StorageURIError
from ..uri import split
from .folder import (
    FILES,
    ensure_private,
    exclusively,
    has_files,
    lock_data,
    slots,
    unusable,
    user_name,
)
from .stamp import Stamp

BASES = ("/dev/shm", "/var/tmp")  # noqa: S108 - the folders in them are private and checked
"""In the order in which they are tried. None may depend on the environment of a process: all
processes must find the same folder."""

MAX_NAMES = 100
"""So many names are tried in one of the BASES."""

UNUSED_S = 3600
"""After so many seconds without use the folder of a rule file that is gone is removed."""

_SPARE_BYTES = 1 << 20
"""What must be free besides the data file."""


def named_folder(uri: str) -> Path | None:
    """The folder that a URI names; None if it names none.

    :raises StorageURIError: it has a host, or the folder does not exist.
    """
    parts = split(uri)
    if parts.netloc or parts.fragment:
        raise StorageURIError("shared:// has no host: name a folder as in shared:///run/app")
    path = unquote(parts.path)
    folder = Path(path) if path.strip("/") else None
    if folder and (folder.is_symlink() or not folder.is_dir()):
        raise StorageURIError(
            f"{folder} is not a folder (nor may it be a symbolic link): make it, owned by the "
            "user that serves, with mode 700"
        )
    return folder


class Location:
    """The folder of one application. Immutable; any thread may use it.

    :param folder: the one that the URI names.
    :param application_id: tells the folder from those of other applications where it is None.
    """

    def __init__(self, folder: Path | None, application_id: str) -> None:
        self._given = folder
        digest = blake2b(application_id.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        self._digest = digest
        self.path = application_id if os.path.isabs(application_id) and not folder else ""
        """The rule file that the folder belongs to; empty if it belongs to none or is named."""

    def __str__(self) -> str:
        return f"shared://{self._given or ''}"

    @property
    def key(self) -> str:
        """Equal for two locations of the same folder."""
        return os.path.realpath(self._given) if self._given else self._name

    def find(self, size_bytes: int) -> Path | None:
        """The folder, if there is one.

        :param size_bytes: of the file, for which there must be room if it is not there yet.
        """
        if self._given:
            return self._given if os.path.lexists(self._given) else None
        for base in BASES:
            for folder in self._candidates(base):
                if _is_private(folder) and (is_used(folder) or has_room(base, size_bytes)):
                    return folder
        return None

    def find_or_make(self, size_bytes: int) -> Path:
        """The folder, which is made if there is none.

        :raises StorageError: there is none, and no place for one.
        """
        return self._given or self.find(size_bytes) or self._make(size_bytes)

    def expected(self, size_bytes: int) -> Path:
        """The folder, or the one that will probably be made if there is none."""
        return self._given or self.find(size_bytes) or Path(BASES[0], self._name)

    @property
    def _name(self) -> str:
        return f"{_prefix()}{self._digest}"

    def _candidates(self, base: str) -> list[Path]:
        """The folders in this place with one of our names, the first name first."""
        numbers = {}
        for name in _listed(base):
            match = re.fullmatch(rf"{self._name}(?:\.([0-9]{{1,9}}))?", name)
            if match:
                numbers[int(match[1] or 1)] = Path(base, name)
        return [numbers[number] for number in sorted(numbers)]

    def _make(self, size_bytes: int) -> Path:
        for base in BASES:
            remove_forsaken(base)
            if not has_room(base, size_bytes):
                continue
            for number in range(1, MAX_NAMES + 1):
                folder = Path(base, self._name if number == 1 else f"{self._name}.{number}")
                try:
                    folder.mkdir(0o700)
                except FileExistsError:
                    if not _is_private(folder):
                        continue
                except OSError:
                    break  # nothing can be made in this place
                return folder
        raise self.nowhere(size_bytes)

    def nowhere(self, size_bytes: int) -> StorageError:
        """What to raise where there is no folder and none can be made."""
        if self._given:
            return unusable(self._given, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        return StorageError(
            f"no folder for the counters can be made in {' or '.join(BASES)}, or there is no room "
            f"for {size_bytes >> 20} MB",
            remedy=f"make a folder, owned by user {user_name(os.geteuid())}, with mode 700, and "
            "name it in the storage URI, as in shared:///run/app",
        )

    def can_make(self, size_bytes: int) -> bool:
        """Whether a folder can probably be made, where there is none. Makes nothing."""
        if self._given:
            return False
        return any(
            has_room(base, size_bytes) and os.access(base, os.W_OK | os.X_OK) for base in BASES
        )

    def of_other_users(self) -> list[tuple[Path, int]]:
        """The folders of the same application which other users have made, with their user ids."""
        if self._given:
            return []
        found = []
        for base in BASES:
            for name in sorted(_listed(base)):
                match = re.fullmatch(rf"wsgi_throttle-([0-9]+)-{self._digest}(?:\.[0-9]+)?", name)
                folder = Path(base, name)
                with suppress(OSError):
                    uid = folder.lstat().st_uid
                    if match and int(match[1]) == uid != os.geteuid():
                        found.append((folder, uid))
        return found

    def has_counts(self, size_bytes: int) -> bool:
        """Whether there is a file of this user, who may reset what is counted there. Makes nothing.

        :raises StorageError: there is none, but another user's.
        """
        folder = self.find(size_bytes)
        others = self.of_other_users()
        if self._given and folder:
            uid = folder.lstat().st_uid
            others = [(folder, uid)] if uid != os.geteuid() else []
        elif folder and is_used(folder):
            return True
        if others:
            path, uid = others[0]
            owner = user_name(uid)
            raise StorageError(
                f"the counters are in {path}, which belongs to user {owner}, and this process runs "
                f"as {user_name(os.geteuid())}",
                remedy="reset as that user: run the same command after "
                f"sudo -u {quote(f'#{uid}' if owner == str(uid) else owner)}",
            )
        return folder is not None and is_used(folder)


def remove_forsaken(base: str) -> None:
    """Remove folders of this user whose rule file is gone, if nobody uses them."""
    for name in _listed(base):
        folder = Path(base, name)
        if name.startswith(_prefix()) and _is_private(folder):
            with suppress(OSError):
                _remove_if_forsaken(folder)


def _remove_if_forsaken(folder: Path) -> None:
    used = [slot for slot in slots(folder) if has_files(slot)]
    if not used or not all(map(_is_forsaken, used)):
        return
    with exclusively(folder, wait=False) as locked:
        if not locked or not all(map(_is_forsaken, used)):
            return
        with ExitStack() as locks:
            for slot in used:
                locks.callback(os.close, lock_data(slot, alone=True))
            for slot in reversed(used):
                for name in [*FILES, "format.new", *(f"{name}.aside" for name in FILES)]:
                    with suppress(FileNotFoundError):
                        (slot / name).unlink()
                if slot != folder:
                    slot.rmdir()
            (folder / "open.lock").unlink()
            folder.rmdir()


def _is_forsaken(slot: Path) -> bool:
    """Whether its rule file is gone, as far as this process can know, and it was not used lately.

    :raises OSError: a file is missing.
    """
    stamp = Stamp.read(slot)
    if stamp is None or not stamp.path:
        return False
    here = Stamp.here(int(stamp.size), stamp.path)
    unused_s = time.time() - (slot / "data.mdb").lstat().st_mtime
    return stamp == here and _is_gone(stamp.path) and unused_s > UNUSED_S


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # this user may not look
        return False
    return False


def _is_private(folder: Path) -> bool:
    """Whether it is there, and a folder that nobody else could have filled."""
    try:
        ensure_private(folder, make=False)
    except (OSError, StorageError):
        return False
    return True


def is_used(folder: Path) -> bool:
    """Whether there is a data file in it, or a part of one."""
    return any(map(has_files, slots(folder)))


def has_room(base: str | Path, size_bytes: int) -> bool:
    """Whether a file of this size can be made there."""
    try:
        room = os.statvfs(base)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize >= size_bytes + _SPARE_BYTES


def _listed(base: str) -> list[str]:
    try:
        return os.listdir(base)
    except OSError:
        return []


def _prefix() -> str:
    return f"wsgi_throttle-{os.geteuid()}-"
