"""What rules and their limits are called: in logs, and to clients."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from urllib.parse import quote

from ..rules.model import Rule, RuleLimit
from ..rules.patterns import Pattern


def default_name(methods: tuple[str, ...], patterns: tuple[Pattern, ...]) -> str:
    """What logs call a rule that has no name."""
    paths = ",".join(quote(pattern.text, safe="/<>:(),*=+-._~!$&;@ ") for pattern in patterns)
    return f"{','.join(methods)} {paths}".strip()[:100]


def numbered(name: str, count: int) -> list[str]:
    """What so many limits of one rule are called."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def hide_paths(
    rules: Sequence[Rule], is_named: Sequence[bool], default_limits: Collection[RuleLimit]
) -> tuple[Rule, ...]:
    """The same rules; but clients are told ``rule-1``, ``rule-2`` and so on of those that have no
    name, whose default name would show them paths that they may not know of.

    A number is left out where a rule, or a limit of one, has that very name.

    :param is_named: for each rule, whether the file names it.
    :param default_limits: which rules may have among their own, and which keep their names.
    """
    taken: set[str] = set()
    for rule, named in zip(rules, is_named, strict=True):
        if named:
            taken |= {rule.name, *(limit.policy for limit in rule.limits)}
    number = 0
    told = []
    for rule, named in zip(rules, is_named, strict=True):
        if named:
            told.append(rule)
            continue
        own = [limit for limit in rule.limits if limit not in default_limits]
        policies: list[str] = []
        while not policies or not taken.isdisjoint(policies):
            number += 1
            policies = [f"rule-{number}", *numbered(f"rule-{number}", len(own))]
        renamed = [
            replace(limit, policy=policy, label=limit.policy)
            for limit, policy in zip(own, policies[1:], strict=True)
        ]
        told.append(replace(rule, limits=(*renamed, *rule.limits[len(own) :])))
    return tuple(told)
