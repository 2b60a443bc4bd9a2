"""Programs that are run as another user, which only root may, and of a Python that all may read."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

from support.servers import ROOT

NOBODY = 12_345
"""A user that no machine has."""


def _run_as(uid: int, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return subprocess.run(
        [*command, sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def others_may_run() -> bool:
    """Whether another user can run this Python with this package."""
    if os.geteuid() != 0:
        return False
    return _run_as(NOBODY, "import lmdb, werkzeug, wsgi_throttle").returncode == 0


def run_as(uid: int, program: str, *arguments: object) -> str:
    """Run a program as another user, and return its output."""
    if not others_may_run():
        pytest.skip("may not run programs as another user")
    done = _run_as(uid, program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
