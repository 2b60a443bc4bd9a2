"""``wsgi-throttle check`` and ``explain``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from wsgi_throttle.cli import main

ROOT = Path(__file__).parent.parent
EXAMPLE = str(ROOT / "config.example.yaml")

Run: TypeAlias = Callable[..., tuple[int, str, str]]
"""Run a command. Return its exit status, its output and its error output."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("SECRET_KEY", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_check_prints_the_table(run: Run) -> None:
    status, out, _ = run("check", EXAMPLE)
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["login"].split() == [
        "login",
        "/login",
        "POST",
        "ip",
        "5",
        "per",
        "minute;",
        "20",
        "per",
        "hour",
    ]
    assert "exempt" in lines["/health,/health/,/static/**"]
    assert "session-user" in lines["export"]
    assert out.splitlines()[-1].endswith("8 rules, 0 warnings")


def test_check_prints_every_mistake_and_fails(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("mode: of\nrules: [{path: /a, limits: 5 per minutee}]")
    status, out, err = run("check", str(path))
    assert (status, out) == (1, "")
    assert err.splitlines()[0].startswith(f"{path}:1:7: mode: ")
    assert err.splitlines()[1].startswith(f"{path}:2:28: rules[0].limits: ")
    assert err.splitlines()[2] == f"{path}: 2 mistakes"


def test_check_tells_of_rules_that_the_table_refuses(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("rules:\n- {path: /a/<x>, limits: 1/s}\n- {path: /a/<y>, limits: 1/s}")
    status, _, err = run("check", str(path))
    assert status == 1
    assert err.startswith(f"{path}:3:")
    assert "in line 2" in err


def test_check_prints_warnings_and_succeeds(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("rules: [{path: /a, limits: 100 per minute; 50 per hour}]")
    status, out, _ = run("check", str(path))
    assert status == 0
    assert "warning: " in out
    assert "can never be reached" in out


def test_check_says_where_the_counts_are_and_what_is_wrong_there(run: Run, tmp_path: Path) -> None:
    counters = tmp_path / "counters"
    counters.mkdir(mode=0o700)
    path = tmp_path / "throttle.yaml"
    path.write_text(f"storage: shared://{counters}\ndefault_limits: 1/s")
    status, out, _ = run("check", str(path))
    assert status == 0
    assert f"counts in {counters}, by user" in out
    assert "warning" not in out.replace("0 warnings", "")
    counters.chmod(0o777)
    _, out, _ = run("check", str(path))
    assert f"warning: {counters} may be written by others: chmod 700 {counters}" in out
    assert "1 warnings" in out
    assert not any(counters.iterdir())


def test_check_shows_no_password(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(
        "storage: redis://user:hunter2@127.0.0.1:6379/0?password=hunter2\ndefault_limits: 1/s"
    )
    status, out, _ = run("check", str(path))
    assert status == 0
    assert "storage redis://127.0.0.1:6379/0," in out
    assert "hunter2" not in out


def test_check_without_the_secrets_is_for_ci(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(
        'session: {kind: flask, secret_key: "${SECRET_KEY}"}\n'
        "key: session-user\ndefault_limits: 1/s"
    )
    assert run("check", str(path))[0] == 1
    assert run("check", "--allow-unset", str(path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["POST", "/login"],
            ["rule              login", "login-1: 5 per minute", "by ip, here ip:192.0.2.1"],
        ),
        (
            ["GET", "/login"],
            ["none; default_limits apply", "lost              login", "it is for POST"],
        ),
        (["get", "/static/x.css"], ["/health,/health/,/static/**", "nothing is counted"]),
        (["POST", "/login?next=/x"], ["rule              login"]),
        (["POST", "/%6Cogin"], ["rule              login"]),
        (["GET", "/x/../login/"], ["is matched as     /x/../login and /login"]),
        (
            ["POST", "/login%0A"],
            ["is matched as     /login\\n and /login\n", "rule              login"],
        ),
        (
            ["POST", "/lo%80gin"],
            ["is matched as     /lo\ufffdgin and /login\n", "rule              login"],
        ),
        (["GET", "/api/export", "--user", "42"], ["here session-user:42"]),
        (
            ["OPTIONS", "/api/export", "--user", "42"],
            [
                "export: 3 per hour, sliding-window, by session-user, here session-user:42",
                "a CORS preflight",
                "export: 60 per hour, sliding-window, by ip, here ip:192.0.2.1",
            ],
        ),
        (["GET", "/api/export", "--ip", "2001:db8::1"], ["here ip:2001:db8::/64"]),
    ],
)
def test_explain_says_which_rule_wins_and_why(
    run: Run, arguments: list[str], expected: list[str]
) -> None:
    status, out, _ = run("explain", EXAMPLE, *arguments)
    assert status == 0
    for text in expected:
        assert text in out


def test_explain_tells_of_shadow_rules_and_of_less_specific_ones(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(
        "rules:\n- {name: all, path: /**, limits: 9/s}\n- {name: a, path: /a, limits: 5/s}\n"
        "- {name: stricter, path: /a, limits: 1/s, mode: shadow}\n"
        "- {name: gone, path: /a, limits: 1/s, mode: off}"
    )
    _, out, _ = run("explain", str(path), "GET", "/a")
    assert "rule              a (line 3)" in out
    assert "counts in shadow  stricter: 1 per second" in out
    assert "lost              all (line 2)" in out
    assert "gone" not in out


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_explain_tells_of_a_rules_own_conditions(run: Run, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(
        f"default_limits: 9/s\nrules:\n- path: /a\n  limits: 1/s\n  mode: {mode}\n"
        "  when: {header: {X-A: b}}\n  skip: python:builtins:bool"
    )
    _, out, _ = run("explain", str(path), "GET", "/a")
    assert "only where      HTTP_X_A is b" in out
    assert ("elsewhere default_limits apply" in out) == (mode == "enforce")
    assert "but not where   python:builtins:bool returns true" in out


@pytest.mark.parametrize("query", ["q=\u00e9", "q=%C3%A9"])
def test_explain_reads_a_query_as_a_server_does(run: Run, tmp_path: Path, query: str) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("default_limits: 1/s\nkey: query:q")
    assert "here query:q:%C3%A9" in run("explain", str(path), "GET", f"/x?{query}")[1]


def test_explain_takes_a_path_that_is_not_utf_8(run: Run) -> None:
    assert run("explain", EXAMPLE, "GET", "/\udcff")[0] == 0


@pytest.mark.parametrize(("mode", "told"), [("enforce", "answered 414"), ("shadow", "passed on")])
def test_explain_tells_of_a_path_that_is_too_long(
    run: Run, tmp_path: Path, mode: str, told: str
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(f"mode: {mode}\ndefault_limits: 1/s")
    assert told in run("explain", str(path), "GET", "/" + "a" * 8192)[1]
    assert told not in run("explain", str(path), "GET", "/" + "a" * 8191)[1]


def test_explain_wants_an_address(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("explain", EXAMPLE, "GET", "/", "--ip", "localhost")
    assert "'localhost' does not appear to be an IPv4 or IPv6 address" in capsys.readouterr().err


def test_it_runs_as_a_module() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "wsgi_throttle", "check", EXAMPLE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "login" in found.stdout


@pytest.mark.parametrize(("key", "told"), [("block", "  blocked  "), ("allow", "  allowed  ")])
def test_explain_tells_of_lists_of_addresses(run: Run, tmp_path: Path, key: str, told: str) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(f"{key}: [192.0.2.0/24]\ndefault_limits: 1/s")
    assert told in run("explain", str(path), "GET", "/")[1]
    assert told not in run("explain", str(path), "GET", "/", "--ip", "198.51.100.1")[1]
