"""The values that travel from the rules to the storage."""

from __future__ import annotations

import pytest

from wsgi_throttle.decision import Charge, Charges, Limit

MINUTE = Limit("sliding-window", 5, 60_000, 5)
HOUR = Limit("fixed-window", 20, 3_600_000, 20)
CHARGES = [
    Charge("a", MINUTE, 1, True, "first"),
    Charge("a", HOUR, 2, True, "second"),
    Charge("b", MINUTE, 1, False, "third"),
]


def test_charges_are_what_they_were_made_of() -> None:
    charges = Charges.of(CHARGES)
    assert [*charges] == CHARGES
    assert charges == CHARGES
    assert charges == tuple(CHARGES)
    assert charges != CHARGES[:2]
    assert charges != "abc"
    assert (len(charges), charges[1], charges[-1]) == (3, CHARGES[1], CHARGES[2])
    assert charges[1:] == CHARGES[1:]
    assert "second" in repr(charges)
    with pytest.raises(IndexError):
        charges[3]
    with pytest.raises(TypeError):
        hash(charges)


def test_charges_of_one_bucket_share_it() -> None:
    charges = Charges.of(CHARGES)
    assert charges.buckets == ("a", "b")
    assert [line[0] for line in charges.lines] == [0, 0, 1]
    assert Charges.of(charges) is charges


def test_no_charges_are_none() -> None:
    assert not Charges.of([])
    assert Charges.of([]) == []
