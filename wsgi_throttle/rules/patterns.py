"""Path patterns, with the syntax and the precedence of Werkzeug's routing.

They are matched against PATH_INFO, decoded as Werkzeug decodes it, since applications route by it.
Converters only match text: a value that a converter could not convert (a number out of bounds) does
not escape its rule.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

from .converters import CONVERTERS, VARIABLE, read_pieces
from .match import Matcher, Route
from .parts import MAX_COMBINATIONS, MAX_UNBOUNDED, count_searches

MAX_SIBLINGS = 64
"""How many different segments with a variable (``/<x>-1``, ``/<x>-2``) the rules may have below one
folder. Each of them may have to be tried, which takes long for a path of 8 KB."""

MAX_SEGMENTS = 100
"""Segments of a pattern. Matching calls itself for each, and Python's stack is limited."""

_ends_with_path = re.compile(r"<path(\([^<>]*\))?:\w+>\Z").search

_REST = "wsgi_throttle_rest"

_NUMBERS = ("int", "float")
_BOUNDED = ("any", "uuid")


@dataclass(frozen=True)
class Pattern:
    """A path pattern, parsed. Immutable."""

    text: str
    """As it was written."""
    rules: tuple[str, ...]
    """In Werkzeug's syntax. A pattern that ends with ``**`` has two: the folder, and all below."""
    variables: tuple[str, ...]
    """The names of its variables."""
    routes: tuple[Route, ...] = field(compare=False, repr=False)
    """The rules, as :class:`.Matcher` takes them."""

    FOLDER: ClassVar[str] = "**"

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern as it is written in the rule file.

        :raises ValueError: it is not a pattern, or would be slow to match; the message says what to
            write instead.
        """
        if not text.startswith("/"):
            raise ValueError(f'"{text}" is not a path: it begins with a slash, as "/{text}"')
        for character in "?#%":
            if character in text:
                raise ValueError(
                    f'"{text}" has a {character}: a path is matched decoded and without its query'
                )
        segments = text.strip("/").split("/")
        if len(segments) > MAX_SEGMENTS:
            raise ValueError(
                f'"{text}" has more than {MAX_SEGMENTS} segments: end it earlier, with /**'
            )
        folder = segments[-1] == cls.FOLDER
        if folder:
            segments.pop()
        variables: dict[str, str] = {}
        written = [_segment(segment, text, variables) for segment in segments if segment]
        if [*variables.values(), "path" if folder else ""].count("path") > 1:
            raise ValueError(
                f'"{text}" matches slashes in two places: one <path:...> or ** is enough'
            )
        base = "/" + "/".join(written)
        _check_cost(text, f"{base}/<path:{_REST}>" if folder else base)
        rules = (base, f"{base.rstrip('/')}/<path:{_REST}>") if folder else (base,)
        try:
            routes = tuple(map(Route.parse, rules))
        except (ValueError, LookupError, TypeError, OverflowError, re.error) as error:
            raise ValueError(f'"{text}" is not a path pattern: {error}') from error
        return cls(text, rules, tuple(variables), routes)

    @cached_property
    def signatures(self) -> tuple[str, ...]:
        """The rules without the names of variables. Equal ones match the same paths."""
        return tuple(VARIABLE.sub(_nameless, rule) for rule in self.rules)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The rules with only the weights of variables. Of equal ones, none is more specific."""
        return tuple(VARIABLE.sub(_weight, rule) for rule in self.rules)

    @property
    def has_slash(self) -> bool | None:
        """Whether the paths that it is written for end with a slash. None where it is for both: the
        root, a folder with all that is below, and what ends in a ``<path:...>``."""
        if self.text == "/" or len(self.rules) > 1 or _ends_with_path(self.text):
            return None
        return self.text.endswith("/")

    def example(self) -> str | None:
        """A path that it fits, without a slash at its end; None where none is found."""
        return self.routes[0].example()


def _segment(segment: str, text: str, variables: dict[str, str]) -> str:
    """A segment in Werkzeug's syntax.

    :param text: the whole pattern, for messages.
    :param variables: name -> converter; those of this segment are added.
    :raises ValueError: the segment cannot be used.
    """
    if segment == "*":
        name = f"wsgi_throttle_{len(variables)}"
        variables[name] = "default"
        return f"<{name}>"
    if segment in (".", ".."):
        raise ValueError(f'"{text}" has a "{segment}": write the path that it leads to')
    found = list(VARIABLE.finditer(segment))
    rest = VARIABLE.sub("", segment)
    if re.search("[<>{}]|^:", rest):
        raise ValueError(f'"{text}": a variable is written as <name> or <int:name>')
    if "*" in rest:
        raise ValueError(
            f'"{text}": * is a whole segment, and ** all that is below, at the end; '
            "within a segment write <name>"
        )
    for match in found:
        converter, name = match["converter"] or "default", match["name"]
        if converter not in CONVERTERS:
            raise ValueError(
                f'"{text}": {converter} is not known: use one of {", ".join(CONVERTERS)}'
            )
        if name in variables:
            raise ValueError(f'"{text}" has <{name}> twice: give each a name of its own')
        if converter in _NUMBERS and re.search(
            r"\b(min|max|fixed_digits)\b", match["arguments"] or ""
        ):
            raise ValueError(
                f'"{text}": min, max and fixed_digits would let other numbers escape the rule: '
                "leave them out"
            )
        variables[name] = converter
    return segment


