"""What rules, storages and responses exchange: limits, charges, and decisions on requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias

NEVER_MS = 1 << 50
"""Milliseconds. Stands for "never": the wait of a charge that no waiting will let pass, since the
quota is 0 or the cost exceeds it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many in how long. Immutable and hashable; equal if all four fields are."""

    strategy: str
    """How it counts: a name in :data:`.STRATEGIES`."""
    quota: int
    """How much may be used up within the window; 0 refuses every request."""
    window_ms: int
    burst: int
    """How much may be used up at once: the quota, unless a token bucket has a burst of its own."""
    tag: str = field(init=False, compare=False)
    """The four fields as text. A storage keeps one state for each bucket and tag."""

    def __post_init__(self) -> None:
        tag = f"{self.strategy}/{self.quota}/{self.window_ms}/{self.burst}"
        object.__setattr__(self, "tag", tag)


class Charge(NamedTuple):
    """What one limit is to count for one request, on one bucket. Immutable."""

    bucket: str
    """Whose counter is charged, as text: namespace, layout version, scope, key types, method and
    key. Each part is escaped, so that nothing that a client sends can name another's bucket. In a
    list of charges, those of one bucket follow each other."""
    limit: Limit
    cost: int
    """How much of the quota the request uses up; 0 counts nothing."""
    enforce: bool
    """False for a shadow charge: it is counted if it fits, and never refuses a request."""
    policy: str
    """The name of the limit in headers and bodies: that of its rule, and ``-1``, ``-2`` and so on
    if the rule has several limits. Rules without a name are ``rule-1``, ``rule-2`` and so on."""
    label: str = ""
    """Its name in logs if that is another one: a rule without a name is called by its methods and
    paths there, which clients may not know of."""


class Outcome(NamedTuple):
    """What a storage measured for one charge. Immutable."""

    wait_ms: int
    """Milliseconds until the charge would fit: 0 if it fits now, NEVER_MS if it never will."""
    remaining: int
    """How much of the quota, or of the burst, is left after this request."""
    reset_ms: int
    """Milliseconds until ``remaining`` next grows; 0 if nothing is used up."""


class Term(NamedTuple):
    """A charge without its client: what the rules know before a request comes. Immutable."""

    bucket: int
    """Which bucket is charged: an index into the buckets of the request."""
    limit: Limit
    cost: int
    enforce: bool
    policy: str
    label: str = ""
    is_client_controlled: bool = False
    """Whether clients choose the key, and so get a new bucket as often as they send another value.
    A refusal that is remembered need not tell of such a term."""


class Terms(tuple[Term, ...]):  # noqa: SLOT001 - a tuple has no slots to add
    """What a request is charged, without whose buckets: a tuple of :class:`Term`.

    The rule table makes one object for all requests with the same terms, so that what others derive
    from terms is derived once, and kept here. The terms of one bucket follow each other, and the
    buckets are numbered in that order. Immutable; equal and hashable like a tuple.
    """

    enforced: tuple[int, ...]
    """The indexes of the terms that may refuse a request."""
    groups: tuple[tuple[int, int], ...]
    """For each bucket, the index of its first term and the index after its last one."""
    prepared: dict[object, Any]
    """A cache for users of these terms, each under a key of its own. Any thread may add to it."""

    def __init__(self, terms: Iterable[Term] = ()) -> None:
        # tuple.__new__ has taken the terms already.
        self.enforced = tuple(index for index, term in enumerate(self) if term.enforce)
        starts = [n for n, term in enumerate(self) if not n or term.bucket != self[n - 1].bucket]
        self.groups = tuple(zip(starts, [*starts[1:], len(self)], strict=False))
        self.prepared = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `prepared`, which may hold functions: they cannot be pickled, and are made again.
        return Terms, (tuple(self),)

    def part(self, indexes: Sequence[int]) -> tuple[Terms, tuple[int, ...]]:
        """Some of these terms, and the indexes of the buckets that they charge.

        :param indexes: those of the terms, in ascending order.
        """
        buckets = tuple(dict.fromkeys(self[index].bucket for index in indexes))
        chosen = (self[index] for index in indexes)
        return Terms(term._replace(bucket=buckets.index(term.bucket)) for term in chosen), buckets

    @staticmethod
    def of(charges: Iterable[Charge]) -> tuple[Terms, tuple[str, ...]]:
        """Split charges into terms and buckets, for tests and for whoever has charges at hand. The
        charges of one bucket must stand side by side."""
        terms: list[Term] = []
        buckets: list[str] = []
        for bucket, limit, cost, enforce, policy, label in charges:
            if not buckets or bucket != buckets[-1]:
                buckets.append(bucket)
            terms.append(Term(len(buckets) - 1, limit, cost, enforce, policy, label))
        return Terms(terms), tuple(buckets)


NO_TERMS = Terms()

Measured: TypeAlias = tuple[int, int, int]
"""(wait_ms, remaining, reset_ms) as in :class:`Outcome`. A plain tuple, which Python unpacks much
faster than a named one."""

_MORE_THAN_ANY = 1 << 62
"""Larger than every ``remaining``."""


class _Fields(NamedTuple):
    granted: bool
    terms: Terms
    buckets: tuple[str, ...]
    """Whose counters: one text for each bucket number in the terms."""
    measured: Sequence[Measured]
    """What was measured for each term, in the same order."""
    costs: Sequence[int] | None = None
    """For each term, the cost that was charged; None if the terms' own costs were."""


