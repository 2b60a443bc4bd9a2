"""A module whose import fails with the same exception that a missing name in a module raises."""

from __future__ import annotations

raise AttributeError("no such setting")
