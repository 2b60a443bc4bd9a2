"""A configuration as a table that is built once and asked for every request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import combinations
from typing import Any, NamedTuple
from urllib.parse import quote

from .cache import Bounded
from .config import METHODS, Config, Rule, RuleLimit
from .decision import Charge, Limit
from .errors import ConfigError, Mistake
from .identity import (
    Address,
    Environ,
    Key,
    KeyFunction,
    Networks,
    chosen_freely,
    client_address,
    key_function,
)
from .limits import describe
from .patterns import Pattern, canonical, forms, matcher, too_many

LAYOUT = 1
"""The version of how states are kept: another one never meets the old states."""

MAX_CACHED_PATHS = 4096
MAX_CACHED_CHARACTERS = 512
MAX_PLANS = 4096
MAX_MADE = 8192

_METHODS = frozenset(METHODS)


class Line(NamedTuple):
    """What a counter counts by one limit."""

    limit: Limit
    cost: int
    enforce: bool
    policy: str


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """The limits that share scope and key type: a bucket without its client."""

    prefix: str
    """The bucket's text up to the key."""
    key_types: tuple[str, ...]
    key: KeyFunction
    lines: tuple[Line, ...]
    made: Bounded[tuple[Counter, str], tuple[Charge, ...]]
    """The charges that were made last, of all counters."""

    def charges(self, key: str) -> tuple[Charge, ...]:
        """What a client with this key is charged."""
        return self.made.get((self, key)) or self.made.keep((self, key), self._charges(key))

    def _charges(self, key: str) -> tuple[Charge, ...]:
        bucket = f"{self.prefix}{key}}}"
        return tuple(Charge(bucket, *line) for line in self.lines)


