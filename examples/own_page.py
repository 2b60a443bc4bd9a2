"""The demo, answering a client over its limit with a page that the application itself makes.

Serve it with: gunicorn examples.own_page:application
"""

from __future__ import annotations

from typing import Any

from flask import Response, render_template

from wsgi_throttle import Decision, Throttle

from .demo import app


def limited(environ: dict[str, Any], decision: Decision) -> Response | None:
    """Return a WSGI application to answer the refused request, or None for the built-in answer."""
    if environ["PATH_INFO"].startswith("/api/"):
        return None
    # Inside a request context the template can use the session and url_for, as in a view.
    with app.request_context(environ):
        page = render_template("limited.html", seconds=decision.retry_after_s)
    return Response(page, 429)


application = Throttle(app, "config.example.yaml", on_limit=limited)
