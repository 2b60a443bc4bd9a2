"""What this package raises. Everything derives from :class:`ThrottleError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


class ThrottleError(Exception):
    """The root of every error that this package raises."""


class LimitError(ThrottleError, ValueError):
    """A limit string that cannot be read.

    :ivar text: the string as it was given.
    :ivar reason: what is wrong with it, and a form that is right.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f'"{text}" is not a limit: {reason}')
        self.text = text
        self.reason = reason


class Diagnostic(NamedTuple):
    """One thing that is wrong, or doubtful, in a configuration. Its text is one line."""

    severity: Literal["error", "warning"]
    """The configuration of an error cannot be used; that of a warning can."""
    code: str
    """What kind of thing it is, in words that stay the same: ``unknown-option``."""
    source: str
    """The file, or ``<mapping>``."""
    line: int | None
    """Counted from 1; None where the configuration was a mapping, or the whole file is meant."""
    column: int | None
    """Counted from 1, as the line."""
    where: str
    """The option as a dotted path: ``rules[3].limits``."""
    message: str
    """What is wrong, and what would be right."""

    def __str__(self) -> str:
        position = "" if self.line is None else f":{self.line}:{self.column}"
        where = f" {self.where}:" if self.where else ""
        return f"{self.source}{position}:{where} {self.message}"


class ConfigError(ThrottleError, ValueError):
    """A configuration that cannot be used. Its text has one line for each mistake.

    :ivar diagnostics: all mistakes, in the order of the file.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = list(diagnostics)


class StorageError(ThrottleError):
    """The storage did not answer, or not sensibly. The cause is chained (``__cause__``)."""


class StorageURIError(ThrottleError, ValueError):
    """A storage URI with an unknown scheme or option, or a value that does not fit."""
