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
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import lmdb

from ...cache import Bounded
from ...clock import MONOTONIC, MS, Clock
from ...decision import Charge, Decision, Measured, Take, Terms
from ...log_once import LogOnce
from ...strategies import Compiled, State, compile_terms, take, with_costs
from .. import Report
from ..uri import options, size_bytes
from .eviction import Eviction
from .folder import broken
from .location import Location, named_folder
from .opening import DAMAGE
from .places import Place, places
from .record import Packing
from .report import report

DEFAULT_BYTES = 32 << 20
"""Half of the /dev/shm that a Docker container has by default."""
MIN_BYTES = 1 << 20

MAX_CACHED_KEYS = 4096
"""For how many buckets the key is kept, so that it need not be computed again."""

WARN_EVERY_S = 60.0

_PAGE = 4096
_logger = logging.getLogger("wsgi_throttle")
_T = TypeVar("_T")

_LoadedRecord: TypeAlias = tuple[Packing, bytes, int, bytes]
"""How a record is packed, its key, its size in bytes, and its parts of limits that are not charged
now."""

_ChargeFunction: TypeAlias = Callable[
    [Sequence[Compiled], Sequence[str], lmdb.Environment], tuple[bool, list[Measured]]
]
"""(compiled terms, buckets, environment): charge, and return whether the request is granted and
what was measured."""

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
        self._packings: WeakValueDictionary[tuple[str, ...], Packing] = WeakValueDictionary()
        """By the tags of their limits, for as long as prepared terms use them."""
        self._keys: Bounded[str, bytes] = Bounded(MAX_CACHED_KEYS)
        """Bucket -> its key in the file."""
        self._eviction = Eviction()
        self._log_once = LogOnce(WARN_EVERY_S)

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
        charge = self._charge_function(terms)
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
        terms, buckets = Terms.of(charges)
        packings = self._packings_of(terms)

        def forget(environment: lmdb.Environment) -> int:
            forgotten = 0
            with environment.begin(write=True) as txn:
                now = self._clock() // MS
                for bucket, packing in zip(buckets, packings, strict=True):
                    key = _key(bucket)
                    used, others = packing.without_limits(txn.get(key, b""), now)
                    forgotten += used
                    if others:
                        txn.put(key, others)
                    else:
                        txn.delete(key)
            return forgotten

        return self._run(forget)

    def ping(self) -> None:
        """See :class:`.Storage`. Raises if the file cannot be opened or written."""

        self._run(lambda environment: environment.begin(write=True).abort())

    def close(self) -> None:
        """See :class:`.Storage`."""
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

    def _charge_function(self, terms: Terms) -> _ChargeFunction:
        """The function that charges by these terms in one transaction. Whoever calls it must hold
        ``places.lock``."""
        packings = self._packings_of(terms)
        single = packings[0] if len(packings) == 1 else None
        clock, keys = self._clock, self._keys

        def charge(
            charged: Sequence[Compiled], buckets: Sequence[str], environment: lmdb.Environment
        ) -> tuple[bool, list[Measured]]:
            # Looks write too: a read transaction has a slot, which stays taken after a SIGKILL.
            txn = environment.begin(write=True)  # `with` would cost half as much again
            try:
                now = clock() // MS
                if single:  # most requests have one bucket: much faster than a loop over one
                    bucket = buckets[0]
                    key = keys.get(bucket) or keys.keep(bucket, _key(bucket))
                    record: Any = txn.get(key, b"")
                    states, others = single.unpack(record, now)
                    granted, measured, after = take(charged, states, now)
                    if tuple(after) != states:
                        over_limit = not all(map(_remaining, measured))
                        changed = single.pack(after, others, over_limit, now)
                        self._write(txn, key, changed, len(record), now)
                else:
                    granted, measured = charge_several(txn, now, charged, buckets)
            except BaseException:
                txn.abort()
                raise
            txn.commit()
            return granted, measured

        def charge_several(
            txn: lmdb.Transaction, now: int, charged: Sequence[Compiled], buckets: Sequence[str]
        ) -> tuple[bool, list[Measured]]:
            records: list[_LoadedRecord] = []
            states: list[State] = []
            for index, packing in enumerate(packings):
                bucket = buckets[index]
                key = keys.get(bucket) or keys.keep(bucket, _key(bucket))
                record: Any = txn.get(key, b"")
                found, others = packing.unpack(record, now)
                records.append((packing, key, len(record), others))
                states += found
            granted, measured, after = take(charged, states, now)
            for index, (start, end) in enumerate(terms.groups):
                if after[start:end] != states[start:end]:
                    packing, key, size, others = records[index]
                    over_limit = not all(map(_remaining, measured[start:end]))
                    changed = packing.pack(after[start:end], others, over_limit, now)
                    self._write(txn, key, changed, size, now)
            return granted, measured

        return charge

    def _packings_of(self, terms: Terms) -> list[Packing]:
        """For each bucket of the terms, how its states are packed."""
        found = []
        for start, end in terms.groups:
            limits = [term.limit for term in terms[start:end]]
            tags = tuple(limit.tag for limit in limits)
            packing = self._packings.get(tags)
            if packing is None:
                packing = self._packings[tags] = Packing(limits)
            found.append(packing)
        return found

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


_remaining = itemgetter(1)  # of what was measured for one term


def _key(bucket: str) -> bytes:
    return blake2b(bucket.encode(errors="surrogatepass"), digest_size=12).digest()
