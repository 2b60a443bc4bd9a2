"""Runs the suite on every Python of this machine, with several sets of dependencies and servers.

Whole on the newest and the oldest Python; on the others, with the lowest versions of what setup.cfg
requires and without a Redis on PATH, all but the tests marked ``slow``. Pre-releases come last and
fail nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)
LONGEST_S = 60 * 60
"""More is a failure."""
PRE_RELEASES_S = 5 * 60
SHARED_MEMORY = Path("/dev/shm")
REDIS = ("redis-server", "valkey-server")
QUICK = ("-m", "not soak and not slow")


class Python(NamedTuple):
    version: tuple[int, int]
    path: Path
    is_final: bool

    @property
    def name(self) -> str:
        return "{}.{}".format(*self.version)


class Step(NamedTuple):
    name: str
    seconds: float
    result: str


def candidates() -> Iterator[Path]:
    """Where a CPython may be: the version manager's folder, then PATH without its shims, which
    start only what was chosen with them."""
    manager = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in [
        *sorted(manager.glob("versions/*/bin")),
        *map(Path, os.environ["PATH"].split(os.pathsep)),
    ]:
        if folder != manager / "shims":
            for path in sorted(folder.glob("python3.*")):
                match = re.fullmatch(r"python3\.(\d+)", path.name)
                if match and (3, int(match[1])) >= OLDEST:
                    yield path


def pythons() -> list[Python]:
    """One of each version, the oldest first.

    :raises SystemExit: one does not start.
    """
    ask = (
        "import sys, ensurepip, venv; v = sys.version_info;"
        "print(sys.implementation.name, v.major, v.minor, v.releaselevel)"
    )
    found: dict[tuple[int, int], Python] = {}
    for path in candidates():
        result = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
        if "No module named 'ensurepip'" in result.stderr:
            print(f"  {path}: left out, as it cannot make a virtual environment")
            continue
        if result.returncode:
            sys.exit(f"{path} does not start:\n{result.stderr}")
        name, major, minor, level = result.stdout.split()
        version = int(major), int(minor)
        if name == "cpython" and version not in found:
            found[version] = Python(version, path, level == "final")
            print(f"  {path}: {level}")
    return [found[version] for version in sorted(found)]


def lowest() -> list[str]:
    """What setup.cfg requires of each package, as the one version that is allowed."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"].split()
    return [line.replace(">=", "==") for line in required]


@contextmanager
def path_without_redis(folder: Path) -> Iterator[dict[str, str]]:
    """A PATH with all programs of this machine but Redis and Valkey."""
    programs = folder / "bin"
    programs.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            link = programs / program.name
            if program.name not in REDIS and not link.is_symlink():
                link.symlink_to(program)
    yield {"PATH": str(programs)}
    shutil.rmtree(programs)


class Matrix:
    """Runs steps, one after the other, and remembers how they ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.steps: list[Step] = []
        self.failed = False

    def environment(self, python: Python, *constraints: str, pre: bool = False) -> Path:
        """A virtual environment with what the tests need; its python."""
        folder = Path(tempfile.mkdtemp(prefix=f"venv-{python.name}-", dir=self._folder))
        subprocess.run([python.path, "-m", "venv", folder], check=True)
        pinned = folder / "constraints.txt"
        pinned.write_text("\n".join([*constraints, ""]))
        python_of_it = folder / "bin" / "python"
        options = ["--quiet", "--disable-pip-version-check", "--constraint", str(pinned)]
        options += ["--pre"] if pre else []
        install = [str(python_of_it), "-m", "pip", "install", *options, "--editable", ".[test]"]
        subprocess.run(install, cwd=ROOT, check=True)
        return python_of_it

    def run(self, name: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        """A step that must pass and leave nothing behind."""
        print(f"\n=== {name}", flush=True)
        temporary = Path(tempfile.mkdtemp(prefix="wt-", dir="/tmp"))
        shared = set(SHARED_MEMORY.glob("wsgi_throttle*"))
        began = time.monotonic()
        result = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary), **(env or {})},
            stdin=subprocess.DEVNULL,
            check=False,
        )
        left = [*temporary.iterdir(), *(set(SHARED_MEMORY.glob("wsgi_throttle*")) - shared)]
        shutil.rmtree(temporary)
        told = f"failed with {result.returncode}" if result.returncode else "passed"
        if left:
            told += f", and left {', '.join(map(str, left))}"
        self.failed |= bool(left) or result.returncode != 0
        self.steps.append(Step(name, time.monotonic() - began, told))

    def try_out(self, name: str, python: Python) -> None:
        """Pre-releases: what fails is printed, and that is all."""
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        told = "passed"
        try:
            found = self.environment(python, pre=True)
            result = subprocess.run(
                [found, "-m", "pytest", "-q", "--tb=line", *QUICK],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PRE_RELEASES_S,
                check=False,
            )
            if result.returncode:
                told = "failed, which is not counted"
                failures = re.findall(r"^(?:FAILED|ERROR) .*$", result.stdout, re.MULTILINE)
                print("\n".join([*failures[:50], result.stdout[-300:]]))
        except (subprocess.SubprocessError, OSError) as error:
            told = f"not tried to the end: {error}"
        self.steps.append(Step(name, time.monotonic() - began, told))


def main() -> int:
    began = time.monotonic()
    print("Pythons:")
    found = pythons()
    final = [python for python in found if python.is_final]
    if not final:
        sys.exit("there is no CPython from 3.10 on here")
    oldest, newest = final[0], final[-1]
    strict = "--strict-skips"
    with tempfile.TemporaryDirectory(prefix="wsgi_throttle-ci-") as folder:
        matrix = Matrix(Path(folder))
        venv = {"PYTHON": str(newest.path), "VENV": str(Path(folder, "newest"))}
        matrix.run("make lint", "make", "lint", env=venv)
        options = {"PYTEST_ADDOPTS": strict}
        matrix.run(f"make test, Python {newest.name}", "make", "test", env={**venv, **options})
        pytest = (Path(folder, "newest", "bin", "python"), "-m", "pytest", "-q", strict)
        with path_without_redis(Path(folder)) as env:
            name = f"Python {newest.name}, no Redis on PATH, without slow tests"
            matrix.run(name, *pytest, *QUICK, env=env)
        for python in final[:-1]:
            whole = python is oldest
            command = matrix.environment(python), "-m", "pytest", "-q", strict
            what = "the whole suite" if whole else "without slow tests"
            matrix.run(f"Python {python.name}, {what}", *command, *(() if whole else QUICK))
        command = matrix.environment(oldest, *lowest()), "-m", "pytest", "-q", strict
        matrix.run(f"Python {oldest.name}, lowest versions, without slow tests", *command, *QUICK)
        for python in (newest, *(one for one in found if not one.is_final)):
            matrix.try_out(f"Python {python.name}, pre-releases", python)
    print()
    for step in matrix.steps:
        print(f"{step.seconds:6.0f} s  {step.name}: {step.result}")
    seconds = time.monotonic() - began
    print(f"{seconds:6.0f} s  in all")
    if seconds > LONGEST_S:
        print(f"that is more than {LONGEST_S} s, which is a failure")
    return int(matrix.failed or seconds > LONGEST_S)


if __name__ == "__main__":
    sys.exit(main())
