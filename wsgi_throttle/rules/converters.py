"""The variables of path patterns: Werkzeug's converters, as far as matching needs to know them."""

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
"""A variable in a rule."""


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
"""Only their documented attributes are used, so that a value is always the text of the path."""


class Variable(NamedTuple):
    """What a variable may be. Two that are equal match alike, whatever their names."""

    regex: str
    weight: int
    """The smaller, the earlier it is tried."""
    part_isolating: bool
    """It contains no slash. Those that may are lazy: they take as little as they can."""
    alternatives: tuple[str, ...] | None
    """All that an ``any`` can be; None for other variables."""
    is_uuid: bool

    @property
    def is_unbounded(self) -> bool:
        """Its length is not known before a path is seen."""
        return self.alternatives is None and not self.is_uuid


def full_match(variable: Variable) -> Callable[..., re.Match[str] | None]:
    """Whether a text is one for the variable: ``(text, start, end)`` as in ``fullmatch`` of re."""
    # Greedy is faster than lazy, and gives the same where both ends are given.
    return re.compile(variable.regex.replace(".*?", ".*")).fullmatch


class Unbounded:
    """A variable of any length: where it may end if it begins at a given place, and the reverse.

    Either is a range of indexes without gaps, since every regular expression of Werkzeug's is an
    optional sign and something that reads the same from both ends, whose last repetition is lazy
    with a ``?`` behind it.
    """

    __slots__ = ("_backwards", "_forwards", "fits", "is_lazy")

    def __init__(self, variable: Variable) -> None:
        self.fits = full_match(variable)
        self.is_lazy = not variable.part_isolating
        if self.is_lazy:
            return  # it may end and begin anywhere but before a slash
        regex = variable.regex
        sign = "-?" if regex.startswith("-?") else ""
        unsigned = regex.removeprefix(sign)
        self._forwards = re.compile(f"(?=({regex}?)){regex}").match
        self._backwards = re.compile(f"(?=({unsigned}?)){unsigned}{sign}").match

    def ends(self, text: str, start: int) -> tuple[int, int] | None:
        """The least and the greatest index where it may end."""
        if self.is_lazy:
            return None if text.startswith("/", start) else (start + 1, len(text))
        match = self._forwards(text, start)
        return match and (match.end(1), match.end())

    def starts(self, text: str, reverse: str, start: int, end: int) -> tuple[int, int] | None:
        """The least and the greatest index where it may begin to end at a given place.

        :param reverse: the text, from its end to its start.
        :param start: there is no slash from here to where it begins.
        """
        if self.is_lazy:  # it does not begin with a slash
            slash = text.find("/", start, end)
            return start, (end if slash < 0 else slash) - 1
        match = self._backwards(reverse, len(text) - end)
        return match and (len(text) - match.end(), len(text) - match.end(1))


Piece: TypeAlias = str | Variable


@lru_cache(maxsize=1024)
def _variable(converter: str, arguments: str) -> Variable:
    """
    :raises ValueError, LookupError, TypeError: Werkzeug refuses the arguments.
    """
    made: list[Variable] = []

    def record(routing_map: Map, *items: Any, **options: Any) -> BaseConverter:
        one = CONVERTERS[converter](routing_map, *items, **options)
        # any() without alternatives matches the empty text
        alternatives = (items or ("",)) if converter == "any" else None
        made.append(
            Variable(one.regex, one.weight, one.part_isolating, alternatives, converter == "uuid")
        )
        return one

    # Werkzeug reads the arguments: it calls the converters of a map for each rule that is added.
    converters = cast("Mapping[str, type[BaseConverter]]", {converter: record})
    Map([Rule(f"/<{converter}({arguments}):x>")], converters=converters)
    return made[0]


def read_pieces(text: str) -> tuple[Piece, ...]:
    """The texts and variables of a part, in their order."""
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
