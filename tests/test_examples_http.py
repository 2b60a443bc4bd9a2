"""Every limit of config.example.yaml over HTTP, against gunicorn with 4 workers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.servers import ROOT, Response, Server, gunicorn
from wsgi_throttle.storage.shared.location import Location
from wsgi_throttle.storage.shared.storage import DEFAULT_BYTES

EXAMPLE = ROOT / "config.example.yaml"
MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS = {MINUTE: "minute", HOUR: "hour", DAY: "day"}


class Case(NamedTuple):
    rule: str
    quota: int
    window_s: int
    method: str
    path: str
    form: str = ""
    status: int = 200
    """The status of the application's answer to a request within the limit."""
    elsewhere: str = "/"
    """A path that the rule does not match."""

    @property
    def limit(self) -> str:
        return f"{self.quota} per {UNITS[self.window_s]}"


LOGIN = Case("login", 5, MINUTE, "POST", "/login", "user_id=7&password=guess", 401)

CASES = [
    LOGIN,
    LOGIN._replace(quota=20, window_s=HOUR),
    Case("register", 3, HOUR, "POST", "/register", "email=a@example.com", 201),
    Case("password-reset", 3, HOUR, "POST", "/forgot-password", "email=a@example.com", 202),
    Case("search", 30, MINUTE, "GET", "/api/search?q=tea"),
    Case("data", 10, MINUTE, "GET", "/api/data"),
    Case("data", 100, HOUR, "GET", "/api/data"),
    Case("export", 3, HOUR, "GET", "/api/export", status=401),
    Case("delete-user", 10, HOUR, "POST", "/admin/delete-user/7"),
    Case("default", 50, HOUR, "GET", "/", elsewhere="/api/data"),
    Case("default", 200, DAY, "GET", "/", elsewhere="/api/data"),
]


def case_id(case: Case) -> str:
    return f"{case.rule}: {case.limit}"


def test_the_cases_are_the_limits_of_the_file() -> None:
    rules = yaml.safe_load(EXAMPLE.read_text())
    found = {("default", limit) for limit in rules["default_limits"]}
    for rule in rules["rules"]:
        if not rule.get("exempt"):
            found |= {(rule["name"], limit) for limit in rule["limits"].split("; ")}
    assert found == {(case.rule, case.limit) for case in CASES}


def only_the_longest(rules: dict[str, Any]) -> dict[str, Any]:
    """The same rules with one limit each, so that a test can also reach the longer limits."""
    longest = {case.rule: case.limit for case in sorted(CASES, key=lambda case: case.window_s)}
    rules["default_limits"] = longest["default"]
    for rule in rules["rules"]:
        if "limits" in rule:
            rule["limits"] = longest[rule["name"]]
    return rules


