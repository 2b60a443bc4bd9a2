"""Notices that the rule file has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TypeAlias

from .storage.fork import ForkLock

LOOK_EVERY_S = 0.5

Version: TypeAlias = "tuple[int, int, int] | None"
"""mtime (ns), size and inode of a file; None if it cannot be seen."""


class Watch:
    """Looks at a file every half a second at most, and calls back when it has changed.

    A new version counts once two looks have seen it alike, since half a file can be valid YAML.

    :param changed: called in a short-lived thread, one call at a time; reads the file itself.
    """

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._path = path
        self._changed = changed
        self._lock = ForkLock()
        self._next_look = monotonic() + LOOK_EVERY_S
        self._known = self._candidate = version(path)

    def poll(self) -> None:
        """Look, if it is time. Any thread may call this, on every request."""
        now = monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY_S
        seen = version(self._path)
        if seen == self._known or seen != self._candidate:
            self._candidate = seen
        else:
            self._known = seen
            Thread(target=self._call, name="wsgi_throttle reload", daemon=True).start()

    def _call(self) -> None:
        with self._lock:
            self._changed()


def version(path: Path) -> Version:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
