"""A module that cannot be imported, as it raises what a missing name in it would raise too."""

from __future__ import annotations

raise AttributeError("no such setting")
