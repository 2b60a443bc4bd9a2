"""The WSGI middleware (PEP 3333): asks the engine for a verdict on each request, and answers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from time import monotonic, time
from typing import Any, TypeAlias

from . import twins
from .decision import Decision
from .engine import Engine
from .http.headers import Header
from .http.responder import Responder, Response
from .identity import Environ
from .observers import Observer
from .verdict import Verdict

StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
OnLimit: TypeAlias = Callable[[dict[str, Any], Decision], "Application | None"]

DECISION = "wsgi_throttle.decision"
"""The key of the environ under which the application finds the decision on its request."""

_log = logging.getLogger("wsgi_throttle")


class Throttle:
    """Wraps a WSGI application: passes requests on to it, and answers those over their limits.

    Any thread may call it, and after a fork any process. The storage is not connected to, or
    opened, before the first request.

    :param app: the application to protect.
    :param config: the path of a YAML file, or a mapping of the same shape. If None, the path is in
        the environment variable WSGI_THROTTLE_CONFIG, or else ``throttle.yaml``.
    :param on_limit: called with (environ, decision) for a refused request. Returns a WSGI
        application that answers it, or None for the built-in answer, which is also given if it
        raises an exception.
    :param observers: are told what was decided, see :class:`.Observer`.
    :raises ConfigError: the configuration has mistakes, all of which it lists.
    """

    def __init__(
        self,
        app: Application,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        *,
        on_limit: OnLimit | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        if config is None:
            config = os.environ.get("WSGI_THROTTLE_CONFIG") or "throttle.yaml"
        self._app = app
        self._on_limit = on_limit
        self.engine = Engine.from_source(config, observers=observers)
        """Decides on requests. May be replaced at any time, by any thread: a request that has begun
        is finished by the engine that it began with."""
        twins.add(self.engine.config.counters, self, self.engine.config.source)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        engine = self.engine
        verdict = engine.decide(environ)
        decision = verdict.decision  # faster than unpacking all fields
        if decision is None:
            if verdict.outcome in _ANSWERS:
                return _answer(start_response, _ANSWERS[verdict.outcome](engine, verdict, environ))
        else:
            environ[DECISION] = decision
            if not decision.granted:
                return self._refuse(verdict, decision, environ, start_response)
            pairs = verdict.plan.responder.limit_headers.pairs
            # cheaper than a function that makes one
            start_response = partial(_start_with_limits, start_response, decision, pairs, time())
        if engine.follows_responses:
            return _followed(engine, verdict, self._app, environ, start_response)
        return self._app(environ, start_response)

    def reset(self, key: str) -> int:
        """Forget what a client has used up, on every counter of the present rules.

        :param key: as logs show it, ``ip:192.0.2.1`` or ``session-user:42``; a bare address means
            the same as with ``ip:``. Values may also be written as they are: ``cookie:id:abc``,
            ``session-user:jane doe``.
        :return: how many counters were forgotten, each of one limit. 0 if nothing was counted, or
            if no limit counts by such a key.
        :raises ValueError: no client can have such a key.
        :raises StorageError: the storage did not answer.
        """
        return self.engine.reset(key)

    def close(self) -> None:
        """Close files and connections. May be called twice. A later request opens them again."""
        twins.remove(self)
        self.engine.close()

    def _refuse(
        self, verdict: Verdict, decision: Decision, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        decided_s = time()
        responder = _responder(verdict)
        if self._on_limit is not None:
            begun: list[str] = []
            pairs = responder.limit_headers.pairs
            start_with_limits = partial(
                _start_with_limits, start_response, decision, pairs, decided_s
            )

            def start(status: str, headers: list[Header], *rest: Any) -> Any:
                begun.append(status)
                headers = [*headers, *_retry_after(decision, headers, time() - decided_s)]
                return start_with_limits(status, headers, *rest)

            try:
                answer = self._on_limit(environ, decision)
                if answer is not None:
                    return answer(environ, start)
            except Exception:
                if begun:  # the answer has begun, so the server must deal with this
                    raise
                _log.exception("on_limit failed, and the built-in answer is given instead")
        return _answer(start_response, responder.too_many_requests(environ, decision, decided_s))


def wrap(app: str, config: str | None = None) -> Throttle:
    """Import an application and wrap it, for servers that take its name on their command line:
    ``gunicorn "wsgi_throttle:wrap('mysite.wsgi:application', 'throttle.yaml')"``.

    :param app: ``package.module:name``; without a name it is ``application``.
    :param config: the path of the YAML file; None as for :class:`Throttle`.
    :raises ConfigError: the configuration has mistakes, all of which it lists.
    :raises ImportError: there is no such module.
    :raises AttributeError: the module has no such name.
    :raises ValueError: ``app`` is malformed.
    """
    module, _, name = app.partition(":")
    return Throttle(resolve_name(f"{module}:{name or 'application'}"), config)


# --- answers of our own ---------------------------------------------------------------------------


def _responder(verdict: Verdict) -> Responder:
    """The responder of the rule that answers, if that has bodies of its own; else the plan's."""
    rule = verdict.rule
    return verdict.plan.responder if rule is None or rule.responder is None else rule.responder


