"""What counts as one value of a form or of JSON."""

from __future__ import annotations

import unicodedata
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.servers import ROOT
from wsgi_throttle.identity.normalise import IGNORABLE, UNICODE_VERSION, normalised

DATA = (ROOT / "tests" / "data" / "default_ignorable.txt").read_text()


def code_points(first: int, last: int) -> range:
    return range(first, last + 1)


def test_the_ignorable_characters_are_those_of_the_unicode_database() -> None:
    assert f"DerivedCoreProperties-{UNICODE_VERSION}.txt" in DATA
    expected: set[int] = set()
    for line in DATA.splitlines():
        if line and not line.startswith("#"):
            ends = [int(end, 16) for end in line.split(";")[0].split("..")]
            expected.update(code_points(ends[0], ends[-1]))
    assert len(expected) == 4174
    assert set(chain.from_iterable(code_points(*ends) for ends in IGNORABLE)) == expected


def test_none_of_the_ignorable_and_control_characters_changes_a_value() -> None:
    codes = set(chain.from_iterable(code_points(*ends) for ends in IGNORABLE))
    codes |= {code for code in range(0x110000) if unicodedata.category(chr(code)) == "Cc"}
    assert len(codes) == 4174 + 65
    changing = [code for code in codes if normalised(f"vic{chr(code)}tim") != "victim"]
    assert changing == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("victim\u200b", "victim"),
        ("\u00advictim", "victim"),
        ("\ufeffvictim", "victim"),
        ("vic\u3164tim", "victim"),  # NFKC makes it another one
        ("vic\ufe0ftim", "victim"),
        ("victim\U000e0061", "victim"),
        ("victim\x00", "victim"),
        ("\x7fvictim\x85", "victim"),
        ("vic\ntim", "victim"),
        (" \u200b victim", "victim"),
        ("VICTIM", "victim"),
        ("\uff36ictim", "victim"),
        ("e\u034f\u0301", "\u00e9"),  # one character once nothing stands between
        ("jos\u00e9", "jos\u00e9"),
        ("jose", "jose"),
        ("v\u0131ctim", "v\u0131ctim"),  # a dotless i
        ("V\u0130CTIM", "vi\u0307ctim"),
        ("\u200b\u00ad", ""),
        (" ", ""),
    ],
    ids=ascii,
)
def test_a_value_is_folded_and_what_cannot_be_seen_is_dropped(value: str, expected: str) -> None:
    assert normalised(value) == expected


@given(st.text(max_size=30) | st.text("aeI\u0130\u0131\u0301\u0327\u034f\u200b\u1100\u1160\uff76"))
def test_normalising_twice_changes_nothing_more(value: str) -> None:
    once = normalised(value)
    assert normalised(once) == once
