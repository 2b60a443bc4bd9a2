"""The answers to requests that do not reach the application: 429, 503, 403 and 414.

Each comes as a problem (RFC 9457), a page or a line of text, whichever the client would rather
have. All templates are read, checked and taken apart at start.
"""

from __future__ import annotations

import json as json_format
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple, TypeAlias

from werkzeug.wrappers import Request

from ..cache import Bounded
from ..decision import NEVER_MS, Charge, Decision, seconds_up
from ..limits import describe
from .headers import HEADER_STYLES, Header, LimitHeaders

Response: TypeAlias = tuple[str, list[Header], bytes]
"""Status line, headers and body, as WSGI wants them."""

TEMPLATE_NAMES = ("retry_after", "limit", "rule")
"""What a template may name: seconds to wait, the limit in words, and its name in headers and logs.
Where no waiting helps, $retry_after is empty, in JSON null."""

MAX_ACCEPT = 512
"""How many characters of an Accept header are read."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Defined by draft-ietf-httpapi-ratelimit-headers, with ``violated-policies``."""


@dataclass(frozen=True)
class Responses:
    """How to answer.

    :param headers: one of HEADER_STYLES.
    :param html: a template of the 429's page; None for the built-in one. ``json`` and ``text``
        likewise. ``$retry_after``, ``$limit`` and ``$rule`` stand for their values, ``$$`` for a
        dollar sign.
    :param cors: the origins whose pages may read our answers; ``*`` is any, without credentials.
    :raises ValueError: with what is wrong, and what would be right.
    """

    headers: str = "both"
    html: str | None = None
    json: str | None = None
    text: str | None = None
    cors: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.headers not in HEADER_STYLES:
            known = ", ".join(HEADER_STYLES)
            raise ValueError(f'headers: "{self.headers}" is not known: use one of {known}')
        for kind in _KINDS:
            template = getattr(self, kind)
            if template is not None:
                try:
                    check_template(kind, template)
                except ValueError as error:
                    raise ValueError(f"{kind}: {error}") from None
        origins = (self.cors,) if isinstance(self.cors, str) else tuple(self.cors)
        for origin in origins:
            _check_origin(origin, alone=len(origins) == 1)
        object.__setattr__(self, "cors", origins)


def check_template(kind: str, text: str) -> None:
    """
    :param kind: ``html``, ``json`` or ``text``.
    :raises ValueError: the template names what is not known, or makes no JSON.
    """
    render = _compile(text, TEMPLATE_NAMES, _KINDS[kind].escape)
    if kind == "json":
        for retry_after in ("60", "null"):
            try:
                json_format.loads(render((retry_after, "5 per minute", "login")))
            except ValueError as error:
                raise ValueError(
                    f"with $retry_after {retry_after} it is not JSON: {error}; "
                    'write {"retry_after": $retry_after, "limit": "$limit"}'
                ) from None


def _check_origin(origin: str, *, alone: bool) -> None:
    if origin == "*":
        if not alone:
            raise ValueError('cors: "*" is every origin: leave the others out')
        return
    right = origin.lower().rstrip("/")
    scheme = right.partition(":")[0]
    right = right.removesuffix(_DEFAULT_PORTS.get(scheme, "/"))
    if right == origin and _ORIGIN.fullmatch(origin):
        return
    remedy = right if _ORIGIN.fullmatch(right) else "https://app.example.com"
    raise ValueError(f'cors: "{origin}" is not an origin as browsers send it: write "{remedy}"')


# --- which body -----------------------------------------------------------------------------------


def negotiate(accept: str) -> str:
    """``html``, ``json`` or ``text``: what an Accept header (RFC 9110, section 12.5.1) would rather
    have. HTML has to be named, as browsers do; JSON goes first where nothing is preferred."""
    if not accept.strip():
        return "json"
    qualities: dict[str, float] = {}
    for value, quality in Request({"HTTP_ACCEPT": accept}, populate_request=False).accept_mimetypes:
        media_range = value.partition(";")[0].strip().lower()
        qualities[media_range] = max(quality, qualities.get(media_range, 0))
    json = max(
        _quality(qualities, "application/problem+json"), _quality(qualities, "application/json")
    )
    text = _quality(qualities, "text/plain")
    html = qualities.get("text/html", 0)
    if html and html >= max(json, text):
        return "html"
    return "json" if json and json >= text else "text"


def _quality(qualities: dict[str, float], media_type: str) -> float:
    """By the most specific range that names the type."""
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*", "*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0


# --- templates ------------------------------------------------------------------------------------


def _compile(
    text: str, names: Sequence[str], escaped: Callable[[str], str]
) -> Callable[[Sequence[str]], str]:
    """A function from the values of the names, in their order, to the filled template.

    :raises ValueError: the template names something else.
    """
    pieces: list[str] = []
    places: list[tuple[int, int]] = []
    end = 0
    for match in Template.pattern.finditer(text):
        name = match["named"] or match["braced"]
        if name and name not in names:
            line = text.count("\n", 0, match.start()) + 1
            known = ", ".join(f"${known}" for known in names)
            raise ValueError(
                f'line {line}: "{match[0]}" is not known: use {known}, or $$ for a dollar sign'
            )
        pieces.append(text[end : match.start()])
        if name:
            places.append((len(pieces), names.index(name)))
        pieces.append("$" if match["escaped"] else match[0])
        end = match.end()
    pieces.append(text[end:])

    def render(values: Sequence[str]) -> str:
        filled = pieces.copy()
        for place, index in places:
            filled[place] = escaped(values[index])
        return "".join(filled)

    return render


