"""Reads values of a configuration as text, numbers, lists and so on, and reports what does not fit.

A :class:`Reader` makes a Python value of the value at a :class:`Cursor`, and has the JSON Schema of
what it accepts. Nothing in this module is about rate limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from .yamltree import Node, Source, shown_key

T = TypeVar("T")
D = TypeVar("D")

Schema: TypeAlias = dict[str, Any]
"""A JSON Schema, draft-07."""


class InvalidError(ValueError):
    """A value that does not fit.

    :param problem: what is wrong, which may quote the value.
    :param remedy: what to write instead. It is shown even if the value came from the environment,
        so it must not quote the value.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.remedy = remedy


class ReportedError(ValueError):
    """A value that does not fit, and all of whose mistakes have been reported."""


class Cursor:
    """A value of the configuration, and its location.

    :ivar path: the dotted path that leads to the value: ``rules[3].limits``.
    """

    def __init__(self, source: Source, node: Node, path: str) -> None:
        self.source = source
        self.node = node
        self.path = path

    def report(self, error: ValueError | str, code: str = "invalid-value") -> None:
        """Report a mistake in this value. A value from the environment is never shown.

        :param code: see :attr:`.Diagnostic.code`.
        """
        message = str(error)
        if self.node.any_placeholder:
            remedy = getattr(error, "remedy", "")
            message = (
                f"what the environment gives for {self.node.any_placeholder} does not fit here "
                "(it is not shown)"
            )
            message += f": {remedy}" if remedy else ""
        self.source.report(message, self.node.line, self.node.column, self.path, code)

    def attempt(self, parse: Callable[[Cursor], T], default: D) -> T | D:
        """The result of ``parse`` for this value. If it raises ValueError, that is reported, and
        the result is the default."""
        try:
            return parse(self)
        except ReportedError:
            return default
        except ValueError as error:
            if not self.node.unset:  # an unset variable was reported before, or is allowed
                self.report(error)
            return default

    def mapping(self) -> dict[str, Cursor]:
        """The values of a mapping, by their keys.

        :raises InvalidError: this is not a mapping.
        """
        if not isinstance(self.node.value, dict):
            # A text is not shown: it may be the secret that belongs into the mapping.
            shape = "a text" if self.node.value and isinstance(self.node.value, str) else self.shape
            raise InvalidError(f"{shape} stands here", "write keys and values")
        prefix = f"{self.path}." if self.path else ""
        return {
            key: Cursor(self.source, node, prefix + shown_key(key))
            for key, node in self.node.value.items()
        }

    def items(self) -> list[Cursor]:
        """The items of a list. A single value counts as a list of one item."""
        if isinstance(self.node.value, list):
            return [
                Cursor(self.source, node, f"{self.path}[{index}]")
                for index, node in enumerate(self.node.value)
            ]
        return [self]

    @property
    def shape(self) -> str:
        """The value in words, for messages: its kind, or the text itself."""
        if self.node.value is None:
            return "nothing"
        if isinstance(self.node.value, dict):
            return "a mapping"
        if isinstance(self.node.value, list):
            return "a list"
        return f'"{self.node.value}"' if self.node.value else "an empty text"


@dataclass(frozen=True)
class Reader(Generic[T]):
    """Makes a Python value of a value in the configuration.

    :ivar parse: raises ValueError, with the remedy in its message, for a value that does not fit.
    :ivar schema: accepts whatever ``parse`` accepts, and more where a schema cannot say it exactly.
    """

    parse: Callable[[Cursor], T]
    schema: Schema

    def __call__(self, at: Cursor) -> T:
        return self.parse(at)


DEFINITIONS: dict[str, Schema] = {}
"""The schemas to which others refer by name."""


def definition(name: str, schema: Schema) -> Schema:
    """Add a schema to DEFINITIONS, and return a reference to it."""
    DEFINITIONS[name] = schema
    return {"$ref": f"#/definitions/{name}"}


_VARIABLE = definition(
    "variable",
    {
        "description": "taken from the environment: ${NAME} or ${NAME:-default}",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    },
)


