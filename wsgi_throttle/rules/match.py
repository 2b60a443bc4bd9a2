"""Finds the rule whose path pattern fits a path best, as Werkzeug's routing does.

The rules make a tree with one level for each part of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from sys import intern
from typing import NamedTuple, TypeAlias

from .converters import VARIABLE, Piece, Variable, example, read_pieces, whole
from .parts import Values, compile_part


class Route(NamedTuple):
    """A rule in Werkzeug's syntax, taken apart."""

    text: str
    parts: tuple[str | tuple[Piece, ...], ...]
    """The text of those without variables, the pieces of the others."""
    names: tuple[str, ...]
    """Of its variables."""

    @classmethod
    def parse(cls, text: str) -> Route:
        """
        :param text: without repeated slashes.
        :raises ValueError, LookupError, TypeError, OverflowError, re.error: it is wrong.
        """
        parts = tuple(_parts(text))
        for part in parts:
            if not isinstance(part, str):
                compile_part(part)  # which keeps it for the matcher
        return cls(text, parts, tuple(intern(match["name"]) for match in VARIABLE.finditer(text)))

    def example(self) -> str | None:
        """A path that it fits; None where none is found."""
        texts = [
            piece if isinstance(piece, str) else example(piece)
            for part in self.parts
            for piece in ("/", *((part,) if isinstance(part, str) else part))
        ]
        return None if None in texts else "".join(filter(None, texts))


def _parts(rule: str) -> Iterator[str | tuple[Piece, ...]]:
    segments = rule.removeprefix("/").split("/")
    for index, segment in enumerate(segments):
        pieces = read_pieces(segment)
        variables = [piece for piece in pieces if isinstance(piece, Variable)]
        if not all(variable.part_isolating for variable in variables):
            yield read_pieces("/".join(segments[index:]))
            return
        yield pieces if variables else segment


_Weight: TypeAlias = tuple[int, tuple[tuple[int, int], ...], int, tuple[int, ...]]


def _weight(pieces: tuple[Piece, ...]) -> _Weight:
    """Orders parts with variables as Werkzeug does: the smallest is tried first. More texts go
    before fewer, then longer before shorter ones, more variables before fewer, and then those whose
    converters weigh less."""
    texts = [
        text
        for piece in pieces
        if isinstance(piece, str)
        for text in piece.split("/")
        if text  # a slash is no text
    ]
    weights = tuple(piece.weight for piece in pieces if isinstance(piece, Variable))
    lengths = tuple((index, -len(text)) for index, text in enumerate(texts))
    return -len(texts), lengths, -len(weights), weights


_End: TypeAlias = tuple[Collection[str] | None, bool | None, int, tuple[str, ...]]
"""The methods of a rule, None for all; whether its paths end with a slash, None for both; what to
return; and the names of its variables."""

_Step: TypeAlias = "tuple[Callable[[str, int], object] | None, int, Values, bool, _Node]"
"""A part with variables.

1. If one variable is all from an index on: whether it fits there. Otherwise None.
2. That index: the length of the text before the first variable.
3. What the variables get, None if the part does not fit.
4. Whether it takes all that is left of the path.
5. Where the path goes on.
"""


