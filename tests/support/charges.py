"""Lets tests charge a storage by plain lists of charges."""

from __future__ import annotations

from collections.abc import Iterable

from wsgi_throttle.decision import Charge, Decision, Outcome, Terms
from wsgi_throttle.testing.contract.charges import take

__all__ = ["decision_on", "take"]


def decision_on(granted: bool, charges: Iterable[Charge], outcomes: Iterable[Outcome]) -> Decision:
    """The decision of a storage that found these outcomes, one for each charge."""
    terms, buckets = Terms.of(charges)
    return Decision(granted, terms, buckets, [(*outcome,) for outcome in outcomes])
