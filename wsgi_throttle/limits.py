"""Reads and writes limit strings: ``5 per minute``, ``100/hour; 10 per 15 minutes``."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches

from .decision import Limit
from .errors import LimitError
from .strategies import LARGEST, STRATEGIES

DEFAULT_STRATEGY = "sliding-window"
MAX_QUOTA = 10**12
MAX_WINDOW_MS = 100 * 365 * 86_400_000

_UNITS_MS = {
    1: "ms millisecond milliseconds",
    1_000: "s sec secs second seconds",
    60_000: "m min mins minute minutes",
    3_600_000: "h hr hrs hour hours",
    86_400_000: "d day days",
    7 * 86_400_000: "w week weeks",
    30 * 86_400_000: "month months",
    365 * 86_400_000: "year years",
}
UNITS_MS = {name: ms for ms, names in _UNITS_MS.items() for name in names.split()}
"""Unit -> milliseconds. A month has 30 days and a year 365."""

_SEPARATOR = re.compile(r"[;,|]")
_LIMIT = re.compile(
    r"(?P<quota>[0-9]+)\s*(?:/|per)\s*(?P<multiple>[0-9]*)\s*(?P<unit>[a-z]+)", re.IGNORECASE
)
_EXAMPLE = 'write it as "5 per minute", "100/hour" or "10 per 15 minutes"'


def parse(text: str, *, strategy: str = DEFAULT_STRATEGY, burst: int | None = None) -> list[Limit]:
    """Read one or more limits, separated by ``;``, ``,`` or ``|``.

    Letter case and extra white space do not matter. A quota of 0 refuses every request.

    :param strategy: a name in :data:`.STRATEGIES`.
    :param burst: how many requests may come at once, for the token bucket. None: as many as the
        quota.
    :raises LimitError: the text cannot be read, has the same limit twice, or has a limit that
        cannot be counted exactly.
    """
    limits: list[Limit] = []
    for part in _SEPARATOR.split(text):
        quota, window_ms = _rate(part.strip(), text)
        limit = Limit(strategy, quota, window_ms, quota if burst is None else burst)
        check(limit, text)
        if limit in limits:
            raise LimitError(text, f"it has {describe(limit)} twice: leave one out")
        limits.append(limit)
    return limits


def is_limit(text: str) -> bool:
    """Whether the text can be read as limits."""
    try:
        return bool(parse(text))
    except LimitError:
        return False


def describe(limit: Limit) -> str:
    """The quota and the window of a limit in words: ``10 per 15 minutes``."""
    unit_ms = max(ms for ms in _UNITS_MS if not limit.window_ms % ms)
    multiple = limit.window_ms // unit_ms
    name = _UNITS_MS[unit_ms].split()[-2]
    return f"{limit.quota} per {name if multiple == 1 else f'{multiple} {name}s'}"


def check(limit: Limit, text: str) -> None:
    """Check that a limit can be counted exactly.

    :param text: the limit string that it comes from, for the message.
    :raises LimitError: the quota, the window or their product is too large.
    """
    if limit.quota > MAX_QUOTA:
        raise LimitError(text, f"{limit.quota} is more than can be counted: at most {MAX_QUOTA}")
    if limit.window_ms > MAX_WINDOW_MS:
        raise LimitError(text, "the period is longer than 100 years")
    if STRATEGIES[limit.strategy].largest(limit) >= LARGEST:
        raise LimitError(
            text, "that many in that time cannot be counted exactly: shorten the period"
        )


def multiplied(limit: Limit, factor: int) -> Limit:
    """The limit with its quota and burst multiplied by the factor, or by the largest smaller one
    with which it can still be counted exactly."""
    for times in range(factor, 1, -1):
        larger = replace(limit, quota=limit.quota * times, burst=limit.burst * times)
        if _fits(larger):
            return larger
    return limit


def _fits(limit: Limit) -> bool:
    try:
        check(limit, "")
    except LimitError:
        return False
    return True


def _rate(part: str, text: str) -> tuple[int, int]:
    """The quota, and the window in milliseconds, of one limit.

    :param text: the whole limit string, for messages.
    """
    if not part:
        raise LimitError(
            text, f"a separator has nothing beside it: {_EXAMPLE}, with one ; between two"
        )
    match = _LIMIT.fullmatch(part)
    if not match or not part.isascii():
        raise LimitError(text, _EXAMPLE)
    unit = match["unit"].lower()
    if unit not in UNITS_MS:
        longer = [name for name in UNITS_MS if name.startswith(unit)]
        close = longer or get_close_matches(unit, UNITS_MS, n=1)
        if not close:
            raise LimitError(text, f'"{unit}" is not a unit of time: {_EXAMPLE}')
        right = part[: match.start("unit")] + close[0]
        raise LimitError(text, f'did you mean "{right}"?')
    # The length is checked first, since int() raises for thousands of digits.
    multiple = match["multiple"] or "1"
    if max(len(match["quota"]), len(multiple)) > 20:
        raise LimitError(text, f"a number in it is far too large: {_EXAMPLE}")
    if not int(multiple):
        raise LimitError(
            text, f'a period of zero is none: {_EXAMPLE}; "0 per minute" refuses always'
        )
    return int(match["quota"]), int(multiple) * UNITS_MS[unit]
