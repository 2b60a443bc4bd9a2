"""A pytest plugin that says in one line which tests were skipped, and how to have them.

With ``--strict-skips`` a test that is skipped for a reason that ALLOWED does not list fails the
run. It is for .ci/run, which installs everything that the tests can use.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Callable

import pytest

from support.redis import PACKAGED
from support.users import others_may_run

ALLOWED: dict[str, Callable[[re.Match[str]], bool]] = {
    # The servers in Python packages are built without TLS. One of the system is built with it.
    r"(.+) was built without TLS": lambda reason: reason[1] in PACKAGED,
    # The wheels of uWSGI are for this machine alone.
    r"there is no uWSGI: pip install pyuwsgi": lambda reason: platform.machine() != "x86_64",
    # Debian's server, and every newer one, has an option to be slowed.
    r"(.+) loads too fast, and has no option to be slowed": lambda reason: reason[1] == "redis 6.2",
    # In a container without the right. A test tries it before it says so.
    r"may not make a PID namespace": lambda reason: True,
    # Only root may, if others may read this Python.
    r"may not run programs as another user": lambda reason: not others_may_run(),
}
"""Reasons for which a test may be skipped under ``--strict-skips``: a regular expression of the
whole text, and a function of its match that says whether the reason is good."""

_INSTALL = re.compile(r"(.*): sudo apt-get install (.+)")


def is_allowed(reason: str) -> bool:
    """Whether a test may be skipped for this reason under ``--strict-skips``."""
    found = ((re.fullmatch(text, reason), holds) for text, holds in ALLOWED.items())
    return any(match is not None and holds(match) for match, holds in found)


def summary(reasons: Counter[str]) -> str:
    """One line that says how many tests were skipped, why, and what to install."""
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
    """Counts the reasons of skipped tests.

    :param strict: whether a reason that ALLOWED does not list fails the run.
    """

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
