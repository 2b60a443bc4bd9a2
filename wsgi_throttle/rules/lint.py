"""What can be seen of a rule set before it serves: mistakes, and what is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

from ..decision import Limit
from ..errors import ConfigError, Mistake
from ..identity import is_client_controlled
from ..limits import describe
from .model import Rule, RuleLimit, RuleSet
from .patterns import Pattern, too_many

MAX_LIMITS = 255
"""Different ones of one scope and key."""


def check(config: RuleSet, rules: Sequence[Rule]) -> None:
    """
    :param rules: those of the rule set that are not off.
    :raises ConfigError: rules that can never be told apart, or that would be slow to match.
    """
    mistakes = []
    for first, second in _pairs(rules, lambda pattern: pattern.signatures):
        if set(first.methods) == set(second.methods) and first.mode == second.mode:
            mistakes.append(
                _mistake(
                    config,
                    second,
                    f"it can never be told from the rule {_known_as(first)}: "
                    "same path, same methods; merge them, or take one out",
                )
            )
    mistakes += _too_many_limits(config, rules)
    reason = too_many(pattern for rule in rules for pattern in rule.patterns)
    if reason:
        mistakes.append(Mistake(config.source, None, None, "rules", reason))
    if mistakes:
        raise ConfigError(mistakes)


def _too_many_limits(config: RuleSet, rules: Sequence[Rule]) -> Iterator[Mistake]:
    """Where a counter gets more limits than one record of every storage can hold."""
    told = f"its scope counts by more than {MAX_LIMITS} limits: leave some out, or take another"
    counted: dict[tuple[str, tuple[str, ...]], set[Limit]] = {}

    def crowd(limits: Iterable[RuleLimit]) -> bool:
        """Whether a counter has too many with these and had not before."""
        crowded = False
        for one in limits:
            counter = counted.setdefault((one.scope, one.key), set())
            if one.limit not in counter:
                counter.add(one.limit)
                crowded = crowded or len(counter) == MAX_LIMITS + 1
        return crowded

    for name, limits in (
        ("default_limits", config.default_limits),
        ("application_limits", config.application_limits),
    ):
        if crowd(limits):
            yield Mistake(config.source, None, None, name, told)
    for rule in rules:
        if crowd(rule.limits):
            yield _mistake(config, rule, told)


def warnings(config: RuleSet, *, is_networked: bool = False) -> list[Mistake]:
    """What is doubtful in a configuration that can be used.

    :param is_networked: other hosts may count in the same storage.
    """
    rules = [rule for rule in config.rules if rule.mode != "off"]
    found = []
    for first, second in _pairs(rules, lambda pattern: pattern.shapes[-1:]):
        if first.mode == second.mode:
            found.append(
                _mistake(
                    config,
                    second,
                    f"some requests fit this rule and {_known_as(first)} alike, "
                    "and the first one takes them",
                )
            )
    for rule in rules:
        for loose, tight in _unreachable(rule.limits):
            found.append(
                _mistake(
                    config, rule, f"{describe(loose)} can never be reached beside {describe(tight)}"
                )
            )
        chosen = _chosen_freely(rule.limits, config.application_limits)
        if chosen:
            found.append(_mistake(config, rule, chosen))
    for name, limits in (
        ("default_limits", config.default_limits),
        ("application_limits", config.application_limits),
    ):
        for loose, tight in _unreachable(limits):
            found.append(
                Mistake(
                    config.source,
                    None,
                    None,
                    name,
                    f"{describe(loose)} can never be reached beside {describe(tight)}",
                )
            )
    name = "default_limits" if config.default_limits else "application_limits"
    chosen = _chosen_freely(
        config.default_limits or config.application_limits, config.application_limits
    )
    if chosen:
        found.append(Mistake(config.source, None, None, name, chosen))
    if not (rules or config.default_limits or config.application_limits):
        found.append(
            Mistake(
                config.source, None, None, "", "nothing is limited: add rules or default_limits"
            )
        )
    found += [
        Mistake(config.source, None, None, "client_ip", doubt)
        for doubt in config.identity.client_ip.doubts
    ]
    if config.mode != "enforce":
        found.append(
            Mistake(
                config.source, None, None, "mode", f"the mode is {config.mode}: nothing is refused"
            )
        )
    if is_networked and config.namespace == "throttle":
        found.append(
            Mistake(
                config.source,
                None,
                None,
                "namespace",
                "where several applications share this Redis, give each a namespace of its own",
            )
        )
    return found


def _pairs(
    rules: Sequence[Rule], view: Callable[[Pattern], tuple[str, ...]]
) -> list[tuple[Rule, Rule]]:
    """The pairs of rules that look alike in this view, and have a method in common."""
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


def _unreachable(limits: Sequence[RuleLimit]) -> list[tuple[Limit, Limit]]:
    return [
        (loose.limit, tight.limit)
        for loose in limits
        for tight in limits
        if loose is not tight
        and (loose.key, loose.cost) == (tight.key, tight.cost)
        and loose.limit.quota >= tight.limit.quota
        and loose.limit.window_ms <= tight.limit.window_ms
    ]


def _chosen_freely(limits: Sequence[RuleLimit], application: Sequence[RuleLimit]) -> str:
    """What is wrong where these limits, and those of the application, hold nobody back who sends
    another value each time; nothing where one of them does."""
    parts = [
        [part for part in limit.key if is_client_controlled(part)]
        for limit in (*limits, *application)
    ]
    if not limits or not all(parts):
        return ""
    names = ", ".join(dict.fromkeys(part for chosen in parts for part in chosen))
    return (
        f"nothing is counted but by what the client chooses ({names}), so that each new value has "
        "a new allowance: add a limit by ip beside it, {limit: 100 per minute, key: ip}"
    )


def _mistake(config: RuleSet, rule: Rule, message: str) -> Mistake:
    index = config.rules.index(rule)
    return Mistake(config.source, rule.line, 1 if rule.line else None, f"rules[{index}]", message)


def _known_as(rule: Rule) -> str:
    """By its line, since its name may have come from the environment, which is not shown."""
    return f"in line {rule.line}" if rule.line else f'"{rule.name}"'
