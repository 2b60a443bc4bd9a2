"""Reading values of a configuration as what they should be, with their place in the file.

Nothing here knows of limits. A :class:`Reader` is a function from a :class:`Cursor` to a value,
together with the JSON Schema of what it accepts.
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

    :ivar remedy: the part of the message that may be shown of a value from the environment.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.remedy = remedy


class ReportedError(ValueError):
    """A value whose mistakes are on the list already."""


class Cursor:
    """A value of the configuration, and the dotted path that leads to it."""

    def __init__(self, source: Source, node: Node, path: str) -> None:
        self.source = source
        self.node = node
        self.path = path

    def report(self, error: ValueError | str, code: str = "invalid-value") -> None:
        """Put a mistake on the list. A value from the environment is never shown."""
        message = str(error)
        if self.node.secret:
            remedy = getattr(error, "remedy", "")
            message = (
                f"what the environment gives for {self.node.secret} does not fit here "
                "(it is not shown)"
            )
            message += f": {remedy}" if remedy else ""
        self.source.report(message, self.node.line, self.node.column, self.path, code)

    def attempt(self, parse: Callable[[Cursor], T], default: D) -> T | D:
        """What parse makes of the value; the default, and a mistake on the list, where it raises
        ValueError."""
        try:
            return parse(self)
        except ReportedError:
            return default
        except ValueError as error:
            if not self.node.unset:  # which was reported, or is allowed
                self.report(error)
            return default

    def mapping(self) -> dict[str, Cursor]:
        """
        :raises InvalidError: it is no mapping.
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
        """The items of a list; a single value is a list of one."""
        if isinstance(self.node.value, list):
            return [
                Cursor(self.source, node, f"{self.path}[{index}]")
                for index, node in enumerate(self.node.value)
            ]
        return [self]

    @property
    def shape(self) -> str:
        """What stands here, in words."""
        if self.node.value is None:
            return "nothing"
        if isinstance(self.node.value, dict):
            return "a mapping"
        if isinstance(self.node.value, list):
            return "a list"
        return f'"{self.node.value}"' if self.node.value else "an empty text"


@dataclass(frozen=True)
class Reader(Generic[T]):
    """Reads a value.

    :ivar parse: raises ValueError, with the remedy in its message, for a value that does not fit.
    :ivar schema: accepts whatever parse accepts. It may accept more, since a schema cannot say all.
    """

    parse: Callable[[Cursor], T]
    schema: Schema

    def __call__(self, at: Cursor) -> T:
        return self.parse(at)


DEFINITIONS: dict[str, Schema] = {}
"""The schemas that others refer to by name."""


def definition(name: str, schema: Schema) -> Schema:
    """Put a schema among the definitions; the reference to it."""
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
    """The same for a value that may be a secret, or stand where one belongs: no message shows it,
    but for the remedy."""

    def parse(at: Cursor) -> T:
        try:
            return reader(at)
        except InvalidError as error:
            raise InvalidError(
                "what stands here does not fit (it is not shown)", error.remedy
            ) from None

    return Reader(parse, reader.schema)


def scalar(schema: Schema) -> Schema:
    """The schema of a single value, which may also come from the environment."""
    return {"anyOf": [schema, _VARIABLE]}


def text_like(pattern: str) -> Schema:
    """The schema of a text of this pattern (ECMA 262)."""
    return scalar({"type": "string", "pattern": pattern})


def any_case(words: Iterable[str]) -> str:
    """A pattern for any of these words in upper or lower case, for which JSON Schema has no
    flag."""
    return "|".join(
        "".join(
            f"[{one.upper()}{one.lower()}]" if one.isalpha() else re.escape(one) for one in word
        )
        for word in words
    )


# --- texts ----------------------------------------------------------------------------------------

ANY_TEXT: Schema = {"type": ["string", "number", "boolean"]}
"""Whatever YAML takes for a number or a boolean is read as the text that it looks like."""


def _text(at: Cursor) -> str:
    if not isinstance(at.node.value, str) or not at.node.value.strip():
        raise InvalidError(f"{at.shape} stands here", "write one text")
    return at.node.value.strip()


def _exact_text(at: Cursor) -> str:
    if not isinstance(at.node.value, str) or not at.node.value:
        raise InvalidError(f"{at.shape} stands here", "write one text")
    return at.node.value


TEXT = Reader(_text, ANY_TEXT)
"""A text without the white space around it."""
EXACT_TEXT = Reader(_exact_text, ANY_TEXT)
"""A text with its white space."""


def choice(names: Iterable[str]) -> Reader[str]:
    """One of a few words."""
    known = list(names)

    def parse(at: Cursor) -> str:
        text = TEXT(at)
        if text not in known:
            raise InvalidError(f'"{text}" is not known here', f"use one of {', '.join(known)}")
        return text

    return Reader(parse, scalar({"enum": known}))


# --- booleans, numbers, lists ---------------------------------------------------------------------


def _boolean(at: Cursor) -> bool:
    if not at.node.plain or at.node.value not in ("true", "false"):
        raise InvalidError(f"{at.shape} stands here", "write true or false")
    return at.node.value == "true"


BOOLEAN = Reader(_boolean, scalar({"type": "boolean"}))


def integer(minimum: int, maximum: int) -> Reader[int]:
    """A whole number within these bounds, which belong to it."""
    remedy = f"write a whole number from {minimum} to {maximum}"

    def parse(at: Cursor) -> int:
        text = at.node.value
        if not at.node.plain or not isinstance(text, str) or not re.fullmatch("[0-9]{1,18}", text):
            raise InvalidError(f"{at.shape} stands here", remedy)
        if not minimum <= int(text) <= maximum:
            raise InvalidError(f"{text} is out of bounds", remedy)
        return int(text)

    return Reader(parse, scalar({"type": "integer", "minimum": minimum, "maximum": maximum}))


def one_or_more(
    item: Reader[T], *, min_items: int = 1, remedy: str = "leave the key out, or list something"
) -> Reader[tuple[T, ...]]:
    """A list; a single value is a list of one."""

    def parse(at: Cursor) -> tuple[T, ...]:
        found = [each.attempt(item, None) for each in at.items()]
        if len(found) < min_items:
            raise InvalidError("the list is empty", remedy)
        if None in found:
            raise ReportedError
        return tuple(one for one in found if one is not None)

    return Reader(parse, list_schema(item.schema, min_items))


def list_schema(item: Schema, min_items: int = 1) -> Schema:
    """The schema of a list of such items, or a single one."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": min_items}]}
