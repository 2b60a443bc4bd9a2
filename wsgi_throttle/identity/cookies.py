"""One cookie of a request, as the application reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from werkzeug.wrappers import Request

CookieReader: TypeAlias = Callable[[dict[str, Any]], str | None]


def cookie_reader(name: str) -> CookieReader:
    """Read a cookie as Werkzeug and Flask do: the first of the name."""

    def parse(environ: dict[str, Any]) -> str | None:
        header = _without_gaps("=", environ["HTTP_COOKIE"])
        return Request({"HTTP_COOKIE": header}, populate_request=False).cookies.get(name)

    return _reader(name, iter, parse)


_without_gaps = re.compile(r"=[ \t]{32,}").sub
"""Werkzeug takes seconds for some ten thousand spaces before a value, since it tries every way of
dividing them in two. They mean nothing to it, except inside quotes."""


def django_cookie_reader(name: str) -> CookieReader:
    """Read a cookie as Django does: the last of the name."""

    def parse(environ: dict[str, Any]) -> str | None:
        header: str = environ["HTTP_COOKIE"].encode("latin-1", "replace").decode(errors="replace")
        for cookie in reversed(header.split(";")):
            key, equals, value = cookie.partition("=")
            if equals and key.strip() == name:
                return _unquoted(value.strip())
        return None

    return _reader(name, reversed, parse)


_unescape = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))").sub


def _unquoted(value: str) -> str:
    """As ``http.cookies`` unquotes, which Django uses, but in one pass: that of Python before
    3.11.10 and 3.12.6 takes seconds for some thousand backslashes (CVE-2024-7592)."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _unescape(lambda escape: chr(int(escape[1], 8)) if escape[1] else escape[2], value[1:-1])


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
