"""Builds rules and limits from the values of their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import quote

from .. import limits as limit_strings
from ..decision import Limit
from ..http.responder import Responder
from ..http.settings import ResponseSettings
from ..identity import Identity, KeyFunction, key_function
from ..rules.model import Location, Rule, RuleLimit
from ..rules.patterns import Pattern
from ..strategies import STRATEGIES
from .mapping import Options
from .names import default_name, hide_paths, numbered
from .reader import Cursor, InvalidError
from .rule_options import DEFAULT_WORD, RESPONSE, RULE


@dataclass(frozen=True)
class Owner:
    """The rule, or the top-level option, that some limits belong to: what they take from it."""

    key: tuple[str, ...]
    strategy: str
    scope: str
    cost: int
    policy: str
    """The name of its limits in headers and logs."""
    variables: frozenset[str] | None = frozenset()
    """The variables that all of its paths have, for ``path:`` keys; None where the paths are wrong,
    so that the variables are unknown."""

    def inherited(self) -> Mapping[str, Any]:
        """The values that the options of a limit inherit."""
        return {name: getattr(self, name) for name in ("key", "strategy", "scope", "cost")}


class RuleBuilder:
    """Builds rules and limits, and reports mistakes that only show when several options are seen
    together. It is used once for each configuration.

    :param identity: the settings that keys are compiled with.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._keys: dict[tuple[str, ...], KeyFunction] = {}
        self._unshown: set[tuple[str, ...]] = set()
        """Keys that came from the environment, which no message shows."""

    def key(
        self, options: Options, inherited: tuple[str, ...], variables: frozenset[str] | None
    ) -> tuple[str, ...]:
        """The key of a mapping: its own, or the inherited one where its own is wrong.

        :param variables: the variables of the path that a ``path:`` key may name; None for any.
        """
        key: tuple[str, ...] = options["key"]
        if "key" not in options or "key" in options.invalid:
            return key
        if options.given["key"].node.any_placeholder:
            self._unshown.add(key)

        def check(_: Cursor) -> tuple[str, ...]:
            self._find_key(key)
            _check_variables(key, variables)
            return key

        return options.given["key"].attempt(check, inherited)

    def _find_key(self, key: tuple[str, ...]) -> KeyFunction:
        """Compile a key, once for all limits that have it.

        :raises ValueError: an unknown key type, or a bad argument.
        """
        if key not in self._keys:
            self._keys[key] = key_function(key, self._identity)
        return self._keys[key]

    # --- limits -----------------------------------------------------------------------------------

    def limits(
        self,
        options: Options,
        name: str,
        owner: Owner,
        default_limits: tuple[RuleLimit, ...] | None = None,
    ) -> tuple[RuleLimit, ...]:
        """Build the limits that an option lists.

        :param name: of the option.
        :param default_limits: the limits for which the word ``default`` stands; None where the word
            has no meaning.
        """
        found: list[RuleLimit] = []
        inherited: tuple[RuleLimit, ...] = ()
        for item in options[name]:
            if item.at.node.value == DEFAULT_WORD and default_limits is not None:
                if not default_limits:
                    item.at.report(
                        '"default" stands for default_limits, and there are none: add them'
                    )
                if inherited:
                    item.at.report('"default" is here twice: leave one out')
                inherited = default_limits
                continue
            for limit in self._limit(item.inherit(owner.inherited()), owner):
                if any(_is_same(limit, other) for other in found):
                    words = limit_strings.describe(limit.limit)
                    item.at.report(f"{words} is here twice: leave one out")
                else:
                    found.append(limit)
        if any(limit.key == owner.key for limit in found):
            is_shown = owner.key not in self._unshown
            options.given[name].attempt(
                lambda _: _check_variables(owner.key, owner.variables, is_shown=is_shown), None
            )
        names = numbered(owner.policy, len(found))
        found = [replace(limit, policy=policy) for limit, policy in zip(found, names, strict=True)]
        return (*found, *inherited)

    def _limit(self, options: Options, owner: Owner) -> list[RuleLimit]:
        """Build the limits of one item of the list, whose text may have several.

        :param options: of the item.
        """
        key = self.key(options, owner.key, owner.variables)
        strategy, burst, cost = options["strategy"], options["burst"], options["cost"]
        if burst is not None and not STRATEGIES[strategy].has_burst:
            having = " or ".join(name for name, one in STRATEGIES.items() if one.has_burst)
            options.given["burst"].report(
                f"only the {having} has a burst: add strategy: {having}, or leave it out"
            )
        text = options["limit"]
        if text is None:
            return []
        at = options.given["limit"]
        parsed: list[Limit] = at.attempt(
            lambda _: limit_strings.parse(text, strategy=strategy, burst=burst), []
        )
        for limit in parsed:
            if limit.quota == 0 and burst:
                at.report("a limit of 0 refuses always and has no burst: leave the burst out")
            elif limit.quota and limit.burst < cost:
                at.report(
                    f"its cost never fits into {limit_strings.describe(limit)}: "
                    "raise the limit or lower the cost"
                )
        find = self._find_key(key)
        return [
            RuleLimit(limit, key, find, options["scope"], cost, owner.policy) for limit in parsed
        ]

    # --- rules ------------------------------------------------------------------------------------

    def rules(
        self,
        all_options: Sequence[Options],
        inherited: Mapping[str, Any],
        responses: ResponseSettings,
        default_limits: tuple[RuleLimit, ...],
    ) -> tuple[Rule, ...]:
        """Build all rules.

        :param all_options: the options of each rule.
        :param inherited: the values that rules inherit from the top level.
        :param responses: the top level's.
        :param default_limits: the top level's.
        """
        names: dict[str, Rule] = {}
        found = []
        for index, options in enumerate(all_options):
            inheriting = options.inherit(inherited)
            rule = self._rule(index, inheriting, inherited, responses, default_limits)
            if "name" in options and rule.name in names:
                line = names[rule.name].location.line
                where = "above" if line is None else f"in line {line}"
                options.given["name"].report(
                    f'another rule is called "{rule.name}" {where}: give each a name of its own',
                    "duplicate-name",
                )
            names.setdefault(rule.name, rule)
            found.append(rule)
        is_named = ["name" in options for options in all_options]
        return hide_paths(found, is_named, default_limits)

    def _rule(
        self,
        index: int,
        options: Options,
        inherited: Mapping[str, Any],
        responses: ResponseSettings,
        default_limits: tuple[RuleLimit, ...],
    ) -> Rule:
        patterns: tuple[Pattern, ...] = options["path"] or ()
        methods: tuple[str, ...] = options["methods"]
        name: str = options["name"] or default_name(methods, patterns)
        variables = (
            frozenset.intersection(*(frozenset(pattern.variables) for pattern in patterns))
            if patterns
            else None
        )
        owner = Owner(
            key=self.key(options, inherited["key"], variables),
            strategy=options["strategy"],
            scope=options["scope"] or _own_scope(name, methods, patterns, "name" in options),
            cost=options["cost"],
            policy=name,
            variables=variables,
        )
        _check_exempt(options)
        if not options["exempt"] and len({each.signatures for each in patterns}) < len(patterns):
            options.given["path"].report(
                "a path is in the rule twice: leave one out, since a limit is for a path with a "
                "slash at its end and without"
            )
        own = options["response"]
        return Rule(
            name=name,
            patterns=patterns,
            limits=self.limits(options, "limits", owner, default_limits),
            responder=own and Responder(with_bodies(responses, own)),
            index=index,
            location=_location(options),
            **{each: options[each] for each in _COPIED},
        )


