"""The WSGI middleware: an environ in, a verdict from the engine, and the answer out (PEP 3333)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pkgutil import resolve_name
from time import monotonic, time
from typing import Any, TypeAlias

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
"""Where the application finds the decision on its request, in the environ."""

_log = logging.getLogger("wsgi_throttle")


class Throttle:
    """A WSGI application that lets another one have the requests that are within their limits.

    Any thread may call it, and after a fork any process. Nothing is connected or opened before the
    first request.

    :param app: the application to protect.
    :param config: the path of a YAML file, or a mapping of the same shape. If None, the
        environment's WSGI_THROTTLE_CONFIG, else ``throttle.yaml`` in the working directory.
    :param on_limit: called with (environ, decision) for a refused request; returns a WSGI
        application that answers it, or None for the built-in answer.
    :param observers: are told of what was decided, see :class:`.Observer`.
    :raises ConfigError: with every mistake in the configuration.
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
        self._engine = Engine.from_source(config, observers=observers)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        engine = self._engine
        verdict = engine.decide(environ)
        decision = verdict.decision  # to take a named tuple apart takes much longer
        if decision is None:
            if verdict.outcome in _ANSWERS:
                return _answer(start_response, _ANSWERS[verdict.outcome](engine, verdict, environ))
        else:
            environ[DECISION] = decision
            if not decision.granted:
                return self._refuse(verdict, decision, environ, start_response)
            pairs = verdict.plan.responder.limit_headers.pairs
            start_response = _adding_headers(start_response, decision, pairs)
        if engine.follows_responses:
            return _followed(engine, verdict, self._app, environ, start_response)
        return self._app(environ, start_response)

    def reset(self, key: str) -> None:
        """Forget what a client has used up, on every counter that the rules now have.

        :param key: as logs and buckets show it, ``ip:192.0.2.1`` or ``session-user:42``; a bare
            address is an ip.
        :raises ValueError: it is neither.
        :raises StorageError: the storage did not answer.
        """
        self._engine.reset(key)

    def close(self) -> None:
        """Give back files and connections. May be called twice; a later request opens them anew."""
        self._engine.close()

    def _refuse(
        self, verdict: Verdict, decision: Decision, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        responder = _responder(verdict)
        if self._on_limit is not None:
            begun: list[str] = []
            adding_headers = _adding_headers(
                start_response, decision, responder.limit_headers.pairs
            )

            def start(status: str, *rest: Any) -> Any:
                begun.append(status)
                return adding_headers(status, *rest)

            try:
                answer = self._on_limit(environ, decision)
                if answer is not None:
                    return answer(environ, start)
            except Exception:
                if begun:  # too late for another answer: for the server, as of any application
                    raise
                _log.exception("on_limit failed, and the built-in answer is given instead")
        return _answer(start_response, responder.too_many_requests(environ, decision, time()))


def wrap(app: str, config: str | None = None) -> Throttle:
    """The application that ``package.module:name`` names, wrapped, for a server's command line:
    ``gunicorn "wsgi_throttle:wrap('mysite.wsgi:application', 'throttle.yaml')"``.

    :raises ConfigError: with every mistake in the configuration.
    :raises ImportError: there is no such module.
    :raises AttributeError: the module has no such name.
    :raises ValueError: this is no name.
    """
    module, _, name = app.partition(":")
    return Throttle(resolve_name(f"{module}:{name or 'application'}"), config)


# --- answers of our own ---------------------------------------------------------------------------


def _responder(verdict: Verdict) -> Responder:
    """The one of the rule whose answer it is, where that has bodies of its own."""
    rule = verdict.rule
    return verdict.plan.responder if rule is None or rule.responder is None else rule.responder


_ANSWERS: dict[str, Callable[[Engine, Verdict, Environ], Response]] = {
    "blocked": lambda _, verdict, environ: _responder(verdict).forbidden(environ),
    "too_long": lambda _, verdict, environ: _responder(verdict).path_too_long(environ),
    "unavailable": lambda engine, verdict, environ: _responder(verdict).unavailable(
        environ, engine.retry_after_s
    ),
}
"""By the outcome of the verdict."""


def _answer(start_response: StartResponse, response: Response) -> Iterable[bytes]:
    status, headers, body = response
    start_response(status, headers)
    return [body]


# --- the application's answer ---------------------------------------------------------------------


def _adding_headers(
    start_response: StartResponse, decision: Decision, pairs: Callable[..., list[Header]]
) -> StartResponse:
    """A start_response that adds what there is to tell of the limits."""

    def start(status: str, headers: list[Header], exc_info: Any = None) -> Any:
        headers = [*headers, *pairs(decision, time(), headers)]
        if not decision.granted:
            headers += _retry_after(decision, headers)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return start


def _retry_after(decision: Decision, present: list[Header]) -> list[Header]:
    """The header of a refusal, unless the answer has one or no time will help."""
    seconds = decision.retry_after_s
    if seconds is None or any(name.lower() == "retry-after" for name, _ in present):
        return []
    return [("Retry-After", str(seconds))]


def _followed(
    engine: Engine,
    verdict: Verdict,
    app: Application,
    environ: Environ,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """The application's answer, and when it ends, a word to the engine."""
    followed = _FollowedResponse(engine, verdict, environ, start_response)
    try:
        followed.body = app(environ, followed.start)
    except BaseException:
        followed.finish()
        raise
    return followed


class _FollowedResponse:
    """A response that counts its bytes and says once that it has ended: with close(), which servers
    call in any case (PEP 3333), or with what the application raises."""

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
        """The start_response of the application."""
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
        """The server's word that it needs no more."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.finish()

    def finish(self) -> None:
        """Tell the engine, the first time."""
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
