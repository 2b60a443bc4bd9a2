"""Which requests are CORS preflights."""

from __future__ import annotations

from ..identity import Environ


def is_preflight(environ: Environ) -> bool:
    """Whether an OPTIONS request is a CORS preflight (Fetch standard, section 4.8). Browsers send
    these without a body, cookies or credentials: with any of them it is something else."""
    return (
        "HTTP_ORIGIN" in environ
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        and environ.get("CONTENT_LENGTH") in (None, "", "0")
        and not any(name in environ for name in _NOT_IN_A_PREFLIGHT)
    )


_NOT_IN_A_PREFLIGHT = ("HTTP_TRANSFER_ENCODING", "HTTP_COOKIE", "HTTP_AUTHORIZATION")
