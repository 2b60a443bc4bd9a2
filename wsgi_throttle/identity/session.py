"""Finds the logged-in user of a request.

A client cannot claim to be another user: the user comes from a session that the application signed
or stored, or from a variable that a middleware in front of us put into the environ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

from ..clock import MONOTONIC, Clock
from ..hooks import LOG_PERIOD_S, Hook
from ..log_once import LogOnce
from .signed_cookie import FRAMEWORKS, SignedCookie

UserReader: TypeAlias = Callable[[dict[str, Any]], str | None]
"""Function of the environ that returns the user as text, or None for an anonymous request."""

SESSION_KINDS = (*FRAMEWORKS, "environ")
"""The named kinds of session. Any other kind is a ``python:`` function."""


@dataclass(frozen=True)
class Session:
    """Where ``session-user`` finds the user. What is None or empty has the framework's default.

    :raises ValueError: a value that does not fit; the message has the remedy and no secret.
    """

    kind: str
    """``flask`` or ``django`` (sessions in signed cookies), ``environ``, or
    ``python:package.module:function``."""
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    """The application's secret keys. A cookie is valid if any of them signed it."""
    cookie: str | None = None
    """The name of the session's cookie: ``session`` in Flask, ``sessionid`` in Django."""
    user: tuple[str, ...] = ()
    """The names under which the session may have the user, of which the first that has a value
    counts. A dot leads into a nested mapping. For kind ``environ`` they are variables of the WSGI
    environ, by default ``REMOTE_USER``."""
    lifetime_s: int | None = None
    """Seconds for which a cookie is valid after it was signed: 31 days in Flask, 14 in Django."""
    salt: str | None = field(default=None, repr=False)
    """The framework's salt for signatures, if the application changed it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret_keys", tuple(self.secret_keys))
        object.__setattr__(self, "user", tuple(self.user))
        if self.kind not in SESSION_KINDS and not self.kind.startswith("python:"):
            raise ValueError(
                f"this is not a kind of session: use one of {', '.join(SESSION_KINDS)} or "
                "python:package.module:function"
            )
        framework = FRAMEWORKS.get(self.kind)
        if framework is not None:
            if not self.secret_keys or not all(self.secret_keys):
                raise ValueError(
                    f"sessions of kind {self.kind} need secret_key, the application's own: write "
                    "secret_key: ${SECRET_KEY} and set it in the environment"
                )
        elif self.secret_keys or self.cookie or self.salt or self.lifetime_s is not None:
            raise ValueError(
                "secret_key, cookie, salt and lifetime mean nothing to sessions of kind "
                f"{self.kind}: remove them, or use a kind that has them ({', '.join(FRAMEWORKS)})"
            )
        if self.lifetime_s is not None and self.lifetime_s <= 0:
            raise ValueError(f"lifetime is {self.lifetime_s} s: it must be longer than 0")
        if not all(self.user):
            raise ValueError("user has an empty name: write user: [user_id]")
        if framework is not None and framework.package and find_spec(framework.package) is None:
            raise ValueError(
                f"sessions of kind {self.kind} are verified by {framework.package} itself, which "
                f"is not installed: install the {framework.package} of the application, or use "
                "another kind"
            )


def user_reader(session: Session, *, clock: Clock = MONOTONIC) -> UserReader:
    """Make the function that finds the user of a request. Any thread may call it, and nothing that
    a client sends makes it raise.

    :param clock: for messages that are logged once a minute. It may not step back.
    :raises ValueError: the ``python:`` function cannot be loaded.
    """
    if session.kind.startswith("python:"):
        return Hook(session.kind.partition(":")[2], hook_text, clock=clock)
    framework = FRAMEWORKS.get(session.kind)
    if framework is None:
        return _environ_user_reader(session.user or ("REMOTE_USER",), clock)
    return SignedCookie(
        framework.cookie_reader(session.cookie or framework.cookie),
        framework.verifier(
            session.secret_keys,
            session.salt or framework.salt,
            session.lifetime_s or framework.lifetime_s,
        ),
        partial(
            _user_in, names=[(name, name.split(".")) for name in session.user or framework.user]
        ),
    )


def _environ_user_reader(names: tuple[str, ...], clock: Clock) -> UserReader:
    readers = [environ_reader(name, clock=clock) for name in names]

    def read(environ: dict[str, Any]) -> str | None:
        for read_value in readers:
            user = user_text(read_value(environ))
            if user is not None:
                return user
        return None

    return read


def environ_reader(name: str, *, clock: Clock = MONOTONIC) -> Callable[[dict[str, Any]], Any]:
    """Make the function that reads a variable of the WSGI environ, such as ``REMOTE_USER``.

    The name may lead on into the variable's value: if there is no variable
    ``beaker.session.user_id``, it means the ``user_id`` in the variable ``beaker.session``. The
    function returns None where the value is missing. It does the same, and logs the exception,
    where reading fails, such as for a session whose database is down.

    :param clock: for messages that are logged once a minute. It may not step back.
    """
    parts = name.split(".")
    log_once = LogOnce(LOG_PERIOD_S, clock=clock)

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
        except Exception:  # noqa: BLE001 - some libraries load a session when it is first read
            log_once(
                "failed",
                logging.ERROR,
                "reading %s from the environ failed, which counts as having found nothing (logged "
                "once a minute at most)",
                name,
                exc_info=True,
            )
            return None
        return found

    return read


def _user_in(session: Any, names: list[tuple[str, list[str]]]) -> str | None:
    """The user in a session, under the first name that has a value.

    :param names: each name together with its parts between the dots.
    """
    for name, parts in names:
        user = user_text(_value_in(session, name, parts))
        if user is not None:
            return user
    return None


def _value_in(session: Any, name: str, parts: list[str]) -> Any:
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


_FLASK_TAGS = frozenset({" u", " b", " m"})
"""Flask's sessions store a UUID, bytes or Markup as a JSON object with one of these keys and a text
as its only value."""


def user_text(user: Any) -> str | None:
    """A user's id as text, so that 42 and "42" are the same user. None for empty text and for any
    value that is neither text nor a whole number, such as true or null."""
    if isinstance(user, dict) and len(user) == 1:
        tag, user = next(iter(user.items()))
        if tag not in _FLASK_TAGS:
            return None
    if isinstance(user, str):
        return user or None
    if isinstance(user, int) and not isinstance(user, bool):
        return str(user)
    return None


def hook_text(value: Any) -> str | None:
    """The value that a hook returned, as text. None or empty text means that it found no value.

    :raises ValueError: it returned anything else than text, a whole number or None.
    """
    if value is None or value == "":
        return None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"it returned a {type(value).__name__}: return a str, an int or None")