def _escape_json(text: str) -> str:
    """As it stands between quotes."""
    return json_format.dumps(text)[1:-1]


def _packaged(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text("utf-8")


class _Kind(NamedTuple):
    """One form of body."""

    content_type: str
    escape: Callable[[str], str]


_KINDS = {
    "json": _Kind("application/problem+json", _escape_json),
    "html": _Kind("text/html; charset=utf-8", escape),
    "text": _Kind("text/plain; charset=utf-8", str),
}


# --- bodies ---------------------------------------------------------------------------------------

_Render: TypeAlias = Callable[["int | None", str, str, Sequence[str]], str]
"""(seconds to wait, None if that is no help; the tightest limit in words; its name; the names of
all limits that refuse) -> the body of a 429."""


def _hint(seconds: int | None) -> str:
    if seconds is None:
        return "Waiting will not help."
    return f"Try again in {seconds} second{'' if seconds == 1 else 's'}."


def _problem(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
    # Nothing to escape: a limit is letters and digits, and names hold no quote and no backslash.
    detail = f"The limit is {limit}. {_hint(seconds)}"
    names = '","'.join(violated)
    return (
        f'{{"type":"{_TYPE}","title":"Too Many Requests","status":429,"detail":"{detail}",'
        f'"retry_after":{"null" if seconds is None else seconds},"violated-policies":["{names}"],'
        f'"error":"rate_limit_exceeded","message":"{detail}"}}\n'
    )


def _line(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
    return f"Too many requests. The limit is {limit}. {_hint(seconds)}\n"


def _filled(kind: str, template: str) -> _Render:
    render = _compile(template, TEMPLATE_NAMES, _KINDS[kind].escape)
    never = "null" if kind == "json" else ""

    def fill(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
        return render((never if seconds is None else str(seconds), limit, rule))

    return fill


_BUILT_IN: dict[str, _Render] = {
    "json": _problem,
    "html": _filled("html", _packaged("429.html")),
    "text": _line,
}

_error_page = _compile(_packaged("error.html"), ("title", "detail"), escape)


def _error_bodies(status: int, title: str, error: str, detail: str, **more: int) -> dict[str, str]:
    """The bodies of an answer that tells of no limit, by kind."""
    problem = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        **more,
        "error": error,
        "message": detail,
    }
    return {
        "json": json_format.dumps(problem, separators=(",", ":")) + "\n",
        "html": _error_page((title, detail)),
        "text": f"{title}. {detail}\n",
    }


# --- responses ------------------------------------------------------------------------------------

_Ready: TypeAlias = tuple[tuple[Header, ...], bytes]
"""The headers that do not depend on the client, and the body."""


class Responder:
    """Answers in the application's place. Any thread may call it.

    What was answered is kept for a while, because who is refused once asks again at once.
    """

    def __init__(self, settings: Responses) -> None:
        self.limit_headers = LimitHeaders(settings.headers)
        """For the responses of the application, too."""
        self._content_types = {kind: content_type for kind, (content_type, _) in _KINDS.items()}
        self._renders = dict(_BUILT_IN)
        for kind in _KINDS:
            template = getattr(settings, kind)
            if template is not None:
                self._renders[kind] = _filled(kind, template)
        if settings.json is not None:
            # Nobody said that it is a problem.
            self._content_types["json"] = "application/json"
        self._kinds: Bounded[str, str] = Bounded(256)
        self._told: Bounded[tuple[str, int], tuple[Decision, list[Header], _Ready]] = Bounded(1024)
        """By kind and decision, since who asks again at once is told the same one."""
        self._refusals: Bounded[tuple[str, int, str, str, tuple[str, ...]], _Ready] = Bounded(1024)
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
        known = self._told.get((kind, id(decision)))
        if known is None:  # which is of no other decision, since it is kept with this one
            headers = self.limit_headers.pairs(decision, now_s)
            told = decision, headers, self._refusal_of(kind, decision)
            known = self._told.keep((kind, id(decision)), told)
        return self._answer("429 Too Many Requests", environ, known[1], known[2])

    def _refusal_of(self, kind: str, decision: Decision) -> _Ready:
        wait_ms = 0
        violated: tuple[str, ...] = ()
        for charge, (wait, *_) in zip(decision.charges, decision.measured, strict=True):
            if wait and charge.enforce:
                if charge.policy not in violated:  # several keys of one rule share a name
                    violated += (charge.policy,)
                if wait > wait_ms:
                    tightest, wait_ms = charge, wait
        seconds = seconds_up(wait_ms)
        key = (kind, seconds, tightest.policy, tightest.limit.tag, violated)
        return self._refusals.get(key) or self._refusals.keep(
            key, self._refusal(kind, None if wait_ms >= NEVER_MS else seconds, tightest, violated)
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
        self, kind: str, seconds: int | None, tightest: Charge, violated: Sequence[str]
    ) -> _Ready:
        limit = describe(tightest.limit)
        text = self._renders[kind](seconds, limit, tightest.policy, violated)
        return self._ready(self._content_types[kind], seconds, text)

    def _error(self, status: int, title: str, error: str, detail: str) -> dict[str, _Ready]:
        """An answer that is always the same, by kind."""
        bodies = _error_bodies(status, title, error, detail)
        return {
            kind: self._ready(_KINDS[kind].content_type, None, text)
            for kind, text in bodies.items()
        }

    def _outage(self, kind: str, seconds: int) -> _Ready:
        detail = f"The service cannot answer right now. {_hint(seconds)}"
        bodies = _error_bodies(
            503, "Service Unavailable", "service_unavailable", detail, retry_after=seconds
        )
        return self._ready(_KINDS[kind].content_type, seconds, bodies[kind])

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
