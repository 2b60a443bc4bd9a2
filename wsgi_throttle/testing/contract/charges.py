"""What the tests of the contract charge, and the fixtures that they use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from secrets import token_hex

import pytest

from ...decision import Charge, Decision, Limit, Terms
from ...storage import Storage
from ...strategies import STRATEGIES

PATIENCE_S = 10.0
"""After this time a test gives up waiting for what has to happen."""

HOUR_MS = 3_600_000
"""A window so long that nothing leaves it during a test."""

SHORT_MS = 150
"""A window so short that a test can see its end."""

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)

_run = token_hex(8)
_numbers = count()


class Fixtures:
    """What every part of the contract is derived from."""

    reaches: tuple[str, ...] = ()
    """What the storage's ``reach`` may be."""

    pytestmark = [
        # Forking with threads is what is tested.
        pytest.mark.filterwarnings(
            "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
        )
    ]

    @pytest.fixture
    def storage_factory(self) -> Callable[[], Storage]:
        """A function that opens the storage, each time at the same place. Each class that is
        derived from the contract has its own."""
        return pytest.fail(
            f"{type(self).__name__} needs a fixture storage_factory, which returns a function that "
            "opens the storage: see wsgi_throttle.testing.StorageContract"
        )

    @pytest.fixture
    def open_storage(
        self, storage_factory: Callable[[], Storage]
    ) -> Iterator[Callable[[], Storage]]:
        """The same function, but what it opens is closed after the test."""
        opened: list[Storage] = []

        def open_one() -> Storage:
            opened.append(storage_factory())
            return opened[-1]

        yield open_one
        for storage in opened:
            storage.close()

    @pytest.fixture
    def storage(self, open_storage: Callable[[], Storage]) -> Storage:
        """The storage that is tested."""
        return open_storage()

    @pytest.fixture
    def bucket(self) -> str:
        """One that nothing was counted on."""
        return new_bucket()


def new_bucket(key: str = "ip:192.0.2.1") -> str:
    """A bucket that no test, and no earlier run of the tests, has used."""
    return f"contract:{_run}:{next(_numbers)}:{{{key}}}"


def limit(quota: int, window_ms: int = HOUR_MS, strategy: str = "sliding-window") -> Limit:
    """A limit whose burst is its quota."""
    return Limit(strategy, quota, window_ms, quota)


def charge(bucket: str, limit: Limit, cost: int = 1, enforce: bool = True) -> Charge:
    """What one limit counts on this bucket for one request."""
    return Charge(bucket, limit, cost, enforce, "rule")


def take(storage: Storage, charges: Iterable[Charge]) -> Decision:
    """What the storage says of these charges. The terms are prepared anew each time."""
    terms, buckets = Terms.of(charges)
    return storage.prepare(terms)(buckets)


def used(storage: Storage, bucket: str, limit: Limit) -> int:
    """How much of the limit is used up on this bucket."""
    (outcome,) = take(storage, [charge(bucket, limit, cost=0)]).outcomes
    return limit.burst - outcome.remaining
