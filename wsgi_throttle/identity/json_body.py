"""Members of a JSON body (RFC 8259), as any application may read them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from .body import (
    MAX_FIELDS,
    MAX_LENGTH,
    UnreadableError,
    begins_as_object,
    check_charset,
    media_type,
    read_body,
)
from .normalise import normalised_values
from .numbers import canonical_float

_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252")
_has_ascii_charset = re.compile(
    rf"(?i);\s*charset\s*=\s*\"?({'|'.join(_CHARSETS)})\"?\s*(;|$)"
).search
"""Whether the charset of a content type has ASCII in it, so that a brace is a brace."""


class _Members(tuple[tuple[str, Any], ...]):  # noqa: SLOT001 - a tuple has no slots to add
    """An object of JSON: (name, value), a name that is there twice too."""


def json_values(environ: dict[str, Any], path: Sequence[str], max_bytes: int) -> list[str]:
    """The distinct values of a member of the object that the body is, normalised. Empty where there
    is no body, or the member is absent, null or blank, or the body is no object at all.

    The content type is not asked whether this is JSON, since applications need not ask it either.

    :param path: the names of the members that lead there.
    :param max_bytes: the longest body that is read.
    :raises UnreadableError: the body cannot be read; it may be JSON, and is none in UTF-8, -16 or
        -32; an object on the way has too many members; there are too many values, or one is too
        long or is itself an object or a list.
    """
    body = read_body(environ, max_bytes)
    if not body:
        return []
    if "json" not in media_type(environ) and not begins_as_object(body):
        content_type = (environ.get("CONTENT_TYPE") or "").lower()
        if "charset" in content_type and not (
            content_type.count("charset") == 1 and _has_ascii_charset(content_type)
        ):
            raise UnreadableError
        return []
    check_charset(environ)
    try:
        found = [_decode(body)]
    except (ValueError, RecursionError):
        raise UnreadableError from None
    for name in path:
        found = [value for one in found for value in _members(one, name)]
    return normalised_values(_text(value) for value in found if value is not None)


def _decode(body: bytes) -> Any:
    return json.loads(
        body,
        object_pairs_hook=_Members,
        parse_int=lambda text: "0" if text == "-0" else text,
        parse_float=_canonical_float,
        parse_constant=_canonical_float,  # Infinity is what 1e999 is
    )


def _canonical_float(text: str) -> str:
    """One text for all spellings of a number, and for the whole number that it equals: 5.0 is 5."""
    if len(text) > MAX_LENGTH:
        return text
    return canonical_float(text)


def _members(value: Any, name: str) -> list[Any]:
    """What members of this name hold. Parsers take the first or the last, if there are several."""
    if not isinstance(value, _Members):
        return []
    if len(value) > MAX_FIELDS:
        raise UnreadableError
    return [member for key, member in value if key == name]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):  # numbers were read as text
        return value
    raise UnreadableError
