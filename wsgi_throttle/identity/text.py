"""Names and values of headers and cookies, and how a value is written into a key."""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import quote

MAX_VALUE_LENGTH = 64
"""A value whose escaped text has more characters is replaced by its digest in a key."""

is_header_name = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+").fullmatch
"""A token (RFC 9110, section 5.6.2) without ``_``. WSGI gives the headers ``X_Id`` and ``X-Id`` the
same variable, so servers drop the first, and the configuration has to name the second."""

is_cookie_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
"""A token (RFC 6265, section 4.1.1)."""

_needs_no_escape = re.compile(r"[A-Za-z0-9._~@:/+=-]{1,64}").fullmatch


def environ_name(header: str) -> str:
    """The environ variable of a request header (PEP 3333): ``HTTP_X_API_KEY`` of ``X-API-Key``."""
    name = header.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def from_wsgi(value: str) -> str:
    """The text of a header value, which PEP 3333 hands over as bytes decoded as Latin-1. It is read
    as UTF-8 where the bytes are valid UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def escaped(value: str) -> str:
    """The value as at most 64 printable ASCII characters without space, comma, braces and quotes.

    Different values have different texts: ``%`` occurs only in percent-encoded bytes, and ``#``
    only at the beginning of a digest, which replaces a long value.
    """
    if _needs_no_escape(value):
        return value
    raw = value.encode("utf-8", "surrogatepass")
    text = quote(raw, safe="._~@:/+=-")
    return text if len(text) <= MAX_VALUE_LENGTH else digest(raw)


def escaped_name(name: str) -> str:
    """The same for the name in ``type:name:value``, without a colon, because a colon ends it."""
    return escaped(name).replace(":", "%3A")


def digest(raw: bytes) -> str:
    """Stands for a value that is long or secret: ``#`` and its BLAKE2b hash of 128 bits in
    hexadecimal."""
    return "#" + blake2b(raw, digest_size=16).hexdigest()
