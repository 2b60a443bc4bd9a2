"""``shared://[/folder][?size=32mb]``: counters of all processes of one host, in an LMDB file.

Without a folder the file is in /dev/shm, in a folder that is named after this user and the
configuration. The file has one record a bucket (record.py) under a hash of its name.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

import lmdb

from ...cache import Bounded, Prepared
from ...decision import Charge, Charges, Decision, Limit, Line, buckets_of
from ...errors import StorageError, StorageURIError
from ...strategies import Spending, State, spendings_of, take
from ..clock import monotonic_ms
from ..fork import ForkLock
from ..uri import options, size_bytes
from .folder import DAMAGE, Opened, derived_folder, open_folder, set_aside
from .record import EXPIRED, Packing, rank

DEFAULT_BYTES = 32 << 20
"""Half of the /dev/shm that a Docker container has by default."""
LEAST_BYTES = 1 << 20

CROWDED = (0.85, 0.90, 0.95)
"""The parts of all pages: as many records are forgotten for one that grows as there are parts
which those in use exceed. A full file could not even delete."""
LOOKS = 8
"""Of how many records the worst is forgotten."""

LOOK_EVERY_S = 1.0
"""How soon a file that was deleted or replaced under us is noticed."""
WARN_EVERY_S = 60.0

_PAGE = 4096
_logger = logging.getLogger("wsgi_throttle")
_Result = TypeVar("_Result")

_Group: TypeAlias = tuple[Packing, int, int]
"""How the states of a bucket are packed, and where its lines are among all."""

_Prepared: TypeAlias = tuple[list[_Group], tuple[Spending, ...]]
"""The groups of lines, a bucket each, and how the lines are spent."""

_Found: TypeAlias = tuple[bytes, int, tuple[State, ...], bytes]
"""The key of a record and its size, the states in it that are charged, and the parts that hold
others."""


class SharedStorage:
    """Exact over threads and processes. Nothing is opened before the first use, so that a master
    that is another user leaves nothing behind, and a forked child opens its own.

    :param folder: where; None derives it from the identity.
    :param size_bytes: of the file, all of which is taken from the disk or memory at once.
    :param clock: milliseconds, the same for all processes; may step back.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        identity: str = "",
        size_bytes: int = DEFAULT_BYTES,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self._given = folder
        self._identity = identity
        self._size_bytes = -(-size_bytes // _PAGE) * _PAGE
        self._clock = clock
        self._place: _Place | None = None
        self._packings: Bounded[tuple[str, ...], Packing] = Bounded(1024)
        self._prepared: Prepared[_Prepared] = Prepared(1024)
        self._keys: Bounded[str, bytes] = Bounded(4096)
        """The keys that buckets have in the file."""
        self._growth_until_look = 0
        self._victims = 0
        self._forgotten = 0
        self._warn_at_s = 0.0

    @classmethod
    def from_uri(cls, uri: str, *, identity: str = "", timeout_s: float = 0.1) -> SharedStorage:
        """:raises StorageURIError: a host, a folder that does not exist, or a bad option."""
        parts = urlsplit(uri)
        if parts.netloc or parts.fragment:
            raise StorageURIError("shared:// has no host: name a folder as in shared:///run/app")
        found = options(uri, {"size"})
        size = size_bytes("size", found["size"], LEAST_BYTES) if "size" in found else DEFAULT_BYTES
        path = unquote(parts.path)
        folder = Path(path) if path.strip("/") else None
        if folder and (folder.is_symlink() or not folder.is_dir()):
            raise StorageURIError(
                f"{folder} is not a folder (nor may it be a symbolic link): make it, owned by the "
                "user that serves, with mode 700"
            )
        return cls(folder, identity=identity, size_bytes=size)

    def take(self, charges: Sequence[Charge]) -> Decision:
        lock = _places.lock
        lock.acquire()  # `with` costs twice as much
        try:
            place = self._place or self._at()
            return self._take(place.environment(), charges)
        except lmdb.Error as error:
            return self._again(self._take, charges, error)
        finally:
            lock.release()
            if _places.notes or self._forgotten:
                self._log()

    def reset(self, charges: Sequence[Charge]) -> None:
        with _places.lock:
            try:
                self._reset(self._at().environment(), charges)
            except lmdb.Error as error:
                self._again(self._reset, charges, error)

    def close(self) -> None:
        with _places.lock:
            if self._place:
                _places.leave(self, self._place)
                self._place = None

    @property
    def folder(self) -> Path:
        """Where the file is, or will be."""
        with _places.lock:
            return self._at().folder

    def _again(
        self,
        work: Callable[[lmdb.Environment, Sequence[Charge]], _Result],
        charges: Sequence[Charge],
        error: lmdb.Error,
    ) -> _Result:
        """Do work again that met this error, in a new file if need be. Requires that the lock is
        held."""
        place = self._at()
        try:
            if isinstance(error, lmdb.MapFullError):
                # A reader that was killed keeps the pages that were in use at its time.
                place.environment().reader_check()
                with suppress(*DAMAGE):
                    return work(place.environment(), charges)
            if isinstance(error, DAMAGE):
                place.replace(str(error))
                return work(place.environment(), charges)
        except lmdb.Error as second:
            error = second
        raise StorageError(f"{place.folder}: {error}") from error

    def _at(self) -> _Place:
        if self._place is None:
            folder = self._given or derived_folder(self._identity, self._size_bytes)
            self._place = _places.join(self, folder, self._size_bytes)
        return self._place

    def _take(self, env: lmdb.Environment, charges: Sequence[Charge]) -> Decision:
        if charges.__class__ is not Charges:
            charges = Charges.of(charges)
        lines, buckets = charges.lines, charges.buckets
        known = self._prepared.get(id(lines))
        groups, spendings = known[1] if known else self._prepare(lines)
        # A transaction that only reads would take a reader's slot, which a SIGKILL would leave.
        txn = env.begin(write=True)  # `with` costs half as much again as begin and commit
        try:
            now = self._clock()
            if len(groups) == 1:  # as most requests have, and much quicker than a list of one
                bucket, packing = buckets[0], groups[0][0]
                found = self._read(txn, now, packing, bucket)
                decision = take(charges, spendings, found[2], now)
                self._write(txn, now, packing, found, decision.measured)
            else:
                decision = self._take_several(txn, now, charges, groups, spendings)
        except BaseException:
            txn.abort()
            raise
        txn.commit()
        return decision

    def _take_several(
        self,
        txn: lmdb.Transaction,
        now: int,
        charges: Charges,
        groups: Sequence[_Group],
        spendings: Sequence[Spending],
    ) -> Decision:
        """For charges of several buckets."""
        several = []
        states: list[State] = []
        for place, (packing, _, _) in enumerate(groups):
            found = self._read(txn, now, packing, charges.buckets[place])
            several.append(found)
            states += found[2]
        decision = take(charges, spendings, states, now)
        for place, (packing, start, end) in enumerate(groups):
            self._write(txn, now, packing, several[place], decision.measured[start:end])
        return decision

    def _read(self, txn: lmdb.Transaction, now: int, packing: Packing, bucket: str) -> _Found:
        key = self._keys.get(bucket) or self._keys.keep(bucket, _key(bucket))
        record: Any = txn.get(key, b"")
        return key, len(record), *packing.unpack(record, now)

    def _write(
        self,
        txn: lmdb.Transaction,
        now: int,
        packing: Packing,
        found: _Found,
        measured: Sequence[Any],
    ) -> None:
        """Save the record of a bucket in place of the one that was found, if it has changed."""
        key, size, before, others = found
        after, over = [], False
        for _, remaining, _, state in measured:
            after.append(state)
            if not remaining:
                over = True
        if tuple(after) == before:
            return
        record = packing.pack(after, others, over, now)
        if not record:
            txn.delete(key)
            return
        if len(record) > size:
            self._make_room(txn, key, now)
        txn.put(key, record)

    def _reset(self, env: lmdb.Environment, charges: Sequence[Charge]) -> None:
        if charges.__class__ is not Charges:
            charges = Charges.of(charges)
        groups, _ = self._prepare(charges.lines)
        with env.begin(write=True) as txn:
            now = self._clock()
            for bucket, (packing, _, _) in zip(charges.buckets, groups, strict=True):
                key = _key(bucket)
                _, others = packing.unpack(txn.get(key, b""), now)
                if others:
                    txn.put(key, others)
                else:
                    txn.delete(key)

    def _prepare(self, lines: Sequence[Line]) -> _Prepared:
        """Requires that the lock is held."""
        groups = [
            (self._packing([limit for _, limit, _, _, _ in lines[start:end]]), start, end)
            for start, end in buckets_of(lines)
        ]
        return self._prepared.keep_for(lines, (groups, spendings_of(lines)))

    def _packing(self, limits: list[Limit]) -> Packing:
        tags = tuple([limit.tag for limit in limits])
        return self._packings.get(tags) or self._packings.keep(tags, Packing(limits))

    def _make_room(self, txn: lmdb.Transaction, key: bytes, now: int) -> None:
        """Before a record grows: forget others if the file is crowded. That is looked up again
        before many processes together can have filled what was left."""
        self._growth_until_look -= 1
        if self._growth_until_look <= 0:
            found = txn.stat()
            used = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
            pages = self._at().size_bytes // found["psize"]
            self._growth_until_look = (pages - used) // 64
            self._victims = sum(used > pages * part for part in CROWDED)
        for _ in range(self._victims):
            self._forget_worst(txn, key, now)

    def _forget_worst(self, txn: lmdb.Transaction, key: bytes, now: int) -> None:
        """Of the records that follow the key, which are any since keys are hashes."""
        with txn.cursor() as cursor:
            _ = cursor.set_range(key) or cursor.first()
            ranks = [
                (rank(bytes(record), now), other)
                for other, record in islice(cursor, LOOKS)
                if other != key
            ]
        if ranks:
            (kind, _), worst = min(ranks)
            txn.delete(worst)
            self._forgotten += kind != EXPIRED

    def _log(self) -> None:
        while _places.notes:
            _logger.warning(*_places.notes.popleft())
        if self._forgotten and monotonic() >= self._warn_at_s:
            self._warn_at_s = monotonic() + WARN_EVERY_S
            _logger.warning(
                "shared storage: %s is full: %d clients were forgotten before their time by this "
                "process; give it more room with ?size=",
                self._at().folder,
                self._forgotten,
            )
            self._forgotten = 0


class _Place:
    """A folder and, once it was used, what this process has open of it. All that is here requires
    that the lock is held."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self.size_bytes = size_bytes
        self.users: WeakSet[SharedStorage] = WeakSet()
        self._opened: Opened | None = None
        self._look_at_s = 0.0
        self._known = False

    def environment(self) -> lmdb.Environment:
        """:raises StorageError: the folder cannot be used."""
        now_s = monotonic()
        if self._opened and now_s < self._look_at_s:
            return self._opened.env
        if self._opened and not self._opened.is_current():
            _places.notes.append(
                ("shared storage: %s was deleted or replaced; counting anew", self.folder)
            )
            self.close()
        if not self._opened:
            # Whoever asks for another size replaces the file when it comes, and not for ever.
            self._opened = open_folder(self.folder, self.size_bytes, any_size=self._known)
            self._known = True
            self.size_bytes = self._opened.size_bytes
            if self._opened.fault:
                _places.notes.append(
                    (
                        "shared storage: what was in %s is set aside: %s",
                        self.folder,
                        self._opened.fault,
                    )
                )
        self._look_at_s = now_s + LOOK_EVERY_S
        return self._opened.env

    def replace(self, why: str) -> None:
        """Set the file aside, unless another process was first.

        :raises StorageError: it cannot be renamed.
        """
        current = self._opened and self._opened.is_current()
        self.close()
        if current:
            set_aside(self.folder)
            _places.notes.append(
                ("shared storage: what was in %s is set aside: %s", self.folder, why)
            )

    def close(self) -> None:
        if self._opened:
            self._opened.env.close()
            self._opened = None


class _Places:
    """The folders that this process uses, by real path: LMDB must not open one twice."""

    def __init__(self) -> None:
        self._fork_lock = ForkLock(after_in_child=self._close_all)
        self.lock = self._fork_lock.lock
        """Held around every transaction: across a fork, and so that no thread waits for the
        interpreter while other processes wait for it."""
        self.notes: deque[tuple[object, ...]] = deque(maxlen=100)
        """What is to be logged once the lock is free."""
        self._by_path: dict[str, _Place] = {}

    def join(self, storage: SharedStorage, folder: Path, size_bytes: int) -> _Place:
        place = self._by_path.setdefault(os.path.realpath(folder), _Place(folder, size_bytes))
        place.users.add(storage)
        return place

    def leave(self, storage: SharedStorage, place: _Place) -> None:
        place.users.discard(storage)
        if not place.users:
            place.close()
            self._by_path = {path: kept for path, kept in self._by_path.items() if kept.users}

    def _close_all(self) -> None:
        for place in self._by_path.values():
            place.close()


_places = _Places()


def _key(bucket: str) -> bytes:
    return blake2b(bucket.encode(errors="surrogatepass"), digest_size=12).digest()
