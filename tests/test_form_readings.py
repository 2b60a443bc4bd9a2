"""Whatever body makes an application see the victim's name, the victim's counter was charged.

Every framework is the judge of its own forms: it is given the body, and tells what it sees. A body
that cannot be read counts on ``?``, which is a charge too.
"""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import product
from random import Random
from typing import Any

import pytest

from form_readers import READERS, Readers
from wsgi_throttle import Throttle
from wsgi_throttle.identity.normalise import normalised
from wsgi_throttle.middleware import DECISION

VICTIM = "victim"
END = "--b--\r\n"


def part(headers: str, content: str = VICTIM) -> str:
    return f"--b\r\n{headers}\r\n\r\n{content}\r\n"


def field(parameters: str, *more: str) -> str:
    return "\r\n".join([f"Content-Disposition: form-data; {parameters}", *more])


EMAIL = field('name="email"')
OTHER = field('name="other"')
NOBODY = part(EMAIL, "nobody")

BODIES: list[bytes] = [
    text if isinstance(text, bytes) else text.encode()
    for text in (
        # urlencoded
        "email=victim",
        "x=1;email=victim",
        "email=nobody&email=victim",
        "email=victim;email=nobody",
        "%65mail=victim%E2%80%8B",
        "email=VICTIM%00&x",
        "email=%EF%BC%B6ictim&" + "x" * 70_000,
        # JSON
        '{"email": "victim"}',
        '\ufeff{"email": "victim"}',
        '{"email": "nobody", "email": "victim"}',
        '{"\\u0065mail": "victim\\u00ad", "email": null}',
        '{"x": NaN, "email": "victim"}',
        '{"a": "&email=victim&"}',
        '{"email": "victim"}'.encode("utf-16"),
        '{"email": "victim"}'.encode("utf-32-be"),
        # multipart
        part(EMAIL) + END,
        "\r\n" + part(EMAIL) + "--b--",
        NOBODY + part(EMAIL) + END,
        part(EMAIL) + NOBODY + END,
        (part(EMAIL) + END).replace("\r\n", "\n"),
        part(EMAIL),
        "preamble\r\n" + part(EMAIL) + END,
        part(OTHER) + END + part(EMAIL) + END,
        part(OTHER, "x\n" + part(EMAIL)) + END,
        part(OTHER, "&email=victim&") + END,
        part(field("name=email")) + END,
        part(field("NAME = email")) + END,
        part(field("name*=utf-8''email")) + END,
        part(field(r'name="e\mail"')) + END,
        part(field('name="other"; name="email"')) + END,
        part(f"{OTHER}\r\n{EMAIL}") + END,
        part(field('name="email"; filename=""')) + END,
        part(field('name="email"; filename="a"', "Content-Type: text/plain")) + END,
        part(field('name="email"', "Content-Transfer-Encoding: base64"), "dmljdGlt") + END,
        part(field('name="email"', "Content-Type: text/plain; charset=utf-7"), "+AHY-ictim") + END,
        part(field('name="_charset_"'), "utf-7") + part(EMAIL, "+AHY-ictim") + END,
    )
]

TYPES: list[str | None] = [
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=utf-7",
    "multipart/form-data; boundary=b",
    'Multipart/Form-Data; boundary="b"; charset=utf-8',
    "multipart/mixed; boundary=b",
    "application/json",
    "text/plain",
    None,
]

FRAMINGS: dict[str, tuple[bool, bool, bool]] = {
    "a length": (True, False, False),
    "a length, ended by the server": (True, False, True),
    "chunked": (False, True, True),
    "no length, ended by the server": (False, False, True),
}
"""Whether there is a length, a Transfer-Encoding, and an end that the server makes."""

KEYS = {
    "both": ["form:email", "json:email"],
    "a form alone": ["form:email"],
    "JSON alone": ["json:email"],
}


def environ_of(body: bytes, kind: str | None, framing: str) -> dict[str, Any]:
    has_length, is_chunked, is_ended = FRAMINGS[framing]
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/login",
        "QUERY_STRING": "",
        "HTTP_HOST": "localhost",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **({"CONTENT_TYPE": kind} if kind is not None else {}),
        **({"CONTENT_LENGTH": str(len(body))} if has_length else {}),
        **({"HTTP_TRANSFER_ENCODING": "chunked"} if is_chunked else {}),
        **({"wsgi.input_terminated": True} if is_ended else {}),
    }


def is_victim(value: Any) -> bool:
    return isinstance(value, str) and normalised(value) == VICTIM


