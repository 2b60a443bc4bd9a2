"""Who is over another limit is answered before the body is read, which is read last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from support.redis import Server
from test_costs import commands
from wsgi_throttle.config import load
from wsgi_throttle.decision import Charge, Decision, Limit, Take, Terms
from wsgi_throttle.engine import Engine
from wsgi_throttle.errors import StorageError
from wsgi_throttle.storage import open_storage
from wsgi_throttle.storage.look import prepare_look
from wsgi_throttle.storage.memory import MemoryStorage
from wsgi_throttle.storage.patience import Patience, shared_deadline
from wsgi_throttle.storage.redis.pool import Connection, ConnectionPool
from wsgi_throttle.testing import ManualClock
from wsgi_throttle.verdict import Verdict

URLENCODED = "application/x-www-form-urlencoded"
DOWN = "redis://127.0.0.1:1"
"""Nothing listens there."""


class Untouchable:
    """A body that fails the test when it is read."""

    def read(self, size: int = -1) -> bytes:
        pytest.fail("the body was read")  # which no ``except Exception`` keeps from us


def login(account: str | None = "ann", address: str = "192.0.2.1", **more: Any) -> dict[str, Any]:
    """A log-in; of an account that is None the body must not be read."""
    body = f"email={account}".encode()
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/login",
        "REMOTE_ADDR": address,
        "CONTENT_TYPE": URLENCODED,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": Untouchable() if account is None else BytesIO(body),
        **more,
    }


def rule(*limits: Any, **more: Any) -> dict[str, Any]:
    return {"name": "login", "path": "/login", "limits": list(limits), **more}


BY_ACCOUNT = {"limit": "5 per hour", "key": "form:email"}
BY_ADDRESS = "3 per hour"

_made: list[Engine] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def engine(*rules: dict[str, Any], clock: ManualClock | None = None, **top: Any) -> Engine:
    config = {"storage": "memory://", "storage_timeout": "5 s", "rules": list(rules), **top}
    _made.append(Engine.from_source(config, clock=clock or ManualClock()))
    return _made[-1]


@pytest.fixture(params=["memory", "shared", "redis"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The options that name it, for counters of this test's own."""
    if request.param == "redis":
        uri: str = request.getfixturevalue("redis_uri")
        return {"storage": uri, "namespace": tmp_path.name}
    return {"storage": f"shared://{tmp_path}" if request.param == "shared" else "memory://"}


def remaining(verdict: Verdict) -> dict[str, int]:
    decision = verdict.decision
    assert decision is not None
    return {
        charge.policy: outcome.remaining
        for charge, outcome in zip(decision.charges, decision.outcomes, strict=True)
    }


def test_the_first_request_after_the_last_unit_was_used_reads_nothing(
    storage: dict[str, Any],
) -> None:
    judge = engine(rule(BY_ADDRESS, BY_ACCOUNT), **storage)
    verdicts = [judge.decide(login()) for _ in range(3)]
    assert [verdict.outcome for verdict in verdicts] == ["granted"] * 3
    assert [remaining(verdict) for verdict in verdicts] == [
        {"login-1": 2, "login-2": 4},
        {"login-1": 1, "login-2": 3},
        {"login-1": 0, "login-2": 2},
    ]
    for _ in range(3):
        refused = judge.decide(login(None))
        assert refused.outcome == "refused"
        assert refused.rule is not None
        assert refused.rule.name == "login"
        assert remaining(refused) == {"login-1": 0}
        assert refused.decision is not None
        assert 3500 < (refused.decision.retry_after_s or 0) <= 3600
    other = judge.decide(login(address="192.0.2.2"))
    assert remaining(other) == {"login-1": 2, "login-2": 1}, "a refused one was charged"


def test_another_process_that_has_seen_nothing_yet_reads_nothing_either(tmp_path: Path) -> None:
    options: dict[str, Any] = {"storage": f"shared://{tmp_path}"}
    for _ in range(3):
        assert engine(rule(BY_ADDRESS, BY_ACCOUNT), **options).decide(login()).outcome == "granted"
    assert engine(rule(BY_ADDRESS, BY_ACCOUNT), **options).decide(login(None)).outcome == "refused"


