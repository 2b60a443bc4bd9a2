"""A cache of refusals, so that a client that is refused again and again costs the storage little.

Without it, each request of a client that is over its limit would cost a round trip to the storage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..cache import Bounded
from ..clock import MONOTONIC, MS, Clock
from ..decision import NEVER_MS, Charge, Decision, Measured, Take, Terms
from . import Storage
from .fork import ForkLock
from .look import Look, prepare_look

MAX_AGE_NS = 1_000_000_000
"""What was measured is kept for no longer than this, so that a reset by another process, a failover
or an edit of the rules takes effect."""

REPLY_NS = 10_000_000
"""For how long the same Decision answers all requests of a client. Its waits are not updated."""

MAX_BUCKETS = 10_000
"""Of how many buckets something is kept. For a client whose buckets were dropped the storage is
asked, which is slower and nothing worse."""

MAX_LIMITS = 64
"""How many limits, each with a cost, are kept of one bucket."""

MAX_PARTS = 64
"""How many parts of the same terms are kept, for decisions that do not tell of all of them."""

_Key: TypeAlias = tuple[str, int]  # limit.tag, cost


class _Reply(NamedTuple):
    """A decision that was given from memory, and to what it may be given again."""

    decision: Decision
    terms: Terms
    buckets: tuple[str, ...]
    costs: Sequence[int] | None
    until_ns: int
    forgotten: int


@dataclass(slots=True)
class _Known:
    """What a refused request has measured of one limit."""

    measured: Measured
    answered_ns: int
    """When the storage had answered. Waits in replies are counted from here, so that none is too
    short."""
    until_ns: int
    """How long it may be told."""
    refuses_until_ns: int
    """How long it refuses requests; not at all if the charge fitted. The wait counts from before
    the storage was asked, so that nobody is refused for longer than the storage said."""
    reply: _Reply | None = None
    """The last one that was given because this limit refuses."""

    def at(self, now_ns: int) -> Measured:
        """What it measured, less the time that has passed since."""
        wait_ms, remaining, reset_ms = self.measured
        passed_ms = (now_ns - self.answered_ns) // MS
        if wait_ms < NEVER_MS:
            wait_ms = wait_ms - passed_ms if wait_ms > passed_ms else 0
        if reset_ms:
            reset_ms = reset_ms - passed_ms if reset_ms > passed_ms else 1
        return wait_ms, remaining, reset_ms


class _Question:
    """What is to be looked up for all requests with the same terms."""

    __slots__ = ("_parts", "enforced", "places", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.places: list[tuple[int, _Key]] = [
            (term.bucket, (term.limit.tag, term.cost)) for term in terms
        ]
        """For each term, its bucket's index and the rest of its key."""
        self.enforced = [(index, *self.places[index]) for index in terms.enforced]
        """The same for those that may refuse, after their index."""
        self._parts: Bounded[tuple[int, ...], tuple[Terms, tuple[int, ...]]] = Bounded(MAX_PARTS)

    def refusal(
        self,
        told: Sequence[int],
        measured: Sequence[Measured],
        buckets: tuple[str, ...],
        costs: Sequence[int] | None,
    ) -> Decision:
        """The decision that tells of some terms only.

        :param told: their indexes.
        :param measured: one for each of them.
        """
        if len(told) == len(self.terms):
            return Decision(False, self.terms, buckets, measured, costs)
        key = tuple(told)
        terms, indexes = self._parts.get(key) or self._parts.keep(key, self.terms.part(key))
        return Decision(
            False,
            terms,
            tuple(buckets[index] for index in indexes),
            measured,
            costs and [costs[index] for index in told],
        )


