"""What others' tests are given: fresh counters, a clock to move, and the storage contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from support.servers import DECIDING, ROOT, wait_until
from test_docs import FIRST_RULES, blocks
from wsgi_throttle import Decision, Throttle
from wsgi_throttle.observers import Observer
from wsgi_throttle.testing import ManualClock, fresh_counters
from wsgi_throttle.verdict import Verdict

HOURLY = {"name": "page", "path": "/page", "limits": "2 per hour"}
DECISION = "wsgi_throttle.decision"


def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"ok"]


HOME = {"REMOTE_ADDR": "127.0.0.1"}


def statuses(throttle: Throttle, number: int) -> list[int]:
    visitor = Client(throttle)
    found = []
    for _ in range(number):
        with visitor.get("/page", environ_base=HOME) as response:
            found.append(response.status_code)
    return found


@pytest.fixture
def throttle(shared_uri: str) -> Iterator[Throttle]:
    """An application on a storage that keeps what was counted: /page may be had twice an hour."""
    made = Throttle(answer, {"storage": shared_uri, "rules": [HOURLY]})
    yield made
    made.close()


# --- counters for one test ------------------------------------------------------------------------


def test_what_is_counted_meanwhile_is_counted_from_zero_and_forgotten(throttle: Throttle) -> None:
    assert statuses(throttle, 1) == [200]
    for _ in range(2):
        with fresh_counters(throttle):
            assert statuses(throttle, 3) == [200, 200, 429]
    assert statuses(throttle, 2) == [200, 429]


def test_it_ends_when_the_test_fails_too(throttle: Throttle) -> None:
    statuses(throttle, 2)

    @fresh_counters(throttle)
    def fails() -> None:
        assert statuses(throttle, 1) == [200]
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            fails()
    assert statuses(throttle, 1) == [429]


def test_one_inside_another_begins_at_zero_and_gives_back_the_outer_one(throttle: Throttle) -> None:
    with fresh_counters(throttle):
        assert statuses(throttle, 1) == [200]
        with fresh_counters(throttle):
            assert statuses(throttle, 3) == [200, 200, 429]
        assert statuses(throttle, 2) == [200, 429]


def test_limits_are_counted_by_the_clock_and_no_refusal_is_remembered_longer(
    throttle: Throttle,
) -> None:
    clock = ManualClock()
    with fresh_counters(throttle, clock=clock):
        assert statuses(throttle, 3) == [200, 200, 429]
        clock.advance(3599.9)
        assert statuses(throttle, 1) == [429]
        clock.advance(0.1)
        assert statuses(throttle, 3) == [200, 200, 429]


def test_a_client_can_be_reset_meanwhile(throttle: Throttle) -> None:
    statuses(throttle, 2)
    with fresh_counters(throttle):
        statuses(throttle, 2)
        throttle.reset("127.0.0.1")
        assert statuses(throttle, 3) == [200, 200, 429]
    assert statuses(throttle, 1) == [429]


def test_nothing_is_opened_for_it(tmp_path: Path) -> None:
    """Nor is a server needed: the storage is not asked at all."""
    unreachable = Throttle(answer, {"storage": "redis://127.0.0.1:1", "rules": [HOURLY]})
    with fresh_counters(unreachable):
        assert statuses(unreachable, 3) == [200, 200, 429]
    unreachable.close()


def test_other_middleware_around_it_is_a_mistake_that_is_told(throttle: Throttle) -> None:
    wrapped = ProxyFix(throttle)
    with pytest.raises(TypeError, match="needs the Throttle itself"), fresh_counters(wrapped):
        pass


class Recorder(Observer):
    """Remembers the outcomes, and how many responses have ended."""

    every_request = follows_responses = True

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.finishes = 0

    def decided(self, environ: dict[str, Any], verdict: Verdict) -> None:
        self.outcomes.append(verdict.outcome)

    def finished(self, environ: dict[str, Any], verdict: Verdict, **seen: Any) -> None:
        self.finishes += 1


def test_observers_are_told_as_usual_and_once_of_what_outlasts_it() -> None:
    recorder = Recorder()
    made = Throttle(answer, {"storage": "memory://", "rules": [HOURLY]}, observers=[recorder])
    with fresh_counters(made):
        statuses(made, 3)
        assert recorder.outcomes == ["granted", "granted", "refused"]
        assert recorder.finishes == 2
        made.reset("127.0.0.1")
        response = Client(made).get("/page", environ_base=HOME)
    assert recorder.finishes == 2
    response.close()
    assert recorder.finishes == 3


def test_a_rule_file_that_changes_meanwhile_is_read_afterwards(
    tmp_path: Path, poll_often: None
) -> None:
    file = tmp_path / "throttle.yaml"
    rules = "storage: memory://\nrules: [{path: /page, limits: %d per hour}]\n"
    file.write_text(rules % 1)
    made = Throttle(answer, file)
    with fresh_counters(made):
        file.write_text(rules % 4)
        assert statuses(made, 2) == [200, 429]
    wait_until(lambda: statuses(made, 1) and made.engine.config.rules[0].limits[0].limit.quota == 4)
    with fresh_counters(made):
        assert statuses(made, 5) == [200] * 4 + [429]
    made.close()


def test_requests_of_other_threads_may_go_on_while_it_begins_and_ends() -> None:
    config = {"storage": "memory://", "rules": [{"path": "/page", "limits": "20 per hour"}]}
    clock = ManualClock()
    decisions: list[Decision] = []

    def keep(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        decisions.append(environ[DECISION])
        return answer(environ, start_response)

    made = Throttle(keep, config)
    stop = threading.Event()
    seen: set[int] = set()
    failures: list[Exception] = []

    def work() -> None:
        try:
            while not stop.is_set():
                seen.update(statuses(made, 1))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with fresh_counters(made, clock=clock):
                wait_until(lambda: 429 in statuses(made, 1))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert seen == {200, 429}
    # On each counter each place of the limit was given once: 5 times here, and once at most before.
    remaining = [decision.outcomes[0].remaining for decision in decisions]
    assert all(remaining.count(left) in (5, 6) for left in range(20))


# --- the clock ------------------------------------------------------------------------------------


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5)
    assert [clock(), clock(), clock.now_ns, clock.now_ms, clock.now_s] == [
        5_000_000,
        5_000_000,
        5_000_000,
        5,
        0.005,
    ]
    clock.advance(0.29)
    assert clock() == 295_000_000
    clock.now_ms += 5
    assert clock() == 300_000_000
    clock.now_s = 0.1  # set back
    assert clock() == 100_000_000
    with pytest.raises(ValueError, match="only goes forward"):
        clock.advance(-1)
    assert clock() == 100_000_000


# --- as README.md tells ---------------------------------------------------------------------------

FLASK_SITE = """
from flask import Flask
from wsgi_throttle import Throttle

