"""The answers to requests that do not reach the application: 429, 503, 403 and 414.

Each comes as a problem (RFC 9457), a page or a line of text, whichever the client would rather
have. All templates are read and checked at start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ..cache import Bounded
from ..decision import NEVER_MS, Decision, Term, seconds_up, tightest_of
from ..limits import describe
from .bodies import BUILT_IN, KINDS, error_bodies, fill, hint
from .headers import Header, LimitHeaders
from .negotiate import MAX_ACCEPT, negotiate
from .settings import ResponseSettings

Response: TypeAlias = tuple[str, list[Header], bytes]
"""Status line, headers and body, as WSGI wants them."""

_Ready: TypeAlias = tuple[tuple[Header, ...], bytes]
"""The headers that do not depend on the client, and the body."""


class Responder:
    """Answers in the application's place. Any thread may call it.

    What was answered is kept for a while, because who is refused once asks again at once.
    """

    def __init__(self, settings: ResponseSettings) -> None:
        self.settings = settings
        self.limit_headers = LimitHeaders(settings.headers)
        """For the responses of the application, too."""
        self._content_types = {kind: content_type for kind, (content_type, _) in KINDS.items()}
        self._renders = dict(BUILT_IN)
        for kind in KINDS:
            template = getattr(settings, kind)
            if template is not None:
                self._renders[kind] = fill(kind, template)
        if settings.json is not None:
            # Nobody said that it is a problem.
            self._content_types["json"] = "application/json"
        self._kinds: Bounded[str, str] = Bounded(256)
        self._refusals: Bounded[tuple[object, ...], _Ready] = Bounded(1024)
        self._unavailable: Bounded[tuple[str, int], _Ready] = Bounded(1024)

        self._vary = "Accept"
        self._any_origin: list[Header] = []
        self._origins: dict[str, list[Header]] = {}
        exposed = ", ".join((*self.limit_headers.names, "Retry-After"))
        for origin in settings.cors:
            allow = [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Expose-Headers", exposed),
            ]
            if origin == "*":
                self._any_origin = allow
            else:
                self._vary = "Accept, Origin"
                self._origins[origin] = [*allow, ("Access-Control-Allow-Credentials", "true")]

        self._forbidden = self._error(
            403, "Forbidden", "forbidden", "Requests from this address are not allowed."
        )
        self._path_too_long = self._error(
            414, "URI Too Long", "uri_too_long", "The path of this request is too long."
        )

    def too_many_requests(
        self, environ: dict[str, Any], decision: Decision, now_s: float
    ) -> Response:
        """429, for a decision that refuses.

        :param now_s: seconds since the epoch.
        """
        kind = self._kind(environ)
        # Who asks again at once is told the same decision, with which its answer is kept.
        known: tuple[Responder, list[Header], _Ready] | None = decision.derived.get(kind)
        if known is None or known[0] is not self:
            headers = self.limit_headers.pairs(decision, now_s)
            known = decision.derived[kind] = self, headers, self._refusal_of(kind, decision)
        return self._answer("429 Too Many Requests", environ, known[1], known[2])

    def _refusal_of(self, kind: str, decision: Decision) -> _Ready:
        terms, measured = decision.terms, decision.measured
        tightest = tightest_of(False, terms.enforced, measured)
        # Several keys of one rule share a name.
        refusing = (terms[index].policy for index in terms.enforced if measured[index][0])
        violated = tuple(dict.fromkeys(refusing))
        term, wait_ms = terms[tightest], measured[tightest][0]
        seconds = None if wait_ms >= NEVER_MS else seconds_up(wait_ms)
        key = (kind, seconds, term.policy, term.limit.tag, violated)
        return self._refusals.get(key) or self._refusals.keep(
            key, self._refusal(kind, seconds, term, violated)
        )

    def unavailable(self, environ: dict[str, Any], retry_after_s: int) -> Response:
        """503, where a rule has its requests refused while nothing can be counted."""
        key = (self._kind(environ), retry_after_s)
        ready = self._unavailable.get(key) or self._unavailable.keep(key, self._outage(*key))
        return self._answer("503 Service Unavailable", environ, [], ready)

    def forbidden(self, environ: dict[str, Any]) -> Response:
        """403, for a blocked address."""
        ready = self._forbidden[self._kind(environ)]
        return self._answer("403 Forbidden", environ, [], ready)

    def path_too_long(self, environ: dict[str, Any]) -> Response:
        """414, for a path that is too long to be matched."""
        ready = self._path_too_long[self._kind(environ)]
        return self._answer("414 URI Too Long", environ, [], ready)

    def _answer(
        self, status: str, environ: dict[str, Any], headers: list[Header], ready: _Ready
    ) -> Response:
        fixed, body = ready
        headers = [*headers, *fixed]
        if self._any_origin:
            headers += self._any_origin
        elif self._origins:
            headers += self._origins.get(environ.get("HTTP_ORIGIN", ""), ())
        if environ.get("REQUEST_METHOD") == "HEAD":
            # RFC 9110, section 9.3.2 lets it leave out what tells of the body.
            return status, [pair for pair in headers if pair[0] != "Content-Length"], b""
        return status, headers, body

    def _kind(self, environ: dict[str, Any]) -> str:
        accept: str = environ.get("HTTP_ACCEPT", "")
        if len(accept) > MAX_ACCEPT:
            accept = accept[:MAX_ACCEPT].rpartition(",")[0]
        return self._kinds.get(accept) or self._kinds.keep(accept, negotiate(accept))

    def _refusal(
        self, kind: str, seconds: int | None, tightest: Term, violated: Sequence[str]
    ) -> _Ready:
        limit = describe(tightest.limit)
        text = self._renders[kind](seconds, limit, tightest.policy, violated)
        return self._ready(self._content_types[kind], seconds, text)

    def _error(self, status: int, title: str, error: str, detail: str) -> dict[str, _Ready]:
        """An answer that is always the same, by kind."""
        bodies = error_bodies(status, title, error, detail)
        return {
            kind: self._ready(KINDS[kind].content_type, None, text) for kind, text in bodies.items()
        }

    def _outage(self, kind: str, seconds: int) -> _Ready:
        detail = f"The service cannot answer right now. {hint(seconds)}"
        bodies = error_bodies(
            503, "Service Unavailable", "service_unavailable", detail, retry_after=seconds
        )
        return self._ready(KINDS[kind].content_type, seconds, bodies[kind])

    def _ready(self, content_type: str, seconds: int | None, text: str) -> _Ready:
        body = text.encode()
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Vary", self._vary),
        ]
        if seconds is not None:
            headers.append(("Retry-After", str(seconds)))
        return tuple(headers), body
