"""The clock of the storages that live on one host."""

from __future__ import annotations

from time import monotonic_ns


def monotonic_ms() -> int:
    """CLOCK_MONOTONIC in whole milliseconds: one clock for all processes of a Linux host, which
    setting the wall clock does not move."""
    return monotonic_ns() // 1_000_000
