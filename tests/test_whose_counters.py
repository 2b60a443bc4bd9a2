"""Which configurations count together on shared://, and which apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from support.servers import wait_until
from wsgi_throttle import ConfigError, Throttle
from wsgi_throttle.config import load
from wsgi_throttle.storage.shared import location

app = Response("ok")
HOURLY = "default_limits: 5 per hour\nstorage: shared://?size=1mb\n"


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders for counters are made."""
    path = tmp_path / "base"
    path.mkdir()
    monkeypatch.setattr(location, "BASES", (str(path),))
    return path


@pytest.fixture
def new() -> Iterator[Callable[..., Throttle]]:
    made: list[Throttle] = []

    def new(config: str | Path | dict[str, Any] | None = None) -> Throttle:
        made.append(Throttle(app, config))
        return made[-1]

    yield new
    for throttle in made:
        throttle.close()


def remaining(throttle: Throttle) -> int:
    """After one more request."""
    return int(Client(throttle).get("/").headers["X-RateLimit-Remaining"])


def written(path: Path, text: str = HOURLY) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def id_of(config: Path | dict[str, Any]) -> str:
    return load(config, variables={"KEY": "secret"}).application_id


def test_files_count_apart_unless_they_name_one_namespace(
    tmp_path: Path, new: Callable[..., Throttle], base: Path
) -> None:
    old, other = (new(written(tmp_path / name / "throttle.yaml")) for name in ("a", "b"))
    assert [remaining(old), remaining(old), remaining(other)] == [4, 3, 4]
    named = HOURLY + "namespace: shop\n"
    releases = [new(written(tmp_path / name / "throttle.yaml", named)) for name in ("1", "2")]
    assert [remaining(release) for release in releases * 2] == [4, 3, 2, 1]
    assert len(list(base.iterdir())) == 3


def test_a_link_in_the_path_is_not_resolved_and_dots_are(tmp_path: Path) -> None:
    written(tmp_path / "release" / "throttle.yaml")
    (tmp_path / "current").symlink_to("release")
    path = tmp_path / "current" / "throttle.yaml"
    assert id_of(path) == str(path)
    assert id_of(tmp_path / "release" / ".." / "current" / "throttle.yaml") == str(path)


@pytest.mark.usefixtures("poll_often")
def test_a_relative_path_means_the_same_file_after_the_working_folder_has_changed(
    tmp_path: Path, new: Callable[..., Throttle], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = written(tmp_path / "mine" / "throttle.yaml", HOURLY + "reload: true\n")
    written(tmp_path / "foreign" / "throttle.yaml", HOURLY.replace("5", "99"))
    monkeypatch.chdir(mine.parent)
    throttle = new("throttle.yaml")
    assert remaining(throttle) == 4
    monkeypatch.chdir(tmp_path / "foreign")
    mine.write_text(HOURLY.replace("5", "50"))
    wait_until(lambda: remaining(throttle) != 4 and remaining(throttle) > 5)
    assert Client(throttle).get("/").headers["X-RateLimit-Limit"] == "50"
    assert id_of(mine) == throttle.engine.config.application_id


def test_a_working_folder_that_was_deleted_is_no_traceback(
    tmp_path: Path, new: Callable[..., Throttle], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        new("throttle.yaml")
    assert remaining(new({"default_limits": "5 per hour", "storage": "shared://?size=1mb"})) == 4


MAPPING = {
    "default_limits": ["5 per hour"],
    "session": {"kind": "flask", "secret_key": "one"},
    "rules": [{"path": "/a", "limits": "1 per hour", "cost": 1}],
}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (dict(reversed(MAPPING.items())), True),
        (MAPPING | {"default_limits": ("5 per hour",)}, True),
        (MAPPING | {"session": {"secret_key": "${KEY}", "kind": "flask"}}, True),
        (MAPPING | {"storage": "shared://?size=1mb"}, True),
        (MAPPING | {"default_limits": ["6 per hour"]}, False),
        (MAPPING | {"session": {"kind": "django", "secret_key": "one"}}, False),
    ],
    ids=["other order", "a tuple", "other secret", "other storage", "other limit", "other kind"],
)
def test_a_mapping_is_told_by_its_content_without_secrets_and_storage(
    changed: dict[str, Any], same: bool
) -> None:
    assert (id_of(changed) == id_of(MAPPING)) == same


def test_a_mapping_is_told_by_the_working_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = id_of(MAPPING)
    monkeypatch.chdir(tmp_path)
    assert id_of(MAPPING) != before
    assert id_of(MAPPING | {"namespace": "n"}) == "namespace:n"


@pytest.mark.parametrize(
    "wrong", [{1: "x"}, {"rules": [{b"path": "/"}]}, {"key": {"ip"}}, {"key": Path("ip")}]
)
def test_a_mapping_of_what_is_no_json_is_a_mistake(wrong: dict[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="is not known here: give it as text"):
        load({"default_limits": "5 per hour", **wrong})


@pytest.mark.usefixtures("poll_often")
def test_a_changed_namespace_is_not_in_force_before_a_restart(
    tmp_path: Path, new: Callable[..., Throttle], caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "throttle.yaml")
    throttle = new(path)
    assert remaining(throttle) == 4
    path.write_text(HOURLY + "namespace: other\n")
    with caplog.at_level(logging.INFO, "wsgi_throttle"):
        wait_until(lambda: Client(throttle).get("/") is not None and "are in force" in caplog.text)
    assert "not in force before a restart: namespace" in caplog.text
    assert throttle.engine.config.namespace == "throttle"
