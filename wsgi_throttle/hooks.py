"""Functions of the application's own, named ``package.module:function`` in a configuration."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from .log_once import Notices

LOG_PERIOD_S = 60.0
"""A hook that fails is logged this often at most."""

_is_path = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*").fullmatch


def load_hook(path: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names, imported now.

    :raises ValueError: it cannot be had; the message has the remedy, and the cause is chained.
    """
    if not _is_path(path):
        raise ValueError(f'"{path}" names no function: write python:package.module:function')
    module, _, name = path.partition(":")
    try:
        import_module(module)
    except Exception as error:  # whatever their module raises
        raise ValueError(
            f'cannot import "{module}" ({type(error).__name__}: {error}): is it on the Python path?'
        ) from error
    try:
        found = resolve_name(path)
    except AttributeError as error:
        raise ValueError(
            f'"{module}" has no "{name}": check its spelling, and that it is defined before '
            "the application is wrapped"
        ) from error
    if not callable(found):
        raise ValueError(  # noqa: TRY004 - a bad value of a setting
            f'"{path}" is of type {type(found).__name__}, not a function'
        )
    function: Callable[..., Any] = found
    return function


class Hook:
    """Calls such a function for a request; what it raises is logged and never passed on.

    :param use: how the value is read: returns the result, or raises ValueError for nonsense.
    """

    def __init__(self, path: str, use: Callable[[Any], Any]) -> None:
        self.path = path
        self._function = load_hook(path)
        self._use = use
        self._notice = Notices(LOG_PERIOD_S)

    def __call__(self, environ: dict[str, Any]) -> Any:
        """What the function said; None where it failed."""
        try:
            return self._use(self._function(environ))
        except Exception:  # noqa: BLE001 - a request must not fail for it, nor pass for a stranger
            self._notice(
                "failed",
                logging.ERROR,
                "python:%s failed and counts as having found nothing (said once a minute at most)",
                self.path,
                exc_info=True,
            )
            return None
