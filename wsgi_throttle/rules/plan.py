"""What is to be done for a request once its rules are known: which counters are charged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ..cache import Bounded
from ..decision import NOTHING_COUNTED, Charge, Decision, Limit, Take, Term, Terms
from ..http.responder import Responder
from ..identity import Environ, Key, KeyFunction, Networks
from .model import Rule

Prepare: TypeAlias = Callable[[Terms], Take]
"""Has a storage prepare terms; see :meth:`wsgi_throttle.storage.Storage.prepare`."""


def key_in(bucket: str) -> str:
    """The key of the client whose bucket this is."""
    return bucket.partition("{")[2].removesuffix("}")


class CounterLimit(NamedTuple):
    """What a counter counts by one limit."""

    limit: Limit
    cost: int
    enforce: bool
    policy: str
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """The limits that share scope and key type: a bucket without its client."""

    prefix: str
    """The bucket's text up to the key."""
    key_types: tuple[str, ...]
    key: KeyFunction
    limits: tuple[CounterLimit, ...]

    def bucket(self, key: str) -> str:
        """Whose counter it is for a client with this key; :func:`key_in` is its reverse."""
        return f"{self.prefix}{key}}}"

    def buckets(self, key: Key) -> tuple[str, ...]:
        """The same for each key of a request that has several."""
        return (self.bucket(key),) if isinstance(key, str) else tuple(map(self.bucket, key))

    def charges(self, key: str) -> list[Charge]:
        """What a client with this key is charged."""
        return [Charge(self.bucket(key), *limit) for limit in self.limits]


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


class Statement:
    """Terms that are prepared: all that is to be known to charge any client by them."""

    __slots__ = ("fallback", "take", "terms")

    def __init__(self, terms: Terms, take: Take) -> None:
        self.terms = terms
        self.take = take
        self.fallback: Take | None = None
        """Charges them while the storage has an outage. Its owner's to prepare when one begins."""


class Statements:
    """The statements that a rule table has prepared, one for each combination of counters that
    requests are charged on. Bounded; any thread may use it.

    :param most: how many are kept. One that was forgotten is prepared again.
    """

    def __init__(self, prepare: Prepare, most: int) -> None:
        self._prepare = prepare
        self._known: Bounded[tuple[Any, ...], Statement] = Bounded(most)

    def of(self, counters: Iterable[Counter]) -> Statement:
        """For requests that are charged on one bucket of each of these counters, all different."""
        key: tuple[Any, ...] = ()
        for index, counter in enumerate(counters):
            key += (counter, index)
        return self._known.get(key) or self._make(key)

    def charging(
        self, charged: Iterable[tuple[Counter, Iterable[str]]]
    ) -> tuple[Statement, tuple[str, ...]]:
        """For a request that is charged on any number of buckets of these counters, and those
        buckets. Counters may share a bucket, which is then charged by each limit once, at the
        highest cost."""
        buckets: dict[str, int] = {}
        key: tuple[Any, ...] = ()
        for counter, texts in charged:
            for text in texts:
                key += (counter, buckets.setdefault(text, len(buckets)))
        return self._known.get(key) or self._make(key), tuple(buckets)

    def _make(self, key: tuple[Any, ...]) -> Statement:
        """:param key: counters, each with the index of the bucket that it is charged on."""
        found: dict[int, dict[Limit, Term]] = {}
        for counter, bucket in zip(key[::2], key[1::2], strict=True):
            terms = found.setdefault(bucket, {})
            for limit, cost, enforce, policy, label in counter.limits:
                known = terms.get(limit)
                if known is None or known.cost < cost:
                    terms[limit] = Term(bucket, limit, cost, enforce, policy, label)
        made = Terms(term for terms in found.values() for term in terms.values())
        prepared = Statement(made, self._prepare(made) if made else _nothing_to_count)
        return self._known.keep(key, prepared)


def _nothing_to_count(
    buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
) -> Decision:
    """Takes what a request without any terms is charged, for which no storage is asked."""
    return NOTHING_COUNTED


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that is to be done for requests which the same rules are for."""

    rules: tuple[Rule, ...]
    """The rules that won, exempt ones too; empty where the defaults apply. Several where the
    readings of a path have different rules."""
    parts: tuple[Part, ...]
    counters: tuple[tuple[Counter, Mapping[str, str]], ...]
    """All of all parts, with what their keys are to know of the path."""
    statement: Statement | None
    """For a request that has one key for each of these. None where a rule has a condition, or two
    parts may share a bucket: then each request has its own counters."""
    statements: Statements
    """For all other requests."""
    exempt: bool
    """Nothing is counted."""
    shadowed: bool
    """Some of it is only counted in shadow."""
    allow: tuple[Networks | None, ...]
    """The lists of the rules that are not exempt; a client that is on all of them may pass. None
    stands for no list, as where no rule won."""
    is_prejudged: bool
    """There is something to ask before anything is counted: the path is too long, or there are
    lists of addresses to look the client up in."""
    is_special: bool
    """There is more to do than to count: something to ask before, a shadow rule or another observer
    to tell, or nothing is counted at all."""
    preflight: Plan | None
    """The plan of a CORS preflight, which has the same rules and counters of its own. None where it
    counts as any request does: the method is not OPTIONS, or a rule names it."""
    on_storage_error: str
    """The strictest that one of the rules says."""
    responder: Responder
    """Answers where no rule has bodies of its own, and writes the headers of all responses."""

    def refusing_rule(self, decision: Decision) -> Rule | None:
        """The rule of the limit that refuses for longest, of several the first in the file; None
        where that is no rule's.

        :param decision: one that refuses.
        """
        found = decision.derived.get(self)  # who is refused once asks again at once
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
            part.rule
            for part in self.parts
            for counter in part.counters
            for limit in counter.limits
            if part.rule is not None and limit.enforce and limit.policy in policies
        ]
        return min(rules, key=lambda rule: rule.index, default=None)

    @property
    def denying_rule(self) -> Rule | None:
        """The rule that says to deny while nothing can be counted; None where no rule does."""
        denying = (rule for rule in self.rules if rule.on_storage_error == "deny")
        return min(denying, key=lambda rule: rule.index, default=None)

    def statement_for(self, environ: Environ) -> tuple[Statement, tuple[str, ...]]:
        """How this request is to be charged, and on which buckets."""
        statement = self.statement
        if statement is None:
            return self.statements.charging(
                (counter, counter.buckets(counter.key(environ, part.path_args)))
                for part in self.parts
                for counter in part.applicable(environ)
            )
        buckets: tuple[str, ...] = ()
        for counter, path_args in self.counters:
            key_of = counter.key  # called by a name of its own, which Python makes faster
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
        :param key: of the next counter.
        """
        counters = self.counters
        charged: list[tuple[Counter, tuple[str, ...]]] = [
            (counters[index][0], (bucket,)) for index, bucket in enumerate(buckets)
        ]
        counter, _ = counters[len(buckets)]
        charged.append((counter, counter.buckets(key)))
        for counter, path_args in counters[len(charged) :]:
            charged.append((counter, counter.buckets(counter.key(environ, path_args))))
        return self.statements.charging(charged)
