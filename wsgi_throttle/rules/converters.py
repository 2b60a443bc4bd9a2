"""The variables of path patterns, made from the documented attributes of Werkzeug's converters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

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

VARIABLE = re.compile(
    r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\((?P<arguments>[^<>/]*)\))?:)?(?P<name>[a-zA-Z_]\w*)>",
    re.ASCII,
)
"""A variable in Werkzeug's syntax: ``<name>``, ``<int:name>``, ``<any(a, b):name>``."""


class _Path(PathConverter):
    regex = "(?s:[^/].*?)"  # Werkzeug's own stops at a newline
    part_isolating = False


CONVERTERS: dict[str, type[BaseConverter]] = {
    "default": UnicodeConverter,
    "string": UnicodeConverter,
    "any": AnyConverter,
    "path": _Path,
    "int": IntegerConverter,
    "float": FloatConverter,
    "uuid": UUIDConverter,
}
"""They say what a variable fits. They convert nothing: a value is always text of the path."""


class Variable(NamedTuple):
    """What texts a variable fits, whatever its name. Immutable; equal ones fit the same texts."""

    regex: str
    weight: int
    """Variables of smaller weight are tried first."""
    part_isolating: bool
    """Its values contain no slash. One whose values may is lazy: it takes as little as it can."""
    alternatives: tuple[str, ...] | None
    """All values of an ``any``; None for other converters."""
    is_uuid: bool

    @property
    def is_unbounded(self) -> bool:
        """Whether its values may have any length."""
        return self.alternatives is None and not self.is_uuid


_EXAMPLES = ("x", "1", "1.0", "00000000-0000-4000-8000-000000000000", *("x" * n for n in range(65)))


@lru_cache(maxsize=1024)
def example(variable: Variable) -> str | None:
    """A text that the variable fits. None if none is found, as for a string of a hundred."""
    if variable.alternatives is not None:
        return variable.alternatives[0]
    return next(filter(full_match(variable), _EXAMPLES), None)


def full_match(variable: Variable) -> Callable[..., re.Match[str] | None]:
    """The function of (text, start, end) that says whether the variable fits this whole range."""
    # Greedy is faster than lazy, and the result is the same, since both ends are given.
    return re.compile(variable.regex.replace(".*?", ".*")).fullmatch


class Unbounded:
    """A variable whose values may have any length: finds where a value may end if its start is
    known, and where it may start if its end is known.

    Both are ranges without gaps: each regular expression of Werkzeug's converters is an optional
    sign, and then something that reads the same in both directions and ends with a repetition,
    which a ``?`` behind it makes lazy.
    """

    __slots__ = ("_backwards", "_forwards", "fits", "is_lazy")

    def __init__(self, variable: Variable) -> None:
        self.fits = full_match(variable)
        self.is_lazy = not variable.part_isolating
        if self.is_lazy:
            return  # it may end anywhere, and begin anywhere but at a slash
        regex = variable.regex
        sign = "-?" if regex.startswith("-?") else ""
        unsigned = regex.removeprefix(sign)
        self._forwards = re.compile(f"(?=({regex}?)){regex}").match
        self._backwards = re.compile(f"(?=({unsigned}?)){unsigned}{sign}").match

    def ends(self, text: str, start: int) -> tuple[int, int] | None:
        """The smallest and the largest index where a value from ``start`` may end; None if none."""
        if self.is_lazy:
            return None if text.startswith("/", start) else (start + 1, len(text))
        match = self._forwards(text, start)
        return match and (match.end(1), match.end())

    def starts(self, text: str, reverse: str, start: int, end: int) -> tuple[int, int] | None:
        """The smallest and the largest index where a value that ends at ``end`` may begin; None if
        there is none.

        :param reverse: the text, reversed.
        :param start: between here and the beginning of the value there may be no slash.
        """
        if self.is_lazy:  # its value does not begin with a slash
            slash = text.find("/", start, end)
            return start, (end if slash < 0 else slash) - 1
        match = self._backwards(reverse, len(text) - end)
        return match and (len(text) - match.end(), len(text) - match.end(1))


Piece: TypeAlias = str | Variable


@lru_cache(maxsize=1024)
def _variable(converter: str, arguments: str) -> Variable:
    """The variable of a converter with these arguments.

    :raises ValueError, LookupError, TypeError: Werkzeug does not accept the arguments.
    """
    made: list[Variable] = []

    def record(routing_map: Map, *items: Any, **options: Any) -> BaseConverter:
        one = CONVERTERS[converter](routing_map, *items, **options)
        # any() without alternatives fits the empty text alone
        alternatives = (items or ("",)) if converter == "any" else None
        made.append(
            Variable(one.regex, one.weight, one.part_isolating, alternatives, converter == "uuid")
        )
        return one

    # Adding a rule to a map makes Werkzeug parse the arguments, and call the converter with them.
    converters = cast("Mapping[str, type[BaseConverter]]", {converter: record})
    Map([Rule(f"/<{converter}({arguments}):x>")], converters=converters)
    return made[0]


def read_pieces(text: str) -> tuple[Piece, ...]:
    """Split a part of a rule into texts and variables, in their order.

    :raises ValueError: a ``<`` begins no variable, or Werkzeug does not accept one.
    """
    pieces: list[Piece] = []
    end = 0
    for match in VARIABLE.finditer(text):
        pieces.append(text[end : match.start()])
        pieces.append(_variable(match["converter"] or "default", match["arguments"] or ""))
        end = match.end()
    pieces.append(text[end:])
    if any(isinstance(piece, str) and "<" in piece for piece in pieces):
        raise ValueError(f'"{text}" has a "<" that begins no variable')
    return tuple(piece for piece in pieces if piece != "")
