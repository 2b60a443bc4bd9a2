"""Keys by the value of a form's field, and that the application still gets the whole body."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, urlencode

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from wsgi_throttle.identity import Identity, Key, key_function

ADDRESS = "192.0.2.1"
ABSENT = f"ip:{ADDRESS}"
SHARED = "form:email:?"
URLENCODED = "application/x-www-form-urlencoded"


class Input:
    """A body that comes in pieces, and that fails when it is read beyond its end, since PEP 3333
    does not allow that."""

    def __init__(
        self, body: bytes, piece: int = 7, *, ends: bool = False, failure: Exception | None = None
    ) -> None:
        self._body = io.BytesIO(body)
        self._left = len(body)
        self._piece = piece
        self._ends = ends
        self._failure = failure
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        if not self._ends:
            assert 0 <= size <= self._left, "a real server would wait here for ever"
        if not self._left and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        piece = self._body.read(self._piece if size < 0 else min(size, self._piece))
        self._left -= len(piece)
        self.taken += len(piece)
        return piece


def request(body: bytes, **environ: Any) -> dict[str, Any]:
    return {
        "REMOTE_ADDR": ADDRESS,
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": URLENCODED,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": Input(body),
        **environ,
    }


def chunked(body: bytes, **environ: Any) -> dict[str, Any]:
    found = request(body, HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True})
    del found["CONTENT_LENGTH"]
    return {**found, "wsgi.input": Input(body, ends=True), **environ}


def charged(environ: dict[str, Any], spec: Any = "form:email", max_bytes: int = 65536) -> Key:
    find = key_function(spec, Identity(form_max_bytes=max_bytes))
    first = find(environ, {})
    assert find(environ, {}) == first, "a second rule of the request found something else"
    return first


def all_of(stream: Any) -> bytes:
    pieces = []
    while piece := stream.read(5):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("email=ann@example.com", "form:email:ann@example.com", id="plain"),
        pytest.param("a=1&email=ann%40example.com&b=2", "form:email:ann@example.com", id="escaped"),
        pytest.param("%65mail=ann", "form:email:ann", id="an escaped name"),
        pytest.param("email=+ann%20%09", "form:email:ann", id="trimmed"),
        pytest.param("email=ANN%40Example.COM", "form:email:ann@example.com", id="case"),
        pytest.param("email=stra%C3%9Fe", "form:email:strasse", id="folded as the sharp s is"),
        pytest.param("email=%EF%BC%A1nn", "form:email:ann", id="full-width, NFKC"),
        pytest.param("email=%F0%9D%90%80nn", "form:email:ann", id="mathematical, NFKC then case"),
        pytest.param("email=%C2%A8x", "form:email:%CC%88x", id="NFKC makes a leading space"),
        pytest.param("email=e%CC%81", "form:email:%C3%A9", id="combining, NFKC"),
        pytest.param("email=%C3%89", "form:email:%C3%A9", id="composed upper case"),
        pytest.param("email=\u00e9", "form:email:%C3%A9", id="not escaped"),
        pytest.param("email=%3F", "form:email:%3F", id="a question mark is not the unreadable"),
        pytest.param("email=%EF%BC%9F", "form:email:%3F", id="nor a full-width one"),
        pytest.param("email=a%2Cb%7B%7D", "form:email:a%2Cb%7B%7D", id="comma and braces"),
        pytest.param("email=ann&email=ann", "form:email:ann", id="the same twice"),
        pytest.param("email=ann&email=+ANN", "form:email:ann", id="spellings of the same"),
        pytest.param("email=&email=ann", "form:email:ann", id="one of them empty"),
        pytest.param("email=ann&email=bob", ("form:email:ann", "form:email:bob"), id="doubled"),
        pytest.param(
            "email=a&email=b&email=c&email=d", tuple(f"form:email:{x}" for x in "abcd"), id="four"
        ),
        pytest.param("email=a&email=b&email=c&email=d&email=e", SHARED, id="five"),
        pytest.param("email=", ABSENT, id="empty"),
        pytest.param("email", ABSENT, id="without a value"),
        pytest.param("email=+%09+", ABSENT, id="blank"),
        pytest.param("mail=ann", ABSENT, id="absent"),
        pytest.param("Email=ann", ABSENT, id="another name"),
        pytest.param("x&" * 2000 + "email=ann", SHARED, id="2,000 fields"),
        pytest.param("email=" + "x" * 300, SHARED, id="a value longer than any address"),
        pytest.param("email=" + "%CC%81%CC%96" * 5000, SHARED, id="combining marks out of order"),
        pytest.param("email=%FF", "form:email:%EF%BF%BD", id="escaped bytes that are no text"),
        pytest.param(
            "email=ann;email=bob",
            ("form:email:ann%3Bemail=bob", "form:email:ann", "form:email:bob"),
            id="semicolons, at which some applications split",
        ),
        pytest.param("x=1;email=ann", "form:email:ann", id="behind a semicolon"),
        pytest.param("x=1%3Bemail=ann", ABSENT, id="behind an escaped semicolon"),
        pytest.param("x=1;" * 1001 + "email=ann", SHARED, id="1,002 fields by semicolons"),
        pytest.param("email=an%E2%80%8Bn%C2%AD", "form:email:ann", id="ignorable characters"),
        pytest.param("email=a%00n%1Fn%C2%85", "form:email:ann", id="control characters"),
        pytest.param("email=%E2%80%8B", SHARED, id="nothing but an ignorable character"),
        pytest.param("email=+%00+", SHARED, id="nothing but a control character"),
        pytest.param("email=ann&email=%C2%AD", SHARED, id="one of two left empty"),
    ],
)
@pytest.mark.parametrize("form", [request, chunked], ids=["with a length", "chunked"])
def test_a_field_is_charged_by_its_normalised_value(
    form: Callable[..., dict[str, Any]], body: str, expected: Key
) -> None:
    environ = form(body.encode())
    started = time.perf_counter()
    assert charged(environ) == expected
    assert time.perf_counter() - started < 1
    assert all_of(environ["wsgi.input"]) == body.encode()


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (URLENCODED, "form:email:ann"),
        (URLENCODED.upper(), "form:email:ann"),
        (f"{URLENCODED}; charset=UTF-8", "form:email:ann"),
        (f'{URLENCODED};charset="utf-8"', "form:email:ann"),
        (f"{URLENCODED}; boundary=x", "form:email:ann"),
        (f"{URLENCODED}; charset=utf-16", SHARED),
        (f"{URLENCODED}; charset=utf-8; charset=utf-7", SHARED),
        (f"{URLENCODED}; charset*=utf-8''utf-7", SHARED),
        ("application/json", SHARED),
        ("multipart/form-data; boundary=x", SHARED),
        ("text/plain", SHARED),
        ("", SHARED),
        (None, SHARED),
        (f"{URLENCODED}, text/plain", SHARED),
    ],
)
def test_what_is_no_urlencoded_form_shares_one_counter(
    content_type: str | None, expected: str
) -> None:
    environ = request(b"email=ann", CONTENT_TYPE=content_type)
    assert charged(environ) == expected


@pytest.mark.parametrize(
    "length", ["-1", "+9", "1_0", "9.0", " 9", "nine", "0x9", "9" * 5000, "\u0669"]
)
def test_a_bad_length_shares_one_counter(length: str) -> None:
    assert charged(request(b"email=ann", CONTENT_LENGTH=length)) == SHARED


def test_a_compressed_body_shares_one_counter() -> None:
    for coding, expected in {"gzip": SHARED, "br": SHARED, "identity": "form:email:ann"}.items():
        assert charged(request(b"email=ann", HTTP_CONTENT_ENCODING=coding)) == expected
    assert charged(request(b"", CONTENT_LENGTH="0", HTTP_CONTENT_ENCODING="gzip")) == ABSENT


@pytest.mark.parametrize(("body", "expected"), [(b"email=ann", "form:email:ann"), (b"", ABSENT)])
def test_a_body_of_no_announced_length_is_read_where_the_server_ends_it(
    body: bytes, expected: str
) -> None:
    environ = request(body, **{"wsgi.input": Input(body, ends=True), "wsgi.input_terminated": True})
    del environ["CONTENT_LENGTH"]
    assert charged(environ) == expected
    assert all_of(environ["wsgi.input"]) == body


@pytest.mark.parametrize("length", [None, "", "0"])
@pytest.mark.parametrize("content_type", [URLENCODED, "application/json", None])
def test_a_request_without_a_body_is_charged_to_its_address(
    length: str | None, content_type: str | None
) -> None:
    environ = request(b"", CONTENT_LENGTH=length, CONTENT_TYPE=content_type)
    assert charged(environ) == ABSENT


class TestTheBody:
    def test_one_at_the_limit_is_read(self) -> None:
        body = b"email=ann&x=" + b"y" * 88
        for environ in (request(body), chunked(body)):
            assert charged(environ, max_bytes=100) == "form:email:ann"
            assert all_of(environ["wsgi.input"]) == body

    def test_one_that_says_it_is_too_long_is_not_touched(self) -> None:
        body = b"email=ann&x=" + b"y" * 89
        environ = request(body)
        stream = environ["wsgi.input"]
        assert charged(environ, max_bytes=100) == SHARED
        assert environ["wsgi.input"] is stream
        assert stream.taken == 0

    @pytest.mark.parametrize("size", [101, 102, 5000, 300_000])
    def test_a_chunked_one_that_is_too_long_is_handed_on_whole(self, size: int) -> None:
        body = bytes(number % 251 for number in range(size))
        environ = chunked(body)
        stream = environ["wsgi.input"]
        assert charged(environ, max_bytes=100) == SHARED
        assert stream.taken == 101
        assert all_of(environ["wsgi.input"]) == body

    def test_every_way_to_read_it_works(self) -> None:
        body = b"email=ann&\nline two\n\nlast" + b"z" * 100
        for max_bytes in (1000, 10):
            for read in (
                lambda stream: stream.read(),
                b"".join,
                lambda stream: b"".join(stream.readlines()),
                lambda stream: b"".join(iter(stream.readline, b"")),
                lambda stream: b"".join(iter(lambda: stream.readline(3), b"")),
                lambda stream: stream.readline() + stream.read(),
            ):
                environ = chunked(body)
                charged(environ, max_bytes=max_bytes)
                assert read(environ["wsgi.input"]) == body

    def test_one_that_is_cut_off_shares_one_counter(self) -> None:
        environ = request(b"email=ann", CONTENT_LENGTH="50")
        environ["wsgi.input"] = Input(b"email=ann", ends=True)
        assert charged(environ) == SHARED
        assert all_of(environ["wsgi.input"]) == b"email=ann"

    @pytest.mark.parametrize("form", [request, chunked], ids=["with a length", "chunked"])
    def test_what_the_server_raises_is_met_by_the_application(
        self, form: Callable[..., dict[str, Any]]
    ) -> None:
        stream = Input(b"email=ann", ends=True, failure=OSError("the client is gone"))
        environ = form(b"email=ann" * 2, **{"wsgi.input": stream})
        assert charged(environ) == SHARED
        assert environ["wsgi.input"].read(9) == b"email=ann"
        for _ in range(2):
            with pytest.raises(OSError, match="the client is gone"):
                environ["wsgi.input"].read(1)

    def test_chunked_on_a_server_that_does_not_end_the_stream_is_not_read(self) -> None:
        environ = chunked(b"email=ann", **{"wsgi.input_terminated": False})
        assert charged(environ) == SHARED
        assert environ["wsgi.input"].taken == 0

    def test_several_fields_share_one_reading(self) -> None:
        environ = request(b"email=ann&shop=7")
        stream = environ["wsgi.input"]
        assert charged(environ) == "form:email:ann"
        assert charged(environ, "form:shop") == "form:shop:7"
        assert charged(environ, ["form:shop", "ip"]) == f"form:shop:7,{ABSENT}"
        assert stream.taken == len(b"email=ann&shop=7")

    def test_a_stream_that_was_replaced_is_read_again(self) -> None:
        environ = request(b"email=ann")
        assert charged(environ) == "form:email:ann"
        environ["wsgi.input"] = Input(b"email=bob")
        assert charged(environ) == "form:email:bob"

    def test_flask_reads_what_was_charged(self) -> None:
        app = flask.Flask("real")

        @app.post("/login")
        def login() -> str:
            return flask.request.form["email"]

        environ = EnvironBuilder("/login", method="POST", data={"email": " \u00c9 x"}).get_environ()
        environ["REMOTE_ADDR"] = ADDRESS
        assert charged(environ) == "form:email:%C3%A9%20x"
        with app.request_context(environ):
            assert app.full_dispatch_request().get_data(as_text=True) == " \u00c9 x"


@given(st.text(min_size=1, max_size=60))
def test_spellings_of_one_value_are_one_key(value: str) -> None:
    value = value.encode("utf-8", "replace").decode()
    one = charged(request(urlencode({"email": value}).encode()))
    again = charged(request(f"email=+{quote_plus(value)}%09".encode()))
    escaped = "".join(f"%{byte:02x}" for byte in value.encode())
    assert one == again == charged(request(f"email={escaped}".encode()))


@given(st.binary(max_size=200), st.sampled_from([request, chunked]))
def test_no_body_raises_or_is_changed(body: bytes, form: Callable[..., dict[str, Any]]) -> None:
    environ = form(body)
    found = charged(environ, max_bytes=150)
    assert all(key.startswith("form:email:") or key == ABSENT for key in _keys(found))
    untouched = form is request and not 0 < len(body) <= 150
    if untouched:
        assert environ["wsgi.input"].taken == 0
    else:
        assert all_of(environ["wsgi.input"]) == body


def _keys(found: Key) -> tuple[str, ...]:
    return found if isinstance(found, tuple) else (found,)


_JSON_AND_MULTIPART = (
    '{"a": "'.encode("utf-16-le")
    + b'\r\n--b\r\nContent-Disposition: form-data; name="email"\r\n\r\nanna\r\n--b--\r\n'
    + '"}'.encode("utf-16-le")
)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b'{"email": "ann"}', ABSENT),
        ("application/vnd.api+json", b'{"email": "ann"}', ABSENT),
        ("application/json", b"email=ann", "form:email:ann"),
        ("application/json", b'{"a": "&email=ann&"}', "form:email:ann"),
        ("application/json", b'{"a": ";%65mail=ann;"}', "form:email:ann"),
        ("application/json", b'{"a": "' + b"&;" * 2000 + b'"}', ABSENT),
        ("application/json", b"%61=1&" * 2000 + b"email=ann", SHARED),
        (URLENCODED, b'{"email": "ann"}', ABSENT),
        (URLENCODED, '{"a": 1}'.encode("utf-16"), SHARED),
        ("text/plain", b"email=ann", SHARED),
        # Bottle takes every multipart type for a form; this one is JSON in UTF-16, too.
        ("multipart/json; boundary=b", _JSON_AND_MULTIPART, SHARED),
    ],
)
def test_json_is_nothing_to_a_form_key_beside_a_json_key(
    kind: str, body: bytes, expected: str
) -> None:
    """It is counted by the other limit, unless the application reads it as a form all the same."""
    settings = Identity()
    find = key_function("form:email", settings.beside_json())
    assert find(request(body, CONTENT_TYPE=kind), {}) == expected
    alone = key_function("form:email", settings)(request(body, CONTENT_TYPE=kind), {})
    assert alone == SHARED, "nobody else counts it"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("token=abc", "query:token:abc"),
        ("a=1&token=A%20b", "query:token:A%20b"),
        ("%74oken=abc", "query:token:abc"),
        ("token=a&token=b", ("query:token:a", "query:token:b")),
        ("token=a&token=b&token=c&token=d&token=e", "query:token:?"),
        ("&".join(["x"] * 2000), "query:token:?"),
        ("token=", ABSENT),
        ("token", ABSENT),
        ("", ABSENT),
        ("%%%&==&%zz=%", ABSENT),
        ("a=1;token=abc", "query:token:abc"),
        ("token=a;token=b", ("query:token:a%3Btoken=b", "query:token:a", "query:token:b")),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_query_parameter(query: str, expected: Key) -> None:
    environ = {"REMOTE_ADDR": ADDRESS, "QUERY_STRING": query}
    assert charged(environ, "query:token") == expected
