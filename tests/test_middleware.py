"""Whole requests, through the middleware as a WSGI callable."""

from __future__ import annotations

import json
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client
from werkzeug.wrappers import Response

from wsgi_throttle import ConfigError, Decision, Throttle, middleware, wrap
from wsgi_throttle.testing import ManualClock

LIMITED = {"name": "r", "path": "/limited", "limits": "2 per hour"}


class App:
    """An application that counts its calls and keeps what it found in the environ."""

    def __init__(self, headers: list[tuple[str, str]] | None = None) -> None:
        self.calls = 0
        self.environ: dict[str, Any] = {}
        self._headers = headers or []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.calls += 1
        self.environ = environ
        start_response("200 OK", [("Content-Type", "text/plain"), *self._headers])
        return [b"ok"]


def throttled(
    *rules: dict[str, Any], app: Any = None, on_limit: Any = None, **top: Any
) -> Throttle:
    config = {"storage": "memory://", "rules": list(rules), **top}
    return Throttle(app or App(), config, on_limit=on_limit)


def client(*rules: dict[str, Any], **options: Any) -> Client:
    return Client(throttled(*rules, **options))


def test_a_request_over_its_limit_gets_429_before_the_application_runs() -> None:
    app = App()
    user = client(LIMITED, app=app)
    assert [user.get("/limited").status_code for _ in range(4)] == [200, 200, 429, 429]
    assert app.calls == 2


