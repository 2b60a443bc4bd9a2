"""Messages that are logged once, or once a period, with the number of those that were left out."""

from __future__ import annotations

import logging

import pytest

from wsgi_throttle.log_once import LogOnce
from wsgi_throttle.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_topic_is_logged_once_and_each_topic_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    log_once = LogOnce()
    for _ in range(3):
        log_once("a", logging.WARNING, "%s is wrong", "a")
        log_once(("b", 1), logging.ERROR, "b, at 100 %")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a is wrong"),
        ("ERROR", "b, at 100 %"),
    ]
    assert {record.name for record in caplog.records} == {"wsgi_throttle"}


def test_after_the_period_it_is_logged_again_with_the_number_left_out(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    log_once = LogOnce(60.0, clock=clock)
    for seconds in (0, 0, 59.9, 0.1, 60, 1):
        clock.now_s += seconds
        log_once("topic", logging.WARNING, "%s failed", "it")
    assert [record.getMessage() for record in caplog.records] == [
        "it failed",
        "it failed (2 more left out)",
        "it failed",
    ]


def test_the_period_begins_with_what_was_logged_and_not_with_what_was_left_out(
    clock: ManualClock,
) -> None:
    log_once = LogOnce(60.0, clock=clock)
    found = []
    for _ in range(7):
        found.append(log_once.due("topic"))
        clock.now_s += 20
    assert found == [0, None, None, 2, None, None, 2]


def test_topics_do_not_fill_the_memory(clock: ManualClock) -> None:
    log_once = LogOnce(60.0, max_topics=10, clock=clock)
    assert [log_once.due(number) for number in range(10)] == [0] * 10
    assert [log_once.due(number) for number in range(10)] == [None] * 10
    assert log_once.due("one more") == 0
    # All topics were forgotten, so each may be logged again at once.
    assert [log_once.due(number) for number in range(9)] == [0] * 9


@pytest.mark.parametrize("period_s", [60.0, float("inf")])
def test_nothing_is_logged_in_the_very_moment_again(period_s: float, clock: ManualClock) -> None:
    log_once = LogOnce(period_s, clock=clock)
    assert [log_once.due("topic") for _ in range(3)] == [0, None, None]


def test_the_traceback_is_logged_where_it_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    log_once = LogOnce()
    try:
        raise RuntimeError("the cause")
    except RuntimeError:
        log_once("without", logging.ERROR, "failed")
        assert "the cause" not in caplog.text
        log_once("with", logging.ERROR, "failed", exc_info=True)
    assert "the cause" in caplog.text
