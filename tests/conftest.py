from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

from wsgi_throttle.clock import MS

pytest_plugins = ["support.redis", "support.skips"]

# Without a deadline for single examples, which a busy machine would miss.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")

_numbers = count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the tests' folders into one that is removed at the end, unless ``--basetemp`` names
    one."""
    if not config.option.basetemp:
        folder = tempfile.mkdtemp(prefix="wsgi_throttle-tests-")
        config.option.basetemp = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def new_client() -> Callable[[], str]:
    """A function that returns a loopback address from which no request has come yet."""

    def address() -> str:
        high, low = divmod(next(_numbers), 250)
        return f"127.1.{high}.{low + 1}"

    return address


@pytest.fixture(scope="session")
def new_user() -> Callable[[], str]:
    """A function that returns a user id that was not used yet."""
    return lambda: f"user-{next(_numbers)}"


@pytest.fixture
def shared_uri(tmp_path: Path) -> str:
    """The URI of a small shared:// in a folder of this test's own."""
    return shared_folder(tmp_path)


@pytest.fixture
def poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a changed rule file be noticed within milliseconds."""
    monkeypatch.setattr("wsgi_throttle.reload.POLL_EVERY_NS", 5 * MS)


def shared_folder(parent: Path) -> str:
    folder = parent / "counters"
    folder.mkdir(mode=0o700)
    return f"shared://{folder}?size=1mb"


@pytest.fixture(scope="module", params=["shared", "redis"])
def storage_uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a storage that several processes share. Each test that uses it runs on every
    one."""
    if request.param == "shared":
        return shared_folder(tmp_path_factory.mktemp("shared"))
    uri: str = request.getfixturevalue("redis_uri")
    return uri
