"""``mode: off`` turns the limiter off, whatever else is wrong with the file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from support.servers import wait_until
from wsgi_throttle import ConfigError, Throttle
from wsgi_throttle.cli import main
from wsgi_throttle.config import load

MISTAKES = {
    "a mistaken limit": ("rules: [{path: /, limits: 5 per minutee}]", 1),
    "a mistaken storage": ("storage: memcached://x", 1),
    "a mistaken session": ("session: {kind: rails}\nkey: session-user", 1),
    "an unset variable": ("session: {kind: flask, secret_key: '${NOWHERE_TO_BE_SET}'}", 1),
    "rules that clash": ("rules:\n- {path: /, limits: 0/s}\n- {path: /, limits: 1/s}", 1),
    "a function that is not there": (
        "rules: [{path: /, limits: 0/s, skip: python:os:nowhere}]",
        1,
    ),
    "an unknown option": ("stoarge: memory://\nrules: [{path: /, limits: 0/s}]", 1),
    "a block list with one bad line": ("block: [127.0.0.1, 0.0.0.0/0x]", 1),
    "all at once": (
        "storage: redis\nrules:\n- {path: x, limits: 1/s}\n- {path: /, limits: 0/s, cost: 0}",
        3,
    ),
}


app = Response("ok")
pytestmark = pytest.mark.usefixtures("poll_often")


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(("text", "count"), MISTAKES.values(), ids=MISTAKES)
def test_every_request_is_passed_on_and_the_mistakes_are_one_error_in_the_log(
    text: str, count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(f"mode: off\n{text}")
    throttle = Throttle(app, path)
    (told,) = errors_in(caplog)
    assert told.count(str(path)) == count
    client = Client(throttle)
    answers = [client.get("/") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("X-RateLimit-Limit" in answer.headers for answer in answers)
    throttle.reset("192.0.2.1")
    throttle.close()


@pytest.mark.parametrize(("text", "count"), MISTAKES.values(), ids=MISTAKES)
def test_check_tells_of_every_mistake(
    text: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(f"mode: off\n{text}")
    assert main(["check", str(path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == count + 1
    assert told[-1].endswith(f": {count} mistake{'s' * (count > 1)}")


@pytest.mark.parametrize(
    "text",
    [
        "mode: of\nrules: [{path: x}]",
        "mode: '${NOWHERE_TO_BE_SET}'",
        "mode: [off]",
        "mode: off\nmode: enforce",
        "mode: off\nmode: off",
        "mode: off\nrules: [{path: /",
        "mode: shadow\nrules: [{path: x}]",
        "- mode: off",
        "rules: [{path: x, mode: off}]",
        "",
    ],
)
def test_a_file_that_does_not_say_it_without_doubt_stops_the_start(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Throttle(app, path)


def test_the_mode_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text('mode: "${THROTTLE_MODE:-enforce}"\nrules: [{path: x}]')
    with pytest.raises(ConfigError):
        Throttle(app, path)
    monkeypatch.setenv("THROTTLE_MODE", "off")
    assert Client(Throttle(app, path)).get("/").status_code == 200


def test_a_mapping_may_be_off_too(caplog: pytest.LogCaptureFixture) -> None:
    assert Client(Throttle(app, {"mode": "off", "rules": "x"})).get("/").status_code == 200
    assert len(errors_in(caplog)) == 1


def test_a_file_without_mistakes_that_is_off_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    Throttle(app, {"mode": "off", "storage": "memory://", "default_limits": "0/s"})
    assert not errors_in(caplog)


def test_nothing_is_lenient_where_that_is_not_asked_for() -> None:
    config = {"mode": "off", "rules": [{"path": "x", "limits": "1/s"}, {"path": "/a"}]}
    with pytest.raises(ConfigError) as caught:
        load(config)
    lenient = load(config, lenient_when_off=True)
    assert list(lenient.diagnostics) == caught.value.diagnostics
    assert len(caught.value.diagnostics) == 2
    assert lenient.rules == ()


def test_a_changed_file_with_mistakes_is_turned_off_and_on_again_once_they_are_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "throttle.yaml"
    refusing = "storage: memory://\nrules: [{path: /, limits: 0/s}]"
    path.write_text(refusing)
    throttle = Throttle(app, path)
    client = Client(throttle)
    assert client.get("/").status_code == 429
    path.write_text(f"mode: off\n{refusing}\nstoarge: x")
    wait_until(lambda: client.get("/").status_code == 200)
    (told,) = errors_in(caplog)
    assert 'did you mean "storage"?' in told
    path.write_text(refusing)
    wait_until(lambda: client.get("/").status_code == 429)
    throttle.close()


def test_a_storage_that_was_wrong_at_the_start_is_used_once_it_is_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No restart is needed, since nothing was counted with the old storage. The next change of the
    file does not replace the storage again."""
    path = tmp_path / "throttle.yaml"
    (tmp_path / "counts").mkdir(mode=0o700)
    right = f"storage: shared://{tmp_path}/counts?size=1mb\ndefault_limits: "
    path.write_text("mode: off\nstorage: nowhere://")
    throttle = Throttle(app, path)
    client = Client(throttle)
    assert client.get("/").status_code == 200
    path.write_text(f"{right}7/h")
    wait_until(lambda: "X-RateLimit-Limit" in client.get("/").headers)
    assert any((tmp_path / "counts").iterdir())
    assert "restart" not in caplog.text
    path.write_text("default_limits: 8/h\nstorage: memory://")
    wait_until(lambda: client.get("/").headers["X-RateLimit-Limit"] == "8")
    assert "before a restart: storage" in caplog.text
    assert int(client.get("/").headers["X-RateLimit-Remaining"]) < 8
    throttle.close()
