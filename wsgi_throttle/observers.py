"""Observers, which are told what was decided, and the one that logs refusals."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .clock import MONOTONIC, Clock
from .decision import Charge, Outcome, key_in
from .errors import Diagnostic
from .identity import Environ
from .limits import describe
from .log_once import LogOnce
from .verdict import Verdict

PERIOD_S = 60.0
MAX_CLIENTS = 4096

_log = logging.getLogger("wsgi_throttle")


class Observer:
    """Base class for objects that are told what was decided, for logs and metrics. It cannot change
    a decision. Override the methods of interest.

    Methods are called by the thread that serves the request, several at once, and after a fork in
    every process. They should be quick, since the request waits for them. An exception in one is
    logged, once a minute at most, and never reaches a client.
    """

    every_request: bool = False
    """Whether :meth:`decided` is called for every request. Otherwise it is called for requests that
    may not pass, and for those that a shadow rule counts."""
    follows_responses: bool = False
    """Whether :meth:`finished` is called. For that, every response is followed to its end."""

    def decided(self, environ: Environ, verdict: Verdict) -> None:
        """A verdict was reached. The request is not answered yet."""

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
        """The answer to a request that had passed is complete, or was broken off.

        :param status: as the application gave it, ``200 OK``; empty if it gave none.
        :param headers: as the application gave them, without those that show the limits.
        :param bytes_sent: the length of the body that was handed to the server.
        :param seconds: the time since the application was called.
        """

    def storage_changed(self, name: str, *, failed: bool, cause: str) -> None:
        """An outage of the storage has begun (``failed``), or is over.

        :param name: where the storage is, without secrets.
        :param cause: why it failed; empty if it answers again.
        """

    def reloaded(self, diagnostics: Sequence[Diagnostic]) -> None:
        """The changed rule file was read.

        :param diagnostics: its mistakes. If there are none, the new rules are in force; otherwise
            the old ones stay, unless the file says ``mode: off``.
        """


class RefusalLog(Observer):
    """Logs refusals at INFO on ``wsgi_throttle``: for each client and limit one line a minute at
    most, with rule, key, limit and wait as fields of the record.

    Nothing that a client sent is logged but its key, which is escaped.

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
        elif verdict.plan.has_shadow:
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
