"""The folders that this process has open for shared://, and when they are opened again."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from weakref import WeakSet

import lmdb

from ...clock import SECOND
from ...errors import StorageDownError, StorageError
from ..fork import ForkLock
from .location import Location
from .opening import Opened, open_folder, set_aside
from .report import removes_ipc

CHECK_EVERY_NS = SECOND
"""How often it is checked whether another process has deleted or replaced the file."""


class Place:
    """A folder, and the file in it that this process has open once it was used. Everything here
    requires that ``places.lock`` is held.

    :param size_bytes: of a new file.
    """

    def __init__(self, location: Location, size_bytes: int) -> None:
        self._location = location
        self._new_bytes = size_bytes
        self.size_bytes = size_bytes
        """The size of the file that is open, or was."""
        self.users: WeakSet[object] = WeakSet()
        """The storages that count here."""
        self._opened: Opened | None = None
        self._check_at_ns = 0
        self._told_size = False
        self._abandoned: Opened | None = None
        """What was open in the parent and can be neither used nor closed in this child."""

    @property
    def folder(self) -> Path:
        """Where the file is, or probably will be once it is used."""
        if self._opened:
            return self._opened.data.parent
        return self._location.expected(self._new_bytes)

    def environment(self, now_ns: int) -> lmdb.Environment:
        """The file, opened where it is not open yet or is no longer the one at its path.

        :param now_ns: nanoseconds by the storage's clock.
        :raises StorageDownError: the folder cannot be used.
        """
        opened = self._opened
        if opened and now_ns < self._check_at_ns:
            return opened.env
        if self._abandoned:
            raise StorageDownError(
                f"{self.folder} cannot be used by this process: it was forked while another thread "
                "was counting, by a server that calls no fork hooks; restart it"
            )
        if opened and not opened.is_current():
            _warn(
                "shared storage: %s was deleted or replaced; counting anew%s",
                self.folder,
                _WHO_REMOVES if removes_ipc(self.folder, os.geteuid()) else "",
            )
            self.close()
            opened = None
        if opened:
            opened.note_use()
        else:
            try:
                folder = self._location.find_or_make(self._new_bytes)
                opened = open_folder(folder, self._new_bytes, self._location.path)
            except StorageError as error:
                raise StorageDownError.caused_by(error) from error
            self._opened = opened
            self.size_bytes = opened.size_bytes
            self._tell(opened)
        self._check_at_ns = now_ns + CHECK_EVERY_NS
        return opened.env

    def replace(self, why: str) -> None:
        """Close a damaged file, and set it aside unless another process already has.

        :param why: for the log.
        :raises StorageError: it cannot be renamed.
        """
        opened = self._opened
        if opened is None:
            return
        current = opened.is_current()
        self.close()
        if current:
            set_aside(opened)
            self._warn_set_aside(opened, why)

    def abandon(self) -> None:
        """Never use or close again what is open. LMDB would wait for ever for the transaction of a
        thread that this process does not have, and opens no file twice."""
        self._abandoned, self._opened = self._opened, None

    def close(self) -> None:
        """Close what is open. It is opened again at the next use."""
        if self._opened:
            self._opened.close()
            self._opened = None

    def _tell(self, opened: Opened) -> None:
        """Log what is not as it was asked for."""
        if opened.fault:
            self._warn_set_aside(opened, opened.fault)
        if opened.passed:  # not by later workers, which find the file that this one has made
            _warn(
                "shared storage: the counters in %s cannot be shared: %s. This process counts in "
                "%s, so each client may use up its limits here too. Give each container a folder "
                "of its own, or let all of them count in one Redis",
                opened.folder,
                opened.passed,
                opened.data.parent,
            )
        if opened.size_bytes != self._new_bytes and not self._told_size:
            self._told_size = True
            _warn(
                "shared storage: the file in %s has %d bytes and keeps them, although %d are asked "
                "for. To change that, remove the folder; all counts start anew then",
                opened.data.parent,
                opened.size_bytes,
                self._new_bytes,
            )

    def _warn_set_aside(self, opened: Opened, why: str) -> None:
        _warn("shared storage: what was in %s is set aside: %s", opened.data.parent, why)


_WHO_REMOVES = (
    ". If that was when a user logged out, it was systemd: write RemoveIPC=no in "
    "/etc/systemd/logind.conf"
)


def _warn(message: str, *arguments: object) -> None:
    places.warnings.append((message, *arguments))


class Places:
    """All folders that this process uses. A process must not have the same LMDB file open
    twice, so there is one place for each."""

    def __init__(self) -> None:
        self._fork_lock = ForkLock(after_in_child=self._close_all)
        self.lock = self._fork_lock.lock
        """Held around every transaction. So no fork happens inside one; and threads of this process
        wait here for each other, not at LMDB's lock, whose holder would make all processes wait
        while it waits for the GIL."""
        self.warnings: deque[tuple[object, ...]] = deque(maxlen=100)
        """To be logged once the lock is free: messages with their arguments."""
        self._by_key: dict[str, Place] = {}

    def join(self, storage: object, location: Location, size_bytes: int) -> Place:
        """The place at this location, which a storage is going to use until it leaves. Requires
        that the lock is held."""
        place = self._by_key.setdefault(location.key, Place(location, size_bytes))
        place.users.add(storage)
        return place

    def leave(self, storage: object, place: Place) -> None:
        """Close the place if no other storage uses it. Requires that the lock is held."""
        place.users.discard(storage)
        if not place.users:
            place.close()
            self._by_key = {key: kept for key, kept in self._by_key.items() if kept.users}

    def _close_all(self) -> None:
        for place in self._by_key.values():
            if self._fork_lock.was_held:
                place.abandon()
            else:
                place.close()


places = Places()
"""The one object of this process."""
