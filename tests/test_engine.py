"""What the engine decides, which observers it calls, and which rule's answer a client gets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from wsgi_throttle import Throttle
from wsgi_throttle.engine import Engine
from wsgi_throttle.errors import Diagnostic, StorageError
from wsgi_throttle.observers import Observer
from wsgi_throttle.rules.table import MAX_PATH_BYTES
from wsgi_throttle.testing import ManualClock
from wsgi_throttle.verdict import Verdict

DOWN = "redis://127.0.0.1:1"
"""Nothing listens there."""


class Recorder(Observer):
    """Remembers what it was called with."""

    def __init__(self, *, every_request: bool = False, follows_responses: bool = False) -> None:
        self.every_request = every_request
        self.follows_responses = follows_responses
        self.verdicts: list[Verdict] = []
        self.finishes: list[dict[str, Any]] = []
        self.storage: list[tuple[bool, str]] = []
        self.reloads: list[int] = []

    def decided(self, environ: dict[str, Any], verdict: Verdict) -> None:
        self.verdicts.append(verdict)

    def finished(self, environ: dict[str, Any], verdict: Verdict, **seen: Any) -> None:
        self.finishes.append(seen)

    def storage_changed(self, name: str, *, failed: bool, cause: str) -> None:
        self.storage.append((failed, cause))

    def reloaded(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.reloads.append(len(diagnostics))


class Broken(Observer):
    """Raises an exception whatever it is told."""

    every_request = follows_responses = True

    def decided(self, environ: dict[str, Any], verdict: Verdict) -> None:
        raise RuntimeError("broken observer")

    def finished(self, environ: dict[str, Any], verdict: Verdict, **seen: Any) -> None:
        raise RuntimeError("broken observer")

    def reloaded(self, diagnostics: Sequence[Diagnostic]) -> None:
        raise RuntimeError("broken observer")


def engine(*rules: dict[str, Any], observers: Sequence[Observer] = (), **top: Any) -> Engine:
    config = {"storage": "memory://", "rules": list(rules), **top}
    return Engine.from_source(config, clock=ManualClock(), observers=observers)


def request(path: str = "/a", method: str = "GET", **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": BytesIO(),
        **more,
    }


# --- verdicts -------------------------------------------------------------------------------------


def test_every_outcome_is_reached_and_says_what_it_rests_on() -> None:
    rules: list[dict[str, Any]] = [
        {"path": "/free", "exempt": True},
        {"name": "a", "path": "/a", "limits": "1 per hour"},
        {"name": "shut", "path": "/shut", "limits": "1 per hour", "block": ["192.0.2.1"]},
        {"name": "open", "path": "/open", "limits": "0 per hour", "allow": ["192.0.2.1"]},
    ]
    judge = engine(*rules)
    found = {
        path: judge.decide(request(path))
        for path in ("/free", "/a", "/shut", "/open", "/other", "/" + "x" * MAX_PATH_BYTES)
    }
    outcomes = [verdict.outcome for verdict in found.values()]
    assert outcomes == ["exempt", "granted", "blocked", "allowed", "exempt", "too_long"]
    assert found["/a"].decision is not None
    assert (found["/a"].counted_by, found["/free"].counted_by) == ("storage", "nobody")
    assert found["/free"].decision is None
    assert found["/shut"].rule is not None
    assert found["/shut"].rule.name == "shut"

    refused = judge.decide(request("/a"))
    assert (refused.outcome, refused.counted_by) == ("refused", "storage")
    assert refused.rule is not None
    assert refused.rule.name == "a"


@pytest.mark.parametrize(
    ("policy", "outcomes", "counted_by"),
    [
        ("local", ["granted", "refused"], "local"),
        ("allow", ["granted", "granted"], "nobody"),
        ("deny", ["unavailable", "unavailable"], "nobody"),
    ],
)
def test_a_storage_that_is_down_is_as_the_rule_says(
    policy: str, outcomes: list[str], counted_by: str
) -> None:
    rule = {"name": "a", "path": "/a", "limits": "1 per hour", "on_storage_error": policy}
    judge = engine(rule, storage=DOWN)
    verdicts = [judge.decide(request()) for _ in range(2)]
    assert [verdict.outcome for verdict in verdicts] == outcomes
    assert {verdict.counted_by for verdict in verdicts} == {counted_by}
    denied = verdicts[0].rule
    assert (denied.name if denied else None) == ("a" if policy == "deny" else None)
    judge.close()


def test_a_defect_of_ours_is_logged_with_its_traceback_and_is_no_clients_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("wsgi_throttle.storage.memory.take", broken)
    judge = engine({"name": "a", "path": "/a", "limits": "1 per hour"})
    with caplog.at_level(logging.ERROR, "wsgi_throttle"):
        verdicts = [judge.decide(request()) for _ in range(3)]
    # The local storage fails as well, since it runs the same code.
    assert [(verdict.outcome, verdict.counted_by) for verdict in verdicts] == [
        ("granted", "nobody")
    ] * 3
    assert len(caplog.records) == 2, "not once for each kind"
    assert all(record.exc_info for record in caplog.records)
    assert "ZeroDivisionError: a defect" in caplog.text
    assert "please report it" in caplog.text


def test_a_key_that_cannot_be_found_because_of_a_defect_is_no_clients_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [
        {"path": "/a", "limits": "1 per hour", "key": "header:X-Key"},
        {
            "path": "/d",
            "limits": "1 per hour",
            "key": "header:X-Key",
            "on_storage_error": "deny",
        },
    ]
    judge = engine(*rules)

    def broken(value: str) -> str:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("wsgi_throttle.identity.key_types.from_wsgi", broken)
    outcomes = [judge.decide(request(path, HTTP_X_KEY="k")).outcome for path in ("/a", "/d")]
    assert outcomes == ["granted", "unavailable"]
    assert "ZeroDivisionError: a defect" in caplog.text


# --- whose answer ---------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, str]:
    """The ``response`` of each rule: a text with the name of the rule."""
    found = {}
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"{name} says no")
        found[name] = str(tmp_path / f"{name}.txt")
    return found


def answer(user: Client, path: str) -> str:
    return user.get(path, headers={"Accept": "text/plain"}).text


def test_the_rule_that_refuses_for_longest_answers_and_not_the_first_reading_of_the_path(
    pages: dict[str, str],
) -> None:
    rules = [
        {"path": "/x/**", "limits": "5 per hour", "response": {"text": pages["one"]}},
        {"path": "/b", "limits": "1 per hour", "response": {"text": pages["two"]}},
    ]
    user = Client(Throttle(ok, {"storage": "memory://", "rules": rules}))
    assert user.get("/b").status_code == 200
    # It can be read as itself, where /x/** has room left, and as /b, whose limit is used up.
    assert answer(user, "/x/../b") == "two says no"


def test_of_rules_that_both_refuse_the_one_with_the_longest_wait_answers(
    pages: dict[str, str],
) -> None:
    rules = [
        {"path": "/x/**", "limits": "1 per minute", "response": {"text": pages["one"]}},
        {"path": "/b", "limits": "0 per hour", "response": {"text": pages["two"]}},
    ]
    user = Client(Throttle(ok, {"storage": "memory://", "rules": rules}))
    assert user.get("/x/y").status_code == 200
    assert answer(user, "/x/../b") == "two says no"


def test_of_rules_that_refuse_equally_long_the_first_in_the_file_answers(
    pages: dict[str, str],
) -> None:
    rules = [
        {"path": "/b", "limits": "0 per hour", "response": {"text": pages["two"]}},
        {"path": "/x/**", "limits": "0 per hour", "response": {"text": pages["one"]}},
    ]
    user = Client(Throttle(ok, {"storage": "memory://", "rules": rules}))
    assert answer(user, "/x/../b") == "two says no"
    assert answer(user, "/x/y") == "one says no"


def test_the_top_level_answers_for_limits_that_are_no_rules(
    pages: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "top.txt").write_text("the top level says no")
    config = {
        "storage": "memory://",
        "application_limits": "0 per hour",
        "responses": {"text": str(tmp_path / "top.txt")},
        "rules": [{"path": "/b", "limits": "9 per hour", "response": {"text": pages["one"]}}],
    }
    assert answer(Client(Throttle(ok, config)), "/b") == "the top level says no"


def test_a_refusal_from_memory_tells_of_every_limit_of_its_own_path() -> None:
    throttle = Throttle(
        ok,
        {
            "storage": "memory://",
            "application_limits": "3 per minute",
            "rules": [{"name": "b", "path": "/b", "limits": "1 per hour"}],
        },
    )
    client = Client(throttle)
    statuses = [client.get(path).status_code for path in ("/b", "/a", "/a", "/a")]
    assert statuses == [200, 200, 200, 429]
    assert client.get("/a").headers["Retry-After"] == "60"
    for _ in range(2):
        refused = client.get("/b")
        assert refused.headers["Retry-After"] == "3600"
        assert '"application";r=0;t=60' in refused.headers["RateLimit"]
        assert '"b";r=0;t=3600' in refused.headers["RateLimit"]


def ok(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


# --- observers ------------------------------------------------------------------------------------

RULES: list[dict[str, Any]] = [
    {"path": "/free", "exempt": True},
    {"name": "a", "path": "/a", "limits": "1 per hour"},
    {"name": "shadow", "path": "/s", "limits": "9 per hour", "mode": "shadow"},
]


def test_an_observer_is_told_of_what_may_not_pass_and_of_shadow_rules() -> None:
    seen = Recorder()
    judge = engine(*RULES, observers=[seen])
    for path in ("/free", "/a", "/a", "/s"):
        judge.decide(request(path))
    assert [verdict.outcome for verdict in seen.verdicts] == ["refused", "granted"]


def test_one_that_asks_for_it_is_told_of_every_request_once() -> None:
    seen = Recorder(every_request=True)
    judge = engine(*RULES, observers=[seen])
    for path in ("/free", "/a", "/a", "/s", "/other"):
        judge.decide(request(path))
    outcomes = [verdict.outcome for verdict in seen.verdicts]
    assert outcomes == ["exempt", "granted", "refused", "granted", "exempt"]


def test_an_observer_hears_of_an_outage_and_of_a_reload(tmp_path: Path) -> None:
    seen = Recorder()
    judge = engine(*RULES, storage=DOWN, observers=[seen])
    judge.decide(request())
    assert seen.storage[0][0] is True
    assert seen.storage[0][1]
    judge.close()

    path = tmp_path / "throttle.yaml"
    path.write_text("storage: memory://\ndefault_limits: 5 per hour\n")
    judge = Engine.from_source(path, observers=[seen])
    path.write_text("storage: memory://\ndefault_limits: 5 per ho\n")
    judge.reload(path)
    path.write_text("storage: memory://\ndefault_limits: 6 per hour\n")
    judge.reload(path)
    assert seen.reloads == [1, 0]


def test_what_an_observer_raises_reaches_no_client(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("storage: memory://\ndefault_limits: 1 per hour\n")
    user = Client(Throttle(ok, path, observers=[Broken()]))
    with caplog.at_level(logging.ERROR, "wsgi_throttle"):
        codes = [user.get("/", buffered=True).status_code for _ in range(3)]
    assert codes == [200, 429, 429]
    assert "Broken.decided failed" in caplog.text
    assert "Broken.finished failed" in caplog.text


def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """An application that answers, raises or breaks off as the path says."""
    path = environ["PATH_INFO"]
    if path == "/raises":
        raise RuntimeError("the application failed")
    write = start_response("201 Created", [("X-Own", "1")])
    if path == "/writes":
        write(b"123")

    def body() -> Iterator[bytes]:
        yield b"12"
        if path == "/breaks":
            raise RuntimeError("the application failed")
        yield b"345"

    return body()


@pytest.mark.parametrize(
    ("path", "read", "status", "bytes_sent"),
    [
        ("/", 2, "201 Created", 5),
        ("/", 1, "201 Created", 2),  # the client went away
        ("/", 0, "201 Created", 0),
        ("/writes", 2, "201 Created", 8),
        ("/breaks", 2, "201 Created", 2),
        ("/raises", 0, "", 0),
    ],
)
def test_a_response_is_followed_to_its_end_and_told_once(
    path: str, read: int, status: str, bytes_sent: int
) -> None:
    seen = Recorder(follows_responses=True)
    config = {"storage": "memory://", "default_limits": "9 per hour"}
    throttle = Throttle(application, config, observers=[seen])
    written: list[bytes] = []
    try:
        body = throttle(request(path), lambda *_: written.append)
        chunks = iter(body)
        for _ in range(read):
            next(chunks)
    except RuntimeError:
        pass
    if status:
        assert seen.finishes == [] or path == "/breaks"
        body.close()  # type: ignore[attr-defined]
        body.close()  # type: ignore[attr-defined]
    (finish,) = seen.finishes
    assert (finish["status"], finish["bytes_sent"]) == (status, bytes_sent)
    assert finish["seconds"] >= 0
    assert finish["headers"] == ([("X-Own", "1")] if status else [])


def test_a_refusal_is_no_response_to_follow() -> None:
    seen = Recorder(follows_responses=True)
    config = {"storage": "memory://", "default_limits": "0 per hour"}
    assert Client(Throttle(ok, config, observers=[seen])).get("/").status_code == 429
    assert seen.finishes == []


# --- the log of refusals --------------------------------------------------------------------------


def test_the_next_line_of_a_client_says_how_many_were_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    rule = {"name": "r", "path": "/a", "limits": "0 per hour"}
    judge = Engine.from_source({"storage": "memory://", "rules": [rule]}, clock=clock)
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        for seconds in (0, 1, 58, 1):
            clock.now_s += seconds
            judge.decide(request())
    assert [
        record.__dict__["left_out"] for record in caplog.records if "left_out" in record.__dict__
    ] == [0, 2]


# --- the storage ----------------------------------------------------------------------------------


def test_reset_forgets_what_was_counted_by_the_storage_and_in_this_process() -> None:
    judge = engine({"name": "a", "path": "/a", "limits": "1 per hour"})
    assert [judge.decide(request()).outcome for _ in range(2)] == ["granted", "refused"]
    judge.reset("192.0.2.1")
    assert judge.decide(request()).outcome == "granted"


def test_reset_forgets_what_was_counted_in_this_process_though_the_storage_is_down() -> None:
    judge = engine({"name": "a", "path": "/a", "limits": "1 per hour"}, storage=DOWN)
    assert [judge.decide(request()).outcome for _ in range(2)] == ["granted", "refused"]
    with pytest.raises(StorageError):
        judge.reset("192.0.2.1")
    assert judge.decide(request()).outcome == "granted"
    judge.close()


def test_reset_opens_no_storage_where_nothing_is_counted(tmp_path: Path) -> None:
    judge = engine(storage=f"shared://{tmp_path}", mode="off", default_limits="1 per hour")
    judge.reset("192.0.2.1")
    judge.close()
    assert list(tmp_path.iterdir()) == []


def test_an_engine_may_be_closed_twice_and_goes_on_afterwards(tmp_path: Path) -> None:
    judge = engine(
        {"name": "a", "path": "/a", "limits": "1 per hour"}, storage=f"shared://{tmp_path}"
    )
    assert judge.decide(request()).outcome == "granted"
    judge.close()
    judge.close()
    assert judge.decide(request()).outcome == "refused"
    judge.close()
