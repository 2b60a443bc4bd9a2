"""The grammar of limit strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgi_throttle.decision import Limit
from wsgi_throttle.errors import LimitError
from wsgi_throttle.limits import MAX_QUOTA, UNITS_MS, describe, is_limit, parse

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def rates(text: str) -> list[tuple[int, int]]:
    return [(limit.quota, limit.window_ms) for limit in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 per minute", [(5, MINUTE)]),
        ("100/hour", [(100, HOUR)]),
        ("10 per 15 minutes", [(10, 15 * MINUTE)]),
        ("10/15minutes", [(10, 15 * MINUTE)]),
        ("3 per second", [(3, 1000)]),
        ("10perminute", [(10, MINUTE)]),
        ("10  PER   Minute", [(10, MINUTE)]),
        ("1 per 1500ms", [(1, 1500)]),
        ("2/s", [(2, 1000)]),
        ("2/3 sec", [(2, 3000)]),
        ("2/m", [(2, MINUTE)]),
        ("2 / min", [(2, MINUTE)]),
        ("2/h", [(2, HOUR)]),
        ("2/hr", [(2, HOUR)]),
        ("2/d", [(2, DAY)]),
        ("2/w", [(2, 7 * DAY)]),
        ("1 per week", [(1, 7 * DAY)]),
        ("1 per month", [(1, 30 * DAY)]),
        ("1 per year", [(1, 365 * DAY)]),
        ("0 per minute", [(0, MINUTE)]),
        ("5 per minute; 20 per hour", [(5, MINUTE), (20, HOUR)]),
        ("5/minute,20/hour|100/day", [(5, MINUTE), (20, HOUR), (100, DAY)]),
        ("007 per 01 minute", [(7, MINUTE)]),
    ],
)
def test_a_limit_is_read(text: str, expected: list[tuple[int, int]]) -> None:
    assert rates(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "5 per minute"),
        ("5", "5 per minute"),
        ("per minute", "5 per minute"),
        ("5 per", "5 per minute"),
        ("five per minute", "5 per minute"),
        ("5 per minutee", 'did you mean "5 per minute"?'),
        ("5 per mo", 'did you mean "5 per month"?'),
        ("5 per 15 minuts", 'did you mean "5 per 15 minutes"?'),
        ("5 per fortnight", "not a unit of time"),
        ("10 per 0 minute", "a period of zero"),
        ("10/minute:;5/hour", "5 per minute"),
        ("5 per minute;", "nothing beside it"),
        (";5 per minute", "nothing beside it"),
        ("5/minute;;6/hour", "nothing beside it"),
        ("-5 per minute", "5 per minute"),
        ("+5 per minute", "5 per minute"),
        ("1.5 per minute", "5 per minute"),
        ("1e3 per minute", "5 per minute"),
        ("5 per -1 minute", "5 per minute"),
        ("\u0665 per minute", "5 per minute"),
        ("5 per minute 6 per hour", "5 per minute"),
        ("5/minute; 5 per 60 seconds", "twice"),
        ("9" * 5000 + " per minute", "far too large"),
        (f"{MAX_QUOTA + 1} per minute", "more than can be counted"),
        ("1 per 101 years", "longer than 100 years"),
    ],
)
def test_what_is_no_limit_is_refused_with_a_form_that_is_right(text: str, told: str) -> None:
    with pytest.raises(LimitError) as caught:
        parse(text)
    assert told in caught.value.reason
    assert caught.value.text == text
    assert not is_limit(text)


def test_the_strategy_and_its_burst_are_part_of_the_limit() -> None:
    assert parse("5 per minute") == [Limit("sliding-window", 5, MINUTE, 5)]
    assert parse("5 per minute", strategy="token-bucket", burst=9) == [
        Limit("token-bucket", 5, MINUTE, 9)
    ]


def test_a_bucket_too_large_to_count_exactly_is_refused() -> None:
    with pytest.raises(LimitError, match="exactly"):
        parse("999999999989 per 99 years", strategy="token-bucket")
    assert parse("1000000 per year", strategy="token-bucket")
    slow = f"1 per {2**31} ms"
    assert parse(slow, strategy="token-bucket", burst=2**20 - 1)
    with pytest.raises(LimitError, match="exactly"):
        parse(slow, strategy="token-bucket", burst=2**20)


WRITTEN = st.builds(
    lambda quota, multiple, unit, per, gap, case: (
        case(f"{quota}{gap}{per}{gap}{multiple}{gap}{unit}"),
        (quota, multiple * UNITS_MS[unit]),
    ),
    st.integers(0, MAX_QUOTA),
    st.integers(1, 1000),
    st.sampled_from([unit for unit, ms in UNITS_MS.items() if ms <= 7 * DAY]),
    st.sampled_from(["/", "per"]),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.sampled_from([str.lower, str.upper, str.title]),
)


@given(
    st.lists(WRITTEN, min_size=1, max_size=4, unique_by=lambda pair: pair[1]),
    st.sampled_from(";,|"),
)
def test_every_spelling_of_a_limit_means_the_same(
    written: list[tuple[str, tuple[int, int]]], separator: str
) -> None:
    assert rates(separator.join(text for text, _ in written)) == [rate for _, rate in written]


@given(st.integers(0, MAX_QUOTA), st.integers(1, 10**9))
def test_a_limit_in_words_reads_back_as_itself(quota: int, window_ms: int) -> None:
    (limit,) = parse(f"{quota} per {window_ms} ms")
    assert parse(describe(limit)) == [limit]


@given(st.text(max_size=40))
def test_any_text_is_a_limit_or_a_limit_error(text: str) -> None:
    try:
        limits = parse(text)
    except LimitError:
        return
    assert all(limit.window_ms > 0 and limit.quota >= 0 for limit in limits)


@pytest.mark.parametrize(
    "text",
    [
        "10 per minute",
        "10/minute",
        "10 per 2 hour",
        "1/day; 5/second",
        "1 per month",
        "7PER12HOURS",
    ],
)
def test_what_the_limits_package_reads_means_the_same(text: str) -> None:
    theirs = pytest.importorskip("limits").parse_many(text)
    assert rates(text) == [(item.amount, item.get_expiry() * 1000) for item in theirs]
