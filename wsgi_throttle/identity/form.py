"""Reads fields of a query or a form, in every way in which an application may read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote

from .body import (
    MAX_FIELDS,
    UnreadableError,
    begins_as_object,
    bounded,
    check_charset,
    media_type,
    read_body,
)
from .multipart import multipart_values
from .normalise import normalised_values

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def query_values(environ: dict[str, Any], name: str) -> list[str]:
    """The distinct values of a query parameter, without spaces around them. Empty where the
    parameter is missing or has no value.

    :raises UnreadableError: too many fields or values, or too long a value.
    """
    query = environ.get("QUERY_STRING") or ""
    if not query.isascii():  # the bare byte C3 and the text %C3 have to give the same value
        query = quote(query.encode("latin-1", "replace"), safe=bytes(range(128)))
    return bounded(_urlencoded(query, name)) if query else []


def form_values(
    environ: dict[str, Any], name: str, max_bytes: int, *, is_json_counted: bool = False
) -> list[str]:
    """The distinct values of a field of the form, normalised. Empty where there is no body, or the
    field is missing or has no value.

    :param max_bytes: a longer body counts as unreadable.
    :param is_json_counted: another limit of the same rule counts by JSON, so that a JSON body is
        read here only for an application that takes it for a form.
    :raises UnreadableError: the body cannot be read or is no form in UTF-8, or has too many fields
        or values, or too long a value.
    """
    body = read_body(environ, max_bytes)
    if not body:
        return []
    check_charset(environ)
    kind = media_type(environ)
    if begins_as_object(body) and not is_json_counted:
        raise UnreadableError  # an application that reads JSON need not ask for its type
    if kind == URLENCODED:
        try:
            values = _urlencoded(body.decode(), name)
        except UnicodeDecodeError:
            raise UnreadableError from None
    elif kind == MULTIPART:
        values = multipart_values(environ["CONTENT_TYPE"], body, name) + _hidden(body, name)
    elif "json" in kind and is_json_counted and not kind.startswith("multipart/"):
        values = _hidden(body, name)
    else:
        raise UnreadableError
    return normalised_values(values)


def _urlencoded(text: str, name: str) -> list[str]:
    """All values of this field that an application may find."""
    return [value for reading in _readings(text) for value in _values(reading, name)]


def _hidden(body: bytes, name: str) -> list[str]:
    """The same in a body of another type, which some applications read as a form all the same."""
    return [
        value
        for reading in _readings(body.decode(errors="replace"))
        for value in _values(
            "&".join(field for field in reading.split("&") if _may_have_name(field, name)), name
        )
    ]


def _may_have_name(field: str, name: str) -> bool:
    written = field.partition("=")[0]
    return written == name or "%" in written or "+" in written


def _readings(text: str) -> Iterator[str]:
    """The same fields with ``&`` between them: browsers write nothing else, but some applications
    end a field at a ``;`` too (HTML 4, appendix B.2.2)."""
    yield text
    if ";" in text:
        yield text.replace(";", "&")


def _values(text: str, name: str) -> list[str]:
    try:
        fields = parse_qsl(text, max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError:
        raise UnreadableError from None
    return [value for key, value in fields if key == name]
