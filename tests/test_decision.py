"""Charges, terms and decisions, and which limit of a decision is shown to the client."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.charges import decision_on
from wsgi_throttle.decision import (
    NEVER_MS,
    NO_TERMS,
    Charge,
    Decision,
    Limit,
    Outcome,
    Terms,
    tightest_of,
)

MINUTE = Limit("sliding-window", 5, 60_000, 5)
HOUR = Limit("fixed-window", 20, 3_600_000, 20)
CHARGES = [
    Charge("a", MINUTE, 1, True, "first"),
    Charge("a", HOUR, 2, False, "second"),
    Charge("b", MINUTE, 1, True, "third"),
]


def test_terms_and_buckets_are_charges_taken_apart() -> None:
    terms, buckets = Terms.of(CHARGES)
    assert buckets == ("a", "b")
    assert [term.bucket for term in terms] == [0, 0, 1]
    assert terms.groups == ((0, 2), (2, 3))
    assert terms.enforced == (0, 2)
    assert Decision(True, terms, buckets, ()).charges == CHARGES


def test_terms_are_a_tuple() -> None:
    terms, _ = Terms.of(CHARGES)
    same, _ = Terms.of(CHARGES)
    assert terms == same == tuple(terms)
    assert hash(terms) == hash(tuple(terms))
    assert terms != Terms.of(CHARGES[:2])[0]
    assert copy.copy(terms) == terms


def test_a_part_of_terms_numbers_the_buckets_that_are_left() -> None:
    terms, _ = Terms.of(CHARGES)
    part, buckets = terms.part((1, 2))
    assert buckets == (0, 1)
    assert part == terms[1:]
    part, buckets = terms.part((2,))
    assert buckets == (1,)
    assert Decision(False, part, ("b",), ()).charges == CHARGES[2:]
    assert terms.part(()) == (NO_TERMS, ())


def test_no_charges_are_no_terms() -> None:
    assert Terms.of([]) == (NO_TERMS, ())
    assert (NO_TERMS.groups, NO_TERMS.enforced) == ((), ())
    nothing = Decision(True, NO_TERMS, (), ())
    assert (nothing.charges, nothing.outcomes, nothing.tightest) == ([], [], None)


def test_costs_stand_in_for_those_of_the_terms() -> None:
    terms, buckets = Terms.of(CHARGES)
    decision = Decision(True, terms, buckets, (), [7, 0, 9])
    assert [charge.cost for charge in decision.charges] == [7, 0, 9]


def test_a_decision_is_pickled_without_what_was_derived_of_it() -> None:
    decision = decision_on(True, CHARGES, [Outcome(0, 1, 2)] * 3)
    decision.derived["answer"] = decision.terms.prepared["writer"] = lambda: None
    copied = pickle.loads(pickle.dumps(decision))
    assert copied == decision
    assert (copied.derived, copied.terms.prepared) == ({}, {})
    assert (copied.charges, copied.terms.groups) == (decision.charges, decision.terms.groups)


def test_it_says_how_long_to_wait() -> None:
    def wait(*waits_ms: int) -> int | None:
        outcomes = [Outcome(wait_ms, 0, 0) for wait_ms in waits_ms]
        return decision_on(False, CHARGES, outcomes).retry_after_s

    assert wait(1, 0, 0) == 1
    assert wait(1_000, 0, 1_001) == 2
    assert wait(1, 90_000, 0) == 1  # the shadow charge refuses nobody
    assert wait(1, 0, NEVER_MS) is None
    assert decision_on(True, CHARGES, [Outcome(0, 1, 1)] * 3).retry_after_s is None


measured = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6
)


@given(measured, st.booleans())
def test_the_tightest_is_the_first_of_those_that_are_as_tight(
    found: list[tuple[int, int, int]], granted: bool
) -> None:
    def tightness(index: int) -> tuple[int, int]:
        wait_ms, remaining, reset_ms = found[index]
        return (-remaining, reset_ms) if granted else (wait_ms, 0)

    indexes = range(len(found))
    assert tightest_of(granted, indexes, found) == max(indexes, key=tightness)
    assert tightest_of(granted, [], found) == -1


@pytest.mark.parametrize("index", [0, 2])
def test_the_tightest_is_told_with_its_charge(index: int) -> None:
    outcomes = [Outcome(0, 5, 5)] * 3
    outcomes[index] = Outcome(0, 1, 5)
    outcomes[1] = Outcome(0, 0, 9)  # of the shadow charge
    assert decision_on(True, CHARGES, outcomes).tightest == (CHARGES[index], outcomes[index])
