"""Reads a small part of YAML strictly, with the line and column of every value, and replaces
``${NAME}`` by values from the environment.

Only ``true`` and ``false`` are booleans, and only decimal digits are numbers. An empty value is
null. Everything else is text, such as ``off``, ``no`` and ``1e3``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ..errors import ConfigError, Diagnostic

MAX_BYTES = 1 << 20
"""The largest file that is read."""
MAX_NODES = 200_000
"""How many values a file may have, counted after aliases are expanded: a few nested aliases can
make billions of values."""
MAX_DEPTH = 32
"""How deep values may be nested."""

Value: TypeAlias = "str | list[Node] | dict[str, Node] | None"

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})")

_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
"""The tags that YAML gives to values because of how they look. They are ignored."""

_QUOTED = re.compile(r" '(?!<)[^']{2,}'")
"""What a message of PyYAML quotes from the file, except single characters."""

_looks_like_a_name = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}").fullmatch


def shown_key(key: str) -> str:
    """A key of a mapping, for messages. One that does not look like a name is left out: if a colon
    was forgotten, the key contains the value too, which may be a secret."""
    return key if _looks_like_a_name(key) else "..."


# The C loader gives the same nodes faster, but some builds of PyYAML do not have it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    """A value, and where it is in the file. Lines and columns count from 1."""

    value: Value = field(repr=False)
    """A scalar is its text, which may be a secret; None for an empty value."""
    plain: bool = False
    """Whether it is a scalar without quotes or from the environment, and so may be a boolean or a
    number."""
    line: int | None = None
    column: int | None = None
    placeholder: str = ""
    """For a value that came from the environment and must not be shown: the variables that stand
    for it in the file, such as ``${NAME}``. Otherwise empty."""
    unset: bool = False
    """Whether it names a variable that is not set."""
    keys: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    """Of a mapping: the line and column of each key."""
    repeated: set[str] = field(default_factory=set)
    """Of a mapping: the keys that occur more than once, which is a mistake."""

    @property
    def any_placeholder(self) -> str:
        """Its own placeholder, or the first one of a value within it; empty if there is none."""
        below: Iterable[Node] = ()
        if isinstance(self.value, dict):
            below = self.value.values()
        elif isinstance(self.value, list):
            below = self.value
        return self.placeholder or next(
            (node.any_placeholder for node in below if node.any_placeholder), ""
        )


class Source:
    """A configuration that is being read, and the mistakes found in it so far. One thread uses it.

    :param name: its name in messages: the path of the file, or ``<mapping>``.
    :param folder: the folder from which relative paths in the configuration are resolved.
    :param variables: the values for ``${NAME}``.
    :param allow_unset: whether a variable may have no value.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        variables: Mapping[str, str],
        *,
        allow_unset: bool,
    ) -> None:
        self.name = name
        self.folder = folder
        self.diagnostics: list[Diagnostic] = []
        self._variables = variables
        self._allow_unset = allow_unset
        self._nodes = 0

    def report(
        self,
        message: str,
        line: int | None = None,
        column: int | None = None,
        where: str = "",
        code: str = "yaml",
    ) -> None:
        """Add a mistake to the diagnostics. See :class:`.Diagnostic` for the parameters."""
        self.diagnostics.append(Diagnostic("error", code, self.name, line, column, where, message))

    def fail(self, message: str, line: int | None = None, column: int | None = None) -> ConfigError:
        """Report a mistake after which nothing else can be read, and return the error to raise."""
        self.report(message, line, column)
        return ConfigError(self.diagnostics)

    def read(self, path: Path) -> Node:
        """Read a YAML file.

        :raises ConfigError: the file cannot be read, or is not YAML.
        """
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise self.fail(
                f"the file cannot be read: {reason}; give its path to Throttle, or in "
                "WSGI_THROTTLE_CONFIG"
            ) from error
        if len(data) > MAX_BYTES:
            raise self.fail("the file is larger than 1 MiB: is it the right one?")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.fail(f"the file is not UTF-8 text (byte {error.start})") from error
        return self.parse(text)

    def parse(self, text: str) -> Node:
        """Read the text of a YAML file.

        :raises ConfigError: the text is not YAML.
        """
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = " ".join(filter(None, (error.context, error.problem)))
            problem = _QUOTED.sub("", problem)  # which may be a part of a secret
            line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
            if "nesting depth" in problem:  # libyaml has a bound of its own
                raise self.fail(
                    f"values are nested more than {MAX_DEPTH} deep", line, column
                ) from None
            hint = ": put quotes around a value that has one of these characters: { } [ ] * & # : %"
            # The cause is left out of tracebacks, since it quotes the line.
            raise self.fail(f"this is not YAML: {problem}{hint}", line, column) from None
        except yaml.YAMLError as error:
            raise self.fail(f"this is not YAML: {str(error).splitlines()[0]}") from None
        except RecursionError as error:
            raise self.fail(f"values are nested more than {MAX_DEPTH} deep") from error
        if root is None:
            raise self.fail("the file is empty: it needs at least default_limits or rules")
        return self._from_yaml(root, 0)

    def from_python(self, value: object, depth: int = 0, where: str = "") -> Node:
        """Make the same tree of a mapping that a program built.

        :param where: the path of the value in the mapping, for messages: ``.rules[3]``.
        :raises ConfigError: it is nested too deep, or has too many values.
        """
        self._count(depth, None, None)
        if isinstance(value, Mapping):
            return Node(
                {
                    str(key): self.from_python(item, depth + 1, f"{where}.{shown_key(str(key))}")
                    for key, item in value.items()
                }
            )
        if isinstance(value, list | tuple):
            return Node(
                [
                    self.from_python(item, depth + 1, f"{where}[{index}]")
                    for index, item in enumerate(value)
                ]
            )
        if isinstance(value, str):
            return self._scalar(value, None, None, plain=False, where=where.lstrip("."))
        if isinstance(value, bool):
            return Node(str(value).lower(), plain=True)
        if value is not None and not isinstance(value, int | float):
            kind = type(value).__name__
            self.report(
                f"a value of type {kind} is not known here: give it as text",
                where=where.lstrip("."),
            )
            return Node(None)
        return Node(None if value is None else str(value), plain=True)

    def _from_yaml(self, node: Any, depth: int) -> Node:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self._count(depth, line, column)
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
            if node.value:
                message = f"the tag {node.tag} is not known here: leave it out"
            else:  # a text, and perhaps a secret
                message = "a text that begins with ! is a tag: put quotes around it"
            self.report(message, line, column)
        if isinstance(node, yaml.SequenceNode):
            return Node(
                [self._from_yaml(item, depth + 1) for item in node.value], line=line, column=column
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        return self._scalar(node.value, line, column, plain=not node.style)

    def _mapping(self, node: Any, depth: int) -> Node:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        result: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        made = Node(result, line=line, column=column)
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            position = mark.line + 1, mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.report("a key is text: put quotes around it", *position)
                continue
            key = key_node.value
            if key == "<<" and not key_node.style:
                for extra in self._merged(value_node, depth):
                    merged = {**extra, **merged}
                continue
            if key in result:
                first = made.keys[key][0]
                self.report(
                    f'the key "{shown_key(key)}" is here twice, first in line {first}: merge the '
                    "two",
                    *position,
                )
                made.repeated.add(key)
                continue
            made.keys[key] = position
            result[key] = self._from_yaml(value_node, depth + 1)
        for key, value in merged.items():
            if key not in result:
                result[key] = value
                made.keys[key] = value.line, value.column
        return made

    def _merged(self, node: Any, depth: int) -> Iterator[dict[str, Node]]:
        """The mappings that the key ``<<`` merges into its mapping."""
        made = self._from_yaml(node, depth + 1)
        for item in made.value if isinstance(made.value, list) else [made]:
            if isinstance(item.value, dict):
                yield item.value
            else:
                self.report("<< takes a mapping, or a list of mappings", item.line, item.column)

    def _scalar(
        self, text: str, line: int | None, column: int | None, *, plain: bool, where: str = ""
    ) -> Node:
        node = Node(text, plain, line, column)

        def variable(match: re.Match[str]) -> str:
            name = match["name"]
            if name is None:
                return "$"
            value = self._variables.get(name) or None
            if value is not None:
                node.placeholder = " ".join(filter(None, [node.placeholder, f"${{{name}}}"]))
                return value
            if match["default"] is not None:
                return str(match["default"])
            node.unset = True
            if not self._allow_unset:
                self.report(
                    f"{name} is not set in the environment: set it, or write a default as "
                    f"${{{name}:-value}}",
                    line,
                    column,
                    code="unset-variable",
                )
            return ""

        replaced = _VARIABLE.sub(variable, text) if "$" in text else text
        if "${" in _VARIABLE.sub("", text):
            self.report(
                "here is a ${ that begins no variable: write ${NAME} or ${NAME:-default}, and "
                "$${ for a plain ${",
                line,
                column,
                where,
            )
        if replaced != text:
            node.value, node.plain = replaced, True
        if not node.value and plain:
            node.value = None
        return node

    def _count(self, depth: int, line: int | None, column: int | None) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise self.fail(
                f"values are nested more than {MAX_DEPTH} deep, or refer to themselves",
                line,
                column,
            )
        if self._nodes > MAX_NODES:
            raise self.fail(
                f"there are more than {MAX_NODES} values, aliases expanded", line, column
            )
