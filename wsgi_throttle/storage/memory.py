"""``memory://[?max_clients=100000]``: counters of this process alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from ..decision import Charge, Decision, Limit
from ..errors import StorageURIError
from ..strategies import STRATEGIES, State, take
from .clock import monotonic_ms
from .fork import ForkLock
from .uri import options, whole_number

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
        with self._lock.lock:
            now = self._clock()
            tables = []
            states = []
            for bucket, limit, _, _, _ in charges:
                table = self._tables.get(limit.tag) or self._table(limit)
                tables.append(table)
                states.append(table.get(bucket, ()))
            decision, after = take(charges, states, now)
            size = self._size
            for index, state in enumerate(after):
                if state is not states[index]:
                    self._save(tables[index], charges[index].bucket, states[index], state)
            if self._size > size:
                self._tidy(tables, now)
            return decision

    def reset(self, charges: Sequence[Charge]) -> None:
        with self._lock:
            for charge in charges:
                table = self._tables.get(charge.limit.tag)
                if table and table.pop(charge.bucket, None):
                    self._size -= 1

    def close(self) -> None:
        with self._lock:
            self._tables.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """How many states are kept."""
        return self._size

    def _table(self, limit: Limit) -> _Table:
        table = self._tables.get(limit.tag)
        if table is None:
            table = self._tables[limit.tag] = _Table(limit)
        return table

    def _save(self, table: _Table, bucket: str, before: State, state: State) -> None:
        if not state:
            del table[bucket]
            self._size -= 1
            return
        table[bucket] = state
        if before:
            table.move_to_end(bucket)
        else:
            self._size += 1

    def _tidy(self, tables: Sequence[_Table], now: int) -> None:
        """Forget what has expired, at more than the pace at which states come in, and what there
        is no room for."""
        for table in tables:
            self._size -= table.drop_expired(now)
        # A table in turn, since one whose limit no rule names any more is never charged again.
        tag, table = self._tables.popitem(last=False)
        self._size -= table.drop_expired(now)
        if table:
            self._tables[tag] = table
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


class _Table(OrderedDict[str, State]):
    """The states of one limit by bucket, the one written longest ago first. Since all live equally
    long, that is about the order in which they expire."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._limit = limit
        self._verbs = STRATEGIES[limit.strategy]

    def drop_expired(self, now: int) -> int:
        """Look at the two oldest and forget those that are as good as none. Return how many."""
        for dropped in range(2):
            if not self:
                return dropped
            bucket, state = next(iter(self.items()))
            if self._verbs.advance(state, self._limit, now):
                return dropped
            del self[bucket]
        return 2

    def spare_blocked(self, now: int) -> bool:
        """Whether the oldest is over its limit; if so it is now the youngest."""
        bucket, state = next(iter(self.items()))
        state = self._verbs.advance(state, self._limit, now)
        if not state or not self._verbs.wait(state, self._limit, now, 1):
            return False
        self.move_to_end(bucket)
        return True
