"""Path patterns: Werkzeug's routing syntax and precedence, by the tree that Werkzeug makes of them.

What is matched is PATH_INFO, decoded as Werkzeug decodes it, since that is what the application
routes on. Converters match as text, so that no value can make a pattern that fits not fit.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from sys import intern
from typing import Any, ClassVar, NamedTuple

from werkzeug.routing import (
    AnyConverter,
    BaseConverter,
    FloatConverter,
    IntegerConverter,
    Map,
    PathConverter,
    Rule,
    UnicodeConverter,
    UUIDConverter,
)
from werkzeug.routing.matcher import State

MAX_SIBLINGS = 64
"""What differs and has a variable (``/<x>-1``, ``/<x>-2``) may have to be tried one by one."""

_VARIABLE = re.compile(
    r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\((?P<arguments>[^<>/]*)\))?:)?(?P<name>[a-zA-Z_]\w*)>"
)
_SLASHES = re.compile("/{2,}")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_REST = "wsgi_throttle_rest"


class _Integer(IntegerConverter):
    to_python = BaseConverter.to_python


class _Float(FloatConverter):
    to_python = BaseConverter.to_python


class _UUID(UUIDConverter):
    to_python = BaseConverter.to_python


class _Path(PathConverter):
    regex = "(?s:[^/].*?)"  # Werkzeug's own stops at a newline
    part_isolating = False


CONVERTERS: dict[str, type[BaseConverter]] = {
    "default": UnicodeConverter,
    "string": UnicodeConverter,
    "any": AnyConverter,
    "path": _Path,
    "int": _Integer,
    "float": _Float,
    "uuid": _UUID,
}

_NUMBERS = ("int", "float")
_BOUNDED = ("any", "uuid")
MAX_UNBOUNDED = 2
"""Variables of any length in what is matched as one: with three, a path of some thousand characters
takes seconds."""


@dataclass(frozen=True)
class Pattern:
    """One path pattern."""

    text: str
    """As it was written."""
    rules: tuple[str, ...]
    """In Werkzeug's syntax; the second is everything below a folder (``**``)."""
    variables: tuple[str, ...]
    """Their names."""

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
            Matcher([(rule, (), 0) for rule in rules])
        except (ValueError, LookupError, TypeError, OverflowError, re.error) as error:
            raise ValueError(f'"{text}" is not a path pattern: {error}') from error
        return cls(text, rules, tuple(variables))

    @property
    def signatures(self) -> tuple[str, ...]:
        """The rules without the names of their variables: equal if they can't be told apart."""
        return tuple(_VARIABLE.sub(_nameless, rule) for rule in self.rules)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The rules with nothing of a variable but its weight: equal if none is more specific."""
        return tuple(_VARIABLE.sub(_weight, rule) for rule in self.rules)


def _segment(segment: str, text: str, variables: dict[str, str]) -> str:
    """A segment in Werkzeug's syntax; adds what it declares to the variables."""
    if segment == "*":
        name = f"wsgi_throttle_{len(variables)}"
        variables[name] = "default"
        return f"<{name}>"
    if segment in (".", ".."):
        raise ValueError(f'"{text}" has a "{segment}": write the path that it leads to')
    found = list(_VARIABLE.finditer(segment))
    rest = _VARIABLE.sub("", segment)
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
    :raises ValueError: Werkzeug's regular expressions for it would be slow.
    """
    for part in _parts(rule):
        unbounded = [
            match
            for match in _VARIABLE.finditer(part)
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
    """What Werkzeug matches by one regular expression each: the segments, and from a path variable
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


