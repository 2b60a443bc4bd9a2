"""Strict YAML with the place of every value, and ``${NAME}`` from the environment.

Only ``true`` and ``false`` are booleans, only decimal digits are integers, nothing at all is null;
everything else is text, so that ``off``, ``no`` and ``1e3`` are the words that they look like.
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
MAX_NODES = 200_000
"""More than this many values, aliases expanded, are an attack or an accident."""
MAX_DEPTH = 32

Value: TypeAlias = "str | list[Node] | dict[str, Node] | None"

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})")

_TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
"""What YAML makes of values by their look; none of it matters here."""

_QUOTED = re.compile(r" '(?!<)[^']{2,}'")
"""What a message of PyYAML quotes of the file, but for single characters."""

_looks_like_a_name = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}").fullmatch


def shown_key(key: str) -> str:
    """A key of a mapping, for messages. One that looks like no name is not shown: where a colon was
    forgotten a key holds a value, which may be a secret."""
    return key if _looks_like_a_name(key) else "..."


# The C loader where PyYAML was built with it: ten times as fast, the same nodes.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    """A value and where it stands."""

    value: Value = field(repr=False)
    """A scalar is its text, which may be a secret; None where there is nothing."""
    plain: bool = False
    """A scalar without quotes, or from the environment: it may be a boolean or integer."""
    line: int | None = None
    column: int | None = None
    hidden: str = ""
    """``${NAME}`` of what came from the environment in this value, which is not shown then."""
    unset: bool = False
    """It names a variable that is not set, which the reader of the file allowed."""
    keys: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    """Where the keys of a mapping stand."""
    repeated: set[str] = field(default_factory=set)
    """The keys of a mapping that it has more than once, which is a mistake."""

    @property
    def secret(self) -> str:
        """``${NAME}`` of what came from the environment, here or below."""
        below: Iterable[Node] = ()
        if isinstance(self.value, dict):
            below = self.value.values()
        elif isinstance(self.value, list):
            below = self.value
        return self.hidden or next((node.secret for node in below if node.secret), "")


class Source:
    """A configuration that is being read, and the mistakes that were found in it so far.

    :param name: what messages call it: the path of the file, or ``<mapping>``.
    :param folder: where the files are that it names by a relative path.
    :param variables: what ``${NAME}`` is taken from.
    :param allow_unset: a variable that is not set is no mistake.
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
        """Put a mistake on the list."""
        self.diagnostics.append(Diagnostic("error", code, self.name, line, column, where, message))

    def fail(self, message: str, line: int | None = None, column: int | None = None) -> ConfigError:
        """The mistake after which nothing else can be read."""
        self.report(message, line, column)
        return ConfigError(self.diagnostics)

    def read(self, path: Path) -> Node:
        """
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
        """
        :raises ConfigError: the text is not YAML.
        """
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = " ".join(filter(None, (error.context, error.problem)))
            problem = _QUOTED.sub("", problem)  # which may be a part of a secret
            line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
            if "nesting depth" in problem:  # since PyYAML 6.0.4 libyaml has a bound of its own
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
        """The same tree of a mapping that a program built.

        :param where: the dotted path that leads to it.
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
            place = mark.line + 1, mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.report("a key is text: put quotes around it", *place)
                continue
            key = key_node.value
            if key == "<<" and not key_node.style:
                for extra in self._merged(value_node, depth):
                    merged = {**extra, **merged}
                continue
            if key in result:
                first = made.keys[key][0]
                self.report(
                    f"the key {shown_key(key)} is here twice, first in line {first}: merge the two",
                    *place,
                )
                made.repeated.add(key)
                continue
            made.keys[key] = place
            result[key] = self._from_yaml(value_node, depth + 1)
        for key, value in merged.items():
            if key not in result:
                result[key] = value
                made.keys[key] = value.line, value.column
        return made

    def _merged(self, node: Any, depth: int) -> Iterator[dict[str, Node]]:
        """The mappings that ``<<`` names."""
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
                node.hidden = " ".join(filter(None, [node.hidden, f"${{{name}}}"]))
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
