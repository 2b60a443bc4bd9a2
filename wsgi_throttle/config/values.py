"""Readers for the kinds of value that are special to this package: paths, keys, limits, times,
networks and so on."""

from __future__ import annotations

import re

from .. import limits as limit_strings
from ..hooks import Hook
from ..http.bodies import RenderBody, compile_body
from ..http.headers import HEADER_STYLES
from ..http.settings import check_origin
from ..identity import KEY_TYPES, environ_name, is_header_name
from ..identity.session import SESSION_KINDS
from ..networks import Network, Networks, parse_network, read_networks
from ..rules.model import METHODS
from ..rules.patterns import Pattern
from ..storage import SCHEMES
from ..strategies import ALIASES, STRATEGIES
from .reader import (
    ANY_TEXT,
    EXACT_TEXT,
    TEXT,
    Cursor,
    InvalidError,
    Reader,
    ReportedError,
    case_insensitive,
    choice,
    definition,
    list_of,
    list_schema,
    scalar_schema,
    text_schema,
    unshown,
)

# --- limits ---------------------------------------------------------------------------------------

_UNIT = case_insensitive(sorted(limit_strings.UNITS_MS, key=len, reverse=True))
_RATE = rf"[0-9]+\s*(/|{case_insensitive(['per'])})\s*[0-9]*\s*({_UNIT})"
_LIMITS = rf"^\s*{_RATE}(\s*[;,|]\s*{_RATE})*\s*$"

LIMIT_TEXT = Reader(TEXT.parse, definition("limit-text", text_schema(_LIMITS)))
"""The text of one or more limits. It is parsed later, because its meaning depends on strategy and
burst."""

_strategy_name = choice([*STRATEGIES, *ALIASES])


def _strategy(at: Cursor) -> str:
    name = _strategy_name(at)
    return ALIASES.get(name, name)


STRATEGY = Reader(_strategy, definition("strategy", _strategy_name.schema))


_DURATION = r"([0-9]{1,9})(?:\.([0-9]{1,3}))?\s*"
_DURATION_PATTERN = rf"^\s*{_DURATION}({'|'.join(limit_strings.UNITS_MS)})?\s*$"


def _duration_ms(at: Cursor) -> int:
    text = TEXT(at)
    match = re.fullmatch(rf"{_DURATION}([a-z]*)", text)
    unit_ms = limit_strings.UNITS_MS.get(match[3] or "s") if match else None
    if not match or unit_ms is None:
        raise InvalidError(f'"{text}" is not a time', 'write it as "0.1 s", "100 ms" or "31 days"')
    thousandths = int(match[1]) * 1000 + int((match[2] or "0").ljust(3, "0"))
    duration = thousandths * unit_ms // 1000
    if not 0 < duration <= limit_strings.MAX_WINDOW_MS:
        raise InvalidError(f'"{text}" is out of bounds', "write a time above zero")
    return duration


DURATION_MS = Reader(
    _duration_ms,
    scalar_schema(
        {
            "type": ["string", "number"],
            "exclusiveMinimum": 0,
            "pattern": _DURATION_PATTERN,
        }
    ),
)
"""A duration, in milliseconds. A number without a unit is in seconds."""


# --- names ----------------------------------------------------------------------------------------

_RESERVED = ("application", "default")
_NAME = r"[ !#-\[\]-~]{1,100}"
_NAMESPACE = r"[A-Za-z0-9_.-]{1,40}"


def _name(at: Cursor) -> str:
    text = TEXT(at)
    if not re.fullmatch(_NAME, text):
        raise InvalidError(
            f'"{text}" is not a name',
            "use up to 100 printable ASCII characters, without quotes and backslashes",
        )
    if text in _RESERVED:
        raise InvalidError(f'"{text}" is the name of the {text}_limits', "choose another")
    return text


_NAME_SCHEMA = scalar_schema(
    {
        "type": ["string", "number", "boolean"],
        "pattern": rf"^\s*{_NAME}\s*$",
        "not": {"enum": list(_RESERVED)},
    }
)
NAME = Reader(_name, _NAME_SCHEMA)
SCOPE = Reader(lambda at: f"scope={_name(at)}", _NAME_SCHEMA)
"""The name of a scope, written so that it cannot equal the scope of a single rule."""


def _namespace(at: Cursor) -> str:
    text = TEXT(at)
    if not re.fullmatch(_NAMESPACE, text):
        raise InvalidError(
            f'"{text}" is not a namespace',
            "use up to 40 letters, digits, dots, dashes and underscores",
        )
    return text


NAMESPACE = Reader(_namespace, scalar_schema({**ANY_TEXT, "pattern": rf"^\s*{_NAMESPACE}\s*$"}))


# --- which requests -------------------------------------------------------------------------------


def _paths(at: Cursor) -> tuple[Pattern, ...]:
    """The patterns of ``path``, which is one or a list. One that is wrong is reported at its own
    line and left out, so that the mistakes of all are told."""
    items = at.items()
    if not items:
        raise InvalidError("the list is empty", "name a path")
    found: list[Pattern] = []
    for item in items:
        pattern = item.attempt(lambda each: Pattern.parse(TEXT(each)), None)
        if pattern and any(
            (one.signatures, one.has_slash) == (pattern.signatures, pattern.has_slash)
            for one in found
        ):
            item.report("this path is in the rule twice: leave one out")
        elif pattern:
            found.append(pattern)
    return tuple(found)


