"""How frameworks read a log-in: all that an application may take for the e-mail address.

Each reader is given an environ and returns the values that it finds, by the ways in which a view
asks for a field (``form``) or for JSON (``json``). One that refuses the body finds none.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest

NAME = "email"

Reader = Callable[[dict[str, Any]], Iterable[Any]]


class Readers(NamedTuple):
    form: Reader
    json: Reader


def member(document: Any) -> list[Any]:
    return [document[NAME]] if isinstance(document, dict) and NAME in document else []


def werkzeug_readers() -> Readers:
    from werkzeug.wrappers import Request

    return Readers(
        lambda environ: Request(environ).values.getlist(NAME),
        lambda environ: member(Request(environ).get_json(force=True, silent=True)),
    )


def flask_readers() -> Readers:
    from flask import Flask, request

    app = Flask("readers")

    def form(environ: dict[str, Any]) -> list[Any]:
        with app.request_context(environ):
            return request.form.getlist(NAME)

    def by_json(environ: dict[str, Any]) -> list[Any]:
        with app.request_context(environ):
            return member(request.get_json(force=True, silent=True))

    return Readers(form, by_json)


def django_readers() -> Readers:
    from django.core.handlers.wsgi import WSGIRequest

    from frameworks import django_app

    django_app()

    def post(environ: dict[str, Any]) -> list[Any]:
        return list(WSGIRequest(environ).POST.getlist(NAME))

    return Readers(post, lambda environ: member(json.loads(WSGIRequest(environ).body)))


def falcon_readers() -> Readers:
    import falcon

    def form(environ: dict[str, Any]) -> list[Any]:
        request = falcon.Request(environ)
        media = request.get_media()
        if isinstance(media, dict):
            found = media.get(NAME, [])
            return found if isinstance(found, list) else [found]
        # A part's own type decides which of these it has.
        return [
            value
            for part in media
            if part.name == NAME
            for value in (part.data.decode(errors="replace"), part.text)
        ]

    def by_json(environ: dict[str, Any]) -> list[Any]:
        return member(falcon.Request({**environ, "CONTENT_TYPE": "application/json"}).get_media())

    def only_forms(environ: dict[str, Any]) -> list[Any]:
        return [] if "json" in (environ.get("CONTENT_TYPE") or "") else form(environ)

    return Readers(only_forms, by_json)


def bottle_readers() -> Readers:
    import bottle

    return Readers(
        lambda environ: bottle.BaseRequest(environ).forms.getall(NAME),
        lambda environ: member(bottle.BaseRequest(environ).json),
    )


def pyramid_readers() -> Readers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they import is deprecated: cgi, pkg_resources
        from pyramid.request import Request

    def form(environ: dict[str, Any]) -> list[Any]:
        found = Request(environ).params.getall(NAME)
        return [one if isinstance(one, str) else one.value for one in found]

    return Readers(form, lambda environ: member(Request(environ).json_body))


def cherrypy_readers() -> Readers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports is deprecated
        cherrypy = pytest.importorskip("cherrypy", reason="needs cherrypy, of the extra test")

    def read(environ: dict[str, Any], *, is_json: bool) -> list[Any]:
        seen: list[Any] = []

        def login(*_: str, **fields: Any) -> str:
            found = member(cherrypy.request.json) if is_json else fields.get(NAME, [])
            seen.extend(found if isinstance(found, list) else [found])
            return ""

        login.exposed = True  # type: ignore[attr-defined]
        root = SimpleNamespace(login=login)
        tools = {"tools.json_in.on": is_json, "tools.json_in.force": False}
        app = cherrypy.Application(root, "", {"/": {"request.show_tracebacks": False, **tools}})
        cherrypy.log.screen = app.log.screen = False
        answer = app(environ, lambda status, headers, exc_info=None: None)
        b"".join(answer)
        answer.close()
        return [one.fullvalue() if hasattr(one, "fullvalue") else one for one in seen]

    return Readers(
        lambda environ: read(environ, is_json=False), lambda environ: read(environ, is_json=True)
    )


def plain_readers() -> Readers:
    """Without a framework, and without a look at the content type."""

    def body(environ: dict[str, Any]) -> bytes:
        length = environ.get("CONTENT_LENGTH")
        found: bytes = environ["wsgi.input"].read(*([int(length)] if length else []))
        return found

    return Readers(
        lambda environ: parse_qs(body(environ).decode(errors="replace")).get(NAME, []),
        lambda environ: member(json.loads(body(environ))),
    )


READERS: dict[str, Callable[[], Readers]] = {
    "flask": flask_readers,
    "django": django_readers,
    "falcon": falcon_readers,
    "bottle": bottle_readers,
    "pyramid": pyramid_readers,
    "werkzeug": werkzeug_readers,
    "cherrypy": cherrypy_readers,
    "plain": plain_readers,
}
