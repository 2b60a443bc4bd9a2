"""What a response tells of its limits: a decision -> header pairs, by one of several conventions.

``x-ratelimit`` is what GitHub, GitLab and Flask-Limiter send: three numbers, of the tightest limit.
``ietf`` is draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy`` and ``RateLimit``, Structured
Fields (RFC 9651) that list every limit. Nothing here reads a clock, and shadow charges are never
told of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import NamedTuple, TypeAlias

from ..decision import NEVER_MS, Decision, Measured, Term, Terms, seconds_up, tightest_of

Header: TypeAlias = tuple[str, str]

Writer: TypeAlias = Callable[[list[Header], bool, Sequence[Measured], int, float], None]
"""(pairs, whether the request is granted, what was measured for each term, the index of the
tightest term, seconds since the epoch): add the convention's pairs to the list."""


class HeaderStyle(NamedTuple):
    """One convention."""

    family: str
    """How the names of its fields begin, in lower case. An application that sets one of a family
    has its own idea of all of them."""
    names: tuple[str, ...]
    """All fields that it may send."""
    compile: Callable[[Terms], Writer]
    """Makes the writer for all decisions on these terms, of which at least one is enforced."""


MAX_UNRELATED = 16_384
"""How many names of headers are remembered to tell of no limits."""


class LimitHeaders:
    """The header pairs of one configuration. Any thread may call it.

    :param style: one of HEADER_STYLES.
    """

    def __init__(self, style: str) -> None:
        self._styles = HEADER_STYLES[style]
        self.names: tuple[str, ...] = tuple(name for each in self._styles for name in each.names)
        """All that a response may carry."""
        self._families = tuple(style.family for style in self._styles)
        self._unrelated: set[str] = set()
        """Names of headers that are of no family, as applications wrote them."""

    def pairs(
        self, decision: Decision, now_s: float, present: Sequence[Header] = ()
    ) -> list[Header]:
        """What to add to a response; nothing where no limit is enforced.

        :param now_s: seconds since the epoch.
        :param present: the headers that the response has. No family that one of them belongs to is
            added.
        """
        # To take a named tuple apart takes much longer.
        granted, terms, measured = decision.granted, decision.terms, decision.measured
        writers: Sequence[Writer] | None = terms.prepared.get(self)
        if writers is None:
            writers = self._compile(terms)
        unrelated = self._unrelated
        for name, _ in present:
            if name not in unrelated and self._is_of_a_family(name):
                writers = self._allowed(writers, present)
                break
        pairs: list[Header] = []
        if writers:
            tightest = tightest_of(granted, terms.enforced, measured)
            for write in writers:
                write(pairs, granted, measured, tightest, now_s)
        return pairs

    def _compile(self, terms: Terms) -> Sequence[Writer]:
        writers = [style.compile(terms) for style in self._styles if terms.enforced]
        terms.prepared[self] = writers
        return writers

    def _allowed(self, writers: Iterable[Writer], present: Sequence[Header]) -> list[Writer]:
        """Those of the families that none of these headers is of."""
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

    def write(
        pairs: list[Header],
        granted: bool,
        measured: Sequence[Measured],
        tightest: int,
        now_s: float,
    ) -> None:
        wait_ms, remaining, reset_ms = measured[tightest]
        ms = wait_ms or reset_ms
        pairs += quotas[tightest], ("X-RateLimit-Remaining", str(remaining))
        if ms < NEVER_MS:
            pairs.append(("X-RateLimit-Reset", str(ceil(now_s + ms / 1000))))

    return write


# --- ietf -----------------------------------------------------------------------------------------


def _ietf(terms: Terms) -> Writer:
    # A rule that counts several keys of one request charges one limit several times, and a policy
    # may be listed once.
    by_name: dict[str, list[int]] = {}
    for index in terms.enforced:
        by_name.setdefault(terms[index].policy, []).append(index)
    enforced = terms.enforced
    policies = ("RateLimit-Policy", ", ".join(_policy(terms[index]) for index in enforced))
    names = [name.replace("%", "%%") for name in by_name]
    template = ", ".join(f'"{name}";r=%d;t=%d' for name in names)

    def write(
        pairs: list[Header],
        granted: bool,
        measured: Sequence[Measured],
        tightest: int,
        now_s: float,
    ) -> None:
        if not granted:
            write_chosen(pairs, granted, measured, tightest, now_s)
            return
        numbers: tuple[int, ...] = ()
        for _, remaining, reset_ms in measured:
            numbers += (remaining, (reset_ms + 999) // 1000)
        pairs += policies, ("RateLimit", template % numbers)

    def write_chosen(
        pairs: list[Header],
        granted: bool,
        measured: Sequence[Measured],
        tightest: int,
        now_s: float,
    ) -> None:
        """Each policy once, by its tightest term; and in a refusal only limits that refuse."""
        indexes = [tightest_of(granted, among, measured) for among in by_name.values()]
        items = [
            _item(terms[index].policy, measured[index])
            for index in indexes
            if granted or measured[index][0]
        ]
        listed = ", ".join(_policy(terms[index]) for index in indexes)
        pairs += ("RateLimit-Policy", listed), ("RateLimit", ", ".join(items))

    # As a rule every term is told, and under a name of its own.
    return write if len(by_name) == len(terms) else write_chosen


def _policy(term: Term) -> str:
    """An item of RateLimit-Policy."""
    # Who keeps to the quota in a window rounded up keeps to it in the real one. Under a second no
    # whole number is near.
    window_ms = term.limit.window_ms
    window = f";w={seconds_up(window_ms)}" if window_ms >= 1000 else ""
    return f'"{term.policy}";q={term.limit.quota}{window}'


def _item(name: str, measured: Measured) -> str:
    """An item of RateLimit."""
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
"""What a configuration may name, and the conventions that it stands for."""
