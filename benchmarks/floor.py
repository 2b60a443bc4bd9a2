"""The least that a storage can cost: its own step for one request, done bare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import pack
from threading import Lock
from time import time_ns
from typing import Any

import lmdb
import redis

from wsgi_throttle.decision import Charge
from wsgi_throttle.storage.redis import SCRIPT
from wsgi_throttle.strategies import STRATEGIES

from .apps import LIMITS, caller, clients, null, ours, requests
from .timing import Contender

RECORD = bytes(64)


def charges(namespace: str, limits: str = LIMITS[2]) -> list[Sequence[Charge]]:
    """What each client's request is charged under that namespace, on any storage."""
    throttle = ours(null, "memory://", namespace, default_limits=limits)
    found = []
    for environ in requests(clients())(len(clients())):
        caller(throttle)(environ)
        found.append(environ["wsgi_throttle.decision"].charges)
    return found


def in_turn(arguments: Sequence[Any]) -> Any:
    return lambda count: [arguments[number % len(arguments)] for number in range(count)]


def dict_update() -> Contender:
    """Two states read and written under a lock."""
    lock = Lock()
    table: dict[str, tuple[int, ...]] = {}
    buckets = [(first.bucket + "1", second.bucket + "2") for first, second in charges("floor")]

    def call(pair: tuple[str, str]) -> None:
        with lock:
            for bucket in pair:
                table.get(bucket)
                table[bucket] = (1, 2, 3)

    return Contender("floor: dict update", in_turn(buckets), call)


def lmdb_transaction(folder: Path) -> Contender:
    """One record read and written, in a file opened as shared:// opens its own."""
    env = lmdb.open(
        str(folder),
        map_size=32 << 20,
        writemap=True,
        sync=False,
        metasync=False,
        meminit=False,
        readahead=False,
    )

    def call(key: bytes) -> None:
        with env.begin(write=True) as txn:
            txn.get(key)
            txn.put(key, RECORD)

    return Contender("floor: LMDB transaction", in_turn([b"%012d" % n for n in range(100)]), call)


def evalsha(client: redis.Redis, name: str, namespace: str, limits: str) -> Contender:
    """The same script with as many keys, called by redis-py."""
    sha = client.script_load(SCRIPT)
    calls = []
    for of_one in charges(namespace, limits):
        keys = [key(charge) for charge in of_one]
        calls.append((sha, len(keys), *keys, *map(argument, of_one)))
    return Contender(name, in_turn(calls), lambda call: client.evalsha(*call))


def key(charge: Charge) -> str:
    return f"{charge.bucket}:{charge.limit.tag}"


def argument(charge: Charge) -> bytes:
    """What take.lua is told of a charge."""
    limit = charge.limit
    lifetime_ms = STRATEGIES[limit.strategy].lifetime_ms(limit)
    numbers = (charge.cost, limit.quota, limit.window_ms, limit.burst, lifetime_ms)
    return pack(">B5d", charge.enforce, *numbers) + limit.strategy.encode() + b"\0"


def fill_windows(client: redis.Redis, namespace: str, limits: str) -> None:
    """Give each client sliding windows in which every grain has a hit, as take.lua keeps them."""
    for of_one in charges(namespace, limits):
        for charge in of_one:
            entries = list(_entries(charge.limit.window_ms))
            state = pack(">d", len(entries)) + b"".join(pack(">dd", at, 1) for at in entries)
            client.set(key(charge), state, px=charge.limit.window_ms)


def _entries(window_ms: int) -> Iterator[int]:
    now_ms, grain_ms = time_ns() // 1_000_000, -(-window_ms // 60)
    return (now_ms - number * grain_ms for number in range(59, -1, -1))
