"""Notices changes of the rule file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TypeAlias

from .clock import MONOTONIC, SECOND, Clock

POLL_EVERY_NS = SECOND // 2

Version: TypeAlias = "tuple[int, int, int] | None"
"""mtime (ns), size and inode of a file; None if it cannot be seen."""


class FileWatcher:
    """Calls back when a file has changed. It looks when it is polled, every half second at most.

    A change counts once two polls in a row have seen the same version, since a file that is being
    written can be valid YAML halfway.

    :param changed: called in a short-lived thread, never by two at once; reads the file itself.
    :param clock: may not step back.
    """

    def __init__(
        self, path: Path, changed: Callable[[], None], *, clock: Clock = MONOTONIC
    ) -> None:
        self._path = path
        self._changed = changed
        self._clock = clock
        self._thread: Thread | None = None
        self.next_poll_ns = clock() + POLL_EVERY_NS
        """The time, by the clock, from which :meth:`poll` is to be called again."""
        self._known = self._candidate = version(path)
        self._candidate_since_ns = clock()

    def poll(self) -> None:
        """Look at the file if it is time. Any thread may call this; after a fork, any process."""
        now_ns = self._clock()
        if now_ns < self.next_poll_ns:  # another thread has just polled
            return
        self.next_poll_ns = now_ns + POLL_EVERY_NS
        if self._thread is not None and self._thread.is_alive():
            return
        seen = version(self._path)
        if seen == self._known or seen != self._candidate:
            self._candidate, self._candidate_since_ns = seen, now_ns
        # The same version again, and not only since two threads polled at once.
        elif now_ns - self._candidate_since_ns >= POLL_EVERY_NS // 2:
            self._thread = Thread(target=self._call, args=(seen,), name="wsgi_throttle reload")
            self._thread.daemon = True
            self._thread.start()

    def _call(self, seen: Version) -> None:
        # Set only afterwards, so that a child that is forked meanwhile reads the change itself.
        try:
            self._changed()
        finally:
            self._known = seen


def version(path: Path) -> Version:
    """The version of the file that is there now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