class Site:
    """The demo application behind gunicorn, and the list of the requests that have reached it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self._calls = folder / "calls.txt"

    def calls(self, client: str) -> int:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return sum(line.endswith(f" {client}") for line in lines)

    def ask(self, case: Case, client: str, **headers: str) -> Response:
        if case.method == "POST":
            return self.server.post(case.path, case.form, source=client, headers=headers)
        return self.server.get(case.path, source=client, headers=headers)

    def log_in(self, user: str, client: str) -> str:
        """Log in as this user, and return the session cookie."""
        response = self.server.post("/login", f"user_id={user}&password=demo", source=client)
        assert response.status == 302
        return response.headers["Set-Cookie"].partition(";")[0]


@contextmanager
def serving(rules: str, storage_uri: str, folder: Path) -> Iterator[Site]:
    # A long timeout, so that a busy machine does not look like an outage.
    (folder / "throttle.yaml").write_text(f"{rules}\nstorage_timeout: 20 s\n")
    env = {"REDIS_URL": storage_uri}
    with gunicorn("served:application", workers=4, cwd=folder, env=env) as server:
        yield Site(server, folder)


@pytest.fixture(scope="module")
def site(storage_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example without any change."""
    with serving(EXAMPLE.read_text(), storage_uri, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def patient_site(storage_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The example with only the longest limit of each rule."""
    rules = yaml.safe_load(EXAMPLE.read_text())
    longest = {case.rule: case.limit for case in sorted(CASES, key=lambda case: case.window_s)}
    rules["default_limits"] = longest["default"]
    for rule in rules["rules"]:
        if "limits" in rule:
            rule["limits"] = longest[rule["name"]]
    folder = tmp_path_factory.mktemp("patient-site")
    with serving(yaml.safe_dump(rules), storage_uri, folder) as site:
        yield site


FIRST = list({case.rule: case for case in sorted(CASES, key=lambda case: -case.window_s)}.values())
"""The limit of each rule that has the shortest window, and so refuses first."""


def exhaust(site: Site, case: Case, client: str) -> None:
    """Check that the first N requests pass and the next one is refused, without reaching the
    site."""
    started = time.monotonic()
    for number in range(1, case.quota + 1):
        response = site.ask(case, client)
        assert response.status == case.status, f"request {number}: {response}"
        assert "Retry-After" not in response.headers
        assert response.headers["X-RateLimit-Limit"] == str(case.quota)
        assert response.headers["X-RateLimit-Remaining"] == str(case.quota - number)
    refused = site.ask(case, client)
    elapsed_s = time.monotonic() - started
    assert refused.status == 429
    # The first request leaves the window one window after it was counted, which was after
    # `started`.
    assert case.window_s - elapsed_s <= int(refused.headers["Retry-After"]) <= case.window_s
    assert refused.headers["X-RateLimit-Limit"] == str(case.quota)
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert site.calls(client) == case.quota


def unaffected(site: Site, case: Case, client: str, stranger: str) -> None:
    """Check that another path of the refused client passes, and the same path for another
    client."""
    assert site.server.get(case.elsewhere, source=client).status == 200
    assert site.ask(case, stranger).status == case.status
    assert site.ask(case, client).status == 429


@pytest.mark.parametrize("case", FIRST, ids=case_id)
def test_a_limit_of_the_example(site: Site, case: Case, new_client: Callable[[], str]) -> None:
    client = new_client()
    exhaust(site, case, client)
    unaffected(site, case, client, new_client())


@pytest.mark.parametrize("case", [case for case in CASES if case not in FIRST], ids=case_id)
def test_a_limit_behind_a_shorter_one(
    patient_site: Site, case: Case, new_client: Callable[[], str]
) -> None:
    client = new_client()
    exhaust(patient_site, case, client)
    unaffected(patient_site, case, client, new_client())


def test_the_login_form_is_not_counted_as_a_try(site: Site, new_client: Callable[[], str]) -> None:
    client = new_client()
    for _ in range(6):
        assert site.server.get("/login", source=client).status == 200
    assert site.server.post("/login", "user_id=7", source=client).status == 401


@pytest.mark.parametrize(
    ("rule", "status"), [("export", 200), ("delete-user", 200)], ids=["export", "delete-user"]
)
def test_a_users_limit_follows_the_user(
    site: Site, rule: str, status: int, new_client: Callable[[], str], new_user: Callable[[], str]
) -> None:
    (case,) = [case for case in CASES if case.rule == rule]
    home, cafe = new_client(), new_client()
    cookie = site.log_in(new_user(), home)
    for number in range(case.quota):
        response = site.ask(case, (home, cafe)[number % 2], Cookie=cookie)
        assert response.status == status
    assert site.ask(case, home, Cookie=cookie).status == 429
    assert site.ask(case, cafe, Cookie=cookie).status == 429
    # Another user at the same address has a counter of their own, and so has a client without
    # log-in.
    assert site.ask(case, home, Cookie=site.log_in(new_user(), cafe)).status == status
    assert site.ask(case, home).status == case.status


@pytest.mark.parametrize("path", ["/health", "/static/demo.css"])
def test_exempt_paths_are_neither_counted_nor_marked(
    site: Site, path: str, new_client: Callable[[], str]
) -> None:
    client = new_client()
    for _ in range(60):  # more than the default limits allow in an hour
        response = site.server.get(path, source=client)
        assert response.status == 200
        assert not [name for name in response.headers if "ratelimit" in name.lower()]
    assert site.server.get("/", source=client).headers["X-RateLimit-Remaining"] == "49"


def test_the_demo_is_limited_with_no_setting_at_all(tmp_path: Path) -> None:
    rules = tmp_path / "config.example.yaml"
    rules.write_text(EXAMPLE.read_text())
    counters = Location(None, str(rules)).expected(DEFAULT_BYTES)
    try:
        with gunicorn("examples.wsgi:application", workers=4, cwd=tmp_path) as server:
            statuses = [server.post("/login", "user_id=7").status for _ in range(6)]
        assert statuses == [401] * 5 + [429]
        assert counters.exists()
    finally:
        shutil.rmtree(counters, ignore_errors=True)


@pytest.mark.parametrize("module", ["django_wsgi", "falcon_wsgi"])
def test_the_other_frameworks_examples_are_limited(module: str, shared_uri: str) -> None:
    env = {"REDIS_URL": shared_uri}
    with gunicorn(f"examples.{module}:application", workers=2, env=env) as server:
        responses = [server.get("/ping") for _ in range(4)]
    assert [response.status for response in responses] == [200, 200, 200, 429]
    assert responses[0].json == {"pong": True}


def test_the_applications_own_page_answers_for_the_middleware(shared_uri: str) -> None:
    env = {"REDIS_URL": shared_uri}
    with gunicorn("examples.own_page:application", workers=2, env=env) as server:
        pages = [server.post("/register") for _ in range(4)]
        answers = [server.get("/api/data") for _ in range(11)]
    assert [page.status for page in pages] == [201, 201, 201, 429]
    assert "Please wait" in pages[-1].text
    seconds = pages[-1].headers["Retry-After"]
    assert f"in {seconds} seconds" in pages[-1].text
    assert "demo.css" in pages[-1].text
    assert pages[-1].headers["X-RateLimit-Remaining"] == "0"
    assert answers[-1].status == 429
    assert answers[-1].headers["Content-Type"] == "application/problem+json"
