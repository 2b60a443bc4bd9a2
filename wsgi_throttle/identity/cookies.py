"""One cookie of a request, as the application reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeAlias

from werkzeug.wrappers import Request

CookieReader: TypeAlias = Callable[[dict[str, Any]], str | None]


def cookie_reader(name: str) -> CookieReader:
    """Read a cookie as Werkzeug and Flask do: the first of the name."""

    def parse(environ: dict[str, Any]) -> str | None:
        return Request(environ, populate_request=False).cookies.get(name)

    return _reader(name, iter, parse)


def django_cookie_reader(name: str) -> CookieReader:
    """Read a cookie as Django does: the last of the name."""
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
    """A cookie as browsers write it is read here, alike by all parsers and fast. Any other, which
    only a program sends, goes to the application's own: a spelling that it understands and we do
    not would be a way past the limit."""

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
                    plain = len(words) == 1 and cookie in (words[0], f" {words[0]}")
                    return value if plain and equals else parse(environ)
        return None

    return read
