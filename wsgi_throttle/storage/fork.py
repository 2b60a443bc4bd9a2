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
    :ivar lock: the mutex itself, which is quicker to take. It is that of a ForkLock for only as
        long as the ForkLock is referred to.
    """

    def __init__(self, after_in_child: Callable[[], None] | None = None) -> None:
        self.lock = Lock()
        self._after_in_child = after_in_child and weakref.WeakMethod(after_in_child)
        with _registering:
            _locks.add(self)

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.lock.release()

    def _forked(self) -> None:
        called = self._after_in_child and self._after_in_child()
        if called:
            called()


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_held: list[ForkLock] = []
_registering = Lock()
"""Held while the set changes, and through every fork, which walks over it."""


def _before() -> None:
    _registering.acquire()
    for lock in list(_locks):
        lock.lock.acquire()
        _held.append(lock)


def _after_in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    _registering.release()


def _after_in_child() -> None:
    while _held:
        lock = _held.pop()
        lock._forked()
        lock.lock.release()
    _registering.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
