"""A dictionary of bounded size, so that what clients send cannot fill the memory."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dictionary of at most ``max_size`` entries, for values that can be computed again.

    When it is full, :meth:`keep` drops all entries, so that reading needs no bookkeeping. Any
    thread may use it without a lock; two threads that miss the same key both compute the value.
    """

    __slots__ = ("max_size",)

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self.max_size = max_size

    def keep(self, key: K, value: V) -> V:
        """Store a value, and return it."""
        if len(self) >= self.max_size:
            self.clear()
        self[key] = value
        return value
