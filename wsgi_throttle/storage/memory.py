"""``memory://[?max_clients=100000]``: counters of this process alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ..cache import Bounded, Prepared
from ..decision import Charge, Charges, Decision, Limit, Line, buckets_of
from ..errors import StorageURIError
from ..strategies import STRATEGIES, Spending, State, spend_by, spendings_of, take
from .clock import monotonic_ms
from .fork import ForkLock
from .uri import options, whole_number

MAX_PREPARED = 16_384
"""How many groups are known, and of how many lines."""

LOOKS = 8
"""How many of the oldest records a take looks at, at most, to make room for a new one."""

_NONE: Mapping[Limit, State] = MappingProxyType({})


class _Group:
    """Limits that are charged together on one bucket."""

    __slots__ = ("limits", "table")

    def __init__(self, limits: tuple[Limit, ...], table: _Table) -> None:
        self.limits = limits
        self.table = table
        """Where the records are that were charged by these limits last."""


class _Record:
    """What a bucket has counted."""

    __slots__ = ("group", "others", "states")

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.states: list[State] = [()] * len(group.limits)
        """By the limits of the group."""
        self.others = _NONE
        """By the limits of other rules that count on the same bucket."""

    def __iter__(self) -> Iterator[tuple[Limit, State]]:
        yield from zip(self.group.limits, self.states, strict=True)
        yield from self.others.items()

    def regroup(self, group: _Group, now: int) -> None:
        """Make it one of these limits."""
        states = {limit: spend_by(limit)(state, now, 0)[3] for limit, state in self}
        self.group = group
        self.states = [states.pop(limit, ()) for limit in group.limits]
        self.others = {limit: state for limit, state in states.items() if state} or _NONE

    def forget(self, limit: Limit) -> None:
        """What was counted by this limit."""
        if limit in self.others:
            self.others = {other: state for other, state in self.others.items() if other != limit}
        self.states = [
            () if own == limit else state
            for own, state in zip(self.group.limits, self.states, strict=True)
        ]

    def is_expired(self, now: int) -> bool:
        """Whether it is as good as none."""
        return not any(spend_by(limit)(state, now, 0)[3] for limit, state in self)

    def is_blocked(self, now: int) -> bool:
        """Whether the client is over one of its limits, as who has a limit of 0 always is."""
        return any(spend_by(limit)(state, now, 1)[0] for limit, state in self)


class _Table(OrderedDict[str, _Record]):
    """The records, by bucket, of all groups that live equally long. The one charged longest ago is
    the first, which is about the order in which they expire."""

    def drop_expired(self, now: int) -> None:
        """Look at the two oldest and forget those that are as good as none."""
        for _ in range(2):
            if not self:
                return
            bucket, record = next(iter(self.items()))
            if not record.is_expired(now):
                if record.others:  # which may live longer than all that are behind it
                    self.move_to_end(bucket)
                return
            del self[bucket]

    def spare_blocked(self, now: int) -> bool:
        """Whether the oldest is over its limit; if so it is now the youngest."""
        bucket, record = next(iter(self.items()))
        if not record.is_blocked(now):
            return False
        self.move_to_end(bucket)
        return True


_Prepared: TypeAlias = tuple[list[tuple[_Group, int, int]], tuple[Spending, ...]]
"""The group of each bucket, with where its lines are among all, and how the lines are spent."""


class MemoryStorage:
    """Exact under threads and bounded; a forked child goes on with its own copy of all counters.

    :param max_clients: how many buckets are kept at most. The last eighth of the room is for
        clients that are over their limit.
    :param clock: milliseconds; may step back.
    """

    def __init__(
        self, *, max_clients: int = 100_000, clock: Callable[[], int] = monotonic_ms
    ) -> None:
        self._max_clients = max_clients
        self._crowded = max_clients - max_clients // 8
        self._clock = clock
        self._lock = ForkLock()
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        """By the milliseconds that their records live."""
        self._groups: Bounded[tuple[Limit, ...], _Group] = Bounded(MAX_PREPARED)
        self._prepared: Prepared[_Prepared] = Prepared(MAX_PREPARED)

    @classmethod
    def from_uri(cls, uri: str, *, identity: str = "", timeout_s: float = 0.1) -> MemoryStorage:
        """:raises StorageURIError: a host or path, or a bad option."""
        parts = urlsplit(uri)
        if parts.netloc or parts.path or parts.fragment:
            raise StorageURIError("memory:// has neither host nor path")
        found = options(uri, {"max_clients"})
        if "max_clients" not in found:
            return cls()
        return cls(max_clients=whole_number("max_clients", found["max_clients"], 1))

    def take(self, charges: Sequence[Charge]) -> Decision:
        if charges.__class__ is not Charges:
            charges = Charges.of(charges)
        lines, buckets = charges.lines, charges.buckets
        lock, clock = self._lock.lock, self._clock
        lock.acquire()  # `with` costs twice as much
        try:
            now = clock()
            known = self._prepared.get(id(lines))
            groups, spendings = known[1] if known else self._prepare(lines)
            if len(groups) != 1:
                return self._take(charges, groups, spendings, now)
            group, bucket = groups[0][0], buckets[0]
            table = group.table
            record = table.get(bucket)
            if record is None or record.group is not group:
                return self._take(charges, groups, spendings, now)
            states = record.states
            decision = take(charges, spendings, states, now)
            measured: Any = decision.measured
            for index, spent in enumerate(measured):
                states[index] = spent[3]
            table.move_to_end(bucket)
            return decision
        finally:
            lock.release()

    def reset(self, charges: Sequence[Charge]) -> None:
        with self._lock:
            for charge in charges:
                for table in self._tables.values():
                    record = table.get(charge.bucket)
                    if record:
                        record.forget(charge.limit)
                        if record.is_expired(self._clock()):
                            del table[charge.bucket]

    def close(self) -> None:
        with self._lock:
            for table in self._tables.values():
                table.clear()

    @property
    def size(self) -> int:
        """How many buckets are kept."""
        with self._lock:
            return self._count()

    def _count(self) -> int:
        """Requires that the lock is held."""
        return sum(map(len, self._tables.values()))

    def _take(
        self,
        charges: Charges,
        groups: Sequence[tuple[_Group, int, int]],
        spendings: Sequence[Spending],
        now: int,
    ) -> Decision:
        """The same for any number of buckets, none of which need be known. Requires that the lock
        is held."""
        buckets = charges.buckets
        records = []
        states: list[State] = []
        for place, (group, _, _) in enumerate(groups):
            bucket = buckets[place]
            record = group.table.get(bucket)
            if record is None or record.group is not group:
                record = self._find(bucket, group, now) or _Record(group)
            records.append(record)
            states += record.states
        decision = take(charges, spendings, states, now)
        measured: Any = decision.measured
        after = [spent[3] for spent in measured]
        grown = False
        for place, (group, start, end) in enumerate(groups):
            bucket, record = buckets[place], records[place]
            record.states = after[start:end]
            if bucket in group.table:
                group.table.move_to_end(bucket)
            elif any(record.states):
                group.table[bucket] = record
                grown = True
        if grown:
            self._tidy(groups, now)
        return decision

    def _find(self, bucket: str, group: _Group, now: int) -> _Record | None:
        """The record of a bucket that was of another group, now of this one. Requires that the lock
        is held."""
        for table in self._tables.values():
            record = table.pop(bucket, None)
            if record:
                record.regroup(group, now)
                group.table[bucket] = record
                return record
        return None

    def _prepare(self, lines: Sequence[Line]) -> _Prepared:
        """Requires that the lock is held."""
        self._drop_empty_tables()
        groups = [
            (self._group(tuple(limit for _, limit, _, _, _ in lines[start:end])), start, end)
            for start, end in buckets_of(lines)
        ]
        return self._prepared.keep_for(lines, (groups, spendings_of(lines)))

    def _group(self, limits: tuple[Limit, ...]) -> _Group:
        known = self._groups.get(limits)
        if known:
            return known
        lifetime_ms = max(STRATEGIES[limit.strategy].lifetime_ms(limit) for limit in limits)
        table = self._tables.setdefault(lifetime_ms, _Table())
        return self._groups.keep(limits, _Group(limits, table))

    def _drop_empty_tables(self) -> None:
        """Forget what only limits had that nobody uses any more, as those that were edited away."""
        unused = [lifetime_ms for lifetime_ms, table in self._tables.items() if not table]
        if unused:
            for limits in [limits for limits, group in self._groups.items() if not group.table]:
                del self._groups[limits]
            for lifetime_ms in unused:
                del self._tables[lifetime_ms]
            self._prepared.clear()

    def _tidy(self, groups: Sequence[tuple[_Group, int, int]], now: int) -> None:
        """Forget what has expired, at more than the pace at which records come in, and what there
        is no room for."""
        for group, _, _ in groups:
            group.table.drop_expired(now)
        # A table in turn, since one that no rule counts in any more is never charged again.
        lifetime_ms, table = next(iter(self._tables.items()))
        table.drop_expired(now)
        self._tables.move_to_end(lifetime_ms)
        self._make_room(now)

    def _make_room(self, now: int) -> None:
        """Forget the oldest, but for clients that are over their limit: they start again as the
        youngest, so that a flood of others does not set them free. Only where all room is taken
        such clients go too."""
        size = self._count()
        for _ in range(LOOKS):
            if size <= self._crowded:
                return
            fullest = self._fullest()
            if not fullest.spare_blocked(now):
                fullest.popitem(last=False)
                size -= 1
        while size > self._max_clients:
            self._fullest().popitem(last=False)
            size -= 1

    def _fullest(self) -> _Table:
        return max(self._tables.values(), key=len)
