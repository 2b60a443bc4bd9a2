"""A dictionary that a client cannot make grow."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dictionary of at most so many entries, for what can be computed again.

    A full one is emptied, which needs no bookkeeping on the way. Single operations are atomic, so
    any thread may use it; two that miss at once both compute.
    """

    __slots__ = ("max_size",)

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self.max_size = max_size

    def keep(self, key: K, value: V) -> V:
        """Remember a value, and return it."""
        if len(self) >= self.max_size:
            self.clear()
        self[key] = value
        return value
