"""Which records of shared:// are forgotten where the file gets full."""

from __future__ import annotations

from itertools import islice

import lmdb

from .record import EXPIRED, rank

THRESHOLDS = (0.85, 0.90, 0.95)
"""Evict one record for each that grows above 85 % of the pages, two above 90 %, three above 95 %: a
full LMDB file cannot even delete."""
CANDIDATES = 8
"""Of how many records the worst is evicted."""


class Eviction:
    """Makes room in the file of one storage. Requires that the lock of all places is held.

    :ivar evicted: how many clients were forgotten before their time, until somebody sets it to 0.
    """

    def __init__(self) -> None:
        self.evicted = 0
        self._growths_until_check = 0
        self._evictions_per_growth = 0

    def make_room(self, txn: lmdb.Transaction, key: bytes, size_bytes: int, now: int) -> None:
        """Before a record grows: evict others if the file is crowded. That is looked up again
        before many processes together can have filled what was left.

        :param key: the record's, which is spared.
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
        """Of the records that follow the key, which are any since keys are hashes."""
        with txn.cursor() as cursor:
            _ = cursor.set_range(key) or cursor.first()
            ranks = [
                (rank(bytes(record), now), other)
                for other, record in islice(cursor, CANDIDATES)
                if other != key
            ]
        if ranks:
            (kind, _), worst = min(ranks)
            txn.delete(worst)
            self.evicted += kind != EXPIRED
