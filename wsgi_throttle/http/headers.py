"""The headers that tell a client about its limits, in one or several conventions.

``x-ratelimit`` is what GitHub, GitLab and Flask-Limiter send: three numbers about the tightest
limit. ``ietf`` is draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy`` and ``RateLimit``,
Structured Fields (RFC 9651) that list every limit. Nothing here reads a clock, and shadow charges
never appear in a header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import NamedTuple, TypeAlias

from ..decision import NEVER_MS, Decision, Measured, Term, Terms, seconds_up, tightest_of

Header: TypeAlias = tuple[str, str]

Writer: TypeAlias = Callable[[Decision, int, float], Sequence[Header]]
"""Function of (the decision, the index of its tightest term, now in seconds since the epoch) that
returns the header pairs of one convention."""


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
        self, decision: Decision, now_s: float, present: Sequence[Header] = ()
    ) -> list[Header]:
        """The headers to add to a response; none where no limit is enforced.

        :param now_s: seconds since the epoch.
        :param present: the headers that the response already has. A family that one of them belongs
            to is left out.
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
            for write in writers:
                pairs += write(decision, tightest, now_s)
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
    quotas = [("X-RateLimit-Limit", str(term.limit.quota)) for term in terms]

    def write(decision: Decision, tightest: int, now_s: float) -> Sequence[Header]:
        wait_ms, remaining, reset_ms = decision.measured[tightest]
        ms = wait_ms or reset_ms
        left = ("X-RateLimit-Remaining", str(remaining))
        if ms >= NEVER_MS:
            return quotas[tightest], left
        return quotas[tightest], left, ("X-RateLimit-Reset", str(ceil(now_s + ms / 1000)))

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

    def write_all(decision: Decision, tightest: int, now_s: float) -> Sequence[Header]:
        """The fast way, for a granted request of which each term has a policy of its own."""
        if not decision.granted:
            return write_chosen(decision, tightest, now_s)
        numbers: tuple[int, ...] = ()
        for _, remaining, reset_ms in decision.measured:
            numbers += (remaining, (reset_ms + 999) // 1000)
        return policies, ("RateLimit", template % numbers)

    def write_chosen(decision: Decision, tightest: int, now_s: float) -> Sequence[Header]:
        """Each policy once, by its tightest term. A refusal has only the policies that refuse in
        its ``RateLimit``."""
        granted, measured = decision.granted, decision.measured
        indexes = [tightest_of(granted, among, measured) for among in by_policy.values()]
        items = [
            _item(terms[index].policy, measured[index])
            for index in indexes
            if granted or measured[index][0]
        ]
        listed = ", ".join(_policy(terms[index]) for index in indexes)
        return ("RateLimit-Policy", listed), ("RateLimit", ", ".join(items))

    return write_all if len(by_policy) == len(terms) else write_chosen


def _policy(term: Term) -> str:
    """An item of RateLimit-Policy, whose window ``w`` is in whole seconds."""
    # It is rounded up, so that a client that keeps to it also keeps to the real window. A window
    # below one second has no whole number that is near enough, so its ``w`` is left out.
    window_ms = term.limit.window_ms
    window = f";w={seconds_up(window_ms)}" if window_ms >= 1000 else ""
    return f'"{term.policy}";q={term.limit.quota}{window}'


def _item(name: str, measured: Measured) -> str:
    """An item of RateLimit: what remains ``r``, and after how many seconds there is more ``t``."""
    wait_ms, remaining, reset_ms = measured
    ms = wait_ms or reset_ms
    time = f";t={seconds_up(ms)}" if ms < NEVER_MS else ""
    return f'"{name}";r={remaining}{time}'


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
