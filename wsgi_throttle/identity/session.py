"""The user of a session, believed only where the server itself signed it or set it."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias

from itsdangerous import BadData, URLSafeTimedSerializer

from ..cache import Bounded
from ..hooks import Hook
from ..log_once import Notices
from .cookies import CookieReader, cookie_reader, django_cookie_reader

UserReader: TypeAlias = Callable[[dict[str, Any]], str | None]
"""The user of a request as text; None for an anonymous one."""

REMEMBERED = 4096
"""Verified cookies that are kept."""

REMEMBERED_LENGTH = 2048
"""Characters of a cookie that is worth keeping, which bounds the table at 8 MB."""

SUSPICIOUS = 10
"""How many cookies must fail, with none that verifies, before the settings are doubted."""


@dataclass(frozen=True)
class Session:
    """Where ``session-user`` finds the user. What is None has the framework's own default.

    :raises ValueError: a value that does not fit; the message has the remedy and no secret.
    """

    kind: str
    """``flask`` or ``django`` (sessions in signed cookies), ``environ``, or
    ``python:package.module:function``."""
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    """The application's keys; a cookie that any of them signed is good."""
    cookie: str | None = None
    """The name of the session's cookie: ``session`` in Flask, ``sessionid`` in Django."""
    user: tuple[str, ...] = ()
    """Names to look for in the session; the first that is there counts. Dots go into nested
    mappings. Of kind ``environ`` they are places in the WSGI environ, by default
    ``REMOTE_USER``."""
    lifetime_s: int | None = None
    """A cookie is good for so long after it was signed: 31 days in Flask, 14 in Django."""
    salt: str | None = None
    """What the framework signs with besides the key, if the application changed it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret_keys", tuple(self.secret_keys))
        object.__setattr__(self, "user", tuple(self.user))
        if self.kind not in KINDS and not self.kind.startswith("python:"):
            raise ValueError(
                f'"{self.kind}" is not a kind of session: use one of {", ".join(KINDS)} or '
                "python:package.module:function"
            )
        if self.kind in SIGNED:
            if not self.secret_keys or not all(self.secret_keys):
                raise ValueError(
                    f"sessions of kind {self.kind} need secret_key, the application's own: write "
                    "secret_key: ${SECRET_KEY} and set it in the environment"
                )
        elif self.secret_keys or self.cookie or self.salt or self.lifetime_s is not None:
            raise ValueError(
                "secret_key, cookie, salt and lifetime mean nothing to sessions of kind "
                f"{self.kind}: remove them, or use a kind that has them ({', '.join(SIGNED)})"
            )
        if self.lifetime_s is not None and self.lifetime_s <= 0:
            raise ValueError(f"lifetime is {self.lifetime_s} s: it must be longer than 0")
        if not all(self.user):
            raise ValueError("user has an empty name: write user: [user_id]")
        if self.kind == "django" and find_spec("django") is None:
            raise ValueError(
                "sessions of kind django are verified by Django itself, which is not installed: "
                "install the application's Django, or use another kind"
            )


class Verified(NamedTuple):
    """What a signed cookie says."""

    payload: Any
    expires_s: float
    """By the wall clock, as the stamps in cookies are."""


def user_reader(session: Session) -> UserReader:
    """The function that finds the user of a request."""
    if session.kind.startswith("python:"):
        return Hook(session.kind.partition(":")[2], hook_text)
    return KINDS[session.kind](session)


def _flask(session: Session) -> UserReader:
    lifetime_s = session.lifetime_s or 31 * 24 * 3600
    serializer = URLSafeTimedSerializer(
        list(session.secret_keys),
        salt=session.salt or "cookie-session",
        serializer=json,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )

    def verify(cookie: str) -> Verified | None:
        try:
            payload, signed = serializer.loads(cookie, max_age=lifetime_s, return_timestamp=True)
        except BadData:
            return None
        return Verified(payload, signed.timestamp() + lifetime_s)

    return SignedCookie(
        cookie_reader(session.cookie or "session"), verify, session.user or ("user_id", "_user_id")
    )


def _django(session: Session) -> UserReader:
    signing = import_module("django.core.signing")  # only for who has Django
    lifetime_s = session.lifetime_s or 14 * 24 * 3600
    signer = signing.TimestampSigner(
        key=session.secret_keys[0],
        fallback_keys=list(session.secret_keys[1:]),
        salt=session.salt or "django.contrib.sessions.backends.signed_cookies",
    )

    def verify(cookie: str) -> Verified | None:
        try:
            payload = signer.unsign_object(cookie, max_age=lifetime_s)
            signed_s = signing.b62_decode(cookie.rsplit(":", 2)[1])
        except (signing.BadSignature, ValueError, zlib.error):
            return None
        return Verified(payload, signed_s + lifetime_s)

    return SignedCookie(
        django_cookie_reader(session.cookie or "sessionid"),
        verify,
        session.user or ("_auth_user_id",),
    )


def _environ(session: Session) -> UserReader:
    places = [place_reader(name) for name in session.user or ("REMOTE_USER",)]

    def read(environ: dict[str, Any]) -> str | None:
        for place in places:
            user = user_text(place(environ))
            if user is not None:
                return user
        return None

    return read


SIGNED = ("flask", "django")
"""The kinds whose session is a cookie that the framework signs."""

KINDS: dict[str, Callable[[Session], UserReader]] = {
    "flask": _flask,
    "django": _django,
    "environ": _environ,
}


class SignedCookie:
    """The user in a cookie that carries its session. Forged, expired and foreign: anonymous.

    Only verified cookies are remembered, and no longer than they are good, so that nothing a
    stranger sends can fill the table. Any thread may call it.
    """

    def __init__(
        self,
        read: CookieReader,
        verify: Callable[[str], Verified | None],
        names: tuple[str, ...],
    ) -> None:
        self._read = read
        self._verify = verify
        self._names = [(name, name.split(".")) for name in names]
        self._users: Bounded[str, tuple[str | None, float]] = Bounded(REMEMBERED)
        self._failures = 0
        self._notice = Notices()

    def __call__(self, environ: dict[str, Any]) -> str | None:
        """The user of this request, or None."""
        cookie = self._read(environ)
        if not cookie:
            return None
        known = self._users.get(cookie)
        if known is not None:
            user, expires_s = known
            if time.time() < expires_s:
                return user
            self._users.pop(cookie, None)
        verified = self._verify(cookie)
        if verified is None:
            self._fail()
            return None
        self._failures = -1
        user = self._user(verified.payload)
        if len(cookie) <= REMEMBERED_LENGTH:
            self._users.keep(cookie, (user, verified.expires_s))
        return user

    def _user(self, session: Any) -> str | None:
        for name, parts in self._names:
            user = user_text(_find(session, name, parts))
            if user is not None:
                return user
        return None

    def _fail(self) -> None:
        if self._failures < 0:
            return
        self._failures += 1
        if self._failures == SUSPICIOUS:
            self._notice(
                "none",
                logging.WARNING,
                "none of the first %d session cookies was signed as session: says, so everybody "
                "counts as anonymous: check secret_key, salt and kind; sessions that the server "
                "stores are read with kind: python:package.module:function",
                SUSPICIOUS,
            )


def user_text(user: Any) -> str | None:
    """A user's id as text, so that 42 and "42" are one; None for what names nobody."""
    if isinstance(user, dict) and len(user) == 1:
        tag, user = next(iter(user.items()))
        if tag not in _TAGS:
            return None
    if isinstance(user, str):
        return user or None
    if isinstance(user, int) and not isinstance(user, bool):
        return str(user)
    return None