_ANSWERS: dict[str, Callable[[Engine, Verdict, Environ], Response]] = {
    "blocked": lambda _, verdict, environ: _responder(verdict).forbidden(environ),
    "too_long": lambda _, verdict, environ: _responder(verdict).path_too_long(environ),
    "unavailable": lambda engine, verdict, environ: _responder(verdict).unavailable(
        environ, engine.retry_after_s
    ),
}
"""Outcome of a verdict -> the function that makes the response."""


def _answer(start_response: StartResponse, response: Response) -> Iterable[bytes]:
    status, headers, body = response
    start_response(status, headers)
    return [body]


# --- the application's answer ---------------------------------------------------------------------


def _start_with_limits(  # noqa: PLR0917 - the last three are those of PEP 3333
    start_response: StartResponse,
    decision: Decision,
    pairs: Callable[..., list[Header]],
    decided_s: float,
    status: str,
    headers: list[Header],
    exc_info: Any = None,
) -> Any:
    """Call start_response with the headers that show the limits, besides the given ones.

    :param decided_s: when the decision was made, in seconds since the epoch.
    """
    headers = [*headers, *pairs(decision, decided_s, headers, time())]
    if exc_info is None:
        return start_response(status, headers)
    return start_response(status, headers, exc_info)


def _retry_after(decision: Decision, present: list[Header], passed_s: float) -> list[Header]:
    """The header of a refusal; none if the answer has one already, or if no waiting helps.

    :param passed_s: the seconds since the decision.
    """
    seconds = decision.retry_after_s
    if seconds is None or any(name.lower() == "retry-after" for name, _ in present):
        return []
    return [("Retry-After", str(max(1, seconds - max(0, int(passed_s)))))]


def _followed(
    engine: Engine,
    verdict: Verdict,
    app: Application,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """The application's answer, wrapped so that the engine is told when it ends."""
    followed = _FollowedResponse(engine, verdict, environ, start_response)
    try:
        followed.body = app(environ, followed.start)
    except BaseException:
        followed.finish()
        raise
    return followed


class _FollowedResponse:
    """A response that counts its bytes and tells the engine, once, when it has ended.

    It ends when the server calls close(), which PEP 3333 demands of servers in any case, or when
    the application raises an exception.
    """

    def __init__(
        self, engine: Engine, verdict: Verdict, environ: Environ, start_response: StartResponse
    ) -> None:
        self.body: Iterable[bytes] = ()
        self._engine = engine
        self._verdict = verdict
        self._environ = environ
        self._start_response = start_response
        self._began_s = monotonic()
        self._status = ""
        self._headers: list[Header] = []
        self._bytes = 0
        self._is_finished = False

    def start(self, status: str, headers: list[Header], *rest: Any) -> Any:
        """The start_response that the application is given."""
        self._status, self._headers = status, headers
        write = self._start_response(status, headers, *rest)

        def counting(data: bytes) -> Any:
            self._bytes += len(data)
            return write(data)

        return counting

    def __iter__(self) -> Iterator[bytes]:
        try:
            for data in self.body:
                self._bytes += len(data)
                yield data
        except Exception:
            self.finish()
            raise

    def close(self) -> None:
        """Called by the server when it needs no more of the body."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.finish()

    def finish(self) -> None:
        """Tell the engine, unless it was told before."""
        if not self._is_finished:
            self._is_finished = True
            seconds = monotonic() - self._began_s
            self._engine.finish(
                self._verdict,
                self._environ,
                status=self._status,
                headers=self._headers,
                bytes_sent=self._bytes,
                seconds=seconds,
            )