class _Rule(Rule):
    """A rule that cannot build URLs, which is nine tenths of the cost of making one."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        def build(*_: Any) -> tuple[str, str]:
            raise NotImplementedError

        return build


_End = tuple[Collection[str] | None, int, tuple[str, ...]]
"""The methods of a rule, None for all, what to return, and the names of its variables."""
_Match = Callable[[str, int], re.Match[str] | None]


def _end(rule: Rule) -> _End:
    return rule.methods, rule.endpoint, tuple(map(intern, rule._converters))


class _Step(NamedTuple):
    """A part that has variables."""

    match: _Match
    """Of the regular expression from the first variable on."""
    start: int
    """The length of the text before that."""
    final: bool
    """It takes all that is left of the path."""
    below: _Node


class _Node:
    """Where a path may go on to from one place in it, and what to return where it ends there.

    Finds what ``StateMachineMatcher.match`` of Werkzeug finds. That tries the regular expression of
    every part that has variables; this only of those whose text before the first variable fits.
    """

    __slots__ = ("_ends", "_lengths", "_static", "_steps")

    def __init__(self, state: State, matching: Callable[[str], _Match]) -> None:
        self._static = {
            intern(text): _Node(below, matching) for text, below in state.static.items()
        }
        with_slash = state.static.get("", State())
        self._ends = tuple(map(_end, (*state.rules, *with_slash.rules)))
        steps = []
        for part, below in state.dynamic:
            text, variable, rest = part.content.partition("(?P<")
            text = _ESCAPED.sub(r"\1", text)
            match = matching(variable + rest)
            step = _Step(match, len(text), part.final, _Node(below, matching))
            steps.append((text, step))
        self._steps = {
            beginning: tuple(step for text, step in steps if beginning.startswith(text))
            for beginning, _ in steps
        }
        """By the longest text before a variable that a part begins with: what has this text, or
        only the beginning of it."""
        self._lengths = tuple(sorted({len(text) for text in self._steps}, reverse=True))

    def find(
        self, method: str, parts: Sequence[str], at: int, values: tuple[str, ...]
    ) -> tuple[int, Mapping[str, str]] | None:
        """What wins for the parts from this index on.

        :param values: of the variables before.
        """
        if at < len(parts):
            part = parts[at]
            below = self._static.get(part)
            if below is not None:
                found = below.find(method, parts, at + 1, values)
                if found is not None:
                    return found
            for match, start, final, below in self._fitting(part):
                matched = match("/".join(parts[at:]) if final else part, start)
                if matched is not None:
                    to = len(parts) if final else at + 1
                    found = below.find(method, parts, to, values + matched.groups())
                    if found is not None:
                        return found
            if part or at + 1 < len(parts):  # more than a slash at the end
                return None
        for methods, endpoint, names in self._ends:
            if methods is None or method in methods:
                # <path:x>/ has a group after its variables, for the slash
                return endpoint, dict(zip(names, values, strict=False))
        return None

    def _fitting(self, part: str) -> tuple[_Step, ...]:
        """What to try, in Werkzeug's order."""
        for length in self._lengths:
            found = self._steps.get(part[:length])
            if found is not None:
                return found
        return ()


class Matcher:
    """Finds the most specific of many patterns. Immutable; any thread may call it.

    :param rules: (a rule in Werkzeug's syntax without repeated slashes, its methods or none for
        all, what to return). Of equally specific ones the first is taken.
    """

    def __init__(self, rules: Iterable[tuple[str, Collection[str], int]]) -> None:
        tree = Map(converters=CONVERTERS, strict_slashes=False, merge_slashes=False)
        self._exact: dict[str, tuple[_End, ...]] = {}
        for text, methods, endpoint in rules:
            rule = _Rule(text, endpoint=endpoint)
            rule.methods = set(methods) or None  # Werkzeug's constructor would add HEAD to GET
            tree.add(rule)
            if "<" not in text:
                self._exact[text] = (*self._exact.get(text, ()), _end(rule))
        tree.update()
        state = tree._matcher._root
        for _ in ("the host, which is none", "what is before the first slash"):
            state = state.static.get("", State())
        self._root = _Node(state, cache(lambda regex: re.compile(regex).match))

    def match(self, method: str, path: str) -> tuple[int, Mapping[str, str]] | None:
        """What was to be returned for the pattern that wins, and its variables as text.

        :param method: in upper case.
        """
        # Nothing is more specific than a pattern without variables.
        for methods, endpoint, _ in self._exact.get(path, ()):
            if methods is None or method in methods:
                return endpoint, {}
        parts = path.lstrip("/").split("/") if path else []
        return self._root.find(method, parts, 0, ())


