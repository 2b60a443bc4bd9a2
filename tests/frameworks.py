"""The same small application in Flask, Django, Falcon and bare WSGI, for tests that compare them.

GET /page answers "page". POST /echo answers with the body that it was sent. GET /stream sends
"one", "two" and "three"; it appends each word to PROGRESS before it sends it, and "closed" at the
end. If the environment variable GATES names a folder, each word waits until a file of its name is
there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.servers import wait_until

WSGI = Callable[..., Any]

PROGRESS: list[str] = []


def chunks() -> Iterator[bytes]:
    try:
        for word in ("one", "two", "three"):
            if gates := os.environ.get("GATES"):
                wait_until((Path(gates) / word).exists, what=f"the gate {word}")
            PROGRESS.append(word)
            yield word.encode()
    finally:
        PROGRESS.append("closed")


def flask_app() -> WSGI:
    from flask import Flask, Response, request

    app = Flask("frameworks")
    app.add_url_rule("/page", view_func=lambda: "page", endpoint="page")
    app.add_url_rule("/stream", view_func=lambda: Response(chunks()), endpoint="stream")
    app.add_url_rule("/echo", view_func=lambda: request.data, endpoint="echo", methods=["POST"])
    return app


class DjangoURLs:
    urlpatterns: list[Any]


def django_app() -> WSGI:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    DjangoURLs.urlpatterns = [
        path("page", lambda request: HttpResponse("page")),
        path("stream", lambda request: StreamingHttpResponse(chunks())),
        path("echo", lambda request: HttpResponse(request.body)),
    ]
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=DjangoURLs)
    application: WSGI = get_wsgi_application()
    return application


def falcon_app() -> WSGI:
    import falcon

    class Page:
        def on_get(self, request: Any, response: Any) -> None:
            response.text = "page"

    class Stream:
        def on_get(self, request: Any, response: Any) -> None:
            response.stream = chunks()

    class Echo:
        def on_post(self, request: Any, response: Any) -> None:
            response.data = request.bounded_stream.read()

    app = falcon.App()
    for route, resource in {"/page": Page(), "/stream": Stream(), "/echo": Echo()}.items():
        app.add_route(route, resource)
    return app


def bare_app() -> WSGI:
    def application(environ: dict[str, Any], start_response: WSGI) -> Any:
        path = environ["PATH_INFO"]
        status = "200 OK" if path in ("/page", "/stream", "/echo") else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        if path == "/stream":
            return chunks()
        if path == "/echo":
            return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]
        return [path[1:].encode()]

    return application


APPLICATIONS = {"flask": flask_app, "django": django_app, "falcon": falcon_app, "bare": bare_app}
