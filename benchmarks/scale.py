"""How cost and memory grow with rules, clients and networks, and how long a start takes."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from wsgi_throttle.decision import Term, Terms
from wsgi_throttle.identity import Networks
from wsgi_throttle.limits import parse
from wsgi_throttle.storage import Storage, open_storage

from .apps import Application, Environ, address, caller, clients, null, ours, requests
from .backends import Backends
from .timing import Contender, Effort, Samples, Spread

SIBLINGS = 64
"""So many patterns of one folder have a variable inside a segment; more are not allowed."""

AMPLE = "100000 per hour; 1000000 per day"

SHARED_BYTES = 32 << 20
ROOM = 0.8
"""How much of the file is filled; of a fuller file clients would be forgotten."""
MOST_IN_MEMORY = 87_000
"""Of the 100,000 clients of memory://, an eighth is reserved for those over their limit."""
FEW, MANY = 1000, 1_000_000
"""The number of clients that larger numbers are compared with, and one that is larger than a
storage holds by default."""


class Growth(NamedTuple):
    """How many times as much a request costs with ``many`` as it costs with few."""

    many: int
    ratio: Spread


class Scale(NamedTuple):
    rules: Growth
    """For a table of many rules, of which ten get all requests."""
    rules_in_use: dict[str, Growth]
    """By storage: many rules that are used equally, compared with ten rules that have as many
    counters together."""
    clients: dict[str, Growth]
    """By storage."""
    bytes_a_client: dict[tuple[str, str], tuple[float, float]]
    """By storage and strategy: after one hit, and after five hits, of a limit of 5 per minute."""
    import_s: list[float]
    build_s: list[float]


def measure(backends: Backends, effort: Effort) -> Scale:
    quick = effort.quick
    rules = _rules([10, 1000] if quick else [10, 100, 1000, 10_000], effort)
    in_use = {name: _rules_in_use(backends, name, effort) for name in ("memory", "shared")}
    grown = _clients(backends, effort)
    taken = _bytes_a_client(backends, 1000 if quick else 10_000)
    _networks(effort)
    return Scale(rules, in_use, grown, taken, _import_s(), _build_s())


# --- rules ----------------------------------------------------------------------------------------


def rule_list(number: int) -> list[dict[str, Any]]:
    """So many rules. Every other one has a variable, each in a pattern of its own kind."""
    return [{"path": path(index, "<name>"), "limits": AMPLE} for index in range(number)]


def path(index: int, variable: str) -> str:
    if index % 2:
        return f"/pages/{index}/view"
    return f"/folder-{index // 2 // SIBLINGS}/item-{index}-{variable}"


