"""For the test suites of applications that are limited, and of storages that others write.

Nothing here is for a server in use. :class:`StorageContract` and :class:`SharedStorageContract`
need pytest, which is imported when one of them is; everything else works without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .clock import ManualClock
from .counters import fresh_counters

__all__ = ["ManualClock", "SharedStorageContract", "StorageContract", "fresh_counters"]

if TYPE_CHECKING:
    from .contract import SharedStorageContract, StorageContract
else:

    def __getattr__(name: str) -> Any:
        """Import the contract when one of its two classes is first asked for."""
        if name in ("SharedStorageContract", "StorageContract"):
            return getattr(import_module(".contract", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
