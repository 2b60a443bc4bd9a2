"""redis:// on real servers: what is stored there, for how long, and with how many commands."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from struct import pack

import pytest
import redis

from support.charges import take
from support.redis import (
    PATIENCE_S,
    Server,
    ServerDiesError,
    eventually,
    free_port,
    programs,
)
from wsgi_throttle.decision import Charge, Limit
from wsgi_throttle.errors import StorageError, StorageURIError
from wsgi_throttle.storage import open_storage
from wsgi_throttle.storage.redis.storage import RedisStorage
from wsgi_throttle.strategies import STRATEGIES

ROOT = Path(__file__).parent.parent
HOUR_MS = 3_600_000
_buckets = count()


def hourly(quota: int, strategy: str = "sliding-window", window_ms: int = HOUR_MS) -> Limit:
    return Limit(strategy, quota, window_ms, quota)


def charges_of(*limits: Limit, bucket: str = "", enforce: bool = True) -> list[Charge]:
    """A charge for each limit, on a bucket that no other test uses."""
    bucket = bucket or f"test_redis:{next(_buckets)}:{{ip:192.0.2.1}}"
    return [Charge(bucket, limit, 1, enforce, "rule") for limit in limits]


def key_of(charge: Charge) -> str:
    return f"{charge.bucket}:{charge.limit.tag}"


@pytest.fixture(scope="module", params=programs())
def redis_program(request: pytest.FixtureRequest) -> str:
    """Each server that is installed."""
    return programs()[request.param]


@pytest.fixture(scope="module")
def server(redis_program: str, redis_folder: Path) -> Iterator[Server]:
    """A server that only this module uses."""
    server = Server(redis_program, redis_folder)
    server.start()
    yield server
    server.stop()


def storage_of(server: Server, query: str = "", timeout_s: float = PATIENCE_S) -> RedisStorage:
    """With a long timeout, for busy machines; test_breaker.py tests what a timeout does."""
    return RedisStorage.from_uri(server.uri + query, timeout_s=timeout_s)


@pytest.fixture
def storage(server: Server) -> Iterator[RedisStorage]:
    storage = storage_of(server)
    yield storage
    storage.close()


# --- what is kept, and for how long --------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_key_has_a_ttl_of_its_limits_lifetime(
    strategy: str, server: Server, storage: RedisStorage
) -> None:
    server.client.flushall()
    limit, other = Limit(strategy, 3, 60_000, 6), hourly(2, strategy)
    charges = charges_of(limit, other)
    assert [take(storage, charges).granted for _ in range(4)] == [True, True, False, False]
    for charge in charges:
        lifetime_ms = STRATEGIES[strategy].lifetime_ms(charge.limit)
        assert lifetime_ms - 10_000 < server.client.pttl(key_of(charge)) <= lifetime_ms + 100
    assert sorted(server.client.keys()) == sorted(key_of(charge).encode() for charge in charges)


def test_nothing_is_left_behind_once_the_window_is_over(
    server: Server, storage: RedisStorage
) -> None:
    limits = [hourly(5, strategy, window_ms) for strategy in STRATEGIES for window_ms in (1, 50)]
    charges = charges_of(*limits)
    take(storage, charges)
    eventually(lambda: not server.client.exists(*map(key_of, charges)))


def test_looking_leaves_nothing(server: Server, storage: RedisStorage) -> None:
    looks = [charge._replace(cost=0) for charge in charges_of(hourly(5), hourly(9))]
    decision = take(storage, looks)
    assert decision.granted
    assert [outcome.remaining for outcome in decision.outcomes] == [5, 9]
    assert not server.client.exists(*map(key_of, looks))


def test_a_refusal_by_one_limit_leaves_the_others_as_they_were(
    server: Server, storage: RedisStorage
) -> None:
    bucket = charges_of(hourly(1))[0].bucket
    narrow, wide = charges_of(hourly(1), hourly(100), bucket=bucket)
    assert take(storage, [wide, narrow]).granted
    before = server.client.get(key_of(wide))
    decision = take(storage, [wide, narrow])
    assert not decision.granted
    assert [outcome.remaining for outcome in decision.outcomes] == [99, 0]
    assert server.client.get(key_of(wide)) == before


def test_a_shadow_charge_counts_where_it_fits_and_never_refuses(storage: RedisStorage) -> None:
    (shadow,) = charges_of(hourly(1), enforce=False)
    (charge,) = charges_of(hourly(3))
    decisions = [take(storage, [charge, shadow]) for _ in range(4)]
    assert [decision.granted for decision in decisions] == [True, True, True, False]
    assert [decision.outcomes[1].wait_ms > 0 for decision in decisions] == [
        False,
        True,
        True,
        True,
    ]


def test_reset_forgets_these_charges_and_no_others(storage: RedisStorage) -> None:
    mine, others = charges_of(hourly(1), hourly(2)), charges_of(hourly(1))
    take(storage, mine)
    take(storage, others)
    storage.reset(mine)
    storage.reset([])
    assert take(storage, mine).granted
    assert not take(storage, others).granted


def test_another_strategy_for_the_same_bucket_starts_afresh(storage: RedisStorage) -> None:
    bucket = charges_of(hourly(1))[0].bucket
    for strategy in [*STRATEGIES, *STRATEGIES]:
        decision = take(storage, charges_of(hourly(2, strategy), bucket=bucket))
        assert decision.granted


def test_a_key_of_another_type_is_overwritten(server: Server, storage: RedisStorage) -> None:
    charges = charges_of(hourly(1))
    server.client.rpush(key_of(charges[0]), "somebody else's")
    assert [take(storage, charges).granted for _ in range(2)] == [True, False]
    assert server.client.pttl(key_of(charges[0])) > 0


def packed(*numbers: float) -> bytes:
    return pack(f">{len(numbers)}d", *numbers)


NAN, INF = math.nan, math.inf
NOW = 1e12  # milliseconds, in 2001
CRAFTED = [
    *(b"x", b"\xff" * 16, b"\xff" * 24, b"0" * 1000, packed(1), packed(1, 1), packed(1, 1, 9)),
    *(packed(NAN, NAN), packed(INF, 1), packed(1, INF), packed(-1, -1), packed(NOW, -7)),
    *(packed(NAN, NAN, NAN), packed(1, INF, 1), packed(1, -INF, 1), packed(2, 2**49, 1, 0, 3)),
    *(packed(1, 2**60, 9, NOW, 10), packed(-5, NOW, -5), packed(1e300, NOW, 1e300), packed(1, 9)),
    *(packed(NOW * 10, 99), packed(NOW * 10, -99), packed(1, NOW * 10, 99), packed(1, 1, NAN)),
]
"""What somebody might write in place of a state."""


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("state", CRAFTED, ids=range(len(CRAFTED)))
def test_a_state_that_is_unreadable_is_replaced_and_harms_nobody(
    strategy: str, state: bytes, server: Server, storage: RedisStorage
) -> None:
    bucket = charges_of(hourly(2))[0].bucket
    crafted, other = charges_of(hourly(2, strategy), hourly(9), bucket=bucket)
    server.client.set(key_of(crafted), state)
    for number in range(1, 6):
        decision = take(storage, [crafted, other])
        for outcome, quota in zip(decision.outcomes, (2, 9), strict=True):
            assert 0 <= outcome.wait_ms <= HOUR_MS
            assert 0 <= outcome.remaining <= quota
            assert 0 <= outcome.reset_ms <= HOUR_MS
        granted = 9 - decision.outcomes[1].remaining
        assert granted <= min(number, 2)
    assert server.client.get(key_of(crafted)) != state
    assert 0 < server.client.pttl(key_of(crafted)) <= HOUR_MS + 100


def test_an_unreadable_state_is_logged_once_a_minute(
    server: Server, storage: RedisStorage, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        charges = charges_of(hourly(2), hourly(3))
        server.client.set(key_of(charges[0]), "garbage")
        assert [take(storage, charges).granted for _ in range(3)] == [True, True, False]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "unreadable and is replaced (1 limits)" in record.getMessage()


# --- how it asks ---------------------------------------------------------------------------------


def test_a_take_is_one_command_and_a_connect_one_round_trip(
    new_redis: Callable[..., Server], server: Server
) -> None:
    server.client.config_resetstat()
    storage = storage_of(server)
    charges = charges_of(hourly(100), hourly(200))
    for _ in range(10):
        take(storage, charges)
    stats = server.client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): stats[name]["calls"] for name in stats}
    by_the_script = {"time", "mget", "set"}
    by_this_test = {"info", "config", "config|resetstat", "hello", "client", "client|setinfo"}
    asked = {name: calls[name] for name in calls.keys() - by_the_script - by_this_test}
    assert asked in ({"evalsha": 10, "script|load": 1}, {"evalsha": 10, "script": 1})
    storage.close()


def test_a_script_that_the_server_forgot_is_sent_again_and_charges_once(
    server: Server, storage: RedisStorage
) -> None:
    charges = charges_of(hourly(10))
    remaining = []
    for _ in range(5):
        server.client.script_flush()
        remaining.append(take(storage, charges).outcomes[0].remaining)
    assert remaining == [9, 8, 7, 6, 5]


def test_a_ping_is_one_command_and_counts_nothing(server: Server, storage: RedisStorage) -> None:
    storage.ping()
    server.client.flushall()
    server.client.config_resetstat()
    storage.ping()
    assert server.client.info("commandstats")["cmdstat_ping"]["calls"] == 1
    assert server.client.dbsize() == 0


def names_of_clients(server: Server) -> list[str]:
    return [client["name"] for client in server.client.client_list()]


def test_one_thread_uses_one_connection_and_close_gives_it_back(server: Server) -> None:
    storage = storage_of(server, "?client_name=closing")
    for _ in range(20):
        take(storage, charges_of(hourly(1)))
    assert names_of_clients(server).count("closing") == 1
    storage.close()
    storage.close()
    eventually(lambda: "closing" not in names_of_clients(server))


def test_a_connection_in_use_at_close_is_closed_after_use(
    new_redis: Callable[..., Server],
) -> None:
    server = new_redis()
    storage = storage_of(server, "?client_name=in_use")
    charges = charges_of(hourly(10))
    take(storage, charges)

    def is_lent() -> bool:
        # Keep no reference to the pool: a connection in use is closed with the last one.
        connections = storage._pool
        return connections is not None and not connections._idle

    with ThreadPoolExecutor(1) as pool:
        with server.stopped():
            in_use = pool.submit(take, storage, charges)
            eventually(is_lent)
            storage.close()
        assert in_use.result(PATIENCE_S).granted
    eventually(lambda: "in_use" not in names_of_clients(server))


def test_threads_share_as_many_connections_as_allowed(server: Server) -> None:
    storage = storage_of(server, "?client_name=few&max_connections=2")
    charges = charges_of(hourly(1000))

    def left(_: int) -> int:
        return take(storage, charges).outcomes[0].remaining

    with ThreadPoolExecutor(16) as pool:
        remaining = list(pool.map(left, range(400)))
    assert sorted(remaining) == list(range(600, 1000))
    assert names_of_clients(server).count("few") <= 2
    storage.close()


def test_connections_that_the_server_closed_are_no_failure(server: Server) -> None:
    storage = storage_of(server)
    charges = charges_of(hourly(100))
    for _ in range(5):
        assert take(storage, charges).granted
        server.client.client_kill_filter(_type="normal", skipme=True)
    assert take(storage, charges).outcomes[0].remaining == 94
    storage.close()


def test_connections_that_the_server_found_idle_are_no_failure(
    new_redis: Callable[..., Server],
) -> None:
    server = new_redis(timeout="1")
    storage = storage_of(server, "?client_name=idle")
    charges = charges_of(hourly(100))
    take(storage, charges)

    def closed() -> bool:
        return "idle" not in names_of_clients(server)

    eventually(closed)
    assert take(storage, charges).outcomes[0].remaining == 98
    storage.close()


def test_a_restarted_server_is_found_again(new_redis: Callable[..., Server]) -> None:
    server = new_redis()
    storage = storage_of(server)
    charges = charges_of(hourly(1))
    assert take(storage, charges).granted
    server.kill()
    with pytest.raises(StorageError, match="cannot connect"):
        take(storage, charges)
    server.start()
    assert take(storage, charges).granted
    storage.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("busy", [False, True], ids=["idle parent", "parent amid a take"])
def test_a_forked_child_and_its_parent_read_their_own_replies(busy: bool, server: Server) -> None:
    storage = storage_of(server)
    of_parent, of_child = charges_of(hourly(1000)), charges_of(hourly(500))

    def counts_down(charges: list[Charge], first: int) -> bool:
        seen = [take(storage, charges).outcomes[0].remaining for _ in range(200)]
        return seen == list(range(first, first - 200, -1))

    assert counts_down(of_parent, 999)
    with ThreadPoolExecutor(1) as pool:
        if busy:
            meanwhile = pool.submit(counts_down, of_parent, 799)
        child = os.fork()
        if not child:
            os._exit(0 if counts_down(of_child, 499) else 1)
        if not busy:
            meanwhile = pool.submit(counts_down, of_parent, 799)
        assert meanwhile.result(PATIENCE_S)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counts_down(of_parent, 599)
    storage.close()


HAMMER = textwrap.dedent("""
    import sys
    from concurrent.futures import ThreadPoolExecutor
    from wsgi_throttle.decision import Charge, Limit, Terms
    from wsgi_throttle.storage import open_storage

    storage = open_storage(sys.argv[1], timeout_s=10)
    terms, buckets = Terms.of(
        Charge(sys.argv[2], Limit(strategy, quota, 3_600_000, quota), 1, True, "rule")
        for strategy, quota in [("sliding-window", 150), ("fixed-window", 10_000)]
    )
    take = storage.prepare(terms)
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(4) as pool:
        print(sum(pool.map(lambda _: take(buckets).granted, range(40))), flush=True)