def _rules(sizes: list[int], effort: Effort) -> Growth:
    """Measure tables of these sizes: once with ten rules getting all requests, as on a real site,
    and once with requests for all rules equally.

    In the second case fewer rules get more clients, so that the number of counters stays the same:
    what many counters cost is measured elsewhere. Every request has a new name in its path, so that
    no cache has it.
    """
    print(f"\n{'Rules, memory, us a request':36}{'ten of them used':>20}{'all alike used':>20}")
    found = [Contender("null", requests(clients()), caller(null))]
    for size in sizes:
        app = ours(null, "memory://", "scale", default_limits=None, rules=rule_list(size))
        ten = [index * size // 10 // 2 * 2 + index % 2 for index in range(10)]
        number = sizes[-1] // size
        found.append(Contender(f"{size} ten", _visits(ten, 1), caller(app), "null"))
        found.append(Contender(f"{size} all", _visits(range(size), number), caller(app), "null"))
        for index in range(size):
            for client in range(number):
                caller(app)(_visit(index, client))
    samples = Samples(found, effort)
    for size in sizes:
        costs = [samples.cost_us(f"{size} {name}").median for name in ("ten", "all")]
        print(f"  {size:<34,}{costs[0]:20.2f}{costs[1]:20.2f}")
    few, many = sizes[0], sizes[-1]
    return Growth(many, samples.ratio(f"{many} ten", f"{few} ten"))


RULES_IN_USE = (10, 3000)


def _rules_in_use(backends: Backends, storage: str, effort: Effort) -> Growth:
    """Compare few rules with many, all used equally. Each rule has one path. Fewer rules get more
    clients, so that the number of counters stays the same."""
    print(f"\n{f'Rules in use, {storage}':36}{'us a request':>14}")
    few, many = RULES_IN_USE
    found = [Contender("null", requests(clients()), caller(null))]
    apps = []
    for size in RULES_IN_USE:
        rules = [{"path": f"/in-use/{index}", "limits": AMPLE} for index in range(size)]
        uri = f"shared://{backends.shared(f'rules-{size}')}" if storage == "shared" else "memory://"
        app = ours(null, uri, f"rules-{size}", default_limits=None, rules=rules)
        apps.append(app)
        number = many // size
        _visit_all(app, size, number)
        found.append(Contender(str(size), _visits_in_use(size, number), caller(app), "null"))
    samples = Samples(found, effort)
    for size in RULES_IN_USE:
        print(f"  {size:<34,}{samples.cost_us(str(size)).median:14.2f}")
    for app in apps:
        app.close()
    return Growth(many, samples.ratio(str(many), str(few)))


def _visit_all(app: Application, rules: int, number: int) -> None:
    for index in range(rules):
        for client in range(number):
            caller(app)(_visit_in_use(index, client))


def _visits_in_use(rules: int, number: int) -> Callable[[int], list[Environ]]:
    choose = random.Random(0).randrange
    return lambda count: [_visit_in_use(choose(rules), choose(number)) for _ in range(count)]


def _visit_in_use(index: int, client: int) -> Environ:
    (environ,) = _make_one(1)
    environ["PATH_INFO"] = f"/in-use/{index}"
    environ["REMOTE_ADDR"] = address(client)
    return environ


_names = count()


def _visits(indexes: Sequence[int], number: int) -> Callable[[int], list[Environ]]:
    """A function that makes requests for random ones of these rules.

    :param number: how many clients they come from.
    """
    choose, of = random.Random(0).choice, random.Random(1).randrange
    return lambda count: [_visit(choose(indexes), of(number)) for _ in range(count)]


def _visit(index: int, client: int) -> Environ:
    (environ,) = _make_one(1)
    environ["PATH_INFO"] = path(index, f"n{next(_names)}")
    environ["REMOTE_ADDR"] = address(client)
    return environ


_make_one = requests(clients(1))


# --- clients --------------------------------------------------------------------------------------


def _clients(backends: Backends, effort: Effort) -> dict[str, Growth]:
    """Fill a storage with each number of clients, and measure requests of random ones of them."""
    print(f"\n{'Clients, 2 limits':24}{'clients':>12}{'us a request':>14}{'middle half':>18}")
    found = {}
    for storage in backends.ours():
        most = _most(backends, storage, quick=effort.quick)
        sizes = [10, FEW, 10_000, most]
        if storage != "Redis" and not effort.quick:
            sizes.append(MANY)
        apps = {
            size: ours(
                null, _roomy(backends, storage, size), f"clients-{size}", default_limits=AMPLE
            )
            for size in sizes
        }
        contenders = [Contender("null", requests(clients()), caller(null))]
        for size, app in apps.items():
            _fill(app, range(size))
            contenders.append(Contender(str(size), _random_clients(size), caller(app), "null"))
        samples = Samples(contenders, effort)
        for size in apps:
            cost = samples.cost_us(str(size))
            spread = f"{cost.low:.2f} to {cost.high:.2f}"
            print(f"  {storage:22}{size:12,}{cost.median:14.2f}{spread:>18}")
        found[storage] = Growth(most, samples.ratio(str(most), str(FEW)))
        for app in apps.values():
            app.close()
    return found


def _most(backends: Backends, storage: str, *, quick: bool) -> int:
    """How many clients a storage holds with its default settings."""
    if quick:
        return 20_000
    return {"memory": MOST_IN_MEMORY, "Redis": 100_000}.get(storage) or _most_in_shared(backends)


def _roomy(backends: Backends, storage: str, size: int) -> str:
    """The URI of a storage, with more room than the default if it is to keep MANY clients."""
    if storage == "memory" and size == MANY:
        return f"memory://?max_clients={2 * MANY}"
    return _shared(backends, size) if storage == "shared" else backends.ours()[storage]


def _most_in_shared(backends: Backends) -> int:
    """How many clients fit before the first is forgotten, estimated from the room that some
    take."""
    some = 20_000
    app = ours(null, _shared(backends, 0), "clients-0")
    _fill(app, range(some))
    app.close()
    return int(some * ROOM * SHARED_BYTES / used_bytes(backends.shared("clients-0")))


def _shared(backends: Backends, size: int) -> str:
    megabytes = (SHARED_BYTES >> 20) * (4 if size == MANY else 1)
    return f"shared://{backends.shared(f'clients-{size}')}?size={megabytes}mb"


def _fill(app: Application, numbers: range) -> None:
    make, call = requests(clients(1)), caller(app)
    for number in numbers:
        (environ,) = make(1)
        environ["REMOTE_ADDR"] = address(number)
        call(environ)


def _random_clients(most: int) -> Callable[[int], list[Environ]]:
    make, choose = requests(clients(1)), random.Random(0).randrange

    def some(number: int) -> list[Environ]:
        environs = make(number)
        for environ in environs:
            environ["REMOTE_ADDR"] = address(choose(most))
        return environs

    return some


# --- memory ---------------------------------------------------------------------------------------

ANOTHER = 1 << 20
"""The number of a client that is used only to open the storage."""
STRATEGIES = ("sliding-window", "fixed-window", "token-bucket")


def _bytes_a_client(backends: Backends, number: int) -> dict[tuple[str, str], tuple[float, float]]:
    print(f"\n{'Bytes a client, 5 per minute':36}{'after 1 hit':>14}{'after 5 hits':>14}")
    found = {}
    for strategy in STRATEGIES:
        for storage, measured in (
            ("memory", _in_memory),
            ("shared", _in_shared),
            ("Redis", _in_redis),
        ):
            if storage in backends.ours():
                after_one, after_five = measured(backends, strategy, number)
                found[storage, strategy] = after_one, after_five
                print(f"  {f'{storage}, {strategy}':34}{after_one:14.0f}{after_five:14.0f}")
    return found


def _hit(storage: Storage, strategy: str, numbers: Iterable[int], times: int) -> None:
    """Let each of these clients send so many requests."""
    (limit,) = parse("5 per minute", strategy=strategy)
    take = storage.prepare(Terms([Term(0, limit, 1, True, "login")]))
    for client in numbers:
        buckets = (f"throttle:1:login:ip:{{ip:{address(client)}}}",)
        for _ in range(times):
            assert take(buckets).granted


def _in_memory(backends: Backends, strategy: str, number: int) -> tuple[float, float]:
    storage = open_storage("memory://")
    _hit(storage, strategy, [ANOTHER], 1)
    tracemalloc.start()
    try:
        return _twice(storage, strategy, number, lambda: tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()


def _in_shared(backends: Backends, strategy: str, number: int) -> tuple[float, float]:
    folder = backends.shared(f"bytes-{strategy}")
    storage = open_storage(f"shared://{folder}")
    _hit(storage, strategy, [ANOTHER], 1)
    return _twice(storage, strategy, number, lambda: used_bytes(folder))


def _in_redis(backends: Backends, strategy: str, number: int) -> tuple[float, float]:
    storage = open_storage(backends.ours()["Redis"], timeout_s=2)
    _hit(storage, strategy, [ANOTHER], 1)
    client = backends.redis()
    try:
        return _twice(storage, strategy, number, lambda: client.info("memory")["used_memory"])
    finally:
        client.flushdb()


def _twice(
    storage: Storage, strategy: str, number: int, used: Callable[[], int]
) -> tuple[float, float]:
    empty = used()
    _hit(storage, strategy, range(number), 1)
    after_one = used()
    _hit(storage, strategy, range(number), 4)
    after_five = used()
    storage.close()
    return (after_one - empty) / number, (after_five - empty) / number


def used_bytes(folder: Path) -> int:
    """The size of the pages in use of the LMDB file in that folder. Another process looks, since no
    process may open such a file twice."""
    program = """
import lmdb, sys
found = lmdb.open(sys.argv[1], readonly=True, lock=False).stat()
pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
print(pages * found["psize"])
"""
    return int(_python(program, str(folder)))


# --- networks and starts --------------------------------------------------------------------------


def _networks(effort: Effort) -> None:
    print(f"\n{'Networks in an allow list':36}{'us a look-up':>14}")
    addresses = [ip_address(address(number)) for number in range(1000)]
    found = []
    for size in (10, 10_000):
        networks = Networks(f"20.{n >> 8}.{n & 255}.0/25" for n in range(size))
        found.append(Contender(f"{size:,}", lambda number: addresses[:number], networks.contains))
    samples = Samples(found, effort)
    for contender in found:
        print(f"  {contender.name:34}{samples.cost_us(contender.name).median:14.2f}")


def _import_s() -> list[float]:
    program = """
from time import perf_counter
started = perf_counter()
import wsgi_throttle
print(perf_counter() - started)
"""
    return [float(_python(program)) for _ in range(7)]


def _build_s() -> list[float]:
    times = []
    for _ in range(3):
        started = perf_counter()
        ours(null, "memory://", "build", rules=rule_list(1000))
        times.append(perf_counter() - started)
    return times


def _python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
