"""Templates of response bodies: ``string.Template`` with a few known names, checked when they are
read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from string import Template
from typing import TypeAlias

NAMES = ("retry_after", "limit", "rule")
"""The names that the template of a 429 may use: the seconds to wait, the limit in words, and the
policy, which is what headers and logs call the limit. Where waiting does not help, ``$retry_after``
is empty, or ``null`` in JSON."""

FillTemplate: TypeAlias = Callable[[Mapping[str, str]], str]
"""Function of the value of each name that returns the filled template."""


def compile_template(
    text: str, names: tuple[str, ...], escape: Callable[[str], str]
) -> FillTemplate:
    """Make the function that fills the template. A ``$`` that is not followed by a name stays.

    :param names: the names that the template may use.
    :param escape: applied to each value, but not to the template.
    :raises ValueError: the template uses another name; the message has the line and the remedy.
    """
    for match in Template.pattern.finditer(text):
        name = match["named"] or match["braced"]
        if name and name not in names:
            line = text.count("\n", 0, match.start()) + 1
            known = ", ".join(f"${known}" for known in names)
            raise ValueError(
                f'line {line}: "{match[0]}" is not known: use {known}, or $$ for a dollar sign'
            )
    substitute = Template(text).safe_substitute

    def fill(values: Mapping[str, str]) -> str:
        return substitute({name: escape(value) for name, value in values.items()})

    return fill


def check_json(fill: FillTemplate) -> None:
    """Check that the template of a 429 makes JSON, with a time to wait and without one.

    :raises ValueError: it does not; the message has the remedy.
    """
    for retry_after in ("60", "null"):
        values = {"retry_after": retry_after, "limit": "5 per minute", "rule": "login"}
        try:
            json.loads(fill(values))
        except ValueError as error:
            raise ValueError(
                f"with $retry_after {retry_after} it is not JSON: {error}; "
                'write {"retry_after": $retry_after, "limit": "$limit"}'
            ) from None


def escape_json(text: str) -> str:
    """Escape a text for use between the quotes of a JSON string."""
    return json.dumps(text)[1:-1]
