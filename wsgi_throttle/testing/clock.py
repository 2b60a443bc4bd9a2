"""A clock that a test moves."""

from __future__ import annotations

from ..clock import MS, SECOND


class ManualClock:
    """A clock that stands still until a test moves it, so that no test has to wait.

    It is called like ``time.monotonic_ns`` and returns nanoseconds. :meth:`advance` moves it
    forward. To set it, backwards too, assign to ``now_ns``, ``now_ms`` or ``now_s``, which are the
    same moment in three units. Any thread may read it; move it from one thread at a time.

    :param now_ms: where it starts, in milliseconds.
    """

    def __init__(self, now_ms: float = 1_000_000) -> None:
        self.now_ns = round(now_ms * MS)

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let this much time pass, in seconds.

        :raises ValueError: a negative number.
        """
        if seconds < 0:
            raise ValueError(f"advance() only goes forward, not by {seconds} s: assign to now_s")
        self.now_ns += round(seconds * SECOND)

    @property
    def now_ms(self) -> int:
        """Whole milliseconds, rounded down."""
        return self.now_ns // MS

    @now_ms.setter
    def now_ms(self, now_ms: float) -> None:
        self.now_ns = round(now_ms * MS)

    @property
    def now_s(self) -> float:
        """Seconds."""
        return self.now_ns / SECOND

    @now_s.setter
    def now_s(self, now_s: float) -> None:
        self.now_ns = round(now_s * SECOND)
