"""One record of shared://: what a bucket has counted for each of its limits, as bytes.

A record is a header (HEADER) and then one entry a limit. An entry is its limit's mark, the second
in which it expires, its shape, and the integers of the state. The shape says how many integers
there are and how wide they are: one width for those at even places, one for those at odd places,
since stamps and counts take turns in every state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from struct import Struct, error
from typing import Any, TypeAlias

from ..decision import Limit
from ..strategies import STRATEGIES, State

LAYOUT = 1
"""The version of all this. Raised with every change, so that no file is ever misread."""

HEADER = Struct(">BI")
"""Whether the client is over a limit, and the second in which the last entry expires."""

EXPIRED, IDLE, OVER = -1, 0, 1
"""The classes of records, in the order in which they are forgotten."""

_MARK_BYTES = 6
_SHAPE = slice(_MARK_BYTES + 4, _MARK_BYTES + 6)  # in an entry, behind mark and expires_s
_WIDTHS = "BHIQ"
_LONGEST_MS = 100 * 365 * 86_400_000  # so that its seconds fit

Entries: TypeAlias = dict[bytes, tuple[Any, ...]]
"""The entries of a record by their marks, each as (mark, expires_s, shape, *state)."""


class Packing:
    """How the states of one limit are packed."""

    __slots__ = ("_even", "_odd", "_packers", "lifetime_ms", "mark")

    def __init__(self, limit: Limit) -> None:
        self.mark = blake2b(limit.tag.encode(), digest_size=_MARK_BYTES).digest()
        self.lifetime_ms = min(STRATEGIES[limit.strategy].lifetime_ms(limit), _LONGEST_MS)
        self._even = self._odd = 0
        self._packers: dict[int, tuple[Callable[..., bytes], bytes]] = {}

    def pack(self, expires_s: int, state: State) -> bytes:
        try:
            packer, shape = self._packers[len(state)]
            return packer(self.mark, expires_s, shape, *state)
        except (KeyError, error):
            self._learn(state)
        packer, shape = self._packers[len(state)]
        return packer(self.mark, expires_s, shape, *state)

    def _learn(self, state: State) -> None:
        """A new length, or integers wider than any before: from here on all are packed so wide."""
        even = max(self._even, _width(max(state[::2], default=0)))
        odd = max(self._odd, _width(max(state[1::2], default=0)))
        if (even, odd) != (self._even, self._odd):
            self._even, self._odd = even, odd
            self._packers.clear()
        shape = bytes((even * len(_WIDTHS) + odd, len(state)))
        self._packers[len(state)] = _struct(shape).pack, shape


def unpack(record: bytes) -> Entries:
    """:param record: as :func:`pack` made it, or empty."""
    entries = {}
    at = HEADER.size
    end = len(record)
    while at < end:
        entry = _struct(record[at + _SHAPE.start : at + _SHAPE.stop])
        fields = entry.unpack_from(record, at)
        entries[fields[0]] = fields
        at += entry.size
    return entries


def state_in(entries: Entries, packing: Packing) -> State:
    """What was found for a limit."""
    fields = entries.get(packing.mark)
    return fields[3:] if fields else ()


def pack(entries: Entries, changes: Iterable[tuple[Packing, State]], over: bool, now: int) -> bytes:
    """The record with these states put in place of what was found, and without the entries that
    have expired; empty if nothing is left. Uses the entries up.

    :param over: whether the client is over one of its limits.
    """
    packed = []
    latest_s = 0
    for packing, state in changes:
        entries.pop(packing.mark, None)
        if state:
            expires_s = (now + packing.lifetime_ms) // 1000 + 1
            packed.append(packing.pack(expires_s, state))
            latest_s = max(latest_s, expires_s)
    for fields in entries.values():
        if fields[1] * 1000 > now:
            packed.append(_struct(fields[2]).pack(*fields))
            latest_s = max(latest_s, fields[1])
    return HEADER.pack(over, latest_s) + b"".join(packed) if packed else b""


def rank(record: bytes, now: int) -> tuple[int, int]:
    """What is forgotten first, where room is needed, has the least: what has expired, then what
    expires soonest, and last the clients that are over a limit."""
    over, expires_s = HEADER.unpack_from(record)
    return (over if expires_s * 1000 > now else EXPIRED, expires_s)


def _width(largest: int) -> int:
    bits = largest.bit_length()
    return 0 if bits <= 8 else 1 if bits <= 16 else 2 if bits <= 32 else 3


@lru_cache(maxsize=2048)  # every shape that there is
def _struct(shape: bytes) -> Struct:
    widths, length = shape
    even, odd = divmod(widths, len(_WIDTHS))
    pair = _WIDTHS[even] + _WIDTHS[odd]
    return Struct(f"<{_MARK_BYTES}sI2s" + (pair * length)[:length])
