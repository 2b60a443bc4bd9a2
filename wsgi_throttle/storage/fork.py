"""A lock that no other thread holds while the process forks."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from threading import Lock
from types import TracebackType


class ForkLock:
    """A mutex that the forking thread takes before it forks, so that a child never inherits what it
    guards half changed, nor the lock held by a thread that the child does not have.

    :param after_in_child: called in the child while the lock is still held; a bound method, which
        is referred to weakly.
    """

    def __init__(self, after_in_child: Callable[[], None] | None = None) -> None:
        self._lock = Lock()
        self._after_in_child = after_in_child and weakref.WeakMethod(after_in_child)
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _forked(self) -> None:
        called = self._after_in_child and self._after_in_child()
        if called:
            called()


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_held: list[ForkLock] = []


def _before() -> None:
    for lock in list(_locks):
        lock._lock.acquire()
        _held.append(lock)


def _after_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()


def _after_in_child() -> None:
    while _held:
        lock = _held.pop()
        lock._forked()
        lock._lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
