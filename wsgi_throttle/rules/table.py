"""The rules as a table, which is built once and finds the plan of each request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple, TypeAlias

from ..cache import Bounded
from ..decision import Charge
from ..identity import (
    KEY_TYPES,
    Address,
    Environ,
    Networks,
    canonical_path_value,
    client_address,
)
from .counters import CounterMaker
from .match import Matcher
from .model import METHODS, Rule, RuleSet
from .patterns import Entry, matcher
from .plan import Counter, Plan, Prepare, RuleCounters, Statements, without_storage
from .readings import readings

MAX_PATH_BYTES = 8192
"""The longest PATH_INFO that is matched: the time for matching grows with the length."""

MAX_CACHED_PATHS = 4096
MAX_CACHED_CHARACTERS = 512
MAX_CACHED_PLANS = 1024

_METHODS = frozenset(METHODS)


class _Found(NamedTuple):
    """The rule that won for one reading of a path (None if none did) and, if it counts by variables
    of the path, their values."""

    rule: Rule | None
    path_args: tuple[tuple[str, str], ...]


_NO_RULE = _Found(None, ())

Precheck: TypeAlias = tuple[Literal["allowed", "blocked", "too_long"], Rule | None]
"""The outcome of a verdict, and the rule whose list blocks the client (None: the top level's)."""


class RuleTable:
    """Finds the plan of each request. Immutable but for its caches; any thread may use it.

    :param rule_set: one in which :func:`.lint.errors` finds nothing.
    :param prepare: prepares terms in the storage. Without it, plans can be found but nothing can be
        charged: their statements raise StorageError.
    :param is_observed: observers are to be told of every request, so that every plan is special.
    """

    def __init__(
        self,
        rule_set: RuleSet,
        prepare: Prepare = without_storage,
        *,
        is_observed: bool = False,
    ) -> None:
        self.rule_set = rule_set
        self._is_observed = is_observed
        is_on = rule_set.mode != "off"
        self.rules = tuple(rule for rule in rule_set.rules if is_on and rule.mode != "off")
        self._maker = CounterMaker(rule_set)
        # Of two rules for one path the first is found: a shadow rule hides the enforced one.
        self._entries = [
            (rule, pattern)
            for rule in sorted(self.rules, key=lambda rule: rule.mode == "enforce")
            for pattern in rule.patterns
        ]
        entries = [
            Entry(pattern, rule.methods, index, rule.exempt)
            for index, (rule, pattern) in enumerate(self._entries)
        ]
        self._enforced_matcher = matcher(
            entry for entry in entries if self._entries[entry.endpoint][0].mode == "enforce"
        )
        self._minds_slash = any(
            entry.is_exempt and entry.pattern.has_slash is not None for entry in entries
        )
        self._has_shadows = any(rule.mode == "shadow" for rule in self.rules)
        self._matcher = matcher(entries) if self._has_shadows else self._enforced_matcher
        self._with_path_keys = {
            rule
            for rule in self.rules
            if any(part.startswith("path:") for limit in rule.limits for part in limit.key)
        }
        self._address = client_address(rule_set.identity)
        self._enforce = rule_set.mode == "enforce"
        self._by_rule: dict[tuple[Rule, str, bool, bool], RuleCounters] = {}
        self._application, self._default = (
            {
                preflight: RuleCounters(
                    None, self._maker.make(limits if is_on else (), "", self._enforce, preflight)
                )
                for preflight in (False, True)
            }
            for limits in (rule_set.application_limits, rule_set.default_limits)
        )
        # Clients choose paths and, by their readings, sets of rules: both caches are bounded.
        max_plans = max(MAX_CACHED_PLANS, 4 * len(self.rules))
        self._plans: Bounded[tuple[Any, ...], Plan] = Bounded(max_plans)
        self._paths: Bounded[tuple[str, str], Plan] = Bounded(MAX_CACHED_PATHS)
        self._statements = Statements(prepare, max_plans)
        self._too_long_plan = replace(self._plan("OTHER", (), ()), needs_precheck=self._enforce)

    def match(self, method: str, path_info: str) -> Plan:
        """The plan of requests with this REQUEST_METHOD and PATH_INFO.

        A shadow rule is counted, beside the rule that wins, if it would win itself were all shadow
        rules enforced. A path of more than MAX_PATH_BYTES is not matched, and its plan counts
        nothing.
        """
        found = self._paths.get((method, path_info))
        if found is not None:
            return found
        if len(method) + len(path_info) <= MAX_CACHED_CHARACTERS:
            return self._paths.keep((method, path_info), self._match(method.upper(), path_info))
        if len(path_info) > MAX_PATH_BYTES:
            return self._too_long_plan
        return self._match(method.upper(), path_info)

    def precheck(self, plan: Plan, environ: Environ) -> Precheck | None:
        """What is decided before anything is counted: the path is too long, or the client is on a
        list of addresses. None if neither.

        ``allow`` goes before ``block``. If the readings of a path have different rules, the client
        must be allowed by all of them.
        """
        if plan is self._too_long_plan:
            return "too_long", None
        address = self._address(environ)
        if _contains(self.rule_set.allow, address) or (
            plan.allow and all(_contains(one, address) for one in plan.allow)
        ):
            return "allowed", None
        if _contains(self.rule_set.block, address):
            return "blocked", None
        for rule in plan.rules:
            if _contains(rule.block, address):
                return "blocked", rule
        return None

    def key_of(self, text: str) -> str:
        """The key that an operator means. An address, with or without ``ip:``, means the network
        that it is counted by.

        :raises ValueError: it is no address, and does not begin with a key type.
        """
        try:
            ip_address(text.removeprefix("ip:"))
        except ValueError:
            if text.partition(":")[0] not in KEY_TYPES:
                known = ", ".join(KEY_TYPES)
                raise ValueError(
                    f'"{text}" is not a key: write an address, or a key as logs show it, which '
                    f"begins with one of {known}"
                ) from None
            return text
        return self.rule_set.identity.clients.key({"REMOTE_ADDR": text.removeprefix("ip:")})

    def charges_to_reset(self, key: str) -> tuple[Charge, ...]:
        """Everything that a client with this key can have been charged by these rules."""
        counters: list[Counter] = []
        for preflight in (False, True):
            counters += self._application[preflight].counters + self._default[preflight].counters
            for rule in self.rules:
                enforce = self._enforce and rule.mode == "enforce"
                for method in METHODS if rule.per_method else ("",):
                    counters += self._maker.make(rule.limits, method, enforce, preflight)
        charges = (charge for counter in counters for charge in counter.charges(key))
        return tuple({(charge.bucket, charge.limit): charge for charge in charges}.values())

    def _match(self, method: str, path_info: str) -> Plan:
        if method not in _METHODS:
            method = "OTHER"
        winners: list[_Found] = []
        shadows: list[_Found] = []
        for path, has_slash in self._readings(path_info):
            winner = self._find(self._enforced_matcher, method, path, has_slash)
            if winner not in winners:
                winners.append(winner)
            if self._has_shadows:
                shadow = self._find(self._matcher, method, path, has_slash)
                if shadow.rule and shadow.rule.mode == "shadow" and shadow not in shadows:
                    shadows.append(shadow)
        key = (method, *winners, None, *shadows)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(method, winners, shadows)
            if not any(found.path_args for found in (*winners, *shadows)):
                self._plans.keep(key, plan)
        return plan

    def _readings(self, path_info: str) -> Iterator[tuple[str, bool]]:
        """The readings of a path, each with whether it ends with a slash. Who reads a path
        otherwise than it is written may read its end in either way, which exemptions mind."""
        written, *others = readings(path_info)
        yield written, path_info.endswith("/")
        for other in others:
            yield other, False
            if self._minds_slash:
                yield other, True

    def _find(self, among: Matcher, method: str, path: str, has_slash: bool) -> _Found:
        found = among.match(method, path, has_slash)
        if found is None and self._minds_slash:
            # An exemption frees the other form too, as no other rule fits that.
            found = among.match(method, path)
        if found is None:
            return _NO_RULE
        (rule, pattern), values = self._entries[found[0]], found[1]
        if rule not in self._with_path_keys:
            return _Found(rule, ())
        return _Found(
            rule,
            tuple((name, canonical_path_value(values[name])) for name in pattern.variables),
        )

    def _plan(
        self,
        method: str,
        winners: Sequence[_Found],
        shadows: Sequence[_Found],
        preflight: bool = False,
    ) -> Plan:
        rules = tuple(rule for rule, _ in winners if rule)
        charged = [found for found in winners if not (found.rule and found.rule.exempt)]
        by_rule = [self._counters_of(found, method, self._enforce, preflight) for found in charged]
        if charged:
            by_rule.append(self._application[preflight])
        by_rule += [
            self._counters_of(found, method, False, preflight)
            for found in shadows
            if not (found.rule and found.rule.exempt)
        ]
        counters = [(counter, each.path_args) for each in by_rule for counter in each.counters]
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
            preflight=self._plan(method, winners, shadows, preflight=True)
            if has_preflight
            else None,
            on_storage_error=max(
                (found.rule.on_storage_error for found in charged if found.rule),
                key=_STRICTNESS.index,
                default=self.rule_set.on_storage_error,
            ),
            responder=self.rule_set.responder,
        )

    def _has_lists(self, rules: Iterable[Rule]) -> bool:
        """Whether clients must be looked up in lists of addresses, if these rules win."""
        rule_set = self.rule_set
        return bool(
            rule_set.allow or rule_set.block or any(rule.allow or rule.block for rule in rules)
        )

    def _counters_of(
        self, found: _Found, method: str, enforce: bool, preflight: bool
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


def _contains(networks: Networks | None, address: Address | None) -> bool:
    return networks is not None and networks.contains(address)


_STRICTNESS = ("allow", "local", "deny")