def test_another_client_and_another_path_are_unaffected() -> None:
    user = client(LIMITED)
    for _ in range(3):
        user.get("/limited", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert user.get("/limited", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 429
    assert user.get("/limited", environ_base={"REMOTE_ADDR": "192.0.2.2"}).status_code == 200
    assert user.get("/other", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/limited", "//limited", "/limited/", "/./limited", "/x/../limited", "/limited/."),
        *("/limited\n", "/limited/\n", "/limited\n/", "/ /limited", "/limited\x00"),
        *("/limited\xff", "/lim\x80ited", "/limited\xc2\xa0", "/x/../lim\xf0\x9fited\n"),
    ],
)
def test_no_spelling_of_a_path_dodges_its_limit(path: str) -> None:
    user = client(LIMITED)
    for _ in range(2):
        user.get("/limited")
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    assert user.open(environ_overrides=environ).status_code == 429


def test_headers_and_body_tell_of_the_same_limit() -> None:
    user = client({"name": "r", "path": "/a", "limits": "2 per hour; 100 per day"})
    granted = user.get("/a")
    assert granted.headers["X-RateLimit-Limit"] == "2"
    assert granted.headers["X-RateLimit-Remaining"] == "1"
    assert granted.headers["RateLimit-Policy"] == '"r-1";q=2;w=3600, "r-2";q=100;w=86400'
    assert granted.headers["RateLimit"] == '"r-1";r=1;t=3600, "r-2";r=99;t=86400'
    assert "Retry-After" not in granted.headers
    user.get("/a")
    refused = user.get("/a")
    problem = refused.get_json(force=True)
    assert refused.headers["Retry-After"] == "3600" == str(problem["retry_after"])
    assert refused.headers["RateLimit"] == '"r-1";r=0;t=3600'
    assert problem["violated-policies"] == ["r-1"]
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_a_limit_of_zero_refuses_always_and_promises_nothing() -> None:
    refused = client({"path": "/a", "limits": "0 per minute"}).get("/a")
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers


@pytest.mark.parametrize("header", ["X-RateLimit-Limit", "x-ratelimit-remaining"])
def test_where_the_application_sets_one_header_of_a_family_ours_stay_out(header: str) -> None:
    response = client(LIMITED, app=App([(header, "77")])).get("/limited")
    assert [
        value for name, value in response.headers if name.lower().startswith("x-ratelimit")
    ] == ["77"]
    assert "RateLimit" in response.headers


def test_the_application_finds_the_decision_in_the_environ() -> None:
    app = App()
    client(LIMITED, app=app).get("/limited")
    decision = app.environ["wsgi_throttle.decision"]
    assert isinstance(decision, Decision)
    assert decision.granted
    assert [(charge.policy, outcome.remaining) for charge, outcome in decision.enforced] == [
        ("r", 1)
    ]


def test_exempt_requests_carry_no_headers_and_no_decision() -> None:
    app = App()
    response = client({"path": "/a", "exempt": True}, app=app, default_limits="1/s").get("/a")
    assert not [name for name, _ in response.headers if "ratelimit" in name.lower()]
    assert "wsgi_throttle.decision" not in app.environ


def test_a_shadow_rule_never_refuses_and_is_in_no_header() -> None:
    user = client(
        {**LIMITED, "mode": "shadow"}, {"name": "all", "path": "/**", "limits": "9 per hour"}
    )
    responses = [user.get("/limited") for _ in range(4)]
    assert [response.status_code for response in responses] == [200] * 4
    assert responses[3].headers["RateLimit-Policy"] == '"all";q=9;w=3600'


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_mode_for_everything_refuses_nothing(mode: str) -> None:
    user = client(LIMITED, mode=mode, application_limits="1 per hour", block=["127.0.0.0/8"])
    responses = [user.get("/limited") for _ in range(4)]
    assert [response.status_code for response in responses] == [200] * 4
    assert not [name for name, _ in responses[0].headers if "ratelimit" in name.lower()]


def test_a_head_request_is_refused_without_a_body() -> None:
    user = client(LIMITED)
    for _ in range(2):
        user.get("/limited")
    response = user.head("/limited")
    assert (response.status_code, response.data) == (429, b"")


LONGEST = 8192


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json", "application/problem+json"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
    ],
)
def test_a_path_that_is_too_long_to_be_matched_gets_414(accept: str, content_type: str) -> None:
    app = App()
    user = client({"path": "/**", "limits": "1 per hour"}, app=app, allow=["192.0.2.1"])
    longest = "/" + "a" * (LONGEST - 1)
    headers = {"Accept": accept}
    assert [user.get(longest, headers=headers).status_code for _ in range(2)] == [200, 429]
    for path in (longest + "a", "/" + "%C3%BC" * (LONGEST // 2)):
        response = user.get(path, headers=headers)
        assert response.status == "414 URI Too Long"
        assert response.headers["Content-Type"] == content_type
        assert response.headers["Cache-Control"] == "no-store"
        assert "too long" in response.text
        assert not [name for name, _ in response.headers if "ratelimit" in name.lower()]
        head = user.head(path, headers=headers)
        assert (head.status_code, head.data) == (414, b"")
    assert app.calls == 1


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_path_that_is_too_long_is_passed_on_unmatched_where_nothing_is_enforced(
    mode: str, tmp_path: Path
) -> None:
    app = App()
    throttle = throttled(
        {"path": "/**", "limits": "1 per hour"},
        app=app,
        mode=mode,
        storage=f"shared://{tmp_path}",
    )
    path = "/" + "a" * LONGEST
    assert [Client(throttle).get(path).status_code for _ in range(2)] == [200] * 2
    assert "wsgi_throttle.decision" not in app.environ
    assert list(tmp_path.iterdir()) == [], "the storage was asked"


PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
SECRET = {"session": {"kind": "flask", "secret_key": "s"}}


def statuses(user: Client, count: int, path: str = "/a", **options: Any) -> list[int]:
    """The statuses of so many OPTIONS requests."""
    return [user.options(path, **options).status_code for _ in range(count)]


def test_cors_preflights_count_by_the_same_limits_on_counters_of_their_own() -> None:
    app = App()
    user = client({"path": "/a", "limits": "2 per hour"}, app=app)
    assert statuses(user, 3, headers=PREFLIGHT) == [200, 200, 429]
    assert app.calls == 2
    assert statuses(user, 3) == [200, 200, 429]
    assert user.get("/a").status_code == 429
    assert statuses(user, 1, headers=PREFLIGHT, environ_base={"REMOTE_ADDR": "192.0.2.1"}) == [200]


def test_cors_preflights_have_counters_of_their_own_for_the_other_limits_too() -> None:
    user = client(
        {"path": "/a", "methods": ["POST"], "limits": "9 per hour"},
        default_limits="2 per hour",
        application_limits="3 per hour",
    )
    assert statuses(user, 3, headers=PREFLIGHT) == [200, 200, 429]
    assert [user.post("/a").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_cors_preflight_counts_as_any_request_where_a_rule_names_options() -> None:
    user = client(
        {"path": "/a", "methods": ["OPTIONS"], "limits": "2 per hour", "key": "header:X-Key"}
    )
    assert statuses(user, 1, headers=PREFLIGHT) == [200]
    assert statuses(user, 2) == [200, 429]
    assert statuses(user, 1, headers=PREFLIGHT) == [429]
    assert statuses(user, 1, headers={**PREFLIGHT, "X-Key": "b"}) == [200]


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_ORIGIN": None},
        {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": None},
        {"CONTENT_LENGTH": "1"},
        {"CONTENT_LENGTH": "+0"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_COOKIE": "a=b"},
        {"HTTP_AUTHORIZATION": "Bearer x"},
        {"REQUEST_METHOD": "POST"},
        {"REQUEST_METHOD": "PROPFIND"},
    ],
    ids=str,
)
def test_what_browsers_do_not_send_as_a_preflight_counts_as_any_request(
    changes: dict[str, str | None],
) -> None:
    environ = {
        "REQUEST_METHOD": "OPTIONS",
        "HTTP_ORIGIN": "https://a.example",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "0",
        **changes,
    }
    user = Client(throttled({"path": "/a", "limits": "1 per hour"}), use_cookies=False)
    present = {name: value for name, value in environ.items() if value is not None}
    base = {"REMOTE_ADDR": "192.0.2.1", "PATH_INFO": "/a"}
    assert user.get("/a", environ_base=base).status_code == 200
    assert user.open(environ_overrides={**base, **present}).status_code == 429


@pytest.mark.parametrize(
    "key",
    [
        *("session-user", "header:X-Key", "cookie:c", "form:email", "environ:HTTP_X_KEY"),
        "environ:CONTENT_TYPE",
        *("environ:beaker.session.user_id", "python:tests.test_middleware:nobody"),
        ["ip", "header:X-Key"],
        ["query:q", "session-user"],
    ],
    ids=str,
)
def test_preflights_are_counted_by_ip_at_twenty_times_the_quota_where_they_lack_the_key(
    key: Any,
) -> None:
    user = client({"path": "/a", "limits": "2 per hour", "key": key}, **SECRET)
    sent = [
        *statuses(user, 20, headers=PREFLIGHT),
        *statuses(user, 20, headers={**PREFLIGHT, "X-Key": "other"}),
    ]
    assert sent == [200] * 40
    assert statuses(user, 1, headers={**PREFLIGHT, "X-Key": "third"}) == [429]
    other = {"REMOTE_ADDR": "192.0.2.1"}
    assert statuses(user, 1, headers=PREFLIGHT, environ_base=other) == [200]
    assert user.post("/a").status_code == 200


def nobody(environ: dict[str, Any]) -> None:
    return None


def test_a_token_bucket_has_twenty_times_the_burst_for_preflights() -> None:
    limit = {"limit": "1 per hour", "strategy": "token-bucket", "burst": 2, "key": "header:X-Key"}
    user = client({"path": "/a", "limits": [limit]})
    assert statuses(user, 41, headers=PREFLIGHT) == [200] * 40 + [429]


@pytest.mark.parametrize("key", ["ip", "all", "query:q"])
def test_a_key_that_preflights_carry_counts_them_by_the_quota_itself(key: str) -> None:
    user = client({"path": "/a", "limits": "2 per hour", "key": key})
    assert statuses(user, 3, "/a?q=1", headers=PREFLIGHT) == [200, 200, 429]
    assert statuses(user, 1, "/a?q=2", headers=PREFLIGHT) == [200 if key == "query:q" else 429]


def test_a_large_quota_is_multiplied_as_far_as_it_can_be_counted_exactly() -> None:
    largest = "600000000000 per hour; 1000000000000 per hour; 500000000000 per hour"
    app = App()
    client({"path": "/a", "limits": largest, "key": "header:X-Key"}, app=app).options(
        "/a", headers=PREFLIGHT
    )
    charges = app.environ["wsgi_throttle.decision"].charges
    assert [charge.limit.quota for charge in charges] == [6 * 10**11, 10**12]


@pytest.mark.parametrize("per_method", [False, True])
def test_reset_forgets_preflights_too(per_method: bool) -> None:
    throttle = throttled(
        {
            "path": "/a",
            "limits": [{"limit": "1 per hour", "key": "session-user"}, "1 per hour"],
            "per_method": per_method,
        },
        default_limits="1 per hour",
        **SECRET,
    )
    user = Client(throttle)
    address = {"REMOTE_ADDR": "192.0.2.1"}
    for path in ("/a", "/b"):
        for _ in range(2):
            found = statuses(user, 2, path, headers=PREFLIGHT, environ_base=address)
            assert found == [200, 429]
            throttle.reset("192.0.2.1")


def test_a_shadow_rule_that_names_options_counts_preflights_as_any_request() -> None:
    app = App()
    shadow = {"path": "/a", "methods": ["OPTIONS"], "limits": "2 per hour", "mode": "shadow"}
    user = client({"path": "/a", "limits": "9 per hour"}, shadow, app=app)

    def shadow_remaining(**options: Any) -> int:
        user.options("/a", **options)
        decision = app.environ["wsgi_throttle.decision"]
        charged = zip(decision.charges, decision.outcomes, strict=True)
        (found,) = [outcome for charge, outcome in charged if not charge.enforce]
        return int(found.remaining)

    assert (shadow_remaining(headers=PREFLIGHT), shadow_remaining()) == (1, 0)


def test_allowed_addresses_are_never_limited_and_blocked_ones_get_403() -> None:
    user = client(LIMITED, allow=["192.0.2.1"], block=["192.0.2.0/24"])
    allowed = {"REMOTE_ADDR": "192.0.2.1"}
    blocked = {"REMOTE_ADDR": "192.0.2.2"}
    assert [user.get("/limited", environ_base=allowed).status_code for _ in range(4)] == [200] * 4
    response = user.get("/anything", environ_base=blocked, headers={"Accept": "text/html"})
    assert (response.status_code, response.mimetype) == (403, "text/html")


def test_a_blocked_address_does_not_reach_an_exempt_path() -> None:
    user = client({"path": "/a", "exempt": True}, block=["192.0.2.2"])
    assert user.get("/a", environ_base={"REMOTE_ADDR": "192.0.2.2"}).status_code == 403


def test_a_rule_may_have_lists_of_its_own() -> None:
    user = client({**LIMITED, "allow": ["192.0.2.1"], "block": ["192.0.2.2"]})
    for address, expected in (
        ("192.0.2.1", [200] * 3),
        ("192.0.2.2", [403] * 3),
        ("192.0.2.3", [200, 200, 429]),
    ):
        got = [
            user.get("/limited", environ_base={"REMOTE_ADDR": address}).status_code
            for _ in range(3)
        ]
        assert got == expected
    assert user.get("/other", environ_base={"REMOTE_ADDR": "192.0.2.2"}).status_code == 200


def test_a_rule_may_have_bodies_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("own: $rule, $limit")
    path = tmp_path / "throttle.yaml"
    path.write_text(
        "storage: memory://\nrules:\n"
        "  - {name: own, path: /a, limits: 0/h, response: {text: own.txt}}\n"
        "  - {path: /b, limits: 0/h}\n"
    )
    user = Client(Throttle(App(), path))
    plain = {"Accept": "text/plain"}
    assert user.get("/a", headers=plain).text == "own: own, 0 per hour"
    assert user.get("/b", headers=plain).text.startswith("Too many requests")


# --- on_limit -----------------------------------------------------------------------------------


def test_on_limit_answers_with_an_application_and_the_headers_are_added() -> None:
    def on_limit(environ: dict[str, Any], decision: Decision) -> Any:
        return Response(f"slow down, {decision.refusing[0][0].policy}", status=429)

    response = client(
        {"path": "/a", "name": "r", "limits": "0 per hour; 0 per day"}, on_limit=on_limit
    ).get("/a")
    assert (response.status_code, response.text) == (429, "slow down, r-1")
    assert response.headers["X-RateLimit-Limit"] == "0"
    user = client({**LIMITED, "limits": "1 per hour"}, on_limit=on_limit)
    user.get("/limited")
    assert user.get("/limited").headers["Retry-After"] == "3600"


def test_a_slow_view_moves_no_reset_and_leaves_less_seconds_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock(1_700_000_000_000)
    monkeypatch.setattr(middleware, "time", lambda: clock.now_ms / 1000)

    def view(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        clock.now_ms += environ["slow_ms"]
        start_response("200 OK", [])
        yield b"done"

    def on_limit(environ: dict[str, Any], decision: Decision) -> Any:
        return view

    user = client({**LIMITED, "limits": "2 per 3 hours"}, app=view, on_limit=on_limit)
    seen = []
    for slow_ms in (4_200, 5_999, 10_800_000):
        clock.now_ms = 1_700_000_000_000
        response = user.get("/limited", environ_base={"slow_ms": slow_ms})
        assert response.headers["X-RateLimit-Reset"] == "1700010800"
        seen.append((response.headers["RateLimit"], response.headers.get("Retry-After")))
    assert seen == [('"r";r=1;t=10796', None), ('"r";r=0;t=10795', None), ('"r";r=0;t=0', "1")]


def returns_none(environ: dict[str, Any], decision: Decision) -> None:
    return None


def returns_nonsense(environ: dict[str, Any], decision: Decision) -> Any:
    return "429"


def raises(environ: dict[str, Any], decision: Decision) -> Any:
    raise RuntimeError("no")


def raises_when_called(environ: dict[str, Any], decision: Decision) -> Any:
    return lambda environ, start_response: 1 / 0


def raises_when_begun(environ: dict[str, Any], decision: Decision) -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise RuntimeError("no")

    return answer


@pytest.mark.parametrize(
    ("on_limit", "logged"),
    [
        (returns_none, False),
        (returns_nonsense, True),
        (raises, True),
        (raises_when_called, True),
    ],
)
def test_an_on_limit_that_fails_gets_the_built_in_answer(
    on_limit: Any, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    response = client({"path": "/a", "limits": "0/h"}, on_limit=on_limit).get("/a")
    assert response.status_code == 429
    assert response.get_json(force=True)["status"] == 429
    assert ("on_limit failed" in caplog.text) == logged


def test_an_answer_that_fails_once_it_has_begun_is_for_the_server() -> None:
    with pytest.raises(RuntimeError, match="no"):
        client({"path": "/a", "limits": "0/h"}, on_limit=raises_when_begun).get("/a")


# --- operators ----------------------------------------------------------------------------------


def test_a_refusal_is_logged_once_a_client_and_rule_with_what_an_operator_wants_to_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    user = client({"name": "r", "path": "/a", "limits": "1 per hour"})
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        for address in ("192.0.2.1", "192.0.2.2"):
            for _ in range(10):
                user.get("/a", environ_base={"REMOTE_ADDR": address})
    refusals = [record for record in caplog.records if record.getMessage().startswith("refused")]
    assert [record.__dict__["key"] for record in refusals] == ["ip:192.0.2.1", "ip:192.0.2.2"]
    assert refusals[0].__dict__["rule"] == "r"
    assert refusals[0].__dict__["limit"] == "1 per hour"
    assert 0 < refusals[0].__dict__["wait_ms"] <= 3_600_000


@pytest.mark.parametrize("mode", [{"rule": "shadow"}, {"top": "shadow"}], ids=str)
def test_what_a_shadow_rule_would_refuse_is_logged(
    mode: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    shadow = {"name": "r", "path": "/a", "limits": "1 per hour"} | (
        {"mode": "shadow"} if "rule" in mode else {}
    )
    user = client(shadow, mode=mode.get("top", "enforce"))
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        for _ in range(3):
            assert user.get("/a").status_code == 200
    (line,) = [record for record in caplog.records if "would refuse" in record.getMessage()]
    assert (line.__dict__["rule"], line.__dict__["shadow"]) == ("r", True)


def test_a_request_without_charges_does_not_ask_the_storage(tmp_path: Path) -> None:
    rule = {**LIMITED, "skip": "python:tests.test_middleware:always"}
    throttle = throttled(rule, storage=f"shared://{tmp_path}")
    assert Client(throttle).get("/limited").status_code == 200
    assert list(tmp_path.iterdir()) == []


def always(environ: dict[str, Any]) -> bool:
    return True


def test_nothing_a_client_sends_forges_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    user = client({"name": "r", "path": "/a", "limits": "0 per hour", "key": "header:X-Key"})
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        user.open(environ_overrides={"PATH_INFO": "/a", "HTTP_X_KEY": "x\r\n\x1b[31mforged {}"})
    assert caplog.records
    for record in caplog.records:
        assert record.getMessage().isprintable()


def test_memory_under_several_workers_is_said_once_and_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    user = client(LIMITED)
    for _ in range(3):
        user.get("/limited", environ_overrides={"wsgi.multiprocess": True})
    assert (
        sum("in each worker process alone" in record.getMessage() for record in caplog.records) == 1
    )


def test_any_address_of_a_household_resets_it() -> None:
    throttle = throttled({"path": "/a", "limits": "1 per hour"})
    user = Client(throttle)
    address = {"REMOTE_ADDR": "2001:db8:1:2::9"}
    assert [user.get("/a", environ_base=address).status_code for _ in range(2)] == [200, 429]
    throttle.reset("ip:2001:db8:1:2::5")
    assert user.get("/a", environ_base=address).status_code == 200


@pytest.mark.parametrize("key", ["192.0.2.1", "ip:192.0.2.1", "::ffff:192.0.2.1"])
def test_reset_forgets_one_client_on_every_counter(key: str) -> None:
    throttle = throttled(
        LIMITED,
        {"path": "/m", "limits": "1 per hour", "per_method": True},
        {"path": "/scoped", "limits": "1 per hour", "scope": "s"},
        default_limits="1 per hour",
        application_limits="100 per hour",
    )
    user = Client(throttle)

    def used_up(address: str) -> list[int]:
        paths = ["/limited", "/limited", "/m", "/scoped", "/other"]
        return [user.get(path, environ_base={"REMOTE_ADDR": address}).status_code for path in paths]

    assert used_up("192.0.2.1") == used_up("192.0.2.2") == [200] * 5
    assert used_up("192.0.2.1") == [429] * 5
    throttle.reset(key)
    assert used_up("192.0.2.1") == [200] * 5
    assert used_up("192.0.2.2") == [429] * 5


# --- start ----------------------------------------------------------------------------------------


def test_the_file_is_found_by_the_environment_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSGI_THROTTLE_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=r"throttle\.yaml: the file cannot be read"):
        Throttle(App())
    (tmp_path / "throttle.yaml").write_text("storage: memory://\ndefault_limits: 1 per hour")
    assert Client(Throttle(App())).get("/").headers["X-RateLimit-Limit"] == "1"
    (tmp_path / "other.yaml").write_text("storage: memory://\ndefault_limits: 2 per hour")
    monkeypatch.setenv("WSGI_THROTTLE_CONFIG", "other.yaml")
    assert Client(Throttle(App())).get("/").headers["X-RateLimit-Limit"] == "2"


def test_wrap_finds_an_application_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("some_site")
    module.application = App()  # type: ignore[attr-defined]
    module.site = types.SimpleNamespace(wsgi=App())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_site", module)
    path = tmp_path / "throttle.yaml"
    path.write_text("storage: memory://\ndefault_limits: 1 per hour")
    for name in ("some_site", "some_site:application", "some_site:site.wsgi"):
        user = Client(wrap(name, str(path)))
        assert [user.get("/").status_code for _ in range(2)] == [200, 429]
    with pytest.raises(AttributeError):
        wrap("some_site:nothing", str(path))


# --- what servers and clients may send ------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [validator, LintMiddleware])
@pytest.mark.parametrize("path", ["/limited", "/free", "/exempt"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.filterwarnings("error")
def test_the_protocol_is_kept_on_both_sides(wrapper: Any, path: str, method: str) -> None:
    inner = wrapper(App())
    throttle = throttled(
        {**LIMITED, "limits": "1 per hour"},
        {"path": "/exempt", "exempt": True},
        app=inner,
        default_limits="1 per hour",
    )
    outer = wrapper(throttle)
    for _ in range(3):
        environ: dict[str, Any] = {
            "PATH_INFO": path,
            "REQUEST_METHOD": method,
            "QUERY_STRING": "",
            "SCRIPT_NAME": "",
        }
        setup_testing_defaults(environ)
        started: list[Any] = []

        def start_response(
            status: str, headers: Any, exc_info: Any = None, started: list[Any] = started
        ) -> Any:
            started.append((status, headers))
            return lambda data: None

        body = outer(environ, start_response)
        try:
            b"".join(body)
        finally:
            body.close()
        assert len(started) == 1


ANYTHING = st.one_of(
    st.text(max_size=60), st.binary(max_size=60).map(lambda data: data.decode("latin-1"))
)
HOSTILE = throttled(
    {
        "name": "all",
        "path": "/**",
        "limits": ["5 per hour", {"limit": "9 per hour", "key": "session-user"}],
    },
    session={"kind": "flask", "secret_key": "s"},
    client_ip={"trusted_proxies": ["0.0.0.0/0", "unix"]},
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                "REQUEST_METHOD",
                "PATH_INFO",
                "QUERY_STRING",
                "REMOTE_ADDR",
                "HTTP_COOKIE",
                "HTTP_ACCEPT",
                "HTTP_X_FORWARDED_FOR",
                "HTTP_FORWARDED",
                "HTTP_ORIGIN",
                "CONTENT_TYPE",
                "CONTENT_LENGTH",
            ),
            ANYTHING,
        ),
    )
)
def test_no_environ_makes_the_middleware_raise_or_miss_its_rule(environ: dict[str, Any]) -> None:
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        statuses.append(status)
        assert any(
            name == "RateLimit-Policy" and value.startswith('"all') for name, value in headers
        )
        for name, value in headers:
            assert f"{name}: {value}".isprintable()
        return lambda data: None

    b"".join(HOSTILE(environ, start_response))
    assert statuses[0][:3] in ("200", "429")


def test_an_application_that_raises_is_not_hidden() -> None:
    def broken(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        raise RuntimeError("theirs")

    with pytest.raises(RuntimeError, match="theirs"):
        throttled(LIMITED, app=broken)({"PATH_INFO": "/limited"}, lambda *_: None)


def test_a_json_client_reads_the_same_numbers_in_the_problem_as_in_the_headers() -> None:
    user = client({**LIMITED, "limits": "1 per 90 seconds"})
    user.get("/limited")
    refused = user.get("/limited", headers={"Accept": "application/json"})
    problem = json.loads(refused.data)
    assert problem["status"] == refused.status_code == 429
    assert str(problem["retry_after"]) == refused.headers["Retry-After"] == "90"
