"""The verdict on a request: made by the engine, answered by the middleware, told to observers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .decision import Decision
from .rules.model import Rule
from .rules.plan import Plan


class Verdict(NamedTuple):
    """What was decided on one request. Immutable."""

    outcome: Literal[
        "exempt", "allowed", "blocked", "too_long", "granted", "refused", "unavailable"
    ]
    """What happens to the request, and why.

    - ``exempt``: it passes, since nothing is counted for it.
    - ``allowed``, ``blocked``: it passes, or is answered 403, by a list of addresses.
    - ``too_long``: it is answered 414, since its path is too long to find its rules.
    - ``granted``, ``refused``: it passes, or is answered 429, by its limits.
    - ``unavailable``: it is answered 503, since the storage has an outage and the rule denies then.
    """
    plan: Plan
    """What the rules say of the request."""
    decision: Decision | None = None
    """What was measured, if the request was granted or refused."""
    counted_by: Literal["storage", "local", "nobody"] = "nobody"
    """``local``: this process alone, since the storage has an outage. ``storage``: the storage, or
    there was nothing to count."""
    rule: Rule | None = None
    """The rule whose answer the client gets, if the request does not pass: the rule of the limit
    with the longest wait (of several, the first in the file), the rule whose list blocks the
    client, or the rule that denies. None if it is the answer of the top level, and if the request
    passes."""
