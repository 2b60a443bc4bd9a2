"""Charging a storage by lists of charges, as tests write them."""

from __future__ import annotations

from collections.abc import Iterable

from wsgi_throttle.decision import Charge, Decision, Outcome, Terms
from wsgi_throttle.storage import Storage


def take(storage: Storage, charges: Iterable[Charge]) -> Decision:
    """What the storage says of these charges. The terms are prepared anew each time."""
    terms, buckets = Terms.of(charges)
    return storage.prepare(terms)(buckets)


def decision_on(granted: bool, charges: Iterable[Charge], outcomes: Iterable[Outcome]) -> Decision:
    """As a storage that found these outcomes would make it."""
    terms, buckets = Terms.of(charges)
    return Decision(granted, terms, buckets, [(*outcome,) for outcome in outcomes])