class Decision(_Fields):
    """Whether a request may pass its limits, and what was measured for each of its charges.

    If ``granted``, all enforced charges were counted, otherwise none. A refusal that was remembered
    has only those charges of which something is known. The application finds the decision in
    the environ as ``wsgi_throttle.decision``. Immutable, equal if its fields are, and picklable,
    since it refers to no storage. Any thread may use it.
    """

    # No __slots__: `derived` needs the dictionary of the instance.

    @cached_property
    def derived(self) -> dict[object, Any]:
        """A cache for users of this decision, each under a key of its own. Any thread may add to
        it."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Decision, tuple(self)

    @property
    def charges(self) -> list[Charge]:
        """One charge for each term, in the same order."""
        costs = self.costs or [term.cost for term in self.terms]
        return [
            Charge(
                self.buckets[term.bucket], term.limit, cost, term.enforce, term.policy, term.label
            )
            for term, cost in zip(self.terms, costs, strict=True)
        ]

    @property
    def outcomes(self) -> list[Outcome]:
        """One outcome for each charge, in the same order."""
        return [Outcome(*measured) for measured in self.measured]

    @property
    def enforced(self) -> Iterator[tuple[Charge, Outcome]]:
        """The charges that may refuse a request, which headers show: all but the shadow charges."""
        return (pair for pair in zip(self.charges, self.outcomes, strict=True) if pair[0].enforce)

    @property
    def refusing(self) -> list[tuple[Charge, Outcome]]:
        """The enforced charges that did not fit."""
        return [pair for pair in self.enforced if pair[1].wait_ms]

    @property
    def tightest(self) -> tuple[Charge, Outcome] | None:
        """The charge to show to the client, chosen by :func:`tightest_of`. None if none is
        enforced."""
        index = tightest_of(self.granted, self.terms.enforced, self.measured)
        return None if index < 0 else (self.charges[index], self.outcomes[index])

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds, rounded up, at least 1, until the request would pass. None for a granted
        request, and if no waiting helps."""
        if self.granted or not self.terms.enforced:
            return None
        index = tightest_of(False, self.terms.enforced, self.measured)
        wait_ms = self.measured[index][0]
        return None if wait_ms >= NEVER_MS else seconds_up(wait_ms)


NOTHING_COUNTED = Decision(True, NO_TERMS, (), ())
"""The decision on a request that passes although nothing was counted."""


def tightest_of(granted: bool, among: Iterable[int], measured: Sequence[Measured]) -> int:
    """Choose the limit that is shown to the client.

    If the request was refused, the one with the longest wait; otherwise the one with the least
    remaining and, among these, with the latest reset. Among equals, the first.

    :param among: the indexes in ``measured`` to choose from.
    :return: the chosen index; -1 if there is none to choose from.
    """
    found = longest_ms = -1
    if granted:
        least = _MORE_THAN_ANY
        for index in among:
            _, remaining, reset_ms = measured[index]
            if remaining < least or (remaining == least and reset_ms > longest_ms):
                found, least, longest_ms = index, remaining, reset_ms
    else:
        for index in among:
            wait_ms = measured[index][0]
            if wait_ms > longest_ms:
                found, longest_ms = index, wait_ms
    return found


class Take(Protocol):
    """Charges one client for one request, by terms that a storage has prepared.

    It is one atomic step, timed by that storage's own clock. Any thread may call it and, after a
    fork, the child process too.
    """

    def __call__(
        self,
        buckets: tuple[str, ...],
        costs: Sequence[int] | None = None,
        look: bool = False,
    ) -> Decision:
        """Count all enforced terms if every one of them fits, otherwise nothing. A shadow term is
        counted if the request is granted and the term itself fits.

        :param buckets: the client's buckets, in the order in which the terms number them.
        :param costs: one for each term, in place of the terms' own costs. 0 counts nothing.
        :param look: count nothing, as if all costs were 0.
        :raises StorageError: the storage did not answer. The request may have been counted.
        """


def key_in(bucket: str) -> str:
    """The client's key in a bucket, which stands in its braces and has none itself."""
    return bucket.partition("{")[2].rpartition("}")[0]


def seconds_up(milliseconds: int) -> int:
    """Convert to whole seconds, rounded up: a client that waits so long does not come too early."""
    return -(-milliseconds // 1000)