def matcher(entries: Sequence[tuple[Pattern, Sequence[str], int]]) -> Matcher:
    """A matcher for (pattern, methods, what to return), in the order of the file.

    Within a pattern: an explicit path before a folder's own, rules with methods before one without,
    an explicit HEAD before the HEAD that GET brings.
    """
    first: dict[str, int] = {}
    ordered = []
    for index, (pattern, methods, endpoint) in enumerate(entries):
        folder = len(pattern.rules) > 1
        for rule, signature in zip(pattern.rules, pattern.signatures, strict=True):
            place = first.setdefault(signature, index)
            ordered.append(((place, folder, 0 if methods else 2, index), rule, methods, endpoint))
            if "GET" in methods and "HEAD" not in methods:
                ordered.append(((place, folder, 1, index), rule, ("HEAD",), endpoint))
    ordered.sort(key=lambda entry: entry[0])
    return Matcher((rule, methods, endpoint) for _, rule, methods, endpoint in ordered)


def too_many(patterns: Iterable[Pattern]) -> str | None:
    """Why it would be slow to match so many, or None."""
    siblings: dict[str, set[str]] = defaultdict(set)
    for pattern in patterns:
        for signature in pattern.signatures:
            node = ""
            for part in _parts(signature):
                if "<" in part:
                    siblings[node].add(part)
                node += f"/{part}"
    for node, found in siblings.items():
        if len(found) > MAX_SIBLINGS:
            return (
                f'below "{node or "/"}" there are {len(found)} segments such as "{min(found)}", '
                f"and more than {MAX_SIBLINGS} are slow to match: let the variable be the whole "
                "segment"
            )
    return None


MAX_FORMS = 4
"""How many readings of one path are matched at most."""

_plain = re.compile(r"((?:/[!-\-0-~][!-.0-~]*)*)/?").fullmatch
"""Of a path that can be read in one way only: visible ASCII, no empty segment but at its end, and
none that begins with a dot."""

_has_dots = re.compile(r"/\.\.?(?:/|\Z)").search

_EDGES = "".join(
    char for char in map(chr, range(0x3001)) if char.isspace() or unicodedata.category(char) == "Cc"
)
"""What routers drop at the end of a path: white space, as ``str.strip`` knows it and ``$`` of a
regular expression a newline, and control characters."""


def forms(path_info: str) -> tuple[str, ...]:
    """The readings of a path, each to be matched: how the routers of applications may see it.

    In each of them repeated slashes are one, and a slash at the end is none. The first is the path
    as it is written. Others, where they differ, have bytes that are not UTF-8 left out, what is in
    _EDGES stripped from both ends of every segment, and ``.`` and ``..`` resolved. These three have
    eight combinations, of which the first MAX_FORMS that differ are taken, the likeliest first.
    """
    plain = _plain(path_info)
    if plain:
        return (plain[1] or "/",)
    written = valid = path_info
    if not path_info.isascii():
        raw = path_info.encode("latin-1", "replace")
        written = valid = raw.decode("utf-8", "replace")
        if "\ufffd" in written:
            valid = raw.decode("utf-8", "ignore")
    path = _merged(written)
    if valid is written and not _has_edges(path):
        return tuple({path: 0, _resolved(path.split("/")): 0}) if "/." in path else (path,)
    found = {path: 0}
    for other in _other_forms(path, path if valid is written else _merged(valid)):
        found[other] = 0
        if len(found) == MAX_FORMS:
            break
    return tuple(found)


def _merged(path: str) -> str:
    return "/" + _SLASHES.sub("/", path).strip("/")


def _has_edges(path: str) -> bool:
    """Whether there may be anything to strip, which few paths have."""
    return " " in path or not path.isprintable()


def _other_forms(path: str, valid: str) -> Iterator[str]:
    """The readings of a path besides the one as it is written, some of them equal. One that is
    known to be equal is not made, since a path may have thousands of segments.

    :param valid: the path without the bytes that are not UTF-8.
    """
    segments = stripped = valid.split("/")
    has_edges = _has_edges(valid)
    if has_edges:
        stripped = [segment.strip(_EDGES) for segment in segments]
        yield _joined(stripped)
    has_dots = "." in stripped or ".." in stripped
    if has_dots:
        # A segment of nothing but spaces is still one that a ".." takes away.
        yield _resolved(stripped)
    if _has_dots(path):
        yield _resolved(path.split("/"))
    yield valid
    if has_dots and "" in stripped[1:]:
        yield _resolved([segment for segment in stripped if segment])
    if valid != path and has_edges:
        yield _joined([segment.strip(_EDGES) for segment in path.split("/")])
        if has_dots:
            yield _resolved(segments)


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
