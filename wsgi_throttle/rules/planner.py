"""From the rules that were found for a path to the plan of its requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from .counters import CounterMaker
from .model import METHODS, Rule, RuleSet
from .plan import Counter, Plan, RuleCounters, Statements


class Found(NamedTuple):
    """The rule that won for one reading of a path (None if none did) and, if it counts by variables
    of the path, their values."""

    rule: Rule | None
    path_args: tuple[tuple[str, str], ...]


class Planner:
    """Makes plans, which share counters and statements. Any thread may call it.

    :param rules: those of the rule set that are not off.
    :param is_observed: observers are to be told of every request, so that every plan is special.
    """

    def __init__(
        self,
        rule_set: RuleSet,
        rules: Sequence[Rule],
        statements: Statements,
        *,
        is_observed: bool,
    ) -> None:
        self._rule_set = rule_set
        self._rules = rules
        self._statements = statements
        self._is_observed = is_observed
        self._enforce = rule_set.mode == "enforce"
        self._maker = CounterMaker(rule_set)
        self._by_rule: dict[tuple[Rule, str, bool, bool], RuleCounters] = {}
        # Of the limits that no rule has: those of preflights under True.
        self._application, self._default = (
            {
                preflight: RuleCounters(
                    None,
                    self._maker.make(
                        limits if rule_set.mode != "off" else (), "", self._enforce, preflight
                    ),
                )
                for preflight in (False, True)
            }
            for limits in (rule_set.application_limits, rule_set.default_limits)
        )

    def all_counters(self) -> Iterator[Counter]:
        """All counters that a request may be charged on."""
        for preflight in (False, True):
            yield from self._application[preflight].counters
            yield from self._default[preflight].counters
            for rule in self._rules:
                enforce = self._enforce and rule.mode == "enforce"
                for method in METHODS if rule.per_method else ("",):
                    yield from self._maker.make(rule.limits, method, enforce, preflight)

    def plan(
        self,
        method: str,
        winners: Sequence[Found],
        shadows: Sequence[Found],
        preflight: bool = False,
    ) -> Plan:
        """The plan of requests with this method for whose path these rules are.

        :param winners: what was found for each reading of the path, without shadow rules.
        :param shadows: the shadow rules that would have been found, had all been enforced.
        :param preflight: the plan of CORS preflights, which have counters of their own.
        """
        rules = tuple(rule for rule, _ in winners if rule)
        charged = [found for found in winners if not (found.rule and found.rule.exempt)]
        by_rule = self._charged_by(method, charged, shadows, preflight)
        counters = [(counter, each.path_args) for each in by_rule for counter in each.counters]
        # Several rules of one kind may share a bucket, and a rule with a condition may not count:
        # then each request has to be asked for its terms.
        is_unconditional = (
            len(winners) == 1
            and (not shadows or (len(shadows) == 1 and self._enforce))
            and not any(each.rule and (each.rule.skip or each.rule.when) for each in by_rule)
        )
        statements = self._statements
        needs_precheck = self._enforce and self._has_lists(rules)
        is_exempt = not any(each.counters for each in by_rule)
        has_shadow = bool(shadows) or not self._enforce
        needs_body = any(each.needs_body for each in by_rule)
        names_options = any("OPTIONS" in rule.methods for rule in rules)
        has_preflight = method == "OPTIONS" and not (preflight or names_options)
        return Plan(
            rules=rules,
            by_rule=tuple(each for each in by_rule if each.counters),
            counters=tuple(counters),
            statement=statements.for_counters(one for one, _ in counters)
            if is_unconditional
            else None,
            statements=statements,
            exempt=is_exempt,
            has_shadow=has_shadow,
            allow=tuple(found.rule.allow if found.rule else None for found in charged),
            needs_precheck=needs_precheck,
            needs_body=needs_body,
            is_special=self._is_observed
            or needs_body
            or needs_precheck
            or is_exempt
            or has_shadow
            or has_preflight,
            preflight=self.plan(method, winners, shadows, preflight=True)
            if has_preflight
            else None,
            on_storage_error=self._strictest(found.rule for found in charged),
            responder=self._rule_set.responder,
        )

    def _charged_by(
        self,
        method: str,
        charged: Sequence[Found],
        shadows: Sequence[Found],
        preflight: bool,
    ) -> list[RuleCounters]:
        """What each rule charges, and after the enforced ones what the application's limits do."""
        by_rule = [self._counters_of(found, method, self._enforce, preflight) for found in charged]
        if charged:  # a path that is exempt in all its readings is exempt from these too
            by_rule.append(self._application[preflight])
        by_rule += [
            self._counters_of(found, method, False, preflight)
            for found in shadows
            if not (found.rule and found.rule.exempt)
        ]
        return by_rule

    def _strictest(self, rules: Iterable[Rule | None]) -> str:
        """What these rules say of a storage that fails; None has nothing to say."""
        said = (rule.on_storage_error for rule in rules if rule)
        return max(said, key=_STRICTNESS.index, default=self._rule_set.on_storage_error)

    def _has_lists(self, rules: Iterable[Rule]) -> bool:
        """Whether clients must be looked up in lists of addresses, if these rules win."""
        rule_set = self._rule_set
        return bool(
            rule_set.allow or rule_set.block or any(rule.allow or rule.block for rule in rules)
        )

    def _counters_of(
        self, found: Found, method: str, enforce: bool, preflight: bool
    ) -> RuleCounters:
        """The counters of the rule that was found, with the variables of its path."""
        rule, path_args = found
        if rule is None:
            return self._default[preflight]
        # A rule that names OPTIONS counts preflights as any request, whatever other rules do.
        preflight = preflight and "OPTIONS" not in rule.methods
        key = rule, method if rule.per_method else "", enforce, preflight
        made = self._by_rule.get(key)
        if made is None:
            counters = self._maker.make(rule.limits, key[1], enforce, preflight)
            otherwise = self._default[preflight].counters if rule.when and enforce else ()
            made = self._by_rule[key] = RuleCounters(rule, counters, otherwise)
        return replace(made, path_args=dict(path_args)) if path_args else made


_STRICTNESS = ("allow", "local", "deny")
