"""What the checks of a rule set have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple, TypeAlias

from ..match import Matcher
from ..model import Rule, RuleLimit, RuleSet
from ..patterns import Entry, Pattern, matcher


@dataclass(frozen=True)
class Checked:
    """What a check is given."""

    rule_set: RuleSet
    rules: tuple[Rule, ...]
    """The rules whose own mode is not ``off``."""
    reach: str
    """See :attr:`.Storage.reach`."""

    @cached_property
    def _matcher(self) -> Matcher:
        return matcher(
            Entry(pattern, rule.methods, index, rule.exempt)
            for index, rule in enumerate(self.rules)
            if rule.mode == "enforce"
            for pattern in rule.patterns
        )

    def winner(self, method: str, pattern: Pattern, has_slash: bool | None = None) -> Rule | None:
        """The rule for a path that fits this pattern, as :meth:`.Matcher.match` finds it."""
        path = pattern.example()
        found = None if path is None else self._matcher.match(method, path, has_slash)
        return self.rules[found[0]] if found else None


class Finding(NamedTuple):
    """What a check found."""

    subject: Rule | str
    """The rule, or the name of the option of the top level, that is to be changed."""
    message: str
    """What is wrong, and what to write instead."""


Check: TypeAlias = Callable[[Checked], Iterator[Finding]]


def all_limits(checked: Checked) -> Iterator[tuple[Rule | str, Sequence[RuleLimit]]]:
    """All limits, with the rule or the name of the option that has them."""
    yield "default_limits", checked.rule_set.default_limits
    yield "application_limits", checked.rule_set.application_limits
    for rule in checked.rules:
        yield rule, rule.limits


def pairs(
    rules: Iterable[Rule], view: Callable[[Pattern], tuple[str, ...]]
) -> list[tuple[Rule, Rule]]:
    """The pairs of rules that some requests fit alike, in the order of the file: they have a method
    in common, and a pattern each that is equal in this view.

    :param view: what of a pattern is compared: :attr:`.Pattern.signatures`, for which all names of
        variables are equal, or another.
    """
    known = list(rules)
    alike: dict[tuple[str, ...], set[tuple[int, bool | None]]] = {}
    for index, rule in enumerate(known):
        for pattern in rule.patterns:
            alike.setdefault(view(pattern), set()).add((index, pattern.has_slash))
    found = set()
    for group in alike.values():
        for (first, first_slash), (second, second_slash) in combinations(group, 2):
            rules_of_both = known[first], known[second]
            # An exempt rule for /a and a rule for /a/ can be told apart; limits are for both forms.
            differ = first_slash != second_slash and any(rule.exempt for rule in rules_of_both)
            if first != second and not differ and _share_methods(*rules_of_both):
                found.add((min(first, second), max(first, second)))
    return [(known[first], known[second]) for first, second in sorted(found)]


def _share_methods(first: Rule, second: Rule) -> bool:
    """Whether a method is named by both, or neither names any."""
    if not (first.methods and second.methods):
        return first.methods == second.methods
    return not set(first.methods).isdisjoint(second.methods)


def known_as(rule: Rule) -> str:
    """What messages call a rule: its line or, in a mapping, its name, unless that is secret."""
    at = rule.location
    if at.line:
        return f"in line {at.line}"
    return at.where if at.has_secret_name else f'"{rule.name}"'
