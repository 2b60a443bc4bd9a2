"""The wheel holds what it should, and works in an environment that holds nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.servers import ROOT

NOT_SOURCE = (".*", "build", "dist", "*.egg-info", "__pycache__")


def run(*command: object, cwd: Path) -> str:
    arguments = [str(part) for part in command]
    result = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, so that a file that is missing there shows."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=source)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    package = ROOT / "wsgi_throttle"
    expected = {
        file.relative_to(ROOT).as_posix()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {
        "wsgi_throttle/py.typed",
        "wsgi_throttle/storage/redis/take.lua",
        "wsgi_throttle/http/templates/429.html",
    } <= found


def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    run(environment / "bin" / "pip", "install", "--quiet", wheel, cwd=tmp_path)
    command = environment / "bin" / "wsgi-throttle"
    table = run(command, "check", ROOT / "config.example.yaml", cwd=tmp_path)
    assert "login" in table
    # Import all modules, since none may need a package that only the tests install.
    code = (
        "import importlib, pkgutil, wsgi_throttle\n"
        "for module in pkgutil.walk_packages(wsgi_throttle.__path__, 'wsgi_throttle.'):\n"
        "    if not module.name.endswith('__main__') and 'testing.contract' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "print(wsgi_throttle.__file__)\n"
    )
    path = run(environment / "bin" / "python", "-W", "error", "-c", code, cwd=tmp_path)
    assert path.startswith(str(environment))
    # The one part that needs pytest says so, where it is asked for and not before.
    code = (
        "from wsgi_throttle.testing import ManualClock, fresh_counters\n"
        "try:\n"
        "    from wsgi_throttle.testing import StorageContract\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    told = run(environment / "bin" / "python", "-W", "error", "-c", code, cwd=tmp_path)
    assert told.rstrip().endswith("needs pytest: pip install pytest")
