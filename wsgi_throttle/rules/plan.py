"""Plans: what is to be done for a request once its rules are known, and whom it is charged to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..cache import Bounded
from ..decision import NOTHING_COUNTED, Charge, Decision, Limit, Take, Term, Terms
from ..errors import StorageError
from ..http.responder import Responder
from ..identity import Environ, Key, KeyFunction, Networks, PathArgs
from ..storage.look import Look
from .model import Rule

Prepare: TypeAlias = Callable[[Terms], Take]
"""Prepares terms for charging; see :meth:`wsgi_throttle.storage.Storage.prepare`."""


def without_storage(terms: Terms) -> Take:
    """Prepares terms where there is no storage: their take raises StorageError."""

    def take(
        buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
    ) -> Decision:
        raise StorageError("these rules were built without a storage")

    return take


class CounterLimit(NamedTuple):
    """One limit of a counter. Immutable."""

    limit: Limit
    cost: int
    enforce: bool
    policy: str
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """All limits of one scope and key: a bucket without its client. Immutable."""

    prefix: str
    """The text of the bucket up to the key."""
    key_types: tuple[str, ...]
    key: KeyFunction
    """Finds the key of a request."""
    limits: tuple[CounterLimit, ...]
    needs_body: bool = False
    """Whether the key is in the body of the request."""
    is_client_controlled: bool = False
    """Whether clients choose the key, or a part of it."""

    def bucket(self, key: str) -> str:
        """The bucket of a client with this key."""
        return f"{self.prefix}{key}}}"

    def buckets(self, key: Key) -> tuple[str, ...]:
        """The buckets of a request, which may have several keys."""
        return (self.bucket(key),) if isinstance(key, str) else tuple(map(self.bucket, key))

    def charges(self, key: str) -> list[Charge]:
        """What a client with this key is charged."""
        return [Charge(self.bucket(key), *limit) for limit in self.limits]


@dataclass(frozen=True, slots=True)
class RuleCounters:
    """The counters of one rule, or of the limits of the top level (rule is None). Immutable."""

    rule: Rule | None
    counters: tuple[Counter, ...]
    otherwise: tuple[Counter, ...] = ()
    """The counters of requests that do not have what the rule's ``when`` asks for."""
    path_args: Mapping[str, str] = field(default_factory=dict)
    """The values of the variables of the path, for ``path:`` keys."""

    @property
    def needs_body(self) -> bool:
        """Whether some requests have a key in their body."""
        return any(counter.needs_body for counter in (*self.counters, *self.otherwise))

    def applicable(self, environ: Environ) -> tuple[Counter, ...]:
        """The counters that this request is charged on, by ``when`` and ``skip`` of the rule."""
        if self.rule is None:
            return self.counters
        if not all(environ.get(name) == value for name, value in self.rule.when):
            return self.otherwise
        return () if self.rule.skip is not None and self.rule.skip(environ) else self.counters


class Statement:
    """Terms, and the function that charges a client by them."""

    __slots__ = ("fallback", "local_look", "look", "take", "terms")

    def __init__(self, terms: Terms, take: Take) -> None:
        self.terms = terms
        self.take = take
        self.fallback: Take | None = None
        """Charges them while the storage has an outage. Set by the engine when first needed."""
        self.look: Look | None = None
        """Finds out whether they would be refused, where a body is still to be read."""
        self.local_look: Look | None = None
        """The same during an outage. Both are set when first needed."""


class Statements:
    """A cache of statements, one for each combination of counters that a request is charged on. Any
    thread may use it.

    :param max_size: how many are kept. One that was dropped is prepared again when needed.
    """

    def __init__(self, prepare: Prepare, max_size: int) -> None:
        self._prepare = prepare
        self._known: Bounded[tuple[Any, ...], Statement] = Bounded(max_size)

    def for_counters(self, counters: Iterable[Counter]) -> Statement:
        """The statement of requests that are charged on one bucket of each of these counters.

        No two of the counters share a bucket.
        """
        key: tuple[Any, ...] = ()
        for index, counter in enumerate(counters):
            key += (counter, index)
        return self._known.get(key) or self._make(key)

    def for_buckets(
        self, charged: Iterable[tuple[Counter, Iterable[str]]]
    ) -> tuple[Statement, tuple[str, ...]]:
        """The statement of a request that is charged on these buckets of counters, and the buckets
        in the order of its terms. If counters share a bucket, each limit charges it once, at the
        highest cost."""
        buckets: dict[str, int] = {}
        key: tuple[Any, ...] = ()
        for counter, texts in charged:
            for text in texts:
                key += (counter, buckets.setdefault(text, len(buckets)))
        return self._known.get(key) or self._make(key), tuple(buckets)

    def _make(self, key: tuple[Any, ...]) -> Statement:
        """:param key: (counter, index of its bucket, counter, index of its bucket, ...)."""
        found: dict[int, dict[Limit, Term]] = {}
        for counter, bucket in zip(key[::2], key[1::2], strict=True):
            terms = found.setdefault(bucket, {})
            for limit, cost, enforce, policy, label in counter.limits:
                known = terms.get(limit)
                if known is None or known.cost < cost:
                    chosen = counter.is_client_controlled
                    terms[limit] = Term(bucket, limit, cost, enforce, policy, label, chosen)
        made = Terms(term for terms in found.values() for term in terms.values())
        prepared = Statement(made, self._prepare(made) if made else _nothing_to_count)
        return self._known.keep(key, prepared)


