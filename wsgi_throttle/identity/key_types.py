"""The types of key: KEY_TYPES has a row for each, and the row names its function.

To add a type, write its function and its row here, describe it in docs/keys.md, and attack it in
tests/test_keys.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..hooks import Hook
from .body import UnreadableError
from .cookies import cookie_reader
from .form import form_values, query_values
from .json_body import json_values
from .session import environ_reader, hook_text, user_text
from .settings import Identity
from .text import (
    digest,
    environ_name,
    escaped,
    escaped_name,
    from_wsgi,
    is_cookie_name,
    is_header_name,
)

Environ: TypeAlias = dict[str, Any]
PathArgs: TypeAlias = Mapping[str, str]
"""The variables of the path that matched, by name, with their canonical values."""
Key: TypeAlias = str | tuple[str, ...]
"""``type:value``, or a tuple of such where the request has several values: each is charged."""
Lookup: TypeAlias = Callable[[Environ, PathArgs], Key | None]
"""Function of a request that returns its key of one type, or None where the request has no value
for it. Any thread may call it, and nothing that a client sends makes it raise."""


def _always(_: str) -> bool:
    return True


def _never(_: str) -> bool:
    return False


class KeyType(NamedTuple):
    """What the package knows about a type of key. The argument of a key is what follows the first
    colon: ``X-API-Key`` in ``header:X-API-Key``."""

    compile: Callable[[str, Identity], Lookup]
    """Function of (the argument, the settings) that makes the function for requests. It imports and
    compiles everything in advance, and raises ValueError, with the remedy in its message, for an
    argument that does not fit."""
    is_client_controlled: Callable[[str], bool] = _never
    """Function of the argument: whether the client chooses the value, so that it can get a new
    counter at any time by sending another value."""
    may_have_several: bool = False
    """Whether one request may have several values, each of which is charged."""
    is_in_preflight: Callable[[str], bool] = _always
    """Function of the argument: whether a CORS preflight can carry the value. Browsers send
    preflights without a body, cookies, credentials and the application's own headers."""
    needs_body: bool = False
    """Whether the value is in the body, which a client may send late or never."""
    may_need_session: bool = False
    """Whether the value may depend on a session. A preflight carries no session, so there all
    clients may lack the value."""


def _no_argument(name: str, argument: str) -> None:
    if argument:
        raise ValueError(f'"{name}:{argument}" has too much: write {name}')


def _needs_argument(name: str, argument: str, what: str) -> None:
    if not argument:
        raise ValueError(f'"{name}" needs the name of {what}')


def _ip(argument: str, settings: Identity) -> Lookup:
    _no_argument("ip", argument)
    return settings.clients.key


def _all(argument: str, _: Identity) -> Lookup:
    _no_argument("all", argument)
    return lambda environ, path_args: "all"


def _session_user(argument: str, settings: Identity) -> Lookup:
    _no_argument("session-user", argument)
    read_user = settings.read_user

    def find(environ: Environ, _: PathArgs) -> str | None:
        user = read_user(environ)
        return None if user is None else f"session-user:{escaped(user)}"

    return find


def _header(argument: str, _: Identity) -> Lookup:
    if not is_header_name(argument):
        raise ValueError(f'"header:{argument}" names no header: write header:X-API-Key')
    variable = environ_name(argument)
    prefix = f"header:{argument}:"
    written = _secret if argument.lower() in _CREDENTIALS else escaped

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = (environ.get(variable) or "").strip()
        return prefix + written(from_wsgi(value)) if value else None

    return find


