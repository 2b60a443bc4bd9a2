"""What a response tells of its limits: a decision -> header pairs, by either of two conventions.

``x-ratelimit`` is what GitHub, GitLab and Flask-Limiter send: three numbers, of the tightest limit.
``ietf`` is draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy`` and ``RateLimit``, Structured
Fields (RFC 9651) that list every limit. Nothing here reads a clock, and shadow charges are never
told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import NamedTuple, TypeAlias

from .cache import Bounded, Prepared
from .decision import NEVER_MS, Charge, Decision, Outcome, seconds_up

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

MAX_PREPARED = 1024
"""How many prepared texts a LimitHeaders keeps of each kind before it starts afresh."""

_MORE_THAN_ANY = 1 << 62


class _Policy(NamedTuple):
    """The texts of one limit that are the same in every response."""

    limit_header: Header
    item: str


class _Policies(NamedTuple):
    """The texts of all limits of a request that are the same in every response."""

    header: Header
    each: tuple[_Policy | None, ...]
    """One for each charge; None for a shadow charge."""
    are_repeated: bool
    """A policy is there twice."""


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
        self._prepared: Prepared[_Policies] = Prepared(MAX_PREPARED)
        self._alike: Bounded[tuple[tuple[str, str, bool], ...], _Policies] = Bounded(MAX_PREPARED)

    def pairs(
        self, decision: Decision, now_s: float, present: Sequence[Header] = ()
    ) -> list[Header]:
        """What to add to a response; nothing where no limit is enforced.

        :param now_s: seconds since the epoch.
        :param present: the headers that the response has. No family that one of them belongs to is
            added.
        """
        x_ratelimit, ietf = self._x_ratelimit, self._ietf
        for name, _ in present:
            if _is_ours[name]:
                x_ratelimit = x_ratelimit and not _is_of(_X_RATELIMIT, present)
                ietf = ietf and not _is_of(_IETF, present)
                break
        if not (x_ratelimit or ietf):
            return []

        granted, charges, measured = decision
        known = self._prepared.get(id(charges))
        header, policies, are_repeated = (
            known[1] if known and known[0] is charges else self._prepare(charges)
        )
        if are_repeated:
            return self.pairs(_one_each(decision), now_s, present)
        tightest: Header | None = None
        least, latest_ms, left = _MORE_THAN_ANY, 0, ""
        items = ""
        for index, policy in enumerate(policies):  # zip costs as much as a header
            if policy is None:
                continue
            one = measured[index]
            remaining = one[1]
            if granted:
                due_ms = one[2]
                tighter = remaining < least or (remaining == least and due_ms > latest_ms)
            else:
                due_ms = one[0]
                if not due_ms:
                    continue
                tighter = due_ms > latest_ms
            text = str(remaining)
            if tighter:
                tightest, least, latest_ms, left = policy[0], remaining, due_ms, text
            items += f"{policy[1]}{text};t={(due_ms + 999) // 1000}"
        if tightest is None:
            return []

        pairs = [header, ("RateLimit", items[2:])] if ietf else []
        if x_ratelimit:
            reset = str(ceil(now_s + latest_ms / 1000))
            pairs += tightest, ("X-RateLimit-Remaining", left), ("X-RateLimit-Reset", reset)
        return pairs if latest_ms < NEVER_MS else _without_time(pairs)

    def _prepare(self, charges: Sequence[Charge]) -> _Policies:
        alike = tuple(
            dict.fromkeys(
                [(policy, limit.tag, enforce) for _, limit, _, enforce, policy in charges]
            )
        )
        if len(alike) < len(charges):
            return _REPEATED
        policies = self._alike.get(alike) or self._alike.keep(alike, _policies(charges))
        return self._prepared.keep_for(charges, policies)


def _policies(charges: Iterable[Charge]) -> _Policies:
    lines = []
    each: list[_Policy | None] = []
    names = []
    for _, limit, _, enforce, name in charges:
        if not enforce:
            each.append(None)
            continue
        # Who keeps to the quota in a window rounded up keeps to it in the real one. Under a second
        # no whole number is near.
        window = f";w={seconds_up(limit.window_ms)}" if limit.window_ms >= 1000 else ""
        lines.append(f'"{name}";q={limit.quota}{window}')
        each.append(_Policy(("X-RateLimit-Limit", str(limit.quota)), f', "{name}";r='))
        names.append(name)
    header = ("RateLimit-Policy", ", ".join(lines))
    return _Policies(header, tuple(each), len(set(names)) < len(names))


_REPEATED = _Policies(("", ""), (), are_repeated=True)


class _Names(Bounded[str, bool]):
    """Whether a response that has this header may be telling of limits itself."""

    __slots__ = ()

    def __missing__(self, name: str) -> bool:
        return self.keep(name, "ratelimit" in name.lower())


_is_ours = _Names(1024)


def _is_of(style: HeaderStyle, present: Sequence[Header]) -> bool:
    return any(name.lower().startswith(style.family) for name, _ in present)


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
