"""Text that a client chose: header names, header values, and values written into a key."""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import quote

MAX_VALUE_LENGTH = 64
"""Characters of a value in a key; a longer value is replaced by its digest."""

is_header_name = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+").fullmatch
"""A token (RFC 9110, section 5.6.2) without ``_``: in the environ ``X_Id`` and ``X-Id`` have one
name, so servers drop the former, and a configuration is to name the latter."""

is_cookie_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
"""A token (RFC 6265, section 4.1.1)."""

_needs_no_escape = re.compile(r"[A-Za-z0-9._~@:/+=-]{1,64}").fullmatch


def environ_name(header: str) -> str:
    """The environ variable in which WSGI has a request header (PEP 3333): HTTP_X_API_KEY."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def from_wsgi(value: str) -> str:
    """The text of a header value. PEP 3333 hands over its bytes as Latin-1; where they are valid
    UTF-8, they are read as UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def escaped(value: str) -> str:
    """The value as at most 64 characters of printable ASCII without space, comma, braces or quotes.

    Different values give different texts: ``%`` occurs only in a percent-encoded byte, and ``#``
    only in front of the digest that replaces a long value.
    """
    if _needs_no_escape(value):
        return value
    raw = value.encode("utf-8", "surrogatepass")
    text = quote(raw, safe="._~@:/+=-")
    return text if len(text) <= MAX_VALUE_LENGTH else digest(raw)


def escaped_name(name: str) -> str:
    """The same for the name in ``type:name:value``, whose end is its colon: it has none itself."""
    return escaped(name).replace(":", "%3A")


def digest(raw: bytes) -> str:
    """``#`` and 128 bits of BLAKE2b in hexadecimal, for a value that is long or secret."""
    return "#" + blake2b(raw, digest_size=16).hexdigest()
