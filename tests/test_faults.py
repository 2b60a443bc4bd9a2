"""A whole site under load while its storage, workers or rules fail: no client sees an error.

Each test prints its figures: `pytest -rP tests/test_faults.py` shows them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
import redis
from werkzeug.test import Client
from werkzeug.wrappers import Response

from support.redis import Server as Redis
from support.redis import eventually, numbers_in, programs
from support.servers import ROOT
from support.site_under_load import TIGHT, WORKERS, Site, edit_rules, now, site
from wsgi_throttle import Throttle

pytestmark = pytest.mark.slow

FAULT_S = 0.7
"""Longer than the first delay of a probe, so that the storage is also probed while it fails."""


# --- Redis ---------------------------------------------------------------------------------------

Outage: TypeAlias = Callable[[Redis], AbstractContextManager[None]]


@pytest.fixture(scope="module", params=programs())
def redis_program(request: pytest.FixtureRequest) -> str:
    """Each server that is installed."""
    return programs()[request.param]


@pytest.fixture(scope="module")
def on_redis(
    redis_program: str,
    redis_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    new_client: Callable[[], str],
) -> Iterator[Site]:
    server = Redis(redis_program, redis_folder, lua_time_limit="10")
    server.start()
    with site(server.uri, tmp_path_factory.mktemp("site"), new_client, server) as found:
        yield found
    server.stop()


@contextmanager
def killed(server: Redis) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def stopped(server: Redis) -> Iterator[None]:
    with server.stopped():
        yield


@contextmanager
def out_of_memory(server: Redis) -> Iterator[None]:
    server.client.config_set("maxmemory", 1)
    yield
    server.client.config_set("maxmemory", 0)


@contextmanager
def demoted(server: Redis) -> Iterator[None]:
    server.client.replicaof("127.0.0.1", "1")
    yield
    server.client.replicaof("NO", "ONE")


@contextmanager
def busy(server: Redis) -> Iterator[None]:
    def run_away() -> None:
        with redis.Redis(port=server.port, socket_timeout=30) as client, suppress(redis.RedisError):
            client.eval("while true do end", 0)

    script = threading.Thread(target=run_away)
    script.start()
    yield
    eventually(server.client.script_kill)
    script.join()


class Stranger:
    """Listens on the port of Redis, and gives the same answer to every command."""

    def __init__(self, port: int, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._talk, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            while connection.recv(1 << 16):
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._ends:  # which a test that failed has left open
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


def replaced_by(answer: bytes) -> Outage:
    @contextmanager
    def replaced(server: Redis) -> Iterator[None]:
        server.kill()
        stranger = Stranger(server.port, answer)
        yield
        stranger.close()
        server.start()

    return replaced


OUTAGES: dict[str, Outage] = {
    "killed, and empty when it is back": killed,
    "stopped for a while": stopped,
    "demoted to a replica": demoted,
    "busy with a script": busy,
    "still loading": replaced_by(b"-LOADING Redis is loading the dataset in memory\r\n"),
    "replaced by one that talks garbage": replaced_by(b"\0\xffHTTP/1.1 400 Bad Request\r\n\r\n"),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_redis_is(outage: Outage, on_redis: Site) -> None:
    assert on_redis.redis
    failures = on_redis.failures
    load = on_redis.load()
    with load.running():
        load.go_on(0.3)
        with outage(on_redis.redis):
            load.until(lambda: on_redis.failures - failures == WORKERS, "that all have noticed")
            load.go_on(FAULT_S)
        over_at = now()
        on_redis.wait_for_all_workers(load)
        load.go_on(0.2)
    figures = on_redis.saw(load, fault_over_at=over_at)
    assert load.errors == []
    assert figures.unavailable
    # Each client may use the quota once in each worker, once in Redis before the fault, and once
    # after it if Redis came back empty.
    assert max(on_redis.admitted(load).values()) <= TIGHT * (WORKERS + 2)
    on_redis.check_counters(load)


def test_redis_is_out_of_memory(on_redis: Site) -> None:
    """Requests that need memory there are refused, each for itself, and no worker sees an
    outage."""
    assert on_redis.redis
    failures = on_redis.failures
    load = on_redis.load()
    with load.running():
        load.go_on(0.3)
        with out_of_memory(on_redis.redis):
            load.go_on(FAULT_S)
        over_at = now()
        load.go_on(0.2)
    figures = on_redis.saw(load, fault_over_at=over_at)
    assert load.errors == []
    assert figures.unavailable
    assert on_redis.failures == failures
    assert max(on_redis.admitted(load).values()) <= TIGHT * (WORKERS + 1)
    on_redis.check_counters(load)


def test_connections_to_redis_are_cut_one_by_one(on_redis: Site) -> None:
    assert on_redis.redis
    client = on_redis.redis.client
    load = on_redis.load()
    with load.running():
        load.go_on(0.3)
        for _ in range(10):
            for connection in client.client_list(_type="normal"):
                with suppress(redis.ResponseError):  # it is gone already
                    client.client_kill_filter(_id=connection["id"], skipme=True)
            load.go_on(0.05)
        on_redis.wait_for_all_workers(load)
    figures = on_redis.saw(load)
    assert load.errors == []
    assert figures.over <= 3 * TIGHT * WORKERS
    on_redis.check_counters(load)


def test_redis_closes_connections_that_are_idle(on_redis: Site) -> None:
    assert on_redis.redis
    client = on_redis.redis.client
    failures = on_redis.failures
    load = on_redis.load()
    with load.running():
        load.go_on(0.2)
    client.config_set("timeout", 1)
    eventually(lambda: len(client.client_list(_type="normal")) == 1)
    client.config_set("timeout", 0)
    load = on_redis.load()
    with load.running():
        load.go_on(0.5)
    figures = on_redis.saw(load)
    assert load.errors == []
    assert (figures.unavailable, figures.over) == (0, 0)
    assert on_redis.failures == failures
    on_redis.check_counters(load)


def test_redis_is_started_after_the_workers(
    new_redis: Callable[..., Redis], tmp_path: Path, new_client: Callable[[], str]
) -> None:
    server = new_redis(start=False)
    with site(server.uri, tmp_path, new_client, server) as found:
        load = found.load()
        with load.running():
            load.until(lambda: found.failures == WORKERS, "that all have noticed")
            load.go_on(0.2)
            server.start()
            over_at = now()
            found.wait_for_all_workers(load)
            load.go_on(0.2)
        figures = found.saw(load, fault_over_at=over_at)
        assert load.errors == []
        assert figures.unavailable
        assert max(found.admitted(load).values()) <= TIGHT * (WORKERS + 1)
        found.check_counters(load)


class LossyWire:
    """Between a client and Redis. Passes on all commands, and replies unless ``lossy`` is set."""

    def __init__(self, port: int) -> None:
        self.lossy = threading.Event()
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self._port))
                self._ends += connection, upstream
                for ends in ((connection, upstream), (upstream, connection)):
                    thread = threading.Thread(target=self._pass_on, args=ends)
                    thread.start()
                    self._threads.append(thread)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        is_answer = source.getpeername()[1] == self._port
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not (is_answer and self.lossy.is_set()):
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._ends:  # those that a failed test has left open
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@pytest.fixture
def wires() -> Iterator[ExitStack]:
    """Closes what a test enters here, even if the test fails."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("strategy", ["sliding-window", "fixed-window"])
