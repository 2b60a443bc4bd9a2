"""The rule file: read, checked whole, and made into what the rest of the package uses.

:mod:`.yamltree` reads YAML with the place of every value, :mod:`.options` says which options there
are, and :mod:`.build` makes rules and settings of their values. Every mistake is found in one pass.
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
    """Read and check a whole configuration. Connects to nothing.

    :param config: the path of a YAML file, or a mapping of the same shape.
    :param variables: what ``${NAME}`` is taken from; the process's environment if None.
    :param allow_unset: let a variable be unset, for checking a file without its secrets.
    :param lenient_when_off: for a server. Where the file says ``mode: off``, mistakes in its other
        options raise nothing: the configuration has no rules then, and the mistakes are its
        ``diagnostics``. Otherwise a mistake elsewhere would keep the limiter from being turned off.
    :raises ConfigError: with every mistake in it.
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
    loaded = build_config(top, path)
    if not source.diagnostics:
        return loaded
    diagnostics = sorted(source.diagnostics, key=lambda found: (found.line or 0, found.column or 0))
    if lenient_when_off and _is_off(top):
        return loaded.without_rules(diagnostics)
    raise ConfigError(diagnostics)


def _is_off(top: Options) -> bool:
    """Whether the file says without doubt that nothing is to be limited."""
    return top["mode"] == "off" and "mode" not in top.mistaken
