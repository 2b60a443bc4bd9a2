"""What one request costs above the application, of wsgi_throttle, Flask-Limiter and the floors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from wsgi_throttle import Throttle
from wsgi_throttle.clock import MONOTONIC, MS

from . import floor
from .apps import LIMITS, SPENT, caller, clients, flask, flask_limiter, null, ours, requests
from .backends import Backends
from .timing import Contender, Effort, Samples

WINDOWS_MS = (86_400_000, 3_600_000)
"""The windows of LIMITS[2], the longer one first."""

PROXIES: dict[str, Any] = {"client_ip": {"trusted_proxies": ["192.0.2.0/24"]}}
SESSION: dict[str, Any] = {
    "session": {"kind": "flask", "secret_key": "not a secret"},
    "key": "session-user",
}


class Row(NamedTuple):
    table: str
    contender: Contender
    beside: str = ""
    """Another contender: the table shows how many times its cost this one costs."""


def rows(backends: Backends) -> Iterator[Row]:
    yield Row("", Contender("null", requests(clients()), caller(null)))
    yield Row("", Contender("flask", requests(clients()), caller(flask().wsgi_app)))
    yield from _admitted(backends)
    yield from _many_limits(backends)
    yield from _refused(backends)
    yield from _unlimited(backends)
    yield from _strategies(backends)
    yield from _keys()


def _ours(
    name: str,
    uri: str,
    varying: Any = None,
    *,
    on_flask: bool = False,
    status: str = "200",
    **config: Any,
) -> Contender:
    app = ours(flask().wsgi_app if on_flask else null, uri, _namespace(name), **config)
    bare = ("flask" if on_flask else "null") if status == "200" else ""
    return _contender(name, app, varying, status, bare)


def _theirs(
    name: str, uri: str, varying: Any = None, *, status: str = "200", **settings: Any
) -> Contender:
    app = flask_limiter(uri, _namespace(name), **settings)
    return _contender(name, app, varying, status, "flask" if status == "200" else "")


def _contender(name: str, app: Any, varying: Any, status: str, bare: str) -> Contender:
    make = requests(varying or clients())
    for environ in make(3 if status == "429" else 0):  # uses up the limit
        caller(app, "")(environ)
    return Contender(name, make, caller(app, status), bare)


def _namespace(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _admitted(backends: Backends) -> Iterator[Row]:
    table = "Admitted, 2 limits, headers on"
    for storage, uri in backends.ours().items():
        first = f"ours, {storage}, null application"
        yield Row(table, _ours(first, uri))
        yield Row(table, _ours(f"ours, {storage}, Flask", uri, on_flask=True), first)
    for storage, uri in backends.theirs().items():
        yield Row(
            table, _theirs(f"Flask-Limiter, {storage}, Flask", uri), f"ours, {storage}, Flask"
        )
    for on, app in (("null application", null), ("Flask", flask().wsgi_app)):
        bare = "flask" if on == "Flask" else "null"
        name = f"floor: one function, {on}"
        contender = Contender(name, requests(clients()), caller(floor.one_function(app)), bare)
        yield Row(table, contender, f"ours, memory, {on}")
    yield Row(table, floor.dict_update(), "ours, memory, null application")
    yield Row(
        table, floor.lmdb_transaction(backends.shared("floor")), "ours, shared, null application"
    )
    for storage in ("memory", "shared"):
        name = f"ours, {storage}, two full windows"
        app = ours(null, backends.ours()[storage], _namespace(name))
        _fill_windows(app)
        contender = _contender(name, app, None, "200", "null")
        yield Row(table, contender, f"ours, {storage}, null application")
    if backends.redis_socket:
        client = backends.redis()
        name = "floor: redis-py evalsha"
        contender = floor.evalsha(client, name, "floor")
        yield Row(table, contender, "ours, Redis, null application")
        full = "ours, Redis, two full windows"
        floor.fill_windows(client, _namespace(full))
        floor.fill_windows(client, "floor-full")
        yield Row(table, _ours(full, backends.ours()["Redis"]), name)
        name = "floor: redis-py evalsha, two full windows"
        yield Row(table, floor.evalsha(client, name, "floor-full"), full)


def _fill_windows(app: Throttle) -> None:
    """Let each client send a request in every grain of both windows. For this the storage gets a
    clock that is set to each grain in turn, and that goes on from the last one."""
    clock = _Clock()
    storage: Any = app.engine._breaker._storage
    storage._clock = clock  # before the first request, which prepares it with its clock
    end_ms = MONOTONIC() // MS + WINDOWS_MS[0]
    grains = {
        at_ms
        for window_ms in WINDOWS_MS
        for at_ms in range(end_ms - window_ms, end_ms, window_ms // 60)
    }
    for at_ms in sorted(grains):
        clock.stopped_at_ns = at_ms * MS
        for environ in requests(clients())(len(clients())):
            caller(app)(environ)
    clock.stopped_at_ns = None


class _Clock:
    """Stands still at ``stopped_at_ns``. If that is None, it goes a window ahead of the monotonic
    clock, so that it never steps back."""

    stopped_at_ns: int | None = None

    def __call__(self) -> int:
        if self.stopped_at_ns is not None:
            return self.stopped_at_ns
        return MONOTONIC() + WINDOWS_MS[0] * MS


def _many_limits(backends: Backends) -> Iterator[Row]:
    table = "1, 2 and 4 limits"
    for storage, uri in backends.ours().items():
        for count, limits in LIMITS.items():
            name = f"ours, {storage}, limits: {count}"
            yield Row(table, _ours(name, uri, default_limits=limits), f"ours, {storage}, limits: 1")
    for storage, uri in backends.theirs().items():
        for count, limits in LIMITS.items():
            name = f"Flask-Limiter, {storage}, limits: {count}"
            yield Row(
                table,
                _theirs(name, uri, limits=limits),
                f"Flask-Limiter, {storage}, limits: 1",
            )


def _refused(backends: Backends) -> Iterator[Row]:
    """The cost of the whole request, since it never reaches the application. There is one client,
    whose refusal is remembered."""
    table = "Refused, 2 limits, headers on"
    for storage, uri in backends.ours().items():
        name = f"ours, {storage}, refused"
        yield Row(table, _ours(name, uri, clients(1), status="429", default_limits=SPENT))
    for storage, uri in backends.theirs().items():
        name = f"Flask-Limiter, {storage}, refused"
        yield Row(
            table,
            _theirs(name, uri, clients(1), status="429", limits=SPENT),
            f"ours, {storage}, refused",
        )


def _unlimited(backends: Backends) -> Iterator[Row]:
    table = "Exempt and unlimited paths"
    exempt = clients(PATH_INFO="/exempt")
    rules = [{"path": "/exempt", "exempt": True}]
    uri = backends.ours()["shared"]
    yield Row(table, _ours("ours, exempt", uri, exempt, rules=rules))
    yield Row(table, _ours("ours, unlimited", uri, rules=rules, default_limits=None))
    yield Row(table, _theirs("Flask-Limiter, exempt", "memory://", exempt), "ours, exempt")


def _strategies(backends: Backends) -> Iterator[Row]:
    table = "Each strategy, 2 limits"
    for storage, uri in backends.ours().items():
        first = f"ours, {storage}, sliding-window"
        for strategy in ("sliding-window", "fixed-window", "token-bucket"):
            yield Row(table, _ours(f"ours, {storage}, {strategy}", uri, strategy=strategy), first)
    for storage, uri in backends.theirs().items():
        for strategy, same in (
            ("moving-window", "sliding-window"),
            ("sliding-window-counter", "sliding-window"),
            ("fixed-window", "fixed-window"),
        ):
            name = f"Flask-Limiter, {storage}, {strategy}"
            yield Row(table, _theirs(name, uri, strategy=strategy), f"ours, {storage}, {same}")


def _keys() -> Iterator[Row]:
    table = "Each key, 2 limits, memory"
    proxied = [
        {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": f"{one['REMOTE_ADDR']}, 192.0.2.2"}
        for one in clients()
    ]
    app = Flask(__name__)
    app.secret_key = SESSION["session"]["secret_key"]
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    users = [
        {**one, "HTTP_COOKIE": f"session={serializer.dumps({'user_id': number})}"}
        for number, one in enumerate(clients())
    ]
    first = "ours, ip"
    yield Row(table, _ours(first, "memory://"))
    yield Row(table, _ours("ours, proxied ip", "memory://", proxied, **PROXIES), first)
    yield Row(table, _ours("ours, session user", "memory://", users, **SESSION), first)


def measure(backends: Backends, effort: Effort) -> Samples:
    """Measure all contenders in one run, and print the tables."""
    found = list(rows(backends))
    samples = Samples([row.contender for row in found], effort)
    title = ""
    for row in found:
        if row.table and row.table != title:
            title = row.table
            print(f"\n{title:46}{'us a request':>14}{'middle half':>18}{'ratio':>9}")
        if row.table:
            _print(samples, row)
    return samples


def _print(samples: Samples, row: Row) -> None:
    name = row.contender.name
    cost = samples.cost_us(name)
    line = f"  {name:44}{cost.median:14.2f}{f'{cost.low:.2f} to {cost.high:.2f}':>18}"
    if row.beside:
        line += f"{samples.ratio(name, row.beside).median:9.2f} x {row.beside}"
    print(line)