def test_a_request_whose_answer_is_lost_is_charged_once(
    strategy: str, new_redis: Callable[..., Redis], wires: ExitStack
) -> None:
    server = new_redis()
    wire = wires.enter_context(closing(LossyWire(server.port)))
    rule = {"name": "r", "path": "/", "limits": "1000 per hour", "strategy": strategy}
    throttle = Throttle(
        Response("ok"),
        {
            "storage": f"redis://127.0.0.1:{wire.port}",
            "storage_timeout": "1 s",  # so long that only the lost replies miss it
            "on_storage_error": "allow",
            "rules": [rule],
        },
    )
    client = Client(throttle)

    def was_counted() -> bool:
        response = client.get("/")
        assert response.status_code == 200
        return "X-RateLimit-Remaining" in response.headers

    def charged() -> int:
        (key,) = server.client.keys()
        assert 0 < server.client.pttl(key) <= 3_600_100
        *_, count = numbers_in(
            server.client.get(key)
        )  # the last integer of both strategies' states
        return count

    counted = sum(was_counted() for _ in range(5))
    assert charged() == counted == 5
    for lost in (1, 2):
        wire.lossy.set()
        assert not was_counted()
        eventually(lambda: charged() == counted + lost)  # noqa: B023
        wire.lossy.clear()
        eventually(was_counted)
        counted += 1 + sum(was_counted() for _ in range(5))
        assert charged() == counted + lost
    throttle.close()


