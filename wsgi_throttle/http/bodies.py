"""The bodies of the responses that we send in the application's place, in each kind: JSON (a
problem, RFC 9457), an HTML page, or a line of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple, TypeAlias

from .templates import NAMES, check_json, compile_template, escape_json

_QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The problem type of a refusal. draft-ietf-httpapi-ratelimit-headers defines it, together with
its member ``violated-policies``."""


class BodyKind(NamedTuple):
    """A kind of body that a client can ask for."""

    content_type: str
    escape: Callable[[str], str]
    """Applied to each value that is put into a template of this kind."""


BODY_KINDS = {
    "json": BodyKind("application/problem+json", escape_json),
    "html": BodyKind("text/html; charset=utf-8", escape),
    "text": BodyKind("text/plain; charset=utf-8", str),
}
"""All kinds, by the names that :func:`.negotiate` returns and the configuration uses."""

RenderBody: TypeAlias = Callable[["int | None", str, str, Sequence[str]], str]
"""Function of (seconds to wait, or None where waiting does not help; the tightest limit in words;
that limit's policy; the policies of all limits that refuse) that returns the body of a 429."""


def wait_hint(seconds: int | None) -> str:
    """A sentence that says when to try again; None where waiting does not help."""
    if seconds is None:
        return "Waiting will not help."
    return f"Try again in {seconds} second{'' if seconds == 1 else 's'}."


def _json_body(seconds: int | None, limit: str, policy: str, violated: Sequence[str]) -> str:
    # Needs no escaping: a limit is letters and digits, and policies have no quote or backslash.
    detail = f"The limit is {limit}. {wait_hint(seconds)}"
    policies = '","'.join(violated)
    return (
        f'{{"type":"{_QUOTA_EXCEEDED}","title":"Too Many Requests","status":429,'
        f'"detail":"{detail}","retry_after":{"null" if seconds is None else seconds},'
        f'"violated-policies":["{policies}"],'
        f'"error":"rate_limit_exceeded","message":"{detail}"}}\n'
    )


def _text_body(seconds: int | None, limit: str, policy: str, violated: Sequence[str]) -> str:
    return f"Too many requests. The limit is {limit}. {wait_hint(seconds)}\n"


def compile_body(kind: str, template: str) -> RenderBody:
    """Make the function that renders a 429 from a template of this kind.

    :param kind: a key of BODY_KINDS.
    :raises ValueError: the template uses an unknown name, or does not make JSON though it should.
        The message has the remedy.
    """
    fill = compile_template(template, NAMES, BODY_KINDS[kind].escape)
    if kind == "json":
        check_json(fill)
    never = "null" if kind == "json" else ""

    def render(seconds: int | None, limit: str, policy: str, violated: Sequence[str]) -> str:
        retry_after = never if seconds is None else str(seconds)
        return fill({"retry_after": retry_after, "limit": limit, "rule": policy})

    return render


def _packaged(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text("utf-8")


BUILT_IN_BODIES: dict[str, RenderBody] = {
    "json": _json_body,
    "html": compile_body("html", _packaged("429.html")),
    "text": _text_body,
}
"""The bodies of a 429, by kind, where the configuration has no template."""

_error_page = compile_template(_packaged("error.html"), ("title", "detail"), escape)


def error_bodies(status: int, title: str, error: str, detail: str, **more: int) -> dict[str, str]:
    """The bodies, by kind, of a response that is not about a limit: 403, 414 or 503.

    :param error: a short code for programs, such as ``forbidden``.
    :param more: further members of the JSON.
    """
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
        "json": json.dumps(problem, separators=(",", ":")) + "\n",
        "html": _error_page({"title": title, "detail": detail}),
        "text": f"{title}. {detail}\n",
    }