class RefusalCache:
    """A storage that wraps another one and remembers what that has refused.

    A request with a charge that was refused is refused again without asking, until the wait of that
    charge is over, and for a second at most. Of its other limits just as much must be known, so
    that a client that waits as it is told is refused by none of them; otherwise the storage is
    asked, and all that it measures is remembered, also of limits that would have let the request
    pass. Only limits by a key that clients choose need not be known, since nothing is known of a
    new value: they are left out of the decision. So are shadow charges that are not known. A take
    that is a look always asks the wrapped storage.

    Any thread may call every method, and so may a forked child, which has its own copy from then
    on.

    :param storage: the storage to wrap.
    :param clock: may not step back.
    """

    def __init__(self, storage: Storage, *, clock: Clock = MONOTONIC) -> None:
        self._storage = storage
        self._clock = clock
        self._lock = ForkLock()
        self._known: OrderedDict[str, dict[_Key, _Known]] = OrderedDict()  # by bucket
        self._last_until_ns = 0  # when the last of them ends
        self._forgotten = 0  # how often a bucket was charged of which something was known

    @property
    def reach(self) -> str:
        """See :class:`.Storage`."""
        return self._storage.reach

    def prepare(self, terms: Terms) -> Take:
        """See :class:`.Storage`.

        A remembered refusal is less exact than the storage's own answer: waits may be REPLY_NS too
        long, and some charges may be missing.
        """
        inner_take = self._storage.prepare(terms)
        clock, known = self._clock, self._known
        question = _Question(terms)

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            now_ns = clock()
            if known and not look:
                remembered = self._recall(question, buckets, costs, now_ns)
                if remembered is not None:
                    return remembered
            decision = inner_take(buckets, costs, look)
            if not decision[0]:  # fields by index, which is faster than by name
                self._remember(decision, now_ns)
            elif known:
                self._forget(buckets)
            return decision

        return take

    def prepare_look(self, terms: Terms) -> Look:
        """As the storage's, but that a refusal which is remembered is not asked for again."""
        ask = prepare_look(self._storage, terms)
        clock, known = self._clock, self._known
        question = _Question(terms)

        def look(buckets: tuple[str, ...]) -> Decision | None:
            now_ns = clock()
            if known:
                remembered = self._recall(question, buckets, None, now_ns)
                if remembered is not None:
                    return remembered
            decision = ask(buckets)
            if decision:
                self._remember(decision, now_ns)
            return decision

        return look

    def reset(self, charges: Sequence[Charge]) -> int:
        """See :class:`.Storage`."""
        try:
            return self._storage.reset(charges)
        finally:
            self.clear()

    def ping(self) -> None:
        """See :class:`.Storage`."""
        self._storage.ping()

    def close(self) -> None:
        """See :class:`.Storage`."""
        self._storage.close()
        self.clear()

    def clear(self) -> None:
        """Forget all refusals, so that the storage is asked for every charge again."""
        with self._lock:
            self._known.clear()

    @property
    def size(self) -> int:
        """Of how many buckets something is remembered."""
        return len(self._known)

    def _recall(
        self,
        question: _Question,
        buckets: tuple[str, ...],
        costs: Sequence[int] | None,
        now_ns: int,
    ) -> Decision | None:
        """The refusal of this request; None if the storage is to be asked."""
        if now_ns >= self._last_until_ns:
            self.clear()
            return None
        known = self._known
        for index, bucket, key in question.enforced:
            limits = known.get(buckets[bucket])
            if limits:
                found = limits.get(key if costs is None else (key[0], costs[index]))
                if found and now_ns < found.refuses_until_ns:
                    reply = found.reply
                    if (
                        reply is not None
                        and now_ns < reply.until_ns
                        and reply.terms is question.terms
                        and reply.buckets == buckets
                        and reply.costs == costs
                        and reply.forgotten == self._forgotten
                    ):
                        return reply.decision
                    found.reply = self._reply(question, buckets, costs, now_ns)
                    return found.reply and found.reply.decision
        return None

    def _reply(
        self,
        question: _Question,
        buckets: tuple[str, ...],
        costs: Sequence[int] | None,
        now_ns: int,
    ) -> _Reply | None:
        """The refusal of a request that one known limit refuses; None if too little is known."""
        terms, forgotten = question.terms, self._forgotten
        until_ns = now_ns + REPLY_NS
        told: list[int] = []
        measured: list[Measured] = []
        for index, (bucket, key) in enumerate(question.places):
            limits = self._known.get(buckets[bucket])
            found = limits and limits.get(key if costs is None else (key[0], costs[index]))
            if found and now_ns < found.until_ns:
                told.append(index)
                measured.append(found.at(now_ns))
                until_ns = min(until_ns, found.until_ns)
            elif terms[index].enforce and not terms[index].is_client_controlled:
                return None
        decision = question.refusal(told, measured, buckets, costs)
        return _Reply(decision, terms, buckets, costs, until_ns, forgotten)

    def _remember(self, decision: Decision, asked_ns: int) -> None:
        answered_ns = self._clock()
        charges, known = decision.charges, self._known
        waits_ms = [outcome.wait_ms for _, outcome in decision.refusing]
        # Once the client may pass by these limits, it may use up others in another process.
        until_ns = asked_ns + min(max(waits_ms, default=0) * MS, MAX_AGE_NS)
        with self._lock:
            for (bucket, limit, cost, *_), found in zip(charges, decision.measured, strict=True):
                refuses_until_ns = asked_ns + min(found[0] * MS, MAX_AGE_NS)
                limits = known.setdefault(bucket, {})
                if len(limits) >= MAX_LIMITS:
                    limits.clear()
                limits[limit.tag, cost] = _Known(found, answered_ns, until_ns, refuses_until_ns)
                known.move_to_end(bucket)
            self._last_until_ns = max(self._last_until_ns, until_ns)
            while len(known) > MAX_BUCKETS or (known and self._oldest_until_ns() <= asked_ns):
                known.popitem(last=False)

    def _oldest_until_ns(self) -> int:
        return max(one.until_ns for one in next(iter(self._known.values())).values())

    def _forget(self, buckets: Sequence[str]) -> None:
        """Forget what is known of buckets that were charged: less is left of their limits now."""
        for bucket in buckets:
            if bucket in self._known:
                with self._lock:
                    self._known.pop(bucket, None)
                    self._forgotten += 1
