"""The application's own page in place of ours: gunicorn examples.own_page:application"""

from __future__ import annotations

from typing import Any

from flask import Response, render_template

from wsgi_throttle import Decision, Throttle

from .demo import app


def limited(environ: dict[str, Any], decision: Decision) -> Response | None:
    """What answers a refused request, as a WSGI application; None leaves it to the middleware."""
    if environ["PATH_INFO"].startswith("/api/"):
        return None
    # A page may use the request, the session and url_for, as any other page does.
    with app.request_context(environ):
        page = render_template("limited.html", seconds=decision.retry_after_s)
    return Response(page, 429)


application = Throttle(app, "config.example.yaml", on_limit=limited)
