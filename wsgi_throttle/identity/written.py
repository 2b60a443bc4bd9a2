"""Keys as people write them, for a reset: what a log shows, or a value as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from .key_types import KEY_TYPES, KeyType, parse_key, prefix_of
from .settings import Identity
from .text import MAX_VALUE_LENGTH, escaped

_is_as_logged = re.compile(
    rf"(?:[A-Za-z0-9._~@:/+=-]|%[0-9A-F]{{2}}){{1,{MAX_VALUE_LENGTH}}}|#[0-9a-f]{{32}}|\?"
).fullmatch
"""A value as it stands in a key: escaped, a digest, or what stands for all unreadable ones."""

_ABSENT = "-"
"""Stands in a combination for a part that the request had no value of."""


def written_keys(text: str, specs: Iterable[Sequence[str]], settings: Identity) -> tuple[str, ...]:
    """The keys that somebody may mean who writes this text.

    It is an address or network, with or without ``ip:``; or a type, its argument and a value, as in
    ``header:X-API-Key:abc``; or several of these with commas between them, where a limit counts by
    several. A value may be written as logs show it or as it is: ``jane%20doe`` or ``jane doe``.
    Where both are possible, both are returned.

    :param specs: the keys of all limits.
    :return: none if no limit counts by such a key.
    :raises ValueError: no request can have such a key; the message has the remedy.
    """
    name = re.split("[:,]", text)[0]
    address = settings.clients.key_of(text.removeprefix("ip:"))
    if address:
        return (address,)
    if name not in (*KEY_TYPES, _ABSENT):
        raise ValueError(
            f'"{text}" is not a key: write an address, or a key as logs show it, which begins with '
            f"one of {', '.join(KEY_TYPES)}"
        )
    found: dict[str, None] = {}
    failure = None
    for spec in dict.fromkeys((("ip",), ("all",), *map(tuple, specs))):
        try:
            found.update(dict.fromkeys(_keys(text, spec, settings)))
        except ValueError as error:
            failure = error
    if failure and not found:
        raise failure
    return tuple(found)


def _keys(text: str, spec: tuple[str, ...], settings: Identity) -> Iterator[str]:
    """The keys that this text can be of limits that count by this spec.

    :raises ValueError: it is of this spec, but no request has such a value.
    """
    if len(spec) == 1:
        yield from _values(text, spec[0], settings)
        return
    parts = text.split(",")
    if _ABSENT in parts and "ip" not in spec:
        spec = (*spec, "ip")
    if len(parts) == len(spec):
        choices = [
            [part] if part == _ABSENT else list(_values(part, one, settings))
            for part, one in zip(parts, spec, strict=True)
        ]
        yield from map(",".join, product(*choices))


def _values(text: str, spec: str, settings: Identity) -> Iterator[str]:
    """The same for a single key."""
    key_type, argument = parse_key(spec)
    name = spec.partition(":")[0]
    prefix = prefix_of(name, argument)
    for written in dict.fromkeys((prefix, f"{spec}:")):
        begins = text[: len(written)]
        if begins == written or (name == "header" and begins.lower() == written.lower()):
            value = text[len(written) :]
            break
    else:
        if text != spec or name == "all":
            yield from [text] if text == spec else []
            return
        raise ValueError(f'"{text}" has no value: write {prefix}VALUE')
    key = _key(key_type, prefix, argument, value, settings)
    if key is not None:
        yield key
    if _is_as_logged(value) and name not in ("ip", "all"):
        yield prefix + value
    elif key is None:
        raise ValueError(f'"{text}" is not a key: no request has this value of {spec}')


def _key(
    key_type: KeyType, prefix: str, argument: str, value: str, settings: Identity
) -> str | None:
    """The key of a value as it is; None if no request can have it."""
    if prefix == "ip:":
        return settings.clients.key_of(value)
    if prefix == "all:" or not value:
        return None
    if key_type.example is None:
        return prefix + escaped(value)
    example = key_type.example(argument, value)
    key = example and key_type.compile(argument, settings)(*example)
    return key if isinstance(key, str) and key != f"{prefix}?" else None
