"""Compares every storage with strategies.py: the decisions must be equal, and with take.lua the
states too, to the integer."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import gcd
from pathlib import Path
from struct import pack

import pytest
import redis

from support.charges import take as take_of
from support.redis import Server, numbers_in, programs
from wsgi_throttle.decision import Charge, Decision, Limit, Measured, Terms
from wsgi_throttle.storage.memory import MemoryStorage
from wsgi_throttle.storage.redis.resp import Script, TakeCommand, parse_decision
from wsgi_throttle.storage.redis.storage import SCRIPT
from wsgi_throttle.storage.shared.record import is_sound
from wsgi_throttle.storage.shared.storage import SharedStorage
from wsgi_throttle.strategies import (
    LARGEST,
    STRATEGIES,
    State,
    compile_terms,
    step_of,
    take,
)
from wsgi_throttle.testing import ManualClock

REQUESTS = 60_000
SEEDS = range(12)
IN_A_WORLD = 100

# Put before take.lua: TIME is what the test has set, and keys do not expire, since the server would
# expire them by its own time.
AT_THE_TESTS_TIME = b"""
local server = redis
local redis = {status_reply = server.status_reply}
function redis.call(name, ...)
  if name == 'TIME' then
    local now = tonumber(server.call('GET', 'agreement:now'))
    return {tostring(math.floor(now / 1000)), tostring(now % 1000 * 1000 + 999)}
  elseif name == 'SET' then
    local key, value, option, ttl = ...
    assert(option == 'PX' and ttl >= 1)
    return server.call('SET', key, value)
  end
  return server.call(name, ...)
end
"""

# Put before take.lua: TIME is the server's own, and is recorded for the test.
AT_THE_SERVERS_TIME = b"""
local server = redis
local redis = {status_reply = server.status_reply}
function redis.call(name, ...)
  local answer = server.call(name, ...)
  if name == 'TIME' then
    server.call('RPUSH', 'agreement:times', answer[1] * 1000 + math.floor(answer[2] / 1000))
  end
  return answer
end
"""

_worlds = count()


@dataclass
class World:
    """A few limits on a few clients, and their states by strategies.py."""

    limits: list[Limit]
    states: dict[tuple[str, str], State] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"agreement:{next(_worlds)}")

    def charges(self, chance: random.Random) -> list[Charge]:
        all_of = [(f"{self.name}:{{{client}}}", limit) for client in "ab" for limit in self.limits]
        chosen = sorted(chance.sample(range(len(all_of)), min(len(all_of), chance.randint(1, 4))))
        return [
            Charge(*all_of[index], _cost(all_of[index][1], chance), chance.random() < 0.75, "rule")
            for index in chosen
        ]

    def take(self, charges: Sequence[Charge], now: int) -> Decision:
        names = [(bucket, limit.tag) for bucket, limit, *_ in charges]
        states = [self.states.get(name, ()) for name in names]
        terms, buckets = Terms.of(charges)
        granted, measured, after = take(compile_terms(terms), states, now)
        self.states.update(zip(names, after, strict=True))
        return Decision(granted, terms, buckets, measured)


def _cost(limit: Limit, chance: random.Random) -> int:
    highest = max(limit.quota, limit.burst)
    return chance.choice([0, 1, 1, 1, 2, max(1, highest // 3), highest, highest + 1])


def _limit(chance: random.Random) -> Limit:
    while True:
        strategy = chance.choice(sorted(STRATEGIES))
        quota = chance.choice([0, 1, 2, 5, 59, 60, 61, 100, 1009, 10**6, 10**9 + 7])
        window_ms = chance.choice([1, 2, 7, 59, 60, 61, 100, 999, 1000, 60_000, 86_400_000])
        burst = quota
        if strategy == "token-bucket" and quota:
            burst = chance.choice([1, quota, 2 * quota, 10])
        if quota * window_ms < LARGEST and burst * window_ms // gcd(quota, window_ms) < LARGEST:
            return Limit(strategy, quota, window_ms, burst)


def _step(world: World, chance: random.Random) -> int:
    """Milliseconds to the next request: mostly few, sometimes more than a window, or negative."""
    window_ms = chance.choice(world.limits).window_ms
    kind = chance.random()
    if kind < 0.3:
        return 0
    if kind < 0.8:
        return chance.randint(0, window_ms // 20 + 1)
    if kind < 0.9:
        return chance.choice([1, window_ms - 1, window_ms, window_ms + 1, 3 * window_ms])
    return -chance.choice([1, window_ms // 3, window_ms, 3_600_000])


class Pipeline:
    """A connection on which many commands are sent before the first reply is read."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self._replies = self._socket.makefile("rb")

    def send(self, commands: list[bytes]) -> list[bytes]:
        self._socket.sendall(b"".join(commands))
        return [self._replies.readline()[:-2] for _ in commands]

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


