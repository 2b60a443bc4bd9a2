"""The journey of a request: which rule, who, may it pass, and the answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from time import monotonic, time
from typing import Any, TypeAlias

from .config import Config, load
from .decision import Decision
from .errors import ConfigError, StorageError
from .http.headers import Header
from .http.responder import Responder, Response
from .identity import Environ
from .observers import RefusalLog
from .reload import Watch
from .rules.table import Plan, RuleTable
from .storage.breaker import Resilient
from .storage.memory import MemoryStorage
from .storage.refusal_cache import BlockedClients

StartResponse: TypeAlias = Callable[..., Any]
Application: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
OnLimit: TypeAlias = Callable[[dict[str, Any], Decision], "Application | None"]

DECISION = "wsgi_throttle.decision"
"""Where the application finds the decision on its request, in the environ."""

_log = logging.getLogger("wsgi_throttle")


class _Serving:
    """What is made of one configuration, and swapped as a whole when the file changes."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.table = RuleTable(config)
        self._responder = Responder(config.responses)
        self._responders = {
            id(rule): Responder(rule.responses) for rule in config.rules if rule.responses
        }
        self.pairs = self._responder.limit_headers.pairs

    def responder(self, plan: Plan) -> Responder:
        """The one of the rule, where it has bodies of its own."""
        if not plan.rules:
            return self._responder
        return self._responders.get(id(plan.rules[0]), self._responder)