def unshown(reader: Reader[T]) -> Reader[T]:
    """The same reader for a value that may be a secret: messages show the remedy, not the value."""

    def parse(at: Cursor) -> T:
        try:
            return reader(at)
        except InvalidError as error:
            raise InvalidError(
                "what stands here does not fit (it is not shown)", error.remedy
            ) from None

    return Reader(parse, reader.schema)


def scalar_schema(schema: Schema) -> Schema:
    """The schema of a single value, in whose place a variable may stand."""
    return {"anyOf": [schema, _VARIABLE]}


def text_schema(pattern: str) -> Schema:
    """The schema of a text that contains this pattern (ECMA 262)."""
    return scalar_schema({"type": "string", "pattern": pattern})


def case_insensitive(words: Iterable[str]) -> str:
    """A pattern for any of these words in upper or lower case, because JSON Schema has no flag for
    that."""
    return "|".join(
        "".join(
            f"[{char.upper()}{char.lower()}]" if char.isalpha() else re.escape(char)
            for char in word
        )
        for word in words
    )


# --- texts ----------------------------------------------------------------------------------------

ANY_TEXT: Schema = {"type": ["string", "number", "boolean"]}
"""A number or boolean of YAML is accepted too: it is read as the text that it looks like."""


def _text(at: Cursor) -> str:
    if not isinstance(at.node.value, str) or not at.node.value.strip():
        raise InvalidError(f"{at.shape} stands here", "write one text")
    return at.node.value.strip()


def _exact_text(at: Cursor) -> str:
    if not isinstance(at.node.value, str) or not at.node.value:
        raise InvalidError(f"{at.shape} stands here", "write one text")
    return at.node.value


TEXT = Reader(_text, ANY_TEXT)
"""Text, from which white space at both ends is removed."""
EXACT_TEXT = Reader(_exact_text, ANY_TEXT)
"""Text with its white space, such as a secret."""


def choice(names: Iterable[str]) -> Reader[str]:
    """A reader for one of these words."""
    known = list(names)

    def parse(at: Cursor) -> str:
        text = TEXT(at)
        if text not in known:
            raise InvalidError(f'"{text}" is not known here', f"use one of {', '.join(known)}")
        return text

    return Reader(parse, scalar_schema({"enum": known}))


# --- booleans, numbers, lists ---------------------------------------------------------------------


def _boolean(at: Cursor) -> bool:
    if not at.node.plain or at.node.value not in ("true", "false"):
        raise InvalidError(f"{at.shape} stands here", "write true or false")
    return at.node.value == "true"


BOOLEAN = Reader(_boolean, scalar_schema({"type": "boolean"}))


def integer(minimum: int, maximum: int) -> Reader[int]:
    """A reader for a whole number from ``minimum`` to ``maximum``, both included."""
    remedy = f"write a whole number from {minimum} to {maximum}"

    def parse(at: Cursor) -> int:
        text = at.node.value
        if not at.node.plain or not isinstance(text, str) or not re.fullmatch("[0-9]{1,18}", text):
            raise InvalidError(f"{at.shape} stands here", remedy)
        if not minimum <= int(text) <= maximum:
            raise InvalidError(f"{text} is out of bounds", remedy)
        return int(text)

    return Reader(parse, scalar_schema({"type": "integer", "minimum": minimum, "maximum": maximum}))


def list_of(
    item: Reader[T], *, min_items: int = 1, remedy: str = "leave the key out, or list something"
) -> Reader[tuple[T, ...]]:
    """A reader for a list. A single value counts as a list of one item.

    :param remedy: what to do if the list has fewer than ``min_items``.
    """

    def parse(at: Cursor) -> tuple[T, ...]:
        found = [each.attempt(item, None) for each in at.items()]
        if len(found) < min_items:
            raise InvalidError("the list is empty", remedy)
        if None in found:
            raise ReportedError
        return tuple(one for one in found if one is not None)

    return Reader(parse, list_schema(item.schema, min_items))


def list_schema(item: Schema, min_items: int = 1) -> Schema:
    """The schema of a list of such items, or of a single one."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": min_items}]}
