"""A site of 4 gunicorn workers under load. It has a rule for each value of `on_storage_error`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.load import RATE, THREADS, Answer, Load
from support.redis import Server as Redis
from support.redis import numbers_in
from support.servers import Server, gunicorn

WORKERS = 4
TIGHT = 20
MANY = 1_000_000
RULES = f"""
storage: "{{storage}}"
rules:
  - {{{{name: local, path: /local, limits: {MANY} per hour, on_storage_error: local}}}}
  - {{{{name: allow, path: /allow, limits: {MANY} per hour, on_storage_error: allow}}}}
  - {{{{name: deny, path: /deny, limits: {MANY} per hour, on_storage_error: deny}}}}
  - {{{{name: tight, path: /tight, limits: {TIGHT} per hour}}}}
"""
PATHS = ["/local", "/allow", "/deny", "/tight"]
ANSWERS = {"/local": {200}, "/allow": {200}, "/deny": {200, 503}, "/tight": {200, 429}}
ANSWERS["/edited"] = {200}
"""The statuses that a client of each path may see, whatever happens to the storage."""
HOUR_MS = 3_600_000

SLOWEST_S = 2.0
"""The longest that a request may take: two timeouts of 0.1 s, the queue that grows meanwhile, and a
margin for a busy machine."""


class Figures(NamedTuple):
    requests: int
    rate: int
    errors: int
    unavailable: int
    slowest_ms: int
    recovered_ms: int
    over: int
    """How many requests were admitted over a limit, of all clients together."""

    def __str__(self) -> str:
        return (
            f"{self.requests} requests at {self.rate}/s, {self.errors} errors, "
            f"{self.unavailable} times 503, slowest {self.slowest_ms} ms, "
            f"recovered after {self.recovered_ms} ms, {self.over} over the limit"
        )


class Site:
    def __init__(
        self, server: Server, folder: Path, redis: Redis | None, new_client: Callable[[], str]
    ) -> None:
        self.server = server
        self.folder = folder
        self.redis = redis
        self._new_client = new_client

    @property
    def failures(self) -> int:
        """How many outages the workers have noticed so far, all together."""
        return self.server.log.count(". Until it answers again")

    @property
    def recoveries(self) -> int:
        return self.server.log.count(" answers again, after ")

    @property
    def workers(self) -> list[int]:
        pid = self.server.process.pid
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    @property
    def ready(self) -> int:
        """How many workers have become ready so far."""
        return self.server.log.count("worker is ready")

    def load(
        self,
        paths: Sequence[str] = PATHS,
        *,
        clients: int = 3,
        rate: float = RATE,
        threads: int = THREADS,
    ) -> Load:
        """A load from clients that have sent nothing yet."""
        sources = [self._new_client() for _ in range(clients)]
        return Load(self.server, paths, sources, rate=rate, threads=threads)

    def wait_for_all_workers(self, load: Load) -> None:
        """Go on until every worker that has noticed an outage has noticed its end."""
        load.until(
            lambda: self.recoveries >= self.failures, f"the end of the outage\n{self.server.log}"
        )

    def saw(self, load: Load, *, fault_over_at: float | None = None) -> Figures:
        """Check all answers of the load, and sum them up.

        :param fault_over_at: when the fault ended, in seconds of the monotonic clock.
        :raises AssertionError: an answer that no client may ever get.
        """
        unavailable = [answer for answer in load.answers if answer.status == 503]
        last = max((answer.at + answer.seconds for answer in unavailable), default=0.0)
        figures = Figures(
            requests=len(load.answers),
            rate=round(load.rate),
            errors=len(load.errors),
            unavailable=len(unavailable),
            slowest_ms=round(load.slowest_s * 1000),
            recovered_ms=round(max(0.0, last - (fault_over_at or last)) * 1000),
            over=sum(max(0, n - TIGHT) for n in self.admitted(load).values()),
        )
        print(figures)
        for answer in load.answers:
            check(answer)
        assert load.slowest_s < SLOWEST_S
        return figures

    @staticmethod
    def admitted(load: Load) -> dict[str, int]:
        """For each client, how many of its requests to /tight were admitted."""
        found: dict[str, int] = {}
        for answer in load.answers:
            if answer.path == "/tight":
                found[answer.source] = found.get(answer.source, 0) + (answer.status == 200)
        return found

    def check_counters(self, load: Load) -> None:
        """Check that no counter in Redis is negative, counts a request twice, or lives for ever."""
        assert self.redis
        client = self.redis.client
        checked = 0
        for source in {answer.source for answer in load.answers}:
            for path in PATHS:
                sent = sum((a.path, a.source) == (path, source) for a in load.answers)
                for key in client.scan_iter(f"throttle:*={path[1:]}:ip:{{ip:{source}}}:*"):
                    *entries, total = numbers_in(client.get(key))
                    counts = entries[::2]
                    assert total == sum(counts), key
                    assert min(counts) > 0, key
                    assert total <= min(sent, TIGHT if path == "/tight" else MANY), key
                    assert 0 < client.pttl(key) <= HOUR_MS + 100, key
                    checked += 1
        assert checked


def check(answer: Answer) -> None:
    """Check that the status is one that its path may have, and that the headers fit it."""
    assert answer.status in ANSWERS[answer.path], answer
    if answer.status == 200:
        assert not answer.header("Retry-After"), answer
    else:
        assert int(answer.header("Retry-After")) >= 1, answer
        assert answer.header("Content-Type") == "application/problem+json", answer


def edit_rules(found: Site, *, edits: int) -> Figures:
    """Edit the rules under load, every other time to a broken file. Check that no request fails,
    and that each is judged by one set of rules, the old or the new."""
    rules = found.folder / "throttle.yaml"
    before = rules.read_text()

    def table(number: int) -> str:
        limits = f"{MANY + number} per hour; {2 * MANY + number} per day"
        return f"{before}  - {{name: t{number}, path: /edited, limits: {limits}}}\n"

    def policies(number: int) -> str:
        hour, day = MANY + number, 2 * MANY + number
        return f'"t{number}-1";q={hour};w=3600, "t{number}-2";q={day};w=86400'

    def edit_to(text: str, said: str, policies: str) -> None:
        times, answered = found.server.log.count(said), len(load.answers)
        rules.write_text(text)
        load.until(lambda: found.server.log.count(said) >= times + WORKERS, said)
        load.until(lambda: policies in policies_of(load.answers[answered:]), policies)

    load = found.load([*PATHS, "/edited"], clients=1)
    try:
        with load.running():
            for number in range(edits + 1):
                if number % 2:
                    broken = "rules: [{path: /edited, limi"
                    edit_to(broken, "the old rules stay in force", policies(number - 1))
                else:
                    edit_to(table(number), "are in force", policies(number))
    finally:
        rules.write_text(before)
    figures = found.saw(load)
    assert load.errors == []
    assert figures.unavailable == figures.over == 0
    # Answers from before the first edit have none, since there was no such rule.
    seen = policies_of(load.answers) - {""}
    assert seen == {policies(number) for number in range(0, edits + 1, 2)}
    return figures


def policies_of(answers: list[Answer]) -> set[str]:
    return {answer.header("RateLimit-Policy") for answer in answers if answer.path == "/edited"}


@contextmanager
def site(
    storage: str, folder: Path, new_client: Callable[[], str], redis: Redis | None = None
) -> Iterator[Site]:
    (folder / "throttle.yaml").write_text(RULES.format(storage=storage))
    with gunicorn(
        "plain:application", cwd=folder, workers=WORKERS, env={"POLL_EVERY_MS": "50"}
    ) as server:
        yield Site(server, folder, redis, new_client)


def resident_bytes(pid: int | str = "self") -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def now() -> float:
    return time.monotonic()
