"""How long a request that asks a storage more than once may wait for it in all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

shared_deadline: ContextVar[float | None] = ContextVar("wsgi_throttle.deadline", default=None)
"""When the patience of a request ends that is asking now, by ``time.monotonic()``; None for a
request that asks once, whose waits have their own timeouts alone."""


class Patience:
    """One request's, used by one thread.

    :param seconds: what is left of it.
    """

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around one question to a storage. The time until the next one is not counted."""
        began = monotonic()
        token = shared_deadline.set(began + self._left_s)
        try:
            yield
        finally:
            shared_deadline.reset(token)
            self._left_s -= monotonic() - began
