"""Asking a storage whether a client would be refused, before anything is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..decision import Decision, Limit, Term, Terms
from . import Storage

Look: TypeAlias = Callable[[tuple[str, ...]], Decision | None]
"""From the buckets of a client to the refusal that a take would meet now; None where it would be
granted. Nothing is counted.

:raises StorageError: the storage did not answer.
"""

_NOTHING = Limit("fixed-window", 0, 1, 0)
"""The limit of 0, which refuses always and keeps no state."""


def prepare_look(storage: Storage, terms: Terms) -> Look:
    """The function that looks, in one call of the storage.

    A take of all costs 0 would say what is left, but not how long a cost above 1 has to wait. So
    the terms are taken together with one that always refuses: a take that is refused counts nothing
    and measures each term at its own cost.

    :param terms: one at least.
    """
    look_at = storage.prepare(Terms([*terms, Term(len(terms.groups), _NOTHING, 1, True, "")]))
    enforced = terms.enforced

    def look(buckets: tuple[str, ...]) -> Decision | None:
        # On Redis the bucket is a key, which is to be in the namespace of the others.
        measured = look_at((*buckets, f"{buckets[0]}:look")).measured
        if any(measured[index][0] for index in enforced):
            return Decision(False, terms, buckets, measured[: len(terms)])
        return None

    return look
