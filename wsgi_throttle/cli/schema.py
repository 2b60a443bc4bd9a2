"""``wsgi-throttle schema``: prints the JSON Schema of the rule file, for editors."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..config.schema import SCHEMA
from .command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no arguments."""


def _run(arguments: Any) -> int:
    print(json.dumps(SCHEMA, indent=2))
    return 0


COMMAND = Command(
    "schema", "print the JSON Schema (draft-07) of the rule file", _add_arguments, _run
)
