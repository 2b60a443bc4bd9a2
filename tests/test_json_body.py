"""The value of a member of a JSON body, as any application may read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from test_form import ABSENT, URLENCODED, all_of, chunked, request
from test_form import charged as charged_by
from wsgi_throttle.identity import Key

JSON = "application/json"
SHARED = "json:email:?"
ANN = "json:email:ann"


def charged(environ: dict[str, Any], spec: Any = "json:email", max_bytes: int = 65536) -> Key:
    return charged_by(environ, spec, max_bytes)


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param('{"email": "ann"}', ANN, id="plain"),
        pytest.param('{"email": " ANN\\u200b"}', ANN, id="normalised"),
        pytest.param('{"\\u0065mail": "\\u0061nn"}', ANN, id="escaped"),
        pytest.param('\ufeff{"email": "ann"}', ANN, id="a byte order mark"),
        pytest.param('\r\n\t {"email": "ann"}\n', ANN, id="white space"),
        pytest.param('{"email": 42}', "json:email:42", id="a number"),
        pytest.param('{"email": "42"}', "json:email:42", id="the same as text"),
        pytest.param('{"email": 42.0}', "json:email:42", id="the same as a float"),
        pytest.param('{"email": 4.2E1}', "json:email:42", id="the same with an exponent"),
        pytest.param(
            '{"email": 1.75928847299117056e17}',
            "json:email:175928847299117056",
            id="a long number with an exponent",
        ),
        pytest.param('{"email": -0}', "json:email:0", id="zero"),
        pytest.param('{"email": 1.5}', "json:email:1.5", id="a fraction"),
        pytest.param('{"email": 1e999}', "json:email:inf", id="infinity"),
        pytest.param('{"email": NaN}', "json:email:nan", id="what JSON does not know"),
        pytest.param('{"email": ' + "9" * 300 + "}", SHARED, id="a number of 300 digits"),
        pytest.param('{"email": ' + "9" * 60_000 + "}", SHARED, id="a number of 60,000 digits"),
        pytest.param('{"email": 1.' + "9" * 60_000 + "}", SHARED, id="a long fraction"),
        pytest.param('{"email": true}', "json:email:true", id="a boolean"),
        pytest.param('{"email": ""}', ABSENT, id="empty"),
        pytest.param('{"email": " "}', ABSENT, id="blank"),
        pytest.param('{"email": null}', ABSENT, id="null"),
        pytest.param('{"Email": "ann"}', ABSENT, id="another name"),
        pytest.param('{"a": {"email": "ann"}}', ABSENT, id="elsewhere"),
        pytest.param('["email", "ann"]', ABSENT, id="a list"),
        pytest.param('"email"', ABSENT, id="a text"),
        pytest.param("{}", ABSENT, id="an empty object"),
        pytest.param('{"email": "\\u200b"}', SHARED, id="left empty"),
        pytest.param('{"email": "\\ud800"}', "json:email:%ED%A0%80", id="half a surrogate pair"),
        pytest.param('{"email": "bob", "email": "ann"}', ("json:email:bob", ANN), id="doubled"),
        pytest.param('{"email": null, "email": "ann"}', ANN, id="null and a value"),
        pytest.param(
            "{" + ",".join(f'"email": "{n}"' for n in range(5)) + "}", SHARED, id="five values"
        ),
        pytest.param('{"email": "' + "x" * 257 + '"}', SHARED, id="too long"),
        pytest.param('{"email": ["ann"]}', SHARED, id="a list of it"),
        pytest.param('{"email": {"$gt": ""}}', SHARED, id="an object"),
        pytest.param(
            "{" + ",".join(f'"a{n}": 1' for n in range(1001)) + "}", SHARED, id="1,001 members"
        ),
        pytest.param('{"email": "ann"', SHARED, id="cut off"),
        pytest.param('{"email": "ann"}}', SHARED, id="something behind"),
        pytest.param("{'email': 'ann'}", SHARED, id="single quotes"),
        pytest.param('{"email": "a\nnn"}', SHARED, id="a line feed in a text"),
        pytest.param("email=ann", SHARED, id="a form"),
        pytest.param(deep(10_000), SHARED, id="deep"),
        pytest.param("[" * 60_000, SHARED, id="deep lists"),
    ],
)
@pytest.mark.parametrize("form", [request, chunked], ids=["with a length", "chunked"])
def test_a_member_is_charged_by_its_normalised_value(
    form: Callable[..., dict[str, Any]], body: str, expected: Key
) -> None:
    environ = form(body.encode(), CONTENT_TYPE=JSON)
    started = time.perf_counter()
    assert charged(environ, max_bytes=1 << 20) == expected
    assert time.perf_counter() - started < 1
    assert all_of(environ["wsgi.input"]) == body.encode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("content_type", [JSON, "text/plain", URLENCODED])
def test_every_encoding_of_json_is_read(encoding: str, content_type: str) -> None:
    for text, expected in {'{"email": "ann"}': ANN, '{"email": "ann}': SHARED}.items():
        assert charged(request(text.encode(encoding), CONTENT_TYPE=content_type)) == expected


@pytest.mark.parametrize("body", [b'{"email": "a\xff"}', b"\xff{", b"\xc0\xaf{}", b"{\0\xff"])
def test_bytes_that_are_no_text_share_one_counter(body: bytes) -> None:
    assert charged(request(body, CONTENT_TYPE=JSON)) == SHARED
    assert charged(request(body, CONTENT_TYPE="text/plain")) == SHARED


TYPES = [
    *(JSON, "Application/JSON", "application/vnd.api+json", "text/json", "application/json-rpc"),
    *("text/plain", "", None, URLENCODED, "multipart/form-data; boundary=b", "application/xml"),
]


@pytest.mark.parametrize("content_type", TYPES)
def test_json_is_read_whatever_the_content_type(content_type: str | None) -> None:
    """An application may not ask for the type, as with ``get_json(force=True)``."""
    assert charged(request(b'{"email": "ann"}', CONTENT_TYPE=content_type)) == ANN
    assert charged(request(b'{"email": "ann"', CONTENT_TYPE=content_type)) == SHARED


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, b"email=ann&x={}"),
        (f"{URLENCODED}; charset=iso-8859-1", b"email=\xe9"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="j"'),
        ("text/plain", b"a text with {braces}"),
        (None, b"\x89PNG"),
    ],
)
def test_what_cannot_be_json_is_charged_to_its_address(
    content_type: str | None, body: bytes
) -> None:
    """A form that is sent to the same path does not use up the counter of the unreadable."""
    assert charged(request(body, CONTENT_TYPE=content_type)) == ABSENT


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (f"{JSON}; charset=utf-16", b'{"email": "ann"}'),
        (f"{JSON}; charset=utf-8; charset=utf-7", b'{"email": "ann"}'),
        ("text/plain; charset=utf-7", b"+AHs-"),
        ("text/plain; charset=cp037", '{"email": "ann"}'.encode("cp037")),
    ],
)
def test_another_charset_shares_one_counter(content_type: str, body: bytes) -> None:
    assert charged(request(body, CONTENT_TYPE=content_type)) == SHARED


def test_too_long_a_body_and_a_compressed_one_share_one_counter() -> None:
    body = b'{"email": "ann"}'
    assert charged(request(body, CONTENT_TYPE=JSON), max_bytes=15) == SHARED
    assert charged(chunked(body, CONTENT_TYPE=JSON), max_bytes=15) == SHARED
    assert charged(request(body, CONTENT_TYPE=JSON, HTTP_CONTENT_ENCODING="gzip")) == SHARED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"user": {"email": "ann"}}', "json:user.email:ann"),
        ('{"user": {"email": "ann", "email": "bob"}}', ("ann", "bob")),
        ('{"user": {"email": "ann"}, "user": {"email": "bob"}}', ("ann", "bob")),
        ('{"user": {"email": "ann"}, "user": 1}', "json:user.email:ann"),
        ('{"user": [{"email": "ann"}]}', ABSENT),
        ('{"user": "ann"}', ABSENT),
        ('{"user.email": "ann"}', ABSENT),
        ('{"email": "ann"}', ABSENT),
    ],
)
def test_a_path_leads_to_a_member_of_a_member(body: str, expected: Any) -> None:
    if isinstance(expected, tuple):
        expected = tuple(f"json:user.email:{value}" for value in expected)
    assert charged(request(body.encode(), CONTENT_TYPE=JSON), "json:user.email") == expected


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["email", "user", "a"]), _values))
@example({"email": float("inf")})
@example({"email": float("-inf")})
@example({"email": float("nan")})
def test_what_an_application_reads_is_charged(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    found = charged(request(body, CONTENT_TYPE=JSON))
    value = json.loads(body).get("email")
    if isinstance(value, (dict, list)):
        assert found == SHARED
    elif value is None or (isinstance(value, str) and not value.strip()):
        assert found == ABSENT
    else:
        assert found == charged(request(json.dumps({"email": str(value)}).encode())) or (
            isinstance(value, float) and value.is_integer()
        )


@given(st.binary(max_size=80), st.sampled_from(TYPES))
def test_no_body_raises_or_is_changed(body: bytes, content_type: str | None) -> None:
    for sent in (body, b"{" + body, b'{"email": ' + body + b"}"):
        environ = chunked(sent, CONTENT_TYPE=content_type)
        found = charged(environ)
        assert found == ABSENT or "json:email:" in found or isinstance(found, tuple)
        assert all_of(environ["wsgi.input"]) == sent
