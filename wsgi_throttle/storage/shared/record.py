"""One record of shared://: what a bucket has counted for each of its limits, as bytes.

A record is a row of parts. The first part has the limits that were last charged together; every
other limit of the bucket has a part of its own, the one that lives longest first.

A part has a prefix (one byte with the number of its limits, then one shape for each), a header
(HEADER), and all integers of all states, one after the other. A shape is a hash of the limit, how
many integers its state has, and how wide they are: one width for those at even indexes and one for
those at odd indexes, since counts and timestamps take turns in every state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import accumulate
from operator import itemgetter
from struct import Struct, error

from ...cache import Bounded
from ...decision import NEVER_MS, Limit, Measured
from ...errors import StorageError
from ...strategies import STRATEGIES, State, step_of

LAYOUT = 3
"""The version of the format, raised with every change to it: a file of another version is not
read, but set aside."""

HEADER = Struct("<?I")
"""Whether the client is over a limit, and the second by the storage's clock at which this part and
all parts after it have expired."""

EXPIRED, WITHIN_LIMIT, OVER_LIMIT = -1, 0, 1
"""The classes of records in the order in which they are evicted. The last two are the values of the
header's first field."""

_SHAPE = Struct("<6sBB")
_SHAPE_BYTES = _SHAPE.size
_WIDTHS = "BHIQ"  # what struct calls integers of 1, 2, 4 and 8 bytes
_MAX_LIMITS = 255  # so that their number fits into one byte
_MAX_LIFETIME_MS = 100 * 365 * 86_400_000  # so that the seconds fit into 4 bytes


