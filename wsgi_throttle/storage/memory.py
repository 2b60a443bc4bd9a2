"""``memory://[?max_clients=100000]``: counters that only this process sees."""

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

MAX_EXAMINED = 8
"""How many of the oldest records one take examines at most to make room for new ones."""

_NO_STATES: Mapping[Limit, State] = MappingProxyType({})

_new = tuple.__new__  # makes a named tuple at half the cost of its own __new__


class _Group:
    """Limits that are charged together on one bucket. Equal limits share one object, which is
    garbage once no prepared function and no record refers to it."""

    __slots__ = ("__weakref__", "limits", "table")

    def __init__(self, limits: tuple[Limit, ...], table: _Table) -> None:
        self.limits = limits
        self.table = table
        """Has the records that were charged by these limits last."""


class _Record:
    """What one bucket has counted. Times are milliseconds by the storage's clock."""

    __slots__ = ("group", "others", "states")

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.states: list[State] = [()] * len(group.limits)
        """In the order of the group's limits."""
        self.others = _NO_STATES
        """States of other limits that count on the same bucket, as those of another rule."""

    def __iter__(self) -> Iterator[tuple[Limit, State]]:
        yield from zip(self.group.limits, self.states, strict=True)
        yield from self.others.items()

    def regroup(self, group: _Group, now: int) -> None:
        """Change to this group: ``states`` gets the states of its limits, ``others`` the rest."""
        states = {limit: step_of(limit)(state, now, 0)[1] for limit, state in self}
        self.group = group
        self.states = [states.pop(limit, ()) for limit in group.limits]
        self.others = {limit: state for limit, state in states.items() if state} or _NO_STATES

    def forget(self, limit: Limit) -> None:
        """Delete the state of this limit."""
        if limit in self.others:
            self.others = {other: state for other, state in self.others.items() if other != limit}
        self.states = [
            () if own == limit else state
            for own, state in zip(self.group.limits, self.states, strict=True)
        ]

    def is_expired(self, now: int) -> bool:
        """Whether nothing that was counted here counts any more."""
        return not any(step_of(limit)(state, now, 0)[1] for limit, state in self)

    def is_over_limit(self, now: int) -> bool:
        """Whether the client is over one of its limits. With a quota of 0 it always is."""
        return any(step_of(limit)(state, now, 1)[0][0] for limit, state in self)


class _Table(OrderedDict[str, _Record]):
    """Bucket -> record, for all groups whose states have the same lifetime. The record charged
    longest ago is the first, so they stand about in the order in which they expire."""

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
        """Delete the two oldest records if they have expired."""
        for _ in range(2):
            if not self:
                return
            bucket, record = next(iter(self.items()))
            if not record.is_expired(now):
                if record.others:  # these may live longer than the records behind this one
                    self.move_to_end(bucket)
                return
            del self[bucket]

    def spare_if_over_limit(self, now: int) -> bool:
        """Move the oldest record to the end if its client is over a limit. Return whether it is."""
        bucket, record = next(iter(self.items()))
        if not record.is_over_limit(now):
            return False
        self.move_to_end(bucket)
        return True


class MemoryStorage:
    """Counters in the memory of one process, exact under any number of threads. Any thread may call
    every method. A forked child goes on with its own copy of the counters.

    :param max_clients: how many buckets are kept at most. The last eighth of them is reserved for
        clients that are over their limit.
    :param clock: may step back.
    """

    reach = "process"

    def __init__(self, *, max_clients: int = 100_000, clock: Clock = MONOTONIC) -> None:
        self._max_clients = max_clients
        self._evict_above = max_clients - max_clients // 8
        self._clock = clock
        self._lock = ForkLock()
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        """Lifetime of the records in milliseconds -> table."""

    @classmethod
    def from_uri(
        cls, uri: str, *, application_id: str = "", timeout_s: float = 0.1
    ) -> MemoryStorage:
        """The storage of a ``memory://`` URI. The other parameters are not used.

        :raises StorageURIError: a host or path, or a bad option.
        """
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
            """The same for one bucket, as most requests have: much faster if it has a record."""
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
        """Charge any number of buckets, with or without a record. Requires that the lock is held.

        :param groups: for each bucket, the limits that it is charged by.
        :param compiled: the terms.
        """
        records = []
        states: list[State] = []
        index = 0  # counted by hand: enumerate and zip cost more than what they save
        for group in groups:
            bucket = buckets[index]
            record = group.table.get(bucket)
            if record is None or record.group is not group:
                record = self._adopt(bucket, group, now) or _Record(group)
            records.append(record)
            states += record.states
            index += 1  # noqa: SIM113
        granted, measured, after = take(compiled, states, now)
        index = 0
        added = False
        for start, end in terms.groups:
            bucket, record = buckets[index], records[index]
            record.states = after[start:end]
            table = record.group.table
            if bucket in table:
                table.move_to_end(bucket)
            elif any(record.states):
                table[bucket] = record
                added = True
            index += 1  # noqa: SIM113
        if added:
            self._tidy(groups, now)
        return granted, measured

    def _adopt(self, bucket: str, group: _Group, now: int) -> _Record | None:
        """Move the record of a bucket to this group from another; None if there is no record.
        Requires that the lock is held."""
        for table in self._tables.values():
            record = table.pop(bucket, None)
            if record:
                record.regroup(group, now)
                group.table[bucket] = record
                return record
        return None

    def _group(self, limits: tuple[Limit, ...]) -> _Group:
        """The one object for these limits. Requires that the lock is held."""
        lifetime_ms = max(STRATEGIES[limit.strategy].lifetime_ms(limit) for limit in limits)
        return self._tables.setdefault(lifetime_ms, _Table()).group(limits)

    def _drop_unused_tables(self) -> None:
        """Drop empty tables whose limits nobody uses any more, as after an edit of the rules.
        Requires that the lock is held."""
        for lifetime_ms, table in list(self._tables.items()):
            if not (table or table.groups):
                del self._tables[lifetime_ms]

    def _tidy(self, groups: Iterable[_Group], now: int) -> None:
        """Delete expired records, faster than new ones come in, and those that there is no room
        for. Requires that the lock is held."""
        for group in groups:
            group.table.drop_expired(now)
        # And one table in turn: those that no rule uses any more are among no request's groups.
        lifetime_ms, table = next(iter(self._tables.items()))
        table.drop_expired(now)
        self._tables.move_to_end(lifetime_ms)
        self._make_room(now)

    def _make_room(self, now: int) -> None:
        """Delete the oldest records, but move those of clients over their limit to the end, so that
        a flood of other clients does not set these free. Above max_clients they are deleted too.
        Requires that the lock is held."""
        size = self._count()
        for _ in range(MAX_EXAMINED):
            if size <= self._evict_above:
                return
            fullest = self._fullest()
            if not fullest.spare_if_over_limit(now):
                fullest.popitem(last=False)
                size -= 1
        while size > self._max_clients:
            self._fullest().popitem(last=False)
            size -= 1

    def _fullest(self) -> _Table:
        return max(self._tables.values(), key=len)
