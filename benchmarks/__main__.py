"""What a request costs, ours beside Flask-Limiter: python -m benchmarks [ROUNDS]

Two limits a request and headers on. All contenders take turns, round after round, so that what else
the machine does falls on all alike. An admitted request costs its time less that of the same
application bare in the same round; a refused one its time. Redis is measured where redis-server is
installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import redis
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from wsgi_throttle import Throttle

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

ROUNDS = 25
REQUESTS = 400
CLIENTS = 100

AMPLE = "100000000 per minute; 1000000000 per hour"
SPENT = "1 per hour; 2 per day"


class Contender(NamedTuple):
    name: str
    app: Application
    bare: Application
    """What it is measured against."""


def null(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def flask() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "ok", endpoint="home")
    return app


def flask_limiter(storage: str, limits: str) -> Application:
    app = flask()
    Limiter(
        get_remote_address,
        app=app,
        default_limits=[limits],
        storage_uri=storage,
        strategy="moving-window",
        headers_enabled=True,
    )
    return app.wsgi_app


def ours(app: Application, storage: str, limits: str) -> Application:
    return Throttle(app, {"storage": storage, "default_limits": limits, "namespace": "bench"})


def per_request_us(app: Application, status: str) -> float:
    """A request's time, in microseconds. The environ is made anew, as a server does."""

    def start_response(given: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        assert given.startswith(status), given
        return sink

    template = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": None,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    addresses = [f"192.0.2.{number}" for number in range(CLIENTS)]
    environs = [
        {**template, "REMOTE_ADDR": addresses[number % CLIENTS]} for number in range(REQUESTS)
    ]
    started = time.perf_counter_ns()
    for environ in environs:
        body = app(environ, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return (time.perf_counter_ns() - started) / REQUESTS / 1000


def sink(data: bytes) -> None:
    raise AssertionError("nobody here uses write()")


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    """The URI of a server that ends with the block, or None where there is none."""
    program = shutil.which("redis-server")
    if not program:
        yield None
        return
    socket = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        redis.Redis(unix_socket_path=str(socket)).ping()
        yield str(socket)
    finally:
        process.terminate()
        process.wait()


def contenders(limits: str, folder: Path, redis_socket: str | None) -> Iterator[Contender]:
    bare = flask().wsgi_app
    counters = folder / f"shared-{len(limits)}"
    counters.mkdir(mode=0o700)
    storages = {"memory": "memory://", "shared": f"shared://{counters}"}
    if redis_socket:
        storages["redis"] = f"unix://{redis_socket}"
    for name, uri in storages.items():
        yield Contender(f"wsgi_throttle, {name}, null application", ours(null, uri, limits), null)
        yield Contender(f"wsgi_throttle, {name}, Flask", ours(flask().wsgi_app, uri, limits), bare)
    theirs = {"memory": "memory://"}
    if redis_socket:
        theirs["redis"] = f"redis+unix://{redis_socket}"
    for name, uri in theirs.items():
        yield Contender(f"Flask-Limiter, {name}, Flask", flask_limiter(uri, limits), bare)


def compare(title: str, status: str, found: list[Contender], rounds: int) -> None:
    """Print a line for each contender: its cost, the middle half of the rounds, and how many times
    that of ours on the same storage it is."""
    costs: dict[str, list[float]] = {contender.name: [] for contender in found}
    for contender in found:  # a round to warm up, and to spend what is to be spent
        per_request_us(contender.app, "")
    for _ in range(rounds):
        for contender in found:
            bare = per_request_us(contender.bare, "200") if status == "200" else 0
            costs[contender.name].append(per_request_us(contender.app, status) - bare)
    print(f"\n{title}\n{'':48}{'us a request':>14}{'middle half':>18}{'ratio':>8}")
    for name, values in costs.items():
        low, _, high = quantiles(values, n=4)
        own = costs.get(name.replace("Flask-Limiter", "wsgi_throttle"), values)
        ratio = median(value / base for value, base in zip(values, own, strict=True))
        print(f"{name:48}{median(values):14.1f}{f'{low:.1f} to {high:.1f}':>18}{ratio:8.1f}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        redis_socket = stack.enter_context(redis_server(folder))
        if not redis_socket:
            print("Redis is left out: there is no redis-server here")
        admitted = list(contenders(AMPLE, folder, redis_socket))
        compare("Admitted", "200", admitted, rounds)
        refused = list(contenders(SPENT, folder, redis_socket))
        compare("Refused", "429", refused, rounds)


if __name__ == "__main__":
    main()