# --- shared:// -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_shared(
    tmp_path_factory: pytest.TempPathFactory, new_client: Callable[[], str]
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    counters = folder / "counters"
    counters.mkdir(mode=0o700)
    with site(f"shared://{counters}?size=1mb", folder, new_client) as found:
        yield found


def test_the_folder_of_the_shared_storage_is_deleted(on_shared: Site) -> None:
    deleted, counters = 2, on_shared.folder / "counters"
    load = on_shared.load()
    with load.running():
        load.go_on(0.3)
        for _ in range(deleted):
            shutil.rmtree(counters)
            load.until((counters / "format").exists, "a new file")
            load.go_on(1.2)  # every worker checks once a second
    figures = on_shared.saw(load)
    assert load.errors == []
    assert figures.unavailable == 0
    # Until all have noticed, within a second, some still count in the old file.
    assert max(on_shared.admitted(load).values()) <= TIGHT * (deleted + 1)


def test_workers_are_killed(on_shared: Site) -> None:
    kills = 8
    load = on_shared.load()
    with load.running():
        load.go_on(0.2)
        for number in range(kills):
            ready = on_shared.ready
            os.kill(on_shared.workers[number % WORKERS], signal.SIGKILL)
            load.until(lambda: on_shared.ready > ready, "a new worker")  # noqa: B023
        load.go_on(0.2)
    figures = on_shared.saw(load)
    # A request that the worker had begun dies with it.
    assert figures.errors <= kills
    assert figures.unavailable == 0
    assert figures.over == 0


def test_rules_are_edited_and_half_of_the_edits_are_broken(on_shared: Site) -> None:
    edit_rules(on_shared, edits=20)


# --- memory --------------------------------------------------------------------------------------

FLOOD = """
import sys
from support.site_under_load import resident_bytes
from wsgi_throttle import Throttle

NAMES = ["HTTP_COOKIE", "HTTP_ACCEPT", "HTTP_X_FORWARDED_FOR", "HTTP_X_API_KEY"]

def flood(throttle, numbers):
    for number in numbers:
        text = f"{number:08d}"
        long = text * 1000  # about as long as gunicorn takes a header
        environ = {
            "REQUEST_METHOD": f"M{text}",
            "PATH_INFO": f"/{text}/{long[:400 + number % 3 * 1700]}",  # the shortest are cached
            "REMOTE_ADDR": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        }
        name = NAMES[number % 4]
        environ[name] = f"session={long}; c={long}" if name == "HTTP_COOKIE" else long
        if name == "HTTP_ACCEPT":
            environ["PATH_INFO"] = f"/{text}"
        throttle(environ, lambda status, headers, exc_info=None: statuses.add(status[:3]))

statuses = set()
throttle = Throttle(lambda environ, start: start("200 OK", []) or [], {
    "storage": sys.argv[1],
    "session": {"kind": "flask", "secret_key": "secret"},
    "client_ip": {"trusted_proxies": ["10.0.0.0/8"]},
    "rules": [
        {"path": "/<first>/**", "limits": [
            {"limit": "1000 per hour", "key": ["path:first", "header:X-API-Key", "cookie:c"]},
            {"limit": "1000 per hour", "key": "session-user"},
        ]},
        {"path": "/*", "per_method": True, "limits": "0 per hour", "key": "ip"},
    ],
})
flood(throttle, range(20_000))
before = resident_bytes()
flood(throttle, range(20_000, 100_000))
print(*sorted(statuses), resident_bytes() - before, before)
"""


@pytest.mark.soak
@pytest.mark.parametrize("storage", ["memory://?max_clients=5000", "shared://{}?size=1mb"])
def test_100000_of_everything_a_client_chooses_leave_memory_flat(
    storage: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    found = subprocess.run(
        [sys.executable, "-c", FLOOD, storage.format(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    *statuses, grown, before = found.stdout.split()
    print(f"{storage}: {int(grown) / 2**20:+.1f} MB to {int(before) / 2**20:.1f} MB")
    assert statuses == ["200", "429"]
    assert int(grown) < 0.05 * int(before)