""")


def test_eight_processes_of_four_threads_admit_exactly_the_quota(server: Server) -> None:
    bucket = charges_of(hourly(1))[0].bucket
    command = [sys.executable, "-c", HAMMER, server.uri, bucket]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        admitted = [int(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sum(admitted) == 150
    (fixed,) = charges_of(hourly(10_000, "fixed-window"), bucket=bucket)
    look = take(storage_of(server), [fixed._replace(cost=0)])
    assert look.outcomes[0].remaining == 10_000 - 150


# --- where the server is -------------------------------------------------------------------------


def test_a_unix_socket_and_a_database(server: Server) -> None:
    storage = open_storage(f"unix://{server.socket}?db=3", timeout_s=PATIENCE_S)
    charges = charges_of(hourly(1))
    take(storage, charges)
    with redis.Redis(port=server.port, db=3) as third:
        assert third.exists(key_of(charges[0]))
    assert not server.client.exists(key_of(charges[0]))
    storage.close()


@pytest.mark.parametrize(
    ("user", "works"),
    [
        pytest.param(":right%2Fpassword@", True, id="right password"),
        pytest.param("default:right%2Fpassword@", True, id="right user and password"),
        pytest.param(":wrong@", False, id="wrong password"),
        pytest.param("", False, id="no password"),
    ],
)
def test_a_password(user: str, works: bool, new_redis: Callable[..., Server]) -> None:
    server = new_redis(requirepass="right/password", start=False)
    server.client.connection_pool.connection_kwargs["password"] = "right/password"
    server.start()
    storage = open_storage(f"redis://{user}127.0.0.1:{server.port}", timeout_s=PATIENCE_S)
    if works:
        assert take(storage, charges_of(hourly(1))).granted
    else:
        with pytest.raises(StorageError, match=r"(?i)auth|password"):
            take(storage, charges_of(hourly(1)))
    storage.close()


NEEDED = ["+eval", "+evalsha", "+time", "+mget", "+set", "+del"]


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param(NEEDED, id="what is needed"),
        pytest.param(["+@read", "+@write", *NEEDED], id="reading and writing"),
        pytest.param([*NEEDED, "+ping", "+info", "+script|load"], id="all that is used"),
    ],
)
def test_a_user_who_may_do_what_is_needed(
    allowed: list[str], server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    commands = ["reset", "on", "nopass", "~test_redis:*", *allowed]
    server.client.execute_command("ACL SETUSER", "limited", *commands)
    server.client.script_flush()
    uri = f"redis://limited:x@127.0.0.1:{server.port}"
    storage = open_storage(uri, timeout_s=PATIENCE_S)
    charges = charges_of(hourly(2))
    assert [take(storage, charges).granted for _ in range(3)] == [True, True, False]
    storage.ping()
    storage.reset(charges)
    assert take(storage, charges).granted
    assert caplog.records == []
    storage.close()


def test_a_user_who_may_not_count_is_told_what_to_allow(server: Server) -> None:
    commands = ["reset", "on", "nopass", "~test_redis:*", "+eval"]
    server.client.execute_command("ACL SETUSER", "idle", *commands)
    storage = open_storage(f"redis://idle:x@127.0.0.1:{server.port}", timeout_s=PATIENCE_S)
    for _ in range(2):
        with pytest.raises(StorageError, match=re.escape(" ".join(NEEDED))):
            take(storage, charges_of(hourly(2)))
    storage.close()


def test_the_readme_lists_the_commands_that_a_user_needs() -> None:
    assert f"`{' '.join(NEEDED)}`" in (ROOT / "README.md").read_text()


def test_a_server_that_knows_no_script_command_is_sent_the_script_once(
    new_redis: Callable[..., Server],
) -> None:
    server = new_redis(rename_command='script ""')
    storage = storage_of(server)
    charges = charges_of(hourly(100))
    for _ in range(3):
        assert take(storage, charges).granted
    stats = server.client.info("commandstats")
    assert [stats[f"cmdstat_{name}"]["calls"] for name in ("eval", "evalsha")] == [1, 3]
    storage.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_options_of_redis_py_without_effect_are_named_in_a_warning(
    scheme: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    query = "socket_timeout=5&protocol=3&client_name=lenient&decode_responses=true"
    uri = f"{scheme}://127.0.0.1:{server.port}/1?{query}&health_check_interval=30"
    storage = open_storage(uri, timeout_s=PATIENCE_S)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith(": socket_timeout, protocol, decode_responses, health_check_interval")
    charges = charges_of(hourly(2))
    assert [take(storage, charges).granted for _ in range(3)] == [True, True, False]
    assert "lenient" in names_of_clients(server)
    assert repr(storage).startswith(f"<RedisStorage {scheme}://127.0.0.1:")
    storage.close()


def test_a_node_of_a_cluster_is_named_as_such_when_it_is_first_used(
    new_redis: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis(cluster_enabled="yes")
    storage = storage_of(server)
    for _ in range(2):
        with pytest.raises(StorageError, match="CLUSTERDOWN"):  # no node has any slots yet
            take(storage, charges_of(hourly(2)))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "is a node of a Redis Cluster, which cannot be used" in record.getMessage()
    storage.close()


def test_tls(
    new_redis: Callable[..., Server], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("there is no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
        " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
        f" -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    tls_port = str(free_port())
    server = new_redis(
        start=False,
        tls_port=tls_port,
        tls_cert_file=str(certificate),
        tls_key_file=str(key),
        tls_ca_cert_file=str(certificate),
        tls_auth_clients="no",
    )
    try:
        server.start()
    except ServerDiesError as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip(f"{request.node.callspec.params['redis_program']} was built without TLS")
    uri = f"rediss://127.0.0.1:{tls_port}/0"
    storage = open_storage(f"{uri}?ssl_ca_certs={certificate}", timeout_s=PATIENCE_S)
    charges = charges_of(hourly(100))
    for remaining in (99, 98):
        assert take(storage, charges).outcomes[0].remaining == remaining
    server.client.client_kill_filter(_type="normal", skipme=True)
    assert take(storage, charges).outcomes[0].remaining == 97
    storage.close()

    stranger = open_storage(uri, timeout_s=PATIENCE_S)
    with pytest.raises(StorageError, match="CERTIFICATE_VERIFY_FAILED"):
        take(stranger, charges)
    stranger.close()


@pytest.mark.parametrize(
    "uri",
    [
        "redis://",
        "redis://redis.invalid",
        "redis://user:secret@redis.invalid:6380/2?max_connections=5",
        "redis://[::1]:6379/0",
        "rediss://redis.invalid?ssl_cert_reqs=none&ssl_check_hostname=false",
        "valkey://:secret@valkey.invalid",
        "valkeys://:secret@valkey.invalid:6380/2?ssl_cert_reqs=none",
        "unix:///run/redis.invalid",
        "redis+sentinel://one.invalid,two.invalid:26380/service",
        "redis+sentinel://:secret@[::1]:26379/service/3?ssl=true&sentinel_password=secret",
    ],
)
def test_opening_connects_to_nothing_and_tells_no_secret(uri: str) -> None:
    assert "secret" not in repr(open_storage(uri))


@pytest.mark.parametrize(
    "uri", ["redis://host", "rediss://host", "unix:///run/redis.sock", "redis+sentinel://host/name"]
)
def test_a_redis_py_that_keeps_its_sockets_elsewhere_is_noticed_at_the_start(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsgi_throttle.storage.redis.address.SOCKET_ATTRIBUTE", "_kept_elsewhere")
    with pytest.raises(StorageURIError, match=r"redis-py .* cannot be used.*install"):
        open_storage(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("redis://host?maxconnections=5", "maxconnections"),
        ("valkey://host?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("rediss://host?ssl_validate_ocsp=true", "ssl_validate_ocsp"),
        ("valkeys://host?protocol=3#fragment", "%23"),
        ("redis://host?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("redis://host?db=one", "db"),
        ("redis://host?max_connections=0", "max_connections"),
        ("redis://host/one", "database"),
        ("redis://host:port", "port"),
        ("redis://:s3cret#@host", "%23"),
        ("redis://:s3cret/@host", "port"),
        ("rediss://host?ssl_cert_reqs=maybe", "none, optional or required"),
        ("rediss://host?ssl_ca_certs=", "ssl_ca_certs"),
        ("unix://", "unix:///"),
        ("redis+sentinel://host:26379", "service"),
        ("redis+sentinel:///service", "host"),
        ("redis+sentinel://host:port/service", "port"),
        ("redis+sentinel://host/service?ssl=maybe", "ssl"),
        ("redis+sentinel://host/service?sentinels=2", "sentinels"),
    ],
)
def test_a_mistake_in_a_uri_is_told_when_it_is_opened(uri: str, message: str) -> None:
    with pytest.raises(StorageURIError, match=message) as caught:
        open_storage(uri)
    assert "s3cret" not in str(caught.value)
