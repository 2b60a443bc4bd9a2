"""A configuration as a table that is built once and asked for every request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import quote

from ..cache import Bounded
from ..decision import Charge, Charges, Limit, Line
from ..identity import (
    KEY_TYPES,
    Address,
    Environ,
    Key,
    KeyFunction,
    Networks,
    canonical,
    client_address,
)
from .model import METHODS, Rule, RuleLimit, RuleSet
from .patterns import Matcher, forms, matcher

LAYOUT = 2
"""The version of how states are kept: another one never meets the old states."""

MAX_CACHED_PATHS = 4096
MAX_CACHED_CHARACTERS = 512
MAX_CACHED_PLANS = 1024
MAX_MADE = 4096
"""Clients whose charges are kept."""

_METHODS = frozenset(METHODS)


class Term(NamedTuple):
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
    terms: tuple[Term, ...]

    def bucket(self, key: str) -> str:
        """Whose counter it is for a client with this key."""
        return f"{self.prefix}{key}}}"

    def charges(self, key: Key) -> list[Charge]:
        """What a client with this key is charged."""
        charges = []
        for one in (key,) if isinstance(key, str) else key:
            bucket = self.bucket(one)
            charges += [Charge(bucket, *term) for term in self.terms]
        return charges


@dataclass(frozen=True, slots=True)
class Part:
    """What one rule has requests charged; rule is None for the limits that no rule has."""

    rule: Rule | None
    counters: tuple[Counter, ...]
    otherwise: tuple[Counter, ...] = ()
    """What they are charged where the rule's ``when`` does not hold."""
    path_args: Mapping[str, str] = field(default_factory=dict)

    def applicable(self, environ: Environ) -> tuple[Counter, ...]:
        """The counters for this request, by the rule's own conditions."""
        if self.rule is None:
            return self.counters
        if not all(environ.get(name) == value for name, value in self.rule.when):
            return self.otherwise
        return () if self.rule.skip is not None and self.rule.skip(environ) else self.counters


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that is to be done for requests which the same rules are for."""

    rules: tuple[Rule, ...]
    """The rules that won, exempt ones too; empty where the defaults apply. Two where a path and
    what its dots resolve to have different rules."""
    parts: tuple[Part, ...]
    plain: bool
    """No rule has a condition and no two parts can share a bucket, so that every counter of every
    part is charged as it stands."""
    counters: tuple[tuple[Counter, Mapping[str, str]], ...]
    """All of all parts, with what their keys are to know of the path."""
    lines: tuple[Line, ...]
    """What all of these charge, where each has one key."""
    made: Bounded[tuple[Any, ...], Charges]
    """The charges that were made last, of all plans, by counters and keys."""
    shared: Callable[[tuple[Line, ...]], tuple[Line, ...]]
    """The one object for these lines, of all plans."""
    exempt: bool
    """Nothing is counted."""
    shadowed: bool
    """Some of it is only counted in shadow."""
    allow: tuple[Networks | None, ...]
    """The lists of the rules that are not exempt; a client that is on all of them may pass. None
    stands for no list, as where no rule won."""
    listed: bool
    """There are lists of addresses to look the client up in."""
    preflight: bool
    """A CORS preflight is not charged: the method is OPTIONS, and no rule names it."""
    on_storage_error: str

    def charges(self, environ: Environ) -> Charges:
        """What this request is to be charged."""
        client: tuple[Any, ...] = ()
        for counter, path_args in self.counters if self.plain else self._applicable(environ):
            key = counter.key  # called by a name of its own, which Python makes faster
            client += (counter, key(environ, path_args))
        return self.made.get(client) or self._charges(client)

    def _applicable(self, environ: Environ) -> Iterator[tuple[Counter, Mapping[str, str]]]:
        for part in self.parts:
            for counter in part.applicable(environ):
                yield counter, part.path_args

    def _charges(self, client: tuple[Any, ...]) -> Charges:
        """:param client: its counters, each with the key that the client has there."""
        counters, keys = client[::2], client[1::2]
        if self.plain and not any(isinstance(key, tuple) for key in keys):
            buckets = [counter.bucket(key) for counter, key in zip(counters, keys, strict=True)]
            return self.made.keep(client, Charges(self.lines, tuple(buckets)))
        found: list[Charge] = []
        for counter, key in zip(counters, keys, strict=True):
            found += counter.charges(key)
        charges = Charges.of(found if self.plain else _each_once(found))
        return self.made.keep(client, Charges(self.shared(charges.lines), charges.buckets))


class _Found(NamedTuple):
    """The rule that won for one form of a path, None if none did, and what the variables of its
    path are if it counts by one of them."""

    rule: Rule | None
    path_args: tuple[tuple[str, str], ...]


_NONE = _Found(None, ())


class RuleTable:
    """Finds what is to be done for a request. Immutable but for its caches; any thread may use it.

    :param config: a rule set in which :func:`.lint.errors` finds nothing.
    """

    def __init__(self, config: RuleSet) -> None:
        self.config = config
        self._made: Bounded[tuple[Any, ...], Charges] = Bounded(MAX_MADE)
        is_on = config.mode != "off"
        self.rules = tuple(rule for rule in config.rules if is_on and rule.mode != "off")
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
        self._parts: dict[tuple[Rule, str, bool], Part] = {}
        self._application, self._default = (
            Part(None, self._counters(limits if is_on else (), "", self._enforce))
            for limits in (config.application_limits, config.default_limits)
        )
        # Paths are a client's to choose, and by their dots so are pairs of rules.
        most = max(MAX_CACHED_PLANS, 4 * len(self.rules))
        self._plans: Bounded[tuple[Any, ...], Plan] = Bounded(most)
        self._paths: Bounded[tuple[str, str], Plan] = Bounded(MAX_CACHED_PATHS)
        self._lines: Bounded[tuple[Line, ...], tuple[Line, ...]] = Bounded(most)

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
        if _holds(self.config.allow, address) or (
            plan.allow and all(_holds(one, address) for one in plan.allow)
        ):
            return "allow"
        if _holds(self.config.block, address) or any(
            _holds(rule.block, address) for rule in plan.rules
        ):
            return "block"
        return ""

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

    def every_charge(self, key: str) -> tuple[Charge, ...]:
        """All that a client with this key can have been charged, for forgetting it."""
        counters = [*self._application.counters, *self._default.counters]
        for rule in self.rules:
            enforce = self._enforce and rule.mode == "enforce"
            for method in METHODS if rule.per_method else ("",):
                counters += self._counters(rule.limits, method, enforce)
        return _each_once(charge for counter in counters for charge in counter.charges(key))

    def _match(self, method: str, path_info: str) -> Plan:
        if method not in _METHODS:
            method = "OTHER"
        winners: list[_Found] = []
        shadows: list[_Found] = []
        for path in forms(path_info):
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
            tuple((name, canonical(values[name])) for name in pattern.variables),
        )

    def _plan(self, method: str, winners: Sequence[_Found], shadows: Sequence[_Found]) -> Plan:
        rules = tuple(rule for rule, _ in winners if rule)
        charged = [found for found in winners if not (found.rule and found.rule.exempt)]
        parts = [self._part(found, method, self._enforce) for found in charged]
        if charged:
            parts.append(self._application)
        parts += [
            self._part(found, method, False)
            for found in shadows
            if not (found.rule and found.rule.exempt)
        ]
        counters = [(counter, part.path_args) for part in parts for counter in part.counters]
        return Plan(
            rules=rules,
            parts=tuple(part for part in parts if part.counters),
            plain=len(winners) == 1
            and (not shadows or (len(shadows) == 1 and self._enforce))
            and not any(part.rule and (part.rule.skip or part.rule.when) for part in parts),
            counters=tuple(counters),
            lines=self._shared(
                tuple(
                    (place, *term)
                    for place, (counter, _) in enumerate(counters)
                    for term in counter.terms
                )
            ),
            made=self._made,
            shared=self._shared,
            exempt=not any(part.counters for part in parts),
            shadowed=bool(shadows) or not self._enforce,
            allow=tuple(found.rule.allow if found.rule else None for found in charged),
            listed=self._enforce
            and bool(
                self.config.allow
                or self.config.block
                or any(rule.allow or rule.block for rule in rules)
            ),
            preflight=method == "OPTIONS" and not any("OPTIONS" in rule.methods for rule in rules),
            on_storage_error=max(
                (found.rule.on_storage_error for found in charged if found.rule),
                key=_SEVERITY.index,
                default=self.config.on_storage_error,
            ),
        )

    def _shared(self, lines: tuple[Line, ...]) -> tuple[Line, ...]:
        return self._lines.get(lines) or self._lines.keep(lines, lines)

    def _part(self, found: _Found, method: str, enforce: bool) -> Part:
        """The part of a rule, with what it has counted for these variables of the path."""
        rule, path_args = found
        if rule is None:
            return self._default
        key = rule, method if rule.per_method else "", enforce
        part = self._parts.get(key)
        if part is None:
            counters = self._counters(rule.limits, key[1], enforce)
            otherwise = self._default.counters if rule.when and enforce else ()
            part = self._parts[key] = Part(rule, counters, otherwise)
        return replace(part, path_args=dict(path_args)) if path_args else part

    def _counters(
        self, limits: Sequence[RuleLimit], method: str, enforce: bool
    ) -> tuple[Counter, ...]:
        """:param method: to be counted by itself; empty for all together."""
        groups: dict[tuple[str, tuple[str, ...]], list[Term]] = {}
        finds: dict[tuple[str, ...], KeyFunction] = {}
        for one in limits:
            term = Term(one.limit, one.cost, enforce, one.policy)
            groups.setdefault((one.scope, one.key), []).append(term)
            finds[one.key] = one.find_key
        return tuple(
            Counter(
                self._prefix(scope, key, method, enforce),
                key,
                finds[key],
                tuple(terms),
            )
            for (scope, key), terms in groups.items()
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


def _each_once(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The charges bucket by bucket, each limit of a bucket once and at the highest cost."""
    found: dict[str, dict[str, Charge]] = {}
    for charge in charges:
        known = found.setdefault(charge.bucket, {})
        old = known.get(charge.limit.tag)
        if old is None or old.cost < charge.cost:
            known[charge.limit.tag] = charge
    return tuple(charge for known in found.values() for charge in known.values())