PATHS = Reader(_paths, list_schema(text_schema(r"^\s*/")))
"""The patterns of a rule. Wrong items of the list are reported and left out."""


def _method(at: Cursor) -> str:
    text = TEXT(at).upper()
    if text not in METHODS:
        raise InvalidError(
            f'"{text}" is not a method',
            f"use {', '.join(METHODS)}; OTHER is every method that is not listed here",
        )
    return text


_methods = list_of(
    Reader(
        _method,
        scalar_schema(
            {
                "anyOf": [
                    {"enum": list(METHODS)},
                    {"type": "string", "pattern": rf"^\s*({case_insensitive(METHODS)})\s*$"},
                ]
            }
        ),
    ),
    remedy="leave methods out for all of them",
)
METHOD_NAMES = Reader(lambda at: tuple(dict.fromkeys(_methods(at))), _methods.schema)


_looks_like_words = re.compile(r"[A-Za-z][A-Za-z _-]{0,39}").fullmatch


def _headers(at: Cursor) -> tuple[tuple[str, str], ...]:
    found = []
    for name, value in at.mapping().items():
        if not is_header_name(name):
            shown = f'"{name}"' if _looks_like_words(name) else "this"
            value.report(f"{shown} is not a header name: write X-Internal")
        found.append((environ_name(name), value.attempt(TEXT, "")))
    return tuple(found)


HEADERS = Reader(
    _headers,
    {"type": "object", "minProperties": 1, "additionalProperties": ANY_TEXT},
)
"""A mapping of headers, as pairs (environ variable, value)."""


def _hook(at: Cursor) -> Hook:
    text = TEXT(at)
    if not text.startswith("python:"):
        raise InvalidError(f'"{text}" is not a function', "write python:package.module:function")
    return Hook(text.removeprefix("python:"), bool)


CONDITION_HOOK = Reader(_hook, text_schema(r"^\s*python:[^:]+:[^:]+$"))
"""A function of the application that returns true or false. It is imported."""


# --- who ------------------------------------------------------------------------------------------

KEY = list_of(
    Reader(TEXT.parse, definition("key", text_schema(rf"^\s*({'|'.join(KEY_TYPES)})(:.*)?$")))
)
"""One key, or the list of keys whose combination is counted."""


def _network(at: Cursor) -> list[Network]:
    text = TEXT(at)
    if text.startswith("file:"):
        return read_networks(at.source.folder / text.removeprefix("file:"))
    return [parse_network(text)]


def _networks(at: Cursor) -> Networks:
    found: list[Network] = []
    for item in at.items():
        found += item.attempt(_network, [])
    return Networks(found)


_NETWORK_PATTERN = r"file:|[0-9A-Fa-f:.]+(/[0-9.]+)?\s*$"

NETWORKS = Reader(_networks, list_schema(text_schema(rf"^\s*({_NETWORK_PATTERN})"), 0))


def _proxies(at: Cursor) -> tuple[str, ...]:
    def parse(item: Cursor) -> list[str]:
        text = TEXT(item)
        if text == "unix":
            return [text]
        try:
            return [str(network) for network in _network(item)]
        except ValueError as error:
            raise ValueError(f'{error}, or "unix" for a unix socket') from None

    found = [item.attempt(parse, None) for item in at.items()]
    if None in found:
        raise ReportedError
    return tuple(text for texts in found for text in texts or ())


PROXIES = Reader(_proxies, list_schema(text_schema(rf"^\s*(unix\s*$|{_NETWORK_PATTERN})"), 0))
"""Addresses and networks as text, those of files too, and ``unix``."""

SESSION_KIND = Reader(TEXT.parse, text_schema(rf"^\s*(({'|'.join(SESSION_KINDS)})\s*$|python:)"))


def _secret_keys(at: Cursor) -> tuple[str, ...]:
    found = [
        UNSET_SECRET if item.node.unset else item.attempt(EXACT_TEXT, None) for item in at.items()
    ]
    if None in found:
        raise ReportedError
    return tuple(filter(None, found))


UNSET_SECRET = "unset"  # noqa: S105 - it stands for a secret
"""Stands for a secret whose variable is not set, so that the file can be checked without it."""

SECRET_KEYS = Reader(_secret_keys, list_schema(ANY_TEXT))

LIFETIME_S = unshown(Reader(lambda at: -(-_duration_ms(at) // 1000), DURATION_MS.schema))
"""A duration, rounded up to whole seconds."""


# --- where it is counted, and what is answered ----------------------------------------------------

STORAGE_URI = Reader(
    TEXT.parse, text_schema(rf"^\s*({'|'.join(re.escape(name) for name in SCHEMES)})://")
)
"""The URI of a storage. It is opened later, because that depends on other options."""

HEADER_STYLE = choice(HEADER_STYLES)


def template_file(kind: str) -> Reader[RenderBody]:
    """A reader for the path of a template, relative to the folder of the configuration.

    :param kind: the kind of body that the template makes.
    """

    def parse(at: Cursor) -> RenderBody:
        path = at.source.folder / TEXT(at)
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InvalidError(
                f'"{path}" cannot be read: {reason}', "name a file beside the rule file"
            ) from error
        return compile_body(kind, text)

    return Reader(parse, ANY_TEXT)


def _origin(at: Cursor) -> str:
    origin = TEXT(at)
    check_origin(origin)
    return origin


ORIGINS = list_of(Reader(_origin, text_schema(r"^\s*(\*|[a-z][a-z0-9+.-]*://[^/]+)\s*$")))
