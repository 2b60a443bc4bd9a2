"""Checks for what keeps a rule set from being used."""

from __future__ import annotations

from collections.abc import Iterator

from ...decision import Limit
from ..patterns import why_slow_to_match
from .checked import Check, Checked, Finding, all_limits, known_as, pairs

MAX_LIMITS = 255
"""How many different limits may share scope and key: the record of a bucket holds no more."""


def _clashes(checked: Checked) -> Iterator[Finding]:
    for first, second in pairs(checked.rules, lambda pattern: pattern.signatures):
        if set(first.methods) == set(second.methods) and first.mode == second.mode:
            yield Finding(
                second,
                f"it can never be told from the rule {known_as(first)}: "
                "same path, same methods; merge them, or take one out",
            )


def _too_many_limits(checked: Checked) -> Iterator[Finding]:
    counted: dict[tuple[str, tuple[str, ...]], set[Limit]] = {}
    for subject, limits in all_limits(checked):
        crowded = False
        for one in limits:
            counter = counted.setdefault((one.scope, one.key), set())
            if one.limit not in counter:
                counter.add(one.limit)
                crowded = crowded or len(counter) == MAX_LIMITS + 1
        if crowded:  # by these limits, and not before them
            yield Finding(
                subject,
                f"its scope counts by more than {MAX_LIMITS} limits: leave some out, or give it "
                "another scope",
            )


def _slow_to_match(checked: Checked) -> Iterator[Finding]:
    reason = why_slow_to_match(pattern for rule in checked.rules for pattern in rule.patterns)
    if reason:
        yield Finding("rules", reason)


ERRORS: dict[str, Check] = {
    "rules-clash": _clashes,
    "too-many-limits": _too_many_limits,
    "slow-to-match": _slow_to_match,
}
