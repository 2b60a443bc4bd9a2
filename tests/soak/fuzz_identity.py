"""Sends random requests to everything that parses what a client sends.

    python tests/soak/fuzz_identity.py [seconds] [seed]

Inputs are made of pieces that the parsers look for. Of each input it is checked that

- nothing raises, and nothing takes a second of the processor,
- a key is printable and of bounded length,
- an address is one of the header, or the proxy's,
- a cookie is read as Werkzeug reads it, and makes nobody a user,
- the application gets the body unchanged.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from random import Random
from typing import Any

from werkzeug.wrappers import Request

from wsgi_throttle.identity import ClientIP, Identity, Session, key_function
from wsgi_throttle.identity.cookies import cookie_reader

SLOW_S = 1.0
BATCH = 200

ADDRESSES = [
    "192.0.2.1",
    "10.0.0.9",
    "2001:db8::1",
    "[2001:db8::1]:80",
    "::ffff:192.0.2.7",
    "1.2.3.4:5",
]
LIST = [
    *ADDRESSES,
    ",",
    ", ",
    " ",
    "\t",
    "unknown",
    "_x",
    "[",
    "]",
    ":",
    "%",
    "unix:",
    "\x00",
    "\xff",
]
FORWARDED = [*LIST, "for=", "For=", ";", '"', "\\", "=", "by=", "proto=https", 'for="', 'host="']
COOKIE = [
    "session",
    "=",
    ";",
    "; ",
    " ",
    "\t",
    '"',
    "\\",
    ",",
    "a=b",
    "\x1c",
    "\xa0",
    "\xc3\xa9",
    "x",
    ".",
]
FORM = [
    "email",
    "=",
    "&",
    ";",
    "%",
    "%40",
    "%C3%A9",
    "+",
    "a",
    "@",
    "\xcc\x81",
    "\xff",
    "%00",
    "%u",
    "B",
]

SAFE = re.compile(r"[A-Za-z0-9._~@:/+=%#?,-]{1,220}").fullmatch


def pieced(random: Random, pieces: list[str]) -> str:
    text = "".join(random.choices(pieces, k=random.randint(0, 12)))
    if random.random() < 0.002:
        text *= random.randint(100, 5000)
    return text


class Fuzz:
    def __init__(self) -> None:
        self.random = Random()
        session = Session("flask", ("the application's own key",))
        proxies = ("10.0.0.0/8", "unix")
        listed = Identity(ClientIP(proxies), session)
        forwarded = Identity(ClientIP(proxies, header="Forwarded"))
        self.by_list = key_function("ip", listed)
        self.by_forwarded = key_function("ip", forwarded)
        self.by_user = key_function("session-user", listed)
        self.by_query = key_function(["query:email", "header:X-API-Key"], listed)
        self.by_form = key_function("form:email", Identity(form_max_bytes=1000))
        self.read_cookie = cookie_reader("session")

    def x_forwarded_for(self) -> None:
        text = pieced(self.random, LIST)
        self.address(self.by_list, "HTTP_X_FORWARDED_FOR", text)

    def forwarded(self) -> None:
        text = pieced(self.random, FORWARDED)
        self.address(self.by_forwarded, "HTTP_FORWARDED", text)

    def address(self, find: Callable[..., Any], name: str, text: str) -> None:
        environ = {"REMOTE_ADDR": "10.0.0.1", name: text}
        key = find(environ, {})
        assert SAFE(key), key
        address = key.removeprefix("ip:").partition("/")[0]
        ip_address(address)
        bare = re.sub(r"[\\\"]", "", text)
        assert address == "10.0.0.1" or address.rstrip(":") in bare, (text, key)

    def cookie(self) -> None:
        environ = {"REMOTE_ADDR": "192.0.2.1", "HTTP_COOKIE": pieced(self.random, COOKIE)}
        assert (self.read_cookie(environ) or "") == Request(environ).cookies.get("session", "")
        assert self.by_user(environ, {}) == "ip:192.0.2.1"

    def query(self) -> None:
        found = self.by_query(
            {
                "REMOTE_ADDR": "192.0.2.1",
                "QUERY_STRING": pieced(self.random, FORM),
                "HTTP_X_API_KEY": pieced(self.random, FORWARDED),
            },
            {},
        )
        for key in found if isinstance(found, tuple) else (found,):
            assert SAFE(key), key
            assert key.startswith(("query:email:", "-,"))

    def form(self) -> None:
        body = pieced(self.random, FORM).encode("latin-1")
        environ: dict[str, Any] = {
            "REMOTE_ADDR": "192.0.2.1",
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "wsgi.input": io.BytesIO(body),
        }
        if self.random.random() < 0.5:
            environ["CONTENT_LENGTH"] = str(len(body))
        else:
            environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
        found = self.by_form(environ, {})
        for key in found if isinstance(found, tuple) else (found,):
            assert SAFE(key), key
            assert key.startswith("form:email:") or key == "ip:192.0.2.1"
        assert environ["wsgi.input"].read() == body


def run(seconds: float, seed: int = 1) -> int:
    """Fuzz for so long, and return the number of inputs. A failure says how to repeat it."""
    fuzz = Fuzz()
    kinds = [fuzz.x_forwarded_for, fuzz.forwarded, fuzz.cookie, fuzz.query, fuzz.form]
    clock = (
        time.thread_time
    )  # time of the processor, so that a busy machine does not look like a slow parser
    end = time.perf_counter() + seconds
    inputs, slowest, where = 0, 0.0, ""
    while time.perf_counter() < end:
        for kind in kinds:
            fuzz.random.seed(f"{seed}/{inputs}")
            for _ in range(BATCH):
                started = clock()
                try:
                    kind()
                except BaseException as error:
                    error.args += (f"{kind.__name__}, random.seed('{seed}/{inputs}')",)
                    raise
                took = clock() - started
                if took > slowest:
                    slowest, where = took, f"{kind.__name__}, random.seed('{seed}/{inputs}')"
            inputs += BATCH
    print(f"{inputs:,} inputs, seed {seed}; the slowest took {slowest:.4f} s ({where})")
    assert slowest < SLOW_S, where
    return inputs


if __name__ == "__main__":
    run(*map(int, sys.argv[1:] or ["60"]))
