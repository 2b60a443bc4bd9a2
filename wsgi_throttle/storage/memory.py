"""``memory://[?max_clients=100000]``: counters of this process alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ..cache import Prepared
from ..decision import Charge, Charges, Decision, Limit, Line
from ..errors import StorageURIError
from ..strategies import Spending, State, spend_by, spendings_of, take
from .clock import monotonic_ms
from .fork import ForkLock
from .uri import options, whole_number

MAX_PREPARED = 16_384
"""Of how many lines the tables are known."""

_Prepared: TypeAlias = "tuple[list[tuple[_Table, int]], tuple[Spending, ...]]"
"""The table of each line, with the place of its bucket, and how the lines are spent."""

_UNSEEN: Any = ((),)
"""The list of a client without a state, which nobody can write to."""

LOOKS = 8
"""How many of the oldest states a take looks at, at most, to make room for a new one."""


class MemoryStorage:
    """Exact under threads and bounded; a forked child goes on with its own copy of all counters.

    :param max_clients: how many states are kept at most, one for each bucket and limit. The last
        eighth of the room is for clients that are over their limit.
    :param clock: milliseconds; may step back.
    """

    def __init__(
        self, *, max_clients: int = 100_000, clock: Callable[[], int] = monotonic_ms
    ) -> None:
        self._max_clients = max_clients
        self._crowded = max_clients - max_clients // 8
        self._clock = clock
        self._lock = ForkLock()
        self._tables: OrderedDict[str, _Table] = OrderedDict()
        self._prepared: Prepared[_Prepared] = Prepared(MAX_PREPARED)
        self._size = 0

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
            places, spendings = known[1] if known else self._prepare(lines)
            cells = []
            states = []
            for table, place in places:
                cell = table.get(buckets[place], _UNSEEN)
                cells.append(cell)
                states.append(cell[0])
            decision = take(charges, spendings, states, now)
            measured: Any = decision.measured
            grown = False
            for index, (table, place) in enumerate(places):
                cell, state = cells[index], measured[index][3]
                if state is cell[0]:
                    continue
                bucket = buckets[place]
                if not state:
                    del table[bucket]
                    self._size -= 1
                elif cell is _UNSEEN:
                    table[bucket] = [state]
                    self._size += 1
                    grown = True
                else:
                    cell[0] = state
                    table.move_to_end(bucket)
            if grown:
                self._tidy(places, now)
            return decision
        finally:
            lock.release()

    def reset(self, charges: Sequence[Charge]) -> None:
        with self._lock:
            for charge in charges:
                table = self._tables.get(charge.limit.tag)
                if table and table.pop(charge.bucket, None):
                    self._size -= 1

    def close(self) -> None:
        with self._lock:
            self._tables.clear()
            self._prepared.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """How many states are kept."""
        return self._size

    def _prepare(self, lines: Sequence[Line]) -> _Prepared:
        """Requires that the lock is held."""
        places = []
        for place, limit, _, _, _ in lines:
            table = self._tables.get(limit.tag)
            if table is None:
                table = self._tables[limit.tag] = _Table(limit)
            places.append((table, place))
        return self._prepared.keep_for(lines, (places, spendings_of(lines)))

    def _tidy(self, places: Sequence[tuple[_Table, int]], now: int) -> None:
        """Forget what has expired, at more than the pace at which states come in, and what there
        is no room for."""
        for table, _ in places:
            self._size -= table.drop_expired(now)
        # A table in turn, since one whose limit no rule names any more is never charged again.
        tag, table = self._tables.popitem(last=False)
        self._size -= table.drop_expired(now)
        if table:
            self._tables[tag] = table
        else:
            self._prepared.clear()
        if self._size > self._crowded:
            self._make_room(now)

    def _make_room(self, now: int) -> None:
        """Forget the oldest, but for clients that are over their limit: they start again as the
        youngest, so that a flood of others does not set them free. Only where all room is taken
        such clients go too."""
        for _ in range(LOOKS):
            if self._size <= self._crowded:
                return
            fullest = self._fullest()
            if not fullest.spare_blocked(now):
                fullest.popitem(last=False)
                self._size -= 1
        while self._size > self._max_clients:
            self._fullest().popitem(last=False)
            self._size -= 1

    def _fullest(self) -> _Table:
        return max(self._tables.values(), key=len)


class _Table(OrderedDict[str, list[State]]):
    """The states of one limit by bucket, each in a list of its own, which is quicker to write than
    the table is. The one written longest ago is the first. Since all live equally
    long, that is about the order in which they expire."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._spend = spend_by(limit)

    def drop_expired(self, now: int) -> int:
        """Look at the two oldest and forget those that are as good as none. Return how many."""
        for dropped in range(2):
            if not self:
                return dropped
            bucket, (state,) = next(iter(self.items()))
            if self._spend(state, now, 0)[3]:
                return dropped
            del self[bucket]
        return 2

    def spare_blocked(self, now: int) -> bool:
        """Whether the oldest is over its limit; if so it is now the youngest."""
        bucket, (state,) = next(iter(self.items()))
        if not self._spend(state, now, 1)[0]:
            return False
        self.move_to_end(bucket)
        return True
