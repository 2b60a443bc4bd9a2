"""Reads a mapping of the configuration by a table of the options that it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, NamedTuple

from ..limits import is_limit
from .reader import Cursor, Reader, Schema
from .yamltree import shown_key


class Required(NamedTuple):
    """In place of a default: the option must be given."""

    message: str
    """What to report where it is missing."""


class Inherit(Enum):
    """In place of a default: the value is inherited, by a rule from the top level, and by a limit
    from its rule."""

    INHERIT = "inherited"


INHERIT = Inherit.INHERIT


class Option(NamedTuple):
    """Everything that the package knows about one option."""

    name: str
    read: Reader[Any]
    """Makes a Python value of the value in the file, and has the JSON Schema of what it accepts."""
    default: Any
    """A Python value, INHERIT or Required."""
    doc: str
    """The description in Markdown, for the reference in README.md and for the JSON Schema."""
    shown_default: str = ""
    """What the reference shows as the default, where the value itself would not be understood."""
    on_exempt: bool = False
    """Whether a rule that is exempt may have this option."""
    live: bool = True
    """Whether a change takes effect when the file is reloaded. Otherwise it takes a restart, and
    the log says so."""

    @property
    def reference_default(self) -> str:
        """The default as the reference shows it, in Markdown."""
        if self.shown_default:
            return self.shown_default
        if isinstance(self.default, Required):
            return "required"
        if isinstance(self.default, Inherit):
            return self.default.value
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if self.default is None or self.default == ():
            return "none"
        return str(self.default) if isinstance(self.default, int) else f"`{self.default}`"


class Options:
    """The options of one mapping: for each option of a table, by its name, its value or default.

    :ivar at: the mapping itself.
    :ivar given: the options that the file has, known or unknown, with their locations.
    :ivar invalid: the names of options with a mistake or an unset variable. Their value is the
        default, or a list without the wrong items.
    """

    def __init__(
        self,
        at: Cursor,
        table: Sequence[Option],
        given: Mapping[str, Cursor],
        values: Mapping[str, Any],
        invalid: frozenset[str] = frozenset(),
    ) -> None:
        self.at = at
        self.table = table
        self.given = given
        self.invalid = invalid
        self._values = values

    @classmethod
    def read(cls, at: Cursor, table: Sequence[Option]) -> Options:
        """Read a mapping. All mistakes in it are reported to the source.

        :raises InvalidError: the value is not a mapping.
        """
        given = at.mapping()
        values: dict[str, Any] = {}
        invalid = set(at.node.repeated)
        reported = at.source.diagnostics
        for option in table:
            name, default = option.name, option.default
            if isinstance(default, Required):
                if name not in given:
                    at.report(default.message, "missing-option")
                default = None
            values[name] = default
            if name not in given:
                continue
            if given[name].node.unset:
                invalid.add(name)
                continue
            before = len(reported)
            values[name] = given[name].attempt(option.read, default)
            if len(reported) > before:
                invalid.add(name)
        _report_unknown(at, given, [option.name for option in table])
        return cls(at, table, given, values, frozenset(invalid))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        """Whether the file has this option."""
        return name in self.given

    def inherit(self, parent: Mapping[str, Any] | Options) -> Options:
        """A copy with the parent's values in place of INHERIT."""
        values = {
            name: parent[name] if value is INHERIT else value
            for name, value in self._values.items()
        }
        return Options(self.at, self.table, self.given, values, self.invalid)

    def values(self, **renamed: str) -> dict[str, Any]:
        """All values, by the names of the options.

        :param renamed: for options that have another name in Python, that name.
        """
        return {renamed.get(name, name): value for name, value in self._values.items()}


_has_letters_alone = re.compile(r"[A-Za-z_-]{1,40}").fullmatch


def _report_unknown(at: Cursor, given: Mapping[str, Cursor], known: Sequence[str]) -> None:
    for key in given:
        if key in known:
            continue
        close = get_close_matches(key, known, n=1)
        if is_limit(key):
            remedy = "a limit stands where a key belongs; quote it or use a list"
        elif close:
            remedy = f'did you mean "{close[0]}"?'
        else:
            remedy = f"the keys here are {', '.join(known)}"
        # Anything else may be a value whose colon was forgotten, and a secret.
        is_shown = is_limit(key) or _has_letters_alone(key) or (close and shown_key(key) == key)
        shown = f'"{key}" is not a key' if is_shown else "this is not a key"
        line, column = at.node.keys.get(key, (None, None))
        message = f"{shown}: {remedy}"
        at.source.report(message, line, column, at.path, "unknown-option")


def mapping(table: Sequence[Option]) -> Reader[Options]:
    """A reader for a mapping that may have these options and no others."""
    return Reader(lambda at: Options.read(at, table), mapping_schema(table))


def mapping_schema(table: Sequence[Option]) -> Schema:
    """The JSON Schema of a mapping that may have these options and no others."""
    schema: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {option.name: _described(option) for option in table},
    }
    required = [option.name for option in table if isinstance(option.default, Required)]
    return {**schema, "required": required} if required else schema


_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def _described(option: Option) -> Schema:
    """The JSON Schema of an option, with its description but without Markdown's links."""
    schema = option.read.schema
    if "$ref" in schema:  # draft-07 ignores everything beside it
        schema = {"allOf": [schema]}
    schema = {**schema, "description": _LINK.sub(r"\1", option.doc)}
    if isinstance(option.default, str | int) and not option.shown_default:
        schema["default"] = option.default
    return schema
