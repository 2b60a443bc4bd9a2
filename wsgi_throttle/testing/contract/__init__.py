"""What every storage promises, as tests that any storage's own test suite can run."""

from __future__ import annotations

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "wsgi_throttle.testing.StorageContract needs pytest: pip install pytest"
    ) from error

# So that failures show the values; it has no effect on a module that was imported before.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("charges", "one_limit", "several_limits", "workers"))
)

from .one_limit import OneLimit  # noqa: E402 - after the line above
from .several_limits import SeveralLimits  # noqa: E402
from .workers import Processes, Workers  # noqa: E402

__all__ = ["SharedStorageContract", "StorageContract"]


class StorageContract(OneLimit, SeveralLimits, Workers):
    """Tests of what a storage promises that counts in each process by itself.

    To run them, derive a class of them and give it one fixture, ``storage_factory``. It returns a
    function without arguments that opens the storage, each time at the same place::

        class TestMyStorage(StorageContract):
            @pytest.fixture
            def storage_factory(self):
                return MyStorage

    The tests close what they open. They use buckets that no earlier run has used, so that counters
    which are still there from before do no harm, and the storage's own clock: they take some
    seconds. They fork, and so run on POSIX systems only.
    """

    reaches: tuple[str, ...] = ("process",)
    """What the storage's ``reach`` may be."""


class SharedStorageContract(StorageContract, Processes):
    """The same for a storage on which several processes count together.

    What ``storage_factory`` returns is called more than once in some tests: all of these storages
    have the same counters.
    """

    reaches: tuple[str, ...] = ("host", "network")
