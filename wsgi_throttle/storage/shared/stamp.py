"""The file ``format`` beside a data file: which version made the data, and for whom."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from .record import LAYOUT

BOOT_ID = "/proc/sys/kernel/random/boot_id"
NAMESPACES = "/proc/self/ns"

_MAX_BYTES = 1 << 16


class Stamp(NamedTuple):
    """What is written in ``format``, one item a line, in this order."""

    program: str
    """Name and layout of the records."""
    size: str
    """Of the data file, in bytes."""
    boot: str
    """Which boot of the host: timestamps are CLOCK_MONOTONIC, which starts again with each."""
    pid: str
    """Which PID namespace. LMDB's lock knows threads by their number, which is another thread's in
    another namespace."""
    mount: str
    """Which mount namespace: only there the path means the same file."""
    path: str
    """The rule file that the counters belong to; empty where there is none, or not only one."""

    @classmethod
    def here(cls, size_bytes: int, path: str) -> Stamp:
        """The stamp of a file that this process makes now."""
        try:
            boot = Path(BOOT_ID).read_text().strip()
        except OSError:  # not Linux: strategies take timestamps of the future for now, so it works
            boot = "unknown"
        return cls(
            f"wsgi_throttle shared layout {LAYOUT}",
            str(size_bytes),
            boot,
            _namespace("pid"),
            _namespace("mnt"),
            path,
        )

    @classmethod
    def read(cls, folder: Path) -> Stamp | None:
        """The stamp that is in this folder; None if it cannot be read.

        :raises OSError: there is none.
        """
        with open(folder / "format", "rb") as file:
            text = file.read(_MAX_BYTES)
        lines = text.decode("ascii", "replace").split("\n")
        names = [line.partition(" ")[0] for line in lines]
        if names != [*cls._fields, ""]:
            return None
        try:
            return cls(*(json.loads(line.partition(" ")[2]) for line in lines[:-1]))
        except ValueError:
            return None

    def write(self, folder: Path) -> None:
        """Write it into this folder, in one step.

        :raises OSError: it cannot be written.
        """
        items = zip(self._fields, self, strict=True)
        text = "".join(f"{name} {json.dumps(item)}\n" for name, item in items)
        draft = folder / "format.new"
        draft.write_text(text)
        draft.chmod(0o600)
        draft.replace(folder / "format")

    def is_same_data(self, other: Stamp) -> bool:
        """Whether a program that would write this stamp can read data with the other one."""
        return self[:3] == other[:3]


def _namespace(name: str) -> str:
    try:
        return os.readlink(f"{NAMESPACES}/{name}")
    except OSError:  # not Linux, or /proc is not mounted
        return "unknown"
