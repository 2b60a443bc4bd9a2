"""The readings of a path: what routers may make of one that is spelt in an unusual way."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SLASHES = re.compile("/{2,}")

MAX_READINGS = 4
"""How many readings of one path are matched at most."""

_has_dots = re.compile(r"/\.\.?(?:/|\Z)").search

_EDGES = "".join(
    char for char in map(chr, range(0x3001)) if char.isspace() or unicodedata.category(char) == "Cc"
)
"""What routers drop at the end of a path: white space, as ``str.strip`` knows it and ``$`` of a
regular expression a newline, and control characters."""


def readings(path_info: str) -> tuple[str, ...]:
    """The readings of a path, each to be matched: how the routers of applications may see it.

    In each of them repeated slashes are one, and a slash at the end is none. The first is the path
    as it is written. Others, where they differ, have bytes that are not UTF-8 left out, what is in
    _EDGES stripped from both ends of every segment, and ``.`` and ``..`` resolved. These three have
    eight combinations, of which the first MAX_READINGS that differ are taken, the likeliest first.
    """
    if _is_plain(path_info):
        return (path_info[:-1] or "/",) if path_info[-1] == "/" else (path_info,)
    path = valid = "/" + _SLASHES.sub("/", path_info).strip("/")
    if not path.isascii():
        raw = path.encode("latin-1", "replace")
        path = valid = raw.decode("utf-8", "replace")
        if "\ufffd" in path:
            valid = raw.decode("utf-8", "ignore")
    if valid is path and not _has_edges(path):
        return tuple({path: 0, _resolved(path.split("/")): 0}) if "/." in path else (path,)
    found = {path: 0}
    for other in _other_readings(path, valid):
        found[other] = 0
        if len(found) == MAX_READINGS:
            break
    return tuple(found)


def _is_plain(path: str) -> bool:
    """Whether a path can be read in one way only: visible ASCII, no empty segment but at its end,
    and none that begins with a dot."""
    return (
        path.isascii()
        and path.isprintable()
        and " " not in path
        and "/." not in path
        and "//" not in path
        and path[:1] == "/"
    )


def _has_edges(path: str) -> bool:
    """Whether there may be anything to strip, which few paths have."""
    return " " in path or not path.isprintable()


def _other_readings(path: str, valid: str) -> Iterator[str]:
    """The readings of a path besides the one as it is written, some of them equal. One that is
    known to be equal is not made, since a path may have thousands of segments.

    :param valid: the path without the bytes that are not UTF-8.
    """
    segments = valid.split("/")
    has_edges = _has_edges(path)
    stripped = _stripped(segments, valid) if has_edges else segments
    if has_edges:
        yield _joined(stripped)
    has_dots = "." in stripped or ".." in stripped
    if has_dots:
        # A segment of which nothing is left is still one that a ".." takes away.
        yield _resolved(stripped)
    if _has_dots(path):
        yield _resolved(path.split("/"))
    if valid is not path:
        yield _joined(segments)
    if has_dots and "" in stripped[1:]:
        yield _resolved([segment for segment in stripped if segment])
    if has_edges:
        if valid is not path:
            yield _joined(_stripped(path.split("/"), path))
        if has_dots:
            yield _resolved(segments)


def _stripped(segments: list[str], path: str) -> list[str]:
    """The segments of a path without what is in _EDGES at their ends."""
    # White space alone is stripped much faster than a set of characters.
    without_space = map(str.strip, segments)
    if path.isprintable():
        return list(without_space)
    return [each if each.isprintable() else each.strip(_EDGES) for each in without_space]


def _resolved(segments: list[str]) -> str:
    """The path that segments with ``.`` and ``..`` among them lead to (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return _joined(kept)


def _joined(segments: list[str]) -> str:
    return "/" + "/".join(filter(None, segments))
