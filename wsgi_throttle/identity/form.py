"""Fields of an urlencoded form or query, read without taking the body from the application."""

from __future__ import annotations

import io
import re
from typing import Any
from unicodedata import normalize
from urllib.parse import parse_qsl, quote

MAX_FIELDS = 1000
"""Fields of a form or query; Django's limit, too."""

MAX_VALUES = 4
"""Distinct values of one field: each is charged."""

MAX_LENGTH = 256
"""Characters of a value; an e-mail address has 254 at most. It also bounds the normalisation, whose
time grows with the square of a run of combining marks."""

_BODY = "wsgi_throttle.body"

_is_length = re.compile(r"[0-9]{1,18}").fullmatch
_is_utf8 = re.compile(r"(?is)[^;]*;\s*charset\s*=\s*\"?utf-?8\"?\s*(;.*)?").fullmatch


class UnreadableError(Exception):
    """A form or query in which the application may find what is not found here."""


def query_values(environ: dict[str, Any], name: str) -> list[str]:
    """The distinct values of a query parameter; empty where it is absent or has none.

    :raises UnreadableError: too many fields or values.
    """
    query = environ.get("QUERY_STRING") or ""
    if not query.isascii():  # a byte that came bare is the byte that came as %C3
        query = quote(query.encode("latin-1", "replace"), safe=bytes(range(128)))
    return _values(query, name) if query else []


def form_values(environ: dict[str, Any], name: str, max_bytes: int) -> list[str]:
    """The distinct values of a form's field, normalised so that spellings that most applications
    take for one are one: NFKC, case folded, trimmed. Empty where the field is absent or has none.

    ``wsgi.input`` is replaced by a stream that gives the application all that was read.

    :raises UnreadableError: the body is no urlencoded form in UTF-8, too long, cut off, or has too
        many fields or values.
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
    """Several keys of one request share one reading, while the stream is the one it left."""
    read: tuple[object, bytes | None] | None = environ.get(_BODY)
    if read is None or read[0] is not environ["wsgi.input"]:
        body = _read(environ, max_bytes)
        read = environ[_BODY] = environ["wsgi.input"], body
    return read[1]


def _read(environ: dict[str, Any], max_bytes: int) -> bytes | None:
    """The whole body, or None where it is longer, cut off or of unknown length. Never reads beyond
    the body's end (PEP 3333), and nothing of a body that says it is too long."""
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
    except Exception as error:  # noqa: BLE001 - the server's own, which the application must meet
        failure = error
    if failure is not None or len(body) > max_bytes:
        environ["wsgi.input"] = io.BufferedReader(_Replay(body, stream, failure))
        return None
    environ["wsgi.input"] = io.BytesIO(body)
    return body if length is None or len(body) == length else None


class _Replay(io.RawIOBase):
    """What was read of a stream, then what reading it raised or the rest of it."""

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
