"""A storage that dies, hangs or answers nonsense: requests do not wait for it, and it is used again
once it works."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from support.charges import take
from support.redis import Server, eventually, programs
from wsgi_throttle.decision import Charge, Decision, Limit, Take, Terms
from wsgi_throttle.errors import StorageDownError, StorageError, StorageRequestError
from wsgi_throttle.storage import open_storage
from wsgi_throttle.storage.breaker import CircuitBreaker
from wsgi_throttle.storage.redis.address import SOCKET_ATTRIBUTE
from wsgi_throttle.storage.redis.pool import Connection
from wsgi_throttle.storage.redis.storage import RedisStorage
from wsgi_throttle.testing import ManualClock

TIMEOUT_S = 0.1
SLOWEST_S = 2 * TIMEOUT_S + 0.15
"""The longest that a request may take: two timeouts, and a margin for a busy machine."""

LIMIT = Limit("sliding-window", 10**6, 3_600_000, 10**6)
CHARGES = [Charge("test_breaker:{all}", LIMIT, 1, True, "rule")]
KEY = f"{CHARGES[0].bucket}:{LIMIT.tag}"


# --- real servers --------------------------------------------------------------------------------


@dataclass
class Load:
    """Requests by a few threads without a pause, and their outcomes."""

    storage: CircuitBreaker
    slowest_s: float = 0.0
    granted: int = 0
    storage_errors: list[str] = field(default_factory=list)
    other_errors: list[BaseException] = field(default_factory=list)

    @contextmanager
    def running(self, threads: int = 4) -> Iterator[None]:
        over = threading.Event()
        workers = [threading.Thread(target=self._run, args=(over,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            over.set()
            for worker in workers:
                worker.join()

    def _run(self, over: threading.Event) -> None:
        while not over.wait(0.001):
            began = time.monotonic()
            try:
                self.granted += take(self.storage, CHARGES).granted
            except StorageError as error:
                self.storage_errors.append(str(error))
            except BaseException as error:
                self.other_errors.append(error)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def fails(self, after: int = 0) -> None:
        eventually(lambda: len(self.storage_errors) > after)

    def counts(self) -> None:
        before = self.granted
        eventually(lambda: self.granted > before, patience_s=20)

    def check(self) -> None:
        assert self.other_errors == []
        assert self.slowest_s < SLOWEST_S


@pytest.fixture(scope="module", params=programs())
def redis_program(request: pytest.FixtureRequest) -> str:
    """Each server that is installed."""
    return programs()[request.param]


@contextmanager
def load_on(server: Server) -> Iterator[Load]:
    storage = CircuitBreaker(open_storage(server.uri, timeout_s=TIMEOUT_S))
    load = Load(storage)
    with load.running():
        yield load
    load.check()
    storage.close()


def test_a_server_that_is_killed_and_comes_back_empty(new_redis: Callable[..., Server]) -> None:
    server = new_redis()
    with load_on(server) as load:
        load.counts()
        server.kill()
        load.fails()
        server.start()
        load.counts()
        assert 0 < server.client.pttl(KEY) <= LIMIT.window_ms + 100


def test_a_server_that_is_stopped_for_a_while(new_redis: Callable[..., Server]) -> None:
    server = new_redis()
    with load_on(server) as load:
        load.counts()
        with server.stopped():
            load.fails()
            # Long enough for more than one probe.
            eventually(lambda: len(load.storage_errors) > 1000)
        load.counts()


def test_a_server_that_starts_after_the_workers(new_redis: Callable[..., Server]) -> None:
    server = new_redis(start=False)
    with load_on(server) as load:
        load.fails()
        server.start()
        load.counts()


def test_connections_that_are_cut_under_load(new_redis: Callable[..., Server]) -> None:
    server = new_redis()
    with load_on(server) as load:
        for _ in range(10):
            load.counts()
            server.client.client_kill_filter(_type="normal", skipme=True)
        load.counts()


def test_a_server_that_is_out_of_memory(new_redis: Callable[..., Server]) -> None:
    server = new_redis()
    with load_on(server) as load:
        load.counts()
        server.client.config_set("maxmemory", 1)
        load.fails()
        server.client.config_set("maxmemory", 0)
        load.counts()
        assert any("OOM" in error or "maxmemory" in error for error in load.storage_errors)


def test_a_master_that_becomes_a_replica(new_redis: Callable[..., Server]) -> None:
    server = new_redis()
    with load_on(server) as load:
        load.counts()
        server.client.replicaof("127.0.0.1", "1")
        load.fails()
        server.client.replicaof("NO", "ONE")
        load.counts()
        assert any("READONLY" in error for error in load.storage_errors)


def test_a_server_that_is_busy_with_a_script(new_redis: Callable[..., Server]) -> None:
    server = new_redis(lua_time_limit="10")

    def run_away() -> None:
        with redis.Redis(port=server.port, socket_timeout=30) as client, suppress(redis.RedisError):
            client.eval("while true do end", 0)

    with load_on(server) as load:
        load.counts()
        script = threading.Thread(target=run_away)
        script.start()
        load.fails()
        # The first probe, after half a second, is answered with the reason.
        eventually(lambda: len(load.storage_errors) > 1000)
        server.client.script_kill()
        script.join()
        load.counts()


def test_a_server_that_is_loading(
    new_redis: Callable[..., Server], request: pytest.FixtureRequest
) -> None:
    before = new_redis()
    if before.version < (7,):
        name = request.node.callspec.params["redis_program"]
        pytest.skip(f"{name} loads too fast, and has no option to be slowed")
    for number in range(100):
        before.client.set(f"test_breaker:{number}", os.urandom(2000))
    before.client.save()
    before.stop()
    slowly = {"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"}
    server = new_redis(start=False, dir=str(before.folder), **slowly)
    server.start(wait=False)
    with load_on(server) as load:
        eventually(lambda: any("loading" in error.lower() for error in load.storage_errors))
        load.counts()


# --- servers that answer nonsense ----------------------------------------------------------------


class Nonsense:
    """A server that lets a client connect, load the script and ask for INFO, then gives this answer
    to every command."""

    def __init__(self, answer: bytes, pause_s: float = 0.0) -> None:
        self._answer = answer
        self._pause_s = pause_s
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            self._read_script_load(connection)
            connection.sendall(b"$40\r\n%b\r\n-NOPERM\r\n" % (b"0" * 40))
            connection.recv(1 << 16)
            if not self._answer:
                return
            if not self._pause_s:
                connection.sendall(self._answer)
            while self._pause_s and not self._over.wait(self._pause_s):
                connection.sendall(self._answer)
            connection.recv(1)

    @staticmethod
    def _read_script_load(connection: socket.socket) -> None:
        received = b""
        while b"$7\r\ncluster\r\n" not in received:  # of INFO, which follows the script
            received += connection.recv(1 << 16)

    def close(self) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "pause_s"),
    [
        pytest.param(b"", 0, id="it hangs up"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", 0, id="HTTP"),
        pytest.param(b"+PONG\r\n", 0, id="another answer"),
        pytest.param(b"+1\r\n", 0, id="too few numbers"),
        pytest.param(b"+1 0 1 1 0 1 1\r\n", 0, id="too many numbers"),
        pytest.param(b"+2 0 1 1\r\n", 0, id="neither granted nor refused"),
        pytest.param(b"+1 0 1 1\r\n+1 0 1 1\r\n", 0, id="two answers"),
        pytest.param(b":1\r\n", 0, id="a number"),
        pytest.param(b"$-1\r\n", 0, id="nil"),
        pytest.param(b"*3\r\n:1\r\n:2\r\n", 0, id="a part of a list"),
        pytest.param(b"\r\n", 0, id="an empty line"),
        pytest.param(b"+1 0 ", 0, id="half a line"),
        pytest.param(b"\0\xff" * 1000, 0, id="bytes"),
        pytest.param(b"1", 0.01, id="a byte at a time"),
        pytest.param(b"1" * 60_000, 0.0001, id="without an end"),
        pytest.param(b"-LOADING Redis is loading the dataset in memory\r\n", 0, id="loading"),
        pytest.param(b"-BUSY Redis is busy running a script.\r\n", 0, id="busy"),
        pytest.param(b"-NOSCRIPT No matching script.\r\n", 0, id="no script, and then nothing"),
    ],
)
def test_nonsense_is_a_storage_error_in_time(answer: bytes, pause_s: float) -> None:
    server = Nonsense(answer, pause_s)
    storage = CircuitBreaker(open_storage(server.uri, timeout_s=TIMEOUT_S))
    began = time.monotonic()
    with pytest.raises(StorageError):
        take(storage, CHARGES)
    assert time.monotonic() - began < SLOWEST_S
    storage.close()
    server.close()


def test_a_resolver_that_hangs_holds_one_thread_and_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()

    def hang(*_: object) -> list[object]:
        answer.wait(30)
        raise socket.gaierror("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    load = Load(CircuitBreaker(open_storage("redis://redis.invalid", timeout_s=TIMEOUT_S)))
    with load.running():
        eventually(lambda: len(load.storage_errors) > 1000)
        connecting = [t for t in threading.enumerate() if t.name == "wsgi_throttle-connect"]
        assert len(connecting) == 1
        answer.set()
        connecting[0].join(10)
    load.check()
    assert load.granted == 0


# --- probes, and the end of an outage ------------------------------------------------------------


class Scripted:
    """A storage that answers or fails as a test says, and records its calls."""

    reach = "network"

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.answer: Callable[[str], None] = self._answer
        """Called with the name of the call: ``take``, ``reset`` or ``ping``."""

    def __repr__(self) -> str:
        return "<Scripted>"

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.error:
            raise self.error

    def prepare(self, terms: Terms) -> Take:
        def take(
            buckets: tuple[str, ...], costs: Sequence[int] | None = None, look: bool = False
        ) -> Decision:
            self.answer("take")
            return Decision(True, terms, buckets, [], costs)

        return take

    def reset(self, charges: Sequence[Charge]) -> int:
        self.answer("reset")
        return len(charges)

    def ping(self) -> None:
        self.answer("ping")

    def close(self) -> None:
        pass


class Guarded:
    """A Scripted storage behind a circuit breaker, with a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.changes = 0
        self.notified: list[tuple[bool, str]] = []
        self.inner = Scripted()
        self.storage = CircuitBreaker(self.inner, on_change=self._changed, clock=self.clock)

    def _changed(self, failed: bool, cause: str) -> None:
        self.changes += 1
        self.notified.append((failed, cause))

    def take(self, charges: Sequence[Charge] = CHARGES) -> bool:
        try:
            return take(self.storage, charges).granted
        except StorageError:
            return False

    def probe(self) -> None:
        """Take, which starts a probe, and wait until the probe has its answer."""
        self.take()
        for thread in threading.enumerate():
            if thread.name == "wsgi_throttle-probe":
                thread.join(10)

    def take_after_probe(self) -> bool:
        self.probe()
        return self.take()


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def test_a_failed_storage_is_asked_after_half_a_second_and_then_ever_more_rarely(
    guarded: Guarded,
) -> None:
    guarded.inner.error = StorageDownError("gone")
    assert not guarded.take()
    pauses = []
    for _ in range(9):
        asked, since = len(guarded.inner.asked), guarded.clock.now_s
        while len(guarded.inner.asked) == asked:
            guarded.clock.now_s += 0.25
            guarded.take_after_probe()
        pauses.append(guarded.clock.now_s - since)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    # Only the first call was a request. Probes count nothing.
    assert guarded.inner.asked == ["take"] + ["ping"] * 9


