"""What every storage promises, tested by the contract that is public for storages of others too.

Each of our storages has a class here, and a new one is tested by adding a class.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.redis import Server, programs
from wsgi_throttle.storage import Storage, open_storage
from wsgi_throttle.testing import SharedStorageContract, StorageContract

PATIENCE_S = 10.0


class TestMemory(StorageContract):
    @pytest.fixture
    def storage_factory(self) -> Callable[[], Storage]:
        return lambda: open_storage("memory://")


class TestShared(SharedStorageContract):
    reaches = ("host",)

    @pytest.fixture
    def storage_factory(self, tmp_path: Path) -> Callable[[], Storage]:
        return lambda: open_storage(f"shared://{tmp_path}?size=1mb")


class TestRedis(SharedStorageContract):
    reaches = ("network",)

    @pytest.fixture(params=programs())
    def storage_factory(
        self, request: pytest.FixtureRequest, redis_servers: Callable[[str], Server]
    ) -> Callable[[], Storage]:
        server = redis_servers(programs()[request.param])
        return lambda: open_storage(server.uri, timeout_s=PATIENCE_S)
