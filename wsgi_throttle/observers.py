"""Who is told what was decided: the log of refusals, and others like it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .clock import MONOTONIC, Clock
from .decision import Charge, Outcome
from .errors import Diagnostic
from .identity import Environ
from .limits import describe
from .log_once import LogOnce
from .rules.plan import key_in
from .verdict import Verdict

PERIOD_S = 60.0
MAX_CLIENTS = 4096

_log = logging.getLogger("wsgi_throttle")


class Observer:
    """Is told after the fact, and changes nothing. Override what is of interest.

    Any thread may call any method, and after a fork any process. What a method raises is logged
    once a minute, and is never a client's error.
    """

    every_request: bool = False
    """Whether :meth:`decided` is called for every request. Otherwise it is called for those that
    may not pass, and for those that a shadow rule counts."""
    follows_responses: bool = False
    """Whether :meth:`finished` is called, for which every response is followed to its end."""

    def decided(self, environ: Environ, verdict: Verdict) -> None:
        """A verdict was reached; nothing was answered yet."""

    def finished(
        self,
        environ: Environ,
        verdict: Verdict,
        *,
        status: str,
        headers: Sequence[tuple[str, str]],
        bytes_sent: int,
        seconds: float,
    ) -> None:
        """A request that had passed was answered, or its answer was given up.

        :param status: as the application gave it; empty if it gave none.
        :param headers: the application's.
        :param bytes_sent: of the body, as handed to the server.
        :param seconds: since the application was called.
        """

    def storage_changed(self, name: str, *, failed: bool, cause: str) -> None:
        """An outage of the storage has begun, or is over.

        :param name: where the storage is, without secrets.
        :param cause: what it failed of; empty where it answers again.
        """

    def reloaded(self, diagnostics: Sequence[Diagnostic]) -> None:
        """The changed rule file was read.

        :param diagnostics: its mistakes, because of which the old rules stay in force; none where
            the new ones are.
        """


class RefusalLog(Observer):
    """Logs refusals at INFO on ``wsgi_throttle``, one line a client and rule a minute, with rule,
    key, limit and wait as fields.

    What a client sent is in them as the key alone, which is escaped.

    :param clock: may not step back.
    """

    def __init__(self, clock: Clock = MONOTONIC) -> None:
        self._once = LogOnce(PERIOD_S, max_topics=MAX_CLIENTS, clock=clock)

    def decided(self, environ: Environ, verdict: Verdict) -> None:
        """See :class:`Observer`."""
        decision = verdict.decision
        if decision is None or not _log.isEnabledFor(logging.INFO):
            return
        if not decision.granted:
            tightest = decision.tightest
            if tightest is not None:
                self._log_refusal("refused", *tightest)
        elif verdict.plan.shadowed:
            for charge, outcome in zip(decision.charges, decision.outcomes, strict=True):
                if outcome.wait_ms and not charge.enforce:
                    self._log_refusal("would refuse", charge, outcome)

    def _log_refusal(self, verb: str, charge: Charge, outcome: Outcome) -> None:
        rule = charge.label or charge.policy
        left_out = self._once.due((rule, charge.bucket))
        if left_out is None:
            return
        key = key_in(charge.bucket)
        limit = describe(charge.limit)
        _log.info(
            "%s %s by %s (%s), wait %s ms%s",
            verb,
            key,
            rule,
            limit,
            outcome.wait_ms,
            f" ({left_out} more left out)" if left_out else "",
            extra={
                "rule": rule,
                "key": key,
                "limit": limit,
                "wait_ms": outcome.wait_ms,
                "left_out": left_out,
                "shadow": not charge.enforce,
            },
        )
