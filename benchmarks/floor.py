"""Lower bounds to compare with: what each storage takes for one request if used directly, and what
Python takes for the arithmetic and the headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from struct import pack
from threading import Lock
from time import monotonic_ns, time, time_ns
from typing import Any

import lmdb
import redis

from wsgi_throttle.decision import Charge
from wsgi_throttle.limits import parse
from wsgi_throttle.storage.redis.storage import SCRIPT
from wsgi_throttle.strategies import STRATEGIES, State, step_of

from .apps import LIMITS, Application, Environ, caller, clients, null, ours, requests
from .timing import Contender

RECORD = bytes(64)

FIVE_HEADERS = "floor: five headers and LMDB"

# The headers that wsgi_throttle sends for LIMITS[2].
POLICY = ("RateLimit-Policy", '"default-1";q=1000;w=3600, "default-2";q=10000;w=86400')
RATELIMIT = '"default-1";r=%d;t=%d, "default-2";r=%d;t=%d'
QUOTA = ("X-RateLimit-Limit", "1000")


def charges(namespace: str) -> list[Sequence[Charge]]:
    """For each client, the charges of one request; they are the same on every storage."""
    throttle = ours(null, "memory://", namespace)
    found = []
    for environ in requests(clients())(len(clients())):
        caller(throttle)(environ)
        found.append(environ["wsgi_throttle.decision"].charges)
    return found


def in_turn(arguments: Sequence[Any]) -> Any:
    """A function that makes a list of so many of these, taken in turn."""
    return lambda count: [arguments[number % len(arguments)] for number in range(count)]


def dict_update() -> Contender:
    """Reads and writes two states of one bucket in a dict, under a lock."""
    lock = Lock()
    table = {first.bucket: [(), ()] for first, _ in charges("floor")}

    def call(bucket: str) -> None:
        lock.acquire()
        states = table[bucket]
        states[0], states[1] = states[1], states[0]
        lock.release()

    return Contender("floor: dict update", in_turn([*table]), call)


def lmdb_transaction(folder: Path) -> Contender:
    """Reads and writes one record of an LMDB file."""
    name = "floor: LMDB transaction"
    return Contender(name, in_turn([b"%012d" % n for n in range(100)]), _transaction(folder))


def _transaction(folder: Path) -> Callable[[bytes], None]:
    """A function that reads and writes one record. The file is opened by the process that first
    calls it, with the options that shared:// uses."""

    @cache
    def opened() -> lmdb.Environment:
        return lmdb.open(
            str(folder),
            map_size=32 << 20,
            writemap=True,
            sync=False,
            metasync=False,
            meminit=False,
            readahead=False,
        )

    def transact(key: bytes) -> None:
        txn = opened().begin(write=True)
        txn.get(key)
        txn.put(key, RECORD)
        txn.commit()

    return transact


def one_function(app: Application) -> Application:
    """The application behind one function that counts two sliding windows and sends their headers.
    It has no rules, keys, storages or settings, never refuses, and handles no errors."""
    first, second = map(step_of, parse(LIMITS[2]))
    lock = Lock()
    cells: dict[str, list[State]] = {}

    def limited(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        states = cells.setdefault(environ["REMOTE_ADDR"], [(), ()])
        with lock:
            now = monotonic_ns() // 1_000_000
            (_, left, due_ms), states[0] = first(states[0], now, 1)
            (_, other_left, other_due_ms), states[1] = second(states[1], now, 1)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            least = (left, due_ms) if left < other_left else (other_left, other_due_ms)
            numbers = (left, -(-due_ms // 1000), other_left, -(-other_due_ms // 1000))
            reset = ceil(time() + least[1] / 1000)
            told = [
                *headers,
                POLICY,
                ("RateLimit", RATELIMIT % numbers),
                QUOTA,
                ("X-RateLimit-Remaining", str(least[0])),
                ("X-RateLimit-Reset", str(reset)),
            ]
            return start_response(status, told)

        return app(environ, start)

    return limited


def five_headers(app: Application, folder: Path) -> Application:
    """The application behind a function that makes an LMDB transaction and adds five constant
    headers. It counts nothing."""
    transact = _transaction(folder)
    told = [POLICY, ("RateLimit", RATELIMIT % (999, 3600, 9999, 86400)), QUOTA]
    told += [("X-RateLimit-Remaining", "999"), ("X-RateLimit-Reset", "1800000000")]

    def limited(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        transact(b"a client")

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, headers + told)

        return app(environ, start)

    return limited


def evalsha(client: redis.Redis, name: str, namespace: str) -> Contender:
    """Calls take.lua by redis-py's own ``evalsha``, with as many keys as wsgi_throttle would."""
    sha = client.script_load(SCRIPT)
    calls = []
    for of_one in charges(namespace):
        keys = [key(charge) for charge in of_one]
        calls.append((sha, len(keys), *keys, *map(argument, of_one)))
    return Contender(name, in_turn(calls), lambda call: client.evalsha(*call))


def key(charge: Charge) -> str:
    """Redis' key of the charge's state."""
    return f"{charge.bucket}:{charge.limit.tag}"


def argument(charge: Charge) -> bytes:
    """The charge packed for take.lua, which describes the form."""
    limit = charge.limit
    lifetime_ms = STRATEGIES[limit.strategy].lifetime_ms(limit)
    numbers = (charge.cost, limit.quota, limit.window_ms, limit.burst, lifetime_ms)
    return pack(">B5d", charge.enforce, *numbers) + limit.strategy.encode() + b"\0"


def fill_windows(client: redis.Redis, namespace: str) -> None:
    """Write states in which every grain of each client's sliding windows has a hit, in the form
    that take.lua keeps."""
    for of_one in charges(namespace):
        for charge in of_one:
            entries = list(_entries(charge.limit.window_ms))
            state = b"".join(pack(">dd", 1, at) for at in entries) + pack(">d", len(entries))
            client.set(key(charge), state, px=charge.limit.window_ms)


def _entries(window_ms: int) -> Iterator[int]:
    now_ms, grain_ms = time_ns() // 1_000_000, -(-window_ms // 60)
    return (now_ms - number * grain_ms for number in range(59, -1, -1))
