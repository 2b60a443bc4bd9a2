"""What is to be reached, and what was: ratios bind, as microseconds are another machine's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .requests import Samples
from .scale import Scale
from .server import PAGES
from .timing import Spread


class Target(NamedTuple):
    what: str
    unit: str
    measured: Spread
    at_most: float
    at_least: float = 0.0

    @property
    def met(self) -> bool:
        return self.at_least <= self.measured.median <= self.at_most


def targets(
    samples: Samples,
    scale: Scale,
    parts: Mapping[tuple[str, str], Spread],
    *,
    with_redis: bool,
) -> Iterator[Target]:
    yield from _of_requests(samples)
    if with_redis:
        yield from _of_redis(samples)
    yield from _of_scale(scale)
    for page in PAGES:
        share = parts[page, "wsgi_throttle, shared"]
        yield Target(f"gunicorn, shared, {page}: of no limiter", "x", share, 99, 0.95)


def _of_requests(samples: Samples) -> Iterator[Target]:
    theirs = "Flask-Limiter, memory, Flask"
    for storage, part in (("memory", 20), ("shared", 12)):
        ratio = samples.ratio(f"ours, {storage}, Flask", theirs)
        yield Target(f"admitted, {storage}: of Flask-Limiter, memory", "x", ratio, 1 / part)
    for storage, most_us in (("memory", 6), ("shared", 10)):
        cost = samples.cost_us(f"ours, {storage}, null application")
        yield Target(f"admitted, {storage} (for orientation)", "us", cost, most_us)
    ratio = samples.ratio("ours, memory, refused", "Flask-Limiter, memory, refused")
    yield Target("refused, memory: of Flask-Limiter, memory", "x", ratio, 1 / 50)
    for storage in ("memory", "shared"):
        yield Target(f"refused, {storage}", "us", samples.cost_us(f"ours, {storage}, refused"), 4)
        ratio = samples.ratio(f"ours, {storage}, limits: 4", f"ours, {storage}, limits: 1")
        yield Target(f"4 limits, {storage}: of 1 limit", "x", ratio, 2)
    for path in ("exempt", "unlimited"):
        yield Target(f"{path} path", "us", samples.cost_us(f"ours, {path}"), 1)


def _of_redis(samples: Samples) -> Iterator[Target]:
    evalsha = "floor: redis-py evalsha"
    ours = "ours, Redis, null application"
    full = "ours, Redis, two full windows"
    yield Target("admitted, Redis: of evalsha", "x", samples.ratio(ours, evalsha), 1)
    yield Target("two full windows, Redis: of evalsha", "x", samples.ratio(full, evalsha), 1.1)
    ratio = samples.ratio("ours, Redis, Flask", "Flask-Limiter, Redis, Flask")
    yield Target("admitted, Redis: of Flask-Limiter, Redis", "x", ratio, 1 / 4)
    yield Target("refused, Redis", "us", samples.cost_us("ours, Redis, refused"), 4)
    ratio = samples.ratio("ours, Redis, refused", "Flask-Limiter, Redis, refused")
    yield Target("refused, Redis: of Flask-Limiter, Redis", "x", ratio, 1 / 150)
    ratio = samples.ratio("ours, Redis, limits: 4", "ours, Redis, limits: 1")
    yield Target("4 limits, Redis: of 1 limit", "x", ratio, 2)


def _of_scale(scale: Scale) -> Iterator[Target]:
    yield Target(f"{scale.rules.many:,} rules: of 10", "x", scale.rules.ratio, 1.2)
    for storage, growth in scale.clients.items():
        yield Target(f"{growth.many:,} clients, {storage}: of 1,000", "x", growth.ratio, 2)
    taken = scale.bytes_a_client["shared", "sliding-window"][1]
    yield Target("bytes a client, shared, 5 of 5 per minute", "", Spread(taken, taken, taken), 128)
    yield Target("import", "s", Spread.of(scale.import_s), 0.15)
    yield Target("a table of 1,000 rules", "s", Spread.of(scale.build_s), 0.5)


def show(found: list[Target]) -> None:
    print(f"\n{'Targets':50}{'target':>14}{'measured':>12}{'middle half':>20}")
    for target in found:
        most = f"<= {target.at_most:.4g} {target.unit}"
        if target.at_least:
            most = f">= {target.at_least:.4g} {target.unit}"
        low, middle, high = target.measured
        half = f"{low:.4g} to {high:.4g}"
        verdict = "ok" if target.met else "MISSED"
        print(f"  {target.what:48}{most:>14}{middle:12.4g}{half:>20}  {verdict}")
    print(f"  {sum(target.met for target in found)} of {len(found)} are met")
