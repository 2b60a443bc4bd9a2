"""``wsgi-throttle check``: prints the rules of a file with all warnings, or all its mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..limits import describe
from ..rules.lint import warnings
from ..rules.model import RuleLimit
from ..storage import Reporting
from .command import Command, add_file, name_and_mode, read_file


def _run(arguments: Any) -> int:
    config = read_file(arguments)
    if config is None:
        return 1
    rows = [("rule", "path", "methods", "key", "limits")]
    rows += [
        (
            name_and_mode(rule),
            ", ".join(pattern.text for pattern in rule.patterns),
            ",".join(rule.methods) or "all",
            _keys(rule.limits),
            "exempt" if rule.exempt else _limits(rule.limits),
        )
        for rule in config.rules
    ]
    rows += [
        (f"({what})", "", "", _keys(limits), _limits(limits))
        for what, limits in (
            ("no rule", config.default_limits),
            ("every request", config.application_limits),
        )
        if limits
    ]
    _print_table(rows)
    print(
        f"\nstorage {_without_secrets(config.storage)}, mode {config.mode}, "
        f"on_storage_error {config.on_storage_error}"
    )
    storage: object = config.opened_storage
    problems: Sequence[str] = ()
    if isinstance(storage, Reporting):
        where, problems = storage.report()
        for one in where:
            print(f"counts in {one}")
    found = [*map(str, warnings(config, reach=config.reach)), *problems]
    for warning in found:
        print(f"warning: {warning}")
    print(f"{arguments.file}: {len(config.rules)} rules, {len(found)} warnings")
    return 0


def _keys(limits: Iterable[RuleLimit]) -> str:
    return "; ".join(dict.fromkeys(",".join(limit.key) for limit in limits))


def _limits(limits: Iterable[RuleLimit]) -> str:
    return "; ".join(describe(limit.limit) for limit in limits)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _without_secrets(uri: str) -> str:
    """The URI without user, password and query."""
    scheme, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


COMMAND = Command("check", "print the rules and all warnings, or all mistakes", add_file, _run)
