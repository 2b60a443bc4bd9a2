"""What the files around the package say of each other: classifiers, workflow, links."""

from __future__ import annotations

import importlib.util
import re
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from support.servers import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    """The program that the continuous integration runs."""
    spec = importlib.util.spec_from_file_location("matrix", ROOT / ".ci" / "matrix.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def setup_cfg() -> ConfigParser:
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    return found


def test_the_classifiers_name_the_pythons_and_the_system_that_are_tested(
    matrix: ModuleType, setup_cfg: ConfigParser
) -> None:
    tested = ["{}.{}".format(*version) for version in matrix.TESTED]
    lines = setup_cfg["metadata"]["classifiers"].split("\n")
    pythons = [line.rpartition(" ")[2] for line in lines if re.search(r":: 3\.\d+$", line)]
    assert pythons == tested
    assert setup_cfg["options"]["python_requires"] == f">={tested[0]}"
    systems = [line for line in lines if line.startswith("Operating System ::")]
    assert systems == ["Operating System :: POSIX :: Linux"]


def test_the_workflow_runs_commands_that_exist(workflow: dict[str, Any]) -> None:
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [line.split() for step in steps for line in step.splitlines()]
    made = {words[1] for words in commands if words[0] == "make"}
    assert made == {"lint", "docs", "test"}
    assert made <= TARGETS
    assert [".ci/run"] in commands


def test_the_workflow_tries_every_tested_python(
    matrix: ModuleType, workflow: dict[str, Any]
) -> None:
    tested = {"{}.{}".format(*version) for version in matrix.TESTED}
    for name in ("test", "everything"):
        assert tested <= set(workflow["jobs"][name]["strategy"]["matrix"]["python"])


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_every_link_into_the_repository_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_target_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= TARGETS
