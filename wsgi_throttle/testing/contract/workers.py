"""The part of the contract that is about threads and processes, and how a test runs these."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable

from ...storage import Storage
from .charges import Fixtures, charge, every_strategy, limit, new_bucket, take, used


class Workers(Fixtures):
    """Threads count exactly, and a forked child can use what its parent had opened."""

    @every_strategy
    def test_threads_are_counted_exactly(
        self, storage: Storage, bucket: str, strategy: str
    ) -> None:
        charges = [charge(bucket, limit(50, strategy=strategy)), charge(bucket, limit(70))]
        granted: list[int] = []
        barrier = threading.Barrier(8)

        def work() -> None:
            barrier.wait()
            granted.append(sum(take(storage, charges).granted for _ in range(25)))

        run_threads(work, 8)
        assert sum(granted) == 50
        assert used(storage, bucket, limit(70)) == 50

    def test_a_forked_child_goes_on_where_the_parent_was(
        self, storage: Storage, bucket: str
    ) -> None:
        charges = [charge(bucket, limit(5))]
        take(storage, charges)
        child = in_child(lambda: [take(storage, charges).granted for _ in range(5)])
        assert child == [True] * 4 + [False]
        assert take(storage, []).granted  # the parent's own is unharmed

    def test_a_fork_while_threads_count_leaves_a_child_that_works(self, storage: Storage) -> None:
        stop = threading.Event()

        def busy() -> None:
            bucket = new_bucket()
            while not stop.is_set():
                take(storage, [charge(bucket, limit(1_000_000))])

        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                bucket = new_bucket()
                taken = in_child(
                    lambda: [take(storage, [charge(bucket, limit(2))]).granted for _ in range(3)]  # noqa: B023
                )
                assert taken == [True, True, False]
        finally:
            stop.set()
            for thread in threads:
                thread.join()


class Processes(Fixtures):
    """All that are opened at one place count together, in whichever process."""

    def test_two_storages_of_one_place_count_together(
        self, open_storage: Callable[[], Storage], bucket: str
    ) -> None:
        one, other = open_storage(), open_storage()
        assert take(one, [charge(bucket, limit(2))]).granted
        assert take(other, [charge(bucket, limit(2))]).granted
        assert not take(one, [charge(bucket, limit(2))]).granted
        one.close()
        assert not take(other, [charge(bucket, limit(2))]).granted

    def test_counters_outlive_the_storage_object(
        self, open_storage: Callable[[], Storage], bucket: str
    ) -> None:
        first = open_storage()
        take(first, [charge(bucket, limit(1))])
        first.close()
        assert not take(open_storage(), [charge(bucket, limit(1))]).granted

    def test_children_of_a_parent_in_use_count_together(
        self, storage: Storage, bucket: str
    ) -> None:
        charges = [charge(bucket, limit(30))]
        take(storage, [])
        stop = threading.Event()

        def busy() -> None:
            other = [charge(new_bucket(), limit(1_000_000))]
            while not stop.is_set():
                take(storage, other)

        def children() -> int:
            work = [
                start_child(lambda: sum(take(storage, charges).granted for _ in range(15)))
                for _ in range(4)
            ]
            granted = 0
            for result in work:
                number = result()
                assert isinstance(number, int), number  # what a child raised
                granted += number
            return granted

        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert children() == 30
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not take(storage, charges).granted


def run_threads(work: Callable[[], None], number: int) -> None:
    """Do the work in so many threads at once, and wait for them all."""
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_child(work: Callable[[], object]) -> object:
    """Do the work in a forked child, and wait for its result; if it raises, the exception's text
    is the result."""
    return start_child(work)()


def start_child(work: Callable[[], object]) -> Callable[[], object]:
    """Do the work in a forked child. Return a function that waits for its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the child must not go on as a test run
            result = repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writing)

    def wait() -> object:
        with os.fdopen(reading, "rb") as pipe:
            result = pickle.load(pipe)
        os.waitpid(child, 0)
        return result

    return wait
