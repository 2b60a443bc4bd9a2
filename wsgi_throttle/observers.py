"""One log line a client and rule a minute, however often it is refused."""

from __future__ import annotations

import logging
from time import monotonic

from .cache import Bounded
from .decision import Charge, Decision, Outcome
from .limits import describe

PERIOD_S = 60.0
MAX_CLIENTS = 4096

_log = logging.getLogger("wsgi_throttle")


class RefusalLog:
    """Logs refusals at INFO on ``wsgi_throttle``, with rule, key, limit and wait as fields.

    What a client sent is in them as the key alone, which is escaped. Any thread may call it; two
    that race for a client's first line may both log it.
    """

    def __init__(self) -> None:
        self._next: Bounded[tuple[str, str], list[float]] = Bounded(MAX_CLIENTS)

    def __call__(self, decision: Decision) -> None:
        """Log this refusal, by its longest wait, or count it as left out."""
        if _log.isEnabledFor(logging.INFO) and decision.tightest is not None:
            self._log("refused", *decision.tightest)

    def in_shadow(self, decision: Decision) -> None:
        """Log what shadow charges would have refused."""
        if _log.isEnabledFor(logging.INFO):
            for charge, outcome in zip(decision.charges, decision.outcomes, strict=True):
                if outcome.wait_ms and not charge.enforce:
                    self._log("would refuse", charge, outcome)

    def _log(self, verb: str, charge: Charge, outcome: Outcome) -> None:
        entry = self._next.get((charge.policy, charge.bucket))
        now = monotonic()
        if entry is not None and now < entry[0]:
            entry[1] += 1
            return
        left_out = int(entry[1]) if entry else 0
        self._next.keep((charge.policy, charge.bucket), [now + PERIOD_S, 0])
        key = charge.bucket.partition("{")[2].rstrip("}")
        limit = describe(charge.limit)
        _log.info(
            "%s %s by %s (%s), wait %s ms%s",
            verb,
            key,
            charge.policy,
            limit,
            outcome.wait_ms,
            f" ({left_out} more left out)" if left_out else "",
            extra={
                "rule": charge.policy,
                "key": key,
                "limit": limit,
                "wait_ms": outcome.wait_ms,
                "left_out": left_out,
                "shadow": not charge.enforce,
            },
        )
