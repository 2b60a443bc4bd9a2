"""Where the folder of shared:// is, if the URI names none: found, or made in the first place that
can be used. Folders of applications that are gone are removed on that occasion.

Anybody may make a folder in /dev/shm, under the name that ours would have, too. So a folder counts
as ours only if it belongs to this user and no other may write into it; and if the name is taken,
numbers are put behind it.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path

from ...errors import StorageError
from .folder import FILES, ensure_private, exclusively, has_files, lock_data, slots
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
                if _is_private(folder) and (_is_used(folder) or _has_room(base, size_bytes)):
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
            if not _has_room(base, size_bytes):
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
        raise StorageError(
            f"no folder for the counters can be made in {' or '.join(BASES)}, or there is no room "
            f"for {size_bytes >> 20} MB: make one, owned by the user that serves, with mode 700, "
            "and name it as in storage: shared:///run/app"
        )


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


def _is_used(folder: Path) -> bool:
    return any(map(has_files, slots(folder)))


def _has_room(base: str, size_bytes: int) -> bool:
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
