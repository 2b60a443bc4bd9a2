"""Reads the rule file, checks all of it, and builds what the rest of the package uses.

:mod:`.yamltree` reads the YAML and remembers the line and column of every value, :mod:`.options`
lists the options, and :mod:`.build` makes rules and settings of their values. All mistakes are
reported together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .build import Config, build_config
from .mapping import Options
from .options import TOP_LEVEL
from .reader import Cursor
from .yamltree import Source

__all__ = ["Config", "load"]


def load(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    variables: Mapping[str, str] | None = None,
    allow_unset: bool = False,
    lenient_when_off: bool = False,
) -> Config:
    """Read and check a configuration. Any thread may call it. No storage is connected to.

    :param config: the path of a YAML file, or a mapping with the same content.
    :param variables: the values for ``${NAME}``; those of the process's environment if None.
    :param allow_unset: accept variables without a value, to check a file without its secrets.
    :param lenient_when_off: for a server, whose operator must be able to turn the limiter off even
        if the file has mistakes. If it says ``mode: off``, mistakes in other options raise nothing:
        the result then has no rules, and the mistakes are in its ``diagnostics``.
    :raises ConfigError: with all mistakes, in the order of the file.
    """
    path = None if isinstance(config, Mapping) else Path(config)
    source = Source(
        str(path or "<mapping>"),
        path.parent if path else Path(),
        os.environ if variables is None else variables,
        allow_unset=allow_unset,
    )
    root = source.from_python(config) if isinstance(config, Mapping) else source.read(Path(config))
    top = Cursor(source, root, "").attempt(lambda at: Options.read(at, TOP_LEVEL), None)
    if top is None:
        raise ConfigError(source.diagnostics)
    loaded = build_config(top, path, config if isinstance(config, Mapping) else None)
    if not source.diagnostics:
        return loaded
    diagnostics = sorted(source.diagnostics, key=lambda found: (found.line or 0, found.column or 0))
    if lenient_when_off and _is_off(top):
        return loaded.without_rules(diagnostics)
    raise ConfigError(diagnostics)


def _is_off(top: Options) -> bool:
    """Whether the file clearly says ``mode: off``, not twice and not by an unset variable."""
    return top["mode"] == "off" and "mode" not in top.invalid