def test_an_outage_is_over_once_a_request_has_been_counted(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsgi_throttle")
    guarded.inner.error = StorageDownError("gone")
    for _ in range(3):
        assert not guarded.take()
    guarded.inner.error = None
    assert not guarded.take()
    guarded.clock.now_s += 0.5
    assert guarded.take_after_probe()
    assert guarded.take()
    assert guarded.inner.asked == ["take", "ping", "take", "take"]
    assert guarded.changes == 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_an_outage_goes_on_silently_while_the_storage_answers_probes_but_does_not_count(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(what: str) -> None:
        if what != "ping":
            raise StorageDownError("full")

    guarded.inner.answer = answer
    for _ in range(5):
        assert not guarded.take_after_probe()
        guarded.clock.now_s += 30
    assert len(caplog.records) == 1
    assert guarded.changes == 1


def test_one_request_tries_the_storage_while_the_others_fail_at_once(guarded: Guarded) -> None:
    guarded.inner.error = StorageDownError("gone")
    guarded.take()
    guarded.inner.error = None
    guarded.clock.now_s += 0.5
    guarded.probe()
    trying, answer = threading.Event(), threading.Event()
    asked = []

    def wait(what: str) -> None:
        asked.append(what)
        trying.set()
        answer.wait(10)

    guarded.inner.answer = wait
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(guarded.take)
        assert trying.wait(10)
        others = [guarded.take() for _ in range(3)]
        answer.set()
        assert first.result(10)
    assert others == [False, False, False]
    assert guarded.take()
    assert asked == ["take", "take"]


def test_requests_that_fail_together_are_one_outage(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(4, timeout=10)

    def fail(_: str) -> None:
        together.wait()
        raise StorageDownError("gone")

    guarded.inner.answer = fail
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda _: guarded.take(), range(4)))
    assert guarded.changes == 1
    assert len(caplog.records) == 1


def test_a_refused_connection_begins_an_outage_at_once(guarded: Guarded) -> None:
    guarded.inner.error = ConnectionRefusedError("gone")
    with pytest.raises(StorageError, match="gone"):
        take(guarded.storage, CHARGES)
    with pytest.raises(StorageError, match="left alone: gone"):
        guarded.storage.reset(CHARGES)
    assert guarded.inner.asked == ["take"]
    assert guarded.changes == 1


def test_any_other_exception_begins_no_outage_and_is_not_hidden(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a bug in this package: an outage would hide it, and nobody would be counted."""
    guarded.inner.error = IndexError("a defect")
    for _ in range(2):
        with pytest.raises(IndexError, match="a defect"):
            take(guarded.storage, CHARGES)
        with pytest.raises(IndexError, match="a defect"):
            guarded.storage.reset(CHARGES)
    assert guarded.inner.asked == ["take", "reset"] * 2
    assert (guarded.changes, caplog.records) == (0, [])
    guarded.inner.error = None
    assert guarded.take()


def test_any_other_exception_in_the_request_that_tries_does_not_end_the_outage(
    guarded: Guarded,
) -> None:
    guarded.inner.error = StorageDownError("gone")
    guarded.take()
    guarded.inner.error = None
    guarded.clock.now_s += 0.5
    guarded.probe()
    guarded.inner.error = IndexError("a defect")
    with pytest.raises(IndexError):
        guarded.take()
    guarded.inner.error = None
    assert not guarded.take()
    guarded.clock.now_s += 1
    assert guarded.take_after_probe()


# --- what begins an outage, and what does not -----------------------------------------------------


def charges_of(*keys: str) -> list[Charge]:
    """The charges of a request with one limit by each of these keys."""
    return [Charge(f"test_breaker:{{{key}}}", LIMIT, 1, True, "rule") for key in keys]


MINE = charges_of("ip:192.0.2.1")
THEIRS = charges_of("ip:192.0.2.2")


def fail(guarded: Guarded, *requests: Sequence[Charge]) -> bool:
    """Let these requests fail one after the other. Return whether there is an outage now."""
    guarded.inner.error = StorageError("slow")
    for charges in requests:
        assert not guarded.take(charges)
    guarded.inner.error = None
    return guarded.changes > 0


@pytest.mark.parametrize(
    ("requests", "begins"),
    [
        pytest.param([MINE, THEIRS], False, id="two in a row"),
        pytest.param([MINE, MINE, THEIRS], True, id="three in a row, of two clients"),
        pytest.param([MINE] * 9, False, id="nine of one client"),
        pytest.param([MINE] * 10, True, id="ten of one client, which are half of twenty"),
        pytest.param(
            [charges_of("path:1", "ip:192.0.2.1"), charges_of("path:2", "ip:192.0.2.1"), MINE],
            False,
            id="one client with another path each time",
        ),
        pytest.param(
            [charges_of("all", f"ip:192.0.2.{n}") for n in range(3)],
            True,
            id="three clients that all count on one counter for everybody too",
        ),
        pytest.param(
            [[Charge("test_breaker:{all}:look", LIMIT, 1, True, "rule")]] * 3,
            True,
            id="looks at one counter for everybody",
        ),
        pytest.param([charges_of("all")] * 3, True, id="nobody knows how many clients"),
    ],
)
def test_an_outage_begins_with_failures_that_one_client_alone_cannot_explain(
    guarded: Guarded, requests: list[list[Charge]], begins: bool
) -> None:
    assert fail(guarded, *requests) == begins
    assert guarded.take() != begins


def test_a_success_between_failures_ends_the_row(guarded: Guarded) -> None:
    for _ in range(4):
        assert not fail(guarded, MINE, THEIRS)
        assert guarded.take(MINE)
    assert not fail(guarded, MINE)
    # The tenth failure among the last twenty calls.
    assert fail(guarded, THEIRS)


def test_failures_are_forgotten_after_twenty_successes(guarded: Guarded) -> None:
    for _ in range(3):
        assert not fail(guarded, *[MINE] * 9)
        for _ in range(20):
            assert guarded.take(MINE)
    # A reset is a call like any other.
    assert not fail(guarded, *[MINE] * 9)
    for _ in range(20):
        guarded.storage.reset(MINE)
    assert not fail(guarded, *[MINE] * 9)


def test_a_request_that_cannot_be_counted_for_its_own_fault_begins_no_outage_and_ends_one(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    guarded.inner.error = StorageRequestError("too large")
    for charges in [MINE, THEIRS] * 20:
        with pytest.raises(StorageRequestError, match="too large"):
            take(guarded.storage, charges)
    assert (guarded.changes, caplog.records) == (0, [])
    guarded.inner.error = StorageDownError("gone")
    assert not guarded.take()
    guarded.inner.error = StorageRequestError("too large")
    guarded.inner.answer = lambda what: None if what == "ping" else guarded.inner._answer(what)
    guarded.clock.now_s += 0.5
    assert not guarded.take_after_probe()
    assert guarded.changes == 2  # the storage has answered the request that tried it
    guarded.inner.error = None
    assert guarded.take()


def test_a_refused_connection_to_a_real_server_begins_an_outage_at_once(
    new_redis: Callable[..., Server],
) -> None:
    server = new_redis(start=False)
    storage = CircuitBreaker(open_storage(server.uri, timeout_s=5))
    with pytest.raises(StorageError, match="cannot connect"):
        take(storage, MINE)
    with pytest.raises(StorageError, match="left alone"):
        take(storage, MINE)
    storage.close()


def test_a_folder_that_cannot_be_opened_begins_an_outage_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    storage = CircuitBreaker(open_storage(f"shared://{tmp_path}"))
    with pytest.raises(StorageError, match="chmod"):
        take(storage, MINE)
    with pytest.raises(StorageError, match="left alone"):
        take(storage, MINE)


def test_a_reply_that_has_come_is_read_after_the_deadline(new_redis: Callable[..., Server]) -> None:
    """A thread that does not get to run for a while, on a busy machine, is not the server's
    fault."""
    server = new_redis()
    connection = redis.Connection(port=server.port)
    connection.connect()
    sock = getattr(connection, SOCKET_ATTRIBUTE)
    asking = Connection(connection)
    sock.sendall(b"PING\r\n")
    select.select([sock], [], [], 10)
    deadline_over = time.monotonic() - 1
    assert asking.ask(b"", deadline_over) == b"+PONG"
    with pytest.raises(TimeoutError):
        asking.ask(b"", deadline_over)
    asking.close()


def test_a_client_that_has_all_connections_in_use_begins_no_outage(
    new_redis: Callable[..., Server],
) -> None:
    server = new_redis()
    storage = RedisStorage.from_uri(f"{server.uri}?max_connections=1", timeout_s=0.05)
    take(storage, MINE)
    assert storage._pool
    lent = storage._pool.borrow()
    with pytest.raises(StorageRequestError, match="all 1 connections"):
        take(storage, THEIRS)
    storage._pool.give_back(lent)
    assert take(storage, THEIRS).granted
    storage.close()


def test_a_server_without_memory_for_new_keys_is_no_outage(
    new_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis(maxmemory_policy="noeviction")
    once = Limit("fixed-window", 1, 3_600_000, 1)
    known = [Charge("test_breaker:{ip:192.0.2.9}", once, 1, True, "rule")]
    storage = CircuitBreaker(open_storage(server.uri, timeout_s=5))
    assert take(storage, known).granted
    server.client.config_set("maxmemory", 1)
    for number in range(5):
        with pytest.raises(StorageRequestError, match=r"OOM|maxmemory"):
            take(storage, charges_of(f"ip:192.0.2.{number}"))
    server.client.config_set("maxmemory", 0)
    assert not take(storage, known).granted
    (told,) = [record.getMessage() for record in caplog.records]
    assert "volatile-ttl" in told
    storage.close()


def test_keys_in_several_slots_of_a_cluster_are_no_outage(
    new_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis(cluster_enabled="yes")
    server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
    eventually(lambda: server.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    storage = CircuitBreaker(open_storage(server.uri, timeout_s=5))
    for _ in range(5):
        with pytest.raises(StorageRequestError, match="CROSSSLOT"):
            take(storage, charges_of("ip:192.0.2.1", "user:1"))
        assert take(storage, MINE).granted
    assert "Cluster" in caplog.text
    storage.close()


# --- what clients are told, and forks -------------------------------------------------------------


def test_retry_after_is_the_time_to_the_next_probe(guarded: Guarded) -> None:
    assert guarded.storage.retry_after_s == 1
    guarded.inner.error = StorageDownError("gone")
    guarded.take()
    for _ in range(4):
        guarded.clock.now_s += 30
        guarded.take_after_probe()
    assert guarded.storage.retry_after_s == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_is_forked_during_a_probe_makes_its_own(
    guarded: Guarded,
) -> None:
    guarded.inner.error = StorageDownError("gone")
    guarded.take()
    guarded.clock.now_s += 1
    probing, release = threading.Event(), threading.Event()
    parent = os.getpid()

    def hang(_: str) -> None:
        if os.getpid() == parent:
            probing.set()
            release.wait(10)

    guarded.inner.answer = hang
    guarded.take()
    assert probing.wait(10)
    child = os.fork()
    if not child:
        os._exit(0 if guarded.take_after_probe() else 1)
    release.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
