"""Log messages that are worth reading once, from code that runs for every request."""

from __future__ import annotations

import logging
import math
from time import monotonic

logger = logging.getLogger("wsgi_throttle")


class Notices:
    """Logs one message of a topic, and the next of that topic ``period_s`` later at the earliest.

    Topics are names in the code, never anything that a client chose.
    """

    def __init__(self, period_s: float = math.inf) -> None:
        self._period_s = period_s
        self._silent_until: dict[str, float] = {}

    def __call__(
        self, topic: str, level: int, message: str, *args: object, exc_info: bool = False
    ) -> None:
        now = monotonic()
        if now >= self._silent_until.get(topic, -math.inf):
            self._silent_until[topic] = now + self._period_s
            logger.log(level, message, *args, exc_info=exc_info)