app = Flask(__name__)


@app.post("/login")
def login():
    return "welcome"


app.wsgi_app = Throttle(app.wsgi_app, "throttle.yaml")
"""

DJANGO_SITE = {
    "__init__.py": "",
    "settings.py": """
ALLOWED_HOSTS = ["localhost"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}
ROOT_URLCONF = "mysite.urls"
SECRET_KEY = "for this test only"
""",
    "urls.py": """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("login", lambda request: HttpResponse("welcome"))]
""",
    "wsgi.py": """
import os

from django.core.wsgi import get_wsgi_application
from wsgi_throttle import Throttle

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = Throttle(get_wsgi_application(), "throttle.yaml")
""",
}

MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
execute_from_command_line(sys.argv)
"""


def shown(name: str) -> str:
    """The file of this name in README.md."""
    (text,) = [block.text for block in blocks("python") if block.text.startswith(f"# {name}\n")]
    return text


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in a process of its own."""
    theirs = {*DECIDING, "PYTEST_ADDOPTS"}  # of this suite, and not of the one that is run
    inherited = {name: value for name, value in os.environ.items() if name not in theirs}
    env = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def served(
    tmp_path: Path, shared_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """Of a project whose application is being served: a function that logs in there once, and
    returns how many log-ins are left to the same client in this hour."""
    (tmp_path / "throttle.yaml").write_text(FIRST_RULES)
    monkeypatch.setenv("REDIS_URL", shared_uri)
    left: list[int] = []

    def welcome(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        left.append(environ[DECISION].outcomes[1].remaining)
        return answer(environ, start_response)

    throttle = Throttle(welcome, tmp_path / "throttle.yaml")

    def log_in() -> int:
        assert Client(throttle).post("/login", environ_base=HOME).status_code == 200
        return left[-1]

    yield log_in
    throttle.close()


PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")


def flask_project(folder: Path) -> None:
    (folder / "mysite.py").write_text(FLASK_SITE)
    (folder / "test_limits.py").write_text(shown("test_limits.py"))
    (folder / "conftest.py").write_text(shown("conftest.py"))


def django_project(folder: Path) -> None:
    (folder / "mysite").mkdir()
    for name, text in DJANGO_SITE.items():
        (folder / "mysite" / name).write_text(text)
    (folder / "manage.py").write_text(MANAGE)
    (folder / "tests.py").write_text(shown("tests.py"))


@pytest.mark.parametrize(
    ("project", "command"),
    [
        (flask_project, PYTEST),
        (django_project, ("manage.py", "test")),
        (django_project, (*PYTEST, "tests.py")),
    ],
    ids=["pytest with Flask", "manage.py test", "pytest with Django"],
)
def test_a_suite_passes_twice_and_leaves_the_served_counters_alone(
    project: Callable[[Path], None],
    command: tuple[str, ...],
    served: Callable[[], int],
    shared_uri: str,
    tmp_path: Path,
) -> None:
    project(tmp_path)
    assert served() == 19
    for _ in range(2):
        result = run(*command, cwd=tmp_path, REDIS_URL=shared_uri)
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.search(r"\b1 passed|Ran 1 test\b", result.stdout + result.stderr)
    assert served() == 18


def test_without_fresh_counters_a_suite_uses_up_what_is_served(
    served: Callable[[], int], shared_uri: str, tmp_path: Path
) -> None:
    flask_project(tmp_path)
    (tmp_path / "conftest.py").unlink()
    (tmp_path / "test_limits.py").write_text(
        "from mysite import app\n\n\ndef test_a_login():\n"
        '    assert app.test_client().post("/login").status_code == 200\n'
    )
    assert served() == 19
    assert run(*PYTEST, cwd=tmp_path, REDIS_URL=shared_uri).returncode == 0
    assert served() == 17


@pytest.mark.parametrize(("mode", "refused"), [("", True), ("off", False), ("shadow", False)])
def test_the_environment_turns_the_default_limits_off(
    mode: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = [block.text for block in blocks("yaml") if block.text.startswith("mode:")]
    monkeypatch.setenv("REDIS_URL", "memory://")
    monkeypatch.setenv("THROTTLE_MODE", mode)
    (tmp_path / "throttle.yaml").write_text(FIRST_RULES + line)
    throttle = Throttle(answer, tmp_path / "throttle.yaml")
    assert (429 in statuses(throttle, 51)) is refused
    throttle.close()


# --- the contract, in the suite of somebody else --------------------------------------------------

THEIR_SUITE = """
import pytest
from wsgi_throttle.storage.memory import MemoryStorage
from wsgi_throttle.testing import SharedStorageContract, StorageContract


