"""``memory://[?max_clients=100000]``: counters of this process alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from weakref import WeakValueDictionary

from ..clock import MONOTONIC, MS, Clock
from ..decision import Charge, Decision, Limit, Measured, Take, Terms
from ..errors import StorageURIError
from ..strategies import STRATEGIES, Compiled, State, compile_terms, step_of, take, with_costs
from .fork import ForkLock
from .uri import options, split, whole_number

LOOKS = 8
"""How many of the oldest records a take looks at, at most, to make room for a new one."""

_NONE: Mapping[Limit, State] = MappingProxyType({})

_new = tuple.__new__  # what a named tuple's own __new__ calls, at half the cost


class _Group:
    """Limits that are charged together on one bucket: one object for equal limits, for as long as
    anything that was prepared, or any record, has it."""

    __slots__ = ("__weakref__", "limits", "table")

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
        states = {limit: step_of(limit)(state, now, 0)[1] for limit, state in self}
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
        """Whether nothing that it has counted counts any more."""
        return not any(step_of(limit)(state, now, 0)[1] for limit, state in self)

    def is_blocked(self, now: int) -> bool:
        """Whether the client is over one of its limits, as who has a limit of 0 always is."""
        return any(step_of(limit)(state, now, 1)[0][0] for limit, state in self)


class _Table(OrderedDict[str, _Record]):
    """The records, by bucket, of all groups that live equally long. The one charged longest ago is
    the first, which is about the order in which they expire."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: WeakValueDictionary[tuple[Limit, ...], _Group] = WeakValueDictionary()

    def group(self, limits: tuple[Limit, ...]) -> _Group:
        """The one object for these limits."""
        group = self.groups.get(limits)
        if group is None:
            group = self.groups[limits] = _Group(limits, self)
        return group

    def drop_expired(self, now: int) -> None:
        """Look at the two oldest and forget those that have expired."""
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


class MemoryStorage:
    """Exact under threads and bounded; a forked child goes on with its own copy of all counters.

    :param max_clients: how many buckets are kept at most. The last eighth of the room is for
        clients that are over their limit.
    :param clock: may step back.
    """

    reach = "process"

    def __init__(self, *, max_clients: int = 100_000, clock: Clock = MONOTONIC) -> None:
        self._max_clients = max_clients
        self._crowded = max_clients - max_clients // 8
        self._clock = clock
        self._lock = ForkLock()
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        """By the milliseconds that their records live."""

    @classmethod
    def from_uri(
        cls, uri: str, *, application_id: str = "", timeout_s: float = 0.1
    ) -> MemoryStorage:
        """:raises StorageURIError: a host or path, or a bad option."""
        parts = split(uri)
        if parts.netloc or parts.path or parts.fragment:
            raise StorageURIError("memory:// has neither host nor path")
        found = options(uri, {"max_clients"})
        if "max_clients" not in found:
            return cls()
        return cls(max_clients=whole_number("max_clients", found["max_clients"], 1))

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`."""
        with self._lock:
            self._drop_unused_tables()
            groups = [
                self._group(tuple(term.limit for term in terms[start:end]))
                for start, end in terms.groups
            ]
        compiled = compile_terms(terms)
        clock = self._clock

        def take_any(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            costs = [0] * len(terms) if look else costs
            charged = compiled if costs is None else with_costs(compiled, costs)
            with self._lock:
                granted, measured = self._take(terms, groups, charged, buckets, clock() // MS)
            return Decision(granted, terms, buckets, measured, costs)

        if len(groups) != 1:
            return take_any
        group, table, lock = groups[0], groups[0].table, self._lock.lock

        def take_one(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            """The same for one bucket, as most requests have: much quicker where it is known."""
            if look or costs is not None:
                return take_any(buckets, costs, look)
            bucket = buckets[0]
            lock.acquire()  # `with` costs twice as much
            try:
                record = table.get(bucket)
                if record is None or record.group is not group:
                    granted, measured = self._take(terms, groups, compiled, buckets, clock() // MS)
                else:
                    granted, measured, record.states = take(compiled, record.states, clock() // MS)
                    table.move_to_end(bucket)
            finally:
                lock.release()
            return _new(Decision, (granted, terms, buckets, measured, None))

        return take_one

    def reset(self, charges: Sequence[Charge]) -> None:
        """See :class:`.Storage`."""
        with self._lock:
            now = self._clock() // MS
            for charge in charges:
                for table in self._tables.values():
                    record = table.get(charge.bucket)
                    if record:
                        record.forget(charge.limit)
                        if record.is_expired(now):
                            del table[charge.bucket]

    def ping(self) -> None:
        """See :class:`.Storage`. This process's own memory always answers."""

    def close(self) -> None:
        """See :class:`.Storage`."""
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
        terms: Terms,
        groups: Sequence[_Group],
        compiled: Sequence[Compiled],
        buckets: Sequence[str],
        now: int,
    ) -> tuple[bool, list[Measured]]:
        """Charge any number of buckets, none of which need be known. Requires that the lock is
        held.

        :param groups: of each bucket.
        :param compiled: the terms.
        """
        records = []
        states: list[State] = []
        index = 0  # counted by hand: enumerate and zip cost more than what they save
        for group in groups:
            bucket = buckets[index]
            record = group.table.get(bucket)
            if record is None or record.group is not group:
                record = self._find(bucket, group, now) or _Record(group)
            records.append(record)
            states += record.states
            index += 1  # noqa: SIM113
        granted, measured, after = take(compiled, states, now)
        index = 0
        grown = False
        for start, end in terms.groups:
            bucket, record = buckets[index], records[index]
            record.states = after[start:end]
            table = record.group.table
            if bucket in table:
                table.move_to_end(bucket)
            elif any(record.states):
                table[bucket] = record
                grown = True
            index += 1  # noqa: SIM113
        if grown:
            self._tidy(groups, now)
        return granted, measured

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

    def _group(self, limits: tuple[Limit, ...]) -> _Group:
        """Requires that the lock is held."""
        lifetime_ms = max(STRATEGIES[limit.strategy].lifetime_ms(limit) for limit in limits)
        return self._tables.setdefault(lifetime_ms, _Table()).group(limits)

    def _drop_unused_tables(self) -> None:
        """Forget what only limits had that nobody uses any more, as those that were edited away.
        Requires that the lock is held."""
        for lifetime_ms, table in list(self._tables.items()):
            if not (table or table.groups):
                del self._tables[lifetime_ms]

    def _tidy(self, groups: Iterable[_Group], now: int) -> None:
        """Forget what has expired, at more than the pace at which records come in, and what there
        is no room for. Requires that the lock is held."""
        for group in groups:
            group.table.drop_expired(now)
        # A table in turn, since one that no rule counts in any more is never charged again.
        lifetime_ms, table = next(iter(self._tables.items()))
        table.drop_expired(now)
        self._tables.move_to_end(lifetime_ms)
        self._make_room(now)

    def _make_room(self, now: int) -> None:
        """Forget the oldest, but for clients that are over their limit: they start again as the
        youngest, so that a flood of others does not set them free. Only where all room is taken
        such clients go too. Requires that the lock is held."""
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
