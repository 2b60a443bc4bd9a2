"""Requests with a given value, for each type of key that reads it from one.

Whoever wants the key of a value has such a request read as those of clients are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias
from urllib.parse import urlencode

from .numbers import canonical_path_value
from .text import environ_name

Example: TypeAlias = tuple[dict[str, Any], Mapping[str, str]]
"""The environ, and the variables of the path."""


def header_request(argument: str, value: str) -> Example:
    """One with this header."""
    return {environ_name(argument): _to_wsgi(value)}, {}


def cookie_request(argument: str, value: str) -> Example | None:
    """One with this cookie, whose value is as browsers send it."""
    if ";" in value:  # it ends a cookie
        return None
    return {"HTTP_COOKIE": f"{argument}={_to_wsgi(value)}"}, {}


def query_request(argument: str, value: str) -> Example:
    """One with this parameter."""
    return {"QUERY_STRING": urlencode({argument: value}, errors="surrogatepass")}, {}


def form_request(argument: str, value: str) -> Example:
    """One with this field in its body."""
    body = urlencode({argument: value}, errors="surrogatepass")
    return _with_body("application/x-www-form-urlencoded", body), {}


def json_request(argument: str, value: str) -> Example:
    """One with this member in its body."""
    content: Any = value
    for name in reversed(argument.split(".")):
        content = {name: content}
    return _with_body("application/json", json.dumps(content)), {}


def path_request(argument: str, value: str) -> Example:
    """One with this variable in its path."""
    return {}, {argument: canonical_path_value(value)}


def _with_body(content_type: str, body: str) -> dict[str, Any]:
    return {
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),  # it is ASCII
        "wsgi.input": BytesIO(body.encode()),
    }


def _to_wsgi(value: str) -> str:
    return value.encode("utf-8", "surrogatepass").decode("latin-1")
