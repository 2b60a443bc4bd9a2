"""Counting requests one of whose keys is in the body, which is read only where it matters."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .decision import Decision
from .errors import StorageError
from .identity import Environ, PathArgs
from .rules.plan import Counter, Plan, Statement
from .storage.look import Look, prepare_look
from .storage.memory import MemoryStorage
from .storage.patience import Patience
from .storage.refusal_cache import RefusalCache

Charged: TypeAlias = tuple[Statement, tuple[str, ...]]
"""How a request is charged, and on which buckets."""


class Pending:
    """One request, as far as it is known whom it is charged to. The rules' own conditions are asked
    once.

    :ivar charged: how it is charged; None until the body was read.
    """

    def __init__(self, plan: Plan, environ: Environ) -> None:
        self.plan = plan
        self.charged: Charged | None = None
        self._environ = environ
        self._counters: list[tuple[Counter, PathArgs]] = []
        self._known: list[tuple[Counter, tuple[str, ...]]] = []

    def without_body(self) -> Charged | None:
        """Find all keys but those in the body, and how the request would be charged by them; None
        where there is nothing to look at before, or no body to read after."""
        self._counters = self.plan.counters_for(self._environ)
        self._known = [
            (counter, counter.buckets(counter.key(self._environ, path_args)))
            for counter, path_args in self._counters
            if not counter.needs_body
        ]
        if 0 < len(self._known) < len(self._counters):
            return self.plan.statements.for_buckets(self._known)
        return None

    def read_body(self) -> Charged:
        """Find the keys in the body too, and keep how the request is charged."""
        known = iter(self._known)
        self.charged = self.plan.statements.for_buckets(
            (counter, counter.buckets(counter.key(self._environ, path_args)))
            if counter.needs_body
            else next(known)
            for counter, path_args in self._counters
        )
        return self.charged


class BodyLast:
    """Looks at all other limits before a body is read: whoever one of them refuses is answered at
    once, and may send the body slowly or never. The look and the take after it share one deadline.

    Any thread may call it.

    :param local: counts while the storage has an outage.
    :param timeout_s: the longest a request may wait for the storage to be reached, and again for
        its answer.
    """

    def __init__(self, storage: RefusalCache, local: MemoryStorage, timeout_s: float) -> None:
        self._storage = storage
        self._local = local
        self._patience_s = 2 * timeout_s

    def count(self, request: Pending) -> tuple[Decision, Literal["storage", "local"]]:
        """Look, read the body and charge; who decided that is returned with the decision.

        :raises StorageError: the storage did not answer. Where the request is then to be counted in
            this process, nothing refuses it there without its body, which was read.
        """
        patience = Patience(self._patience_s)
        first = request.without_body()
        if first:
            statement, buckets = first
            try:
                with patience.waiting():
                    refusal = self._look(statement)(buckets)
            except StorageError:
                refusal = self._look_locally(request, statement, buckets)
                if refusal is None:
                    raise
                return refusal, "local"
            if refusal:
                return refusal, "storage"
        statement, buckets = request.read_body()
        with patience.waiting():
            return statement.take(buckets), "storage"

    def _look_locally(
        self, request: Pending, statement: Statement, buckets: tuple[str, ...]
    ) -> Decision | None:
        if request.plan.on_storage_error != "local":
            return None
        if statement.local_look is None:
            statement.local_look = prepare_look(self._local, statement.terms)
        refusal = statement.local_look(buckets)
        if refusal is None:
            request.read_body()
        return refusal

    def _look(self, statement: Statement) -> Look:
        if statement.look is None:
            statement.look = self._storage.prepare_look(statement.terms)
        return statement.look