class Judge:
    """One framework behind the middleware."""

    def __init__(self, readers: Readers, keys: str) -> None:
        self.missed: list[tuple[str, bytes, str | None, str]] = []
        self.seen: Counter[str] = Counter()
        self._readers = readers
        limits = [{"limit": "1000000000 per hour", "key": key} for key in KEYS[keys]]
        self.types = [key.partition(":")[0] for key in KEYS[keys]]
        rules = [{"name": "login", "path": "/login", "limits": limits}]
        self._throttle = Throttle(self._app, {"storage": "memory://", "rules": rules})
        self._reading = ""
        self._found: list[Any] = []

    def _app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            self._found = list(getattr(self._readers, self._reading)(environ))
        except Exception:
            self._found = []
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    def check(self, body: bytes, kind: str | None, framing: str) -> None:
        for reading in self.types:
            environ = environ_of(body, kind, framing)
            self._reading = reading
            self._throttle(environ, lambda status, headers, exc_info=None: lambda data: None)
            charged = {charge.bucket for charge in environ[DECISION].charges}
            if any(is_victim(value) for value in self._found):
                self.seen[reading] += 1
                expected = (f"{{{reading}:email:victim}}", f"{{{reading}:email:?}}")
                if not any(bucket.endswith(expected) for bucket in charged):
                    self.missed.append((reading, body[:200], kind, framing))


def test_there_are_1152_of_them() -> None:
    assert len(BODIES) * len(TYPES) * len(FRAMINGS) == 1152
    assert len(set(BODIES)) == len(BODIES)


CASES = list(product(BODIES, TYPES, FRAMINGS))

PIECES = [
    *(
        b"&",
        b";",
        b"=",
        b"+",
        b"%",
        b"%3B",
        b"%00",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b'"',
    ),
    *(b"\\", b"'", b",", b":", b"--", b"--b", b"--b--", b"\r\n--b\r\n", b"\n--b\n", b"\r\n\r\n"),
    *(b"email", b"victim", b"email=victim", b'name="email"', b"name=email", b"filename=a", b"*"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"email":"victim"',
        b"null",
        b"\\u0065",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    ),
    *(b"\xe2\x80\x8b", b"\xc2\xad", b"\xc2\x85", b"\xff", b"+AHY-", b"dmljdGlt", b"\x0b", b"\x1c"),
    *(b"Content-Disposition: form-data; ", b"Content-Length: 6", b"Content-Type: text/plain"),
]
"""What parsers read differently."""

TYPE_PIECES = [
    ";",
    ",",
    " ",
    '"',
    "=",
    "b",
    "charset=utf-16",
    "; boundary=c",
    "boundary*0=b",
    "json",
]


def random_cases(count: int) -> Iterator[tuple[bytes, str | None, str]]:
    """So many of CASES, always the same ones, with something taken out of each or put into it."""
    random = Random(0)
    for _ in range(count):
        body, kind, framing = random.choice(CASES)
        body = body[:2000]
        for _ in range(random.randint(1, 3)):
            at = random.randint(0, len(body))
            taken = random.choice([0, 0, 0, 1, 2, 10])
            body = body[:at] + random.choice([b"", *PIECES]) + body[at + taken :]
        if kind and random.random() < 0.3:
            at = random.randint(0, len(kind))
            kind = kind[:at] + random.choice(TYPE_PIECES) + kind[at + random.randint(0, 2) :]
        yield body, kind, framing


def check(framework: str, keys: str, cases: Iterable[tuple[bytes, str | None, str]]) -> None:
    """
    :raises AssertionError: the victim was seen and not charged.
    """
    judge = Judge(READERS[framework](), keys)
    for case in cases:
        judge.check(*case)
    total = judge.seen.total()
    assert not judge.missed, f"{len(judge.missed)} of {total}: {judge.missed[:10]}"
    assert all(judge.seen[reading] for reading in judge.types), "the victim was never seen"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What frameworks say of the bodies that they do not like."""
    for name in ("django.request", "falcon", "bottle", "cherrypy"):
        caplog.set_level(logging.CRITICAL, name)
    yield
    gc.collect()  # of files that they leave open, no later test is to hear


pytestmark = pytest.mark.filterwarnings("ignore")  # what frameworks import and do


@pytest.mark.parametrize("framework", READERS)
def test_who_is_seen_as_the_victim_was_charged_for_it(framework: str) -> None:
    check(framework, "both", CASES[::5])


@pytest.mark.soak
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("framework", READERS)
def test_all_of_them_are_charged_by_one_key_and_by_both(framework: str, keys: str) -> None:
    check(framework, keys, CASES)


@pytest.mark.soak
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("framework", READERS)
def test_none_of_very_many_bodies_is_read_uncharged(framework: str, keys: str) -> None:
    check(framework, keys, random_cases(int(os.environ.get("FORMS", "5000"))))
