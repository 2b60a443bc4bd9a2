"""What the rules of a configuration say, as immutable values: no YAML, no requests."""

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
from .patterns import Pattern

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER")
"""RFC 9110 section 9 and RFC 5789 (PATCH); every other method counts as OTHER."""

MODES = ("enforce", "shadow", "off")
ON_STORAGE_ERROR = ("local", "allow", "deny")


class Location(NamedTuple):
    """Where something stands in a configuration, for messages."""

    where: str = ""
    """A dotted path: ``rules[3]``."""
    line: int | None = None
    """Counted from 1; None where the configuration was a mapping."""
    column: int | None = None
    """Counted from 1."""
    has_secret_name: bool = False
    """Whether the name of the rule came from the environment, so that no message may show it."""


@dataclass(frozen=True)
class RuleLimit:
    """One limit of a rule, and whose counter it is on."""

    limit: Limit
    key: tuple[str, ...]
    """Key types; several count each combination."""
    find_key: KeyFunction = field(compare=False, repr=False)
    """What these key types mean: finds the key of a request."""
    scope: str
    """What the counter belongs to: ``rule=login``, ``scope=api``, ``default``."""
    cost: int
    policy: str
    """What clients are told that it is called."""
    label: str = ""
    """What logs call it, where that is something else."""


@dataclass(frozen=True, eq=False)
class Rule:
    """Which requests, and what they are charged."""

    name: str
    patterns: tuple[Pattern, ...]
    methods: tuple[str, ...] = ()
    """Empty: all."""
    limits: tuple[RuleLimit, ...] = ()
    exempt: bool = False
    per_method: bool = False
    mode: str = "enforce"
    on_storage_error: str = "local"
    skip: Hook | None = None
    when: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(environ name, value) of all headers that the rule asks for. A value may be a secret."""
    allow: Networks | None = None
    block: Networks | None = None
    responder: Responder | None = None
    """Answers with its own bodies; None where it has none."""
    index: int = 0
    """Its place among the rules of the file, counted from 0."""
    location: Location = field(default_factory=Location)


@dataclass(frozen=True)
class RuleSet:
    """All rules of a configuration, and what holds for requests that none of them is for."""

    rules: tuple[Rule, ...] = ()
    application_limits: tuple[RuleLimit, ...] = ()
    """For every request."""
    default_limits: tuple[RuleLimit, ...] = ()
    """For requests that no rule is for."""
    namespace: str = "throttle"
    """What all buckets begin with."""
    mode: str = "enforce"
    """For everything: ``shadow`` refuses nothing and ``off`` counts nothing, whatever rules say."""
    on_storage_error: str = "local"
    """For requests that no rule matches; a rule has its own."""
    identity: Identity = field(default_factory=Identity)
    allow: Networks | None = None
    block: Networks | None = None
    responder: Responder = field(default_factory=lambda: Responder(ResponseSettings()))
    """Answers where no rule has bodies of its own, and writes the headers of all responses."""
    source: str = "<mapping>"
    """Where the rules are from, for messages."""
    locations: Mapping[str, Location] = field(default_factory=dict)
    """Of the options of the top level that were given, by their names."""
