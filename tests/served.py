"""The demo application behind the throttle.yaml of the working directory, for the tests' servers.

It adds a line to the file calls.txt there for each request that reaches it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from examples.demo import app
from wsgi_throttle import Throttle


def noting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ['REMOTE_ADDR']}\n"
    # One short write in append mode: lines of several processes stay whole.
    file = os.open("calls.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    return app(environ, start_response)


application = Throttle(noting, "throttle.yaml")
