"""Which counters a reset forgets: keys as logs show them, and values as people know them."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import Client

from wsgi_throttle import Throttle
from wsgi_throttle.identity import Identity, Session, key_function, written_keys

SESSION = {"kind": "environ", "user": "USER_ID"}


def ok(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


def in_header(value: str) -> str:
    return value.encode().decode("latin-1")


LONG = "x" * 65
EMAIL = "Jürgen@Example.ORG"

CASES = {
    "an address": ("ip", {}, ["127.0.0.1", "ip:127.0.0.1", "::ffff:127.0.0.1"]),
    "a network": (
        "ip",
        {"environ_base": {"REMOTE_ADDR": "2001:db8:1:2::9"}},
        ["ip:2001:db8:1:2::5", "2001:db8:1:2::/64", "ip:2001:db8:1:2::/64"],
    ),
    "a unix socket": ("ip", {"environ_base": {"REMOTE_ADDR": ""}}, ["ip:unix"]),
    "everybody": ("all", {}, ["all"]),
    "a user with a space": (
        "session-user",
        {"environ_base": {"USER_ID": "jane doe"}},
        ["session-user:jane doe", "session-user:jane%20doe"],
    ),
    "a user with an umlaut": (
        "session-user",
        {"environ_base": {"USER_ID": "Jürgen"}},
        ["session-user:Jürgen", "session-user:J%C3%BCrgen"],
    ),
    "a long id": (
        "session-user",
        {"environ_base": {"USER_ID": LONG}},
        [f"session-user:{LONG}"],
    ),
    "a user with a comma and a colon": (
        "session-user",
        {"environ_base": {"USER_ID": "doe, jane: 5"}},
        ["session-user:doe, jane: 5", "session-user:doe%2C%20jane:%205"],
    ),
    "a header": (
        "header:X-API-Key",
        {"headers": {"X-API-Key": in_header("Schlüssel 1")}},
        ["header:X-API-Key:Schlüssel 1", "header:x-api-key: Schlüssel 1 "],
    ),
    "a secret header": (
        "header:Authorization",
        {"headers": {"Authorization": "Bearer abc"}},
        ["header:Authorization:Bearer abc"],
    ),
    "a cookie": (
        "cookie:sid",
        {"headers": {"Cookie": "sid=s%3Aabc.d/e"}},
        ["cookie:sid:s%3Aabc.d/e"],
    ),
    "a quoted cookie": ("cookie:sid", {"headers": {"Cookie": 'sid="a b"'}}, ['cookie:sid:"a b"']),
    "a parameter": (
        "query:token",
        {"query_string": "token=+a%26b+"},
        ["query:token:a&b", "query:token: a&b", "query:token:a%26b"],
    ),
    "a field": (
        "form:email",
        {"method": "POST", "data": {"email": EMAIL}},
        [
            f"form:email:{EMAIL}",
            "form:email: jürgen@example.org",
            "form:email:j%C3%BCrgen@example.org",
        ],
    ),
    "a member of JSON": (
        "json:user.email",
        {"method": "POST", "json": {"user": {"email": EMAIL}}},
        [f"json:user.email:{EMAIL}", "json:user.email:j%C3%BCrgen@example.org"],
    ),
    "an unreadable field": (
        "form:email",
        {
            "method": "POST",
            "data": "{}",
            "content_type": "application/x-www-form-urlencoded; charset=x",
        },
        ["form:email:?"],
    ),
    "a field with a name that is escaped": (
        "form:user:mail",
        {"method": "POST", "data": {"user:mail": "a"}},
        ["form:user:mail:a", "form:user%3Amail:a"],
    ),
    "a variable of the path": ("path:id", {}, ["path:id:7", "path:id:007", "path:id:+7"]),
    "a variable of the environ": (
        "environ:site.name",
        {"environ_base": {"site.name": "a b"}},
        ["environ:site.name:a b"],
    ),
    "a function": (
        "python:test_reset:team",
        {"environ_base": {"team": "a b"}},
        ["python:test_reset:team:a b"],
    ),
    "a combination": (
        ["ip", "header:X-API-Key"],
        {"headers": {"X-API-Key": "a b"}},
        ["ip:127.0.0.1,header:X-API-Key:a%20b", "ip:127.0.0.1,header:x-api-key:a b"],
    ),
    "a combination of which a part is absent": (
        ["session-user", "header:X-API-Key"],
        {"headers": {"X-API-Key": "a"}},
        ["-,header:X-API-Key:a,ip:127.0.0.1"],
    ),
    "an absent value": ("header:X-API-Key", {}, ["127.0.0.1"]),
}


def team(environ: dict[str, Any]) -> str | None:
    return environ.get("team")


@pytest.mark.parametrize(
    ("key", "request_", "text"),
    [
        pytest.param(key, request, text, id=f"{name}: {text}"[:60])
        for name, (key, request, texts) in CASES.items()
        for text in texts
    ],
)
def test_a_reset_forgets_who_is_meant_and_says_how_many_counters_that_were(
    key: str | list[str], request_: dict[str, Any], text: str
) -> None:
    rule = {"path": "/a/<id>", "key": key, "limits": "1 per hour; 3 per day"}
    throttle = Throttle(ok, {"storage": "memory://", "session": SESSION, "rules": [rule]})
    client = Client(throttle, use_cookies=False)
    request_ = {"environ_base": {}, **request_}
    request_["environ_base"] = {"REMOTE_ADDR": "127.0.0.1", **request_["environ_base"]}

    def status() -> int:
        return client.open("/a/7", **request_).status_code

    assert throttle.reset(text) == 0
    assert [status(), status()] == [200, 429]
    assert throttle.reset(text) == 2
    assert throttle.reset(text) == 0
    assert status() == 200


@pytest.mark.parametrize(
    "text",
    [
        *("nonsense", "", "user:42", "ip:banana", "ip:", "ip", "ip:192.0.2.0/24", "all:5"),
        *("session-user", "session-user:", "cookie:sid:", "cookie:sid:a;b", "header:X-API-Key: "),
        *("form:email: ", f"form:email:{'x y' * 99}", "ip:banana,header:X-API-Key:a"),
    ],
)
def test_a_key_that_nobody_can_have_is_a_value_error(text: str) -> None:
    keys = ["session-user", "cookie:sid", "header:X-API-Key", "form:email"]
    rules: list[dict[str, Any]] = [
        {"path": f"/{n}", "key": key, "limits": "1/h"} for n, key in enumerate(keys)
    ]
    rules.append({"path": "/c", "key": ["ip", "header:X-API-Key"], "limits": "1/h"})
    throttle = Throttle(ok, {"storage": "memory://", "session": SESSION, "rules": rules})
    with pytest.raises(ValueError, match=r"is not a key|has no value"):
        throttle.reset(text)


@pytest.mark.parametrize("text", ["session-user:42", "header:X-Typo:1", "form:email:a@b.c"])
def test_a_key_that_no_limit_counts_by_forgets_nothing(text: str) -> None:
    """It is no error: an application may reset users whatever its operator limits."""
    config = {"storage": "memory://", "default_limits": "1 per hour"}
    assert Throttle(ok, config).reset(text) == 0
    assert Throttle(ok, {**config, "mode": "off"}).reset(text) == 0


@given(st.text(min_size=1))
def test_whatever_a_user_is_called_the_name_as_it_is_and_as_logged_are_found(name: str) -> None:
    settings = Identity(session=Session("environ", user=("USER_ID",)))
    key = key_function("session-user", settings)({"USER_ID": name}, {})
    assert isinstance(key, str)
    specs = [("session-user",), ("form:email",)]
    assert key in written_keys(f"session-user:{name}", specs, settings)
    assert key in written_keys(key, specs, settings)


@given(st.text(min_size=1))
def test_whatever_is_in_a_form_its_value_is_found_as_it_is(value: str) -> None:
    settings = Identity()
    for spec in ("form:email", "query:email"):
        body = f"email={quote(value, errors='replace')}"
        environ: dict[str, Any] = {"QUERY_STRING": body, "REMOTE_ADDR": "192.0.2.1"}
        if spec == "form:email":
            environ |= {
                "CONTENT_TYPE": "application/x-www-form-urlencoded",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": BytesIO(body.encode()),
            }
        key = key_function(spec, settings)(environ, {})
        try:
            keys = written_keys(f"{spec}:{value}", [(spec,)], settings)
        except ValueError:
            keys = ()
        assert key in keys or key in (f"{spec}:?", "ip:192.0.2.1")