_TAGS = frozenset({" u", " b", " m"})
"""How Flask's sessions write UUIDs, bytes and Markup: as an object of one tagged text."""


def hook_text(value: Any) -> str | None:
    """What a hook may return: text, a whole number, or None and the empty text for nobody.

    :raises ValueError: anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"it returned a {type(value).__name__}: return a str, an int or None")


def _find(session: Any, name: str, parts: list[str]) -> Any:
    if not isinstance(session, Mapping):
        return None
    if name in session:
        return session[name]
    found: Any = session
    for part in parts:
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def place_reader(name: str) -> Callable[[dict[str, Any]], Any]:
    """Read a place in the WSGI environ: ``REMOTE_USER``, ``beaker.session``, or with a dotted rest
    something inside: ``beaker.session.user_id``. What is not there, or fails, is None."""
    parts = name.split(".")
    notice = Notices(60.0)

    def read(environ: dict[str, Any]) -> Any:
        if name in environ:
            return environ[name]
        for length in range(len(parts) - 1, 0, -1):
            found = environ.get(".".join(parts[:length]))
            if found is not None:
                return inside(found, parts[length:])
        return None

    def inside(found: Any, rest: list[str]) -> Any:
        try:
            for part in rest:
                found = found[part]
        except (KeyError, TypeError):
            return None
        except Exception:  # noqa: BLE001 - a session that is loaded when it is first read
            notice(
                "failed",
                logging.ERROR,
                "reading %s from the environ failed and counts as having found nothing (said once "
                "a minute at most)",
                name,
                exc_info=True,
            )
            return None
        return found

    return read