@pytest.fixture(scope="module", params=programs())
def redis_server(request: pytest.FixtureRequest, redis_servers: Callable[[str], Server]) -> Server:
    """Each server that is installed, since each has a Lua of its own."""
    return redis_servers(programs()[request.param])


@pytest.fixture
def pipeline(redis_server: Server) -> Iterator[Pipeline]:
    pipeline = Pipeline(redis_server)
    yield pipeline
    pipeline.close()


class Commands:
    """Makes the commands of RedisStorage and reads their replies, with a script that has a prelude
    before take.lua."""

    def __init__(self, prelude: bytes, server: Server) -> None:
        server.client.script_load(prelude + SCRIPT)
        self._script = Script(prelude + SCRIPT)

    def take(self, charges: Sequence[Charge]) -> bytes:
        terms, buckets = Terms.of(charges)
        return TakeCommand(terms).encode(self._script.evalsha, buckets)

    def decision(self, charges: Sequence[Charge], reply: bytes) -> Decision:
        return parse_decision(reply, *Terms.of(charges))


def set_now(now: int) -> bytes:
    return b"*3\r\n$3\r\nSET\r\n$13\r\nagreement:now\r\n$%d\r\n%d\r\n" % (len(str(now)), now)


def saved_states(world: World, client: redis.Redis) -> dict[tuple[str, str], State]:
    places = list(world.states)
    texts = client.mget([f"{bucket}:{tag}" for bucket, tag in places])
    assert b"" not in texts  # an empty state has no key
    return {place: numbers_in(text) for place, text in zip(places, texts, strict=True)}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_script_answers_and_saves_as_the_strategies_do(
    seed: int, redis_server: Server, pipeline: Pipeline
) -> None:
    chance = random.Random(seed)
    commands_of = Commands(AT_THE_TESTS_TIME, redis_server)
    verdicts = set()
    for _ in range(REQUESTS // len(SEEDS) // IN_A_WORLD):
        world = World([*{_limit(chance): None for _ in range(chance.randint(2, 4))}])
        now = chance.choice([1, 10_000_000, 1_700_000_000_000])
        asked, commands = [], []
        for _ in range(IN_A_WORLD):
            now = max(1, now + _step(world, chance))
            charges = world.charges(chance)
            asked.append((now, charges))
            commands += [set_now(now), commands_of.take(charges)]
        replies = pipeline.send(commands)[1::2]
        for (now, charges), reply in zip(asked, replies, strict=True):
            expected = world.take(charges, now)
            assert commands_of.decision(charges, reply) == expected, (seed, now)
            verdicts.add((expected.granted, any(charge.enforce for charge in charges)))
        assert saved_states(world, redis_server.client) == world.states, seed
    assert verdicts >= {(True, True), (False, True), (True, False)}


@pytest.mark.parametrize("seed", SEEDS[:4])
@pytest.mark.parametrize("engine", ["memory", "shared"])
def test_any_mix_of_limits_and_clients_is_counted_as_by_itself(
    engine: str, seed: int, tmp_path: Path
) -> None:
    """It makes no difference which limits share a record, nor which were charged last."""
    chance = random.Random(seed)
    clock = ManualClock(1_000)
    storage: MemoryStorage | SharedStorage = (
        MemoryStorage(clock=clock) if engine == "memory" else SharedStorage(tmp_path, clock=clock)
    )
    verdicts = set()
    for _ in range(20):
        world = World([*{_limit(chance): None for _ in range(chance.randint(2, 4))}])
        mixes = [world.charges(chance) for _ in range(6)]
        for _ in range(IN_A_WORLD):
            clock.now_ms += max(0, _step(world, chance))
            charges = chance.choice(mixes)
            expected = world.take(charges, clock.now_ms)
            assert take_of(storage, charges) == expected, (seed, clock.now_ms)
            verdicts.add((expected.granted, len(expected.buckets)))
    storage.close()
    assert len(verdicts) == 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_they_agree_on_the_servers_own_time_with_keys_that_expire(
    strategy: str, redis_server: Server, pipeline: Pipeline
) -> None:
    chance = random.Random(strategy)
    commands_of = Commands(AT_THE_SERVERS_TIME, redis_server)
    world = World([Limit(strategy, 5, 2, 5), Limit(strategy, 90, 30, 90)])
    refused = 0
    for _ in range(40):
        asked = [world.charges(chance) for _ in range(50)]
        replies = pipeline.send([commands_of.take(charges) for charges in asked])
        times = redis_server.client.lrange("agreement:times", 0, -1)
        redis_server.client.delete("agreement:times")
        for charges, reply, now in zip(asked, replies, times, strict=True):
            expected = world.take(charges, int(now))
            assert commands_of.decision(charges, reply) == expected
            refused += not expected.granted
    assert refused


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_clock_set_back_an_hour_is_forgiven_even_by_a_refusal(
    strategy: str, redis_server: Server, pipeline: Pipeline
) -> None:
    commands_of = Commands(AT_THE_TESTS_TIME, redis_server)
    limit = Limit(strategy, 2, 10_000, 2)
    bucket = f"agreement:back:{{{strategy}}}"
    charges = [Charge(bucket, limit, 1, True, "rule")]

    def granted(now: int) -> bool:
        command = commands_of.take(charges)
        return commands_of.decision(charges, pipeline.send([set_now(now), command])[1]).granted

    noon = 1_700_000_000_000
    assert [granted(noon) for _ in range(3)] == [True, True, False]
    earlier = noon - 3_600_000
    assert not granted(earlier)
    assert granted(earlier + limit.window_ms)


def by_the_strategies(limit: Limit, state: State, now: int, cost: int) -> tuple[Measured, bool]:
    """What is measured, and whether the state was replaced because no step can have returned it."""
    step = step_of(limit)
    try:
        measured, _ = step(state, now, cost)
        if is_sound(limit, measured):
            return measured, False
    except (IndexError, ValueError):
        pass
    return step((), now, cost)[0], True


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_they_agree_on_which_states_are_unreadable(
    strategy: str, redis_server: Server, pipeline: Pipeline
) -> None:
    chance = random.Random(strategy)
    commands_of = Commands(AT_THE_TESTS_TIME, redis_server)
    window_ms = 1_000
    limit = Limit(strategy, 5, window_ms, 5)
    replaced = Counter[bool]()
    for number in range(1_000):
        now = 1_000_000
        at = now + chance.choice([0, -1, -999, -1_000, -1_001, 1, 1_000, -500, -now])
        if strategy == "fixed-window":
            state: State = (at, chance.randint(-2, 7))
        elif strategy == "token-bucket":
            state = (at, chance.choice([-1_001, -1_000, -999, -1, 0, 1, 999, 1_000, 1_001, 5_001]))
        else:
            count = chance.randint(1, 6)
            state = (count, at, count + chance.choice([0, 0, 1, 5]))
            if chance.random() < 0.3:  # the first stamp is far too late, the last one is not
                state = (1, now + chance.choice([0, 1, window_ms]), count, now, count + 1)
            elif chance.random() < 0.3:  # the last stamp is far too early
                state = (1, now, count, now - chance.choice([1_000, 5_000]), count + 1)
        key = f"agreement:unreadable:{strategy}:{number}"
        charges = [Charge(f"{key}:{{a}}", limit, chance.choice([0, 1, 2, 4, 6]), False, "rule")]
        expected, is_replaced = by_the_strategies(limit, state, now, charges[0].cost)
        redis_server.client.set(f"{key}:{{a}}:{limit.tag}", pack(f">{len(state)}d", *state))
        told: list[int] = []
        reply = pipeline.send([set_now(now), commands_of.take(charges)])[1]
        terms, buckets = Terms.of(charges)
        decision = parse_decision(reply, terms, buckets, None, told.append)
        assert decision.measured == [expected], (state, charges)
        assert told == [1] * is_replaced, (state, charges)
        replaced[is_replaced] += 1
    assert min(replaced.values()) > 50
    assert len(replaced) == 2
