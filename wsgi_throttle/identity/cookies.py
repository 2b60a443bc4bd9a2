"""One cookie of a request, with the value that the application finds in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeAlias

from werkzeug.wrappers import Request

CookieReader: TypeAlias = Callable[[dict[str, Any]], str | None]
"""From the environ of a request to the value of a cookie; None, or empty, where there is none."""


def cookie_reader(name: str) -> CookieReader:
    """Read a cookie as Werkzeug and Flask do: the first one of this name counts."""

    def parse(environ: dict[str, Any]) -> str | None:
        return Request(environ, populate_request=False).cookies.get(name)

    return _reader(name, iter, parse)


def django_cookie_reader(name: str) -> CookieReader:
    """Read a cookie as Django does: the last one of this name counts."""
    parse_cookie = import_module("django.http.cookie").parse_cookie  # only for who has Django

    def parse(environ: dict[str, Any]) -> str | None:
        header = environ["HTTP_COOKIE"].encode("latin-1", "replace").decode(errors="replace")
        value: str | None = parse_cookie(header).get(name)
        return value

    return _reader(name, reversed, parse)


def _reader(
    name: str,
    in_order: Callable[[list[str]], Iterable[str]],
    parse: Callable[[dict[str, Any]], str | None],
) -> CookieReader:
    """Read cookies that are written as browsers write them, which all parsers read alike, by the
    fast loop here. All others, which only programs send, are left to the parser of the application:
    a spelling that it reads and we do not would be a way round a limit.

    :param in_order: which of several cookies of one name counts: ``iter`` for the first,
        ``reversed`` for the last.
    :param parse: reads the cookie as the application does.
    """

    def read(environ: dict[str, Any]) -> str | None:
        header = environ.get("HTTP_COOKIE")
        if not header or name not in header:
            return None
        if '"' in header or not header.isascii():
            return parse(environ)
        for cookie in in_order(header.split(";")):
            if name in cookie:
                key, equals, value = cookie.partition("=")
                if key.strip() == name:
                    words = cookie.split()
                    is_usual = len(words) == 1 and cookie in (words[0], f" {words[0]}")
                    return value if is_usual and equals else parse(environ)
        return None

    return read
