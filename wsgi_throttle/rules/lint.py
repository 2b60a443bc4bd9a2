"""Checks of a whole rule set before it serves: errors, and warnings of what is doubtful.

Each check is a function that yields what is wrong, and where. To add one, write the function and
its row in ERRORS or WARNINGS, under the code of its diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

from ..decision import Limit
from ..errors import Diagnostic
from ..identity import is_client_controlled
from ..limits import describe
from .model import Location, Rule, RuleLimit, RuleSet
from .patterns import Pattern, why_slow_to_match

MAX_LIMITS = 255
"""How many different limits may share scope and key: the record of a bucket holds no more."""


@dataclass(frozen=True)
class Checked:
    """What a check is given."""

    rule_set: RuleSet
    rules: tuple[Rule, ...]
    """The rules whose own mode is not ``off``."""
    reach: str
    """See :attr:`.Storage.reach`."""


class Finding(NamedTuple):
    """What a check found."""

    subject: Rule | str
    """The rule, or the name of the option of the top level, that is to be changed."""
    message: str
    """What is wrong, and what to write instead."""


Check: TypeAlias = Callable[[Checked], Iterator[Finding]]


def errors(rule_set: RuleSet) -> list[Diagnostic]:
    """The errors in a rule set, because of which it cannot be used.

    They are looked for even if its mode is ``off``, since that may be turned on.
    """
    return _found("error", ERRORS, rule_set, "process")


def warnings(rule_set: RuleSet, *, reach: str = "process") -> list[Diagnostic]:
    """The warnings of a rule set that has no errors.

    :param reach: which requests the storage counts together, see :attr:`.Storage.reach`.
    """
    return _found("warning", WARNINGS, rule_set, reach)


def _found(
    severity: Literal["error", "warning"],
    checks: Mapping[str, Check],
    rule_set: RuleSet,
    reach: str,
) -> list[Diagnostic]:
    checked = Checked(rule_set, tuple(rule for rule in rule_set.rules if rule.mode != "off"), reach)
    return [
        Diagnostic(severity, code, rule_set.source, at.line, at.column, at.where, message)
        for code, check in checks.items()
        for subject, message in check(checked)
        for at in (_location(rule_set, subject),)
    ]


def _location(rule_set: RuleSet, subject: Rule | str) -> Location:
    if isinstance(subject, Rule):
        return subject.location
    return rule_set.locations.get(subject, Location(subject))


# --- errors ---------------------------------------------------------------------------------------


def _clashes(checked: Checked) -> Iterator[Finding]:
    for first, second in _pairs(checked.rules, lambda pattern: pattern.signatures):
        if set(first.methods) == set(second.methods) and first.mode == second.mode:
            yield Finding(
                second,
                f"it can never be told from the rule {_known_as(first)}: "
                "same path, same methods; merge them, or take one out",
            )


def _too_many_limits(checked: Checked) -> Iterator[Finding]:
    counted: dict[tuple[str, tuple[str, ...]], set[Limit]] = {}
    for subject, limits in _all_limits(checked):
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

# --- warnings -------------------------------------------------------------------------------------


def _overlaps(checked: Checked) -> Iterator[Finding]:
    for first, second in _pairs(checked.rules, lambda pattern: pattern.shapes[-1:]):
        if first.mode == second.mode:
            yield Finding(
                second,
                f"some requests fit this rule and {_known_as(first)} alike, "
                "and the first one takes them",
            )


def _unreachable(checked: Checked) -> Iterator[Finding]:
    for subject, limits in _all_limits(checked):
        for loose in limits:
            for tight in limits:
                if (
                    loose is not tight
                    and (loose.key, loose.cost) == (tight.key, tight.cost)
                    and loose.limit.quota >= tight.limit.quota
                    and loose.limit.window_ms <= tight.limit.window_ms
                ):
                    yield Finding(
                        subject,
                        f"{describe(loose.limit)} can never be reached beside "
                        f"{describe(tight.limit)}",
                    )


def _client_controlled(checked: Checked) -> Iterator[Finding]:
    """Rules whose limits, together with those of the application, do not limit a client that sends
    another value each time."""
    rule_set = checked.rule_set
    subjects: list[tuple[Rule | str, Sequence[RuleLimit]]] = [
        (rule, rule.limits) for rule in checked.rules
    ]
    # Without default limits, requests that no rule is for have the application's limits only.
    if rule_set.default_limits:
        subjects.append(("default_limits", rule_set.default_limits))
    else:
        subjects.append(("application_limits", rule_set.application_limits))
    for subject, limits in subjects:
        parts = [
            [part for part in limit.key if is_client_controlled(part)]
            for limit in (*limits, *rule_set.application_limits)
        ]
        if limits and all(parts):
            names = ", ".join(dict.fromkeys(part for of_limit in parts for part in of_limit))
            yield Finding(
                subject,
                f"every limit counts by what the client chooses ({names}), so that each new value "
                "has a new allowance: add a limit by ip beside it, "
                "{limit: 100 per minute, key: ip}",
            )


def _nothing_limited(checked: Checked) -> Iterator[Finding]:
    rule_set = checked.rule_set
    if not (checked.rules or rule_set.default_limits or rule_set.application_limits):
        yield Finding("", "nothing is limited: add rules or default_limits")


def _client_ip(checked: Checked) -> Iterator[Finding]:
    for doubt in checked.rule_set.identity.client_ip.doubts:
        yield Finding("client_ip", doubt)


def _not_enforced(checked: Checked) -> Iterator[Finding]:
    if checked.rule_set.mode != "enforce":
        yield Finding("mode", f"the mode is {checked.rule_set.mode}: nothing is refused")


def _shared_namespace(checked: Checked) -> Iterator[Finding]:
    if checked.reach == "network" and checked.rule_set.namespace == RuleSet.namespace:
        yield Finding(
            "namespace",
            "where several applications share this Redis, give each a namespace of its own",
        )


WARNINGS: dict[str, Check] = {
    "rules-overlap": _overlaps,
    "limit-unreachable": _unreachable,
    "client-controlled-key": _client_controlled,
    "nothing-limited": _nothing_limited,
    "client-ip": _client_ip,
    "not-enforced": _not_enforced,
    "shared-namespace": _shared_namespace,
}

# --- what checks have in common -------------------------------------------------------------------


def _all_limits(checked: Checked) -> Iterator[tuple[Rule | str, Sequence[RuleLimit]]]:
    """All limits, with the rule or the name of the option that has them."""
    yield "default_limits", checked.rule_set.default_limits
    yield "application_limits", checked.rule_set.application_limits
    for rule in checked.rules:
        yield rule, rule.limits


def _pairs(
    rules: Iterable[Rule], view: Callable[[Pattern], tuple[str, ...]]
) -> list[tuple[Rule, Rule]]:
    """The pairs of rules that have a method in common, and patterns that are equal in this view."""
    alike: dict[tuple[str, ...], list[Rule]] = {}
    for rule in rules:
        for seen in {view(pattern) for pattern in rule.patterns}:
            alike.setdefault(seen, []).append(rule)
    found = {}
    for group in alike.values():
        for first, second in combinations(group, 2):
            if bool(first.methods) == bool(second.methods) and (
                not first.methods or set(first.methods) & set(second.methods)
            ):
                found[id(first), id(second)] = first, second
    return list(found.values())


def _known_as(rule: Rule) -> str:
    """What messages call a rule: its line or, in a mapping, its name, unless that is secret."""
    at = rule.location
    if at.line:
        return f"in line {at.line}"
    return at.where if at.has_secret_name else f'"{rule.name}"'
