"""What a request costs, measured by counting: bytecodes, files opened, commands sent."""

from __future__ import annotations

import gc
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from support.bytecodes import bytecodes
from support.redis import Server
from wsgi_throttle import Throttle, reload
from wsgi_throttle.engine import Engine
from wsgi_throttle.storage import refusal_cache
from wsgi_throttle.testing import ManualClock

MANY = "1000000 per hour; 2000000 per day"
WARM_UP = 1200  # the advice about proxies watches the first 1,000 requests of a local peer

_events: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is not None and event in (
        "open",
        "import",
        "compile",
        "os.listdir",
        "socket.connect",
    ):
        _events.append(f"{event} {arguments[:1]}")


sys.addaudithook(_audit)  # it cannot be removed again, so it does nothing between measurements


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def request(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/items/5",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_ACCEPT": "application/json",
        **changes,
    }


def send(throttle: Throttle, **changes: Any) -> str:
    statuses: list[str] = []
    b"".join(throttle(request(**changes), lambda status, headers, *_: statuses.append(status)))
    return statuses[0]


@pytest.fixture(params=["memory://", "shared://", "redis"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        uri: str = request.getfixturevalue("redis_uri")
        return uri
    if request.param == "shared://":
        folder = tmp_path / "counters"
        folder.mkdir(0o700)
        return f"shared://{folder}"
    return str(request.param)


@pytest.fixture
def throttle(storage: str, tmp_path: Path) -> Iterator[Callable[[str], Throttle]]:
    made: list[Throttle] = []

    def make(limits: str) -> Throttle:
        path = tmp_path / "throttle.yaml"
        path.write_text(
            f'storage: "{storage}"\nstorage_timeout: 5 s\n'
            f"rules:\n  - {{name: items, path: /items/<int:id>, limits: {limits}}}\n"
            "  - {path: /free, exempt: true}\n"
        )
        made.append(Throttle(app, path))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("limits", "status"), [(MANY, "200 OK"), ("0 per hour", "429 Too Many Requests")]
)
def test_a_request_opens_imports_and_compiles_nothing(
    throttle: Callable[[str], Throttle], limits: str, status: str
) -> None:
    global _events
    served = throttle(limits)
    for number in range(WARM_UP):
        send(served, PATH_INFO=f"/items/{number}")
    re.purge()
    _events = []
    try:
        assert {send(served, PATH_INFO=f"/items/{number}") for number in range(5000, 5100)} == {
            status
        }
    finally:
        seen, _events = _events, None
    assert seen == []
    assert not re._cache  # type: ignore[attr-defined]


def test_a_request_calls_few_python_functions(
    throttle: Callable[[str], Throttle], storage: str
) -> None:
    served = throttle(MANY)
    for _ in range(WARM_UP):
        send(served)
    calls: Counter[str] = Counter()

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            calls[
                frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
            ] += 1

    environ = request()
    gc.disable()  # it calls back those who measure it
    sys.setprofile(profile)
    try:
        served(environ, lambda status, headers, *_: None)
    finally:
        sys.setprofile(None)
        gc.enable()
    bound = {"memory": 20, "shared": 25, "redis": 26}[storage.partition(":")[0]]
    assert calls.total() <= bound, calls


BYTECODES = {"memory": 811, "shared": 1029}
"""How many bytecodes of this package an admitted request may execute, with two limits and both
styles of headers. Counted on Python 3.11; other versions execute a little less. Raise a bound only
with a reason."""


@pytest.mark.parametrize("storage", ["memory://", "shared://"], indirect=True)
def test_a_request_executes_few_bytecodes(storage: str) -> None:
    rule = {"name": "items", "path": "/items/<int:id>", "limits": MANY}
    served = Throttle(app, {"storage": storage, "rules": [rule]})
    for _ in range(WARM_UP):
        send(served)
    environ = request()
    # Some versions of Python do not trace all of the first call of a function.
    counts = [bytecodes(lambda: served(environ, lambda *_: None)) for _ in range(5)]
    served.close()
    assert max(counts) <= BYTECODES[storage.partition(":")[0]]
    assert max(counts) > 500, "nothing was counted"


def test_a_request_looks_at_the_rule_file_at_most_twice_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    path = tmp_path / "throttle.yaml"
    path.write_text(f"storage: memory://\ndefault_limits: {MANY}\n")
    engine = Engine.from_source(path, clock=clock)
    looks: list[Path] = []

    def look(path: Path) -> reload.Version:
        looks.append(path)
        return version(path)

    version = reload.version
    monkeypatch.setattr(reload, "version", look)
    for _ in range(1000):
        clock.now_ns += 10_000_000  # ten seconds in all
        engine.decide(request())
    engine.close()
    assert len(looks) == 20


def commands(server: Server) -> Counter[str]:
    """How often Redis has executed each command, without those that this function sends."""
    found = server.client.info("commandstats")
    spent = Counter(
        {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()}
    )
    del spent["info"]
    return spent


def test_an_admitted_request_is_one_redis_command(redis_server: Server, tmp_path: Path) -> None:
    served = Throttle(
        app,
        {
            "storage": redis_server.uri,
            "namespace": tmp_path.name,
            "storage_timeout": "5 s",
            "default_limits": MANY,
        },
    )
    send(served)
    before = commands(redis_server)
    for _ in range(100):
        assert send(served) == "200 OK"
    spent = commands(redis_server) - before
    served.close()
    assert spent["evalsha"] == 100
    inside = {"time", "mget", "set"}  # called by the script itself
    assert spent.keys() == {"evalsha", *inside}


def spent_in_ten_seconds(
    server: Server, options: dict[str, Any], path: Callable[[int], str]
) -> Counter[str]:
    """The commands of a client that is refused a thousand times.

    :param path: of its request with this number.
    """
    config = {"storage": server.uri, "storage_timeout": "5 s", **options}
    clock = ManualClock(0)
    engine = Engine.from_source(config, clock=clock)
    assert engine.decide(request()).outcome == "granted"
    before = commands(server)
    for step in range(1000):
        clock.now_ms = step * 10
        assert engine.decide(request(PATH_INFO=path(step))).outcome == "refused"
    spent = commands(server) - before
    engine.close()
    return spent


def test_a_blocked_client_costs_one_call_of_the_storage_a_second(
    redis_server: Server, tmp_path: Path
) -> None:
    options = {"namespace": tmp_path.name, "default_limits": "1 per hour"}
    spent = spent_in_ten_seconds(redis_server, options, lambda _: "/items/5")
    assert refusal_cache.MAX_AGE_NS == 1_000_000_000
    assert spent["evalsha"] == 10


@pytest.mark.parametrize("key", ["path:id", ["environ:REMOTE_USER", "path:id"]], ids=str)
def test_a_blocked_client_with_a_new_key_each_time_costs_one_call_of_the_storage_a_second(
    redis_server: Server, tmp_path: Path, key: str | list[str]
) -> None:
    options = {
        "namespace": tmp_path.name,
        "application_limits": "1 per hour",
        "rules": [{"name": "item", "path": "/items/<int:id>", "limits": "5 per hour", "key": key}],
    }
    spent = spent_in_ten_seconds(redis_server, options, "/items/{}".format)
    assert spent["evalsha"] == 10


def test_an_exempt_request_does_not_ask_the_storage(tmp_path: Path) -> None:
    rules = [{"path": "/free", "exempt": True}]
    storage = f"shared://{tmp_path}"
    served = Throttle(app, {"storage": storage, "default_limits": MANY, "rules": rules})
    assert send(served, PATH_INFO="/free") == "200 OK"
    assert list(tmp_path.iterdir()) == []
    assert send(served, PATH_INFO="/other") == "200 OK"
    assert list(tmp_path.iterdir()) != []
    served.close()


def test_one_request_is_one_lmdb_transaction(tmp_path: Path) -> None:
    config = {
        "storage": f"shared://{tmp_path}",
        "default_limits": MANY,
        "application_limits": "9000000 per day",
    }

    def transactions(requests: int) -> int:
        """Send so many requests, and return how many transactions were ever committed."""
        served = Throttle(app, config)
        for _ in range(requests):
            assert send(served) == "200 OK"
        served.close()
        with lmdb.open(str(tmp_path), readonly=True) as environment:
            last: int = environment.info()["last_txnid"]
            return last

    first, second, third = transactions(10), transactions(30), transactions(10)
    assert (second - first) - (third - second) == 20
