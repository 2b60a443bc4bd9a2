"""Look at what a rule file does, before it is used by a server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import check, explain, schema

COMMANDS = (check.COMMAND, explain.COMMAND, schema.COMMAND)
"""All commands. Each is a module of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    :param arguments: those of the command line if None.
    :return: the exit status, which is 1 for a file with mistakes.
    :raises SystemExit: the arguments are wrong, or ask for help.
    """
    parser = argparse.ArgumentParser(prog="wsgi-throttle", description=__doc__)
    subparsers = parser.add_subparsers(
        required=True, metavar=" | ".join(command.name for command in COMMANDS)
    )
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