_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers whose values must not be readable in logs or storages, so that they are hashed."""


def _secret(value: str) -> str:
    return digest(value.encode("utf-8", "surrogatepass"))


def _cookie(argument: str, _: Identity) -> Lookup:
    if not is_cookie_name(argument):
        raise ValueError(f'"cookie:{argument}" names no cookie: write cookie:name')
    read = cookie_reader(argument)
    prefix = f"cookie:{argument}:"

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = read(environ)
        return prefix + _secret(value) if value else None

    return find


def _query(argument: str, _: Identity) -> Lookup:
    _needs_argument("query", argument, "a parameter: write query:token")
    prefix = f"query:{escaped_name(argument)}:"
    return _fields(prefix, lambda environ: query_values(environ, argument))


def _form(argument: str, settings: Identity) -> Lookup:
    _needs_argument("form", argument, "a field: write form:email")
    prefix = f"form:{escaped_name(argument)}:"
    max_bytes, is_json_counted = settings.form_max_bytes, settings.is_json_counted
    return _fields(
        prefix,
        lambda environ: form_values(environ, argument, max_bytes, is_json_counted=is_json_counted),
    )


def _json(argument: str, settings: Identity) -> Lookup:
    _needs_argument("json", argument, "a member: write json:email, or json:user.email")
    path = argument.split(".")
    if not all(path):
        raise ValueError(f'"json:{argument}" has an empty name: write json:user.email')
    prefix = f"json:{escaped_name(argument)}:"
    max_bytes = settings.form_max_bytes
    return _fields(prefix, lambda environ: json_values(environ, path, max_bytes))


def _fields(prefix: str, read: Callable[[Environ], list[str]]) -> Lookup:
    """Make the function that gives a key for each value.

    All unreadable forms and queries share the key ``?``, which no value has, since it would be
    escaped. They are not charged to the ip as a missing value is: otherwise an attacker could get
    around the limit of an account by a body that only the application can read.
    """
    unreadable = f"{prefix}?"

    def find(environ: Environ, _: PathArgs) -> Key | None:
        try:
            keys = tuple(prefix + escaped(value) for value in read(environ))
        except UnreadableError:
            return unreadable
        return keys if len(keys) > 1 else keys[0] if keys else None

    return find


def _path(argument: str, _: Identity) -> Lookup:
    if not argument.isidentifier():
        raise ValueError(f'"path:{argument}" names no variable of the path: write path:id')
    prefix = f"path:{escaped_name(argument)}:"

    def find(_: Environ, path_args: PathArgs) -> str | None:
        value = path_args.get(argument)
        return prefix + escaped(value) if value else None

    return find


def _environ(argument: str, settings: Identity) -> Lookup:
    _needs_argument("environ", argument, "a variable: write environ:REMOTE_USER")
    read = environ_reader(argument, clock=settings.clock)
    prefix = f"environ:{escaped_name(argument)}:"

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = user_text(read(environ))
        return None if value is None else prefix + escaped(from_wsgi(value))

    return find


def _is_sent_by_client(variable: str) -> bool:
    return variable.startswith("HTTP_") or variable in _SENT_BY_CLIENT


_SENT_BY_CLIENT = frozenset(
    {
        *("CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "RAW_URI"),
        *("REMOTE_PORT", "REQUEST_METHOD", "REQUEST_URI"),
    }
)
"""The environ variables besides HTTP_* whose values the client sends."""


def _python(argument: str, settings: Identity) -> Lookup:
    hook = Hook(argument, hook_text, clock=settings.clock)
    prefix = f"python:{argument}:"

    def find(environ: Environ, _: PathArgs) -> str | None:
        value = hook(environ)
        return None if value is None else prefix + escaped(value)

    return find


KEY_TYPES = {
    "ip": KeyType(_ip),
    "session-user": KeyType(_session_user, is_in_preflight=_never),
    "header": KeyType(_header, is_client_controlled=_always, is_in_preflight=_never),
    "cookie": KeyType(_cookie, is_client_controlled=_always, is_in_preflight=_never),
    "query": KeyType(_query, is_client_controlled=_always, may_have_several=True),
    "form": KeyType(
        _form,
        is_client_controlled=_always,
        may_have_several=True,
        is_in_preflight=_never,
        needs_body=True,
    ),
    "json": KeyType(
        _json,
        is_client_controlled=_always,
        may_have_several=True,
        is_in_preflight=_never,
        needs_body=True,
    ),
    "path": KeyType(_path, is_client_controlled=_always),
    "environ": KeyType(
        _environ,
        is_client_controlled=_is_sent_by_client,
        is_in_preflight=lambda variable: not variable.startswith(("HTTP_", "CONTENT_TYPE")),
        may_need_session=True,
    ),
    "python": KeyType(_python, may_need_session=True),
    "all": KeyType(_all),
}


def parse_key(spec: str) -> tuple[KeyType, str]:
    """Split a key of the configuration, such as ``header:X-API-Key``, into its type and its
    argument, which is not checked here.

    :raises ValueError: there is no such type; the message lists the types.
    """
    name, _, argument = spec.partition(":")
    if name not in KEY_TYPES:
        raise ValueError(f'"{spec}" is not a key: use one of {", ".join(KEY_TYPES)}')
    return KEY_TYPES[name], argument
