"""A dictionary that a client cannot make grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dictionary of at most so many entries, for what can be computed again.

    Full, it starts anew, which costs nothing to keep track of. Single operations are atomic, so any
    thread may use it; two that miss at once both compute.
    """

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, key: K, value: V) -> V:
        """Remember a value, and return it."""
        if len(self) >= self.most:
            self.clear()
        self[key] = value
        return value


class Prepared(Bounded[int, tuple[Sequence[Any], V]]):
    """What was made of tuples, found again by the very object, which takes no comparing, as
    ``prepared.get(id(given))[1]``. The tuple is kept too, so that no other has its id meanwhile."""

    __slots__ = ()

    def keep_for(self, given: Sequence[Any], value: V) -> V:
        """Remember a value, unless what it was made of can change, and return it."""
        if given.__class__ is tuple:
            self.keep(id(given), (given, value))
        return value
