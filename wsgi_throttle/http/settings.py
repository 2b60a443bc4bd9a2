"""What a configuration says of our answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .bodies import KINDS, fill
from .headers import HEADER_STYLES

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class ResponseSettings:
    """How to answer.

    :param headers: one of HEADER_STYLES.
    :param html: a template of the 429's page; None for the built-in one. ``json`` and ``text``
        likewise. ``$retry_after``, ``$limit`` and ``$rule`` stand for their values, ``$$`` for a
        dollar sign.
    :param cors: the origins whose pages may read our answers; ``*`` is any, without credentials.
    :raises ValueError: with what is wrong, and what would be right.
    """

    headers: str = "both"
    html: str | None = None
    json: str | None = None
    text: str | None = None
    cors: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.headers not in HEADER_STYLES:
            known = ", ".join(HEADER_STYLES)
            raise ValueError(f'headers: "{self.headers}" is not known: use one of {known}')
        for kind in KINDS:
            template = getattr(self, kind)
            if template is not None:
                try:
                    fill(kind, template)
                except ValueError as error:
                    raise ValueError(f"{kind}: {error}") from None
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
    """
    :raises ValueError: it is neither ``*`` nor an origin as browsers send it (RFC 6454, section 7).
    """
    right = origin.lower().rstrip("/")
    scheme = right.partition(":")[0]
    right = right.removesuffix(_DEFAULT_PORTS.get(scheme, "/"))
    if origin == "*" or (right == origin and _ORIGIN.fullmatch(origin)):
        return
    remedy = right if _ORIGIN.fullmatch(right) else "https://app.example.com"
    raise ValueError(f'"{origin}" is not an origin as browsers send it: write "{remedy}"')
