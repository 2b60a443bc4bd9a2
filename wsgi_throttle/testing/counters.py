"""Counters for one test alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..clock import MONOTONIC, Clock
from ..engine import Engine
from ..middleware import Throttle
from ..storage.memory import MemoryStorage


@contextmanager
def fresh_counters(throttle: Callable[..., Any], *, clock: Clock = MONOTONIC) -> Iterator[None]:
    """While it lasts, count from zero, in the memory of this process alone. The configured storage
    is not touched, and counts on as before when it ends.

    It is a context manager, for a test or a fixture, and also a decorator of tests::

        with fresh_counters(throttle):
            ...  # every client has all of its limits

    The rules are those in force when it begins; a rule file that changes meanwhile is read again
    afterwards. ``throttle.reset()`` forgets what was counted here. Observers are told as usual.

    Requests may come from any thread meanwhile; each is counted where it began. On one Throttle,
    ``fresh_counters`` may be nested, but two threads must not use it at the same time.

    :param throttle: the :class:`.Throttle` itself: ``app.wsgi_app`` in Flask, and ``application``
        of the module wsgi.py in Django, unless other middleware is wrapped around it there.
    :param clock: what limits are counted by. A :class:`.ManualClock` lets a test be past a limit's
        window without waiting for it.
    :raises TypeError: this is no Throttle.
    """
    if not isinstance(throttle, Throttle):
        raise TypeError(
            f"fresh_counters() needs the Throttle itself, not {throttle!r}: if other middleware is "
            "wrapped around it, keep the Throttle in a variable and pass that"
        )
    before = throttle.engine
    config = replace(before.config, opened_storage=MemoryStorage(clock=clock))
    throttle.engine = Engine(config, clock=clock, observers=before.observers)
    try:
        yield
    finally:
        throttle.engine = before
