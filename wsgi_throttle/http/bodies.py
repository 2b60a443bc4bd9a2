"""The bodies of our answers, by their kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import TypeAlias

from .templates import compile_body, compile_template, packaged

_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Defined by draft-ietf-httpapi-ratelimit-headers, with ``violated-policies``."""

Render: TypeAlias = Callable[["int | None", str, str, Sequence[str]], str]
"""(seconds to wait, None if that is no help; the tightest limit in words; its name; the names of
all limits that refuse) -> the body of a 429."""


def hint(seconds: int | None) -> str:
    if seconds is None:
        return "Waiting will not help."
    return f"Try again in {seconds} second{'' if seconds == 1 else 's'}."


def _problem(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
    # Nothing to escape: a limit is letters and digits, and names hold no quote and no backslash.
    detail = f"The limit is {limit}. {hint(seconds)}"
    names = '","'.join(violated)
    return (
        f'{{"type":"{_TYPE}","title":"Too Many Requests","status":429,"detail":"{detail}",'
        f'"retry_after":{"null" if seconds is None else seconds},"violated-policies":["{names}"],'
        f'"error":"rate_limit_exceeded","message":"{detail}"}}\n'
    )


def _line(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
    return f"Too many requests. The limit is {limit}. {hint(seconds)}\n"


def from_template(kind: str, template: str) -> Render:
    """The body that a template makes.

    :raises ValueError: the template names what is not known, or makes no JSON.
    """
    fill = compile_body(kind, template)
    never = "null" if kind == "json" else ""

    def render(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
        return fill((never if seconds is None else str(seconds), limit, rule))

    return render


BUILT_IN: dict[str, Render] = {
    "json": _problem,
    "html": from_template("html", packaged("429.html")),
    "text": _line,
}

_error_page = compile_template(packaged("error.html"), ("title", "detail"), escape)


def error_bodies(status: int, title: str, error: str, detail: str, **more: int) -> dict[str, str]:
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
        "json": json.dumps(problem, separators=(",", ":")) + "\n",
        "html": _error_page((title, detail)),
        "text": f"{title}. {detail}\n",
    }
