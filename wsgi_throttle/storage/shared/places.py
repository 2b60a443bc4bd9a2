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
from .folder import Opened, open_folder, set_aside

CHECK_EVERY_NS = SECOND
"""How often it is checked whether another process has deleted or replaced the file."""


class Place:
    """A folder, and the file in it that this process has open once it was used. Everything here
    requires that ``places.lock`` is held."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self.size_bytes = size_bytes
        self.users: WeakSet[object] = WeakSet()
        """The storages that count here."""
        self._opened: Opened | None = None
        self._check_at_ns = 0
        self._was_opened = False
        self._abandoned: Opened | None = None
        """What was open in the parent and can be neither used nor closed in this child."""

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
            places.warnings.append(
                ("shared storage: %s was deleted or replaced; counting anew", self.folder)
            )
            self.close()
            opened = None
        if not opened:
            # A storage replaces a file of another size once, when it first opens it.
            try:
                opened = open_folder(self.folder, self.size_bytes, any_size=self._was_opened)
            except StorageError as error:
                raise StorageDownError(str(error)) from error
            self._opened = opened
            self._was_opened = True
            self.size_bytes = opened.size_bytes
            if opened.fault:
                self._warn_set_aside(opened.fault)
        self._check_at_ns = now_ns + CHECK_EVERY_NS
        return opened.env

    def replace(self, why: str) -> None:
        """Close a damaged file, and set it aside unless another process already has.

        :param why: for the log.
        :raises StorageError: it cannot be renamed.
        """
        current = self._opened and self._opened.is_current()
        self.close()
        if current:
            set_aside(self.folder)
            self._warn_set_aside(why)

    def abandon(self) -> None:
        """Never use or close again what is open. LMDB would wait for ever for the transaction of a
        thread that this process does not have, and opens no file twice."""
        self._abandoned, self._opened = self._opened, None

    def close(self) -> None:
        """Close what is open. It is opened again at the next use."""
        if self._opened:
            self._opened.env.close()
            self._opened = None

    def _warn_set_aside(self, why: str) -> None:
        places.warnings.append(
            ("shared storage: what was in %s is set aside: %s", self.folder, why)
        )


class Places:
    """All folders that this process uses. They are kept by real path, since a process must not have
    the same LMDB file open twice."""

    def __init__(self) -> None:
        self._fork_lock = ForkLock(after_in_child=self._close_all)
        self.lock = self._fork_lock.lock
        """Held around every transaction. So no fork happens inside one; and threads of this process
        wait here for each other, not at LMDB's lock, whose holder would make all processes wait
        while it waits for the GIL."""
        self.warnings: deque[tuple[object, ...]] = deque(maxlen=100)
        """To be logged once the lock is free: messages with their arguments."""
        self._by_path: dict[str, Place] = {}

    def join(self, storage: object, folder: Path, size_bytes: int) -> Place:
        """The place of this folder, which a storage is going to use until it leaves. Requires that
        the lock is held."""
        place = self._by_path.setdefault(os.path.realpath(folder), Place(folder, size_bytes))
        place.users.add(storage)
        return place

    def leave(self, storage: object, place: Place) -> None:
        """Close the place if no other storage uses it. Requires that the lock is held."""
        place.users.discard(storage)
        if not place.users:
            place.close()
            self._by_path = {path: kept for path, kept in self._by_path.items() if kept.users}

    def _close_all(self) -> None:
        for place in self._by_path.values():
            if self._fork_lock.was_held:
                place.abandon()
            else:
                place.close()


places = Places()
"""The one object of this process."""
