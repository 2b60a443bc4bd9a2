"""Functions of the application that a configuration names: ``python:package.module:function``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from .clock import MONOTONIC, Clock
from .log_once import LogOnce

LOG_PERIOD_S = 60.0
"""The failures of a hook are logged once in this time at most."""

_is_path = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*").fullmatch


def load_hook(path: str) -> Callable[..., Any]:
    """Import a module and return the function in it that ``package.module:function`` names. The
    function may be an attribute of another name in the module: ``package.module:Class.method``.

    :raises ValueError: the path is malformed, the module cannot be imported, there is no such name
        in it, or it is not callable. The message says which and what to do; the exception that the
        module raised is chained.
    """
    if not _is_path(path):
        raise ValueError(f'"{path}" names no function: write python:package.module:function')
    module, _, name = path.partition(":")
    try:
        import_module(module)
    except Exception as error:  # a module that fails may raise anything
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
    """A function of the application that is called with the environ of a request.

    If it raises an exception, that is logged, once a minute at most, and the result is None; the
    request goes on. Any thread may call it, so the function itself must be thread-safe.

    :param path: ``package.module:function``, imported now.
    :param convert: turns what the function returned into the result of the call. It raises
        ValueError for a value that makes no sense, which counts as an exception of the function.
    :param clock: may not step back.
    :raises ValueError: as :func:`load_hook` does.
    """

    def __init__(
        self,
        path: str,
        convert: Callable[[Any], Any],
        *,
        clock: Clock = MONOTONIC,
    ) -> None:
        self.path = path
        self._function = load_hook(path)
        self._convert = convert
        self._log_once = LogOnce(LOG_PERIOD_S, clock=clock)

    def __call__(self, environ: dict[str, Any]) -> Any:
        """The converted result; None where the function, or the conversion, failed."""
        try:
            return self._convert(self._function(environ))
        except Exception:  # noqa: BLE001 - whatever it raises, the request must not fail for it
            self._log_once(
                "failed",
                logging.ERROR,
                "python:%s failed, which counts as a result of None (logged once a minute at most)",
                self.path,
                exc_info=True,
            )
            return None
