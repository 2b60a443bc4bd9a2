"""The applications that are limited, what limits them, and the requests that they get."""

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
"""By how many they are. No contender reaches one, nor do its windows fill unless it is said."""
SPENT = "1 per hour; 2 per day"


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
    """What a view does at the least that shows somebody something."""
    return render_template_string(PAGE, rows=ROWS)


PAGE = """<!doctype html><title>Orders</title><h1>Orders</h1><table>{% for row in rows %}
<tr><td>{{ row.number }}</td><td><a href="/orders/{{ row.number }}">{{ row.who }}</a></td>
<td>{{ "%.2f" | format(row.cents / 100) }}</td></tr>{% endfor %}</table>"""
ROWS = [{"number": n, "who": f"Client <{n}>", "cents": n * 995} for n in range(50)]


def exempt() -> str:
    return "ok"


def ours(app: Application, storage: str, namespace: str, **config: Any) -> Throttle:
    """``storage_timeout`` is long, lest a busy machine is taken for a Redis that is down."""
    given = {"default_limits": LIMITS[2], "storage_timeout": "2 s", **config}
    given |= {"storage": storage, "namespace": namespace}
    return Throttle(app, {name: value for name, value in given.items() if value is not None})


def flask_limiter(
    storage: str, namespace: str, limits: str = LIMITS[2], strategy: str = "fixed-window"
) -> Application:
    """Flask-Limiter as its documentation sets it up; fixed-window is its default."""
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
    """One that could be a client's, not a proxy's."""
    return f"20.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def clients(count: int = CLIENTS, **environ: str) -> list[Environ]:
    """What so many clients send."""
    return [{"REMOTE_ADDR": address(number), **environ} for number in range(count)]


def requests(varying: Sequence[Environ]) -> Callable[[int], list[Environ]]:
    """A function that makes the environs of so many requests, as these vary, in turn."""
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
    """What a server does with a request.

    :param status: what is to be answered; anything, where it is empty.
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
