"""Lets tests charge a storage by plain lists of charges."""

from __future__ import annotations

from collections.abc import Iterable

from wsgi_throttle.decision import Charge, Decision, Outcome, Terms
from wsgi_throttle.storage import Storage


def take(storage: Storage, charges: Iterable[Charge]) -> Decision:
    """Charge the storage in one step. The terms are prepared anew each time."""
    terms, buckets = Terms.of(charges)
    return storage.prepare(terms)(buckets)


def decision_on(granted: bool, charges: Iterable[Charge], outcomes: Iterable[Outcome]) -> Decision:
    """The decision of a storage that found these outcomes, one for each charge."""
    terms, buckets = Terms.of(charges)
    return Decision(granted, terms, buckets, [(*outcome,) for outcome in outcomes])
