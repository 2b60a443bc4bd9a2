"""The values that travel from the rules to the storage and on to the headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias

NEVER_MS = 1 << 50
"""The wait of a charge that no time will let pass: a limit of 0, or a cost above the limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many in how long, and by which arithmetic. Immutable; equal if all four parts are."""

    strategy: str
    quota: int
    window_ms: int
    burst: int
    """How many at once; the quota itself unless the strategy has a burst of its own."""
    tag: str = field(init=False, compare=False)
    """The four parts as text: with the bucket it names the state that this limit keeps."""

    def __post_init__(self) -> None:
        tag = f"{self.strategy}/{self.quota}/{self.window_ms}/{self.burst}"
        object.__setattr__(self, "tag", tag)


class Charge(NamedTuple):
    """What one limit is to count for one request."""

    bucket: str
    """Whose counter: namespace, layout version, scope, key type, method and key value. Unambiguous
    whatever the client sent; the charges of one bucket stand side by side."""
    limit: Limit
    cost: int
    """0 only looks."""
    enforce: bool
    """False: a shadow charge, which is counted where it fits and never refuses."""
    policy: str
    """What clients are told that the limit is called: the rule's name, with ``-2`` for its second
    limit; ``rule-3`` for the third of the rules that have no name."""
    label: str = ""
    """What logs call it, where that is something else: the methods and paths of a rule without a
    name, which clients may not know of."""


class Outcome(NamedTuple):
    """What the storage found for one charge."""

    wait_ms: int
    """Until the charge would fit: 0 if it fitted, NEVER_MS if it never will."""
    remaining: int
    """How much of the limit is left after this request."""
    reset_ms: int
    """Until ``remaining`` next grows: 0 if nothing is used."""


class Term(NamedTuple):
    """A charge without its client: everything that the rules know before a request comes."""

    bucket: int
    """Which of the request's buckets is charged, as an index of them."""
    limit: Limit
    cost: int
    enforce: bool
    policy: str
    label: str = ""


class Terms(tuple[Term, ...]):  # noqa: SLOT001 - a tuple has no slots to add
    """All that one request is charged but for whose counters those are: a tuple of :class:`Term`.

    The rule table makes one object for all requests of the same terms, so that what is derived from
    them is derived once and kept here. The terms of one bucket stand side by side, and the buckets
    are numbered in the order in which they come. Immutable; equal and hashable as a tuple.
    """

    enforced: tuple[int, ...]
    """The indexes of the terms that may refuse."""
    groups: tuple[tuple[int, int], ...]
    """Of each bucket: where its terms begin, and where they end."""
    prepared: dict[object, Any]
    """What others have made of these terms, under a key of their own. Any thread may add to it."""

    def __init__(self, terms: Iterable[Term] = ()) -> None:
        # The tuple itself was made of them before.
        self.enforced = tuple(index for index, term in enumerate(self) if term.enforce)
        starts = [n for n, term in enumerate(self) if not n or term.bucket != self[n - 1].bucket]
        self.groups = tuple(zip(starts, [*starts[1:], len(self)], strict=False))
        self.prepared = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # What was prepared holds functions, which cannot be pickled, and can be made again.
        return Terms, (tuple(self),)

    @staticmethod
    def of(charges: Iterable[Charge]) -> tuple[Terms, tuple[str, ...]]:
        """The terms of these charges, and their buckets."""
        terms: list[Term] = []
        buckets: list[str] = []
        for bucket, limit, cost, enforce, policy, label in charges:
            if not buckets or bucket != buckets[-1]:
                buckets.append(bucket)
            terms.append(Term(len(buckets) - 1, limit, cost, enforce, policy, label))
        return Terms(terms), tuple(buckets)


NO_TERMS = Terms()

Measured: TypeAlias = tuple[int, int, int]
"""wait_ms, remaining and reset_ms of an :class:`Outcome`, as a plain tuple, which Python takes
apart several times as fast as a named one."""


_MORE_THAN_ANY = 1 << 62


