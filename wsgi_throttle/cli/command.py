"""What several commands need."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ..config import Config, load
from ..errors import ConfigError
from ..rules.model import Rule


class Command(NamedTuple):
    """One command of ``wsgi-throttle``."""

    name: str
    help: str
    """What it does, on one line of ``--help``."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Any], int]
    """Function of the parsed arguments that runs the command and returns the exit status."""


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that reads a rule file."""
    parser.add_argument("file")
    parser.add_argument(
        "--allow-unset",
        action="store_true",
        help="let ${VARIABLES} be unset, as in CI without secrets",
    )


def read_file(arguments: Any) -> Config | None:
    """Load the rule file that the arguments name. If it has mistakes, print them on stderr and
    return None."""
    try:
        return load(arguments.file, allow_unset=arguments.allow_unset)
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.diagnostics)
        print(f"{arguments.file}: {count} mistake{'s' * (count > 1)}", file=sys.stderr)
        return None


def name_and_mode(rule: Rule) -> str:
    """The rule's name in the output, with its mode if it is not enforced."""
    return rule.name if rule.mode == "enforce" else f"{rule.name} [{rule.mode}]"
