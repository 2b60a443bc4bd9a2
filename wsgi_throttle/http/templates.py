"""Templates of bodies: what they may name, and how they are filled.

They are those of :class:`string.Template`, which leaves alone what is no name, so that a page may
have dollar signs in its scripts and prices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from string import Template
from typing import NamedTuple, TypeAlias

Fill: TypeAlias = Callable[[Sequence[str]], str]
"""From the values of a template's names, in their order, to the filled template."""

TEMPLATE_NAMES = ("retry_after", "limit", "rule")
"""What a template may name: seconds to wait, the limit in words, and its name in headers and logs.
Where no waiting helps, $retry_after is empty, in JSON null."""


class Kind(NamedTuple):
    """One kind of body."""

    content_type: str
    escape: Callable[[str], str]
    """How a value is written in it."""


def _escape_json(text: str) -> str:
    """As it stands between quotes."""
    return json.dumps(text)[1:-1]


KINDS = {
    "json": Kind("application/problem+json", _escape_json),
    "html": Kind("text/html; charset=utf-8", escape),
    "text": Kind("text/plain; charset=utf-8", str),
}


def compile_template(text: str, names: Sequence[str], escaped: Callable[[str], str]) -> Fill:
    """
    :raises ValueError: the template names something else.
    """
    for match in Template.pattern.finditer(text):
        name = match["named"] or match["braced"]
        if name and name not in names:
            line = text.count("\n", 0, match.start()) + 1
            known = ", ".join(f"${known}" for known in names)
            raise ValueError(
                f'line {line}: "{match[0]}" is not known: use {known}, or $$ for a dollar sign'
            )
    template = Template(text)

    def fill(values: Sequence[str]) -> str:
        return template.safe_substitute(dict(zip(names, map(escaped, values), strict=True)))

    return fill


@lru_cache(maxsize=256)
def compile_body(kind: str, text: str) -> Fill:
    """The template of a 429's body, with TEMPLATE_NAMES. Equal ones share one, so that what is
    checked at start is also what is used.

    :param kind: one of KINDS.
    :raises ValueError: the template names what is not known, or makes no JSON.
    """
    fill = compile_template(text, TEMPLATE_NAMES, KINDS[kind].escape)
    if kind == "json":
        for retry_after in ("60", "null"):
            try:
                json.loads(fill((retry_after, "5 per minute", "login")))
            except ValueError as error:
                raise ValueError(
                    f"with $retry_after {retry_after} it is not JSON: {error}; "
                    'write {"retry_after": $retry_after, "limit": "$limit"}'
                ) from None
    return fill


def packaged(name: str) -> str:
    """The text of a template of our own."""
    return (files(__package__) / "templates" / name).read_text("utf-8")
