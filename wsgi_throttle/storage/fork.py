"""What lets a process be forked: a lock that protects its data from a fork in the middle of a
change, and a mark that tells a child that nobody has told it so.

:func:`os.fork` calls the hooks that are registered here. A server that forks in C does not: uWSGI
is one. Its workers find out by :data:`mark`, which every storage that has files or connections
looks at before it uses them.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable
from threading import Lock, get_ident
from time import sleep
from types import TracebackType


class ForkLock:
    """A mutex, to be used in a ``with`` statement, that is safe when the process forks.

    Before :func:`os.fork` forks, a hook takes every ForkLock of the process; afterwards parent and
    child release them. So a child inherits no data that is half changed, and no lock whose holder
    is a thread that the child does not have. Any thread may use it; it is not reentrant.

    If C code forks, no hook is called before. Then a thread that the child does not have may hold
    the lock there; see :func:`notice_fork`.

    :param after_in_child: a bound method, called in the child while the lock is still held. Only a
        weak reference to its object is kept.
    :ivar was_held: while that method is called: whether a thread that the child does not have held
        the lock, so that what it protects may be half changed.
    :ivar lock: the mutex itself, which is faster to take than the ForkLock. Keep the ForkLock as
        well: once it is garbage, a fork no longer takes its mutex.
    """

    def __init__(self, after_in_child: Callable[[], None] | None = None) -> None:
        self.lock = Lock()
        self.was_held = False
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
    mark[0] = 1


MADV_WIPEONFORK = 18
"""From Linux 4.14 on; the module mmap has no name for it."""

DEAD_AFTER_S = 1.0
"""A lock that a new child cannot take for so long is held by a thread that it does not have. Nobody
holds one for longer than a transaction of LMDB takes."""


class _Pid:
    """A mark for systems without MADV_WIPEONFORK, some five times as slow."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, index: int) -> bool:
        return os.getpid() == self._pid

    def __setitem__(self, index: int, value: int) -> None:
        self._pid = os.getpid()


def _new_mark() -> mmap.mmap | _Pid:
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(MADV_WIPEONFORK)
    except (AttributeError, OSError, ValueError):  # another system, or an older Linux
        return _Pid()
    page[0] = 1
    return page


mark = _new_mark()
"""``mark[0]`` is false in a forked child until its storages have forgotten what is their parent's.
Whoever finds it so must call :func:`notice_fork`, without holding a ForkLock."""

_noticed: dict[int, int] = {}
"""Process -> the thread that was first to notice that it is a child."""


def notice_fork() -> None:
    """Do in a child what the hooks would have done. To be called where :data:`mark` is false.

    Any thread may call it; those that come second wait for the first. Usually a server forks in C
    while no other thread runs. If one does and holds a lock, this takes DEAD_AFTER_S for each.
    """
    process, thread = os.getpid(), get_ident()
    if _noticed.setdefault(process, thread) != thread:
        while not mark[0]:
            sleep(0.001)
        return
    for other in [*_noticed]:
        if other != process:
            del _noticed[other]
    _take_from_the_dead(_registering)
    _held.clear()
    for lock in list(_locks):
        lock.was_held = not _take_from_the_dead(lock.lock)
        lock._forked()
        lock.was_held = False
        lock.lock.release()
    _registering.release()
    mark[0] = 1


def _take_from_the_dead(lock: Lock) -> bool:
    """Take a lock that a thread of the parent may hold for ever here. Return whether none did."""
    return lock.acquire(timeout=DEAD_AFTER_S)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
