"""``shared://[/folder][?size=32mb]``: counters of all processes of one host, in an LMDB file.

A URI without a folder means one that is found or made in /dev/shm or /var/tmp, named after this
user and the application (location.py). For each bucket the file has one record (record.py); its key
is a hash of the bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb

from ...clock import MONOTONIC, Clock
from ...decision import Charge, Decision, Take, Terms
from ...log_once import LogOnce
from ...strategies import Compiled, compile_terms, with_costs
from .. import Report
from ..fork import mark, notice_fork
from ..uri import options, size_bytes
from .charging import Charging
from .eviction import Eviction
from .folder import broken
from .location import Location, named_folder
from .opening import DAMAGE
from .places import Place, places
from .report import report

DEFAULT_BYTES = 32 << 20
"""Half of the /dev/shm that a Docker container has by default."""
MIN_BYTES = 1 << 20

WARN_EVERY_S = 60.0

_PAGE = 4096
_logger = logging.getLogger("wsgi_throttle")
_T = TypeVar("_T")

_new = tuple.__new__  # makes a named tuple at half the cost of its own __new__


class SharedStorage:
    """Counters of all processes of one user on one host, exact under any number of threads and
    processes. Any thread may call every method. The file is opened at the first use: a forked child
    opens its own, and a master process that runs as another user leaves no files behind.

    :param folder: where the file is; None derives it from the application.
    :param application_id: tells apart the applications of this user that name no folder.
    :param size_bytes: of the file. All of it is taken from disk or memory at once.
    :param clock: the same for all processes; may step back.
    """

    reach = "host"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        application_id: str = "",
        size_bytes: int = DEFAULT_BYTES,
        clock: Clock = MONOTONIC,
    ) -> None:
        self._location = Location(folder, application_id)
        self._size_bytes = -(-size_bytes // _PAGE) * _PAGE
        self._clock = clock
        self._place: Place | None = None
        self._eviction = Eviction()
        self._log_once = LogOnce(WARN_EVERY_S)
        self._charging = Charging(clock, self._write, self._replaced)

    @classmethod
    def from_uri(
        cls, uri: str, *, application_id: str = "", timeout_s: float = 0.1
    ) -> SharedStorage:
        """The storage of a ``shared://`` URI. Opens nothing. A URI without a folder means the one
        that belongs to this application; ``timeout_s`` is for storages with a network.

        :raises StorageURIError: a host, a folder that does not exist, or a bad option.
        """
        found = options(uri, {"size"})
        size = size_bytes("size", found["size"], MIN_BYTES) if "size" in found else DEFAULT_BYTES
        return cls(named_folder(uri), application_id=application_id, size_bytes=size)

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`.

        :raises StorageError: more than 255 limits on one bucket.
        """
        charge = self._charging.prepare(terms)
        compiled = compile_terms(terms)
        lock, warnings, eviction = places.lock, places.warnings, self._eviction

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            charged: Sequence[Compiled] = compiled
            if look:
                costs = [0] * len(terms)
            if costs is not None:
                charged = with_costs(compiled, costs)
            if not mark[0]:
                notice_fork()
            lock.acquire()  # `with` costs twice as much
            try:
                place = self._place or self._joined_place()
                granted, measured = charge(charged, buckets, place.environment(self._clock()))
            except lmdb.Error as error:
                granted, measured = self._retry(partial(charge, charged, buckets), error)
            finally:
                lock.release()
                if warnings or eviction.evicted:
                    self._log()
            return _new(Decision, (granted, terms, buckets, measured, costs))

        return take

    def reset(self, charges: Sequence[Charge]) -> int:
        """See :class:`.Storage`. Makes no file where nothing was counted."""
        if not self._location.has_counts(self._size_bytes):
            return 0
        return self._run(partial(self._charging.forget, charges))

    def ping(self) -> None:
        """See :class:`.Storage`. Raises if the file cannot be opened or written."""

        self._run(lambda environment: environment.begin(write=True).abort())

    def close(self) -> None:
        """See :class:`.Storage`."""
        if not mark[0]:
            notice_fork()
        with places.lock:
            if self._place:
                places.leave(self, self._place)
                self._place = None

    def __repr__(self) -> str:
        return f"<SharedStorage {self._location}>"

    def report(self) -> Report:
        """See :class:`.Reporting`."""
        return report(self._location, self._size_bytes)

    @property
    def folder(self) -> Path:
        """Where the file is, or will be once it is used."""
        with places.lock:
            return self._joined_place().folder

    def _run(self, work: Callable[[lmdb.Environment], _T]) -> _T:
        """Call a function with the open file. Charges do the same with less overhead."""
        if not mark[0]:
            notice_fork()
        with places.lock:
            try:
                return work(self._joined_place().environment(self._clock()))
            except lmdb.Error as error:
                return self._retry(work, error)

    def _retry(self, work: Callable[[lmdb.Environment], _T], error: lmdb.Error) -> _T:
        """Do work once more after an error of LMDB, in a new file if this one is damaged or still
        full. Requires that ``places.lock`` is held.

        :raises StorageError: a new file does not help either.
        """
        place = self._joined_place()
        try:
            if isinstance(error, lmdb.MapFullError):
                # Pages that a killed reader was reading stay in use until its slot is freed.
                environment = place.environment(self._clock())
                environment.reader_check()
                with suppress(*DAMAGE):
                    return work(environment)
            if isinstance(error, DAMAGE):
                place.replace(str(error))
                return work(place.environment(self._clock()))
        except lmdb.Error as second:
            error = second
        raise broken(place.folder, error) from error

    def _joined_place(self) -> Place:
        """This storage's place, joined at the first call. Requires that ``places.lock`` is held."""
        if self._place is None:
            self._place = places.join(self, self._location, self._size_bytes)
        return self._place

    def _write(self, txn: lmdb.Transaction, key: bytes, record: bytes, size: int, now: int) -> None:
        """Save the record under this key, or delete it if there is nothing to keep.

        :param size: of the record that is there now, in bytes.
        """
        if not record:
            txn.delete(key)
            return
        if len(record) > size:
            self._eviction.make_room(txn, key, self._joined_place().size_bytes, now)
        txn.put(key, record)

    def _replaced(self) -> None:
        """Note that a record was unreadable. It is logged once the lock is free."""
        if self._log_once.due("unreadable") is not None:
            message = (
                "shared storage: what was counted for a client in %s was unreadable and is "
                "replaced; does something else write there?"
            )
            places.warnings.append((message, self._joined_place().folder))

    def _log(self) -> None:
        while places.warnings:
            _logger.warning(*places.warnings.popleft())
        evicted = self._eviction.evicted
        if evicted and self._log_once.due("full") is not None:
            self._eviction.evicted = 0
            _logger.warning(
                "shared storage: %s is full: %d clients were forgotten before their time by this "
                "process; give it more room with ?size=",
                self.folder,
                evicted,
            )
