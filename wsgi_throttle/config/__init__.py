"""The rule file: read, checked whole, and made into what the rest of the package uses."""

from __future__ import annotations

from .build import Config, load

__all__ = ["Config", "load"]
