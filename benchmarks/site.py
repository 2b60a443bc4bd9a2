"""The Flask application that gunicorn serves, behind the limiter that the environment names."""

from __future__ import annotations

import os
from pathlib import Path

from . import floor
from .apps import Application, flask, flask_limiter, ours

AMPLE = "10000000 per minute; 100000000 per hour"
"""More than any run needs, since all requests come from one address."""


def make() -> Application:
    limiter, storage = os.environ["BENCH_LIMITER"], os.environ["BENCH_STORAGE"]
    if limiter == "wsgi_throttle":
        return ours(flask().wsgi_app, storage, "server", default_limits=AMPLE)
    if limiter == "Flask-Limiter":
        return flask_limiter(storage, "server", AMPLE)
    if limiter == floor.FIVE_HEADERS:
        return floor.five_headers(flask().wsgi_app, Path(storage))
    return flask().wsgi_app


application = make()
