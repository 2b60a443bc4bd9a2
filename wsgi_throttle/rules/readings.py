"""The readings of a path: the ways in which routers may read one that is spelt unusually."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from ..identity import numbered_readings, with_canonical_numbers

_SLASHES = re.compile("/{2,}")

MAX_READINGS = 4
"""Upper bound of the readings of one path."""

_has_dots = re.compile(r"/\.\.?(?:/|\Z)").search

_EDGES = "".join(
    char for char in map(chr, range(0x3001)) if char.isspace() or unicodedata.category(char) == "Cc"
)
"""What some routers ignore at the end of a path or segment: white space, as ``str.strip`` does, a
newline, as ``$`` of a regular expression does, and control characters."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The ways in which an application's router may read a path. Each is to be matched, so that a
    client cannot get round a rule by an unusual spelling."""

    written: str
    """The path as it is written. In all readings repeated slashes are one, and a slash at the end
    is dropped."""
    numbered: tuple[str, ...] = ()
    """The same with numbers and UUIDs in canonical form, unless that is one of the others."""
    others: tuple[str, ...] = ()
    """Bytes that are not UTF-8 are left out, the characters of _EDGES are stripped from both ends
    of every segment, ``.`` and ``..`` are resolved: what differs of their combinations, the
    likeliest first, and then these with canonical numbers."""

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, MAX_READINGS at most."""
        return (self.written, *self.numbered, *self.others)


def readings(path_info: str) -> Readings:
    """The readings of a path.

    :param path_info: PATH_INFO as in PEP 3333: bytes, decoded as Latin-1.
    """
    if _is_plain(path_info):
        path = path_info[:-1] or "/" if path_info[-1] == "/" else path_info
        return Readings(path, numbered_readings(path))
    path = valid = _merged(path_info)
    if not path.isascii():
        raw = path.encode("latin-1", "replace")
        path = valid = raw.decode("utf-8", "replace")
        if "\ufffd" in path:
            valid = raw.decode("utf-8", "ignore")
    numbered = numbered_readings(path)
    found = dict.fromkeys((path, *numbered))
    others: dict[str, None] = {}
    for other in _candidates(path, valid, has_numbers=bool(numbered)):
        if len(found) == MAX_READINGS:
            break
        found[other] = None
        if other != path:
            others[other] = None
    return Readings(path, tuple(one for one in numbered if one not in others), tuple(others))


def _is_plain(path: str) -> bool:
    """Whether a path has one reading only: it is visible ASCII, and no segment is empty (but the
    last may be) or begins with a dot."""
    return (
        path[:1] == "/"
        and path.isascii()
        and "//" not in path
        and "/." not in path
        and not _has_edges(path)
    )


def _has_edges(path: str) -> bool:
    """Whether there may be a character of _EDGES in the path, which is rare."""
    return " " in path or not path.isprintable()


def _candidates(path: str, valid: str, *, has_numbers: bool) -> Iterator[str]:
    """The other readings as far as they are asked for, and after them the same with canonical
    numbers."""
    made = []
    for other in _other_readings(path, valid):
        made.append(other)
        yield other
    if has_numbers:
        yield from map(with_canonical_numbers, made)


def _other_readings(path: str, valid: str) -> Iterator[str]:
    """The readings of a path besides itself whose numbers are as written, some of them equal. Those
    that are known to be equal are not made, since a path may have thousands of segments.

    :param path: as it is written.
    :param valid: the path without bytes that are not UTF-8.
    """
    has_edges = _has_edges(valid)
    if valid is path and not has_edges:
        if "/." in path:
            yield _resolved(path.split("/"))
        return
    segments = valid.split("/")
    stripped, stripped_path = _stripped(segments) if has_edges else (segments, _merged(valid))
    yield stripped_path
    has_dots = _has_dots(stripped_path)
    if has_dots:
        # A segment that is empty now still counts as one that ".." removes.
        yield _resolved(stripped)
    if _has_dots(path):
        yield _resolved(path.split("/"))
    if has_edges and valid is not path:
        yield _merged(valid)
    if has_dots and "" in stripped[1:]:
        yield _resolved([segment for segment in stripped if segment])
    if has_edges:
        if valid is not path:
            yield _stripped(path.split("/"))[1]
        if has_dots:
            yield _resolved(segments)


def _merged(path: str) -> str:
    """The path with repeated slashes as one, and without a slash at the end."""
    return "/" + (_SLASHES.sub("/", path) if "//" in path else path).strip("/")


def _stripped(segments: list[str]) -> tuple[list[str], str]:
    """The segments without the characters of _EDGES at their ends, and the path of these."""
    # Stripping white space only is much faster than stripping a set of characters.
    stripped = list(map(str.strip, segments))
    path = _joined(stripped)
    if path.isprintable():
        return stripped, path
    stripped = [segment.strip(_EDGES) for segment in stripped]
    return stripped, _joined(stripped)


def _resolved(segments: list[str]) -> str:
    """The path that the segments lead to, with ``.`` and ``..`` removed (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    return _joined(kept)


def _joined(segments: list[str]) -> str:
    """The path of these segments, without the empty ones."""
    return "/" + "/".join(filter(None, segments))
