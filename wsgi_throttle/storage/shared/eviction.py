"""Which records of shared:// are deleted when the file gets full."""

from __future__ import annotations

from itertools import islice
from struct import error

import lmdb

from .record import EXPIRED, rank

THRESHOLDS = (0.85, 0.90, 0.95)
"""Evict one record for each that grows above 85 % of the pages, two above 90 %, three above 95 %: a
full LMDB file cannot even delete."""
CANDIDATES = 8
"""How many records are compared for each eviction: the one with the smallest rank is deleted."""


class Eviction:
    """Makes room in the file of one storage. Every call requires that ``places.lock`` is held.

    :ivar evicted: how many records were deleted before they expired. Whoever has reported the
        number sets it back to 0.
    """

    def __init__(self) -> None:
        self.evicted = 0
        self._growths_until_check = 0
        self._evictions_per_growth = 0

    def make_room(self, txn: lmdb.Transaction, key: bytes, size_bytes: int, now: int) -> None:
        """Evict records if the file is nearly full. To be called before a record is made or grows.

        How full the file is, is asked again after as many calls as a 64th of the free pages, so
        that even many processes cannot fill it in between.

        :param key: of the record that grows, which is not evicted.
        :param size_bytes: of the file.
        :param now: milliseconds by the storage's clock.
        """
        self._growths_until_check -= 1
        if self._growths_until_check <= 0:
            found = txn.stat()
            used = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
            pages = size_bytes // found["psize"]
            self._growths_until_check = (pages - used) // 64
            self._evictions_per_growth = sum(used > pages * part for part in THRESHOLDS)
        for _ in range(self._evictions_per_growth):
            self._evict_worst(txn, key, now)

    def _evict_worst(self, txn: lmdb.Transaction, key: bytes, now: int) -> None:
        """Delete the worst of the records that follow this key. After the last one come the first
        of the file. Keys are hashes, so these are a random sample."""
        with txn.cursor() as cursor:
            sample = list(islice(cursor, CANDIDATES)) if cursor.set_range(key) else []
            if len(sample) < CANDIDATES and cursor.first():
                sample += islice(cursor, CANDIDATES - len(sample))
            ranks = [(_rank(bytes(record), now), other) for other, record in sample if other != key]
        if ranks:
            (kind, _), worst = min(ranks)
            txn.delete(worst)
            self.evicted += kind != EXPIRED


def _rank(record: bytes, now: int) -> tuple[int, int]:
    """The record's rank. One that is unreadable goes first of all."""
    try:
        return rank(record, now)
    except (IndexError, error):
        return EXPIRED, 0
