"""The targets, and whether they were met. Most are ratios, since microseconds differ between
machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from .floor import FIVE_HEADERS
from .scale import Scale
from .timing import Samples, Spread


class Target(NamedTuple):
    what: str
    unit: str
    measured: Spread
    at_most: float = inf
    at_least: float = 0.0

    @property
    def met(self) -> bool:
        return self.at_least <= self.measured.median <= self.at_most

    @property
    def bound(self) -> str:
        if self.at_least:
            return f">= {self.at_least:.4g} {self.unit}"
        return f"<= {self.at_most:.4g} {self.unit}"


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
    part = parts["a page", "wsgi_throttle, shared"]
    yield Target("gunicorn, shared, a page: of no limiter", "x", part, at_least=0.95)


def orientation(
    samples: Samples, parts: Mapping[tuple[str, str], Spread]
) -> Iterator[tuple[str, Spread, Spread]]:
    """What has no target, because its lower bound leaves no room for one.

    Inside a real application everything that a limiter does finds the processor's caches cold. If
    an application answers with one word, sending our headers alone costs the server a good part of
    its requests.

    :return: of each its name, what was measured, and the lower bound.
    """
    theirs = "Flask-Limiter, memory, Flask"
    floor = samples.ratio("floor: one function, Flask", theirs)
    for storage in ("memory", "shared"):
        ratio = samples.ratio(f"ours, {storage}, Flask", theirs)
        yield f"admitted in Flask, {storage}: of Flask-Limiter, memory", ratio, floor
    shared, least = (parts["a word", name] for name in ("wsgi_throttle, shared", FIVE_HEADERS))
    yield "gunicorn, shared, a word: of no limiter", shared, least


def _of_requests(samples: Samples) -> Iterator[Target]:
    theirs = "Flask-Limiter, memory, Flask"
    for storage, part, most_us in (("memory", 20, 6), ("shared", 12, 10)):
        ours = f"ours, {storage}, null application"
        ratio = samples.ratio(ours, theirs)
        yield Target(f"admitted, {storage}: of Flask-Limiter, memory", "x", ratio, 1 / part)
        yield Target(f"admitted, {storage}", "us", samples.cost_us(ours), most_us)
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
    growth = scale.rules_in_use["shared"]
    yield Target(f"{growth.many:,} rules in use, shared: of 10", "x", growth.ratio, 1.3)
    for storage, growth in scale.clients.items():
        yield Target(f"{growth.many:,} clients, {storage}: of 1,000", "x", growth.ratio, 2)
    taken = scale.bytes_a_client["shared", "sliding-window"][1]
    yield Target("bytes a client, shared, 5 of 5 per minute", "", Spread(taken, taken, taken), 128)
    yield Target("import", "s", Spread.of(scale.import_s), 0.15)
    yield Target("a table of 1,000 rules", "s", Spread.of(scale.build_s), 0.5)


def show(found: Sequence[Target], others: Iterable[tuple[str, Spread, Spread]]) -> None:
    print(f"\n{'Targets':50}{'target':>14}{'measured':>12}{'middle half':>22}")
    for target in found:
        verdict = "ok" if target.met else "MISSED"
        print(f"  {target.what:48}{target.bound:>14}{_shown(target.measured)}  {verdict}")
    print(f"  {sum(target.met for target in found)} of {len(found)} are met")
    print(f"\n{'Without a target':50}{'floor':>14}{'measured':>12}{'middle half':>22}")
    for what, measured, floor in others:
        print(f"  {what:48}{floor.median:12.4g} x{_shown(measured)}")


def _shown(measured: Spread) -> str:
    low, middle, high = measured
    return f"{middle:12.4g}{f'{low:.4g} to {high:.4g}':>22}"
