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
    canonical_path_value,
    client_address,
    key_function,
    preflight_key,
)
from ..limits import multiplied
from .match import Matcher
from .model import METHODS, Rule, RuleLimit, RuleSet
from .patterns import matcher
from .readings import readings

LAYOUT = 2
"""The version of how states are kept: another one never meets the old states."""

MAX_PATH_BYTES = 8192
"""The longest PATH_INFO that is matched, since the time that takes grows with its length."""

MAX_CACHED_PATHS = 4096
MAX_CACHED_CHARACTERS = 512
MAX_CACHED_PLANS = 1024
MAX_MADE = 4096
"""Clients whose charges are kept."""

PREFLIGHT_FACTOR = 20
"""How many times the quota of a user is that of an address, in counting the CORS preflights of all
users who share it."""

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
    """The rules that won, exempt ones too; empty where the defaults apply. Several where the
    readings of a path have different rules."""
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
    """There is a verdict to ask for before anything is counted: the path is too long, or there are
    lists of addresses to look the client up in."""
    preflight: Plan | None
    """The plan of a CORS preflight, which has the same rules and counters of its own. None where it
    counts as any request does: the method is not OPTIONS, or a rule names it."""
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
    """The rule that won for one reading of a path, None if none did, and what the variables of its
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
        self._keys = {
            limit.key: limit.find_key
            for limits in (
                config.application_limits,
                config.default_limits,
                *(rule.limits for rule in self.rules),
            )
            for limit in limits
        }
        for key in {preflight_key(key)[0] for key in self._keys} - self._keys.keys():
            self._keys[key] = key_function(key, config.identity)
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
                    None, self._counters(limits if is_on else (), "", self._enforce, preflight)
                )
                for preflight in (False, True)
            }
            for limits in (config.application_limits, config.default_limits)
        )
        # Paths are a client's to choose, and by their readings so are sets of rules.
        most = max(MAX_CACHED_PLANS, 4 * len(self.rules))
        self._plans: Bounded[tuple[Any, ...], Plan] = Bounded(most)
        self._paths: Bounded[tuple[str, str], Plan] = Bounded(MAX_CACHED_PATHS)
        self._lines: Bounded[tuple[Line, ...], tuple[Line, ...]] = Bounded(most)
        self._too_long = replace(self._plan("OTHER", (), ()), listed=self._enforce)

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

    def verdict(self, plan: Plan, environ: Environ) -> str:
        """``too long`` for a path that is not matched, else ``allow``, ``block`` or nothing: what
        the lists of addresses say of the client. Allow wins; where a path fits several rules, only
        what all of them allow is allowed."""
        if plan is self._too_long:
            return "too long"
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
        counters: list[Counter] = []
        for preflight in (False, True):
            counters += self._application[preflight].counters + self._default[preflight].counters
            for rule in self.rules:
                enforce = self._enforce and rule.mode == "enforce"
                for method in METHODS if rule.per_method else ("",):
                    counters += self._counters(rule.limits, method, enforce, preflight)
        return _each_once(charge for counter in counters for charge in counter.charges(key))

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
            preflight=self._plan(method, winners, shadows, preflight=True)
            if method == "OPTIONS"
            and not preflight
            and not any("OPTIONS" in rule.methods for rule in rules)
            else None,
            on_storage_error=max(
                (found.rule.on_storage_error for found in charged if found.rule),
                key=_SEVERITY.index,
                default=self.config.on_storage_error,
            ),
        )

    def _shared(self, lines: tuple[Line, ...]) -> tuple[Line, ...]:
        return self._lines.get(lines) or self._lines.keep(lines, lines)

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
            counters = self._counters(rule.limits, key[1], enforce, preflight)
            otherwise = self._default[preflight].counters if rule.when and enforce else ()
            part = self._parts[key] = Part(rule, counters, otherwise)
        return replace(part, path_args=dict(path_args)) if path_args else part

    def _counters(
        self, limits: Sequence[RuleLimit], method: str, enforce: bool, preflight: bool
    ) -> tuple[Counter, ...]:
        """:param method: to be counted by itself; empty for all together."""
        groups: dict[tuple[str, tuple[str, ...]], list[Term]] = {}
        for one in limits:
            limit = one.limit
            if preflight and preflight_key(one.key)[1]:
                limit = multiplied(limit, PREFLIGHT_FACTOR)
            terms = groups.setdefault((one.scope, one.key), [])
            if all(limit != term.limit for term in terms):  # two may be equal once multiplied
                terms.append(Term(limit, one.cost, enforce, one.policy))
        counters = []
        for (scope, key), found in groups.items():
            prefix = self._prefix(scope, key, method, enforce, preflight)
            counted_by = preflight_key(key)[0] if preflight else key
            counters.append(Counter(prefix, counted_by, self._keys[counted_by], tuple(found)))
        return tuple(counters)

    def _prefix(
        self, scope: str, key: tuple[str, ...], method: str, enforce: bool, preflight: bool
    ) -> str:
        """Every part is escaped, so that no two configurations can mean one prefix."""
        parts = [
            *([] if enforce else ["shadow"]),
            *(["preflight"] if preflight else []),
            quote(scope, safe="=/<> ,"),
            quote(",".join(key), safe=","),
            *filter(None, [method]),
        ]
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