@pytest.mark.parametrize("strategy", ["sliding-window", "fixed-window", "token-bucket"])
def test_the_wait_is_that_of_the_whole_cost(storage: dict[str, Any], strategy: str) -> None:
    """4 of 5 are used by two costs of 2; one unit is left, which is not enough for a third."""
    by_address = {"limit": "5 per hour", "key": "ip", "cost": 2, "strategy": strategy}
    judge = engine(rule(by_address, BY_ACCOUNT), **storage)
    alone = engine(rule(by_address, name="alone"), **storage)
    for _ in range(2):
        assert judge.decide(login()).outcome == alone.decide(login()).outcome == "granted"
    early, late = judge.decide(login(None)).decision, alone.decide(login()).decision
    assert early is not None
    assert late is not None
    assert (early.granted, late.granted) == (False, False)
    assert early.outcomes[0].remaining == late.outcomes[0].remaining == 1
    assert early.retry_after_s is not None
    assert abs(early.retry_after_s - (late.retry_after_s or 0)) <= 1
    assert early.retry_after_s > 700, "as if one unit were enough"


def test_an_account_over_its_limit_is_refused_by_its_body(storage: dict[str, Any]) -> None:
    judge = engine(rule("100 per hour", BY_ACCOUNT), **storage)
    found = [judge.decide(login(address=f"192.0.2.{n}")).outcome for n in range(7)]
    assert found == ["granted"] * 5 + ["refused"] * 2
    assert judge.decide(login("bob")).outcome == "granted"


def test_a_body_is_read_where_there_is_no_other_limit(storage: dict[str, Any]) -> None:
    judge = engine(rule(BY_ACCOUNT), **storage)
    assert [judge.decide(login()).outcome for _ in range(6)] == ["granted"] * 5 + ["refused"]


@pytest.mark.parametrize("more", [[], ["all"]], ids=["alone", "in a list"])
def test_a_log_in_by_a_form_is_not_charged_by_json_nor_one_by_json_as_a_form(
    more: list[str],
) -> None:
    """Otherwise all people at one address would share these limits, which are for one account."""
    site = engine(
        rule(
            {"limit": "2 per hour", "key": ["form:email", *more]},
            {"limit": "2 per hour", "key": ["json:email", *more]},
            "9 per hour",
        )
    )

    def by_json(body: bytes) -> dict[str, Any]:
        stream, length = BytesIO(body), str(len(body))
        kind = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": length, "wsgi.input": stream}
        return {**login(), **kind}

    for account in ("ann", "bob", "eve"):
        assert site.decide(login(account)).outcome == "granted"
        assert site.decide(by_json(b'{"email": "%s"}' % account.encode())).outcome == "granted"
    assert site.decide(by_json(b'{"email": ')).outcome == "granted"  # on the counter of "?"
    assert remaining(site.decide(login("ann"))) == {"login-1": 0, "login-3": 1}
    assert site.decide(login("ann")).outcome == "refused"
    assert remaining(site.decide(by_json(b"{}"))) == {"login-1": 1, "login-2": 1, "login-3": 0}


def test_limits_of_the_application_and_of_several_rules_are_looked_at() -> None:
    judge = engine(rule(BY_ACCOUNT), application_limits="2 per hour")
    assert [judge.decide(login()).outcome for _ in range(2)] == ["granted"] * 2
    assert judge.decide(login(None)).outcome == "refused"
    # Two readings of the path have a rule each.
    folder = {"name": "all", "path": "/**", "limits": ["2 per hour"]}
    judge = engine(rule(BY_ACCOUNT), folder)
    spelled = {"PATH_INFO": "/x/../login"}
    assert [judge.decide(login(**spelled)).outcome for _ in range(2)] == ["granted"] * 2
    assert judge.decide(login(None, **spelled)).outcome == "refused"


def test_a_shadow_limit_holds_no_body_back() -> None:
    shadow = {"name": "trial", "path": "/login", "limits": "1 per hour", "mode": "shadow"}
    judge = engine(rule("100 per hour", BY_ACCOUNT), shadow)
    assert [judge.decide(login()).outcome for _ in range(6)] == ["granted"] * 5 + ["refused"]
    trial = {"name": "trial", "path": "/login", "limits": [BY_ACCOUNT], "mode": "shadow"}
    judge = engine(rule("1 per hour"), trial)
    assert judge.decide(login()).outcome == "granted"
    assert judge.decide(login(None)).outcome == "refused"


