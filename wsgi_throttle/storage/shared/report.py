"""Says where shared:// counts and whether that can work, without making or opening anything."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from glob import glob
from pathlib import Path

from ...errors import StorageError
from .. import Report
from .folder import FILES, ensure_private, slots, unusable, user_name
from .location import Location, has_room, is_used

SYSTEMD = "/run/systemd/system"
"""There if systemd has started this host (sd_booted(3))."""
LOGIND = (
    "/etc/systemd/logind.conf",
    "/*/systemd/logind.conf.d/*",
    "/usr/lib/systemd/logind.conf.d/*",
)
"""Patterns of the files that may have RemoveIPC=."""
LINGERING = "/var/lib/systemd/linger"
FIRST_REGULAR_UID = 1000
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only compared


def report(location: Location, size_bytes: int) -> Report:
    """What is known of this location, for the user of this process.

    :param size_bytes: of the file that would be made.
    """
    folder = location.find(size_bytes)
    where = folder or location.expected(size_bytes)
    problems = list(_problems(location, folder, size_bytes))
    if removes_ipc(where, os.geteuid()):
        problems.append(
            f"systemd empties {SHARED_MEMORY} of a user's files when the user logs out, and all "
            "counts start anew then: write RemoveIPC=no in /etc/systemd/logind.conf, serve as a "
            f"system user (an id under {FIRST_REGULAR_UID}), or name another folder, as in "
            "shared:///run/app"
        )
    made = "" if folder and is_used(folder) else ", which the first request makes"
    others = [f"{path}, by user {user_name(uid)}" for path, uid in location.of_other_users()]
    return Report((f"{where}, by user {user_name(os.geteuid())}{made}", *others), tuple(problems))


def _problems(location: Location, folder: Path | None, size_bytes: int) -> Iterator[str]:
    if folder is None:
        if not location.can_make(size_bytes):
            yield str(location.nowhere(size_bytes))
        return
    try:
        ensure_private(folder, make=False)
    except StorageError as error:
        yield str(error)
        return
    number = 0
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        number = errno.EROFS
    elif not all(map(_is_writable, _existing(folder))):
        number = errno.EACCES
    elif not is_used(folder) and not has_room(folder, size_bytes):
        number = errno.ENOSPC
    if number:
        yield str(unusable(folder, OSError(number, os.strerror(number)), size_bytes))


def _existing(folder: Path) -> Iterator[Path]:
    """The folder, and what is in it of what this package makes."""
    for slot in slots(folder):
        for path in (slot, *(slot / name for name in ("open.lock", *FILES))):
            if os.path.lexists(path):
                yield path


def _is_writable(path: Path) -> bool:
    mode = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def removes_ipc(folder: Path, uid: int) -> bool:
    """Whether systemd-logind removes what this user has in shared memory when the user has logged
    out everywhere (RemoveIPC= in logind.conf(5), which is on unless it is turned off)."""
    if not folder.is_relative_to(SHARED_MEMORY) or uid < FIRST_REGULAR_UID:
        return False
    if not os.path.isdir(SYSTEMD) or os.path.exists(os.path.join(LINGERING, user_name(uid))):
        return False
    return not any(_turns_off(path) for pattern in LOGIND for path in glob(pattern))


def _turns_off(path: str) -> bool:
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return False
    return bool(
        re.search(r"^\s*RemoveIPC\s*=\s*(no|off|false|0)\s*$", text, re.MULTILINE | re.IGNORECASE)
    )
