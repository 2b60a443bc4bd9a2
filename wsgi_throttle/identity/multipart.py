"""Fields of a multipart/form-data body (RFC 7578), where all parsers find the same ones.

Parsers differ in what they forgive: another line end, a boundary that goes on, a header twice, a
name that is encoded. Whatever one of them may read in another way is unreadable here, which is why
this is no general parser: browsers and HTTP libraries send nothing of the kind.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from .body import MAX_FIELDS, UnreadableError

_CHARSET = r"(?:;[ \t]*charset=\"?utf-?8\"?[ \t]*)?"
_content_type = re.compile(
    rf"(?i)multipart/form-data[ \t]*{_CHARSET};[ \t]*boundary="
    rf"(?:([0-9a-z'+_.-]{{1,70}})|\"([0-9a-z'+_.=/-]{{1,70}})\")[ \t]*{_CHARSET}"
).fullmatch
_header = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)").fullmatch
# A semicolon in quotes may have no "=" after it, which would look like one more parameter.
_QUOTED = r"\"([^\"\\;]*(?:;[^\"\\;=]*)*)\""
_PARAMETER = rf";[ \t]*([A-Za-z]+\*?)=(?:{_QUOTED}|([!#$%&'*+.^_`|~0-9A-Za-z-]+))[ \t]*"
_disposition = re.compile(rf"(?i)form-data[ \t]*((?:{_PARAMETER})+)").fullmatch
_parameters = re.compile(_PARAMETER).findall
_is_text = re.compile(r"(?i)text/plain[ \t]*(?:;[ \t]*charset=\"?utf-?8\"?[ \t]*)?").fullmatch


def multipart_values(content_type: str, body: bytes, name: str) -> list[str]:
    """All values of this field, of a part with a file name too.

    :raises UnreadableError: the body is not in the plainest form, or has too many parts.
    """
    found = _content_type(content_type)
    if not found:
        raise UnreadableError
    values = []
    for part in _parts(body, (found[1] or found[2]).encode()):
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            raise UnreadableError
        headers = _headers(head)
        if headers.get("content-length", str(len(content))) != str(len(content)):
            raise UnreadableError
        field = _field_name(headers)
        if field == name:
            values.append(_text(headers, content))
        elif field == "_charset_" and content.lower() not in (b"utf-8", b"utf8"):
            raise UnreadableError  # it names the charset of all fields (HTML, form submission)
        elif name in (field.strip(), unquote(field).strip()) or "=?" in field:
            raise UnreadableError
    return values


def _parts(body: bytes, boundary: bytes) -> list[bytes]:
    """What stands between the boundaries, each of which is a line of its own."""
    before, *parts = body.split(b"--" + boundary)
    if before not in (b"", b"\r\n") or not parts or len(parts) > MAX_FIELDS:
        raise UnreadableError
    if parts.pop() not in (b"--", b"--\r\n"):  # the last boundary, and nothing behind it
        raise UnreadableError
    for part in parts:
        if not (part.startswith(b"\r\n") and part.endswith(b"\r\n") and len(part) > 4):
            raise UnreadableError
    return [part[2:-2] for part in parts]


def _headers(head: bytes) -> dict[str, str]:
    """The headers of a part, by their names in lower case."""
    headers: dict[str, str] = {}
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise UnreadableError from None
    for line in lines:
        found = _header(line)
        if not found or found[1].lower() in headers:
            raise UnreadableError
        headers[found[1].lower()] = found[2].strip(" \t")
    if headers.get("content-transfer-encoding", "binary").lower() not in ("7bit", "8bit", "binary"):
        raise UnreadableError
    if headers.get("content-type", "").lower().startswith("multipart"):
        raise UnreadableError
    return headers


def _field_name(headers: dict[str, str]) -> str:
    found = _disposition(headers.get("content-disposition", ""))
    if not found:
        raise UnreadableError
    parameters: dict[str, str] = {}
    for key, quoted, bare in _parameters(found[1]):
        if key.lower() in parameters or key.lower() == "name*":
            raise UnreadableError
        if ";" in quoted and key.lower() != "filename":  # people name files so, and nobody a field
            raise UnreadableError
        parameters[key.lower()] = quoted or bare
    if "name" not in parameters:
        raise UnreadableError
    return parameters["name"]


def _text(headers: dict[str, str], content: bytes) -> str:
    if not _is_text(headers.get("content-type", "text/plain")):
        raise UnreadableError
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UnreadableError from None
