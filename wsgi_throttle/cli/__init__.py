"""The command-line program ``wsgi-throttle``."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
