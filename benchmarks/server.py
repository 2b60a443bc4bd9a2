"""The whole system: requests a second, and how long they take, of gunicorn with 2 workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from statistics import median, quantiles
from time import perf_counter
from typing import NamedTuple

from support.servers import gunicorn

from . import floor
from .backends import Backends
from .timing import Spread

WORKERS = 2
CONNECTIONS = 8
UNLIMITED = "no limiter"


class Load(NamedTuple):
    requests_a_second: float
    p50_ms: float
    p99_ms: float


PAGES = {"a word": "/", "a page": "/page"}
"""The paths that are asked for: one word, the least that Flask can answer, and a table of 50
rows."""


def measure(backends: Backends, rounds: int, seconds: float) -> dict[tuple[str, str], Spread]:
    """Load each site in turn, round after round, and print a table for each page.

    :return: by page and site, the requests a second divided by those without a limiter.
    """
    load = _wrk if shutil.which("wrk") else _threads
    if load is _threads:
        print("\nThe load comes from Python, which is slow: wrk is a better one (apt install wrk)")
    loads: dict[tuple[str, str], list[Load]] = {}
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for name, env in _sites(backends):
            site = gunicorn("benchmarks.site:application", workers=WORKERS, env=env)
            ports[name] = stack.enter_context(site).host_and_port[1]
            _threads(ports[name], "/", 0.3)
        for _ in range(rounds):
            for page, path in PAGES.items():
                for name, port in ports.items():
                    loads.setdefault((page, name), []).append(load(port, path, seconds))
    parts = {}
    shown = ""
    for (page, name), found in loads.items():
        if page != shown:
            shown = page
            title = f"gunicorn, {WORKERS} workers, Flask, {page}"
            columns = f"{'requests/s':>12}{'part':>8}{'middle half':>16}{'p50 ms':>9}{'p99 ms':>9}"
            print(f"\n{title:38}{columns}")
        pairs = zip(found, loads[page, UNLIMITED], strict=True)
        part = Spread.of([one.requests_a_second / base.requests_a_second for one, base in pairs])
        rate, p50_ms, p99_ms = (median(column) for column in zip(*found, strict=True))
        half = f"{part.low:.3f} to {part.high:.3f}"
        print(f"  {name:36}{rate:12.0f}{part.median:8.3f}{half:>16}{p50_ms:9.2f}{p99_ms:9.2f}")
        parts[page, name] = part
    return parts


def _sites(backends: Backends) -> Iterator[tuple[str, dict[str, str]]]:
    yield UNLIMITED, {"BENCH_LIMITER": "", "BENCH_STORAGE": ""}
    folder = str(backends.shared("five-headers"))
    yield floor.FIVE_HEADERS, {"BENCH_LIMITER": floor.FIVE_HEADERS, "BENCH_STORAGE": folder}
    for limiter, storages in (
        ("wsgi_throttle", backends.ours()),
        ("Flask-Limiter", backends.theirs()),
    ):
        for storage, uri in storages.items():
            if (limiter, storage) != ("wsgi_throttle", "memory"):  # workers would count alone
                yield f"{limiter}, {storage}", {"BENCH_LIMITER": limiter, "BENCH_STORAGE": uri}


def _wrk(port: int, path: str, seconds: float) -> Load:
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    command = ["wrk", *options, f"http://127.0.0.1:{port}{path}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in text, text
    rate = re.search(r"Requests/sec: +([\d.]+)", text)
    times = [re.search(rf"{part}% +([\d.]+)(us|ms|s)\b", text) for part in (50, 99)]
    assert rate, text
    in_ms = {"us": 0.001, "ms": 1, "s": 1000}
    return Load(float(rate[1]), *(float(found[1]) * in_ms[found[2]] for found in times if found))


def _threads(port: int, path: str, seconds: float) -> Load:
    """The same load as wrk's, made by threads of this process."""
    times_ms: list[float] = []
    end = perf_counter() + seconds

    def run() -> None:
        while (started := perf_counter()) < end:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            connection.close()
            assert response.status == 200, response.status
            times_ms.append((perf_counter() - started) * 1000)

    _all_at_once(run)
    parts = quantiles(times_ms, n=100)
    return Load(len(times_ms) / seconds, parts[49], parts[98])


def _all_at_once(run: Callable[[], None]) -> None:
    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
