"""Tells if one process has two objects that count the same requests on the same counters."""

from __future__ import annotations

import gc
import logging
from collections.abc import Hashable
from weakref import WeakValueDictionary

from .log_once import LogOnce

_living: WeakValueDictionary[Hashable, object] = WeakValueDictionary()
"""By its counters, the object that was last made for them."""

_log_once = LogOnce()


def add(counters: Hashable, user: object, name: str) -> None:
    """Note that an object uses these counters. If another one of this process does so too, log it,
    once for the same counters.

    :param counters: None if nobody can share them.
    :param name: of the configuration, for the log.
    """
    if counters is None:
        return
    if _living.get(counters, user) is not user:
        gc.collect()  # the other one may be garbage
    if _living.get(counters, user) is not user:
        _log_once(
            counters,
            logging.WARNING,
            "two Throttles of this process have the same counters, those of %s: a request that "
            "passes both is counted twice. Make one Throttle, or name a namespace in each",
            name,
        )
    _living[counters] = user


def remove(user: object) -> None:
    """Note that an object uses its counters no more."""
    for counters, known in list(_living.items()):
        if known is user:
            _living.pop(counters, None)
