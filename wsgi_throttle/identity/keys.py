"""Whose counter a request is charged to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias
from unicodedata import decimal

from ..hooks import Hook
from ..networks import Address
from .address import ClientIP, Clients, environ_name, is_token
from .cookies import cookie_reader
from .form import UnreadableError, form_values, query_values
from .session import Session, hook_text, place_reader, user_reader, user_text
from .text import digest, escaped, escaped_name, from_wsgi

Environ: TypeAlias = dict[str, Any]
PathArgs: TypeAlias = Mapping[str, str]
"""Name -> canonical value of the variables of a path."""
Key: TypeAlias = str | tuple[str, ...]
"""``type:value``; where a request has several, each is charged."""
KeyFunction: TypeAlias = Callable[[Environ, PathArgs], Key]
Lookup: TypeAlias = Callable[[Environ, PathArgs], Key | None]
"""A key function that says None where the request has no such thing."""


@dataclass(frozen=True)
class Identity:
    """All settings on who the client is. What is learned of clients is kept with it, so one
    object serves all rules of a configuration."""

    client_ip: ClientIP = field(default_factory=ClientIP)
    session: Session | None = None
    form_max_bytes: int = 65536
    """The longest body that a ``form:`` key reads."""

    def __post_init__(self) -> None:
        if self.form_max_bytes < 1:
            raise ValueError(f"form_max_bytes is {self.form_max_bytes}: it must be at least 1")

    @cached_property
    def clients(self) -> Clients:
        """Finds the address of each request's client."""
        return Clients(self.client_ip)

    @cached_property
    def read_user(self) -> Callable[[Environ], str | None]:
        """Finds the user of each request.

        :raises ValueError: no session is configured, or its hook cannot be loaded.
        """
        if self.session is None:
            raise ValueError(
                "session-user needs to know the session: write session: {kind: flask, "
                "secret_key: ${SECRET_KEY}} at the top level"
            )
        return user_reader(self.session)


def client_address(settings: Identity) -> Callable[[Environ], Address | None]:
    """The function that finds the address to look up in lists of networks; None for a client
    without one, on a unix socket."""
    return settings.clients.address


def key_function(spec: str | Sequence[str], settings: Identity) -> KeyFunction:
    """What ``key:`` of a configuration means.

    A key that a request does not have falls back to its ip. A list is the combination of its parts:
    an absent one is ``-``, and the ip joins at the end if it was not in the list.

    :raises ValueError: an unknown type, a bad argument, or two parts of which a request may have
        several values; the message has the remedy.
    """
    by_ip: KeyFunction = settings.clients.key
    if isinstance(spec, str):
        lookup = _lookup(spec, settings)
        return by_ip if lookup == by_ip else _or_else(lookup, by_ip)
    if not spec:
        raise ValueError("the list of keys is empty: write key: ip")
    if len(set(spec)) < len(spec):
        raise ValueError("a key stands twice in the list: remove one")
    if len(spec) == 1:
        return key_function(spec[0], settings)
    several = [part for part in spec if _type(part) in _OF_SEVERAL]
    if len(several) > 1:
        raise ValueError(
            f"a request may have several values of {' and of '.join(several)}, and each "
            "combination would be charged: leave one in the list, and give others their own limit"
        )
    return _all_of([_lookup(part, settings) for part in spec], by_ip)


def _lookup(spec: str, settings: Identity) -> Lookup:
    name, _, argument = spec.partition(":")
    if name not in KEY_TYPES:
        known = ", ".join(KEY_TYPES)
        raise ValueError(f'"{spec}" is not a key: use one of {known}')
    return KEY_TYPES[name](argument, settings)


def chosen_freely(spec: str) -> bool:
    """Whether a client has a new counter as often as it likes, by sending something else."""
    name, _, argument = spec.partition(":")
    return name in CHOSEN_FREELY or (
        name == "environ" and (argument.startswith("HTTP_") or argument in _SENT)
    )


