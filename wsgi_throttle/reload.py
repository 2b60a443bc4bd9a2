"""Notices that the rule file has changed."""

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
    """Looks at a file every half a second at most, and calls back when it has changed.

    A new version counts once two looks have seen it alike, since half a file can be valid YAML.

    :param changed: called in a short-lived thread; reads the file itself.
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
        """When :meth:`poll` is to be called next, by the clock."""
        self._known = self._candidate = version(path)
        self._candidate_since_ns = clock()

    def poll(self) -> None:
        """Look, if it is time. Any thread may call this."""
        now_ns = self._clock()
        if now_ns < self.next_poll_ns:  # another thread has just looked
            return
        self.next_poll_ns = now_ns + POLL_EVERY_NS
        if self._thread is not None and self._thread.is_alive():
            return
        seen = version(self._path)
        if seen == self._known or seen != self._candidate:
            self._candidate, self._candidate_since_ns = seen, now_ns
        elif now_ns - self._candidate_since_ns >= POLL_EVERY_NS // 2:  # not by two threads at once
            self._thread = Thread(target=self._call, args=(seen,), name="wsgi_throttle reload")
            self._thread.daemon = True
            self._thread.start()

    def _call(self, seen: Version) -> None:
        # Known afterwards, so that a child that was forked meanwhile looks for itself.
        try:
            self._changed()
        finally:
            self._known = seen


def version(path: Path) -> Version:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
