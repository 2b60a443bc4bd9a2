"""Reading a mapping of the configuration by a table of the options that it may have."""

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
    """The default of an option that has none and must be given."""

    message: str
    """What is said where it is missing."""


class Inherit(Enum):
    """The default of an option that is taken from what its mapping is part of: of a rule from the
    top level, of a limit from its rule."""

    INHERIT = "inherited"


INHERIT = Inherit.INHERIT


class Option(NamedTuple):
    """All that is to be said of one option."""

    name: str
    read: Reader[Any]
    """From its value in the file to the value in Python; the schema of what it accepts."""
    default: Any
    """In Python; or INHERIT, or Required."""
    doc: str
    """What it is, in Markdown: the reference in README.md has it, and the JSON Schema."""
    shown_default: str = ""
    """What the reference says of the default, where its value does not say it."""
    on_exempt: bool = False
    """Whether it means something for a rule that is exempt. Otherwise it is a mistake there."""
    live: bool = True
    """Whether a change is in force once the file is read again. Otherwise it needs a restart, and
    the log says so."""

    @property
    def reference_default(self) -> str:
        """The default in words, in Markdown."""
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
    """What a table of options made of a mapping: a value for each option, by its name.

    :ivar at: the mapping.
    :ivar given: where the options stand that were given, known or not.
    :ivar mistaken: the options that were given and are not what was meant: their value is the
        default, or what is left of a list without its mistaken items.
    """

    def __init__(
        self,
        at: Cursor,
        table: Sequence[Option],
        given: Mapping[str, Cursor],
        values: Mapping[str, Any],
        mistaken: frozenset[str] = frozenset(),
    ) -> None:
        self.at = at
        self.table = table
        self.given = given
        self.mistaken = mistaken
        self._values = values

    @classmethod
    def read(cls, at: Cursor, table: Sequence[Option]) -> Options:
        """
        :raises InvalidError: there is no mapping. Whatever is wrong within it is put on the list.
        """
        given = at.mapping()
        values: dict[str, Any] = {}
        mistaken = set(at.node.repeated)
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
                mistaken.add(name)
                continue
            before = len(reported)
            values[name] = given[name].attempt(option.read, default)
            if len(reported) > before:
                mistaken.add(name)
        _report_unknown(at, given, [option.name for option in table])
        return cls(at, table, given, values, frozenset(mistaken))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        """Whether it was given."""
        return name in self.given

    def inherit(self, parent: Mapping[str, Any] | Options) -> Options:
        """The same with the parent's values in place of INHERIT."""
        values = {
            name: parent[name] if value is INHERIT else value
            for name, value in self._values.items()
        }
        return Options(self.at, self.table, self.given, values, self.mistaken)

    def values(self, **renamed: str) -> dict[str, Any]:
        """All values, by the names of the options.

        :param renamed: what an option is called instead.
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
    """The reader of a mapping that has these options and no other."""
    return Reader(lambda at: Options.read(at, table), mapping_schema(table))


def mapping_schema(table: Sequence[Option]) -> Schema:
    """The JSON Schema of a mapping that has these options and no other."""
    schema: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {option.name: _described(option) for option in table},
    }
    required = [option.name for option in table if isinstance(option.default, Required)]
    return {**schema, "required": required} if required else schema


_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def _described(option: Option) -> Schema:
    """What an option accepts, with the reference's words without Markdown's links."""
    schema = option.read.schema
    if "$ref" in schema:  # beside which draft-07 ignores everything
        schema = {"allOf": [schema]}
    schema = {**schema, "description": _LINK.sub(r"\1", option.doc)}
    if isinstance(option.default, str | int) and not option.shown_default:
        schema["default"] = option.default
    return schema