def test_the_conditions_of_a_rule_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import identity_hooks

    asked: list[str] = []

    def skip(environ: dict[str, Any]) -> bool:
        asked.append(environ["PATH_INFO"])
        return bool(environ.get("HTTP_X_SKIP"))

    monkeypatch.setattr(identity_hooks, "skip", skip, raising=False)
    judge = engine(
        rule(BY_ACCOUNT, skip="python:identity_hooks:skip"), application_limits="2 per hour"
    )
    assert judge.decide(login()).outcome == "granted"
    assert judge.decide(login(None, HTTP_X_SKIP="1")).outcome == "granted", "no key is in the body"
    assert judge.decide(login(None)).outcome == "refused"
    assert asked == ["/login"] * 3


def test_a_preflight_has_no_body() -> None:
    judge = engine(rule(BY_ADDRESS, BY_ACCOUNT))
    preflight = {
        "REQUEST_METHOD": "OPTIONS",
        "HTTP_ORIGIN": "https://example.org",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "",
    }
    for _ in range(3):
        assert judge.decide(login(None, **preflight)).outcome == "granted"


# --- what it costs --------------------------------------------------------------------------------


def test_only_rules_with_a_key_in_the_body_ask_redis_twice(
    redis_server: Server, tmp_path: Path
) -> None:
    clock = ManualClock(0)
    judge = engine(
        rule(BY_ADDRESS, BY_ACCOUNT),
        rule("100 per hour", path="/plain", name="plain"),
        rule({"limit": "9 per hour", "key": "form:email"}, path="/alone", name="alone"),
        rule(BY_ACCOUNT, path="/web", name="web", when={"header": {"X-Web": "1"}}),
        clock=clock,
        default_limits="100 per hour",
        storage=redis_server.uri,
        namespace=tmp_path.name,
    )

    def spent(environ: dict[str, Any], expected: str) -> int:
        before = commands(redis_server)
        assert judge.decide(environ).outcome == expected
        return (commands(redis_server) - before)["evalsha"]

    spent(login(PATH_INFO="/plain"), "granted")
    assert spent(login(PATH_INFO="/plain"), "granted") == 1
    assert spent(login(PATH_INFO="/alone"), "granted") == 1
    assert spent(login(None, PATH_INFO="/web"), "granted") == 1, "its limit is not for this one"
    assert [spent(login(), "granted") for _ in range(3)] == [2, 2, 2]
    assert spent(login(None), "refused") == 1
    assert [spent(login(None), "refused") for _ in range(50)] == [0] * 50, "it is remembered"
    clock.now_ms = 1001
    assert spent(login(None), "refused") == 1, "asked again after a second"


def test_what_is_looked_at_is_written_nowhere(redis_server: Server, tmp_path: Path) -> None:
    judge = engine(rule(BY_ADDRESS, BY_ACCOUNT), storage=redis_server.uri, namespace=tmp_path.name)
    judge.decide(login())
    keys = [str(key) for key in redis_server.client.keys(f"{tmp_path.name}:*")]
    assert len(keys) == 2, keys
    assert not any(":look" in key for key in keys)


@pytest.mark.parametrize("bucket", ["a:{ip:192.0.2.1}"])
def test_a_look_counts_nothing_and_measures_each_limit(
    storage: dict[str, Any], tmp_path: Path, bucket: str
) -> None:
    opened = open_storage(storage["storage"], timeout_s=5)
    hour = Limit("sliding-window", 3, 3_600_000, 3)
    day = Limit("fixed-window", 2, 86_400_000, 2)
    charges = [
        Charge(f"{tmp_path.name}:{bucket}", hour, 2, True, "hour"),
        Charge(f"{tmp_path.name}:{bucket}", day, 1, False, "day"),
    ]
    terms, buckets = Terms.of(charges)
    look, take = prepare_look(opened, terms), opened.prepare(terms)
    for _ in range(3):
        assert look(buckets) is None
    assert [outcome.remaining for outcome in take(buckets).outcomes] == [1, 1]
    for _ in range(3):
        refusal = look(buckets)
        assert refusal is not None
        assert not refusal.granted
        assert refusal.charges == charges
        assert [outcome.remaining for outcome in refusal.outcomes] == [1, 1]
        assert 3_590_000 < refusal.outcomes[0].wait_ms <= 3_600_000
        assert refusal.outcomes[1].wait_ms == 0
    opened.close()


