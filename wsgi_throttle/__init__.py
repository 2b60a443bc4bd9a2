"""Limits how often clients may call a WSGI application. The rules are in a YAML file:
``application = Throttle(application, "throttle.yaml")``.
"""

from __future__ import annotations

from .decision import Charge, Decision, Limit, Outcome
from .errors import (
    ConfigError,
    Diagnostic,
    LimitError,
    StorageError,
    StorageURIError,
    ThrottleError,
)
from .middleware import Throttle, wrap
from .observers import Observer
from .verdict import Verdict

__all__ = [
    "Charge",
    "ConfigError",
    "Decision",
    "Diagnostic",
    "Limit",
    "LimitError",
    "Observer",
    "Outcome",
    "StorageError",
    "StorageURIError",
    "Throttle",
    "ThrottleError",
    "Verdict",
    "wrap",
]
