"""Which kind of body a client prefers, by its Accept header."""

from __future__ import annotations

from werkzeug.wrappers import Request

MAX_ACCEPT = 512
"""How many characters of an Accept header are read."""


def negotiate(accept: str) -> str:
    """The kind of body that an Accept header (RFC 9110, section 12.5.1) prefers: ``html``, ``json``
    or ``text``.

    HTML has to be named, as browsers do: a wildcard is not enough. Of kinds that are equally
    welcome, HTML goes before JSON, and JSON before text.
    """
    if not accept.strip():
        return "json"
    qualities: dict[str, float] = {}
    for value, quality in Request({"HTTP_ACCEPT": accept}, populate_request=False).accept_mimetypes:
        media_range = value.partition(";")[0].strip().lower()
        qualities[media_range] = max(quality, qualities.get(media_range, 0))
    json = max(
        _quality(qualities, "application/problem+json"), _quality(qualities, "application/json")
    )
    text = _quality(qualities, "text/plain")
    html = qualities.get("text/html", 0)
    if html and html >= max(json, text):
        return "html"
    return "json" if json and json >= text else "text"


def _quality(qualities: dict[str, float], media_type: str) -> float:
    """The quality of a media type: that of the most specific range that includes it."""
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*", "*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0
