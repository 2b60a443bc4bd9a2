"""Checks for what is doubtful in a rule set that can be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...identity import is_client_controlled, needs_body
from ...limits import describe
from ..model import METHODS, Rule, RuleLimit, RuleSet
from .checked import Check, Checked, Finding, all_limits, known_as, pairs


def _overlaps(checked: Checked) -> Iterator[Finding]:
    for first, second in pairs(checked.rules, lambda pattern: pattern.shapes[-1:]):
        if first.mode == second.mode:
            yield Finding(
                second,
                f"some requests fit this rule and {known_as(first)} alike, "
                "and the first one takes them",
            )


def _unreachable(checked: Checked) -> Iterator[Finding]:
    for subject, limits in all_limits(checked):
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
    for subject, keys in _unlimited(checked):
        if not needs_body(keys):
            yield Finding(
                subject,
                f"every limit counts by what the client chooses ({', '.join(keys)}), so that each "
                f"new value has a new allowance: {_ADD_IP}",
            )


def _body_key_alone(checked: Checked) -> Iterator[Finding]:
    for subject, keys in _unlimited(checked):
        if needs_body(keys):
            yield Finding(
                subject,
                f"the limit by {', '.join(keys)} stands alone: each new value has a new allowance, "
                "and all bodies that cannot be read share one, which one client can use up for "
                f"everybody: {_ADD_IP}",
            )


_ADD_IP = "add a limit by ip beside it, {limit: 100 per minute, key: ip}"


def _unlimited(checked: Checked) -> Iterator[tuple[Rule | str, list[str]]]:
    """Rules whose limits, together with those of the application, do not limit a client that sends
    another value each time; and the keys of these values."""
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
            yield subject, list(dict.fromkeys(part for of_limit in parts for part in of_limit))


def _nothing_limited(checked: Checked) -> Iterator[Finding]:
    rule_set = checked.rule_set
    if not (checked.rules or rule_set.default_limits or rule_set.application_limits):
        yield Finding("", "nothing is limited: add rules or default_limits")


def _exempt_slash(checked: Checked) -> Iterator[Finding]:
    """Where an exemption is written with a slash at its end, or without, and what ends in the other
    way has a rule of its own: who means both writes both."""
    exempt = [rule for rule in checked.rules if rule.exempt and rule.mode == "enforce"]
    for rule in exempt:
        for pattern in rule.patterns:
            if pattern.has_slash is not None:
                taker = checked.winner((rule.methods or METHODS)[0], pattern, not pattern.has_slash)
                if taker is not None and not taker.exempt:
                    other = pattern.text.rstrip("/") if pattern.has_slash else f"{pattern.text}/"
                    yield Finding(
                        rule,
                        f"it exempts {pattern.text}; {other} is taken by the rule "
                        f"{known_as(taker)}: write both",
                    )


def _other_methods(checked: Checked) -> Iterator[Finding]:
    """Where a limit is for POST, and a view that runs for every method can be had without it."""
    if checked.rule_set.default_limits or checked.rule_set.application_limits:
        return
    for rule in checked.rules:
        if rule.exempt or "POST" not in rule.methods:
            continue
        free = [
            method
            for method in ("PUT", "PATCH", "OTHER")
            if any(checked.winner(method, pattern) is None for pattern in rule.patterns)
        ]
        if free:
            yield Finding(
                rule,
                f"nothing limits {', '.join(free)} on its path, and some views run for every "
                "method (Django's functions, Pyramid, CherryPy): leave out methods, or name "
                "these too",
            )


def _client_ip(checked: Checked) -> Iterator[Finding]:
    for warning in checked.rule_set.identity.client_ip.warnings:
        yield Finding("client_ip", warning)


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
    "body-key-alone": _body_key_alone,
    "nothing-limited": _nothing_limited,
    "exempt-slash": _exempt_slash,
    "other-methods": _other_methods,
    "client-ip": _client_ip,
    "not-enforced": _not_enforced,
    "shared-namespace": _shared_namespace,
}
