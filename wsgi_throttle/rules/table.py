"""The rules as a table, which is built once and finds the plan of each request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from ..cache import Bounded
from ..decision import Charge
from ..identity import (
    Address,
    Environ,
    Networks,
    canonical_path_value,
    client_address,
    written_keys,
)
from .match import Matcher
from .model import METHODS, Rule, RuleSet
from .patterns import Entry, matcher
from .plan import Plan, Prepare, Statements, without_storage
from .planner import Found, Planner
from .readings import Readings, readings

MAX_PATH_BYTES = 8192
"""The longest PATH_INFO that is matched: the time for matching grows with the length."""

MAX_CACHED_PATHS = 4096
MAX_CACHED_CHARACTERS = 512
MAX_CACHED_PLANS = 1024

_METHODS = frozenset(METHODS)


_NO_RULE = Found(None, ())

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
        is_on = rule_set.mode != "off"
        self.rules = tuple(rule for rule in rule_set.rules if is_on and rule.mode != "off")
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
        # Clients choose paths and, by their readings, sets of rules: both caches are bounded.
        max_plans = max(MAX_CACHED_PLANS, 4 * len(self.rules))
        self._plans: Bounded[tuple[Any, ...], Plan] = Bounded(max_plans)
        self._paths: Bounded[tuple[str, str], Plan] = Bounded(MAX_CACHED_PATHS)
        self._statements = Statements(prepare, max_plans)
        self._planner = Planner(rule_set, self.rules, self._statements, is_observed=is_observed)
        nothing = self._planner.plan("OTHER", (), ())
        self._too_long_plan = replace(nothing, needs_precheck=self._enforce)

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

    def charges_to_reset(self, text: str) -> tuple[Charge, ...]:
        """Everything that these rules can have charged a client.

        :param text: the client's key, as :func:`.written_keys` reads it.
        :raises ValueError: no client can have such a key; the message has the remedy.
        """
        counters = list(self._planner.all_counters())
        specs = {counter.key_types for counter in counters}
        keys = written_keys(text, specs, self.rule_set.identity)
        charges = (
            charge for counter in counters for key in keys for charge in counter.charges(key)
        )
        return tuple({(charge.bucket, charge.limit): charge for charge in charges}.values())

    def _match(self, method: str, path_info: str) -> Plan:
        if method not in _METHODS:
            method = "OTHER"
        winners: list[Found] = []
        shadows: list[Found] = []
        found = readings(path_info)
        for path, has_slash in self._endings(path_info, found):
            # A number adds what fits it alone: of what fits the path as it is written too, the most
            # specific has been found there.
            unless_written = found.written if path in found.numbered else None
            winner = self._find(self._enforced_matcher, method, path, has_slash)
            if winner not in winners and not _fits(winner.rule, method, unless_written):
                winners.append(winner)
            if self._has_shadows:
                shadow = self._find(self._matcher, method, path, has_slash)
                if (
                    shadow.rule
                    and shadow.rule.mode == "shadow"
                    and shadow not in shadows
                    and not _fits(shadow.rule, method, unless_written)
                ):
                    shadows.append(shadow)
        key = (method, *winners, None, *shadows)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._planner.plan(method, winners, shadows)
            if not any(found.path_args for found in (*winners, *shadows)):
                self._plans.keep(key, plan)
        return plan

    def _endings(self, path_info: str, found: Readings) -> Iterator[tuple[str, bool]]:
        """The readings of a path, each with whether it ends with a slash. Who reads a path
        otherwise than it is written may read its end in either way, which exemptions mind; but a
        view that converts a number has been found by the path as it is written."""
        has_slash = path_info.endswith("/")
        for path in (found.written, *found.numbered):
            yield path, has_slash
        for path in found.others:
            yield path, False
            if self._minds_slash:
                yield path, True

    def _find(self, among: Matcher, method: str, path: str, has_slash: bool) -> Found:
        found = among.match(method, path, has_slash)
        if found is None and self._minds_slash:
            # An exemption frees the other form too, as no other rule fits that.
            found = among.match(method, path)
        if found is None:
            return _NO_RULE
        (rule, pattern), values = self._entries[found[0]], found[1]
        if rule not in self._with_path_keys:
            return Found(rule, ())
        return Found(
            rule,
            tuple((name, canonical_path_value(values[name])) for name in pattern.variables),
        )


def _fits(rule: Rule | None, method: str, path: str | None) -> bool:
    """Whether a rule is for this path; None, no rule, is for every one."""
    return path is not None and (rule is None or rule.fits(path, method))


def _contains(networks: Networks | None, address: Address | None) -> bool:
    return networks is not None and networks.contains(address)
