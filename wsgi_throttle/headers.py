"""What a response tells of its limits: a decision -> header pairs, by either of two conventions.

``x-ratelimit`` is what GitHub, GitLab and Flask-Limiter send: three numbers, of the tightest limit.
``ietf`` is draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy`` and ``RateLimit``, Structured
Fields (RFC 9651) that list every limit. Nothing here reads a clock, and shadow charges are never
told of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from .decision import NEVER_MS, Charge, Decision, Limit, Outcome, seconds_up

Header: TypeAlias = tuple[str, str]


class HeaderStyle(NamedTuple):
    """One convention."""

    family: str
    """How the names of its fields begin, in lower case. An application that sets one of a family
    has its own idea of all of them."""
    names: tuple[str, ...]


_X_RATELIMIT = HeaderStyle(
    "x-ratelimit-", ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
)
_IETF = HeaderStyle("ratelimit", ("RateLimit-Policy", "RateLimit"))

MAX_POLICIES = 4096
"""How many prepared texts one LimitHeaders keeps before it starts afresh."""


_MORE_THAN_ANY = 1 << 62


class Policy:
    """The texts of one limit that are the same in every response.

    The limits of a rule come in the same order on every request, so each leads to those that were
    seen to follow it, and the last of a request holds the line that names them all.
    """

    __slots__ = ("following", "item", "limit", "limit_header", "names", "policy_header")

    def __init__(self, name: str, limit: Limit, before: Policy | None) -> None:
        # Who keeps to the quota in a window rounded up keeps to it in the real one. Under a second
        # no whole number is near.
        window = f";w={seconds_up(limit.window_ms)}" if limit.window_ms >= 1000 else ""
        line = f'"{name}";q={limit.quota}{window}'
        if before is not None:
            line = f"{before.policy_header[1]}, {line}"
        self.limit = limit
        self.limit_header: Header = ("X-RateLimit-Limit", str(limit.quota))
        self.policy_header: Header = ("RateLimit-Policy", line)
        self.item = f'"{name}";r='
        self.names: frozenset[str] = (before.names if before else frozenset()) | {name}
        self.following: dict[str, Policy] = {}


class LimitHeaders:
    """The header pairs of one configuration. Any thread may call it.

    :param style: one of HEADER_STYLES.
    """

    def __init__(self, style: str) -> None:
        styles = HEADER_STYLES[style]
        self.names: tuple[str, ...] = tuple(name for each in styles for name in each.names)
        """All that a response may carry."""
        self._x_ratelimit = _X_RATELIMIT in styles
        self._ietf = _IETF in styles
        self._first: dict[str, Policy] = {}
        self._policies = 0

    def pairs(
        self, decision: Decision, now_ms: int, present: Iterable[Header] = ()
    ) -> list[Header]:
        """What to add to a response; nothing where no limit is enforced.

        :param now_ms: milliseconds since the epoch.
        :param present: the headers that the response has. No family that one of them belongs to is
            added.
        """
        x_ratelimit, ietf = self._x_ratelimit, self._ietf
        for name, _ in present:
            lower = name.lower()
            if "ratelimit" in lower:
                if lower.startswith(_IETF.family):
                    ietf = False
                elif lower.startswith(_X_RATELIMIT.family):
                    x_ratelimit = False
        if not (x_ratelimit or ietf):
            return []

        granted, charges, outcomes = decision
        following = self._first
        last: Policy | None = None
        tightest: Policy | None = None
        least, latest_ms = _MORE_THAN_ANY, 0
        items = ""
        for charge, outcome in zip(charges, outcomes):  # noqa: B905 -- strict costs as much as a header
            if not charge.enforce:
                continue
            policy = following.get(charge.policy)
            if policy is None or policy.limit is not charge.limit:
                if last is not None and charge.policy in last.names:
                    return self.pairs(_one_each(decision), now_ms, present)
                policy = self._prepare(charge, last)
            last = policy
            following = policy.following
            remaining = outcome.remaining
            if granted:
                due_ms = outcome.reset_ms
                tighter = remaining < least or (remaining == least and due_ms > latest_ms)
            else:
                due_ms = outcome.wait_ms
                if not due_ms:
                    continue
                tighter = due_ms > latest_ms
            if tighter:
                tightest, least, latest_ms = policy, remaining, due_ms
            items = f"{items}, {policy.item}{remaining};t={-(-due_ms // 1000)}"
        if last is None or tightest is None:
            return []

        pairs = [last.policy_header, ("RateLimit", items[2:])] if ietf else []
        if x_ratelimit:
            reset = str(-(-(now_ms + latest_ms) // 1000))
            pairs += (
                tightest.limit_header,
                ("X-RateLimit-Remaining", str(least)),
                ("X-RateLimit-Reset", reset),
            )
        return pairs if latest_ms < NEVER_MS else _without_time(pairs)

    def _prepare(self, charge: Charge, before: Policy | None) -> Policy:
        # Threads may lose one another's entries, which are then made again.
        if self._policies >= MAX_POLICIES:
            self._policies = 0
            self._first.clear()
        self._policies += 1
        policy = Policy(charge.policy, charge.limit, before)
        (before.following if before else self._first)[charge.policy] = policy
        return policy


def _without_time(pairs: list[Header]) -> list[Header]:
    """The pairs of a refusal that no time will lift."""
    return [
        (name, value.replace(f";t={seconds_up(NEVER_MS)}", ""))
        for name, value in pairs
        if name != "X-RateLimit-Reset"
    ]


def _one_each(decision: Decision) -> Decision:
    """The decision with the tightest charge of each policy: a rule that counts several keys of one
    request charges one limit several times, and a policy may be listed once."""
    kept: dict[str, tuple[Charge, Outcome]] = {}
    for charge, outcome in decision.enforced:
        before = kept.get(charge.policy)
        if before is None or _tightness(outcome) > _tightness(before[1]):
            kept[charge.policy] = charge, outcome
    return Decision(decision.granted, *zip(*kept.values(), strict=True))


def _tightness(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.wait_ms, -outcome.remaining, outcome.reset_ms


HEADER_STYLES: dict[str, tuple[HeaderStyle, ...]] = {
    "x-ratelimit": (_X_RATELIMIT,),
    "ietf": (_IETF,),
    "both": (_X_RATELIMIT, _IETF),
    "none": (),
}
"""What a configuration may name, and the conventions that it stands for."""