def _nothing_to_count(
    buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
) -> Decision:
    """The take of requests that are charged nothing, which asks no storage."""
    return NOTHING_COUNTED


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is to be done for all requests that the same rules are for. Immutable."""

    rules: tuple[Rule, ...]
    """The rules that the requests fall under, exempt ones too. Empty if the defaults apply; several
    if the readings of a path have different rules."""
    by_rule: tuple[RuleCounters, ...]
    """What is counted: for each rule, shadow rules too, and for the limits of the top level."""
    counters: tuple[tuple[Counter, Mapping[str, str]], ...]
    """The counters of all of these, each with the variables of the path for its key."""
    statement: Statement | None
    """For requests that have one key for each of these counters. None if a rule has a condition, or
    if counters may share a bucket: then each request needs a statement of its own."""
    statements: Statements
    """Finds the statements of all other requests."""
    exempt: bool
    """Whether nothing is counted."""
    has_shadow: bool
    """Whether something is counted in shadow only."""
    allow: tuple[Networks | None, ...]
    """The ``allow`` lists of the rules that are not exempt: a client that is on all of them may
    pass. None stands for a rule without a list, or for a reading that no rule is for."""
    needs_precheck: bool
    """Whether :meth:`.RuleTable.precheck` is to be called before anything is counted: the path is
    too long, or there are lists of addresses to look the client up in."""
    needs_body: bool
    """Whether requests may have a key in their body, which is read after all else was asked."""
    is_special: bool
    """Whether there is something else to do than to count: a check before it, a body to read,
    observers to tell of requests that pass, the plan of a preflight, or nothing to count at all."""
    preflight: Plan | None
    """The plan of CORS preflights, which have the same rules but counters of their own. None if the
    method is not OPTIONS, or if a rule names OPTIONS and so counts them as any request."""
    on_storage_error: str
    """The strictest value that one of the rules has."""
    responder: Responder
    """Answers where a rule has no bodies of its own, and writes the headers of all responses."""

    def refusing_rule(self, decision: Decision) -> Rule | None:
        """The rule of the limit with the longest wait; of several, the first in the file. None if
        that is a limit of the top level.

        :param decision: a refusal of a request of this plan.
        """
        found = decision.derived.get(self)  # the refusal cache gives one decision to many requests
        if found is None:
            found = decision.derived[self] = (self._refusing_rule(decision),)
        rule: Rule | None = found[0]
        return rule

    def _refusing_rule(self, decision: Decision) -> Rule | None:
        enforced = decision.terms.enforced
        longest_ms = max((decision.measured[index][0] for index in enforced), default=0)
        policies = {
            decision.terms[index].policy
            for index in enforced
            if decision.measured[index][0] == longest_ms
        }
        rules = [
            each.rule
            for each in self.by_rule
            for counter in each.counters
            for limit in counter.limits
            if each.rule is not None and limit.enforce and limit.policy in policies
        ]
        return min(rules, key=lambda rule: rule.index, default=None)

    @property
    def denying_rule(self) -> Rule | None:
        """The first rule in the file that denies while nothing can be counted, or None."""
        denying = (rule for rule in self.rules if rule.on_storage_error == "deny")
        return min(denying, key=lambda rule: rule.index, default=None)

    def counters_for(self, environ: Environ) -> list[tuple[Counter, PathArgs]]:
        """The counters that a request is charged on, each with the variables of the path for its
        key."""
        return [
            (counter, each.path_args)
            for each in self.by_rule
            for counter in each.applicable(environ)
        ]

    def statement_for(self, environ: Environ) -> tuple[Statement, tuple[str, ...]]:
        """The statement of a request, and the buckets that it is charged on."""
        statement = self.statement
        if statement is None:
            return self.statements.for_buckets(
                (counter, counter.buckets(counter.key(environ, path_args)))
                for counter, path_args in self.counters_for(environ)
            )
        buckets: tuple[str, ...] = ()
        for counter, path_args in self.counters:
            key_of = counter.key  # calling a local name is faster than counter.key()
            key = key_of(environ, path_args)
            if key.__class__ is tuple:
                return self._several(environ, buckets, key)
            buckets += (f"{counter.prefix}{key}}}",)
        return statement, buckets

    def _several(
        self, environ: Environ, buckets: Sequence[str], key: tuple[str, ...]
    ) -> tuple[Statement, tuple[str, ...]]:
        """The same for a request that has several keys of one type.

        :param buckets: those of the counters before, which have one key each.
        :param key: the keys for the next counter.
        """
        counters = self.counters
        charged: list[tuple[Counter, tuple[str, ...]]] = [
            (counters[index][0], (bucket,)) for index, bucket in enumerate(buckets)
        ]
        counter, _ = counters[len(buckets)]
        charged.append((counter, counter.buckets(key)))
        for counter, path_args in counters[len(charged) :]:
            charged.append((counter, counter.buckets(counter.key(environ, path_args))))
        return self.statements.for_buckets(charged)