_COPIED = {option.name for option in RULE} & (
    {field.name for field in fields(Rule)} - {"name", "limits"}
)
"""The options whose values a Rule has unchanged, under the same names."""


def with_bodies(settings: ResponseSettings, options: Options) -> ResponseSettings:
    """A copy of the settings with the bodies that ``response`` of a rule has."""
    bodies = {option.name: getattr(settings, option.name) for option in RESPONSE}
    return replace(settings, **options.inherit(bodies).values())


def _location(options: Options) -> Location:
    at = options.at
    named_by = [options.given[name] for name in ("name", "methods", "path") if name in options]
    return Location(
        where=at.path,
        line=at.node.line,
        column=at.node.column,
        has_secret_name=any(each.node.any_placeholder for each in named_by),
    )


def _check_exempt(options: Options) -> None:
    """Report options that an exempt rule may not have, and limits that another rule lacks."""
    if options["exempt"]:
        for option in RULE:
            if option.name in options and not option.on_exempt:
                options.given[option.name].report(
                    f"an exempt rule counts nothing: take out {option.name} or exempt",
                    "exempt-rule",
                )
    elif "limits" not in options and "exempt" not in options.invalid:
        options.at.report(
            'a rule needs limits: add limits: "5 per minute", or exempt: true', "missing-option"
        )


def _check_variables(
    key: tuple[str, ...], variables: frozenset[str] | None, *, is_shown: bool = True
) -> None:
    """Check that all paths have the variables that the key names.

    :param is_shown: whether the message may quote the key.
    :raises InvalidError: one of them does not.
    """
    if variables is None:
        return
    for part in key:
        kind, _, name = part.partition(":")
        if kind == "path" and name not in variables:
            known = [f"path:{one}" for one in sorted(variables) if "wsgi_throttle" not in one]
            variable = f"<{name}>" if is_shown else "the variable of its key"
            raise InvalidError(
                f"not every path that is limited here has {variable}",
                f"use {' or '.join(known)}" if known else "use another key",
            )


def _is_same(one: RuleLimit, other: RuleLimit) -> bool:
    return (one.limit, one.key, one.scope) == (other.limit, other.key, other.scope)


def _own_scope(
    name: str, methods: tuple[str, ...], patterns: tuple[Pattern, ...], is_named: bool
) -> str:
    """A scope that no other rule has: its name, or else its methods and paths in full, because a
    default name may be cut and then equal another one."""
    if is_named:
        return f"rule={name}"
    paths = " ".join(quote(pattern.text, safe="/<>:()=") for pattern in patterns)
    return f"path={','.join(methods)} {paths}"
