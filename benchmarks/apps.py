"""The applications, the limiters in front of them, and the requests that they get."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from flask import Flask, render_template_string
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from wsgi_throttle import Throttle

Environ: TypeAlias = "dict[str, Any]"
Application: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

CLIENTS = 100

LIMITS = {
    1: "1000 per hour",
    2: "1000 per hour; 10000 per day",
    4: "1000 per hour; 10000 per day; 50000 per 7 days; 200000 per 30 days",
}
"""The key is how many limits there are. No contender reaches a limit, and windows stay nearly empty
unless a contender's name says that they are full."""
SPENT = "1 per hour; 2 per day"
"""Limits that are used up after a few requests."""


def null(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def flask() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=home)
    app.add_url_rule("/exempt", view_func=exempt)
    app.add_url_rule("/page", view_func=page)
    return app


def home() -> str:
    return "ok"


def page() -> str:
    """A small page as real views make them: a template with a table."""
    return render_template_string(PAGE, rows=ROWS)


PAGE = """<!doctype html><title>Orders</title><h1>Orders</h1><table>{% for row in rows %}
<tr><td>{{ row.number }}</td><td><a href="/orders/{{ row.number }}">{{ row.who }}</a></td>
<td>{{ "%.2f" | format(row.cents / 100) }}</td></tr>{% endfor %}</table>"""
ROWS = [{"number": n, "who": f"Client <{n}>", "cents": n * 995} for n in range(50)]


def exempt() -> str:
    return "ok"


def ours(app: Application, storage: str, namespace: str, **config: Any) -> Throttle:
    """The application behind wsgi_throttle.

    ``storage_timeout`` is long, so that a busy machine is not taken for a Redis that is down.

    :param config: options of the top level; None leaves out one that is given here by default.
    """
    given = {"default_limits": LIMITS[2], "storage_timeout": "2 s", **config}
    given |= {"storage": storage, "namespace": namespace}
    return Throttle(app, {name: value for name, value in given.items() if value is not None})


def flask_limiter(
    storage: str, namespace: str, limits: str = LIMITS[2], strategy: str = "fixed-window"
) -> Application:
    """A Flask application with Flask-Limiter, set up as its documentation says. Its default
    strategy is fixed-window."""
    app = flask()
    limiter = Limiter(
        get_remote_address,
        app=app,
        default_limits=[limits],
        storage_uri=storage,
        strategy=strategy,
        headers_enabled=True,
        key_prefix=namespace,
    )
    limiter.exempt(exempt)
    return app.wsgi_app


def address(number: int) -> str:
    """The address of client ``number``: a public one, as a private one could be taken for a
    proxy."""
    return f"20.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def clients(count: int = CLIENTS, **environ: str) -> list[Environ]:
    """For each client, the part of the environ that is its own.

    :param environ: added for every client.
    """
    return [{"REMOTE_ADDR": address(number), **environ} for number in range(count)]


def requests(varying: Sequence[Environ]) -> Callable[[int], list[Environ]]:
    """A function that makes the environs of a number of requests.

    :param varying: what is different from request to request; they are taken in turn.
    """
    common = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": None,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    templates = [{**common, **environ} for environ in varying]

    def make(count: int) -> list[Environ]:
        return [templates[number % len(templates)].copy() for number in range(count)]

    return make


def caller(app: Application, status: str = "200") -> Callable[[Environ], None]:
    """A function that does with a request what a server does.

    :param status: how the status line has to begin; empty allows any.
    """

    def start_response(given: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        assert given.startswith(status), given
        return write

    def call(environ: Environ) -> None:
        body = app(environ, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    return call


def write(data: bytes) -> None:
    raise AssertionError("nobody here uses write()")
