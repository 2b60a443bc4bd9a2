"""A small application behind the throttle.yaml of the working directory, for tests under load.

LOOK_EVERY_S in the environment: how often the file is looked at.
"""

from __future__ import annotations

import logging
import os

from wsgi_throttle import Throttle, reload

logging.basicConfig(level=logging.INFO, format="%(process)d %(name)s %(message)s")
reload.LOOK_EVERY_S = float(os.environ.get("LOOK_EVERY_S", reload.LOOK_EVERY_S))


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


application = Throttle(hello, "throttle.yaml")
