"""The values that travel from the rules to the storage and on to the headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, overload

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
    """The name in headers and logs: the rule's, with ``-2`` for its second limit."""


Line: TypeAlias = tuple[int, Limit, int, bool, str]
"""A charge but for its bucket: the place of that among the buckets, limit, cost, enforce, policy. A
plain tuple, which Python takes apart several times as fast as a named one."""


class Charges(Sequence[Charge]):
    """What one request is charged, in two parts. Immutable."""

    __slots__ = ("buckets", "lines")

    def __init__(self, lines: tuple[Line, ...], buckets: tuple[str, ...]) -> None:
        self.lines = lines
        """The same object for all clients that the same rules are for, so that what is made of it
        is made once. The lines of one bucket stand side by side."""
        self.buckets = buckets
        """Whose counters."""

    @classmethod
    def of(cls, charges: Iterable[Charge]) -> Charges:
        """Those charges, if they are not in this form."""
        if isinstance(charges, cls):
            return charges
        lines: list[Line] = []
        buckets: list[str] = []
        for bucket, limit, cost, enforce, policy in charges:
            if not buckets or bucket != buckets[-1]:
                buckets.append(bucket)
            lines.append((len(buckets) - 1, limit, cost, enforce, policy))
        return cls(tuple(lines), tuple(buckets))

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> Charge: ...
    @overload
    def __getitem__(self, index: slice) -> list[Charge]: ...
    def __getitem__(self, index: int | slice) -> Charge | list[Charge]:
        if isinstance(index, slice):
            return [*self][index]
        place, limit, cost, enforce, policy = self.lines[index]
        return Charge(self.buckets[place], limit, cost, enforce, policy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}.of({[*self]})"


def buckets_of(lines: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """Where the lines of each bucket begin and end."""
    start = 0
    for end, line in enumerate(lines, start=1):
        if end == len(lines) or lines[end][0] != line[0]:
            yield start, end
            start = end


class Outcome(NamedTuple):
    """What the storage found for one charge."""

    wait_ms: int
    """Until the charge would fit: 0 if it fitted, NEVER_MS if it never will."""
    remaining: int
    """How much of the limit is left after this request."""
    reset_ms: int
    """Until ``remaining`` next grows: 0 if nothing is used."""


Measured: TypeAlias = "tuple[int, int, int] | tuple[int, int, int, object]"
"""wait_ms, remaining and reset_ms of an Outcome, and whatever else the storage found."""


class Decision(NamedTuple):
    """Whether a request may pass, and what was measured for each of its charges.

    All enforced charges were counted, or none was.
    """

    granted: bool
    charges: Sequence[Charge]
    measured: Sequence[Measured]
    """For each charge, in the same order, what its outcome says."""

    @property
    def outcomes(self) -> list[Outcome]:
        """One for each charge, in the same order."""
        return [Outcome(*one[:3]) for one in self.measured]

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
        """The one limit to tell a client of: the longest wait of a refusal; else the least
        remaining, and of these the latest reset. None where nothing was enforced."""
        if self.granted:
            return min(self.enforced, key=_room, default=None)
        return max(self.refusing, key=lambda pair: pair[1].wait_ms)

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds, rounded up, at least 1, after which the request would fit. None for a
        granted request, and where no time will help."""
        waits = [outcome.wait_ms for _, outcome in self.refusing]
        if not waits or max(waits) >= NEVER_MS:
            return None
        return seconds_up(max(waits))


def _room(pair: tuple[Charge, Outcome]) -> tuple[int, int]:
    return pair[1].remaining, -pair[1].reset_ms


def seconds_up(milliseconds: int) -> int:
    """Whole seconds, rounded up, so that who waits as long never comes too early."""
    return -(-milliseconds // 1000)
