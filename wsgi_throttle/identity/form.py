"""Reads fields of a query or an urlencoded form, whose body the application can still read."""

from __future__ import annotations

import io
import re
from typing import Any
from unicodedata import normalize
from urllib.parse import parse_qsl, quote

MAX_FIELDS = 1000
"""A form or query with more fields counts as unreadable. Django has the same bound."""

MAX_VALUES = 4
"""Each distinct value of a field is charged. A field with more values counts as unreadable."""

MAX_LENGTH = 256
"""A value with more characters counts as unreadable. An e-mail address has at most 254 (RFC 5321).
The bound also keeps normalisation fast: its time grows with the square of the number of combining
marks in a row."""

_BODY = "wsgi_throttle.body"
"""The environ variable that holds a pair: the stream that replaced wsgi.input, and the body."""

_is_length = re.compile(r"[0-9]{1,18}").fullmatch
_is_utf8 = re.compile(r"(?is)[^;]*;\s*charset\s*=\s*\"?utf-?8\"?\s*(;.*)?").fullmatch


class UnreadableError(Exception):
    """A form or query that we cannot read, though the application may find values in it."""


def query_values(environ: dict[str, Any], name: str) -> list[str]:
    """The distinct values of a query parameter, without spaces around them. Empty where the
    parameter is missing or has no value.

    :raises UnreadableError: too many fields or values, or too long a value.
    """
    query = environ.get("QUERY_STRING") or ""
    if not query.isascii():  # the bare byte C3 and the text %C3 have to give the same value
        query = quote(query.encode("latin-1", "replace"), safe=bytes(range(128)))
    return _values(query, name) if query else []


def form_values(environ: dict[str, Any], name: str, max_bytes: int) -> list[str]:
    """The distinct values of a field of the form. Empty where there is no body, or where the field
    is missing or has no value.

    Values that most applications take for the same are made the same: they are normalised to NFKC
    (Unicode Standard Annex 15) and case folded, and spaces around them are removed.

    ``wsgi.input`` is replaced by a stream from which the application can read the whole body.

    :param max_bytes: a longer body counts as unreadable.
    :raises UnreadableError: the body is not an urlencoded form in UTF-8, is too long, ends early or
        with an error of the server, or has too many fields or values, or too long a value.
    """
    content_type = environ.get("CONTENT_TYPE") or ""
    if not _has_body(environ):
        return []
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise UnreadableError
    if "charset" in content_type.lower() and not (
        content_type.lower().count("charset") == 1 and _is_utf8(content_type)
    ):
        raise UnreadableError
    body = _read_once(environ, max_bytes)
    if body is None:
        raise UnreadableError
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UnreadableError from None
    values = [_normalised(value) for value in _values(text, name)]
    return list(dict.fromkeys(filter(None, values)))


def _values(text: str, name: str) -> list[str]:
    try:
        fields = parse_qsl(text, max_num_fields=MAX_FIELDS, errors="replace")
    except ValueError:
        raise UnreadableError from None
    values = list(dict.fromkeys(value.strip() for key, value in fields if key == name))
    if len(values) > MAX_VALUES or any(len(value) > MAX_LENGTH for value in values):
        raise UnreadableError
    return [value for value in values if value]


def _normalised(value: str) -> str:
    return normalize("NFKC", normalize("NFKC", value).casefold()).strip()


def _is_chunked(environ: dict[str, Any]) -> bool:
    return bool((environ.get("HTTP_TRANSFER_ENCODING") or "").strip())


def _has_body(environ: dict[str, Any]) -> bool:
    return _is_chunked(environ) or environ.get("CONTENT_LENGTH") not in (None, "", "0")


def _read_once(environ: dict[str, Any], max_bytes: int) -> bytes | None:
    """The body, which is read once for all keys of a request and kept in the environ. It is read
    again if wsgi.input has been replaced since."""
    read: tuple[object, bytes | None] | None = environ.get(_BODY)
    if read is None or read[0] is not environ["wsgi.input"]:
        body = _read(environ, max_bytes)
        read = environ[_BODY] = environ["wsgi.input"], body
    return read[1]


def _read(environ: dict[str, Any], max_bytes: int) -> bytes | None:
    """The whole body; None where it is too long, ends early or has no known end.

    It is never read beyond its end, because some servers would then wait forever (PEP 3333). A body
    whose Content-Length is too large is not read at all.
    """
    stream = environ["wsgi.input"]
    if _is_chunked(environ):
        if not environ.get("wsgi.input_terminated"):
            return None
        wanted = max_bytes + 1
        length = None
    else:
        text = environ["CONTENT_LENGTH"]
        if not _is_length(text) or int(text) > max_bytes:
            return None
        wanted = length = int(text)
    body = b""
    failure: Exception | None = None
    try:
        while len(body) < wanted and (piece := stream.read(wanted - len(body))):
            body += piece
    except Exception as error:  # noqa: BLE001 - raised again when the application reads
        failure = error
    if failure is not None or len(body) > max_bytes:
        environ["wsgi.input"] = io.BufferedReader(_Replay(body, stream, failure))
        return None
    environ["wsgi.input"] = io.BytesIO(body)
    return body if length is None or len(body) == length else None


class _Replay(io.RawIOBase):
    """A stream that first gives what was already read from another stream, and then either the rest
    of that stream or the exception that reading it raised."""

    def __init__(self, head: bytes, rest: Any, failure: Exception | None) -> None:
        self._head = head
        self._rest = rest
        self._failure = failure

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            piece, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        elif self._failure is not None:
            raise self._failure
        else:
            piece = self._rest.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
