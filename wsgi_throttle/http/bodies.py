"""The bodies of our answers: a problem (RFC 9457), a page, or a line of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import NamedTuple, TypeAlias

from .templates import NAMES, check_json, compile_template, escape_json

_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""Defined by draft-ietf-httpapi-ratelimit-headers, with ``violated-policies``."""


class Kind(NamedTuple):
    """One form of body."""

    content_type: str
    escape: Callable[[str], str]


KINDS = {
    "json": Kind("application/problem+json", escape_json),
    "html": Kind("text/html; charset=utf-8", escape),
    "text": Kind("text/plain; charset=utf-8", str),
}
"""The forms of a body, by name."""

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


@lru_cache(maxsize=256)
def fill(kind: str, template: str) -> Render:
    """The bodies that a template of this kind makes. Equal templates share one function, so that
    the one that was made to check a configuration is also the one that answers.

    :raises ValueError: the template names what is not known, or makes no JSON.
    """
    filled = compile_template(template, NAMES, KINDS[kind].escape)
    if kind == "json":
        check_json(filled)
    never = "null" if kind == "json" else ""

    def render(seconds: int | None, limit: str, rule: str, violated: Sequence[str]) -> str:
        retry_after = never if seconds is None else str(seconds)
        return filled({"retry_after": retry_after, "limit": limit, "rule": rule})

    return render


def _packaged(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text("utf-8")


BUILT_IN: dict[str, Render] = {
    "json": _problem,
    "html": fill("html", _packaged("429.html")),
    "text": _line,
}

_error_page = compile_template(_packaged("error.html"), ("title", "detail"), escape)


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
        "html": _error_page({"title": title, "detail": detail}),
        "text": f"{title}. {detail}\n",
    }
