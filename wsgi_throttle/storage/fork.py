"""A lock that protects its data from a fork in the middle of a change."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from threading import Lock
from types import TracebackType


class ForkLock:
    """A mutex, to be used in a ``with`` statement, that is safe when the process forks.

    Before :func:`os.fork` forks, a hook takes every ForkLock of the process; afterwards parent and
    child release them. So a child inherits no data that is half changed, and no lock whose holder
    is a thread that the child does not have. Any thread may use it; it is not reentrant.

    :param after_in_child: a bound method, called in the child while the lock is still held. Only a
        weak reference to its object is kept.
    :ivar lock: the mutex itself, which is faster to take than the ForkLock. Keep the ForkLock as
        well: once it is garbage, a fork no longer takes its mutex.
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
"""Held while the set of locks changes, and during every fork, which iterates over it."""


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