class Throttle:
    """A WSGI application that lets another one have the requests that are within their limits.

    Any thread may call it, and after a fork any process. Nothing is connected or opened before the
    first request.

    :param app: the application to protect.
    :param config: the path of a YAML file, or a mapping of the same shape. If None, the
        environment's WSGI_THROTTLE_CONFIG, else ``throttle.yaml`` in the working directory.
    :param on_limit: called with (environ, decision) for a refused request; returns a WSGI
        application that answers it, or None for the built-in answer.
    :raises ConfigError: with every mistake in the configuration.
    """

    def __init__(
        self,
        app: Application,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        *,
        on_limit: OnLimit | None = None,
    ) -> None:
        if config is None:
            config = os.environ.get("WSGI_THROTTLE_CONFIG") or "throttle.yaml"
        self._app = app
        self._on_limit = on_limit
        self._source = config
        # Before the file is read, so that no change is missed.
        watch = None if isinstance(config, Mapping) else Watch(Path(config), self._reload)
        loaded = load(config, lenient_when_off=True)
        self._serving = _Serving(loaded)
        self._watch = watch if loaded.reload else None
        self._local = MemoryStorage()
        self._log_refusal = RefusalLog()
        self._counts_alone = False
        self._use_storage(loaded)
        _log_mistakes(loaded)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        watch, serving, app = self._watch, self._serving, self._app
        if watch is not None and monotonic() >= watch.look_at_s:
            watch.poll()
        plan = serving.table.match(
            environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", "")
        )
        if plan.listed:
            verdict = serving.table.verdict(plan, environ)
            if verdict:
                if verdict == "allow":
                    return app(environ, start_response)
                responder = serving.responder(plan)
                answer = responder.forbidden if verdict == "block" else responder.path_too_long
                return _answer(start_response, answer(environ))
        if plan.exempt:
            return app(environ, start_response)
        if plan.preflight and _is_preflight(environ):
            plan = plan.preflight
        decision = self._take(plan, environ)
        if decision is None:
            retry_after_s = self._breaker.retry_after_s
            return _answer(
                start_response, serving.responder(plan).unavailable(environ, retry_after_s)
            )
        environ[DECISION] = decision
        if decision.granted:
            if plan.shadowed:
                self._log_refusal.in_shadow(decision)
            return app(environ, _announcing(start_response, decision, serving.pairs))
        return self._refuse(serving, plan, decision, environ, start_response)

    def reset(self, key: str) -> None:
        """Forget what a client has used up, on every counter that the rules now have.

        :param key: as logs and buckets show it, ``ip:192.0.2.1`` or ``session-user:42``; a bare
            address is an ip.
        :raises ValueError: it is neither.
        :raises StorageError: the storage did not answer.
        """
        table = self._serving.table
        charges = table.every_charge(table.key_of(key))
        self._local.reset(charges)
        self._storage.reset(charges)

    def close(self) -> None:
        """Give back files and connections. May be called twice; a later request opens them anew."""
        self._storage.close()

    def _take(self, plan: Plan, environ: Environ) -> Decision | None:
        """The decision; None for a request to be denied because nothing can be counted."""
        if self._counts_alone:
            self._counts_alone = False
            if environ.get("wsgi.multiprocess"):
                _log.warning(
                    "storage memory:// counts in each worker process alone, and this server runs "
                    "several: clients get as many times their limits; write storage: shared://"
                )
        charges = plan.charges(environ)
        if not charges.lines:
            return Decision(True, charges, ())
        try:
            return self._storage.take(charges)
        except StorageError:
            if plan.on_storage_error == "deny":
                return None
            if plan.on_storage_error == "allow":
                return Decision(True, (), ())
            return self._local.take(charges)

    def _refuse(
        self,
        serving: _Serving,
        plan: Plan,
        decision: Decision,
        environ: Environ,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        self._log_refusal(decision)
        if self._on_limit is not None:
            begun: list[str] = []
            announcing = _announcing(start_response, decision, serving.pairs)

            def start(status: str, *rest: Any) -> Any:
                begun.append(status)
                return announcing(status, *rest)

            try:
                answer = self._on_limit(environ, decision)
                if answer is not None:
                    return answer(environ, start)
            except Exception:
                if begun:  # too late for another answer: for the server, as of any application
                    raise
                _log.exception("on_limit failed, and the built-in answer is given instead")
        responder = serving.responder(plan)
        response = responder.too_many_requests(environ, decision, time())
        return _answer(start_response, response)

    def _use_storage(self, config: Config) -> None:
        self._started_with = config
        # Without a storage the mode is off, and nothing is counted.
        self._breaker = Resilient(
            config.opened_storage or self._local, on_change=self._storage_changed
        )
        self._storage = BlockedClients(self._breaker)
        self._counts_alone = config.reach == "process"

    def _storage_changed(self) -> None:
        self._storage.clear()

    def _reload(self) -> None:
        try:
            serving = _Serving(load(self._source, lenient_when_off=True))
        except ConfigError as error:
            _log.error(
                "the old rules stay in force, since the changed file has mistakes:\n%s", error
            )
            return
        except Exception:  # noqa: BLE001 - nothing may end the thread before it has said so
            _log.exception("the old rules stay in force: the changed file could not be read")
            return
        changed = self._started_with.needs_restart(serving.config)
        if self._started_with.opened_storage is None:  # which nothing was counted on
            self._use_storage(serving.config)
            changed = [name for name in changed if name not in ("storage", "storage_timeout")]
        if changed:
            _log.warning("changed, but not in force before a restart: %s", ", ".join(changed))
        _log_mistakes(serving.config)
        self._serving = serving
        self._storage.clear()
        _log.info("the rules of %s are in force", serving.config.source)


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


def _log_mistakes(config: Config) -> None:
    """Say why nothing of a file is in force but ``mode: off``."""
    if config.diagnostics:
        _log.error(
            "the mode is off and every request is passed on, although the file has mistakes, which "
            "will keep it from being turned on:\n%s",
            "\n".join(map(str, config.diagnostics)),
        )


def _is_preflight(environ: Environ) -> bool:
    """Whether an OPTIONS request is a CORS preflight (Fetch standard, 4.8), which a browser sends
    by itself, without a body, cookies or credentials. With any of these a program sent it."""
    return (
        "HTTP_ORIGIN" in environ
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        and environ.get("CONTENT_LENGTH") in (None, "", "0")
        and not any(name in environ for name in _NOT_IN_A_PREFLIGHT)
    )


_NOT_IN_A_PREFLIGHT = ("HTTP_TRANSFER_ENCODING", "HTTP_COOKIE", "HTTP_AUTHORIZATION")


def _announcing(
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


def _answer(start_response: StartResponse, response: Response) -> Iterable[bytes]:
    status, headers, body = response
    start_response(status, headers)
    return [body]
