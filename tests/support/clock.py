"""A clock that a test sets."""

from __future__ import annotations

from wsgi_throttle.clock import MS, SECOND


class FakeClock:
    """A :data:`wsgi_throttle.clock.Clock` that stands still until the test sets it."""

    def __init__(self, now_ms: float = 1_000_000) -> None:
        self.now_ns = int(now_ms * MS)

    def __call__(self) -> int:
        return self.now_ns

    @property
    def now_ms(self) -> int:
        """In whole milliseconds, rounded down. The clock may be set back."""
        return self.now_ns // MS

    @now_ms.setter
    def now_ms(self, now_ms: float) -> None:
        self.now_ns = int(now_ms * MS)

    @property
    def now_s(self) -> float:
        return self.now_ns / SECOND

    @now_s.setter
    def now_s(self, now_s: float) -> None:
        self.now_ns = int(now_s * SECOND)