class Good(MemoryStorage):
    pass


class CountsLooks(MemoryStorage):
    def prepare(self, terms):
        take = super().prepare(terms)
        return lambda buckets, costs=None, look=False: take(buckets, costs)


class ForgetsNothing(MemoryStorage):
    def reset(self, charges):
        pass


class HasOneBucket(MemoryStorage):
    def prepare(self, terms):
        take = super().prepare(terms)
        return lambda buckets, costs=None, look=False: take(("b",) * len(buckets), costs, look)


class Of:
    def __init_subclass__(cls, storage):
        cls.storage_class = storage

    @pytest.fixture
    def storage_factory(self):
        return self.storage_class


class TestGood(Of, StorageContract, storage=Good): ...
class TestCountsLooks(Of, StorageContract, storage=CountsLooks): ...
class TestForgetsNothing(Of, StorageContract, storage=ForgetsNothing): ...
class TestHasOneBucket(Of, StorageContract, storage=HasOneBucket): ...
class TestSaysShared(Of, SharedStorageContract, storage=Good): ...
class TestSaysNothing(StorageContract): ...
"""

FEW = "whatever_the_costs or reset_forgets or buckets_count_apart or like_any or reach or place"
"""The tests that are run on storages that are wrong, by parts of their names."""


def test_the_contract_finds_what_others_storages_get_wrong(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIR_SUITE)
    told = run(*PYTEST, "-rA", "-W", "error", "-k", f"TestGood or {FEW}", cwd=tmp_path).stdout
    results = re.findall(
        r"^(PASSED|FAILED|ERROR) test_theirs\.py::(\w+)::(\w+)", told, re.MULTILINE
    )
    good = [result for result, case, _ in results if case == "TestGood"]
    assert set(good) == {"PASSED"}
    assert len(good) > 60
    failed = {(case, test) for result, case, test in results if result == "FAILED"}
    assert {
        ("TestCountsLooks", "test_a_look_counts_nothing_whatever_the_costs"),
        ("TestForgetsNothing", "test_reset_forgets_these_limits_of_these_buckets_alone"),
        ("TestHasOneBucket", "test_buckets_count_apart"),
        ("TestHasOneBucket", "test_whatever_a_client_sends_is_a_key_like_any"),
        ("TestSaysShared", "test_reach_says_who_counts_together"),
        ("TestSaysShared", "test_two_storages_of_one_place_count_together"),
    } <= failed
    # The values are told, as in any test of their own.
    assert "assert 'process' in ('host', 'network')" in told
    assert "TestSaysNothing needs a fixture storage_factory" in told