@dataclass(frozen=True, slots=True)
class Part:
    """What one rule has requests charged; rule is None for the limits that no rule has."""

    rule: Rule | None
    counters: tuple[Counter, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be done for the requests of one method and path."""

    rules: tuple[Rule, ...]
    """The rules that won, exempt ones too; empty where the defaults apply. Two where a path and
    what its dots resolve to have different rules."""
    parts: tuple[Part, ...]
    counters: tuple[Counter, ...]
    """The counters of all parts."""
    path_args: Mapping[str, str]
    exempt: bool
    """Nothing is counted."""
    conditional: bool
    """A rule has a condition, so that the parts tell what counts."""
    listed: bool
    """There are lists of addresses to look the client up in."""
    preflight: bool
    """A CORS preflight is not charged: the method is OPTIONS, and no rule names it."""
    on_storage_error: str

    def charges(self, environ: Environ) -> tuple[Charge, ...]:
        """What this request is to be charged."""
        charges: tuple[Charge, ...] = ()
        for counter in self._applicable(environ) if self.conditional else self.counters:
            key: Key = counter.key(environ, self.path_args)
            for one in (key,) if key.__class__ is str else key:
                charges += counter.charges(one)
        return charges

    def _applicable(self, environ: Environ) -> list[Counter]:
        return _merged(
            counter
            for part in self.parts
            if part.rule is None or applies(part.rule, environ)
            for counter in part.counters
        )


def applies(rule: Rule, environ: Environ) -> bool:
    """Whether the rule's own conditions let it count this request."""
    if rule.skip is not None and rule.skip(environ):
        return False
    return all(environ.get(name) == value for name, value in rule.when)


class RuleTable:
    """Finds what is to be done for a request. Immutable but for its caches; any thread may use it.

    :raises ConfigError: rules that can never be told apart, or too many for Werkzeug's matcher.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._made: Bounded[tuple[Counter, str], tuple[Charge, ...]] = Bounded(MAX_MADE)
        is_on = config.mode != "off"
        self.rules = tuple(rule for rule in config.rules if is_on and rule.mode != "off")
        _check(config, self.rules)
        self._keys = {
            key: key_function(key, config.identity)
            for limits in (
                config.application_limits,
                config.default_limits,
                *(rule.limits for rule in self.rules),
            )
            for key in (limit.key for limit in limits)
        }
        # Shadow rules stand first: of two equal ones the shadow rule would replace the other.
        entries = [
            (pattern, rule.methods, index)
            for index, rule in sorted(
                enumerate(self.rules), key=lambda item: item[1].mode == "enforce"
            )
            for pattern in rule.patterns
        ]
        self._enforced = matcher(
            [entry for entry in entries if self.rules[entry[2]].mode == "enforce"]
        )
        self._has_shadows = any(rule.mode == "shadow" for rule in self.rules)
        self._all = matcher(entries) if self._has_shadows else self._enforced
        self._address = client_address(config.identity)
        self._enforce = config.mode == "enforce"
        self._application = self._part(
            None, config.application_limits if is_on else (), "", self._enforce
        )
        self._default = self._part(None, config.default_limits if is_on else (), "", self._enforce)
        self._plans: Bounded[tuple[str, tuple[int | None, ...], tuple[int, ...]], Plan] = Bounded(
            MAX_PLANS
        )
        self._paths: Bounded[tuple[str, str], Plan] = Bounded(MAX_CACHED_PATHS)

    def match(self, method: str, path_info: str) -> Plan:
        """What is to be done for a request, as REQUEST_METHOD and PATH_INFO have it.

        A shadow rule rides along where it would win, were all shadow rules enforced.
        """
        found = self._paths.get((method, path_info))
        if found is not None:
            return found
        plan = self._match(method.upper(), path_info)
        if len(method) + len(path_info) <= MAX_CACHED_CHARACTERS:
            self._paths.keep((method, path_info), plan)
        return plan

    def verdict(self, plan: Plan, environ: Environ) -> str:
        """``allow``, ``block`` or nothing: what the lists of addresses say of the client. Allow
        wins; where a path fits two rules, only what both of them allow is allowed."""
        address = self._address(environ)
        lists = [rule.allow for rule in plan.rules if not rule.exempt]
        if _holds(self.config.allow, address) or (
            lists and all(_holds(one, address) for one in lists)
        ):
            return "allow"
        if _holds(self.config.block, address) or any(
            _holds(rule.block, address) for rule in plan.rules
        ):
            return "block"
        return ""

    def key_of(self, text: str) -> str:
        """The key that a person means: a bare address is its ip."""
        try:
            ip_address(text)
        except ValueError:
            return text
        return self.config.identity.clients.key({"REMOTE_ADDR": text})

    def every_counter(self) -> list[Counter]:
        """All counters that there can be, for forgetting a client."""
        counters = [*self._application.counters, *self._default.counters]
        for rule in self.rules:
            for method in METHODS if rule.per_method else METHODS[:1]:
                enforce = self._enforce and rule.mode == "enforce"
                counters += self._part(rule, rule.limits, method, enforce).counters
        return _merged(counters)

    def _match(self, method: str, path_info: str) -> Plan:
        if method not in _METHODS:
            method = "OTHER"
        winners: list[int | None] = []
        shadows: list[int] = []
        path_args: dict[str, str] = {}
        for path in forms(path_info):
            found = self._enforced.match(method, path)
            winner = found[0] if found else None
            if winner not in winners:
                winners.append(winner)
                path_args = self._arguments(found) | path_args
            found = self._all.match(method, path) if self._has_shadows else None
            if found and self.rules[found[0]].mode == "shadow" and found[0] not in shadows:
                shadows.append(found[0])
                path_args = self._arguments(found) | path_args
        key = method, tuple(winners), tuple(shadows)
        plan = self._plans.get(key) or self._plans.keep(key, self._plan(*key))
        return replace(plan, path_args=path_args) if path_args else plan

    def _arguments(self, found: tuple[int, Mapping[str, Any]] | None) -> dict[str, str]:
        if not found:
            return {}
        index, values = found
        converters = {
            name: converter
            for pattern in self.rules[index].patterns
            for name, converter in pattern.variables.items()
        }
        return {
            name: canonical(converters[name], value)
            for name, value in values.items()
            if name in converters
        }

    def _plan(self, method: str, winners: Sequence[int | None], shadows: Sequence[int]) -> Plan:
        rules = tuple(self.rules[winner] for winner in winners if winner is not None)
        parts = [
            self._part(rule, rule.limits, method, self._enforce)
            for rule in rules
            if not rule.exempt
        ]
        if None in winners:
            parts.append(self._default)
        if parts:
            parts.append(self._application)
        parts += [
            self._part(self.rules[shadow], self.rules[shadow].limits, method, False)
            for shadow in shadows
            if not self.rules[shadow].exempt
        ]
        counted = [*rules, *(self.rules[shadow] for shadow in shadows)]
        policies = [rule.on_storage_error for rule in rules if not rule.exempt]
        counters = _merged(counter for part in parts for counter in part.counters)
        return Plan(
            rules=rules,
            parts=tuple(parts),
            counters=tuple(counters),
            path_args={},
            exempt=not counters,
            conditional=any(rule.skip or rule.when for rule in counted),
            listed=bool(self.config.allow or self.config.block)
            or any(rule.allow or rule.block for rule in rules),
            preflight=method == "OPTIONS" and not any("OPTIONS" in rule.methods for rule in rules),
            on_storage_error=max(
                policies, key=_SEVERITY.index, default=self.config.on_storage_error
            ),
        )

    def _part(
        self, rule: Rule | None, limits: Sequence[RuleLimit], method: str, enforce: bool
    ) -> Part:
        groups: dict[tuple[str, tuple[str, ...]], list[Line]] = {}
        for one in limits:
            line = Line(one.limit, one.cost, enforce, one.policy)
            groups.setdefault((one.scope, one.key), []).append(line)
        per_method = rule is not None and rule.per_method
        return Part(
            rule,
            tuple(
                Counter(
                    self._prefix(scope, key, method if per_method else "", enforce),
                    key,
                    self._keys[key],
                    tuple(lines),
                    self._made,
                )
                for (scope, key), lines in groups.items()
            ),
        )

    def _prefix(self, scope: str, key: tuple[str, ...], method: str, enforce: bool) -> str:
        """Every part is escaped, so that no two configurations can mean one prefix."""
        parts = [
            quote(scope, safe="=/<> ,"),
            quote(",".join(key), safe=","),
            *filter(None, [method]),
        ]
        if not enforce:
            parts.insert(0, "shadow")
        return f"{self.config.namespace}:{LAYOUT}:{':'.join(parts)}:{{"


def _holds(networks: Networks | None, address: Address | None) -> bool:
    return networks is not None and networks.contains(address)


_SEVERITY = ("allow", "local", "deny")


def _merged(counters: Iterable[Counter]) -> list[Counter]:
    """The counters, each prefix once, each of its limits once and at the highest cost."""
    found: dict[str, Counter] = {}
    for counter in counters:
        old = found.get(counter.prefix)
        if old is None:
            found[counter.prefix] = counter
            continue
        lines = {line.limit: line for line in old.lines}
        for line in counter.lines:
            if line.limit not in lines or lines[line.limit].cost < line.cost:
                lines[line.limit] = line
        found[counter.prefix] = replace(old, lines=tuple(lines.values()))
    return list(found.values())


# --- what can be seen of a table before it serves -------------------------------------------------


def _check(config: Config, rules: Sequence[Rule]) -> None:
    mistakes = []
    for first, second in _pairs(rules, lambda pattern: pattern.signatures):
        if set(first.methods) == set(second.methods) and first.mode == second.mode:
            mistakes.append(
                _mistake(
                    config,
                    second,
                    f'it can never be told from the rule "{first.name}"{_in_line(first)}: '
                    "same path, same methods; merge them, or take one out",
                )
            )
    reason = too_many(pattern for rule in rules for pattern in rule.patterns)
    if reason:
        mistakes.append(Mistake(config.source, None, None, "rules", reason))
    if mistakes:
        raise ConfigError(mistakes)


def warnings(config: Config) -> list[Mistake]:
    """What is doubtful in a configuration that can be used."""
    rules = [rule for rule in config.rules if rule.mode != "off"]
    found = []
    for first, second in _pairs(rules, lambda pattern: pattern.shapes[-1:]):
        if first.mode == second.mode:
            found.append(
                _mistake(
                    config,
                    second,
                    f'some requests fit this rule and "{first.name}"{_in_line(first)} alike, '
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
    if "redis" in config.storage.partition("://")[0] and config.namespace == "throttle":
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
        [part for part in limit.key if chosen_freely(part)] for limit in (*limits, *application)
    ]
    if not limits or not all(parts):
        return ""
    names = ", ".join(dict.fromkeys(part for chosen in parts for part in chosen))
    return (
        f"nothing is counted but by what the client chooses ({names}), so that each new value has "
        "a new allowance: add a limit by ip beside it, {limit: 100 per minute, key: ip}"
    )


def _mistake(config: Config, rule: Rule, message: str) -> Mistake:
    index = config.rules.index(rule)
    return Mistake(config.source, rule.line, 1 if rule.line else None, f"rules[{index}]", message)


def _in_line(rule: Rule) -> str:
    return f" in line {rule.line}" if rule.line else ""
