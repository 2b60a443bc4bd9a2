"""The type of all clocks in this package, so that tests can inject their own, and the default."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Returns nanoseconds since any moment. Whatever takes a clock says whether it may step back."""

MONOTONIC: Clock = monotonic_ns
"""CLOCK_MONOTONIC. On Linux all processes of a host read the same clock, and setting the time of
day does not change it."""

MS = 1_000_000
"""Nanoseconds in a millisecond."""
SECOND = 1_000_000_000
"""Nanoseconds in a second."""
