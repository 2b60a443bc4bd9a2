"""The clock of everything that waits, forgets or counts: one type, so that one can be injected."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since any moment. Whoever reads one says whether it may step back."""

MONOTONIC: Clock = monotonic_ns
"""CLOCK_MONOTONIC: one clock for all processes of a Linux host, which setting the wall clock does
not move."""

MS = 1_000_000
"""Nanoseconds of a millisecond."""
SECOND = 1_000_000_000
"""Nanoseconds of a second."""
