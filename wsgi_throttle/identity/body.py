"""The body of a request: read once, for all keys, and still there for the application."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

MAX_FIELDS = 1000
"""A form or query with more fields, or a JSON object with more members, counts as unreadable.
Django has the same bound for forms."""

MAX_VALUES = 4
"""Each distinct value of a field is charged. A field with more values counts as unreadable."""

MAX_LENGTH = 256
"""A value with more characters counts as unreadable. An e-mail address has at most 254 (RFC 5321).
The bound also keeps normalisation fast: its time grows with the square of the number of combining
marks in a row."""

begins_as_object = re.compile(rb"[^!-~]*\{").match
"""Whether a body may be an object of JSON: its first visible character is a brace, in any of the
encodings of JSON."""

_BODY = "wsgi_throttle.body"
"""The environ variable that holds a pair: the stream that replaced wsgi.input, and the body."""

_is_length = re.compile(r"[0-9]{1,18}").fullmatch
_is_utf8 = re.compile(r"(?i);\s*charset\s*=\s*\"?utf-?8\"?\s*(;|$)").search


class UnreadableError(Exception):
    """A body or query that we cannot read, though the application may find values in it."""


def media_type(environ: dict[str, Any]) -> str:
    """The type of the body in lower case, without parameters; empty where none is given."""
    content_type: str = environ.get("CONTENT_TYPE") or ""
    return content_type.partition(";")[0].strip().lower()


def check_charset(environ: dict[str, Any]) -> None:
    """
    :raises UnreadableError: the content type names another charset than UTF-8, or several.
    """
    content_type = environ.get("CONTENT_TYPE") or ""
    named = content_type.lower().count("charset")
    if named and not (named == 1 and _is_utf8(content_type)):
        raise UnreadableError


def read_body(environ: dict[str, Any], max_bytes: int) -> bytes:
    """The whole body; empty where there is none.

    It is read once for all keys of a request and kept in the environ. It is read again if
    wsgi.input has been replaced since. ``wsgi.input`` is replaced by a stream from which the
    application can read the whole body.

    :param max_bytes: a longer body counts as unreadable.
    :raises UnreadableError: it is too long or compressed, ends early or with an error of the
        server, or has no known end.
    """
    if not _may_have_body(environ):
        return b""
    read: tuple[object, bytes | None] | None = environ.get(_BODY)
    if read is None or read[0] is not environ["wsgi.input"]:
        body = _read(environ, max_bytes)
        read = environ[_BODY] = environ["wsgi.input"], body
    body = read[1]
    coding = (environ.get("HTTP_CONTENT_ENCODING") or "").strip().lower()
    if body is None or (body and coding not in ("", "identity")):
        raise UnreadableError
    return body


def bounded(values: Iterable[str]) -> list[str]:
    """The distinct values, without surrounding spaces and without empty ones.

    :raises UnreadableError: there are too many, or one is too long.
    """
    found = dict.fromkeys(value.strip() for value in values)
    if len(found) > MAX_VALUES or any(len(value) > MAX_LENGTH for value in found):
        raise UnreadableError
    return [value for value in found if value]


def _is_chunked(environ: dict[str, Any]) -> bool:
    return bool((environ.get("HTTP_TRANSFER_ENCODING") or "").strip())


def _may_have_body(environ: dict[str, Any]) -> bool:
    length = environ.get("CONTENT_LENGTH")
    if length in (None, ""):
        # A stream that the server ends may hold a body of no announced length, as in HTTP/2.
        return _is_chunked(environ) or bool(environ.get("wsgi.input_terminated"))
    return length != "0" or _is_chunked(environ)


def _read(environ: dict[str, Any], max_bytes: int) -> bytes | None:
    """The whole body; None where it is too long, ends early or has no known end.

    It is never read beyond its end, because some servers would then wait forever (PEP 3333). A body
    whose Content-Length is too large is not read at all.
    """
    stream = environ["wsgi.input"]
    text = environ.get("CONTENT_LENGTH")
    if _is_chunked(environ) or not text:
        if not environ.get("wsgi.input_terminated"):
            return None
        wanted = max_bytes + 1
        length = None
    else:
        if not _is_length(text) or int(text) > max_bytes:
            return None
        wanted = length = int(text)
    pieces: list[bytes] = []
    left = wanted
    failure: Exception | None = None
    try:
        while left > 0 and (piece := stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except Exception as error:  # noqa: BLE001 - raised again when the application reads
        failure = error
    body = b"".join(pieces)
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
