"""Finds the most specific of the patterns that fit a path, with the precedence of Werkzeug.

The patterns form a tree, with one level for each part of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from sys import intern
from typing import NamedTuple, TypeAlias

from .converters import VARIABLE, Piece, Variable, example, full_match, read_pieces
from .parts import MatchPart, compile_part


class Route(NamedTuple):
    """A rule in Werkzeug's syntax, split into parts. Immutable."""

    text: str
    parts: tuple[str | tuple[Piece, ...], ...]
    """A part without variables is its text; one with variables is its pieces."""
    names: tuple[str, ...]
    """The names of its variables."""

    @classmethod
    def parse(cls, text: str) -> Route:
        """
        :param text: without repeated slashes.
        :raises ValueError, LookupError, TypeError, OverflowError, re.error: it cannot be used.
        """
        parts = tuple(_parts(text))
        for part in parts:
            if not isinstance(part, str):
                compile_part(part)  # raises now; the result is cached for the matcher
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
    """The sort key of parts with variables, by Werkzeug's precedence: the smallest is tried first.

    Parts with more texts go before those with fewer, then those with longer texts, then those with
    more variables, and then those whose converters have smaller weights.
    """
    texts = [
        text
        for piece in pieces
        if isinstance(piece, str)
        for text in piece.split("/")
        if text  # a slash does not count as text
    ]
    weights = tuple(piece.weight for piece in pieces if isinstance(piece, Variable))
    lengths = tuple((index, -len(text)) for index, text in enumerate(texts))
    return -len(texts), lengths, -len(weights), weights


_End: TypeAlias = tuple[Collection[str] | None, bool | None, int, tuple[str, ...]]
"""Of a rule: its methods (None for all), whether its paths end with a slash (None for both), what
to return, and the names of its variables."""

_Branch: TypeAlias = "tuple[Callable[[str, int], object] | None, int, MatchPart, bool, _Node]"
"""A part with variables, below a node.

1. If the part is a text (or none) and then one variable: whether that fits. Otherwise None.
2. The length of the text before the first variable.
3. Returns the values of the variables; None if the part does not fit.
4. Whether it takes all that is left of the path.
5. The node from which the path goes on.
"""


class _Node:
    """A node of the tree: how a path may go on from here, and what to return if it ends here."""

    __slots__ = ("_always", "_branches", "_dynamic", "_ends", "_lengths", "_static")

    def __init__(self) -> None:
        self._static: dict[str, _Node] = {}
        self._dynamic: dict[tuple[Piece, ...], _Node] = {}
        self._ends: tuple[_End, ...] = ()

    def add(self, parts: Iterable[str | tuple[Piece, ...]], end: _End) -> None:
        """Add a rule below this node.

        :param end: what to return for a path that fits.
        """
        node = self
        for part in parts:
            if isinstance(part, str):
                node = node._static.setdefault(intern(part), _Node())
            else:
                node = node._dynamic.setdefault(part, _Node())
        node._ends = (*node._ends, end)

    def finish(self) -> None:
        """Prepare for :meth:`find`, after all rules were added."""
        for child in self._children():
            child.finish()
        if "" in self._static:  # rules that end with a slash
            self._ends += self._static[""]._ends
        branches: dict[str, list[tuple[int, _Branch]]] = {}
        for rank, pieces in enumerate(sorted(self._dynamic, key=_weight)):
            beginning = pieces[0] if isinstance(pieces[0], str) else ""
            branch = _branch(pieces, len(beginning), self._dynamic[pieces])
            branches.setdefault(beginning, []).append((rank, branch))
        lengths = sorted({len(beginning) for beginning in branches})
        self._lengths = tuple(reversed(lengths))
        # The text before a first variable -> the branches to try for a part that begins with it, in
        # Werkzeug's order. They have this text before their variable, or a beginning of it.
        self._branches: dict[str, tuple[_Branch, ...]] = {}
        for beginning in branches:
            fitting = [
                ranked
                for length in lengths
                for ranked in branches.get(beginning[:length], ())
                if length <= len(beginning)
            ]
            fitting.sort(key=lambda ranked: ranked[0])
            self._branches[beginning] = tuple(branch for _, branch in fitting)
        # The branches to try for every part, if none of them has a text before its variable.
        self._always = self._branches.get("", ()) if self._lengths in ((), (0,)) else None

    def depth(self) -> int:
        """How many parts the longest rule below has."""
        return max((1 + child.depth() for child in self._children()), default=0)

    def _children(self) -> tuple[_Node, ...]:
        return (*self._static.values(), *self._dynamic.values())

    def find(
        self,
        method: str,
        has_slash: bool | None,
        parts: Sequence[str],
        at: int,
        values: tuple[str, ...],
    ) -> tuple[int, Mapping[str, str]] | None:
        """What to return for the parts from this index on, and all variables; None if nothing fits.

        :param has_slash: as in :meth:`Matcher.match`.
        :param values: those of the variables of the parts before.
        """
        if at < len(parts):
            part = parts[at]
            child = self._static.get(part)
            if child is not None:
                found = child.find(method, has_slash, parts, at + 1, values)
                if found is not None:
                    return found
            rest = ""
            branches = self._always
            for fits, start, match_part, takes_rest, child in (
                self._fitting(part) if branches is None else branches
            ):
                if takes_rest:
                    text = rest = rest or "/".join(parts[at:])
                else:
                    text = part
                if fits is None:
                    own = match_part(text)
                    if own is None:
                        continue
                elif fits(text, start):
                    own = (text[start:],)
                else:
                    continue
                after = len(parts) if takes_rest else at + 1
                found = child.find(method, has_slash, parts, after, values + own)
                if found is not None:
                    return found
            if part or at + 1 < len(parts):  # otherwise only a slash at the end is left
                return None
        for methods, slash, endpoint, names in self._ends:
            if (methods is None or method in methods) and (
                slash is None or has_slash is None or slash == has_slash
            ):
                return endpoint, dict(zip(names, values, strict=True))
        return None

    def _fitting(self, part: str) -> tuple[_Branch, ...]:
        """The branches to try for a part, in Werkzeug's order: those whose text before their first
        variable is the beginning of the part."""
        for length in self._lengths:
            found = self._branches.get(part[:length])
            if found is not None:
                return found
        return ()


def _branch(pieces: tuple[Piece, ...], start: int, child: _Node) -> _Branch:
    last = pieces[-1]
    fits = None
    if isinstance(last, Variable) and last.alternatives is None and len(pieces) == 1 + (start > 0):
        fits = full_match(last)
    return (
        fits,
        start,
        compile_part(pieces),
        not all(piece.part_isolating for piece in pieces if isinstance(piece, Variable)),
        child,
    )


class Matcher:
    """Finds the most specific of many routes. Immutable; any thread may call it.

    :param routes: (route, its methods or none for all, whether its paths end with a slash or None
        for both, what to return). Of equally specific ones the first is taken.
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
        """What to return for the most specific route, and its variables as text; None if no route
        fits.

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
        # A path may have thousands of segments: those beyond the longest rule stay one part.
        parts = path.lstrip("/").split("/", self._depth) if path else []
        return self._root.find(method, has_slash, parts, 0, ())
