"""Charges buckets in one transaction of the file: reads their records, counts, and saves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import lmdb

from ...cache import Bounded
from ...clock import MS, Clock
from ...decision import Charge, Measured, Term, Terms
from ...strategies import Compiled, State, take
from .record import Packing, is_sound

MAX_CACHED_KEYS = 4096
"""For how many buckets the key is kept, so that it need not be computed again."""

ChargeFunction: TypeAlias = Callable[
    [Sequence[Compiled], Sequence[str], lmdb.Environment], tuple[bool, list[Measured]]
]
"""(compiled terms, buckets, environment): charge, and return whether the request is granted and
what was measured."""

_LoadedRecord: TypeAlias = tuple[Packing, bytes, int, bytes]
"""How a record is packed, its key, its size in bytes, and its parts of limits that are not charged
now."""


class Charging:
    """What one storage does inside its transactions. Whoever calls the functions that are prepared
    here, or :meth:`forget`, must hold ``places.lock``.

    A record that cannot be read is replaced: it counts as none. Whoever may write to the file can
    leave anything there, and it must not harm more than that one counter.

    :param clock: the storage's clock.
    :param write: called with (transaction, key, record, bytes of the record before, milliseconds)
        to save a record, or to delete it if it is empty.
    :param on_unreadable: called when a record is replaced.
    """

    def __init__(
        self,
        clock: Clock,
        write: Callable[[lmdb.Transaction, bytes, bytes, int, int], None],
        on_unreadable: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._write = write
        self._on_unreadable = on_unreadable
        self._packings: WeakValueDictionary[tuple[str, ...], Packing] = WeakValueDictionary()
        """By the tags of their limits, for as long as prepared terms use them."""
        self._keys: Bounded[str, bytes] = Bounded(MAX_CACHED_KEYS)
        """Bucket -> its key in the file."""

    def prepare(self, terms: Terms) -> ChargeFunction:
        """The function that charges by these terms in one transaction.

        :raises StorageError: more than 255 limits on one bucket.
        """
        packings = self._packings_of(terms)
        single = packings[0] if len(packings) == 1 else None
        several = self._charge_several(terms, packings)
        clock, keys, write = self._clock, self._keys, self._write

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
                    states: Any
                    try:
                        states, others = single.unpack(record, now)
                        granted, measured, after = take(charged, states, now)
                        if not granted:
                            _check(terms, measured)
                    except Exception:  # noqa: BLE001 - there is no telling what garbage raises
                        self._on_unreadable()
                        states, others = (None,), b""  # so that the record is written in any case
                        granted, measured, after = take(charged, ((),) * len(terms), now)
                    if after != [*states]:
                        over_limit = not all(map(_remaining, measured))
                        changed = single.pack(after, others, over_limit, now)
                        write(txn, key, changed, len(record), now)
                else:
                    granted, measured = several(txn, now, charged, buckets)
            except BaseException:
                txn.abort()
                raise
            txn.commit()
            return granted, measured

        return charge

    def _charge_several(
        self, terms: Terms, packings: Sequence[Packing]
    ) -> Callable[..., tuple[bool, list[Measured]]]:
        """The part of a charge that is inside the transaction, for any number of buckets."""
        keys = self._keys

        def charge(
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
            if not granted:
                _check(terms, measured)
            for index, (start, end) in enumerate(terms.groups):
                if after[start:end] != states[start:end]:
                    packing, key, size, others = records[index]
                    over_limit = not all(map(_remaining, measured[start:end]))
                    changed = packing.pack(after[start:end], others, over_limit, now)
                    self._write(txn, key, changed, size, now)
            return granted, measured

        def charge_readable(
            txn: lmdb.Transaction, now: int, charged: Sequence[Compiled], buckets: Sequence[str]
        ) -> tuple[bool, list[Measured]]:
            try:
                return charge(txn, now, charged, buckets)
            except lmdb.Error:
                raise
            except Exception:
                if not self._delete_unreadable(txn, now, charged, terms, buckets):
                    raise
                return charge(txn, now, charged, buckets)

        return charge_readable

    def _delete_unreadable(
        self,
        txn: lmdb.Transaction,
        now: int,
        charged: Sequence[Compiled],
        terms: Terms,
        buckets: Sequence[str],
    ) -> bool:
        """Delete those records of these buckets that cannot be read. Return whether there were
        any."""
        unreadable = 0
        packings = self._packings_of(terms)
        for (start, end), packing, bucket in zip(terms.groups, packings, buckets, strict=True):
            key = _key(bucket)
            record: Any = txn.get(key, b"")
            try:
                states, _ = packing.unpack(record, now)
                _, measured, _ = take(charged[start:end], states, now)
                _check(terms[start:end], measured)
            except Exception:  # noqa: BLE001 - as above
                self._on_unreadable()
                txn.delete(key)
                unreadable += 1
        return unreadable > 0

    def forget(self, charges: Sequence[Charge], environment: lmdb.Environment) -> int:
        """Delete what these buckets have counted for these limits, and return for how many of them
        there was something."""
        terms, buckets = Terms.of(charges)
        packings = self._packings_of(terms)
        forgotten = 0
        with environment.begin(write=True) as txn:
            now = self._clock() // MS
            for bucket, packing in zip(buckets, packings, strict=True):
                key = _key(bucket)
                record: Any = txn.get(key, b"")
                try:
                    used, others = packing.without_limits(record, now)
                except Exception:  # noqa: BLE001 - as above
                    used, others = 1, b""
                forgotten += used
                if others:
                    txn.put(key, others)
                else:
                    txn.delete(key)
        return forgotten

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


def _check(terms: Sequence[Term], measured: Sequence[Measured]) -> None:
    """:raises ValueError: these terms cannot have measured this, so a record is unreadable."""
    for term, found in zip(terms, measured, strict=True):
        if not is_sound(term.limit, found):
            raise ValueError("unreadable")


_remaining = itemgetter(1)  # of what was measured for one term


def _key(bucket: str) -> bytes:
    return blake2b(bucket.encode(errors="surrogatepass"), digest_size=12).digest()
