"""Values that a client chose, written so that they can be part of a key."""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import quote

LONGEST = 64
"""Characters of a value in a key; a longer one is replaced by its digest."""

_plain = re.compile(r"[A-Za-z0-9._~@:/+=-]{1,64}").fullmatch


def escaped(value: str) -> str:
    """The value as printable ASCII without space, comma, braces or quotes; ``%`` only begins an
    escape and ``#`` a digest, so that no two values look alike."""
    if _plain(value):
        return value
    raw = value.encode("utf-8", "surrogatepass")
    text = quote(raw, safe="._~@:/+=-")
    return text if len(text) <= LONGEST else digest(raw)


def digest(raw: bytes) -> str:
    """``#`` and 128 bits of BLAKE2b: for what is too long, and for what should not be read."""
    return "#" + blake2b(raw, digest_size=16).hexdigest()


def escaped_name(name: str) -> str:
    """The same for a name that stands before a value: it has no colon, which ends it."""
    return escaped(name).replace(":", "%3A")


def from_wsgi(value: str) -> str:
    """The text of a header, whose bytes PEP 3333 hands over as latin-1: UTF-8 where they are."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
