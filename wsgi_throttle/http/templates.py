"""The templates of a 429's body: ``string.Template`` with three names, checked at start."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from string import Template
from typing import TypeAlias

NAMES = ("retry_after", "limit", "rule")
"""What a template may name: the seconds to wait, the limit in words, and its name in headers and
logs. Where no waiting helps, $retry_after is empty, in JSON null."""

Render: TypeAlias = Callable[[Mapping[str, str]], str]
"""The value of each name -> the filled template."""


def compile_template(text: str, names: tuple[str, ...], escape: Callable[[str], str]) -> Render:
    """A function that fills the template. A ``$`` that begins no name stays as it is.

    :param escape: applied to each value, but not to the template.
    :raises ValueError: the template names something else; the message has the line and the remedy.
    """
    for match in Template.pattern.finditer(text):
        name = match["named"] or match["braced"]
        if name and name not in names:
            line = text.count("\n", 0, match.start()) + 1
            known = ", ".join(f"${known}" for known in names)
            raise ValueError(
                f'line {line}: "{match[0]}" is not known: use {known}, or $$ for a dollar sign'
            )
    fill = Template(text).safe_substitute

    def render(values: Mapping[str, str]) -> str:
        return fill({name: escape(value) for name, value in values.items()})

    return render


def check_json(render: Render) -> None:
    """
    :raises ValueError: what the template makes is not JSON, with or without a time to wait.
    """
    for retry_after in ("60", "null"):
        values = {"retry_after": retry_after, "limit": "5 per minute", "rule": "login"}
        try:
            json.loads(render(values))
        except ValueError as error:
            raise ValueError(
                f"with $retry_after {retry_after} it is not JSON: {error}; "
                'write {"retry_after": $retry_after, "limit": "$limit"}'
            ) from None


def escape_json(text: str) -> str:
    """The text as it stands between the quotes of a JSON string."""
    return json.dumps(text)[1:-1]
