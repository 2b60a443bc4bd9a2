"""An application that answers with whose counter a request would be on, and servers for it:
``python peers.py SERVER SOCKET`` serves it on a unix socket."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

import gevent.socket
import waitress
from gevent.pywsgi import WSGIServer
from werkzeug.serving import run_simple

from wsgi_throttle.identity import ClientIP, Clients

clients = Clients(ClientIP())


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = clients.key(environ).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def _gevent(path: str) -> None:
    listener = gevent.socket.socket(gevent.socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    WSGIServer(listener, application, log=None).serve_forever()


SERVERS: dict[str, Callable[[str], None]] = {
    "gevent": _gevent,
    "waitress": lambda path: waitress.serve(application, unix_socket=path),
    "waitress that is told": lambda path: waitress.serve(
        application,
        unix_socket=path,
        trusted_proxy="localhost",
        trusted_proxy_headers="x-forwarded-for",
    ),
    "Werkzeug": lambda path: run_simple(f"unix://{path}", 0, application),
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    SERVERS[sys.argv[1]](sys.argv[2])
