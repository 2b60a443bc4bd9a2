"""What rules are called: clients learn no path of a rule that has no name, and operators do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from wsgi_throttle import Observer, Throttle
from wsgi_throttle.cli import main
from wsgi_throttle.config import load
from wsgi_throttle.verdict import Verdict

HIDDEN = {"path": "/admin/internal-<int:id>", "methods": ["POST"], "limits": "1 per hour"}
NAME = "POST /admin/internal-<int:id>"


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


def client(*rules: dict[str, Any], **more: Any) -> Client:
    return Client(Throttle(application, {"storage": "memory://", "rules": list(rules)}, **more))


def told(answer: TestResponse) -> str:
    """All that a client gets to see."""
    return str(answer.headers) + answer.get_data(as_text=True)


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/plain"])
def test_a_client_is_told_no_path(accept: str) -> None:
    user = client({"path": "/other", "limits": "1 per hour"}, HIDDEN)
    answers = [user.post("/admin/internal-1", headers={"Accept": accept}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    for answer in answers:
        assert '"rule-2";q=1;w=3600' in answer.headers["RateLimit-Policy"]
        assert answer.headers["RateLimit"].startswith('"rule-2";r=0')
        assert "internal" not in told(answer)
        assert "admin" not in told(answer)


def test_a_body_of_ones_own_is_told_none_either(tmp_path: Path) -> None:
    (tmp_path / "429.txt").write_text("slow down, $rule")
    path = tmp_path / "throttle.yaml"
    path.write_text(
        "storage: memory://\nresponses: {text: 429.txt}\n"
        "rules: [{path: /secret, limits: 0/s}, {path: /also, limits: 0/s, response: {}}]\n"
    )
    user = Client(Throttle(application, path))
    assert user.get("/secret", headers={"Accept": "text/plain"}).text == "slow down, rule-1"
    assert user.get("/also", headers={"Accept": "text/plain"}).text == "slow down, rule-2"


def test_on_limit_is_given_the_name_that_clients_may_see() -> None:
    seen: list[str] = []

    def on_limit(environ: dict[str, Any], decision: Any) -> None:
        seen.extend(charge.policy for charge, _ in decision.refusing)

    user = client(HIDDEN, on_limit=on_limit)
    for _ in range(2):
        user.post("/admin/internal-1")
    assert seen == ["rule-1"]


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_logs_and_observers_have_the_paths(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    class Watching(Observer):
        every_request = True

        def decided(self, environ: dict[str, Any], verdict: Verdict) -> None:
            assert verdict.decision is not None
            seen.extend(charge.label for charge in verdict.decision.charges)

    user = client({**HIDDEN, "mode": mode}, observers=[Watching()])
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        for _ in range(2):
            user.post("/admin/internal-1")
    assert seen == [NAME, NAME]
    assert [record.__dict__["rule"] for record in caplog.records if "key" in record.__dict__] == [
        NAME
    ]
    assert f"by {NAME} (1 per hour)" in caplog.text


def test_explain_and_check_have_the_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("rules: [{path: '/in-<int:id>', methods: [POST], limits: 1/s; 9/hour}]\n")
    assert main(["explain", str(path), "POST", "/in-1"]) == 0
    out = capsys.readouterr().out
    assert "POST /in-<int:id>-1: 1 per second" in out
    assert "POST /in-<int:id>-2: 9 per hour" in out
    assert main(["check", str(path)]) == 0
    assert "POST /in-<int:id>  " in capsys.readouterr().out


def test_no_counter_moves() -> None:
    seen: list[str] = []

    class Watching(Observer):
        every_request = True

        def decided(self, environ: dict[str, Any], verdict: Verdict) -> None:
            assert verdict.decision is not None
            seen.extend(verdict.decision.buckets)

    user = client(HIDDEN, {"path": "/a", "limits": "1/s", "name": "a"}, observers=[Watching()])
    user.post("/admin/internal-1", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    user.get("/a", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert seen == [
        "throttle:2:path=POST /admin/internal-<int%3Aid>:ip:{ip:192.0.2.1}",
        "throttle:2:rule=a:ip:{ip:192.0.2.1}",
    ]


ONE, TWO = "1/s", "1/s; 9/hour"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param([(None, ONE), (None, ONE)], ["rule-1", "rule-2"], id="in the file's order"),
        pytest.param([("a", ONE), (None, ONE)], ["a", "rule-1"], id="named ones do not count"),
        pytest.param([(None, TWO)], ["rule-1-1", "rule-1-2"], id="several limits"),
        pytest.param(
            [(None, ONE), ("rule-1", ONE)], ["rule-2", "rule-1"], id="a rule of that name"
        ),
        pytest.param(
            [(None, ONE), ("rule", TWO)], ["rule-3", "rule-1", "rule-2"], id="limits of that name"
        ),
        pytest.param(
            [("rule-1", TWO), (None, ONE), ("rule-2-1", ONE), (None, TWO)],
            ["rule-1-1", "rule-1-2", "rule-2", "rule-2-1", "rule-3-1", "rule-3-2"],
            id="all of these",
        ),
        pytest.param([("/1", ONE), (None, ONE)], ["/1", "rule-1"], id="a name that is a path"),
        pytest.param(
            [(None, [ONE, "default"])], ["rule-1", "default-1", "default-2"], id="the defaults"
        ),
        pytest.param([(None, "default"), (None, ONE)], ["default-1", "default-2", "rule-2"]),
    ],
)
def test_no_two_limits_have_one_name(
    rules: list[tuple[str | None, Any]], expected: list[str]
) -> None:
    config = load(
        {
            "default_limits": "7/s; 70/hour",
            "rules": [
                {"path": f"/{number}", "limits": limits, **({"name": name} if name else {})}
                for number, (name, limits) in enumerate(rules)
            ],
        }
    )
    found = [limit.policy for rule in config.rules for limit in rule.limits]
    assert found == expected
    assert len({*found}) == len(found)


def test_an_exempt_rule_and_one_that_is_off_count_in_the_numbers() -> None:
    config = load(
        {
            "rules": [
                {"path": "/a", "exempt": True},
                {"path": "/b", "limits": "1/s", "mode": "off"},
                {"path": "/c", "limits": "1/s"},
            ]
        }
    )
    assert [limit.policy for limit in config.rules[2].limits] == ["rule-3"]