class Packing:
    """Turns the states of limits that are charged together into a record, and back. Only one thread
    may use it at a time.

    :raises StorageError: more than 255 limits.
    """

    __slots__ = (
        *("__weakref__", "_by_lengths", "_by_shapes", "_lifetime_s", "_limit_hashes"),
        *("_prefix_bytes", "_steps", "_widths"),
    )

    def __init__(self, limits: Sequence[Limit]) -> None:
        if len(limits) > _MAX_LIMITS:
            raise StorageError(f"shared:// holds no more than {_MAX_LIMITS} limits of one bucket")
        self._limit_hashes = [
            blake2b(limit.tag.encode(), digest_size=6).digest() for limit in limits
        ]
        self._steps = [step_of(limit) for limit in limits]
        lifetime_ms = max(STRATEGIES[limit.strategy].lifetime_ms(limit) for limit in limits)
        # One second more, since only whole seconds are stored.
        self._lifetime_s = -(-min(lifetime_ms, _MAX_LIFETIME_MS) // 1000) + 1
        self._widths = [(0, 0)] * len(limits)
        self._prefix_bytes = 1 + _SHAPE_BYTES * len(limits)
        # Layouts whose first part has these limits: to read, by the record's prefix; to write, by
        # the lengths of all states.
        self._by_shapes: Bounded[bytes, _Layout] = Bounded(4096)
        self._by_lengths: Bounded[tuple[int, ...], _Layout] = Bounded(4096)

    def unpack(self, record: bytes, now: int) -> tuple[tuple[State, ...], bytes]:
        """The states of these limits, and the parts of other limits, empty if they have expired.

        :param record: what :meth:`pack` returned, or empty.
        :param now: milliseconds by the storage's clock.
        """
        if not record:
            return ((),) * len(self._limit_hashes), b""
        layout = self._by_shapes.get(record[: self._prefix_bytes])
        if layout is None:
            layout = _layouts[record[: 1 + _SHAPE_BYTES * record[0]]]
            if layout.limit_hashes != self._limit_hashes:
                return self._unpack_all_parts(record, now)
            self._by_shapes.keep(layout.prefix, layout)
        unpack_from, split = layout.unpack_from, layout.split
        states = split(unpack_from(record))
        if len(record) == layout.size:
            return states, b""
        others = record[layout.size :]
        return states, b"" if rank(others, now)[0] == EXPIRED else others

    def without_limits(self, record: bytes, now: int) -> tuple[int, bytes]:
        """How many of these limits have counted something, and the record without them; empty if
        there is nothing to keep."""
        states, others = self.unpack(record, now)
        used = [step(state, now, 0)[1] for step, state in zip(self._steps, states, strict=True)]
        return sum(map(bool, used)), others

    def pack(self, states: Sequence[State], others: bytes, over_limit: bool, now: int) -> bytes:
        """The record of these states; empty if there is nothing to keep.

        :param others: the parts of other limits, which are appended.
        :param over_limit: whether the client is over one of its limits.
        :param now: milliseconds by the storage's clock.
        """
        expires_s = now // 1000 + self._lifetime_s
        if others:
            expires_s = max(expires_s, rank(others, now)[1])
        lengths = tuple(map(len, states))
        layout = self._by_lengths.get(lengths)
        if layout is None:
            if not any(lengths):
                return others
            layout = self._learn(states)
        pack, integers = layout.pack, sum(states, ())  # for a few states faster than chain()
        try:
            packed = pack(layout.prefix, over_limit, expires_s, *integers)
        except error:  # an integer is wider than the layout has room for
            layout = self._learn(states)
            packed = layout.pack(layout.prefix, over_limit, expires_s, *integers)
        return packed + others if others else packed

    def _unpack_all_parts(self, record: bytes, now: int) -> tuple[tuple[State, ...], bytes]:
        """As :meth:`unpack`, for a record whose first part has other limits: search all parts for
        these, and give each of the others a part of its own."""
        found: dict[bytes, tuple[int, bytes, State]] = {}
        while record:
            layout = _layouts[record[: 1 + _SHAPE_BYTES * record[0]]]
            _, expires_s = HEADER.unpack_from(record, len(layout.prefix))
            states = layout.split(layout.unpack_from(record))
            for key, shape, state in zip(layout.limit_hashes, layout.shapes, states, strict=True):
                if state and expires_s * 1000 > now:
                    found[key] = expires_s, shape, state
            record = record[layout.size :]
        wanted = tuple(found.pop(key)[2] if key in found else () for key in self._limit_hashes)
        others = b""
        for expires_s, shape, state in sorted(found.values()):
            alone = b"\1" + shape
            others = _layouts[alone].pack(alone, False, expires_s, *state) + others
        return wanted, others

    def _learn(self, states: Sequence[State]) -> _Layout:
        """Make and keep the layout for states of these lengths and widths. Widths only ever grow:
        otherwise a client with small integers and one with large ones would each replace the
        other's layout at every request."""
        self._widths = [
            (max(even, _width(state[::2])), max(odd, _width(state[1::2])))
            for (even, odd), state in zip(self._widths, states, strict=True)
        ]
        shapes = [
            _SHAPE.pack(limit_hash, len(state), even * len(_WIDTHS) + odd)
            for limit_hash, state, (even, odd) in zip(
                self._limit_hashes, states, self._widths, strict=True
            )
        ]
        layout = _layouts[bytes([len(shapes)]) + b"".join(shapes)]
        return self._by_lengths.keep(tuple(map(len, states)), layout)


def is_sound(limit: Limit, measured: Measured) -> bool:
    """Whether a step by this limit can have measured this. If it cannot, the state was none that a
    step has returned: something else has written it."""
    wait_ms, remaining, reset_ms = measured
    lifetime_ms = STRATEGIES[limit.strategy].lifetime_ms(limit)
    return (
        (0 <= wait_ms <= lifetime_ms or wait_ms == NEVER_MS)
        and 0 <= remaining <= limit.burst
        and 0 <= reset_ms <= lifetime_ms
    )


def rank(record: bytes, now: int) -> tuple[int, int]:
    """Sort key of eviction: the record with the smallest rank goes first. Its class (expired before
    within its limits before over one), then the second in which it expires.

    :param now: milliseconds by the storage's clock.
    """
    over_limit, expires_s = HEADER.unpack_from(record, 1 + _SHAPE_BYTES * record[0])
    return (over_limit if expires_s * 1000 > now else EXPIRED, expires_s)


class _Codec:
    """How the integers of a part are packed. Parts that differ in nothing but the hashes of their
    limits use the same object: what many rules need then still fits into the processor's cache.

    :param codes: for each state, what struct calls its integers, such as ``BIBIB``.
    """

    __slots__ = ("pack", "size", "split", "unpack_from")

    def __init__(self, prefix_bytes: int, codes: Sequence[str]) -> None:
        all_codes = "".join(codes)
        packed = Struct(f"<{prefix_bytes}s{HEADER.format[1:]}{all_codes}")
        self.size = packed.size
        self.pack = packed.pack
        """(prefix, both fields of the header, all integers) -> the part."""
        self.unpack_from = Struct(f"<{prefix_bytes + HEADER.size}x{all_codes}").unpack_from
        """Record -> all integers of its first part."""
        ends = list(accumulate(map(len, codes)))
        ranges = [slice(end - len(own), end) for end, own in zip(ends, codes, strict=True)]
        self.split: Callable[[State], tuple[State, ...]] = (
            itemgetter(*ranges) if len(ranges) > 1 else lambda integers: (integers,)
        )
        """All integers -> the states."""


class _Codecs(Bounded[tuple[int, tuple[str, ...]], _Codec]):
    __slots__ = ()

    def __missing__(self, key: tuple[int, tuple[str, ...]]) -> _Codec:
        return self.keep(key, _Codec(*key))


_codecs = _Codecs(1024)


class _Layout:
    """Where everything is in a part that has this prefix."""

    __slots__ = ("limit_hashes", "pack", "prefix", "shapes", "size", "split", "unpack_from")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.limit_hashes: list[bytes] = []
        self.shapes: list[bytes] = []
        codes = []
        for limit_hash, length, widths in _SHAPE.iter_unpack(prefix[1:]):
            even, odd = divmod(widths, len(_WIDTHS))
            codes.append(((_WIDTHS[even] + _WIDTHS[odd]) * length)[:length])
            self.limit_hashes.append(limit_hash)
            self.shapes.append(_SHAPE.pack(limit_hash, length, widths))
        codec = _codecs[len(prefix), tuple(codes)]
        self.size, self.pack = codec.size, codec.pack
        self.unpack_from, self.split = codec.unpack_from, codec.split


class _Layouts(Bounded[bytes, _Layout]):
    __slots__ = ()

    def __missing__(self, prefix: bytes) -> _Layout:
        return self.keep(prefix, _Layout(prefix))


_layouts = _Layouts(1024)


def _width(integers: State) -> int:
    """The index in _WIDTHS of the smallest width that holds them all."""
    bits = max(integers, default=0).bit_length()
    return 0 if bits <= 8 else 1 if bits <= 16 else 2 if bits <= 32 else 3
