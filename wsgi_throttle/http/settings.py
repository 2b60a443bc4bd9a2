"""What the configuration says about the responses that we send: ``responses``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .bodies import RenderBody
from .headers import HEADER_STYLES

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class ResponseSettings:
    """The headers and bodies of our responses. Immutable.

    :param headers: a key of HEADER_STYLES.
    :param html: renders the HTML page of a 429, see :func:`.compile_body`; None for the built-in
        page. ``json`` and ``text`` likewise.
    :param cors: the origins whose pages may read our responses, or ``*`` for any origin, which may
        then read them without credentials only.
    :raises ValueError: a value that does not fit; the message has the remedy.
    """

    headers: str = "both"
    html: RenderBody | None = None
    json: RenderBody | None = None
    text: RenderBody | None = None
    cors: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.headers not in HEADER_STYLES:
            known = ", ".join(HEADER_STYLES)
            raise ValueError(f'headers: "{self.headers}" is not known: use one of {known}')
        origins = (self.cors,) if isinstance(self.cors, str) else tuple(self.cors)
        if "*" in origins and len(origins) > 1:
            raise ValueError('cors: "*" is every origin: leave the others out')
        for origin in origins:
            try:
                check_origin(origin)
            except ValueError as error:
                raise ValueError(f"cors: {error}") from None
        object.__setattr__(self, "cors", origins)


def check_origin(origin: str) -> None:
    """Check that a text is ``*``, or an origin as browsers spell it in their header ``Origin`` (RFC
    6454, section 7): in lower case, without a default port and without a path.

    :raises ValueError: it is not; the message has the right spelling.
    """
    corrected = origin.lower().rstrip("/")
    scheme = corrected.partition(":")[0]
    corrected = corrected.removesuffix(_DEFAULT_PORTS.get(scheme, "/"))
    if origin == "*" or (corrected == origin and _ORIGIN.fullmatch(origin)):
        return
    remedy = corrected if _ORIGIN.fullmatch(corrected) else "https://app.example.com"
    raise ValueError(f'"{origin}" is not an origin as browsers send it: write "{remedy}"')
