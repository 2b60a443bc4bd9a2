"""From the options of rules and limits to the rules' model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from .. import limits as limit_strings
from ..decision import Limit
from ..http.responder import Responder
from ..http.settings import ResponseSettings
from ..identity import Identity, KeyFunction, key_function
from ..rules.model import Location, Rule, RuleLimit
from ..rules.patterns import Pattern
from .mapping import Options
from .names import default_name, hide_paths, numbered
from .reader import Cursor, InvalidError
from .rule_options import DEFAULT_WORD, RESPONSE, RULE


@dataclass(frozen=True)
class Owner:
    """The rule that limits belong to, or the top level: what they take from there."""

    key: tuple[str, ...]
    strategy: str
    scope: str
    cost: int
    policy: str
    """What its limits are called."""
    variables: frozenset[str] | None = frozenset()
    """The variables that all of its paths have, for ``path:`` keys; None where the paths are
    mistaken, so that nothing is known of them."""

    def inherited(self) -> Mapping[str, Any]:
        """What the options of a limit inherit."""
        return {name: getattr(self, name) for name in ("key", "strategy", "scope", "cost")}


class RuleBuilder:
    """Builds rules and limits; puts on the list of mistakes what is wrong with them together.

    :param identity: what the key types mean.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._keys: dict[tuple[str, ...], KeyFunction] = {}
        self._unshown: set[tuple[str, ...]] = set()
        """Keys that came from the environment, which no message shows."""

    def key(
        self, options: Options, inherited: tuple[str, ...], variables: frozenset[str] | None
    ) -> tuple[str, ...]:
        """The key types of a mapping; the inherited ones where its own are mistaken.

        :param variables: those of the path that a ``path:`` key can name; None for any.
        """
        key: tuple[str, ...] = options["key"]
        if "key" not in options or "key" in options.mistaken:
            return key
        if options.given["key"].node.secret:
            self._unshown.add(key)

        def check(_: Cursor) -> tuple[str, ...]:
            self._find_key(key)
            _check_variables(key, variables)
            return key

        return options.given["key"].attempt(check, inherited)

    def _find_key(self, key: tuple[str, ...]) -> KeyFunction:
        """
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
        """The limits that the option of this name has.

        :param default_limits: what the word ``default`` stands for; None where it has no meaning.
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
        """
        :param options: of one item, which may have several limits.
        """
        key = self.key(options, owner.key, owner.variables)
        strategy, burst, cost = options["strategy"], options["burst"], options["cost"]
        if burst is not None and strategy != "token-bucket":
            options.given["burst"].report(
                "only the token-bucket has a burst: add strategy: token-bucket, or leave it out"
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
        """
        :param all_options: of each rule.
        :param inherited: what the options of rules inherit from the top level.
        :param responses: how the top level answers.
        :param default_limits: those of the top level.
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
            methods=methods,
            limits=self.limits(options, "limits", owner, default_limits),
            responder=own and Responder(with_bodies(responses, own)),
            index=index,
            location=_location(options),
            **{each: options[each] for each in _AS_THEY_ARE},
        )


_AS_THEY_ARE = (
    *("exempt", "per_method", "mode", "on_storage_error", "skip", "when", "allow", "block"),
)
"""The options of a rule that the model takes over, under their own names."""


def with_bodies(settings: ResponseSettings, options: Options) -> ResponseSettings:
    """The settings with the bodies that ``response`` of a rule has."""
    bodies = {option.name: getattr(settings, option.name) for option in RESPONSE}
    return replace(settings, **options.inherit(bodies).values())


def _location(options: Options) -> Location:
    at = options.at
    named_by = [options.given[name] for name in ("name", "methods", "path") if name in options]
    return Location(
        where=at.path,
        line=at.node.line,
        column=at.node.column,
        has_secret_name=any(each.node.secret for each in named_by),
    )


def _check_exempt(options: Options) -> None:
    """Put on the list what an exempt rule may not have, and limits that another one has not."""
    if options["exempt"]:
        for option in RULE:
            if option.name in options and not option.on_exempt:
                options.given[option.name].report(
                    f"an exempt rule counts nothing: take out {option.name} or exempt",
                    "exempt-rule",
                )
    elif "limits" not in options and "exempt" not in options.mistaken:
        options.at.report(
            'a rule needs limits: add limits: "5 per minute", or exempt: true', "missing-option"
        )


def _check_variables(
    key: tuple[str, ...], variables: frozenset[str] | None, *, is_shown: bool = True
) -> None:
    """
    :raises InvalidError: the key names a variable that not every path has.
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
    """A scope that no other rule has: its name, or all of what it is for, where the default name
    may be cut and look like another's."""
    if is_named:
        return f"rule={name}"
    paths = " ".join(quote(pattern.text, safe="/<>:()=") for pattern in patterns)
    return f"path={','.join(methods)} {paths}"
