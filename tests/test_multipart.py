"""Fields of a multipart body: what every parser reads alike, and what is unreadable."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from test_form import ABSENT, SHARED, all_of, charged, request
from wsgi_throttle.identity.body import UnreadableError
from wsgi_throttle.identity.multipart import multipart_values

TYPE = "multipart/form-data; boundary=b"
ANN = "form:email:ann"


def part(headers: str, content: str = "ann") -> str:
    return f"--b\r\n{headers}\r\n\r\n{content}\r\n"


EMAIL = 'Content-Disposition: form-data; name="email"'
OTHER = 'Content-Disposition: form-data; name="other"'
FILE = 'Content-Disposition: form-data; name="file"; filename="a=1, b.png"'
END = "--b--\r\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(part(EMAIL) + END, ANN, id="as browsers send it"),
        pytest.param(part(EMAIL) + "--b--", ANN, id="without a last line end"),
        pytest.param(part(EMAIL, " ANN\u200b ") + END, ANN, id="normalised"),
        pytest.param(part(EMAIL, "") + END, ABSENT, id="empty"),
        pytest.param(part(OTHER) + END, ABSENT, id="absent"),
        pytest.param(END, ABSENT, id="no field at all"),
        pytest.param(part(EMAIL, "\u200b") + END, SHARED, id="left empty"),
        pytest.param(part(OTHER, "x\r\n\r\ny") + part(EMAIL) + END, ANN, id="after another"),
        pytest.param(part(EMAIL) + part(EMAIL, "bob") + END, (ANN, "form:email:bob"), id="doubled"),
        pytest.param(
            "".join(part(EMAIL, f"a{n}") for n in range(5)) + END, SHARED, id="five values"
        ),
        pytest.param(part(EMAIL, "x" * 257) + END, SHARED, id="too long"),
        pytest.param("".join(part(OTHER) for _ in range(1001)) + END, SHARED, id="1,001 parts"),
        pytest.param(
            part(f"{EMAIL}\r\nContent-Type: text/plain; charset=UTF-8") + END, ANN, id="typed"
        ),
        pytest.param(part(f"{EMAIL}\r\nContent-Length: 3") + END, ANN, id="with its length"),
        pytest.param(part(f"{EMAIL}\r\nX-Any: thing") + END, ANN, id="with a header of its own"),
        pytest.param(part("content-disposition:form-data;name=email") + END, ANN, id="unquoted"),
        pytest.param(
            part(f"{FILE}\r\nContent-Type: image/png", "\0\r\n") + part(EMAIL) + END,
            ANN,
            id="beside a file",
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="file"; filename="a=1; b;.png"')
            + part(EMAIL)
            + END,
            ANN,
            id="beside a file with semicolons in its name",
        ),
        pytest.param(part(f'{EMAIL}; filename=""') + END, ANN, id="an empty file name"),
        pytest.param(part(f'{EMAIL}; filename="a.txt"') + END, ANN, id="a file"),
        # What some parsers read in another way.
        pytest.param(part(f"{EMAIL}\r\nContent-Type: text/html") + END, SHARED, id="HTML"),
        pytest.param(
            part(f"{EMAIL}\r\nContent-Type: application/json", '"ann"') + END, SHARED, id="JSON"
        ),
        pytest.param(
            part(f"{EMAIL}\r\nContent-Type: text/plain; charset=utf-16") + END, SHARED, id="charset"
        ),
        pytest.param(
            part(f"{EMAIL}\r\nContent-Transfer-Encoding: base64", "YW5u") + END,
            SHARED,
            id="base64",
        ),
        pytest.param(
            part(f"{OTHER}\r\nContent-Transfer-Encoding: quoted-printable") + END,
            SHARED,
            id="quoted-printable, wherever",
        ),
        pytest.param(part(f"{EMAIL}\r\nContent-Length: 2") + END, SHARED, id="another length"),
        pytest.param(
            part(f"{OTHER}\r\nContent-Type: multipart/mixed; boundary=c") + END, SHARED, id="nested"
        ),
        pytest.param(part(f"{OTHER}\r\n{EMAIL}") + END, SHARED, id="two dispositions"),
        pytest.param(
            part('Content-Disposition: form-data; name="other"; name="email"') + END,
            SHARED,
            id="two names",
        ),
        pytest.param(
            part("Content-Disposition: form-data; name*=utf-8''email") + END, SHARED, id="name*"
        ),
        pytest.param(part(f"{OTHER}; name*=utf-8''email") + END, SHARED, id="name and name*"),
        pytest.param(
            part(r'Content-Disposition: form-data; name="e\mail"') + END, SHARED, id="a backslash"
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="x; name=email"') + END,
            SHARED,
            id="a semicolon in quotes",
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="email;"') + END,
            SHARED,
            id="a semicolon at the end of a name",
        ),
        pytest.param(
            part('Content-Disposition: form-data; filename="x; name=email"; name="other"') + END,
            SHARED,
            id="a name in the name of a file",
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="%65mail"') + END, SHARED, id="escaped"
        ),
        pytest.param(
            part('Content-Disposition: form-data; name=" email"') + END, SHARED, id="a space"
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="=?utf-8?q?email?="') + END,
            SHARED,
            id="an encoded word",
        ),
        pytest.param(part('Content-Disposition: attachment; name="email"') + END, SHARED, id="not"),
        pytest.param(part("Content-Disposition: form-data") + END, SHARED, id="nameless"),
        pytest.param(part("Content-Type: text/plain") + END, SHARED, id="no disposition"),
        pytest.param(part(f"{OTHER};\r\n x=y") + END, SHARED, id="a folded header"),
        pytest.param(part(f"{OTHER}\n{EMAIL}") + END, SHARED, id="a bare line feed in headers"),
        pytest.param("--b\r\n\r\nann\r\n" + END, SHARED, id="no headers"),
        pytest.param(f"--b\r\n{EMAIL}\r\n" + END, SHARED, id="no empty line"),
        pytest.param(part(EMAIL).replace("\r\n", "\n") + "--b--\n", SHARED, id="bare line feeds"),
        pytest.param(part(EMAIL), SHARED, id="no last boundary"),
        pytest.param(part(EMAIL) + "--b-", SHARED, id="half a last boundary"),
        pytest.param("\r\n" + part(EMAIL) + END, ANN, id="a line end before"),
        pytest.param("preamble\r\n" + part(EMAIL) + END, SHARED, id="a preamble"),
        pytest.param(END + part(EMAIL) + END, SHARED, id="a preamble that looks like the end"),
        pytest.param(part(OTHER) + END + part(EMAIL) + END, SHARED, id="an epilogue"),
        pytest.param(part(EMAIL) + END + "and more", SHARED, id="a text behind the end"),
        pytest.param(part(EMAIL).replace("--b\r\n", "--bcd") + END, SHARED, id="no line end"),
        pytest.param(part(EMAIL).replace("--b", "--b ") + END, SHARED, id="a space behind it"),
        pytest.param(part(OTHER) + part(EMAIL).replace("--b", "--bc") + END, SHARED, id="goes on"),
        pytest.param(
            part(OTHER, f"x--b\r\n{EMAIL}\r\n\r\nann") + END, SHARED, id="a boundary in a line"
        ),
        pytest.param(
            part(OTHER, f"x\n--b\r\n{EMAIL}\r\n\r\nann") + END, SHARED, id="a boundary after LF"
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="_charset_"', "utf-16") + part(EMAIL) + END,
            SHARED,
            id="_charset_",
        ),
        pytest.param(part(OTHER, "&email=ann&") + END, ANN, id="a urlencoded form in a field"),
        pytest.param("email=ann", SHARED, id="a urlencoded form"),
    ],
)
def test_a_field_is_what_every_parser_finds(body: str, expected: Any) -> None:
    environ = request(body.encode(), CONTENT_TYPE=TYPE)
    assert charged(environ) == expected
    assert all_of(environ["wsgi.input"]) == body.encode()


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (TYPE, ANN),
        ('Multipart/Form-Data;boundary="b"', ANN),
        ("multipart/form-data; charset=utf-8; boundary=b", ANN),
        ("multipart/form-data; boundary=b; charset=utf-8", ANN),
        ("multipart/form-data; boundary=b; charset=utf-16", SHARED),
        ("multipart/form-data", SHARED),
        ("multipart/form-data; boundary=", SHARED),
        ("multipart/form-data; boundary=b; boundary=c", SHARED),
        ("multipart/form-data; boundary=c; boundary=b", SHARED),
        ("multipart/form-data; boundary*0=b", SHARED),
        ("multipart/form-data; boundary=b, text/plain", SHARED),
        ('multipart/form-data; boundary="b', SHARED),
        (r'multipart/form-data; boundary="\b"', SHARED),
        ("multipart/mixed; boundary=b", SHARED),
        ("multipart/form-data, application/x-www-form-urlencoded", SHARED),
    ],
)
def test_the_boundary_is_what_every_parser_finds(content_type: str, expected: str) -> None:
    body = (part(EMAIL) + END).encode()
    assert charged(request(body, CONTENT_TYPE=content_type)) == expected


def test_bytes_that_are_no_text_are_unreadable_only_in_that_field() -> None:
    for headers, expected in {EMAIL: SHARED, OTHER: ABSENT, FILE: ABSENT}.items():
        body = part(headers, "X").encode().replace(b"X", b"\xff") + END.encode()
        assert charged(request(body, CONTENT_TYPE=TYPE)) == expected


def test_what_werkzeug_sends_is_read() -> None:
    upload = (BytesIO(b"\0" * 1000), "photo.png")
    builder = EnvironBuilder(method="POST", data={"a": "1", "email": "\u00c9 x", "photo": upload})
    environ = {**builder.get_environ(), "REMOTE_ADDR": "192.0.2.1"}
    assert charged(environ) == "form:email:%C3%A9%20x"


@given(st.binary(max_size=60), st.text(max_size=40))
def test_no_body_and_no_type_raises_anything_else(piece: bytes, rest: str) -> None:
    for body in (piece, b"--b\r\n" + piece + b"\r\n--b--", (part(rest) + END).encode()):
        for content_type in (TYPE, "multipart/form-data; boundary=" + rest):
            try:
                multipart_values(content_type, body, "email")
            except UnreadableError:
                continue


@pytest.mark.parametrize(
    "body",
    [
        part(EMAIL + "; a=b" * 16_000) + END,
        part('Content-Disposition: form-data; name="' + "x" * 64_000) + END,
        part("Content-Disposition: form-data" + " \t" * 32_000) + END,
        "--b\r\n" * 13_000,
        "--b" * 21_000,
        "%&" * 32_000,
        "%61=1;" * 11_000,
    ],
    ids=range(7),
)
def test_no_body_takes_long(body: str) -> None:
    started = time.perf_counter()
    charged(request(body.encode(), CONTENT_TYPE=TYPE), max_bytes=1 << 17)
    assert time.perf_counter() - started < 0.5
