"""Two Throttles of one process that count the same requests twice are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from wsgi_throttle import Throttle, twins
from wsgi_throttle.log_once import LogOnce

app = Response("ok")
MAPPING = {"default_limits": "5 per hour"}


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "_log_once", LogOnce())


@pytest.fixture
def new() -> Iterator[Callable[..., Throttle]]:
    made: list[Throttle] = []

    def new(config: str | Path | dict[str, Any]) -> Throttle:
        made.append(Throttle(app, config))
        return made[-1]

    yield new
    for throttle in made:
        throttle.close()


@pytest.fixture
def path(tmp_path: Path, shared_uri: str) -> Path:
    path = tmp_path / "throttle.yaml"
    path.write_text(f"default_limits: 5 per hour\nstorage: {shared_uri}\n")
    return path


def remaining(throttle: Throttle) -> int:
    """After one more request."""
    return int(Client(throttle).get("/").headers["X-RateLimit-Remaining"])


def told(caplog: pytest.LogCaptureFixture) -> int:
    return sum("is counted twice" in line.getMessage() for line in caplog.records)


def test_two_throttles_of_one_process_with_the_same_counters_are_told_once(
    path: Path, new: Callable[..., Throttle], caplog: pytest.LogCaptureFixture
) -> None:
    first = new(path)
    assert told(caplog) == 0
    second, _ = new(str(path)), new(path)
    assert told(caplog) == 1
    assert str(path) in caplog.text
    assert [remaining(first), remaining(second)] == [4, 3]


def test_two_throttles_that_count_apart_are_not_told(
    path: Path, new: Callable[..., Throttle], caplog: pytest.LogCaptureFixture
) -> None:
    other = path.with_name("other.yaml")
    other.write_text(path.read_text())
    made = [new(path), new(other), new(MAPPING)]
    for _ in range(2):
        new(MAPPING | {"storage": "memory://"})
    assert told(caplog) == 0
    made[0].close()
    new(path)
    assert told(caplog) == 0


def test_a_throttle_that_is_garbage_is_not_told(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        throttle = Throttle(app, path)
        throttle.itself = throttle  # type: ignore[attr-defined]
        del throttle
    assert told(caplog) == 0
