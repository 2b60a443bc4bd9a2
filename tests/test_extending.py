"""The patches of docs/extending: each applies and passes its check, which its tests alone fail."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.servers import ROOT

FOLDER = ROOT / "docs" / "extending"
PATCHES = sorted(FOLDER.glob("*.patch"))
CHECKS = dict(
    re.findall(
        r"^## (\S+)\n(?:(?!## ).*\n)*?    python -m pytest (.*)$",
        (FOLDER / "README.md").read_text(),
        re.MULTILINE,
    )
)
"""What README.md says to run, by the name of the patch."""

COPIED = (
    *("README.md", "config.example.yaml", "pyproject.toml", "setup.cfg"),
    *("docs", "examples", "tests", "wsgi_throttle"),
)
"""What of the repository the checks need."""

QUICK = "not (memory_loads or shared_loads or redis_loads or requests_import)"
"""Leaves out the tests of the architecture that start a Python each, which concern no patch."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("git"), reason="git is missing: sudo apt-get install git"),
]
each_patch = pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            leave_out = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def apply(patch: Path, folder: Path, *options: str) -> None:
    # Inside another repository git would leave out what is not in it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    command = ["git", "apply", *options, str(patch)]
    result = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, f"it has to be made anew: {result.stderr}"


def run_pytest(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run these tests of a copy, on the copy."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def new_tests(patch: Path) -> list[str]:
    """The test files that a patch adds."""
    return re.findall(
        r"^--- /dev/null\n\+\+\+ b/(tests/test_\w+\.py)$", patch.read_text(), re.MULTILINE
    )


def test_every_patch_is_explained_with_a_check_of_its_own() -> None:
    assert CHECKS.keys() == {patch.name for patch in PATCHES}
    for patch in PATCHES:
        assert set(new_tests(patch)) & set(shlex.split(CHECKS[patch.name]))


@each_patch
def test_it_applies_and_passes_its_check(patch: Path, copy: Path) -> None:
    apply(patch, copy)
    check = shlex.split(CHECKS[patch.name])
    result = run_pytest(copy, "-k", QUICK, "tests/test_architecture.py", *check)
    assert result.returncode == 0, result.stdout


@each_patch
def test_its_tests_fail_without_the_rest_of_it(patch: Path, copy: Path) -> None:
    apply(patch, copy, "--include=tests/*")
    result = run_pytest(copy, *new_tests(patch))
    assert result.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED), (
        result.stdout
    )
