"""Whatever spelling of a path reaches a view, the rule of that view is charged.

Each path is given to a real router. The view that runs says which rule should have been charged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import BytesIO
from random import Random
from typing import Any

import pytest

from routers import OTHER_NUMBERS, PATHS, RAN, SITES
from wsgi_throttle import Throttle
from wsgi_throttle.middleware import DECISION

EXAMPLES = [
    *("/login", "/report/", "/users/5/edit", "/items/5", "/files/a/raw"),
    "/orders/6ba7b810-9dad-11d1-80b4-00c04fd430c8",
]
"""A path for each view, in the order of PATHS."""

PIECES = [
    *("/", "//", "/.", "/./", "/..", "/../", "/x/../", ".", "..", "\\", ";x", "%2F", "%0A"),
    *("\n", "\r\n", "\n\n", " ", "  ", "\t", "\v", "\f", "\0", "\x1c", "\x1f", "\x7f", "x", "5"),
    *("\x85", "\xa0", "\xff", "\x80", "\xc3", "\xf0\x9f", "\xed\xa0\x80", "\xc0\xaf", "\xff\xfe"),
    *(text.encode().decode("latin-1") for text in "\x85\xa0\u00ad\u1680\u2003\u2028\u200b\u3000"),
    *("+", "-", "_", "0", "00", "{", "}", "urn:uuid:"),
    *(text.encode().decode("latin-1") for text in "\ufeff\ufffdü\u0665\U0001f600"),
]
"""Pieces of a path that routers read differently, as they stand in PATH_INFO."""

ALL = 65_000


def spellings(count: int) -> Iterator[str]:
    """So many spellings, the same in each run.

    First come paths with one byte inserted, each byte at each position (or an even choice of
    these), then paths with several of PIECES inserted.
    """
    random = Random(0)
    single = [
        path[:place] + chr(byte) + path[place:]
        for path in EXAMPLES
        for place in range(len(path) + 1)
        for byte in range(256)
    ]
    yield from EXAMPLES
    singles = len(single) * count // ALL
    yield from random.sample(single, singles)
    for _ in range(count - singles - len(EXAMPLES)):
        path = random.choice(EXAMPLES)
        for _ in range(random.randint(1, 4)):
            # Mostly at the end and beside slashes.
            places = [len(path)] * 4 + [place for place in range(len(path)) if path[place] == "/"]
            place = random.choice([*places, random.randint(0, len(path))])
            path = path[:place] + random.choice(PIECES) + path[place:]
        yield path


def check(site: str, count: int) -> None:
    """
    :raises AssertionError: a view ran and its rule was not charged.
    """
    paths = {**PATHS, **({"item": OTHER_NUMBERS[site]} if site in OTHER_NUMBERS else {})}
    rules = [
        {"name": name, "path": path, "limits": "1000000000 per hour"}
        for name, path in paths.items()
    ]
    throttle = Throttle(SITES[site](), {"storage": "memory://", "rules": rules})
    reached: set[tuple[str, str]] = set()
    missed: list[tuple[str, str]] = []
    for path in spellings(count):
        ran: list[str] = []
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            RAN: ran,
        }
        answer = throttle(environ, lambda status, headers, exc_info=None: lambda data: None)
        if hasattr(answer, "close"):
            answer.close()
        reached.update((name, path) for name in ran)
        decision = environ.get(DECISION)  # None if no rule matched
        charged = {charge.policy for charge in decision.charges} if decision else set()
        missed += [(name, path) for name in ran if name not in charged]
    assert not missed, f"{len(missed)} of {len(reached)} were not charged: {missed[:20]}"
    assert {name for name, _ in reached} == {*PATHS}
    assert len(reached) > 2 * len(EXAMPLES), "too few spellings reach a view to show anything"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the frameworks from logging the paths that they do not know."""
    for name in ("django.request", "falcon", "bottle"):
        caplog.set_level(logging.CRITICAL, name)


@pytest.mark.parametrize("site", SITES)
def test_a_spelling_that_reaches_a_view_is_charged_by_its_rule(site: str) -> None:
    check(site, 1500)


@pytest.mark.soak
@pytest.mark.parametrize("site", SITES)
def test_none_of_very_many_spellings_reaches_a_view_uncharged(site: str) -> None:
    check(site, ALL)
