"""The Makefile says in one line, and at once, what a machine lacks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from support.servers import ROOT

TOLD = {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "VENV", "ADDRESS"}


def make(target: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a target that ends before it installs anything.

    :param settings: variables of the Makefile.
    """
    command = ["make", "--no-print-directory", target]
    command += [f"{name}={value}" for name, value in settings.items()]
    # Variables of a `make test` that runs this test must not reach the make that is tested.
    env = {name: value for name, value in os.environ.items() if name not in TOLD}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def script(folder: Path, *lines: str) -> Path:
    """A shell script that is given to make in place of a Python."""
    program = folder / "python"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)
    return program


def test_help_lists_every_target_and_setting() -> None:
    told = make("help").stdout
    targets = ("demo", "test", "lint", "docs", "bench", "soak", "mutate")
    for word in (*targets, "PYTHON=", "VENV=", "ADDRESS="):
        assert word in told


def test_a_python_that_is_too_old_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    old = script(
        tmp_path, 'case "$2" in', '*print*) echo "Python 3.9";;', "*exit*) exit 1;;", "esac"
    )
    result = make("test", PYTHON=old, VENV=tmp_path / "venv")
    assert result.returncode
    assert f"Python 3.10 or later is needed, and {old} is Python 3.9." in result.stderr
    assert "make test PYTHON=" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_does_not_start_is_told(tmp_path: Path) -> None:
    result = make("demo", PYTHON=script(tmp_path, "exit 127"), VENV=tmp_path / "venv")
    assert result.returncode
    assert "is no Python that starts" in result.stderr


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    result = make("test", VENV=tmp_path)
    assert result.returncode
    assert "is not a virtual environment" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"


def test_a_busy_port_is_told_in_a_line(tmp_path: Path) -> None:
    # This looks like a complete virtual environment, so that make installs nothing.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text(Path(sys.prefix, "pyvenv.cfg").read_text())
    (tmp_path / "lib").symlink_to(Path(sys.prefix, "lib"))
    (tmp_path / ".demo").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        result = make("demo", VENV=tmp_path, ADDRESS=address)
    assert result.returncode
    assert f"Cannot listen on {address}: it is in use" in result.stderr
    assert "Traceback" not in result.stderr
