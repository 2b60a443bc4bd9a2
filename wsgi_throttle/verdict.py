"""What was decided on a request, for the middleware to answer and for observers to count."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .decision import Decision
from .rules.model import Rule
from .rules.plan import Plan


class Verdict(NamedTuple):
    """One request's. Immutable."""

    outcome: Literal[
        "exempt", "allowed", "blocked", "too_long", "granted", "refused", "unavailable"
    ]
    """``exempt``: nothing is counted. ``allowed`` and ``blocked``: by a list of addresses.
    ``too_long``: the path is not matched. ``granted`` and ``refused``: by the limits.
    ``unavailable``: nothing can be counted, and the rule says to deny."""
    plan: Plan
    decision: Decision | None = None
    """What was measured, where it was granted or refused."""
    counted_by: Literal["storage", "local", "nobody"] = "nobody"
    """``local``: this process alone, since the storage has an outage. ``storage`` is also said of a
    request for which there was nothing to count."""
    rule: Rule | None = None
    """Whose answer a client gets that may not pass: the rule of the limit that refuses for longest
    (of several the first in the file), the rule whose list has the client, the rule that denies.
    None where that is no rule's, but the top level's."""