class _Node:
    """Where paths may go on to from one place in them, and what to return for those that end."""

    __slots__ = ("_always", "_dynamic", "_ends", "_lengths", "_static", "_steps")

    def __init__(self) -> None:
        self._static: dict[str, _Node] = {}
        self._dynamic: dict[tuple[Piece, ...], _Node] = {}
        self._ends: tuple[_End, ...] = ()

    def add(self, parts: Iterable[str | tuple[Piece, ...]], end: _End) -> None:
        """Grow the branch of a rule."""
        node = self
        for part in parts:
            if isinstance(part, str):
                node = node._static.setdefault(intern(part), _Node())
            else:
                node = node._dynamic.setdefault(part, _Node())
        node._ends = (*node._ends, end)

    def finish(self) -> None:
        """Make ready to find, when all rules were added."""
        for below in self._below():
            below.finish()
        if "" in self._static:  # rules that end with a slash
            self._ends += self._static[""]._ends
        steps: dict[str, list[tuple[int, _Step]]] = {}
        for rank, pieces in enumerate(sorted(self._dynamic, key=_weight)):
            beginning = pieces[0] if isinstance(pieces[0], str) else ""
            step = _step(pieces, len(beginning), self._dynamic[pieces])
            steps.setdefault(beginning, []).append((rank, step))
        lengths = sorted({len(beginning) for beginning in steps})
        self._lengths = tuple(reversed(lengths))
        self._steps: dict[str, tuple[_Step, ...]] = {}
        for beginning in steps:
            fitting = [
                ranked
                for length in lengths
                for ranked in steps.get(beginning[:length], ())
                if length <= len(beginning)
            ]
            fitting.sort(key=lambda ranked: ranked[0])
            self._steps[beginning] = tuple(step for _, step in fitting)
        self._always = self._steps.get("", ()) if self._lengths in ((), (0,)) else None

    def depth(self) -> int:
        """How many parts the longest rule below has."""
        return max((1 + below.depth() for below in self._below()), default=0)

    def _below(self) -> tuple[_Node, ...]:
        return (*self._static.values(), *self._dynamic.values())

    def find(
        self,
        method: str,
        has_slash: bool | None,
        parts: Sequence[str],
        at: int,
        values: tuple[str, ...],
    ) -> tuple[int, Mapping[str, str]] | None:
        """What wins for the parts from this index on.

        :param has_slash: as in :meth:`Matcher.match`.
        :param values: of the variables before.
        """
        if at < len(parts):
            part = parts[at]
            below = self._static.get(part)
            if below is not None:
                found = below.find(method, has_slash, parts, at + 1, values)
                if found is not None:
                    return found
            rest = ""
            steps = self._always
            for fits, start, matched, final, below in (
                self._fitting(part) if steps is None else steps
            ):
                if final:
                    text = rest = rest or "/".join(parts[at:])
                else:
                    text = part
                if fits is None:
                    own = matched(text)
                    if own is None:
                        continue
                elif fits(text, start):
                    own = (text[start:],)
                else:
                    continue
                after = len(parts) if final else at + 1
                found = below.find(method, has_slash, parts, after, values + own)
                if found is not None:
                    return found
            if part or at + 1 < len(parts):  # more than a slash at the end
                return None
        for methods, slash, endpoint, names in self._ends:
            if (methods is None or method in methods) and (
                slash is None or has_slash is None or slash == has_slash
            ):
                return endpoint, dict(zip(names, values, strict=True))
        return None

    def _fitting(self, part: str) -> tuple[_Step, ...]:
        """The steps whose text before the first variable the part begins with, in Werkzeug's
        order."""
        for length in self._lengths:
            found = self._steps.get(part[:length])
            if found is not None:
                return found
        return ()


def _step(pieces: tuple[Piece, ...], start: int, below: _Node) -> _Step:
    last = pieces[-1]
    fits = None
    if isinstance(last, Variable) and last.alternatives is None and len(pieces) == 1 + (start > 0):
        fits = whole(last)
    return (
        fits,
        start,
        compile_part(pieces),
        not all(piece.part_isolating for piece in pieces if isinstance(piece, Variable)),
        below,
    )


class Matcher:
    """Finds the most specific of many patterns. Immutable; any thread may call it.

    :param routes: (a route, its methods or none for all, whether the paths that it is for end with
        a slash or None for both, what to return). Of equally specific ones the first is taken.
    """

    def __init__(self, routes: Iterable[tuple[Route, Collection[str], bool | None, int]]) -> None:
        self._exact: dict[str, tuple[_End, ...]] = {}
        self._root = _Node()
        for route, methods, slash, endpoint in routes:
            end = (frozenset(methods) or None, slash, endpoint, route.names)
            self._root.add(route.parts, end)
            if not route.names:
                self._exact[route.text] = (*self._exact.get(route.text, ()), end)
        self._root.finish()
        self._depth = self._root.depth()

    def match(
        self, method: str, path: str, has_slash: bool | None = None
    ) -> tuple[int, Mapping[str, str]] | None:
        """What was to be returned for the pattern that wins, and its variables as text.

        :param method: in upper case.
        :param path: without a slash at its end.
        :param has_slash: whether it had one; None, and all patterns are for it.
        """
        # Nothing is more specific than a pattern without variables.
        for methods, slash, endpoint, _ in self._exact.get(path, ()):
            if (methods is None or method in methods) and (
                slash is None or has_slash is None or slash == has_slash
            ):
                return endpoint, {}
        # What lies deeper than every rule is left as one part: a path may have thousands.
        parts = path.lstrip("/").split("/", self._depth) if path else []
        return self._root.find(method, has_slash, parts, 0, ())
