"""The readings of a path: what routers may make of one that is spelt in an unusual way."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from ..identity import with_canonical_numbers

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
    as it is written. Others, where they differ, have numbers and UUIDs in canonical form, bytes
    that are not UTF-8 left out, what is in _EDGES stripped from both ends of every segment, and
    ``.`` and ``..`` resolved. Of the combinations of these four the first MAX_READINGS that differ
    are taken, the likeliest first.
    """
    if _is_plain(path_info):
        path = path_info[:-1] or "/" if path_info[-1] == "/" else path_info
        other = with_canonical_numbers(path)
        return (path,) if other == path else (path, other)
    path = valid = _merged(path_info)
    if not path.isascii():
        raw = path.encode("latin-1", "replace")
        path = valid = raw.decode("utf-8", "replace")
        if "\ufffd" in path:
            valid = raw.decode("utf-8", "ignore")
    canonical = with_canonical_numbers(path)
    found = {path: 0, canonical: 0}
    for other in _other_readings(path, canonical, valid):
        found[other] = 0
        if len(found) == MAX_READINGS:
            break
    return tuple(found)


def _is_plain(path: str) -> bool:
    """Whether a path can be read in one way only: visible ASCII, no empty segment but at its end,
    and none that begins with a dot."""
    return (
        path[:1] == "/"
        and path.isascii()
        and "//" not in path
        and "/." not in path
        and not _has_edges(path)
    )


def _has_edges(path: str) -> bool:
    """Whether there may be anything to strip, which few paths have."""
    return " " in path or not path.isprintable()


def _other_readings(path: str, canonical: str, valid: str) -> Iterator[str]:
    """The readings of a path besides these, some of them equal. One that is known to be equal is
    not made, since a path may have thousands of segments.

    :param path: as it is written.
    :param canonical: the same with canonical numbers.
    :param valid: the path without the bytes that are not UTF-8.
    """
    has_edges = _has_edges(valid)
    if valid is path and not has_edges:
        if "/." in path:
            yield _resolved(canonical.split("/"))
        return
    segments = valid.split("/")
    stripped, stripped_path = _stripped(segments) if has_edges else (segments, _merged(valid))
    yield with_canonical_numbers(stripped_path)
    has_dots = _has_dots(stripped_path)
    if has_dots:
        # A segment of which nothing is left is still one that a ".." takes away.
        yield with_canonical_numbers(_resolved(stripped))
    if _has_dots(canonical):
        yield _resolved(canonical.split("/"))
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
    """A path in which repeated slashes are one, and one at the end is none."""
    return "/" + (_SLASHES.sub("/", path) if "//" in path else path).strip("/")


def _stripped(segments: list[str]) -> tuple[list[str], str]:
    """The segments without what is in _EDGES at their ends, and the path that they make."""
    # White space alone is stripped much faster than a set of characters.
    stripped = list(map(str.strip, segments))
    path = _joined(stripped)
    if path.isprintable():
        return stripped, path
    stripped = [segment.strip(_EDGES) for segment in stripped]
    return stripped, _joined(stripped)


def _resolved(segments: list[str]) -> str:
    """The path that segments with ``.`` and ``..`` among them lead to (RFC 3986, 5.2.4)."""
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    return _joined(kept)


def _joined(segments: list[str]) -> str:
    """The path of segments, of which empty ones do not count."""
    return "/" + "/".join(filter(None, segments))
