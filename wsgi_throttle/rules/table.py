"""A configuration as a table that is built once and asked for every request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple, TypeAlias

from ..cache import Bounded
from ..decision import Charge, Decision, Take, Terms
from ..errors import StorageError
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
from .patterns import matcher
from .plan import Counter, Part, Plan, Prepare, Statements
from .readings import readings

MAX_PATH_BYTES = 8192
"""The longest PATH_INFO that is matched, since the time that takes grows with its length."""

MAX_CACHED_PATHS = 4096
MAX_CACHED_CHARACTERS = 512
MAX_CACHED_PLANS = 1024

_METHODS = frozenset(METHODS)


class _Found(NamedTuple):
    """The rule that won for one reading of a path, None if none did, and what the variables of its
    path are if it counts by one of them."""

    rule: Rule | None
    path_args: tuple[tuple[str, str], ...]


_NONE = _Found(None, ())

Prejudgement: TypeAlias = tuple[Literal["allowed", "blocked", "too_long"], Rule | None]
"""The outcome of a verdict, and the rule whose list has the client; None for the top level's."""


def _without_storage(terms: Terms) -> Take:
    def take(
        buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
    ) -> Decision:
        raise StorageError("these rules were built without a storage")

    return take


class RuleTable:
    """Finds what is to be done for a request. Immutable but for its caches; any thread may use it.

    :param config: a rule set in which :func:`.lint.errors` finds nothing.
    :param prepare: has the storage prepare what requests are charged. Without it the table can only
        be asked, since nothing can be charged.
    :param is_observed: somebody wants to know of every request, so that every plan is special.
    """

    def __init__(
        self,
        config: RuleSet,
        prepare: Prepare = _without_storage,
        *,
        is_observed: bool = False,
    ) -> None:
        self.config = config
        self._is_observed = is_observed
        is_on = config.mode != "off"
        self.rules = tuple(rule for rule in config.rules if is_on and rule.mode != "off")
        self._counters = CounterMaker(config)
        # Shadow rules stand first: of two equal ones the shadow rule would replace the other.
        self._entries = [
            (rule, pattern)
            for rule in sorted(self.rules, key=lambda rule: rule.mode == "enforce")
            for pattern in rule.patterns
        ]
        entries = [
            (pattern, rule.methods, index) for index, (rule, pattern) in enumerate(self._entries)
        ]
        self._enforced = matcher(
            [entry for entry in entries if self._entries[entry[2]][0].mode == "enforce"]
        )
        self._has_shadows = any(rule.mode == "shadow" for rule in self.rules)
        self._all = matcher(entries) if self._has_shadows else self._enforced
        self._by_path = {
            rule
            for rule in self.rules
            if any(part.startswith("path:") for limit in rule.limits for part in limit.key)
        }
        self._address = client_address(config.identity)
        self._enforce = config.mode == "enforce"
        self._parts: dict[tuple[Rule, str, bool, bool], Part] = {}
        self._application, self._default = (
            {
                preflight: Part(
                    None, self._counters.of(limits if is_on else (), "", self._enforce, preflight)
                )
                for preflight in (False, True)
            }
            for limits in (config.application_limits, config.default_limits)
        )
        # Paths are a client's to choose, and by their readings so are sets of rules.
        max_plans = max(MAX_CACHED_PLANS, 4 * len(self.rules))
        self._plans: Bounded[tuple[Any, ...], Plan] = Bounded(max_plans)
        self._paths: Bounded[tuple[str, str], Plan] = Bounded(MAX_CACHED_PATHS)
        self._statements = Statements(prepare, max_plans)
        self._too_long = replace(self._plan("OTHER", (), ()), is_prejudged=self._enforce)

    def match(self, method: str, path_info: str) -> Plan:
        """What is to be done for a request, as REQUEST_METHOD and PATH_INFO have it.

        A shadow rule rides along where it would win, were all shadow rules enforced. A path of more
        than MAX_PATH_BYTES is not matched, and its plan counts nothing.
        """
        found = self._paths.get((method, path_info))
        if found is not None:
            return found
        if len(method) + len(path_info) <= MAX_CACHED_CHARACTERS:
            return self._paths.keep((method, path_info), self._match(method.upper(), path_info))
        if len(path_info) > MAX_PATH_BYTES:
            return self._too_long
        return self._match(method.upper(), path_info)

    def prejudge(self, plan: Plan, environ: Environ) -> Prejudgement | None:
        """What can be said before anything is counted: that the path is not matched, or what the
        lists of addresses say of the client. None where they say nothing.

        Allow wins; where a path fits several rules, only what all of them allow is allowed.
        """
        if plan is self._too_long:
            return "too_long", None
        address = self._address(environ)
        if _holds(self.config.allow, address) or (
            plan.allow and all(_holds(one, address) for one in plan.allow)
        ):
            return "allowed", None
        if _holds(self.config.block, address):
            return "blocked", None
        for rule in plan.rules:
            if _holds(rule.block, address):
                return "blocked", rule
        return None

    def key_of(self, text: str) -> str:
        """The key that a person means: an address, with or without ``ip:``, is its network.

        :raises ValueError: it is neither an address nor begins with a type of key.
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
        return self.config.identity.clients.key({"REMOTE_ADDR": text.removeprefix("ip:")})

    def charges_to_reset(self, key: str) -> tuple[Charge, ...]:
        """All that a client with this key can have been charged, for forgetting it."""
        counters: list[Counter] = []
        for preflight in (False, True):
            counters += self._application[preflight].counters + self._default[preflight].counters
            for rule in self.rules:
                enforce = self._enforce and rule.mode == "enforce"
                for method in METHODS if rule.per_method else ("",):
                    counters += self._counters.of(rule.limits, method, enforce, preflight)
        charges = (charge for counter in counters for charge in counter.charges(key))
        return tuple({(charge.bucket, charge.limit): charge for charge in charges}.values())

    def _match(self, method: str, path_info: str) -> Plan:
        if method not in _METHODS:
            method = "OTHER"
        winners: list[_Found] = []
        shadows: list[_Found] = []
        for path in readings(path_info):
            winner = self._find(self._enforced, method, path)
            if winner not in winners:
                winners.append(winner)
            if self._has_shadows:
                shadow = self._find(self._all, method, path)
                if shadow.rule and shadow.rule.mode == "shadow" and shadow not in shadows:
                    shadows.append(shadow)
        key = (method, *winners, None, *shadows)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(method, winners, shadows)
            if not any(found.path_args for found in (*winners, *shadows)):
                self._plans.keep(key, plan)
        return plan

    def _find(self, among: Matcher, method: str, path: str) -> _Found:
        found = among.match(method, path)
        if found is None:
            return _NONE
        (rule, pattern), values = self._entries[found[0]], found[1]
        if rule not in self._by_path:
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
        parts = [self._part(found, method, self._enforce, preflight) for found in charged]
        if charged:
            parts.append(self._application[preflight])
        parts += [
            self._part(found, method, False, preflight)
            for found in shadows
            if not (found.rule and found.rule.exempt)
        ]
        counters = [(counter, part.path_args) for part in parts for counter in part.counters]
        is_unconditional = (
            len(winners) == 1
            and (not shadows or (len(shadows) == 1 and self._enforce))
            and not any(part.rule and (part.rule.skip or part.rule.when) for part in parts)
        )
        statements = self._statements
        is_prejudged = self._enforce and self._has_lists(rules)
        is_exempt = not any(part.counters for part in parts)
        is_shadowed = bool(shadows) or not self._enforce
        has_preflight = (
            method == "OPTIONS"
            and not preflight
            and not any("OPTIONS" in rule.methods for rule in rules)
        )
        return Plan(
            rules=rules,
            parts=tuple(part for part in parts if part.counters),
            counters=tuple(counters),
            statement=statements.of(one for one, _ in counters) if is_unconditional else None,
            statements=statements,
            exempt=is_exempt,
            shadowed=is_shadowed,
            allow=tuple(found.rule.allow if found.rule else None for found in charged),
            is_prejudged=is_prejudged,
            is_special=self._is_observed
            or is_prejudged
            or is_exempt
            or is_shadowed
            or has_preflight,
            preflight=self._plan(method, winners, shadows, preflight=True)
            if has_preflight
            else None,
            on_storage_error=max(
                (found.rule.on_storage_error for found in charged if found.rule),
                key=_SEVERITY.index,
                default=self.config.on_storage_error,
            ),
            responder=self.config.responder,
        )

    def _has_lists(self, rules: Iterable[Rule]) -> bool:
        """Whether there are lists of addresses to look the clients of these rules up in."""
        config = self.config
        return bool(config.allow or config.block or any(rule.allow or rule.block for rule in rules))

    def _part(self, found: _Found, method: str, enforce: bool, preflight: bool) -> Part:
        """The part of a rule, with what it has counted for these variables of the path."""
        rule, path_args = found
        if rule is None:
            return self._default[preflight]
        # A shadow rule that names OPTIONS counts as it would, were it enforced.
        preflight = preflight and "OPTIONS" not in rule.methods
        key = rule, method if rule.per_method else "", enforce, preflight
        part = self._parts.get(key)
        if part is None:
            counters = self._counters.of(rule.limits, key[1], enforce, preflight)
            otherwise = self._default[preflight].counters if rule.when and enforce else ()
            part = self._parts[key] = Part(rule, counters, otherwise)
        return replace(part, path_args=dict(path_args)) if path_args else part


def _holds(networks: Networks | None, address: Address | None) -> bool:
    return networks is not None and networks.contains(address)


_SEVERITY = ("allow", "local", "deny")
