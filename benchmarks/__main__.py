"""Measure what a request costs, beside Flask-Limiter and the bare storages.

    python -m benchmarks [--quick]

All contenders take turns in one run. Redis is measured if redis-server or valkey-server is on PATH.
A whole run takes about seven minutes and draws results.svg anew. A quick one takes about a minute
and leaves results.svg as it is.
"""

from __future__ import annotations

import argparse
import os

from . import plot, requests, scale, server, targets
from .backends import backends
from .timing import FULL, QUICK


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, rules and clients")
    quick = parser.parse_args().quick
    effort = QUICK if quick else FULL
    print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}")
    with backends() as found:
        samples = requests.measure(found, effort)
        grown = scale.measure(found, effort)
        parts = server.measure(found, rounds=2 if quick else 11, seconds=1)
        with_redis = bool(found.redis_socket)
    reached = list(targets.targets(samples, grown, parts, with_redis=with_redis))
    targets.show(reached, targets.orientation(samples, parts))
    print(f"load average at the end {os.getloadavg()[0]:.1f}")
    if not quick and with_redis:
        plot.draw(samples, parts)
        print(f"drawn: {plot.FILE}")


if __name__ == "__main__":
    main()