# --- where the storage fails ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "outcome"), [("deny", "unavailable"), ("allow", "granted"), ("local", "refused")]
)
def test_during_an_outage_nothing_is_read_for_who_is_not_to_be_counted(
    policy: str, outcome: str
) -> None:
    judge = engine(rule("1 per hour", BY_ACCOUNT), storage=DOWN, on_storage_error=policy)
    if policy == "local":
        first = judge.decide(login())
        assert (first.outcome, first.counted_by) == ("granted", "local")
        assert remaining(first) == {"login-1": 0, "login-2": 4}
    verdict = judge.decide(login(None))
    assert verdict.outcome == outcome
    assert verdict.counted_by == ("local" if policy == "local" else "nobody")


def test_during_an_outage_an_account_is_counted_in_the_process() -> None:
    judge = engine(rule("100 per hour", BY_ACCOUNT), storage=DOWN)
    assert [judge.decide(login()).outcome for _ in range(6)] == ["granted"] * 5 + ["refused"]
    assert judge.decide(login("bob")).outcome == "granted"


class Watched:
    """A memory storage that tells when it was to have answered, and for which time passes."""

    reach = "process"

    def __init__(self, now: list[float], answers_after: Sequence[float]) -> None:
        self._storage = MemoryStorage()
        self._now = now
        self._answers_after = iter(answers_after)
        self.deadlines: list[float | None] = []
        self.buckets: list[str] = []

    def prepare(self, terms: Terms) -> Take:
        ask = self._storage.prepare(terms)

        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            self.deadlines.append(shared_deadline.get())
            self.buckets += buckets
            self._now[0] += next(self._answers_after)
            return ask(buckets, costs, look)

        return take

    def reset(self, charges: Sequence[Charge]) -> None: ...

    def ping(self) -> None: ...

    def close(self) -> None: ...


def test_a_look_and_the_take_after_it_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("wsgi_throttle.storage.patience.monotonic", lambda: now[0])

    class SlowBody(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            now[0] += 60
            return super().read(size)

    watched = Watched(now, answers_after=[3, 0, 0])
    config = load(
        {
            "storage": "memory://",
            "storage_timeout": "2 s",
            "rules": [
                rule("100 per hour", BY_ACCOUNT),
                rule("100 per hour", path="/plain", name="plain"),
            ],
        }
    )
    judge = Engine(replace(config, opened_storage=watched), clock=ManualClock())
    environ = login()
    environ["wsgi.input"] = SlowBody(environ["wsgi.input"].read())
    assert judge.decide(environ).outcome == "granted"
    assert now[0] > 1060
    # Two timeouts in all, of which the look took 3 s; who waits for the body waits for nobody else.
    assert watched.deadlines == [1004, now[0] + 1]
    judge.decide(login(PATH_INFO="/plain"))
    assert watched.deadlines[2:] == [None]
    # On Redis an access list may allow no other keys.
    assert all(bucket.startswith("throttle:") for bucket in watched.buckets)


def test_redis_is_waited_for_no_longer_than_patience_lasts(
    new_redis: Callable[..., Server],
) -> None:
    server = new_redis()
    storage = open_storage(server.uri, timeout_s=60)
    terms, buckets = Terms.of([Charge("b:{ip:1}", Limit("fixed-window", 9, 1000, 9), 1, True, "")])
    take = storage.prepare(terms)
    take(buckets)  # which connects
    patience = Patience(0.1)
    with server.stopped():
        for _ in range(2):  # nothing is left for the second
            started = time.monotonic()
            with patience.waiting(), pytest.raises(StorageError):
                take(buckets)
            assert time.monotonic() - started < 10
    storage.close()


def test_a_connection_is_waited_for_no_longer_either() -> None:
    ends = threading.Event()

    def connect() -> Connection:
        ends.wait(60)
        raise OSError("it took too long")

    pool = ConnectionPool(connect, max_size=1, timeout_s=60)
    started = time.monotonic()
    try:
        with Patience(0.1).waiting(), pytest.raises(StorageError, match="no open connection"):
            pool.borrow()
    finally:
        ends.set()
    assert time.monotonic() - started < 10


def test_a_defect_in_reading_is_no_client_s_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge = engine(rule("100 per hour", BY_ACCOUNT))
    environ = login()
    del environ["wsgi.input"]
    assert judge.decide(environ).outcome == "granted"
    assert "It is a defect" in caplog.text