def _check_cost(text: str, rule: str) -> None:
    """Check that a rule is fast to match.

    :param text: the pattern, for messages.
    :raises ValueError: it is not.
    """
    for part in _parts(rule):
        unbounded = [
            match
            for match in VARIABLE.finditer(part)
            if (match["converter"] or "default") not in _BOUNDED
        ]
        if len(unbounded) > MAX_UNBOUNDED:
            raise ValueError(
                f'"{text}" has more than {MAX_UNBOUNDED} variables in what is matched as one '
                "(a segment, or all that follows a <path:...>), which is slow: use fewer"
            )
        if "><" in part:
            raise ValueError(f'"{text}" has two variables side by side: put text between them')


def _parts(rule: str) -> list[str]:
    """The parts of a rule that are matched as one: its segments, and from a path variable on all
    that follows."""
    segments = rule.strip("/").split("/")
    for index, segment in enumerate(segments):
        if "<path:" in segment or "<path(" in segment:
            return [*segments[:index], "/".join(segments[index:])]
    return segments


def _nameless(match: re.Match[str]) -> str:
    converter = (match["converter"] or "string").replace("default", "string")
    return f"<{converter}({match['arguments'] or ''})>"


def _weight(match: re.Match[str]) -> str:
    converter = match["converter"] or "string"
    return f"<{converter}>" if converter in (*_NUMBERS, "path") else "<string>"


class Entry(NamedTuple):
    """A pattern of a rule, for a matcher."""

    pattern: Pattern
    methods: Sequence[str]
    """Empty: all."""
    endpoint: int
    """What to return."""
    is_exempt: bool = False
    """Then it is for paths that end as the pattern does, with a slash or without. Otherwise it is
    for both."""


def matcher(entries: Iterable[Entry]) -> Matcher:
    """A matcher for entries in the order of the file.

    Entries of one path have this precedence: a path that is written in full goes before the path of
    a folder (``/a`` before ``/a/**``), entries with methods go before those without, a HEAD that is
    written goes before the HEAD that comes with GET, and an exemption before a limit.
    """
    first_indexes: dict[str, int] = {}
    ordered = []
    for index, (pattern, methods, endpoint, is_exempt) in enumerate(entries):
        folder = len(pattern.rules) > 1
        slash = pattern.has_slash if is_exempt else None
        for route, signature in zip(pattern.routes, pattern.signatures, strict=True):
            first_index = first_indexes.setdefault(signature, index)
            rank = (first_index, folder, 0 if methods else 2, slash is None, index)
            ordered.append((rank, (route, methods, slash, endpoint)))
            if "GET" in methods and "HEAD" not in methods:
                rank = (first_index, folder, 1, slash is None, index)
                ordered.append((rank, (route, ("HEAD",), slash, endpoint)))
    ordered.sort(key=lambda entry: entry[0])
    return Matcher(route for _, route in ordered)


def why_slow_to_match(patterns: Iterable[Pattern]) -> str | None:
    """The reason why this many patterns together would be slow to match; None if they are not."""
    siblings: dict[str, dict[str, str]] = defaultdict(dict)
    for pattern in patterns:
        for rule, signature in zip(pattern.rules, pattern.signatures, strict=True):
            node = ""
            for written, part in zip(_parts(rule), _parts(signature), strict=True):
                if "<" in part:
                    siblings[node][part] = written
                node += f"/{part}"
    for node, found in siblings.items():
        if len(found) > MAX_SIBLINGS:
            return (
                f'below "{node or "/"}" there are {len(found)} segments such as "{min(found)}", '
                f"and more than {MAX_SIBLINGS} are slow to match: let the variable be the whole "
                "segment"
            )
        searches = sum(
            count_searches(read_pieces(part)) for part in found.values() if "<any" in part
        )
        if searches > MAX_COMBINATIONS:
            return (
                f'below "{node or "/"}" the <any(...)> between two other variables have '
                f"{searches:,} combinations in all, and more than {MAX_COMBINATIONS:,} are slow to "
                "match: use fewer alternatives"
            )
    return None
