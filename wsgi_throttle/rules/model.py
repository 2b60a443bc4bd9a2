"""What the rules of a configuration say, as immutable values: no YAML, no requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..decision import Limit
from ..hooks import Hook
from ..http.settings import ResponseSettings
from ..identity import Identity
from ..networks import Networks
from .patterns import Pattern

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER")
"""RFC 9110 section 9 and RFC 5789 (PATCH); every other method counts as OTHER."""

MODES = ("enforce", "shadow", "off")
POLICIES = ("local", "allow", "deny")


@dataclass(frozen=True)
class RuleLimit:
    """One limit of a rule, and whose counter it is on."""

    limit: Limit
    key: tuple[str, ...]
    """Key types; several count each combination."""
    scope: str
    """What the counter belongs to: ``rule=login``, ``scope=api``, ``default``."""
    cost: int
    policy: str
    """Its name in headers and logs."""


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
    when: tuple[tuple[str, str], ...] = ()
    """(environ name, value) of all headers that the rule asks for."""
    allow: Networks | None = None
    block: Networks | None = None
    responses: ResponseSettings | None = None
    """Its own bodies, where it has any."""
    line: int | None = None


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
    source: str = "<mapping>"
    """Where the rules are from, for messages."""
