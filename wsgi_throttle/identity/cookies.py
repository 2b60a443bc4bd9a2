"""Reads one cookie of a request, and finds the same value in it as the application does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from werkzeug.wrappers import Request

CookieReader: TypeAlias = Callable[[dict[str, Any]], str | None]
"""Function of the environ that returns the value of a cookie; None or empty where there is none."""


def cookie_reader(name: str) -> CookieReader:
    """Make a reader that works as Werkzeug and Flask do: of several cookies of this name the first
    counts."""

    def parse(environ: dict[str, Any]) -> str | None:
        header = _remove_gaps("=", environ["HTTP_COOKIE"])
        return Request({"HTTP_COOKIE": header}, populate_request=False).cookies.get(name)

    return _reader(name, iter, parse)


_remove_gaps = re.compile(r"=[ \t]{32,}").sub
"""Removes long runs of spaces and tabs in front of a value. Werkzeug ignores them too, except in
quotes, but its regular expression backtracks over them: ten thousand spaces take it seconds."""


def django_cookie_reader(name: str) -> CookieReader:
    """Make a reader that works as Django does: of several cookies of this name the last counts."""

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
    """Remove quotes and escapes from a value, with the result of ``http.cookies``, which Django
    uses.

    This takes one pass. In Python before 3.11.10 and 3.12.6, ``http.cookies`` takes seconds for a
    few thousand backslashes (CVE-2024-7592).
    """
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _unescape(lambda escape: chr(int(escape[1], 8)) if escape[1] else escape[2], value[1:-1])


def _reader(
    name: str,
    in_order: Callable[[list[str]], Iterable[str]],
    parse: Callable[[dict[str, Any]], str | None],
) -> CookieReader:
    """Make a reader with a fast loop for cookies as browsers write them, which all parsers read
    alike.

    Any other spelling is left to the application's own parser. If the application could read a
    cookie that we cannot, that would be a way around a limit.

    :param in_order: ``iter`` where the first of several cookies of one name counts, ``reversed``
        where the last does.
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
