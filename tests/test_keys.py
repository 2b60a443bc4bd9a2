"""Whose counter a request is charged to, whatever a hostile client sends."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import NoneAlgorithm, URLSafeTimedSerializer

import identity_hooks
from wsgi_throttle import hooks as hooks_module
from wsgi_throttle.clock import SECOND
from wsgi_throttle.identity import (
    KEY_TYPES,
    ClientIP,
    Hook,
    Identity,
    Key,
    Session,
    canonical_path_value,
    client_address,
    is_client_controlled,
    key_function,
    load_hook,
    preflight_key,
)
from wsgi_throttle.identity.text import MAX_VALUE_LENGTH, escaped

SECRET, OLD_SECRET, RETIRED = "the application's own key", "its last one", "the one before"
SETTINGS = Identity(
    client_ip=ClientIP(trusted_proxies=("10.0.0.0/8", "unix")),
    session=Session("flask", (SECRET, OLD_SECRET)),
)
ATTACKER = "203.0.113.66"
BY_IP = f"ip:{ATTACKER}"


def signed(user: Any, key: str = SECRET, salt: str = "cookie-session", **signer: Any) -> str:
    serializer = URLSafeTimedSerializer(
        key, salt=salt, signer_kwargs={"key_derivation": "hmac", **signer}
    )
    return f"session={serializer.dumps({'user_id': user})}"


def charged(
    spec: str | list[str], environ: dict[str, Any], args: dict[str, str] | None = None
) -> Key:
    return key_function(spec, SETTINGS)({"REMOTE_ADDR": ATTACKER, **environ}, args or {})


def proxied(forwarded: str) -> dict[str, Any]:
    """The environ of a request through nginx, which appends the address that it was sent from."""
    sent = f"{forwarded}, {ATTACKER}" if forwarded else ATTACKER
    return {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": sent}


def posted(form: str) -> dict[str, Any]:
    body = form.encode()
    return {
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }


MINE = signed("mallory")

ATTACKS: list[Any] = [
    # Somebody else's address
    pytest.param("ip", {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}, BY_IP, id="spoofed to the server"),
    pytest.param("ip", {"HTTP_X_REAL_IP": "192.0.2.1"}, BY_IP, id="spoofed by another header"),
    pytest.param("ip", proxied("192.0.2.1"), BY_IP, id="spoofed through the proxy"),
    pytest.param("ip", proxied("192.0.2.1, 10.0.0.1"), BY_IP, id="spoofed with a proxy's address"),
    pytest.param("ip", proxied("192.0.2.1,192.0.2.2"), BY_IP, id="spoofed repeatedly"),
    pytest.param("ip", proxied("\xff\x00garbage"), BY_IP, id="spoofed with garbage"),
    pytest.param("ip", proxied("," * 100_000), BY_IP, id="100 KB of commas"),
    pytest.param("ip", proxied('for="'), BY_IP, id="an open quote"),
    pytest.param("ip", {"REMOTE_ADDR": f"::ffff:{ATTACKER}"}, BY_IP, id="mapped into IPv6"),
    pytest.param(
        "ip", {"REMOTE_ADDR": "::FFFF:cb00:7142"}, BY_IP, id="mapped, in upper-case hexadecimal"
    ),
    pytest.param(
        "ip", {"REMOTE_ADDR": "2001:db8::dead:beef"}, "ip:2001:db8::/64", id="rotated in a /64"
    ),
    pytest.param(
        "ip", {"REMOTE_ADDR": "2001:DB8:0:1::BEEF"}, "ip:2001:db8:0:1::/64", id="across /64s"
    ),
    # Somebody else's session, or none
    pytest.param("session-user", {"HTTP_COOKIE": MINE}, "session-user:mallory", id="own session"),
    pytest.param("session-user", {}, BY_IP, id="no session"),
    pytest.param("session-user", {"HTTP_COOKIE": MINE[:-2]}, BY_IP, id="a truncated cookie"),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ann", "guess")},
        BY_IP,
        id="signed by a guessed key",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ann", OLD_SECRET)},
        "session-user:ann",
        id="signed by the old key, while it is listed",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ann", RETIRED)},
        BY_IP,
        id="signed by a key that is listed no more",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ann", digest_method=hashlib.sha512)},
        BY_IP,
        id="signed by another algorithm",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ann", algorithm=NoneAlgorithm())},
        BY_IP,
        id="signed by no algorithm",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ann", salt="email-confirm")},
        BY_IP,
        id="signed for another purpose",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": f"session=x; {MINE}"},
        BY_IP,
        id="a forged one before it",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": MINE.replace("=", " = ", 1)},
        "session-user:mallory",
        id="spaces around the sign",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("192.0.2.1")},
        "session-user:192.0.2.1",
        id="a user who is called like an address",
    ),
    pytest.param(
        "session-user",
        {"HTTP_COOKIE": signed("ip:192.0.2.1,x}")},
        "session-user:ip:192.0.2.1%2Cx%7D",
        id="a user who is called like a key",
    ),
    # Values that tell no more than they say
    pytest.param(
        "header:X-API-Key", {"HTTP_X_API_KEY": "abc"}, "header:X-API-Key:abc", id="header"
    ),
    pytest.param("header:x-api-key", {"HTTP_X_API_KEY": " "}, BY_IP, id="a blank header"),
    pytest.param("header:X-API-Key", {}, BY_IP, id="no header"),
    pytest.param(
        "header:X-API-Key",
        {"HTTP_X_API_KEY": "a{b},c d%"},
        "header:X-API-Key:a%7Bb%7D%2Cc%20d%25",
        id="a header with what separates keys",
    ),
    pytest.param(
        "header:X-API-Key",
        {"HTTP_X_API_KEY": "x" * 100_000},
        f"header:X-API-Key:#{hashlib.blake2b(b'x' * 100_000, digest_size=16).hexdigest()}",
        id="a header of 100 KB",
    ),
    pytest.param(
        "header:X-API-Key",
        {"HTTP_X_API_KEY": "-"},
        "header:X-API-Key:-",
        id="the sign for absent",
    ),
    pytest.param(
        "header:X-Team",
        {"HTTP_X_TEAM": "\xc3\xa9"},
        "header:X-Team:%C3%A9",
        id="UTF-8 in a header",
    ),
    pytest.param("header:X-Team", {"HTTP_X_TEAM": "\xff"}, "header:X-Team:%C3%BF", id="latin-1"),
    pytest.param(
        "header:Content-Type",
        {"CONTENT_TYPE": "a/b"},
        "header:Content-Type:a/b",
        id="content type",
    ),
    pytest.param(
        "environ:REMOTE_USER", {"REMOTE_USER": "ann"}, "environ:REMOTE_USER:ann", id="variable"
    ),
    pytest.param("environ:REMOTE_USER", {"REMOTE_USER": ""}, BY_IP, id="an empty variable"),
    pytest.param("environ:x.y", {"x": {"y": 5}}, "environ:x.y:5", id="a value inside another"),
    pytest.param("environ:x", {"x": True}, BY_IP, id="a variable that is no text"),
    pytest.param("all", {"HTTP_COOKIE": MINE}, "all", id="everybody"),
    pytest.param("path:id", {"PATH_INFO": "/7"}, BY_IP, id="a path without the variable"),
    pytest.param(
        "python:identity_hooks:tenant",
        {"HTTP_X_TENANT": "a,b"},
        "python:identity_hooks:tenant:a%2Cb",
        id="a function that believes a header",
    ),
    # Somebody else's account, tried from many addresses
    pytest.param(
        "form:email",
        posted("email=+Ann%40X.example"),
        "form:email:ann@x.example",
        id="a spelling",
    ),
    pytest.param(
        "form:email",
        posted("email=ann%40x.example&pad=" + "x" * 70_000),
        "form:email:?",
        id="a padded body",
    ),
    pytest.param(
        "form:email",
        posted("email=nobody&email=ann"),
        ("form:email:nobody", "form:email:ann"),
        id="a doubled field",
    ),
    pytest.param(
        "form:email",
        {**posted('{"email": "ann"}'), "CONTENT_TYPE": "application/json"},
        "form:email:?",
        id="another content type",
    ),
    pytest.param("form:email", posted("mail=ann"), BY_IP, id="no such field"),
    pytest.param(
        "json:user.email",
        posted('{"user": {"email": "Ann@x.example\\u200b", "email": "nobody"}}'),
        ("json:user.email:ann@x.example", "json:user.email:nobody"),
        id="JSON that is called a form, with a member twice",
    ),
    pytest.param(
        "query:email",
        {"QUERY_STRING": "email=nobody&email=ann"},
        ("query:email:nobody", "query:email:ann"),
        id="a doubled parameter",
    ),
    pytest.param(
        "query:name",
        {"QUERY_STRING": "name=\xc3\xa9&name=%C3%A9&name=%C3\xa9&name=\xc3%A9"},
        "query:name:%C3%A9",
        id="bytes that are bare, escaped, and half of each",
    ),
    pytest.param(
        "cookie:c",
        {"HTTP_COOKIE": "c=ip:192.0.2.1"},
        f"cookie:c:#{hashlib.blake2b(b'ip:192.0.2.1', digest_size=16).hexdigest()}",
        id="a cookie that is called like a key",
    ),
    pytest.param("cookie:c", {"HTTP_COOKIE": "C=1; cc=1; c="}, BY_IP, id="an empty cookie"),
    # Combinations
    pytest.param(
        ["ip", "header:X-API-Key"],
        {"HTTP_X_API_KEY": "abc"},
        f"{BY_IP},header:X-API-Key:abc",
        id="both",
    ),
    pytest.param(["ip", "header:X-API-Key"], {}, f"{BY_IP},-", id="one is absent"),
    pytest.param(
        ["session-user", "header:X-API-Key"],
        {"HTTP_X_API_KEY": "abc"},
        f"-,header:X-API-Key:abc,{BY_IP}",
        id="one is absent, the address joins",
    ),
    pytest.param(
        ["header:A", "header:B"],
        {"HTTP_A": "x,header:B:y", "HTTP_B": "z"},
        "header:A:x%2Cheader:B:y,header:B:z",
        id="one that pretends to be two",
    ),
    pytest.param(
        ["ip", "query:t"],
        {"QUERY_STRING": "t=1&t=2"},
        (f"{BY_IP},query:t:1", f"{BY_IP},query:t:2"),
        id="two values of one",
    ),
    pytest.param(["ip"], {}, BY_IP, id="a list of one"),
]


@pytest.mark.parametrize(("spec", "environ", "expected"), ATTACKS)
def test_an_attack_is_charged_to_the_expected_key(
    spec: str | list[str], environ: dict[str, Any], expected: Key
) -> None:
    assert charged(spec, environ) == expected


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (["5", "0005", "+5", " 5\n", "0_5", "\u0665", "\uff10\uff15", "0" * 5000 + "5"], "5"),
        (["0", "000", "-0", "+0", "-0_0"], "0"),
        (["-5", "-05", "-\u0665"], "-5"),
        (["9" * 5000], "9" * 5000),
        (["1.5", "01.50", "+1.5", " 1.5", "\u0661.5"], "1.5"),
        (["0.1", "0.10", "0.10000000000000000001"], "0.1"),
        (["01.0", "1", "0.99999999999999999999"], "1"),
        (["0.0", "-0.0"], "0"),
        (["1" + "0" * 16, "1" + "0" * 16 + ".0"], "1" + "0" * 16),
        (["9" * 400 + ".0", "8" * 500 + ".5"], "inf"),
        (
            [
                "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
                "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}",
                "6ba7b8109dad11d180b400c04fd430c8",
                "urn:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ],
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        ),
        *([[text], text] for text in ("Ann", "a b", "5a", "--5", "5.", ".5", "1.2.3", "c++1")),
    ],
    ids=lambda value: ",".join(value)[:40] if isinstance(value, list) else "",
)
def test_all_spellings_of_a_path_variable_have_one_canonical_text(
    spellings: list[str], expected: str
) -> None:
    assert {canonical_path_value(spelling) for spelling in spellings} == {expected}


def test_a_path_variable_is_escaped_in_a_key() -> None:
    assert charged("path:id", {}, {"id": "a b"}) == "path:id:a%20b"


def test_a_path_without_the_variable_is_charged_to_the_address() -> None:
    assert charged("path:id", {}, {"name": "x"}) == BY_IP


class TestCredentials:
    """A key never holds what somebody could log in with, since keys appear in logs and storages."""

    @pytest.mark.parametrize(
        ("spec", "environ"),
        [
            ("cookie:session", {"HTTP_COOKIE": "session=hunter2"}),
            ("header:Authorization", {"HTTP_AUTHORIZATION": "Bearer hunter2"}),
            ("header:proxy-authorization", {"HTTP_PROXY_AUTHORIZATION": "hunter2"}),
            ("header:Cookie", {"HTTP_COOKIE": "session=hunter2"}),
        ],
    )
    def test_a_credential_is_a_digest(self, spec: str, environ: dict[str, Any]) -> None:
        key = charged(spec, environ)
        assert re.fullmatch(re.escape(spec) + ":#[0-9a-f]{32}", str(key))
        other = {name: value + "x" for name, value in environ.items()}
        assert charged(spec, other) != key

    @pytest.mark.parametrize("name", ["user_id", "__Host-session", "a.b", "it's"])
    def test_a_cookie_may_have_any_name_that_a_browser_may_send(self, name: str) -> None:
        one, two = (
            charged(f"cookie:{name}", {"HTTP_COOKIE": f"x=0; {name}={value}"}) for value in "12"
        )
        assert str(one).startswith(f"cookie:{name}:#")
        assert one != two

    def test_an_absent_cookie_is_charged_to_the_address(self) -> None:
        for header in ("", "session=", "other=1"):
            assert charged("cookie:session", {"HTTP_COOKIE": header}) == BY_IP


SAFE = re.compile(r"[A-Za-z0-9._~@:/+=%#?,-]+").fullmatch


class TestKeyText:
    @given(st.text())
    def test_any_value_is_short_printable_and_unambiguous(self, value: str) -> None:
        text = escaped(value) if value else "x"
        assert re.fullmatch(r"[A-Za-z0-9._~@:/+=%#-]+", text)
        assert len(text) <= MAX_VALUE_LENGTH

    @given(st.sets(st.text(min_size=1, max_size=30), min_size=2, max_size=20))
    def test_different_values_have_different_texts(self, values: set[str]) -> None:
        assert len({escaped(value) for value in values}) == len(values)

    def test_a_digest_cannot_be_sent(self) -> None:
        long = "x" * 100
        assert escaped(escaped(long)) != escaped(long)

    def test_lone_surrogates_do_not_raise(self) -> None:
        assert escaped("\ud800") != escaped("\ud801")

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    "HTTP_COOKIE",
                    "HTTP_X_API_KEY",
                    "HTTP_X_FORWARDED_FOR",
                    "QUERY_STRING",
                    "REMOTE_ADDR",
                    "HTTP_FORWARDED",
                    "REMOTE_USER",
                ]
            ),
            st.text(st.characters(max_codepoint=255)),
        )
    )
    def test_no_request_raises(self, environ: dict[str, str]) -> None:
        for spec in (
            *(
                "ip",
                "session-user",
                "header:X-API-Key",
                "cookie:c",
                "query:q",
                "environ:REMOTE_USER",
            ),
            ["session-user", "header:X-API-Key", "query:q"],
        ):
            found = charged(spec, environ)
            for key in found if isinstance(found, tuple) else (found,):
                assert SAFE(key)


def test_the_order_of_a_list_is_kept_and_each_order_is_its_own_key() -> None:
    environ = {"HTTP_A": "1", "HTTP_B": "1", "HTTP_C": "1"}
    keys = {
        charged(list(spec), environ) for spec in permutations(["header:A", "header:B", "header:C"])
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("Ip", "use one of ip, session-user, header, cookie"),
        ("", "use one of ip"),
        ("ip:192.0.2.1", "write ip"),
        ("all:x", "write all"),
        ("session-user:x", "write session-user"),
        ("header", "write header:X-API-Key"),
        ("header:X API", "write header:X-API-Key"),
        ("cookie:", "write cookie:name"),
        ("cookie:a b", "write cookie:name"),
        ("cookie:a=b", "write cookie:name"),
        ("header:X_API_Key", "write header:X-API-Key"),
        ("query", "write query:token"),
        ("form:", "write form:email"),
        ("json", "write json:email, or json:user.email"),
        ("json:user..email", "write json:user.email"),
        ("environ", "write environ:REMOTE_USER"),
        ("path:<id>", "write path:id"),
        ("python:", "write python:package.module:function"),
        ("python:identity_hooks", "write python:package.module:function"),
        ("python:identity_hooks.tenant", "write python:package.module:function"),
        ("python:no_such_module:f", "is it on the Python path"),
        ("python:identity_hooks:none", "check its spelling"),
        ("python:identity_hooks:not_a_function", "is of type int, not a function"),
        ([], "the list of keys is empty"),
        (["ip", "ip"], "stands twice"),
        (["ip", "nonsense"], "use one of ip"),
        (["form:a", "form:b"], "leave one in the list"),
        (["query:a", "ip", "form:b"], "several values of query:a and of form:b"),
    ],
    ids=str,
)
def test_a_bad_key_says_what_to_write(spec: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        key_function(spec, SETTINGS)


def test_session_user_needs_a_session() -> None:
    with pytest.raises(ValueError, match="write session:"):
        key_function("session-user", Identity())


def test_a_form_of_no_bytes_is_no_setting() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Identity(form_max_bytes=0)


def test_every_key_type_is_attacked_here() -> None:
    specs = [attack.values[0] for attack in ATTACKS]
    assert {spec.partition(":")[0] for spec in specs if isinstance(spec, str)} == set(KEY_TYPES)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ip", False),
        ("session-user", False),
        ("all", False),
        ("python:identity_hooks:tenant", False),
        ("header:X-API-Key", True),
        ("cookie:c", True),
        ("query:q", True),
        ("form:f", True),
        ("json:a.b", True),
        ("path:id", True),
        ("environ:REMOTE_USER", False),
        ("environ:beaker.session.user_id", False),
        ("environ:HTTP_X_TEAM", True),
        ("environ:REQUEST_URI", True),
    ],
)
def test_who_controls_the_value_of_a_key_is_known(spec: str, expected: bool) -> None:
    assert is_client_controlled(spec) is expected


@pytest.mark.parametrize(
    ("spec", "expected", "is_shared"),
    [
        (["ip"], ["ip"], False),
        (["query:q"], ["query:q"], False),
        (["path:id", "all"], ["path:id", "all"], False),
        (["session-user"], ["ip"], True),
        (["header:Authorization"], ["ip"], True),
        (["cookie:c"], ["ip"], True),
        (["form:f", "path:id"], ["path:id", "ip"], True),
        (["json:f", "path:id"], ["path:id", "ip"], True),
        (["ip", "header:X"], ["ip"], True),
        (["environ:HTTP_X"], ["ip"], True),
        (["environ:CONTENT_TYPE"], ["ip"], True),
        (["environ:REMOTE_USER"], ["environ:REMOTE_USER"], True),
        (["python:identity_hooks:tenant"], ["python:identity_hooks:tenant"], True),
    ],
    ids=str,
)
def test_a_preflight_is_counted_by_what_it_carries(
    spec: list[str], expected: list[str], is_shared: bool
) -> None:
    assert preflight_key(spec) == (tuple(expected), is_shared)


def test_an_unknown_type_of_key_is_an_error() -> None:
    with pytest.raises(ValueError, match='"headers:X" is not a key: use one of ip, '):
        is_client_controlled("headers:X")


def test_the_address_for_lists_of_networks_is_the_whole_one() -> None:
    find = client_address(Identity(ClientIP(ipv6_prefix=48)))
    assert str(find({"REMOTE_ADDR": "2001:db8::1"})) == "2001:db8::1"
    assert str(find({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "::ffff:192.0.2.1"})) == "192.0.2.1"
    assert find({"REMOTE_ADDR": ""}) is None


class TestHooks:
    @pytest.mark.parametrize(
        ("function", "environ", "expected"),
        [
            ("tenant", {"HTTP_X_TENANT": "a b"}, "python:identity_hooks:tenant:a%20b"),
            ("tenant", {}, BY_IP),
            ("tenant", {"HTTP_X_TENANT": ""}, BY_IP),
            ("number", {}, "python:identity_hooks:number:42"),
            ("Users.current", {}, "python:identity_hooks:Users.current:ann"),
        ],
    )
    def test_a_hook_names_the_counter(
        self, function: str, environ: dict[str, Any], expected: str
    ) -> None:
        assert charged(f"python:identity_hooks:{function}", environ) == expected

    @pytest.mark.parametrize("nonsense", [True, 1.5, b"ann", ["ann"], {"a": 1}, object()], ids=repr)
    def test_nonsense_counts_as_the_address(
        self, nonsense: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert charged("python:identity_hooks:nonsense", {"nonsense": nonsense}) == BY_IP
        assert "return a str, an int or None" in caplog.text

    def test_one_that_raises_counts_as_the_address_and_is_logged_once_a_minute(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 1000.0
        settings = replace(SETTINGS, clock=lambda: int(now * SECOND))
        find = key_function("python:identity_hooks:raises", settings)
        for _ in range(3):
            assert find({"REMOTE_ADDR": ATTACKER}, {}) == BY_IP
        assert len(caplog.records) == 1
        assert "python:identity_hooks:raises failed" in caplog.text
        assert "RuntimeError: no tenant" in caplog.text
        now += hooks_module.LOG_PERIOD_S
        find({"REMOTE_ADDR": ATTACKER}, {})
        assert len(caplog.records) == 2
        assert "(2 more left out)" in caplog.text

    def test_an_exit_is_not_swallowed(self) -> None:
        with pytest.raises(SystemExit):
            charged("python:identity_hooks:exits", {})

    def test_a_session_of_one_s_own(self) -> None:
        settings = Identity(session=Session("python:identity_hooks:tenant"))
        find = key_function("session-user", settings)
        assert find({"REMOTE_ADDR": ATTACKER, "HTTP_X_TENANT": "ann"}, {}) == "session-user:ann"
        assert find({"REMOTE_ADDR": ATTACKER}, {}) == BY_IP

    @pytest.mark.parametrize(
        ("path", "message", "cause"),
        [
            ("no_such_module:f", "ModuleNotFoundError.*on the Python path", ImportError),
            ("identity_hooks.inner:f", "ModuleNotFoundError.*on the Python path", ImportError),
            ("broken_hooks:f", "AttributeError: no such setting.*Python path", AttributeError),
            ("identity_hooks:none", '"identity_hooks" has no "none"', AttributeError),
            ("identity_hooks:Users.none", 'has no "Users.none"', AttributeError),
            ("identity_hooks:not_a_function", "of type int, not a function", None),
            ("identity_hooks", "write python:package.module:function", None),
            ("identity_hooks:", "write python:package.module:function", None),
            (":tenant", "write python:package.module:function", None),
            ("identity hooks:tenant", "write python:package.module:function", None),
            ("identity_hooks:tenant:", "write python:package.module:function", None),
            (".identity_hooks:tenant", "write python:package.module:function", None),
        ],
    )
    def test_one_that_cannot_be_loaded_says_why(
        self, path: str, message: str, cause: type[Exception] | None
    ) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            load_hook(path)
        assert isinstance(caught.value.__cause__, cause or type(None))

    def test_a_hook_is_loaded_by_its_path(self) -> None:
        assert load_hook("identity_hooks:tenant") is identity_hooks.tenant
        assert Hook("identity_hooks:number", bool)({}) is True
