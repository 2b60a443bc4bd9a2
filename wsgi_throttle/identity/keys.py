"""Whose counter a request is charged to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeAlias

from .address import ClientIP, Clients
from .networks import Address
from .session import Session, user_reader
from .text import escaped

Environ: TypeAlias = dict[str, Any]
PathArgs: TypeAlias = Mapping[str, str]
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

    :raises ValueError: an unknown type or a bad argument; the message has the remedy.
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
    return _all_of([_lookup(part, settings) for part in spec], by_ip)


def _lookup(spec: str, settings: Identity) -> Lookup:
    name, _, argument = spec.partition(":")
    if name not in KEY_TYPES:
        known = ", ".join(KEY_TYPES)
        raise ValueError(f'"{spec}" is not a key: use one of {known}')
    return KEY_TYPES[name](argument, settings)


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


KEY_TYPES: dict[str, Callable[[str, Identity], Lookup]] = {
    "ip": _ip,
    "session-user": _session_user,
    "all": _all,
}
"""Name -> function of (what stands after the colon, the settings). It raises ValueError, whose
message has the remedy, and imports and compiles what requests will need."""
