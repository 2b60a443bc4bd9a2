"""Checks of a whole rule set before it serves: errors, and warnings of what is doubtful.

To add one, write a function that yields what is wrong and where, and its row in ERRORS or WARNINGS,
under the code of its diagnostics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ...errors import Diagnostic
from ..model import Location, Rule, RuleSet
from .checked import Check, Checked
from .error_checks import ERRORS
from .warning_checks import WARNINGS

__all__ = ["ERRORS", "WARNINGS", "errors", "warnings"]


def errors(rule_set: RuleSet) -> list[Diagnostic]:
    """The errors in a rule set, because of which it cannot be used.

    They are looked for even if its mode is ``off``, since that may be turned on.
    """
    return _found("error", ERRORS, rule_set, "process")


def warnings(rule_set: RuleSet, *, reach: str = "process") -> list[Diagnostic]:
    """The warnings of a rule set that has no errors.

    :param reach: which requests the storage counts together, see :attr:`.Storage.reach`.
    """
    return _found("warning", WARNINGS, rule_set, reach)


def _found(
    severity: Literal["error", "warning"],
    checks: Mapping[str, Check],
    rule_set: RuleSet,
    reach: str,
) -> list[Diagnostic]:
    checked = Checked(rule_set, tuple(rule for rule in rule_set.rules if rule.mode != "off"), reach)
    return [
        Diagnostic(severity, code, rule_set.source, at.line, at.column, at.where, message)
        for code, check in checks.items()
        for subject, message in check(checked)
        for at in (_location(rule_set, subject),)
    ]


def _location(rule_set: RuleSet, subject: Rule | str) -> Location:
    if isinstance(subject, Rule):
        return subject.location
    return rule_set.locations.get(subject, Location(subject))
