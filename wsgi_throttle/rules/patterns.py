"""Path patterns: Werkzeug's routing syntax and precedence.

What is matched is PATH_INFO, decoded as Werkzeug decodes it, since that is what the application
routes on. Converters match as text, so that no value can make a pattern that fits not fit.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from .converters import CONVERTERS, VARIABLE, read_pieces
from .match import Matcher, Route
from .parts import MAX_COMBINATIONS, MAX_UNBOUNDED, count_searches

MAX_SIBLINGS = 64
"""What differs and has a variable (``/<x>-1``, ``/<x>-2``) may have to be tried one by one, which
for a path of 8 KB is 0.1 ms each."""

MAX_SEGMENTS = 100
"""Each is a call deep to match, and the stack of Python is limited."""

_REST = "wsgi_throttle_rest"

_NUMBERS = ("int", "float")
_BOUNDED = ("any", "uuid")


@dataclass(frozen=True)
class Pattern:
    """One path pattern."""

    text: str
    """As it was written."""
    rules: tuple[str, ...]
    """In Werkzeug's syntax; the second is everything below a folder (``**``)."""
    variables: tuple[str, ...]
    """Their names."""
    routes: tuple[Route, ...] = field(compare=False, repr=False)
    """What a matcher takes, one for each of the rules."""

    FOLDER: ClassVar[str] = "**"

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """
        :raises ValueError: it is not a pattern, with what would be one.
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
        """The rules without the names of their variables: equal if they can't be told apart."""
        return tuple(VARIABLE.sub(_nameless, rule) for rule in self.rules)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The rules with nothing of a variable but its weight: equal if none is more specific."""
        return tuple(VARIABLE.sub(_weight, rule) for rule in self.rules)


def _segment(segment: str, text: str, variables: dict[str, str]) -> str:
    """A segment in Werkzeug's syntax; adds what it declares to the variables."""
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
    """
    :raises ValueError: it would be slow to match.
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
    """What is matched as one each: the segments, and from a path variable
    on all that follows."""
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


def matcher(entries: Sequence[tuple[Pattern, Sequence[str], int]]) -> Matcher:
    """A matcher for (pattern, methods, what to return), in the order of the file.

    Within a pattern: an explicit path before a folder's own, rules with methods before one without,
    an explicit HEAD before the HEAD that GET brings.
    """
    first_indexes: dict[str, int] = {}
    ordered = []
    for index, (pattern, methods, endpoint) in enumerate(entries):
        folder = len(pattern.rules) > 1
        for route, signature in zip(pattern.routes, pattern.signatures, strict=True):
            first_index = first_indexes.setdefault(signature, index)
            ordered.append(
                ((first_index, folder, 0 if methods else 2, index), route, methods, endpoint)
            )
            if "GET" in methods and "HEAD" not in methods:
                ordered.append(((first_index, folder, 1, index), route, ("HEAD",), endpoint))
    ordered.sort(key=lambda entry: entry[0])
    return Matcher((route, methods, endpoint) for _, route, methods, endpoint in ordered)


def why_slow_to_match(patterns: Iterable[Pattern]) -> str | None:
    """Why it would be slow to match so many, or None."""
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