def preflight_key(spec: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """What a CORS preflight is counted by, where other requests are by this key, and whether many
    clients may have one counter there.

    Browsers send preflights without cookies, bodies, credentials and headers of one's own. Whoever
    sends them nevertheless shall get no counter for each value, so the ip takes their place.
    """
    carried = [part for part in spec if _in_preflights(part)]
    shared = len(carried) < len(spec) or any(_type(part) in _OF_THE_SERVER for part in spec)
    if len(carried) < len(spec) and "ip" not in carried:
        carried.append("ip")
    return tuple(carried), shared


def _in_preflights(spec: str) -> bool:
    return _type(spec) not in _NOT_IN_PREFLIGHTS and not spec.startswith(
        ("environ:HTTP_", "environ:CONTENT_TYPE")
    )


def _type(spec: str) -> str:
    return spec.partition(":")[0]


def _or_else(lookup: Lookup, fallback: KeyFunction) -> KeyFunction:
    def find(environ: Environ, args: PathArgs) -> Key:
        key = lookup(environ, args)
        return fallback(environ, args) if key is None else key

    return find


def _all_of(lookups: list[Lookup], by_ip: KeyFunction) -> KeyFunction:
    has_ip = by_ip in lookups

    def find(environ: Environ, args: PathArgs) -> Key:
        parts = [lookup(environ, args) for lookup in lookups]
        if None in parts:
            parts = ["-" if part is None else part for part in parts]
            if not has_ip:
                parts.append(by_ip(environ, args))
        if not any(type(part) is tuple for part in parts):
            return ",".join(parts)  # type: ignore[arg-type]
        choices = [part if type(part) is tuple else (part,) for part in parts]
        return tuple(",".join(choice) for choice in product(*choices))  # type: ignore[arg-type]

    return find


def _no_argument(name: str, argument: str) -> None:
    if argument:
        raise ValueError(f'"{name}:{argument}" has too much: write {name}')


def _ip(argument: str, settings: Identity) -> Lookup:
    _no_argument("ip", argument)
    return settings.clients.key


def _all(argument: str, _: Identity) -> Lookup:
    _no_argument("all", argument)
    return lambda environ, args: "all"


def _session_user(argument: str, settings: Identity) -> Lookup:
    _no_argument("session-user", argument)
    read_user = settings.read_user

    def find(environ: Environ, _: PathArgs) -> str | None:
        user = read_user(environ)
        return None if user is None else f"session-user:{escaped(user)}"

    return find


def _header(argument: str, _: Identity) -> Lookup:
    if not is_token(argument):
        raise ValueError(f'"header:{argument}" names no header: write header:X-API-Key')
    place = environ_name(argument)
    prefix = f"header:{argument}:"
    written = _hidden if argument.lower() in _CREDENTIALS else escaped

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = (environ.get(place) or "").strip()
        return prefix + written(from_wsgi(value)) if value else None

    return find


_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers whose values nobody should read in a log or a storage."""


def _hidden(value: str) -> str:
    return digest(value.encode("utf-8", "surrogatepass"))


def _cookie(argument: str, _: Identity) -> Lookup:
    if not is_token(argument):
        raise ValueError(f'"cookie:{argument}" names no cookie: write cookie:name')
    read = cookie_reader(argument)
    prefix = f"cookie:{argument}:"

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = read(environ)
        return prefix + _hidden(value) if value else None

    return find


def _query(argument: str, _: Identity) -> Lookup:
    _needs_argument("query", argument, "a parameter: write query:token")
    prefix = f"query:{escaped_name(argument)}:"
    return _fields(prefix, lambda environ: query_values(environ, argument))


def _form(argument: str, settings: Identity) -> Lookup:
    _needs_argument("form", argument, "a field: write form:email")
    prefix = f"form:{escaped_name(argument)}:"
    max_bytes = settings.form_max_bytes
    return _fields(prefix, lambda environ: form_values(environ, argument, max_bytes))


def _fields(prefix: str, read: Callable[[Environ], list[str]]) -> Lookup:
    """The unreadable share one counter, ``?``, which is no escaped value: were they charged to
    their ip, a padded body would be the way past a limit on an account."""
    unreadable = f"{prefix}?"

    def find(environ: Environ, _: PathArgs) -> Key | None:
        try:
            keys = tuple(prefix + escaped(value) for value in read(environ))
        except UnreadableError:
            return unreadable
        return keys if len(keys) > 1 else keys[0] if keys else None

    return find


def _environ(argument: str, _: Identity) -> Lookup:
    _needs_argument("environ", argument, "a place: write environ:REMOTE_USER")
    read = place_reader(argument)
    prefix = f"environ:{escaped_name(argument)}:"

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = user_text(read(environ))
        return None if value is None else prefix + escaped(from_wsgi(value))

    return find


def _path(argument: str, _: Identity) -> Lookup:
    if not argument.isidentifier():
        raise ValueError(f'"path:{argument}" names no variable of the path: write path:id')
    prefix = f"path:{escaped_name(argument)}:"

    def find(_: Environ, args: PathArgs) -> str | None:
        value = args.get(argument)
        return prefix + escaped(value) if value else None

    return find


_is_number = re.compile(r"-?\d+(\.\d+)?").fullmatch
_is_uuid = re.compile(r"[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}").fullmatch


def canonical(value: str) -> str:
    """One text for all spellings of a path variable that an application may take for one value:
    numbers with leading zeros, other scripts' digits or more of them than a float holds, and UUIDs
    in either case."""
    if _is_uuid(value):
        return value.lower()
    if not _is_number(value):
        return value
    if not value.isascii():
        value = "".join(str(decimal(char)) if char not in "-." else char for char in value)
    if "." in value:
        return repr(float(value) + 0.0).removesuffix(".0")  # the sum has no -0.0
    number = value.lstrip("-").lstrip("0") or "0"
    return f"-{number}" if value[0] == "-" and number != "0" else number


def _python(argument: str, _: Identity) -> Lookup:
    hook = Hook(argument, hook_text)
    prefix = f"python:{argument}:"

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = hook(environ)
        return None if value is None else prefix + escaped(value)

    return find


def _needs_argument(name: str, argument: str, what: str) -> None:
    if not argument:
        raise ValueError(f'"{name}" needs the name of {what}')


KEY_TYPES: dict[str, Callable[[str, Identity], Lookup]] = {
    "ip": _ip,
    "session-user": _session_user,
    "header": _header,
    "cookie": _cookie,
    "query": _query,
    "form": _form,
    "path": _path,
    "environ": _environ,
    "python": _python,
    "all": _all,
}
"""Name -> function of (what stands after the colon, the settings). It raises ValueError, whose
message has the remedy, and imports and compiles what requests will need."""

CHOSEN_FREELY = frozenset({"header", "cookie", "query", "form", "path"})
"""The types whose value is whatever the client writes."""

_OF_SEVERAL = frozenset({"query", "form"})
"""The types of which a request may have several values."""

_NOT_IN_PREFLIGHTS = frozenset({"session-user", "header", "cookie", "form"})

_OF_THE_SERVER = frozenset({"environ", "python"})
"""The types whose value often comes from a session too. A preflight has none and counts by ip."""

_SENT = frozenset(
    {
        *("CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "RAW_URI"),
        *("REMOTE_PORT", "REQUEST_METHOD", "REQUEST_URI"),
    }
)
"""Places in the environ, besides HTTP_*, where servers keep what the client sent."""
