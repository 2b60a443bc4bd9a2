"""The rules of a configuration, as immutable values that know neither YAML nor requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..decision import Limit
from ..hooks import Hook
from ..http.responder import Responder
from ..http.settings import ResponseSettings
from ..identity import Identity, KeyFunction
from ..networks import Networks
from .patterns import Entry, Pattern, matcher

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER")
"""The methods of RFC 9110, section 9, and RFC 5789 (PATCH); every other one counts as OTHER."""

MODES = ("enforce", "shadow", "off")
ON_STORAGE_ERROR = ("local", "allow", "deny")


class Location(NamedTuple):
    """Where an option or a rule is written in a configuration, for messages."""

    where: str = ""
    """A dotted path: ``rules[3]``."""
    line: int | None = None
    """Counted from 1; None if the configuration was a mapping."""
    column: int | None = None
    """Counted from 1."""
    has_secret_name: bool = False
    """Whether the name of the rule came from an environment variable, so no message may show it."""


@dataclass(frozen=True)
class RuleLimit:
    """One limit of a rule or of the top level, and whose counter it uses."""

    limit: Limit
    key: tuple[str, ...]
    """Key types. With several, each combination of their values has a counter of its own."""
    find_key: KeyFunction = field(compare=False, repr=False)
    """Finds the key of a request, by these key types."""
    scope: str
    """What the counter belongs to besides the key: ``rule=login``, ``scope=api``, ``default``."""
    cost: int
    """How much of the quota a request uses up."""
    policy: str
    """Its name in headers and bodies."""
    label: str = ""
    """Its name in logs, if that is another one."""


@dataclass(frozen=True, eq=False)
class Rule:
    """An entry of ``rules``: which requests it is for, and what they are charged."""

    name: str
    patterns: tuple[Pattern, ...]
    methods: tuple[str, ...] = ()
    """Empty: all methods."""
    limits: tuple[RuleLimit, ...] = ()
    exempt: bool = False
    per_method: bool = False
    mode: str = "enforce"
    on_storage_error: str = "local"
    skip: Hook | None = None
    """A request for which it returns true is not counted."""
    when: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(name in the environ, value) of the headers that a request must have to be counted. A value
    may be a secret."""
    allow: Networks | None = None
    block: Networks | None = None
    responder: Responder | None = None
    """Answers with the rule's own bodies; None if it has none."""
    index: int = 0
    """Its position among the rules of the configuration, counted from 0."""
    location: Location = field(default_factory=Location)

    def fits(self, path: str, method: str | None = None) -> bool:
        """Whether the rule is for this path, whatever other rules are.

        :param method: in upper case; None for any.
        """
        methods = () if method is None else self.methods
        alone = matcher(Entry(pattern, methods, 0) for pattern in self.patterns)
        return alone.match(method or "", path) is not None


@dataclass(frozen=True)
class RuleSet:
    """All rules of a configuration, and what applies to requests that no rule is for."""

    rules: tuple[Rule, ...] = ()
    application_limits: tuple[RuleLimit, ...] = ()
    """For every request that is not exempt."""
    default_limits: tuple[RuleLimit, ...] = ()
    """For requests that no rule is for."""
    namespace: str = "throttle"
    """The beginning of all buckets."""
    mode: str = "enforce"
    """For all rules, whatever their own: ``shadow`` refuses nothing, ``off`` counts nothing."""
    on_storage_error: str = "local"
    """For requests that no rule is for; each rule has its own."""
    identity: Identity = field(default_factory=Identity)
    allow: Networks | None = None
    block: Networks | None = None
    responder: Responder = field(default_factory=lambda: Responder(ResponseSettings()))
    """Answers where a rule has no bodies of its own, and writes the headers of all responses."""
    source: str = "<mapping>"
    """The path of the file, or ``<mapping>``, for messages."""
    locations: Mapping[str, Location] = field(default_factory=dict)
    """Name -> location, for the options of the top level that were given."""
