"""A changed rule file is picked up, and a bad one is not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from support.servers import wait_until
from wsgi_throttle import ConfigError, Throttle
from wsgi_throttle import reload as reload_module
from wsgi_throttle.config.options import TOP_LEVEL
from wsgi_throttle.reload import FileWatcher
from wsgi_throttle.testing import ManualClock

LIMIT = "storage: memory://\nrules: [{{name: r, path: /, limits: {} per hour}}]\n"


app = Response("ok")
pytestmark = pytest.mark.usefixtures("poll_often")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Client]]:
    path = tmp_path / "throttle.yaml"
    path.write_text(LIMIT.format(1000))
    throttle = Throttle(app, path)
    yield path, Client(throttle)
    throttle.close()


def limit_of(client: Client) -> str:
    return client.get("/").headers["X-RateLimit-Limit"]


def test_a_change_is_picked_up(served: tuple[Path, Client]) -> None:
    path, client = served
    assert limit_of(client) == "1000"
    path.write_text(LIMIT.format(77))
    wait_until(lambda: limit_of(client) == "77")


def test_a_bad_change_leaves_the_old_rules_in_force_and_logs_every_mistake_once(
    served: tuple[Path, Client], caplog: pytest.LogCaptureFixture
) -> None:
    path, client = served
    with caplog.at_level(logging.ERROR, "wsgi_throttle"):
        path.write_text("rules: [{path: /, limits: 5 per minutee}, {path: x, limits: 1/s}]")
        wait_until(lambda: client.get("/") is not None and bool(caplog.records))
        for _ in range(20):
            assert limit_of(client) == "1000"
            time.sleep(0.002)
    assert len(caplog.records) == 1
    assert 'did you mean "5 per minute"?' in caplog.text
    assert "begins with a slash" in caplog.text
    path.write_text(LIMIT.format(5000))
    wait_until(lambda: limit_of(client) == "5000")


def test_a_deleted_file_leaves_the_old_rules_in_force(
    served: tuple[Path, Client], caplog: pytest.LogCaptureFixture
) -> None:
    path, client = served
    path.unlink()
    wait_until(lambda: client.get("/") is not None and "cannot be read" in caplog.text)
    assert limit_of(client) == "1000"
    path.write_text(LIMIT.format(77))
    wait_until(lambda: limit_of(client) == "77")


def test_the_counters_of_unchanged_limits_survive(served: tuple[Path, Client]) -> None:
    path, client = served
    for _ in range(10):
        client.get("/")
    path.write_text(LIMIT.format(1000) + "default_limits: 9 per day\n")
    wait_until(lambda: client.get("/other").headers.get("X-RateLimit-Limit") == "9")
    assert int(client.get("/").headers["X-RateLimit-Remaining"]) == 989


CHANGED = {
    "storage": "memory://?max_clients=5",
    "default_limits": "9 per day",
    "application_limits": "9 per day",
    "key": "all",
    "strategy": "fixed-window",
    "mode": "shadow",
    "allow": "192.0.2.1",
    "block": "192.0.2.1",
    "client_ip": "{ipv6_prefix: 56}",
    "session": "{kind: environ}",
    "form_max_bytes": "1000",
    "responses": "{headers: x-ratelimit}",
    "on_storage_error": "deny",
    "storage_timeout": "0.2",
    "namespace": "other",
    "reload": "false",
}
"""For each option of the top level a value that is not the default. Other tests change rules."""


@pytest.mark.parametrize("name", [option.name for option in TOP_LEVEL if option.name != "rules"])
def test_what_is_read_at_the_start_alone_says_that_it_needs_a_restart(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "throttle.yaml"
    before = {"storage": "memory://", "rules": "[{path: /, limits: 5/h}]"}

    def written(options: dict[str, str]) -> str:
        return "".join(f"{key}: {value}\n" for key, value in options.items())

    path.write_text(written(before))
    throttle = Throttle(app, path)
    client = Client(throttle)
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        path.write_text(written({**before, name: CHANGED[name]}))
        wait_until(lambda: client.get("/") is not None and "are in force" in caplog.text)
    throttle.close()
    told = [record.getMessage() for record in caplog.records if "restart" in record.getMessage()]
    is_live = {option.name: option.live for option in TOP_LEVEL}[name]
    assert told == ([] if is_live else [f"changed, but not in force before a restart: {name}"])
    assert is_live == (name not in ("storage", "storage_timeout", "namespace", "reload"))


def test_an_option_that_is_changed_back_needs_no_restart(
    served: tuple[Path, Client], caplog: pytest.LogCaptureFixture
) -> None:
    path, client = served
    path.write_text(LIMIT.format(50) + "storage_timeout: 2\nreload: false")
    wait_until(lambda: limit_of(client) == "50")
    assert "before a restart: storage_timeout, reload" in caplog.text
    caplog.clear()
    path.write_text(LIMIT.format(51) + "storage_timeout: 100 ms")
    wait_until(lambda: limit_of(client) == "51")
    assert "restart" not in caplog.text


def test_an_error_that_nobody_foresaw_is_logged_once_and_the_next_change_is_picked_up(
    served: tuple[Path, Client], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, client = served
    with monkeypatch.context() as patched:
        patched.setattr("wsgi_throttle.engine.load", lambda *_, **__: 1 / 0)
        path.write_text(LIMIT.format(7))
        wait_until(lambda: client.get("/") is not None and "could not be read" in caplog.text)
        for _ in range(20):
            client.get("/")
            time.sleep(0.002)
        assert caplog.text.count("could not be read") == 1
    path.write_text(LIMIT.format(77))
    wait_until(lambda: limit_of(client) == "77")


def test_reload_false_turns_it_off(tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(LIMIT.format(5) + "reload: false\n")
    throttle = Throttle(app, path)
    path.write_text(LIMIT.format(7))
    for _ in range(5):
        time.sleep(0.01)
        assert limit_of(Client(throttle)) == "5"
        Throttle(app, path).close()


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text("mode: of")
    with pytest.raises(ConfigError):
        Throttle(app, path)


def test_a_version_counts_once_two_polls_have_seen_it_alike(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    called = threading.Event()
    clock = ManualClock()
    watcher = FileWatcher(path, called.set, clock=clock)

    def poll(later_ns: int = reload_module.POLL_EVERY_NS) -> None:
        clock.now_ns += later_ns
        watcher.poll()

    for growing in ("ab", "abc", "abcd"):
        path.write_text(growing)
        poll()
    poll(later_ns=0)  # like the look of another thread at the same time
    assert not called.wait(0.02)
    poll()
    assert called.wait(10)
    called.clear()
    poll()
    assert not called.wait(0.02)


def test_two_threads_that_poll_at_once_are_one_poll(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a")
    called = threading.Event()
    clock = ManualClock()
    watcher = FileWatcher(path, called.set, clock=clock)
    path.write_text("half of")
    clock.now_ns = watcher.next_poll_ns
    watcher.poll()
    # The other thread saw that a poll was due, but polls a moment later.
    watcher.next_poll_ns = clock.now_ns
    watcher.poll()
    assert not called.wait(0.02)


def test_a_file_is_looked_at_once_in_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    clock = ManualClock()
    watcher = FileWatcher(tmp_path / "file", lambda: None, clock=clock)
    monkeypatch.setattr(reload_module, "version", looks.append)
    for _ in range(1000):
        watcher.poll()
    assert not looks
    clock.now_ns += reload_module.POLL_EVERY_NS
    for _ in range(1000):
        watcher.poll()
    assert len(looks) == 1


def test_every_request_is_judged_by_one_table_through_20_reloads(
    served: tuple[Path, Client],
) -> None:
    path, client = served
    path.write_text(LIMIT.format(10**9))
    wait_until(lambda: limit_of(client) == str(10**9))
    errors: list[BaseException] = []
    seen: set[str] = set()
    stop = threading.Event()

    def load() -> None:
        own = Client(client.application)
        try:
            while not stop.is_set():
                response = own.get("/")
                assert response.status_code == 200
                seen.add(response.headers["X-RateLimit-Limit"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        if number % 2:
            path.write_text("rules: [{path: /, limi")
        else:
            path.write_text(LIMIT.format(10**9 + number))
            wait_until(lambda wanted=str(10**9 + number): wanted in seen)  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert seen <= {str(10**9), *(str(10**9 + number) for number in range(0, 20, 2))}