class _Fields(NamedTuple):
    granted: bool
    terms: Terms
    buckets: tuple[str, ...]
    """Whose counters: one text for each bucket that the terms number."""
    measured: Sequence[Measured]
    """For each term, in the same order, what was found."""
    costs: Sequence[int] | None = None
    """For each term, what was counted in place of its own cost; None where that was its own."""


class Decision(_Fields):
    """Whether a request may pass, and what was measured for each of its charges.

    All enforced charges were counted, or none was. It holds nothing of the storage's, and may be
    pickled. Equal if all that it was made of is.
    """

    # No __slots__: what is derived for many responses to one decision is kept in `derived`.

    @cached_property
    def derived(self) -> dict[object, Any]:
        """What others have made of this decision, under a key of their own. Any thread may add to
        it."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Decision, tuple(self)

    @property
    def charges(self) -> list[Charge]:
        """One for each term, in the same order."""
        costs = self.costs or [term.cost for term in self.terms]
        return [
            Charge(
                self.buckets[term.bucket], term.limit, cost, term.enforce, term.policy, term.label
            )
            for term, cost in zip(self.terms, costs, strict=True)
        ]

    @property
    def outcomes(self) -> list[Outcome]:
        """One for each charge, in the same order."""
        return [Outcome(*measured) for measured in self.measured]

    @property
    def enforced(self) -> Iterator[tuple[Charge, Outcome]]:
        """What may refuse, and what headers tell: everything but the shadow charges."""
        return (pair for pair in zip(self.charges, self.outcomes, strict=True) if pair[0].enforce)

    @property
    def refusing(self) -> list[tuple[Charge, Outcome]]:
        """The enforced charges that did not fit."""
        return [pair for pair in self.enforced if pair[1].wait_ms]

    @property
    def tightest(self) -> tuple[Charge, Outcome] | None:
        """The one limit to tell a client of, see :func:`tightest_of`. None where nothing was
        enforced."""
        index = tightest_of(self.granted, self.terms.enforced, self.measured)
        return None if index < 0 else (self.charges[index], self.outcomes[index])

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds, rounded up, at least 1, after which the request would fit. None for a
        granted request, and where no time will help."""
        if self.granted or not self.terms.enforced:
            return None
        index = tightest_of(False, self.terms.enforced, self.measured)
        wait_ms = self.measured[index][0]
        return None if wait_ms >= NEVER_MS else seconds_up(wait_ms)


NOTHING_COUNTED = Decision(True, NO_TERMS, (), ())
"""On a request that may pass although nothing was counted."""


def tightest_of(granted: bool, among: Iterable[int], measured: Sequence[Measured]) -> int:
    """Which limit to tell a client of: the longest wait of a refusal; else the least remaining, and
    of these the latest reset. The first one, if they are equal.

    :param among: indexes of what was measured.
    :return: one of them; -1 if there is none.
    """
    found = most_ms = -1
    if granted:
        least = _MORE_THAN_ANY
        for index in among:
            _, remaining, reset_ms = measured[index]
            if remaining < least or (remaining == least and reset_ms > most_ms):
                found, least, most_ms = index, remaining, reset_ms
    else:
        for index in among:
            wait_ms = measured[index][0]
            if wait_ms > most_ms:
                found, most_ms = index, wait_ms
    return found


class Take(Protocol):
    """Charges one client by terms that a storage has prepared, in one atomic step, by that
    storage's own clock. Any thread may call it, and after a fork the child too."""

    def __call__(
        self,
        buckets: tuple[str, ...],
        costs: Sequence[int] | None = None,
        look: bool = False,
    ) -> Decision:
        """All enforced terms are counted, or none is; a shadow term where all are granted and it
        fits by itself.

        :param buckets: the client's, as the terms number them.
        :param costs: for each term, in place of its own cost. 0 only looks.
        :param look: count nothing, as if all costs were 0.
        :raises StorageError: the storage did not answer; nothing is known of what was counted.
        """


def seconds_up(milliseconds: int) -> int:
    """Whole seconds, rounded up, so that who waits as long never comes too early."""
    return -(-milliseconds // 1000)
