"""Compiles the option ``key`` of a configuration into one function, which finds the key of a
request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

from ..networks import Address
from .key_types import Environ, Key, Lookup, PathArgs, parse_key
from .settings import Identity

KeyFunction: TypeAlias = Callable[[Environ, PathArgs], Key]
"""Function of a request that returns the key that is charged, or several keys, or none (an empty
tuple). Any thread may call it, and nothing that a client sends makes it raise."""


def client_address(settings: Identity) -> Callable[[Environ], Address | None]:
    """The function that finds a request's address for lists of networks. It returns None for a
    client without an address, on a unix socket."""
    return settings.clients.address


def key_function(
    spec: str | Sequence[str], settings: Identity, instead: Sequence[str] = ()
) -> KeyFunction:
    """Compile the option ``key``: one key, or a list of keys whose combination is counted.

    A request without a value for the key is charged to its ip. In a combination, ``-`` stands for a
    missing value, and the ip is appended if it is not one of the parts.

    :param instead: keys in another form of the body. A request that has one of these, and none in
        the form of ``spec``, is charged by them alone: it has no key here, not even the ip.
    :raises ValueError: an unknown type, a bad argument, or two parts that may both have several
        values in one request; the message has the remedy.
    """
    by_ip: KeyFunction = settings.clients.key
    if isinstance(spec, str):
        lookup = _lookup(spec, settings)
        if lookup == by_ip:
            return by_ip
        return _or_else(lookup, _unless([_lookup(one, settings) for one in instead], by_ip))
    if not spec:
        raise ValueError("the list of keys is empty: write key: ip")
    if len(set(spec)) < len(spec):
        raise ValueError("a key stands twice in the list: remove one")
    if len(spec) == 1:
        return key_function(spec[0], settings, instead)
    several = [part for part in spec if parse_key(part)[0].may_have_several]
    if len(several) > 1:
        raise ValueError(
            f"a request may have several values of {' and of '.join(several)}, and each "
            "combination would be charged: leave one in the list, and give others their own limit"
        )
    found = _all_of([_lookup(part, settings) for part in spec], by_ip)
    if not instead:
        return found
    in_body = [_lookup(part, settings) for part in spec if needs_body([part])]
    otherwise = _unless([_lookup(one, settings) for one in instead], found)

    def find(environ: Environ, path_args: PathArgs) -> Key:
        has_own = any(lookup(environ, path_args) is not None for lookup in in_body)
        return (found if has_own else otherwise)(environ, path_args)

    return find


def is_client_controlled(spec: str) -> bool:
    """Whether a client can get a new counter at any time by sending another value for this key.

    :param spec: one key of a configuration, such as ``header:X-API-Key``.
    :raises ValueError: there is no such type.
    """
    key_type, argument = parse_key(spec)
    return key_type.is_client_controlled(argument)


def needs_body(spec: Iterable[str]) -> bool:
    """Whether one of these keys of a configuration is found in the body of a request.

    :raises ValueError: there is no such type.
    """
    return any(parse_key(part)[0].needs_body for part in spec)


class PreflightKey(NamedTuple):
    """The key by which CORS preflights are counted in place of another key."""

    key: tuple[str, ...]
    """Keys of a configuration, whose combination is counted."""
    is_shared: bool
    """Whether clients that have a counter each by the original key may share one by this key."""


def preflight_key(spec: Sequence[str]) -> PreflightKey:
    """The key by which CORS preflights are counted where other requests are counted by ``spec``.

    The parts that browsers leave out of preflights are replaced by the ip. A client that is not a
    browser may send them nevertheless, but would then get a new counter with each value.

    :param spec: keys of a configuration, whose combination is counted.
    :raises ValueError: there is no such type.
    """
    types = [parse_key(part) for part in spec]
    carried = tuple(
        part
        for part, (key_type, argument) in zip(spec, types, strict=True)
        if key_type.is_in_preflight(argument)
    )
    is_cut = len(carried) < len(spec)
    is_shared = is_cut or any(key_type.may_need_session for key_type, _ in types)
    return PreflightKey((*carried, "ip") if is_cut and "ip" not in carried else carried, is_shared)


def _lookup(spec: str, settings: Identity) -> Lookup:
    key_type, argument = parse_key(spec)
    return key_type.compile(argument, settings)


def _or_else(lookup: Lookup, fallback: KeyFunction) -> KeyFunction:
    def find(environ: Environ, path_args: PathArgs) -> Key:
        key = lookup(environ, path_args)
        return fallback(environ, path_args) if key is None else key

    return find


def _unless(instead: Sequence[Lookup], otherwise: KeyFunction) -> KeyFunction:
    """The function that gives no key where the request has one of these."""
    if not instead:
        return otherwise

    def find(environ: Environ, path_args: PathArgs) -> Key:
        if any(lookup(environ, path_args) is not None for lookup in instead):
            return ()
        return otherwise(environ, path_args)

    return find


def _all_of(lookups: list[Lookup], by_ip: KeyFunction) -> KeyFunction:
    has_ip = by_ip in lookups

    def find(environ: Environ, path_args: PathArgs) -> Key:
        parts = [lookup(environ, path_args) for lookup in lookups]
        if None in parts:
            parts = ["-" if part is None else part for part in parts]
            if not has_ip:
                parts.append(by_ip(environ, path_args))
        if not any(type(part) is tuple for part in parts):
            return ",".join(parts)  # type: ignore[arg-type]
        choices = [part if type(part) is tuple else (part,) for part in parts]
        return tuple(",".join(choice) for choice in product(*choices))  # type: ignore[arg-type]

    return find
