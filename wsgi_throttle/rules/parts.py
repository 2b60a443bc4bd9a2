"""Matches one part of a path against one part of a rule.

A *part* is what is matched as one: a segment, or, from a variable on that may contain slashes, all
that is left of the path.

The variables get the values that Werkzeug's regular expressions would give them, but without
backtracking, which may take a second for one long path. Here the time is proportional to the length
of the path: a part is compared at both of its ends, and the text between two variables is searched
for once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple, TypeAlias

from .converters import CONVERTERS, Piece, Unbounded, Variable

MAX_COMBINATIONS = 1_000
"""How many combinations the alternatives of the ``any`` variables of one part may have."""
MAX_UNBOUNDED = 2
"""How many variables of any length one part may have. What stands between two of them is searched
for once; with three, all pairs of indexes would have to be tried."""
UUID_LENGTH = 36

_is_uuid = re.compile(CONVERTERS["uuid"].regex).fullmatch
_find_uuids = re.compile(f"(?={CONVERTERS['uuid'].regex})").finditer


MatchPart: TypeAlias = Callable[[str], "tuple[str, ...] | None"]
"""Returns the values of the variables for a part of a path; None if it does not fit."""


class _Choice(NamedTuple):
    """One combination of the alternatives in a :class:`_Fixed`."""

    rank: int
    """Of several that fit, Werkzeug takes the one of the lowest rank."""
    length: int
    values: tuple[str, ...]
    """The values of its variables; for a UUID an empty text, until one is found."""


_Layout: TypeAlias = tuple[int, tuple[tuple[int, int], ...]]
"""The length of a choice in characters, and (index among the variables, offset) of its UUIDs."""


class _Fixed:
    """Texts, ``any`` variables and UUIDs in a row, whose alternatives have only a few lengths.

    Choices of one layout differ in their text alone, so that one look into a dictionary says which
    of them, if any, stands at a given index.
    """

    __slots__ = ("_choices", "_layouts", "_only")

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._layouts: dict[_Layout, dict[str, _Choice]] = {}
        alternatives = [
            (piece,) if isinstance(piece, str) else piece.alternatives or ("",) for piece in pieces
        ]
        for rank, chosen in enumerate(product(*alternatives)):
            text, length = "", 0
            uuids: list[tuple[int, int]] = []
            values: list[str] = []
            for piece, alternative in zip(pieces, chosen, strict=True):
                if isinstance(piece, Variable):
                    if piece.is_uuid:
                        uuids.append((len(values), length))
                        length += UUID_LENGTH
                    values.append(alternative)
                text += alternative
                length += len(alternative)
            layout = self._layouts.setdefault((length, tuple(uuids)), {})
            layout.setdefault(text, _Choice(rank, length, tuple(values)))
        choices = [item for layout in self._layouts.values() for item in layout.items()]
        has_uuid = any(uuids for _, uuids in self._layouts)
        self._only = choices[0][0] if len(choices) == 1 and not has_uuid else None
        self._choices = tuple(choice for _, choice in choices)

    @property
    def texts(self) -> Mapping[str, _Choice] | None:
        """Text -> choice. None if there are UUIDs."""
        if any(uuids for _, uuids in self._layouts):
            return None
        return {text: one for layout in self._layouts.values() for text, one in layout.items()}

    def at_start(self, text: str) -> Sequence[_Choice]:
        """The choices that the text begins with, in Werkzeug's order."""
        if self._only is not None:
            return self._choices if text.startswith(self._only) else ()
        found = (self._at(text, 0, layout) for layout in self._layouts)
        return sorted(one for one in found if one is not None)

    def at_end(self, text: str) -> Sequence[_Choice]:
        """The choices that the text ends with."""
        if self._only is not None:
            return self._choices if text.endswith(self._only) else ()
        found = (self._at(text, len(text) - layout[0], layout) for layout in self._layouts)
        return [one for one in found if one is not None]

    def search(
        self, text: str, ends: tuple[int, int], starts: tuple[int, int], is_first: bool
    ) -> tuple[int, _Choice] | None:
        """The first or the last choice that stands between two variables, and its index. Of those
        at one index, the one that Werkzeug prefers. None if there is none.

        :param ends: the smallest and the largest index where the variable before it may end.
        :param starts: the smallest and the largest index where the variable after it may begin.
        :param is_first: find the first one, otherwise the last one.
        """
        if self._only is not None:
            choice = self._choices[0]
            low = max(ends[0], starts[0] - choice.length)
            high = min(ends[1], starts[1] - choice.length)
            if low > high:
                return None
            find = text.find if is_first else text.rfind
            at = find(self._only, low, high + choice.length)
            return None if at < 0 else (at, choice)
        found = [
            one
            for layout in self._layouts
            for one in self._search(text, ends, starts, is_first, layout)
        ]
        if len(found) < 2:
            return found[0] if found else None
        return min(found, key=lambda one: (one[0] if is_first else -one[0], one[1].rank))

    def _search(
        self,
        text: str,
        ends: tuple[int, int],
        starts: tuple[int, int],
        is_first: bool,
        layout: _Layout,
    ) -> list[tuple[int, _Choice]]:
        """The same for the choices of one layout. The result has the wanted one, perhaps among
        others."""
        length, uuids = layout
        low, high = max(ends[0], starts[0] - length), min(ends[1], starts[1] - length)
        if low > high:
            return []
        if not uuids:
            find = text.find if is_first else text.rfind
            return [
                (at, choice)
                for fixed, choice in self._layouts[layout].items()
                if (at := find(fixed, low, high + length)) >= 0
            ]
        offset = uuids[0][1]
        indexes = [one.start() - offset for one in _find_uuids(text, low + offset, high + length)]
        return [
            (at, choice)
            for at in indexes
            if at <= high and (choice := self._at(text, at, layout)) is not None
        ]

    def _at(self, text: str, at: int, layout: _Layout) -> _Choice | None:
        """The choice of a layout that stands at an index, or None. A negative index is none, since
        the text that is cut out then is too short."""
        length, uuids = layout
        fixed = text[at : at + length]
        values = []
        for index, offset in reversed(uuids):
            begin = offset
            uuid = fixed[begin : begin + UUID_LENGTH]
            if _is_uuid(uuid) is None:
                return None
            values.append((index, uuid))
            fixed = fixed[:begin] + fixed[begin + UUID_LENGTH :]
        choice = self._layouts[layout].get(fixed)
        if choice is None or not uuids:
            return choice
        filled = list(choice.values)
        for index, uuid in values:
            filled[index] = uuid
        return choice._replace(values=tuple(filled))


