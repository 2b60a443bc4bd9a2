"""A pytest plugin: one line that says what was left out, and a run that fails where it should not.

``--strict-skips`` is for the continuous integration, which installs all that the tests can use: a
test that is skipped there for a reason which ALLOWED does not list fails the run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from support.redis import PACKAGED

ALLOWED: dict[str, Callable[[re.Match[str]], bool]] = {
    # The servers in wheels are built without TLS; one that the system has is expected to know it.
    r"(.+) was built without TLS": lambda reason: reason[1] in PACKAGED,
    # Debian's and every newer server can be slowed.
    r"(.+) loads too fast, and has no option to be slowed": lambda reason: reason[1] == "redis 6.2",
}
"""Reasons for which a test may be skipped even so (regular expressions of the whole text), each
with the condition under which it holds."""

_INSTALL = re.compile(r"(.*): sudo apt-get install (.+)")


def is_allowed(reason: str) -> bool:
    """Whether a test may be skipped for this reason where everything is installed."""
    found = ((re.fullmatch(text, reason), holds) for text, holds in ALLOWED.items())
    return any(match is not None and holds(match) for match, holds in found)


def summary(reasons: Counter[str]) -> str:
    """What was left out and how to have it, in one line."""
    packages: dict[str, None] = {}
    counts: Counter[str] = Counter()
    for reason, count in reasons.items():
        remedy = _INSTALL.fullmatch(reason)
        counts[remedy[1] if remedy else reason] += count
        packages |= dict.fromkeys(remedy[2].split() if remedy else ())
    told = ", ".join(f"{count} ({text})" for text, count in counts.items())
    install = f"; to have them: sudo apt-get install {' '.join(packages)}" if packages else ""
    return f"left out: {told}{install}"


class Skips:
    """Counts the reasons of skipped tests."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._see(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._see(report)

    def _see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self._reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1

    @property
    def _unlisted(self) -> list[str]:
        return [reason for reason in self._reasons if not is_allowed(reason)]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._strict and self._unlisted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._reasons:
            terminalreporter.write_line(summary(self._reasons))
        for reason in self._unlisted if self._strict else ():
            terminalreporter.write_line(f"not an allowed reason to skip: {reason}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail where a test was skipped for a reason that this plugin does not allow",
    )


def pytest_configure(config: pytest.Config) -> None:
    strict = config.getoption("--strict-skips")
    config.pluginmanager.register(Skips(strict=strict), "wsgi-throttle-skips")
