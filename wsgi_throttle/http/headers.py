"""The headers that tell a client about its limits, in one or several conventions.

``x-ratelimit`` is what GitHub, GitLab and Flask-Limiter send: three numbers about the tightest
limit. ``ietf`` is draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy`` and ``RateLimit``,
Structured Fields (RFC 9651) that list every limit. Nothing here reads a clock, and shadow charges
never appear in a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import NamedTuple, Protocol, TypeAlias

from ..decision import NEVER_MS, Decision, Measured, Term, Terms, seconds_up, tightest_of

Header: TypeAlias = tuple[str, str]


class Writer(Protocol):
    """Makes the header pairs of one convention."""

    def __call__(
        self, decision: Decision, tightest: int, decided_s: float, passed_s: int = 0
    ) -> Sequence[Header]:
        """The pairs for this decision.

        :param tightest: the index of its tightest term.
        :param decided_s: when it was made, in seconds since the epoch.
        :param passed_s: the whole seconds since then.
        """


class HeaderStyle(NamedTuple):
    """One convention."""

    family: str
    """The prefix that all header names of the convention share, in lower case. Where the
    application sets a header with this prefix, none of this convention is added."""
    names: tuple[str, ...]
    """The names of all headers that the convention may add."""
    compile: Callable[[Terms], Writer]
    """Makes the writer for all decisions on these terms, at least one of which is enforced."""


MAX_UNRELATED = 16_384
"""How many header names of applications are remembered as belonging to no family."""


class LimitHeaders:
    """Makes the limit headers of one configuration. Any thread may call it.

    :param style: a key of HEADER_STYLES.
    """

    def __init__(self, style: str) -> None:
        self._styles = HEADER_STYLES[style]
        self.names: tuple[str, ...] = tuple(name for each in self._styles for name in each.names)
        """The names of all headers that may be added to a response."""
        self._families = tuple(style.family for style in self._styles)
        self._unrelated: set[str] = set()
        """Header names that belong to no family, spelled as the application spelled them."""

    def pairs(
        self,
        decision: Decision,
        decided_s: float,
        present: Sequence[Header] = (),
        answered_s: float = 0,
    ) -> list[Header]:
        """The headers to add to a response; none where no limit is enforced.

        :param decided_s: when the decision was made, in seconds since the epoch.
        :param present: the headers that the response already has. A family that one of them belongs
            to is left out.
        :param answered_s: when the response begins, if that may be later. What is told in seconds
            from now is then less by the whole seconds since the decision.
        """
        terms = decision.terms
        writers: Sequence[Writer] | None = terms.prepared.get(self)
        if writers is None:
            writers = self._compile(terms)
        unrelated = self._unrelated
        for name, _ in present:
            if name not in unrelated and self._is_of_a_family(name):
                writers = self._of_other_families(writers, present)
                break
        pairs: list[Header] = []
        if writers:
            tightest = tightest_of(decision.granted, terms.enforced, decision.measured)
            if answered_s - decided_s >= 1:
                passed_s = int(answered_s - decided_s)
                for write in writers:
                    pairs += write(decision, tightest, decided_s, passed_s)
                return pairs
            for write in writers:
                pairs += write(decision, tightest, decided_s)
        return pairs

    def _compile(self, terms: Terms) -> Sequence[Writer]:
        writers = [style.compile(terms) for style in self._styles if terms.enforced]
        terms.prepared[self] = writers
        return writers

    def _of_other_families(
        self, writers: Iterable[Writer], present: Sequence[Header]
    ) -> list[Writer]:
        """The writers of those families to which no header of the response belongs."""
        names = [name.lower() for name, _ in present]
        return [
            write
            for style, write in zip(self._styles, writers, strict=False)
            if not any(name.startswith(style.family) for name in names)
        ]

    def _is_of_a_family(self, name: str) -> bool:
        if name.lower().startswith(self._families):
            return True
        if len(self._unrelated) < MAX_UNRELATED:
            self._unrelated.add(name)
        return False


# --- x-ratelimit ----------------------------------------------------------------------------------


def _x_ratelimit(terms: Terms) -> Writer:
    # A token bucket with a burst above its quota has up to the burst remaining.
    limits = [("X-RateLimit-Limit", str(max(term.limit.quota, term.limit.burst))) for term in terms]

    def write(
        decision: Decision, tightest: int, decided_s: float, passed_s: int = 0
    ) -> Sequence[Header]:
        wait_ms, remaining, reset_ms = decision.measured[tightest]
        ms = wait_ms or reset_ms
        left = ("X-RateLimit-Remaining", str(remaining))
        if ms >= NEVER_MS:
            return limits[tightest], left
        return limits[tightest], left, ("X-RateLimit-Reset", str(ceil(decided_s + ms / 1000)))

    return write


# --- ietf -----------------------------------------------------------------------------------------


def _ietf(terms: Terms) -> Writer:
    # Several terms have one policy where a rule counts several keys of one request, but the draft
    # allows each policy name only once in a header.
    by_policy: dict[str, list[int]] = {}
    for index in terms.enforced:
        by_policy.setdefault(terms[index].policy, []).append(index)
    enforced = terms.enforced
    policies = ("RateLimit-Policy", ", ".join(_policy(terms[index]) for index in enforced))
    names = [name.replace("%", "%%") for name in by_policy]
    template = ", ".join(f'"{name}";r=%d;t=%d' for name in names)

    def write_all(
        decision: Decision, tightest: int, decided_s: float, passed_s: int = 0
    ) -> Sequence[Header]:
        """The fast way, for a granted request that is answered within a second, if each term has a
        policy of its own and none has a burst above its quota."""
        if passed_s or not decision.granted:
            return write_chosen(decision, tightest, decided_s, passed_s)
        numbers: tuple[int, ...] = ()
        for _, remaining, reset_ms in decision.measured:
            numbers += (remaining, (reset_ms + 999) // 1000)
        return policies, ("RateLimit", template % numbers)

    def write_chosen(
        decision: Decision, tightest: int, decided_s: float, passed_s: int = 0
    ) -> Sequence[Header]:
        """Each policy once, by its tightest term. A refusal has only the policies that refuse in
        its ``RateLimit``."""
        granted, measured = decision.granted, decision.measured
        indexes = [tightest_of(granted, among, measured) for among in by_policy.values()]
        items = [
            _item(terms[index], measured[index], passed_s)
            for index in indexes
            if granted or measured[index][0]
        ]
        listed = ", ".join(_policy(terms[index]) for index in indexes)
        return ("RateLimit-Policy", listed), ("RateLimit", ", ".join(items))

    has_large_burst = any(term.limit.burst > term.limit.quota for term in terms)
    return write_chosen if has_large_burst or len(by_policy) < len(terms) else write_all


def _policy(term: Term) -> str:
    """An item of RateLimit-Policy, whose window ``w`` is in whole seconds."""
    # It is rounded up, so that a client that keeps to it also keeps to the real window. A window
    # below one second has no whole number that is near enough, so its ``w`` is left out.
    window_ms = term.limit.window_ms
    window = f";w={seconds_up(window_ms)}" if window_ms >= 1000 else ""
    return f'"{term.policy}";q={term.limit.quota}{window}'


def _item(term: Term, measured: Measured, passed_s: int) -> str:
    """An item of RateLimit: what remains ``r``, and after how many seconds there is more ``t``."""
    wait_ms, remaining, reset_ms = measured
    ms = wait_ms or reset_ms
    time = f";t={max(0, seconds_up(ms) - passed_s)}" if ms < NEVER_MS else ""
    # ``r`` is a part of the policy's ``q``, so that a larger burst cannot be told.
    return f'"{term.policy}";r={min(remaining, term.limit.quota)}{time}'


X_RATELIMIT = HeaderStyle(
    "x-ratelimit-",
    ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
    _x_ratelimit,
)
IETF = HeaderStyle("ratelimit", ("RateLimit-Policy", "RateLimit"), _ietf)

HEADER_STYLES: dict[str, tuple[HeaderStyle, ...]] = {
    "x-ratelimit": (X_RATELIMIT,),
    "ietf": (IETF,),
    "both": (X_RATELIMIT, IETF),
    "none": (),
}
"""The values of the option ``headers``, and the conventions that each of them sends."""