class _PartPattern:
    """A part with variables, as a sequence: fixed, unbounded, fixed, unbounded, fixed."""

    __slots__ = ("_first", "_head", "_is_suffixed", "_middle", "_second", "_tail", "match")

    match: MatchPart

    def __init__(self, pieces: Sequence[Piece]) -> None:
        last = pieces[-1]
        self._is_suffixed = isinstance(last, str) and last.endswith("/")
        if self._is_suffixed:
            pieces = (*pieces[:-1], *filter(None, [str(last)[:-1]]))
        _check_combinations(pieces)
        unbounded: list[Unbounded] = []
        fixed: list[list[Piece]] = [[]]
        for piece in pieces:
            if isinstance(piece, Variable) and piece.is_unbounded:
                unbounded.append(Unbounded(piece))
                fixed.append([])
            else:
                fixed[-1].append(piece)
        if len(unbounded) > MAX_UNBOUNDED:
            raise ValueError(
                f"it has more than {MAX_UNBOUNDED} variables of any length in one part"
            )
        self._first, self._second = (*unbounded, None, None)[:2]
        self._head, *middle, self._tail = map(_Fixed, fixed if unbounded else [*fixed, []])
        self._middle = middle[0] if middle else None
        texts = self._head.texts
        self.match = self._match
        if not unbounded and texts is not None:
            self.match = {text: choice.values for text, choice in texts.items()}.get

    def _match(self, text: str) -> tuple[str, ...] | None:
        if self._is_suffixed:  # one slash at the end is optional; two do not fit
            text = text.removesuffix("/")
            if text.endswith("/"):
                return None
        for head in self._head.at_start(text):
            values: tuple[str, ...] | None
            if self._first is None:
                values = () if head.length == len(text) else None
            elif self._second is None or self._middle is None:
                values = self._one(text, head.length, self._first)
            else:
                values = self._two(text, head.length, self._first, self._middle, self._second)
            if values is not None:
                return head.values + values
        return None

    def _one(self, text: str, start: int, first: Unbounded) -> tuple[str, ...] | None:
        """The values of the only unbounded variable and of what follows it."""
        tails = self._tail.at_end(text)
        if len(tails) > 1:
            tails = sorted(tails, key=lambda tail: tail.length, reverse=first.is_lazy)
        for tail in tails:
            end = len(text) - tail.length
            if first.fits(text, start, end):
                return text[start:end], *tail.values
        return None

    def _two(
        self, text: str, start: int, first: Unbounded, middle: _Fixed, second: Unbounded
    ) -> tuple[str, ...] | None:
        """The values of the first of two unbounded variables and of what follows it.

        As in a regular expression, the first one is as long as it can be (if lazy, as short), and
        then the second.
        """
        ends = first.ends(text, start)
        if ends is None:
            return None
        reverse = text[::-1]
        best: tuple[tuple[int, int, int], tuple[str, ...]] | None = None
        for tail in self._tail.at_end(text):
            end = len(text) - tail.length
            starts = second.starts(text, reverse, start, end)
            found = starts and middle.search(text, ends, starts, first.is_lazy)
            if not found:
                continue
            at, choice = found
            key = (
                at if first.is_lazy else -at,
                choice.rank,
                end if second.is_lazy else -end,
            )
            if best is None or key < best[0]:
                own = (text[start:at], *choice.values, text[at + choice.length : end])
                best = (key, own + tail.values)
        return best and best[1]


def _combinations(pieces: Sequence[Piece]) -> int:
    return prod(
        len(piece.alternatives)
        for piece in pieces
        if isinstance(piece, Variable) and piece.alternatives
    )


def _check_combinations(pieces: Sequence[Piece]) -> None:
    combinations = _combinations(pieces)
    if combinations > MAX_COMBINATIONS:
        raise ValueError(
            f"the alternatives of its <any(...)> have {combinations:,} combinations in what is "
            f"matched as one, and more than {MAX_COMBINATIONS:,} are slow: use fewer of them, or "
            "<name>, which is any text"
        )


@lru_cache(maxsize=1024)
def compile_part(pieces: tuple[Piece, ...]) -> MatchPart:
    """Make the function that matches a part with variables. Equal parts share one.

    :raises ValueError: it has too many unbounded variables, or too many combinations.
    :raises OverflowError, re.error: Werkzeug's regular expression for a variable is invalid.
    """
    return _PartPattern(pieces).match


def count_searches(pieces: Sequence[Piece]) -> int:
    """How many texts have to be searched for to match the part: all that may stand between its two
    unbounded variables. 0 if it has fewer than two."""
    unbounded = [
        index
        for index, piece in enumerate(pieces)
        if isinstance(piece, Variable) and piece.is_unbounded
    ]
    if len(unbounded) < MAX_UNBOUNDED:
        return 0
    return _combinations(pieces[unbounded[0] : unbounded[1]])
