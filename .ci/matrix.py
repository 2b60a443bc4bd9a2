"""Checks style and types, builds the documentation, and runs the suite on every Python found here.

The newest and the oldest Python run the whole suite. The tests marked ``slow`` are left out on the
other Pythons, in a run without a Redis on PATH, and in a run with the lowest versions that
setup.cfg allows. Last come pre-releases of Python and of the dependencies; their failures are
printed and do not count. But for the first, suites run two at once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TESTED = ((3, 10), (3, 11), (3, 12), (3, 13))
"""What setup.cfg says is tested. The summary names those that this machine does not have."""
LONGEST_S = 60 * 60
"""If all steps together take longer, the run fails."""
AT_ONCE = 2
"""How many suites run side by side."""
PRE_RELEASES_S = 5 * 60
"""A step with pre-releases is ended after so long."""
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


class Task(NamedTuple):
    name: str
    command: Sequence[str | Path]
    env: Mapping[str, str] = {}


class Step(NamedTuple):
    name: str
    seconds: float
    result: str


def candidates() -> Iterator[Path]:
    """Programs that may be a CPython: those of pyenv's folder, then those on PATH. Its shims are
    left out, since they start only the version that is chosen for the current folder."""
    manager = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in [
        *sorted(manager.glob("versions/*/bin")),
        *map(Path, os.environ["PATH"].split(os.pathsep)),
    ]:
        if folder != manager / "shims":
            for path in sorted(folder.glob("python3.*")):
                match = re.fullmatch(r"python3\.(\d+)", path.name)
                if match and (3, int(match[1])) >= TESTED[0]:
                    yield path


def pythons() -> list[Python]:
    """One Python of each version, the oldest first.

    :raises SystemExit: one of the programs does not start.
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
    """For pip: each package that setup.cfg requires, at the lowest version that it allows."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"].split()
    return [line.replace(">=", "==") for line in required]


@contextmanager
def path_without_redis(folder: Path) -> Iterator[dict[str, str]]:
    """An environment whose PATH has all programs of this machine except Redis and Valkey."""
    programs = folder / "bin"
    programs.mkdir()
    for directory in os.environ["PATH"].split(os.pathsep):
        for program in Path(directory).glob("*"):
            link = programs / program.name
            if program.name not in REDIS and not link.is_symlink():
                link.symlink_to(program)
    yield {"PATH": str(programs)}
    shutil.rmtree(programs)


class Matrix:
    """Runs steps one after the other, and remembers how each ended.

    :param folder: where the virtual environments are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.steps: list[Step] = []
        self.failed = False

    def environment(self, python: Python, *constraints: str, pre: bool = False) -> Path:
        """Make a virtual environment with what the tests need.

        :param constraints: for pip, such as ``redis==5.0.1``.
        :param pre: take pre-releases of the packages too.
        :return: the environment's python.
        """
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

    def run(self, *tasks: Task) -> None:
        """Run steps side by side. Each has to end with 0, and none may leave temporary files."""
        print(f"\n=== {' and '.join(task.name for task in tasks)}", flush=True)
        shared = set(SHARED_MEMORY.glob("wsgi_throttle*"))
        began = time.monotonic()
        with ThreadPoolExecutor(len(tasks)) as pool:
            results = list(pool.map(self._run_one, tasks, repeat(len(tasks) > 1)))
        left = sorted(set(SHARED_MEMORY.glob("wsgi_throttle*")) - shared)
        if left:
            self.failed = True
            told = f"left {', '.join(map(str, left))}"
            results.append(Step("shared memory", time.monotonic() - began, told))
        self.steps += results

    def _run_one(self, task: Task, is_one_of_several: bool) -> Step:
        """
        :param is_one_of_several: what it prints is held back until it has ended.
        """
        temporary = Path(tempfile.mkdtemp(prefix="wt-", dir="/tmp"))
        began = time.monotonic()
        result = subprocess.run(
            task.command,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary), **task.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if is_one_of_several else None,
            stderr=subprocess.STDOUT if is_one_of_several else None,
            text=True,
            check=False,
        )
        if is_one_of_several:
            print(f"\n--- {task.name}\n{result.stdout}", flush=True)
        left = list(temporary.iterdir())
        shutil.rmtree(temporary)
        told = f"failed with {result.returncode}" if result.returncode else "passed"
        if left:
            told += f", and left {', '.join(map(str, left))}"
        if left or result.returncode:
            self.failed = True
        return Step(task.name, time.monotonic() - began, told)

    def try_out(self, name: str, python: Python) -> None:
        """Run the quick tests with pre-releases of the packages. Failures are printed only."""
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


def whole(matrix: Matrix, python: Python, *options: str) -> Task:
    """The whole suite on this Python."""
    command: list[str | Path] = [matrix.environment(python), "-m", "pytest", "-q", *options]
    return Task(f"Python {python.name}, the whole suite", command)


def quick(matrix: Matrix, python: Python, strict: str, *constraints: str) -> Task:
    """The suite without the slow tests on this Python, with these versions of packages."""
    command = (matrix.environment(python, *constraints), "-m", "pytest", "-q", strict, *QUICK)
    versions = ", lowest versions" if constraints else ""
    return Task(f"Python {python.name}{versions}, without slow tests", command)


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
        matrix.run(Task("make lint", ("make", "lint"), venv))
        matrix.run(Task("make docs", ("make", "docs"), venv))
        name = f"make test, Python {newest.name}"
        matrix.run(Task(name, ("make", "test"), {**venv, "PYTEST_ADDOPTS": strict}))
        with path_without_redis(Path(folder)) as env:
            command = (Path(folder, "newest", "bin", "python"), "-m", "pytest", "-q", strict)
            name = f"Python {newest.name}, no Redis on PATH, without slow tests"
            tasks = [Task(name, (*command, *QUICK), env)]
            if oldest is not newest:
                tasks.append(whole(matrix, oldest, strict))
            matrix.run(*tasks)
        others = [quick(matrix, python, strict) for python in final[1:-1]]
        others.append(quick(matrix, oldest, strict, *lowest()))
        while others:
            matrix.run(*others[:AT_ONCE])
            del others[:AT_ONCE]
        for python in (newest, *(one for one in found if not one.is_final)):
            matrix.try_out(f"Python {python.name}, pre-releases", python)
    print()
    for step in matrix.steps:
        print(f"{step.seconds:6.0f} s  {step.name}: {step.result}")
    seconds = time.monotonic() - began
    print(f"{seconds:6.0f} s  in all")
    for version in sorted({*TESTED} - {python.version for python in final}):
        print("not tested, since this machine has no Python {}.{}".format(*version))
    if seconds > LONGEST_S:
        print(f"that is more than {LONGEST_S} s, which is a failure")
    return int(matrix.failed or seconds > LONGEST_S)


if __name__ == "__main__":
    sys.exit(main())
