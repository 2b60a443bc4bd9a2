"""Makes the counters that requests are charged on of the limits that rules have."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from ..identity import KeyFunction, key_function, needs_body, preflight_key
from ..limits import multiplied
from .model import RuleLimit, RuleSet
from .plan import Counter, CounterLimit

LAYOUT = 2
"""The version of the format of states, a part of every bucket: a new one never reads old states."""

PREFLIGHT_FACTOR = 20
"""CORS preflights carry no credentials, so limits by user count them by address. Many users may
share one, so that it has this many times the quota."""


class CounterMaker:
    """Makes the counters of a rule set."""

    def __init__(self, rule_set: RuleSet) -> None:
        self._namespace = rule_set.namespace
        self._identity = rule_set.identity
        self._keys: dict[tuple[str, ...], KeyFunction] = {
            limit.key: limit.find_key
            for limits in (
                rule_set.application_limits,
                rule_set.default_limits,
                *(rule.limits for rule in rule_set.rules),
            )
            for limit in limits
        }
        for key in {preflight_key(key)[0] for key in self._keys} - self._keys.keys():
            self._keys[key] = key_function(key, rule_set.identity)
        self._keys_of_both: dict[tuple[tuple[str, ...], tuple[str, ...]], KeyFunction] = {}
        """By a key of a rule that counts both forms and JSON, and the rule's keys of the other."""

    def make(
        self, limits: Sequence[RuleLimit], method: str, enforce: bool, preflight: bool
    ) -> tuple[Counter, ...]:
        """The counters of these limits: one for each scope and key.

        :param method: count this method by itself; empty to count all together.
        :param enforce: False for counters of shadow rules.
        :param preflight: count CORS preflights, which have counters of their own.
        """
        groups: dict[tuple[str, tuple[str, ...]], list[CounterLimit]] = {}
        for one in limits:
            limit = one.limit
            if preflight and preflight_key(one.key)[1]:
                limit = multiplied(limit, PREFLIGHT_FACTOR)
            counted = groups.setdefault((one.scope, one.key), [])
            if all(limit != other.limit for other in counted):  # multiplied limits may be equal
                counted.append(CounterLimit(limit, one.cost, enforce, one.policy, one.label))
        parts = tuple(dict.fromkeys(part for one in limits for part in one.key))
        counters = []
        for (scope, key), found in groups.items():
            prefix = self._prefix(scope, key, method, enforce, preflight)
            counted_by = preflight_key(key)[0] if preflight else key
            find_key = self._find_key(counted_by, parts)
            counters.append(
                Counter(prefix, counted_by, find_key, tuple(found), needs_body(counted_by))
            )
        return tuple(counters)

    def _find_key(self, key: tuple[str, ...], parts: Sequence[str]) -> KeyFunction:
        """
        :param parts: all keys of the same rule. Where these are in forms and in JSON, a body of the
            one kind is nothing to the keys of the other.
        """
        for own, other in (("form:", "json:"), ("json:", "form:")):
            instead = tuple(part for part in parts if part.startswith(other))
            if instead and any(part.startswith(own) for part in key):
                if (key, instead) not in self._keys_of_both:
                    self._keys_of_both[key, instead] = key_function(
                        key, self._identity.beside_json(), instead
                    )
                return self._keys_of_both[key, instead]
        return self._keys[key]

    def _prefix(
        self, scope: str, key: tuple[str, ...], method: str, enforce: bool, preflight: bool
    ) -> str:
        """The text of a bucket up to the key. Its parts are escaped, so that different parts never
        make the same text."""
        parts = [
            *([] if enforce else ["shadow"]),
            *(["preflight"] if preflight else []),
            quote(scope, safe="=/<> ,"),
            quote(",".join(key), safe=","),
            *filter(None, [method]),
        ]
        return f"{self._namespace}:{LAYOUT}:{':'.join(parts)}:{{"
