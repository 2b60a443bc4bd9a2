"""Logs a message once, or once in a period, from code that runs for every request."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable
from dataclasses import dataclass

from .cache import Bounded
from .clock import MONOTONIC, SECOND, Clock

logger = logging.getLogger("wsgi_throttle")

MAX_TOPICS = 256


@dataclass(slots=True)
class _Topic:
    silent_until_ns: float
    left_out: int = 0


class LogOnce:
    """Logs one message on a topic, then none on it for ``period_s``; counts what it leaves out.

    Any thread may use it, without a lock: two threads that race for a topic may both log, or count
    one message less. Every process logs for itself.

    :param period_s: seconds between two messages on one topic; by default there is no second one.
    :param max_topics: how many topics are remembered. With one more, all of them are forgotten and
        may be logged again, so that topics that contain what clients sent cannot fill the memory.
    :param clock: may not step back.
    """

    def __init__(
        self,
        period_s: float = math.inf,
        *,
        max_topics: int = MAX_TOPICS,
        clock: Clock = MONOTONIC,
    ) -> None:
        self._period_ns = period_s * SECOND
        self._clock = clock
        self._topics: Bounded[Hashable, _Topic] = Bounded(max_topics)

    def due(self, topic: Hashable) -> int | None:
        """Ask before logging, where the message is costly to make or needs a logger of its own.

        :return: None if the caller must not log now; that is counted as left out. Otherwise the
            caller must log, and the number is how many messages were left out since the last one.
        """
        now_ns = self._clock()
        known = self._topics.get(topic)
        if known is not None and now_ns < known.silent_until_ns:
            known.left_out += 1
            return None
        self._topics.keep(topic, _Topic(now_ns + self._period_ns))
        return known.left_out if known else 0

    def __call__(
        self, topic: Hashable, level: int, message: str, *args: object, exc_info: bool = False
    ) -> None:
        """Log the message on ``wsgi_throttle`` if it is due, with the number of those left out.

        :param args: put into the message's ``%`` fields, as by :meth:`logging.Logger.log`.
        :param exc_info: add the traceback of the exception that is being handled.
        """
        left_out = self.due(topic)
        if left_out is None:
            return
        if left_out:
            message, args = f"{message} (%d more left out)", (*args, left_out)
        logger.log(level, message, *args, exc_info=exc_info)
