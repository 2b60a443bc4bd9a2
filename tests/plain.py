"""A small application behind the throttle.yaml of the working directory, for tests under load.

POLL_EVERY_MS in the environment says how often the file is looked at, in milliseconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from wsgi_throttle import Throttle, reload
from wsgi_throttle.clock import MS

logging.basicConfig(level=logging.INFO, format="%(process)d %(name)s %(message)s")
reload.POLL_EVERY_NS = int(os.environ.get("POLL_EVERY_MS", "500")) * MS


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


application = Throttle(hello, "throttle.yaml")
