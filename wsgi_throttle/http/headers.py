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

from ..cache import Prepared
from ..decision import NEVER_MS, Charge, Charges, Decision, Line, Measured, Outcome, seconds_up

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

MAX_PREPARED = 16_384
"""Of how many lines a LimitHeaders keeps the prepared texts before it starts afresh, and how many
names of headers are known to tell of no limits."""

_MORE_THAN_ANY = 1 << 62


# Plain tuples, which Python takes apart several times as fast as named ones.

_Policy: TypeAlias = tuple[int, Header, str]
"""What is the same in every response that tells of a charge: its place among the charges, the
header of its quota, and its item of RateLimit for two numbers."""

_Policies: TypeAlias = tuple[Header, tuple[_Policy, ...], str, bool]
"""The same for all charges that are enforced: the header that names them, each of them, all items
of RateLimit, and whether a name is there twice."""


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
            if name not in _unrelated and _may_tell_of_limits(name):
                x_ratelimit = x_ratelimit and not _is_of(_X_RATELIMIT, present)
                ietf = ietf and not _is_of(_IETF, present)
                break
        if not (x_ratelimit or ietf):
            return []

        granted, charges, measured = decision
        if charges.__class__ is not Charges:
            charges = Charges.of(charges)
        lines = charges.lines
        known = self._prepared.get(id(lines))
        header, policies, items, are_repeated = known[1] if known else self._prepare(lines)
        if are_repeated:
            return self.pairs(_one_each(decision), now_s, present)
        if not policies:
            return []
        if not granted:
            policies, items = _refusing(policies, measured)
        least, due_ms = _MORE_THAN_ANY, 0
        numbers: tuple[int, ...] = ()
        for index, quota, _ in policies:
            found = measured[index]
            remaining = found[1]
            if granted:
                ms = found[2]
                tighter = remaining < least or (remaining == least and ms > due_ms)
            else:
                ms = found[0]
                tighter = ms > due_ms
            if tighter:
                tightest, least, due_ms = quota, remaining, ms
            numbers += (remaining, (ms + 999) // 1000)

        pairs = [header, ("RateLimit", items % numbers)] if ietf else []
        if x_ratelimit:
            reset = str(ceil(now_s + due_ms / 1000))
            pairs += tightest, ("X-RateLimit-Remaining", str(least)), ("X-RateLimit-Reset", reset)
        return pairs if due_ms < NEVER_MS else _without_time(pairs)

    def _prepare(self, lines: Sequence[Line]) -> _Policies:
        return self._prepared.keep_for(lines, _policies(lines))


def _policies(lines: Iterable[Line]) -> _Policies:
    named = []
    each = []
    names = []
    for index, (_, limit, _, enforce, name) in enumerate(lines):
        if enforce:
            # Who keeps to the quota in a window rounded up keeps to it in the real one. Under a
            # second no whole number is near.
            window = f";w={seconds_up(limit.window_ms)}" if limit.window_ms >= 1000 else ""
            named.append(f'"{name}";q={limit.quota}{window}')
            quoted = name.replace("%", "%%")
            each.append((index, ("X-RateLimit-Limit", str(limit.quota)), f'"{quoted}";r=%d;t=%d'))
            names.append(name)
    header = ("RateLimit-Policy", ", ".join(named))
    return header, tuple(each), _items(each), len(set(names)) < len(names)


def _items(policies: Iterable[_Policy]) -> str:
    return ", ".join([item for _, _, item in policies])


def _refusing(
    policies: Iterable[_Policy], measured: Sequence[Measured]
) -> tuple[tuple[_Policy, ...], str]:
    """Those of the policies whose limits refuse, and their items of RateLimit."""
    found = tuple(policy for policy in policies if measured[policy[0]][0])
    return found, _items(found)


_unrelated: set[str] = set()
"""Names of headers that tell of no limits, as applications wrote them."""


def _may_tell_of_limits(name: str) -> bool:
    if "ratelimit" in name.lower():
        return True
    if len(_unrelated) < MAX_PREPARED:
        _unrelated.add(name)
    return False


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
