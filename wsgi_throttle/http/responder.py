"""The responses to requests that do not reach the application: 429, 503, 403 and 414.

Each is JSON (a problem, RFC 9457), an HTML page or a line of text, whichever the client prefers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ..cache import Bounded
from ..decision import NEVER_MS, Decision, Term, seconds_up, tightest_of
from ..limits import describe
from .bodies import BODY_KINDS, BUILT_IN_BODIES, error_bodies, wait_hint
from .headers import Header, LimitHeaders
from .negotiate import MAX_ACCEPT, negotiate
from .settings import ResponseSettings

Response: TypeAlias = tuple[str, list[Header], bytes]
"""Status line, headers and body, as WSGI wants them."""

_Rendered: TypeAlias = tuple[tuple[Header, ...], bytes]
"""The body, and those headers that are the same for every client."""


class Responder:
    """Makes the responses of one configuration. Any thread may call it.

    Responses are cached, because a client that is refused often tries again at once.
    """

    def __init__(self, settings: ResponseSettings) -> None:
        self.settings = settings
        self.limit_headers = LimitHeaders(settings.headers)
        """These go on the application's responses, too."""
        self._content_types = {kind: row.content_type for kind, row in BODY_KINDS.items()}
        self._render = {
            kind: getattr(settings, kind) or built_in for kind, built_in in BUILT_IN_BODIES.items()
        }
        if settings.json is not None:
            # The configured JSON need not have the members of a problem.
            self._content_types["json"] = "application/json"
        self._kinds: Bounded[str, str] = Bounded(256)
        self._refusals: Bounded[tuple[object, ...], _Rendered] = Bounded(1024)
        self._unavailable: Bounded[tuple[str, int], _Rendered] = Bounded(1024)

        # What tells browsers which pages of other origins may read a response (CORS).
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

        self._forbidden = self._render_error(
            403, "Forbidden", "forbidden", "Requests from this address are not allowed."
        )
        self._path_too_long = self._render_error(
            414, "URI Too Long", "uri_too_long", "The path of this request is too long."
        )

    def too_many_requests(
        self, environ: dict[str, Any], decision: Decision, now_s: float
    ) -> Response:
        """429, for a decision that refuses.

        :param now_s: seconds since the epoch.
        """
        kind = self._kind(environ)
        # A client that tries again at once gets the same decision, in which its response is cached.
        cached: tuple[Responder, list[Header], _Rendered] | None = decision.derived.get(kind)
        if cached is None or cached[0] is not self:
            headers = self.limit_headers.pairs(decision, now_s)
            cached = decision.derived[kind] = self, headers, self._refusal(kind, decision)
        return self._respond("429 Too Many Requests", environ, cached[1], cached[2])

    def unavailable(self, environ: dict[str, Any], retry_after_s: int) -> Response:
        """503, while the storage does not answer, for a rule that says to deny its requests then.

        :param retry_after_s: whole seconds after which the client may try again.
        """
        key = (self._kind(environ), retry_after_s)
        rendered = self._unavailable.get(key) or self._unavailable.keep(
            key, self._render_unavailable(*key)
        )
        return self._respond("503 Service Unavailable", environ, [], rendered)

    def forbidden(self, environ: dict[str, Any]) -> Response:
        """403, for a blocked address."""
        rendered = self._forbidden[self._kind(environ)]
        return self._respond("403 Forbidden", environ, [], rendered)

    def path_too_long(self, environ: dict[str, Any]) -> Response:
        """414, for a path that is too long to look for its rules."""
        rendered = self._path_too_long[self._kind(environ)]
        return self._respond("414 URI Too Long", environ, [], rendered)

    def _respond(
        self, status: str, environ: dict[str, Any], headers: list[Header], rendered: _Rendered
    ) -> Response:
        same_for_all, body = rendered
        headers = [*headers, *same_for_all]
        if self._any_origin:
            headers += self._any_origin
        elif self._origins:
            headers += self._origins.get(environ.get("HTTP_ORIGIN", ""), ())
        if environ.get("REQUEST_METHOD") == "HEAD":
            # RFC 9110, section 9.3.2 allows to leave out headers that describe the body.
            return status, [pair for pair in headers if pair[0] != "Content-Length"], b""
        return status, headers, body

    def _kind(self, environ: dict[str, Any]) -> str:
        """The kind of body that the client prefers."""
        accept: str = environ.get("HTTP_ACCEPT", "")
        if len(accept) > MAX_ACCEPT:
            accept = accept[:MAX_ACCEPT].rpartition(",")[0]
        return self._kinds.get(accept) or self._kinds.keep(accept, negotiate(accept))

    def _refusal(self, kind: str, decision: Decision) -> _Rendered:
        """The body of a 429 and its headers, but for the limit headers."""
        terms, measured = decision.terms, decision.measured
        tightest = tightest_of(False, terms.enforced, measured)
        # A policy refuses several times where its rule counts several keys; it is listed once.
        refusing = (terms[index].policy for index in terms.enforced if measured[index][0])
        violated = tuple(dict.fromkeys(refusing))
        term, wait_ms = terms[tightest], measured[tightest][0]
        seconds = None if wait_ms >= NEVER_MS else seconds_up(wait_ms)
        key = (kind, seconds, term.policy, term.limit.tag, violated)
        return self._refusals.get(key) or self._refusals.keep(
            key, self._render_refusal(kind, seconds, term, violated)
        )

    def _render_refusal(
        self, kind: str, seconds: int | None, tightest: Term, violated: Sequence[str]
    ) -> _Rendered:
        limit = describe(tightest.limit)
        text = self._render[kind](seconds, limit, tightest.policy, violated)
        return self._with_headers(self._content_types[kind], seconds, text)

    def _render_error(
        self, status: int, title: str, error: str, detail: str
    ) -> dict[str, _Rendered]:
        """A response that never changes, by kind."""
        bodies = error_bodies(status, title, error, detail)
        return {
            kind: self._with_headers(BODY_KINDS[kind].content_type, None, text)
            for kind, text in bodies.items()
        }

    def _render_unavailable(self, kind: str, seconds: int) -> _Rendered:
        detail = f"The service cannot answer right now. {wait_hint(seconds)}"
        bodies = error_bodies(
            503, "Service Unavailable", "service_unavailable", detail, retry_after=seconds
        )
        return self._with_headers(BODY_KINDS[kind].content_type, seconds, bodies[kind])

    def _with_headers(self, content_type: str, seconds: int | None, text: str) -> _Rendered:
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
