"""Finds the user in session cookies that the application signed. Signatures are verified as Flask
and Django verify them, and verified cookies are cached."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

from itsdangerous import BadData, URLSafeTimedSerializer

from ..cache import Bounded
from .cookies import CookieReader, cookie_reader, django_cookie_reader

MAX_CACHED = 4096
"""How many verified cookies are cached."""

MAX_CACHED_LENGTH = 2048
"""A longer cookie, in characters, is not cached, so that the cache takes 8 MB at most."""

SUSPICIOUS_FAILURES = 10
"""If none of this many cookies is valid, a warning says that the settings may be wrong."""

DAY_S = 24 * 3600

_log = logging.getLogger("wsgi_throttle")


class Verified(NamedTuple):
    """What a valid cookie contains: its signature is right and it has not expired."""

    payload: Any
    """The session, decoded from JSON."""
    expires_s: float
    """When the cookie expires, in seconds since the epoch."""


Verify: TypeAlias = Callable[[str], "Verified | None"]
"""Function of a cookie's value that returns what it contains, or None where the cookie is forged,
expired, truncated, or signed with another key or salt."""


def _flask_verifier(secret_keys: Sequence[str], salt: str, lifetime_s: int) -> Verify:
    """Verify as Flask's SecureCookieSessionInterface does."""
    serializer = URLSafeTimedSerializer(
        list(secret_keys),
        salt=salt,
        serializer=json,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )

    def verify(cookie: str) -> Verified | None:
        try:
            payload, signed = serializer.loads(cookie, max_age=lifetime_s, return_timestamp=True)
        except BadData:
            return None
        return Verified(payload, signed.timestamp() + lifetime_s)

    return verify


def _django_verifier(secret_keys: Sequence[str], salt: str, lifetime_s: int) -> Verify:
    """Let Django verify, as its signed_cookies session backend does."""
    signing = import_module("django.core.signing")  # here, since not everybody has Django
    signer = signing.TimestampSigner(
        key=secret_keys[0], fallback_keys=list(secret_keys[1:]), salt=salt
    )

    def verify(cookie: str) -> Verified | None:
        try:
            payload = signer.unsign_object(cookie, max_age=lifetime_s)
            signed_s = signing.b62_decode(cookie.rsplit(":", 2)[1])
        except (signing.BadSignature, ValueError, zlib.error):
            return None
        return Verified(payload, signed_s + lifetime_s)

    return verify


class Framework(NamedTuple):
    """How a framework keeps sessions in signed cookies, and its defaults."""

    cookie: str
    """The cookie's name."""
    salt: str
    """Signed together with the value, so that a signature made for another purpose is not valid."""
    lifetime_s: int
    """Seconds for which a cookie is valid after it was signed."""
    user: tuple[str, ...]
    """The names under which a session may have the user's id."""
    cookie_reader: Callable[[str], CookieReader]
    """Function of (the cookie's name) that makes its reader."""
    verifier: Callable[[Sequence[str], str, int], Verify]
    """Function of (the secret keys, any of which may have signed; the salt; the lifetime in
    seconds) that makes the function that verifies."""
    package: str | None = None
    """The package that must be installed for this."""


FRAMEWORKS = {
    "flask": Framework(
        cookie="session",
        salt="cookie-session",
        lifetime_s=31 * DAY_S,
        user=("user_id", "_user_id"),  # the second is Flask-Login's
        cookie_reader=cookie_reader,
        verifier=_flask_verifier,
    ),
    "django": Framework(
        cookie="sessionid",
        salt="django.contrib.sessions.backends.signed_cookies",
        lifetime_s=14 * DAY_S,
        user=("_auth_user_id",),
        cookie_reader=django_cookie_reader,
        verifier=_django_verifier,
        package="django",
    ),
}


class SignedCookie:
    """Finds the user in a signed cookie that contains the session. A request whose cookie is
    missing or not valid is anonymous.

    Only valid cookies are cached, and only until they expire, so that strangers cannot fill the
    cache. Any thread may call it; two that race for one cookie both verify it.

    :param read: reads the cookie of a request.
    :param verify: verifies its value.
    :param find_user: function of a session that returns its user, or None for an anonymous one.
    """

    def __init__(
        self, read: CookieReader, verify: Verify, find_user: Callable[[Any], str | None]
    ) -> None:
        self._read = read
        self._verify = verify
        self._find_user = find_user
        self._users: Bounded[str, tuple[str | None, float]] = Bounded(MAX_CACHED)
        self._failures: int | None = 0  # None once a cookie has been verified

    def __call__(self, environ: dict[str, Any]) -> str | None:
        """The user of this request; None if it is anonymous."""
        cookie = self._read(environ)
        if not cookie:
            return None
        cached = self._users.get(cookie)
        if cached is not None:
            user, expires_s = cached
            if time.time() < expires_s:
                return user
            self._users.pop(cookie, None)
        verified = self._verify(cookie)
        if verified is None:
            self._count_failure()
            return None
        self._failures = None
        user = self._find_user(verified.payload)
        if len(cookie) <= MAX_CACHED_LENGTH:
            self._users.keep(cookie, (user, verified.expires_s))
        return user

    def _count_failure(self) -> None:
        failures = self._failures
        if failures is None:
            return
        self._failures = failures + 1
        if failures + 1 == SUSPICIOUS_FAILURES:
            _log.warning(
                "none of the first %d session cookies has a valid signature, so all users count "
                "as anonymous: check secret_key, salt and kind of session; if sessions are stored "
                "on the server, write kind: python:package.module:function",
                SUSPICIOUS_FAILURES,
            )
