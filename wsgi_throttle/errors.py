"""The exceptions of this package, which all derive from :class:`ThrottleError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


class ThrottleError(Exception):
    """The base class of every exception that this package defines."""


class LimitError(ThrottleError, ValueError):
    """A limit string, such as ``5 per minute``, that cannot be used.

    :ivar text: the string as it was given.
    :ivar reason: what is wrong with it, and what to write instead.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f'"{text}" is not a limit: {reason}')
        self.text = text
        self.reason = reason


class Diagnostic(NamedTuple):
    """An error or a warning about a configuration. Immutable; ``str()`` gives it on one line."""

    severity: Literal["error", "warning"]
    """``error``: the configuration cannot be used. ``warning``: it can, but is doubtful."""
    code: str
    """A fixed name for this kind of problem, for programs: ``unknown-option``."""
    source: str
    """The path of the file, or ``<mapping>``."""
    line: int | None
    """Counted from 1. None if the configuration was a mapping, or the whole file is meant."""
    column: int | None
    """Counted from 1. None where the line is."""
    where: str
    """The dotted path of the option: ``rules[3].limits``. Empty for the whole configuration."""
    message: str
    """What is wrong, and what to write instead."""

    def __str__(self) -> str:
        position = "" if self.line is None else f":{self.line}:{self.column}"
        where = f" {self.where}:" if self.where else ""
        return f"{self.source}{position}:{where} {self.message}"


class ConfigError(ThrottleError, ValueError):
    """A configuration that cannot be used. ``str()`` gives one line for each mistake.

    :ivar diagnostics: all mistakes, in the order of the file.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = list(diagnostics)


class StorageError(ThrottleError):
    """The storage did not answer, or its answer cannot be used. The cause is in ``__cause__``.

    One such error may be an accident. Several of them begin an outage; see
    :class:`.CircuitBreaker`.

    :ivar remedy: what somebody has to do before it can work, which the message ends with; empty if
        it may work again by itself.
    """

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.remedy = remedy


class StorageDownError(StorageError):
    """The storage can count nobody: it refuses connections, or its file cannot be opened. A single
    one begins an outage."""

    @classmethod
    def caused_by(cls, error: StorageError) -> StorageDownError:
        """The same error, known to concern everybody."""
        made = cls(str(error))
        made.remedy = error.remedy
        return made


class StorageRequestError(StorageError):
    """The storage works, but could not count this one request, which says nothing about others. It
    never begins an outage."""


class StorageURIError(ThrottleError, ValueError):
    """A storage URI with an unknown scheme, an unknown option or an invalid value."""
