"""One spelling for all that an application may read as one number or one UUID.

``int()`` and ``UUID()`` read much more than digits (Python's library reference, "Built-in
Functions" and "uuid"), and many views convert their part of a path with them: ``+5``, ``1_0``,
``005`` and the digits of other scripts; UUIDs in braces, without dashes or in upper case.
"""

from __future__ import annotations

import re
from unicodedata import decimal
from uuid import UUID

_UUID_DIGITS = 32

_find_digit = re.compile(r"\d").search
_foreign_digits = re.compile(r"(?![0-9])\d").findall
_PUNCTUATION = re.compile(r"(?<=[0-9])_(?=[0-9])|(?<![0-9])\+(?=[0-9])")
_SPACE_AFTER = re.compile(r"(?<=[0-9])\s+(?=/|\Z)")
_SPACE_BEFORE = re.compile(r"/\s+(?=-?[0-9]+(?:/|\Z))")
# A look-ahead is not tried again, so that no run of digits is read more than twice.
_ZEROS = re.compile(r"/(?=[0-9]+(?:/|\Z))0+(?=[0-9])")
_ZEROS_AFTER_MINUS = re.compile(r"/-(?=[0-9]+(?:/|\Z))0+(?=[0-9])")
_MINUS_ZERO = re.compile(r"/-0(?=/|\Z)")
_LONG_SEGMENT = re.compile(rf"/([^/]{{{_UUID_DIGITS},}})")

_DECIMAL_UUID = re.compile(r"/(0[0-9]{31})(?=/|\Z)")

_is_number = re.compile(r"\s*[+-]?\d+(?:_\d+)*(?:\.\d+)?\s*").fullmatch


def with_canonical_numbers(path: str) -> str:
    """The path with each segment that is a number or a UUID in its canonical form. Within other
    segments, as in ``+5.json``, numbers lose their sign of plus, underscores and foreign digits.

    :param path: begins with a slash. The time grows with its length alone.
    """
    if len(path) > _UUID_DIGITS:  # first, as UUID() reads its digits with a plus or underscores too
        path = _LONG_SEGMENT.sub(_uuid_unless_number, path)
    if _may_be_odd(path):
        path = _with_plain_digits(path)
        if " " in path or not path.isprintable():
            path = _SPACE_BEFORE.sub("/", _SPACE_AFTER.sub("", path))
        if "/0" in path:
            path = _ZEROS.sub("/", path)
        if "/-0" in path:
            path = _MINUS_ZERO.sub("/0", _ZEROS_AFTER_MINUS.sub("/-", path))
    return path


def numbered_readings(path: str) -> tuple[str, ...]:
    """The path with canonical numbers, and with each UUID that may also be a number with leading
    zeros read as a UUID. Empty where there is nothing to write otherwise."""
    canonical = with_canonical_numbers(path)
    if canonical == path:
        return ()
    uuids = _DECIMAL_UUID.sub(lambda match: f"/{UUID(match[1])}", path) if "/0" in path else path
    return (canonical,) if uuids == path else (canonical, with_canonical_numbers(uuids))


def canonical_path_value(value: str) -> str:
    """One text for all spellings of a path variable that an application may read as one value:
    besides those of integers and UUIDs, decimal fractions with more digits than a float
    distinguishes. Every other text as it is."""
    if not _is_number(value):
        return _canonical_uuid(value)
    number = _with_plain_digits(value.strip())
    if "." in number:
        return canonical_float(number)
    return with_canonical_numbers(f"/{number}")[1:]


def canonical_float(text: str) -> str:
    """One text for all spellings of a number with a fraction or an exponent: that of the whole
    number which it equals, or else the shortest."""
    number = float(text)
    return str(int(number)) if number.is_integer() else repr(number)


def _may_be_odd(path: str) -> bool:
    """Whether a number in the path may be written in an unusual way."""
    return (
        "/0" in path
        or "/-0" in path
        or "_" in path
        or "+" in path
        or " " in path
        or not (path.isascii() and path.isprintable())
    ) and _has_digit(path)


def _has_digit(path: str) -> bool:
    # For ASCII ten searches of one character are much faster than one of a regular expression.
    if any(map(path.__contains__, "0123456789")):
        return True
    return not path.isascii() and _find_digit(path) is not None


def _with_plain_digits(text: str) -> str:
    """Numbers in ASCII digits, without underscores between them and a plus before them."""
    if not text.isascii():
        for digit in set(_foreign_digits(text)):
            text = text.replace(digit, str(decimal(digit)))
    return _PUNCTUATION.sub("", text) if "_" in text or "+" in text else text


def _uuid_unless_number(segment: re.Match[str]) -> str:
    text = segment[1]
    if _is_number(text) and not (text.isdecimal() and decimal(text[0])):
        return segment[0]
    return f"/{_canonical_uuid(text)}"


def _canonical_uuid(text: str) -> str:
    """A UUID as RFC 9562, section 4 writes it; any other text as it is."""
    if len(text) < _UUID_DIGITS:
        return text
    digits = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "")
    if len(digits) != _UUID_DIGITS:
        return text
    try:
        return str(UUID(digits))
    except ValueError:
        return text
