"""Reading the options of a storage URI."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from difflib import get_close_matches
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ..errors import StorageURIError

_log = logging.getLogger("wsgi_throttle")

_SIZE = re.compile(r"([1-9][0-9]{0,11})(|k|kb|m|mb|g|gb)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def split(uri: str) -> SplitResult:
    """The parts of a URI.

    :raises StorageURIError: it cannot be split. Like every message about a URI, this one quotes
        nothing that may be a part of a password.
    """
    try:
        return urlsplit(uri)
    except ValueError:
        raise StorageURIError(
            "this is no URI: IPv6 addresses stand in brackets, and in a password all but letters "
            "and digits are written in percent codes, as %5B for ["
        ) from None


def options(
    uri: str,
    known: Collection[str],
    others: Collection[str] = (),
    no_effect: Collection[str] = (),
) -> dict[str, str]:
    """The options in the query of a URI: name -> text.

    :param known: the names that this storage has.
    :param others: names that it does not have, and that a message may quote.
    :param no_effect: names that have no meaning here and do no harm. They are left out of the
        result, and a warning is logged.
    :raises StorageURIError: an option that is unknown, is given twice or has no value.
    """
    found: dict[str, str] = {}
    without_effect = []
    for name, value in parse_qsl(split(uri).query, keep_blank_values=True):
        if name in no_effect:
            without_effect.append(name)
            continue
        if name not in known:
            names = ", ".join(sorted(known))
            is_meant = name in others or get_close_matches(name, known, n=1)
            shown = f'"{name}"' if is_meant else "what stands after the ?"
            raise StorageURIError(
                f"{shown} is not an option of this storage: it has {names} (in a password a ? is "
                "written %3F)"
            )
        if name in found:
            raise StorageURIError(f'the option "{name}" is given twice')
        if not value:
            raise StorageURIError(f'the option "{name}" has no value')
        found[name] = value
    if without_effect:
        _log.warning(
            "these options of the storage's URI have no effect here: %s", ", ".join(without_effect)
        )
    return found


def whole_number(name: str, text: str, minimum: int) -> int:
    """The value of an option that counts something.

    :raises StorageURIError: not a decimal number, or less than the minimum.
    """
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < minimum:
        raise StorageURIError(f"{name} does not fit: use a whole number from {minimum}")
    return int(text)


def size_bytes(name: str, text: str, minimum: int) -> int:
    """The value of an option that is a size, in bytes: ``65536``, ``512kb``, ``64mb``, ``1gb``.

    :raises StorageURIError: not a size, or less than the minimum.
    """
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _FACTORS[match[2].lower().rstrip("b")] if match else 0
    if size < minimum:
        raise StorageURIError(f"{name} does not fit: use a size such as 64mb, from {minimum} bytes")
    return size
