"""The same small site for the routers of several frameworks, to find out which paths reach its
views.

Each view appends its name to the list ``environ[RAN]``, and answers 200. The names of the views are
the keys of PATHS, which are also the names of the rules that limit them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from posixpath import normpath
from typing import Any
from uuid import UUID

from frameworks import WSGI, django_app

RAN = "tests.ran"

PATHS = {
    "login": "/login",
    "report": "/report/",
    "edit": "/users/<id>/edit",
    "item": "/items/<int:id>",
    "file": "/files/<path:name>/raw",
    "order": "/orders/<uuid:id>",
}
"""Each view's path, as a rule writes it."""

OTHER_NUMBERS = dict.fromkeys(("bottle", "falcon", "converting"), "/items/<int(signed=True):id>")
"""The path of ``item`` for applications that take negative numbers too."""

UUID_TEXT = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

NAMES = tuple(PATHS)


def flask_site() -> WSGI:
    from flask import Flask, request

    def view(name: str) -> Callable[..., str]:
        def run(**_: Any) -> str:
            request.environ[RAN].append(name)
            return name

        return run

    app = Flask("routers")
    for name, path in PATHS.items():
        app.add_url_rule(path, endpoint=name, view_func=view(name))
    return app


class DjangoSite:
    """The module that ROOT_URLCONF names."""

    urlpatterns: list[Any]
    handler404: Any


def django_site() -> WSGI:
    """With both kinds of Django's patterns. Its regular expressions end in ``$``, as many do."""
    from django.http import HttpResponse
    from django.test.utils import override_settings
    from django.urls import path, re_path

    def view(name: str) -> Callable[..., HttpResponse]:
        def run(request: Any, *_: Any, **__: Any) -> HttpResponse:
            request.environ[RAN].append(name)
            return HttpResponse(name)

        return run

    DjangoSite.urlpatterns = [
        path("login", view("login")),
        re_path(r"^report/$", view("report")),
        path("users/<str:id>/edit", view("edit")),
        re_path(r"^items/(?P<id>\d+)$", view("item")),
        path("files/<path:name>/raw", view("file")),
        path("orders/<uuid:id>", view("order")),
    ]
    DjangoSite.handler404 = staticmethod(lambda request, exception: HttpResponse(status=404))
    application = django_app()

    def app(environ: dict[str, Any], start_response: WSGI) -> Any:
        with override_settings(ROOT_URLCONF=DjangoSite):
            return application(environ, start_response)

    return app


def falcon_site() -> WSGI:
    import falcon

    class View:
        def __init__(self, name: str) -> None:
            self.name = name

        def on_get(self, request: Any, response: Any, **_: Any) -> None:
            request.env[RAN].append(self.name)

    app = falcon.App()
    app.req_options.strip_url_path_trailing_slash = True
    routes = ["/login", "/report", "/users/{id}/edit", "/items/{id:int}", "/files/{name}/raw"]
    routes.append("/orders/{id:uuid}")
    for name, route in zip(NAMES, routes, strict=True):
        app.add_route(route, View(name))
    return app


def bottle_site() -> WSGI:
    import bottle

    def view(name: str) -> Callable[..., str]:
        def run(**_: Any) -> str:
            bottle.request.environ[RAN].append(name)
            return name

        return run

    app = bottle.Bottle()
    routes = ["/login", "/report/", "/users/<id>/edit", "/items/<id:int>", "/files/<name:path>/raw"]
    routes.append(f"/orders/<id:re:{UUID_TEXT}>")
    for name, route in zip(NAMES, routes, strict=True):
        app.route(route, callback=view(name))
    application: WSGI = app
    return application


def pyramid_site() -> WSGI:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they import the deprecated cgi and pkg_resources
        from pyramid.config import Configurator
        from pyramid.exceptions import URLDecodeError
        from pyramid.response import Response

    def view(name: str) -> Callable[[Any], Response]:
        def run(request: Any) -> Response:
            request.environ[RAN].append(name)
            return Response(name)

        return run

    routes = ["/login", "/report/", "/users/{id}/edit", r"/items/{id:\d+}", "/files/{name:.+}/raw"]
    routes.append(f"/orders/{{id:{UUID_TEXT}}}")
    config = Configurator()
    for name, route in zip(NAMES, routes, strict=True):
        config.add_route(name, route)
        config.add_view(view(name), route_name=name)
    application = config.make_wsgi_app()

    def app(environ: dict[str, Any], start_response: WSGI) -> Any:
        try:
            return application(environ, start_response)
        except URLDecodeError:  # Pyramid does not answer it itself
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [b""]

    return app


def werkzeug_site() -> WSGI:
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import Map, Rule
    from werkzeug.wrappers import Response

    rules = [Rule(path, endpoint=name) for name, path in PATHS.items()]
    routes = Map(rules, strict_slashes=False, merge_slashes=False)

    def app(environ: dict[str, Any], start_response: WSGI) -> Any:
        try:
            name, _ = routes.bind_to_environ(environ).match()
        except HTTPException as error:
            return error.get_response(environ)(environ, start_response)
        environ[RAN].append(name)
        return Response(name)(environ, start_response)

    return app


def re_site(read: Callable[[str], str] = str) -> WSGI:
    """A router as people write it by hand: regular expressions that end in ``$``.

    :param read: makes of PATH_INFO the text that they match; by default the same text.
    """
    expressions = [
        r"^/login$",
        r"^/report/?$",
        r"^/users/([^/]+)/edit$",
        r"^/items/(\d+)$",
        r"^/files/(.+)/raw$",
        rf"^/orders/{UUID_TEXT}$",
    ]
    routes = dict(zip(NAMES, map(re.compile, expressions), strict=True))

    def app(environ: dict[str, Any], start_response: WSGI) -> Any:
        path = read(environ["PATH_INFO"])
        for name, expression in routes.items():
            if expression.match(path):
                environ[RAN].append(name)
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [name.encode()]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b""]

    return app


def resolving_site() -> WSGI:
    """The same, after ``.`` and ``..`` in the path were resolved."""
    return re_site(lambda path: normpath(path.encode("latin-1").decode(errors="replace")))


def stripping_site() -> WSGI:
    """The same, after white space was stripped from every segment."""

    def read(path: str) -> str:
        segments = path.encode("latin-1").decode(errors="ignore").split("/")
        return "/" + "/".join(filter(None, map(str.strip, segments)))

    return re_site(read)


def converting_site() -> WSGI:
    """What people write by hand: segments, of which ``int()`` and ``UUID()`` read the ids."""

    def accepts(convert: Callable[[str], object], text: str) -> bool:
        try:
            convert(text)
        except ValueError:
            return False
        return True

    def app(environ: dict[str, Any], start_response: WSGI) -> Any:
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
        match path.rstrip("/").split("/"):
            case ["", "login" | "report" as name]:
                found = name
            case ["", "users", _, "edit"]:
                found = "edit"
            case ["", "items", number] if accepts(int, number):
                found = "item"
            case ["", "files", *names, "raw"] if "".join(names):
                found = "file"
            case ["", "orders", text] if accepts(UUID, text):
                found = "order"
            case _:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b""]
        environ[RAN].append(found)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [found.encode()]

    return app


SITES: dict[str, Callable[[], WSGI]] = {
    "flask": flask_site,
    "django": django_site,
    "falcon": falcon_site,
    "bottle": bottle_site,
    "pyramid": pyramid_site,
    "werkzeug": werkzeug_site,
    "re": re_site,
    "resolving": resolving_site,
    "stripping": stripping_site,
    "converting": converting_site,
}
