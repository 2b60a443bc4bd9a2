"""Decides whether requests may pass: finds their rules, counts them, and deals with outages."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from .body_last import BodyLast, Pending
from .clock import MONOTONIC, Clock
from .config import Config, load
from .decision import NOTHING_COUNTED, Decision
from .errors import ConfigError, StorageError
from .identity import Environ
from .log_once import LogOnce
from .observers import Observer, RefusalLog
from .reload import FileWatcher
from .rules.plan import Plan, Statement
from .rules.preflight import is_preflight
from .rules.table import RuleTable
from .storage.breaker import CircuitBreaker
from .storage.memory import MemoryStorage
from .storage.refusal_cache import RefusalCache
from .verdict import Verdict

_PASSING = frozenset({"exempt", "allowed", "granted"})

_COUNTING_FAILED = "counting failed, and the request is treated as on_storage_error says"

_new = tuple.__new__  # makes a named tuple faster than its own __new__

_log = logging.getLogger("wsgi_throttle")


class Engine:
    """Decides on requests by a configuration, and by a new one once its file has changed.

    Any thread may call it, and after a fork any process. The storage is not connected to, or
    opened, before the first request.

    :param clock: may not step back. It times everything but counting, for which storages have
        clocks of their own.
    :param observers: are told what was decided, in their order, after the log of refusals.
    :param watcher: is polled by requests; None if the file is not watched.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock = MONOTONIC,
        observers: Sequence[Observer] = (),
        watcher: FileWatcher | None = None,
    ) -> None:
        self._clock = clock
        self._watcher = watcher
        self.config = config
        """The configuration that is in force."""
        self.observers = tuple(observers)
        """Those that were given."""
        self._observers = (RefusalLog(clock), *observers)
        self._request_observers = tuple(one for one in self._observers if one.every_request)
        self._response_observers = tuple(one for one in self._observers if one.follows_responses)
        self.follows_responses = bool(self._response_observers)
        """Whether :meth:`finish` must be called for each request that has passed."""
        self._log_once = LogOnce(60.0, clock=clock)
        self._local = MemoryStorage()
        self._use_storage(config)
        self._table = self._build_table(config)
        _log_diagnostics(config)

    @classmethod
    def from_source(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        clock: Clock = MONOTONIC,
        observers: Sequence[Observer] = (),
    ) -> Engine:
        """The engine for a rule file, which is watched for changes, or for a mapping.

        :raises ConfigError: the configuration has mistakes, all of which it lists.
        """
        if isinstance(source, Mapping):
            return cls(load(source, lenient_when_off=True), clock=clock, observers=observers)
        path = Path(source)
        with suppress(FileNotFoundError):  # the working folder was deleted
            path = path.absolute()  # so that it is the same file after os.chdir()
        # Made before the file is read, so that no change is missed.
        watcher = FileWatcher(path, lambda: engine.reload(path), clock=clock)
        config = load(path, lenient_when_off=True)
        engine = cls(
            config, clock=clock, observers=observers, watcher=watcher if config.reload else None
        )
        return engine

    # --- a request --------------------------------------------------------------------------------

    def decide(self, environ: Environ) -> Verdict:
        """Judge a request, and count it if it may pass. Raises no exception."""
        watcher = self._watcher
        if watcher is not None and self._clock() >= watcher.next_poll_ns:
            watcher.poll()
        plan = self._table.match(environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", ""))
        if not plan.is_special:  # most plans are not
            return self._count(plan, environ)
        prechecked = plan.needs_precheck and self._table.precheck(plan, environ)
        if prechecked:
            verdict = self._notified(environ, Verdict(prechecked[0], plan, rule=prechecked[1]))
        elif plan.exempt:
            verdict = _new(Verdict, ("exempt", plan, None, "nobody", None))
        else:
            if plan.preflight and is_preflight(environ):
                plan = plan.preflight
            count = self._count_body_last if plan.needs_body else self._count
            verdict = count(plan, environ)
        if verdict[0] in _PASSING:
            observers = self._observers if plan.has_shadow else self._request_observers
            if observers:
                self._notify(observers, "decided", environ, verdict)
        return verdict

    def finish(
        self,
        verdict: Verdict,
        environ: Environ,
        *,
        status: str,
        headers: Sequence[tuple[str, str]],
        bytes_sent: int,
        seconds: float,
    ) -> None:
        """Tell observers how a request that passed was answered; see :meth:`.Observer.finished`.
        To be called once for each, when its response has ended. Raises no exception."""
        self._notify(
            self._response_observers,
            "finished",
            environ,
            verdict,
            status=status,
            headers=headers,
            bytes_sent=bytes_sent,
            seconds=seconds,
        )

    @property
    def retry_after_s(self) -> int:
        """Whole seconds, at least 1, until a storage that has an outage may answer again."""
        return self._breaker.retry_after_s

    def _notified(self, environ: Environ, verdict: Verdict) -> Verdict:
        """Return the verdict, after telling all observers of it if the request may not pass."""
        if verdict[0] not in _PASSING:
            self._notify(self._observers, "decided", environ, verdict)
        return verdict

    def _notify(self, observers: Iterable[Observer], event: str, *told: Any, **more: Any) -> None:
        """Call this method of each observer. Exceptions are logged, and never reach a client."""
        for observer in observers:
            try:
                getattr(observer, event)(*told, **more)
            except Exception:  # noqa: BLE001 - an observer may raise anything
                self._log_defect(f"{type(observer).__name__}.{event} failed")

    def _count(self, plan: Plan, environ: Environ) -> Verdict:
        if self._counts_alone:
            self._warn_of_many_processes(environ)
        charged = None
        try:
            charged = statement, buckets = plan.statement_for(environ)
            decision = statement.take(buckets)
        except StorageError:
            return self._notified(environ, self._without_storage(plan, charged))
        except Exception:  # noqa: BLE001 - a defect of ours must not become a 500
            self._log_defect(_COUNTING_FAILED)
            return self._notified(environ, self._without_storage(plan, charged))
        if decision[0]:
            return _new(Verdict, ("granted", plan, decision, "storage", None))
        rule = plan.refusing_rule(decision)
        return self._notified(environ, _new(Verdict, ("refused", plan, decision, "storage", rule)))

    def _count_body_last(self, plan: Plan, environ: Environ) -> Verdict:
        """The same for a plan with a key in the body, which is read after all else was asked."""
        if self._counts_alone:
            self._warn_of_many_processes(environ)
        request = Pending(plan, environ)
        try:
            decision, counted_by = self._body_last.count(request)
        except Exception as error:  # noqa: BLE001 - as above
            if not isinstance(error, StorageError):
                self._log_defect(_COUNTING_FAILED)
            return self._notified(environ, self._without_storage(plan, request.charged))
        return self._notified(environ, _verdict(plan, decision, counted_by))

    def _without_storage(
        self, plan: Plan, charged: tuple[Statement, tuple[str, ...]] | None
    ) -> Verdict:
        """The verdict that on_storage_error gives while the storage cannot count.

        :param charged: the request's statement and buckets; None if finding them failed.
        """
        if plan.on_storage_error == "deny":
            return Verdict("unavailable", plan, rule=plan.denying_rule)
        if plan.on_storage_error == "local" and charged:
            statement, buckets = charged
            try:
                if statement.fallback is None:
                    statement.fallback = self._local.prepare(statement.terms)
                return _verdict(plan, statement.fallback(buckets), "local")
            except Exception:  # noqa: BLE001 - as above
                self._log_defect("counting in this process failed too, and the request may pass")
        return Verdict("granted", plan, NOTHING_COUNTED)

    def _warn_of_many_processes(self, environ: Environ) -> None:
        self._counts_alone = False
        if environ.get("wsgi.multiprocess"):
            _log.warning(
                "storage memory:// counts in each worker process alone, and this server runs "
                "several: each client may use up its limits once in every process; write "
                "storage: shared://"
            )

    def _log_defect(self, what: str) -> None:
        """Log the exception that is being handled, which is a defect."""
        self._log_once(
            what,
            logging.ERROR,
            "%s. No client sees this error. It is a defect: please report it",
            what,
            exc_info=True,
        )

    # --- everything else --------------------------------------------------------------------------

    def reset(self, key: str) -> int:
        """See :meth:`.Throttle.reset`."""
        charges = self._table.charges_to_reset(key)
        if not charges:  # then the storage need not be opened
            return 0
        return self._local.reset(charges) + self._storage.reset(charges)

    def close(self) -> None:
        """Close files and connections. May be called twice. A later request opens them again."""
        self._storage.close()

    def reload(self, path: Path) -> None:
        """Put the changed file in force. If it has mistakes, log them and change nothing."""
        try:
            config = load(path, lenient_when_off=True)
        except ConfigError as error:
            _log.error(
                "the old rules stay in force, since the changed file has mistakes:\n%s", error
            )
            self._notify(self._observers, "reloaded", error.diagnostics)
            return
        except Exception:  # noqa: BLE001 - whatever it is must be in the log
            _log.exception("the old rules stay in force: the changed file could not be read")
            return
        started_with = self._started_with
        changed = started_with.needs_restart(config)
        if started_with.opened_storage is None:  # then nothing was counted yet
            self._use_storage(config)
            changed = [name for name in changed if name == "reload"]
        else:
            config = replace(config, namespace=started_with.namespace)
        if changed:
            _log.warning("changed, but not in force before a restart: %s", ", ".join(changed))
        _log_diagnostics(config)
        self._table = self._build_table(config)
        self.config = config
        self._storage.clear()
        _log.info("the rules of %s are in force", config.source)
        self._notify(self._observers, "reloaded", config.diagnostics)

    def _build_table(self, config: Config) -> RuleTable:
        return RuleTable(config, self._storage.prepare, is_observed=bool(self._request_observers))

    def _use_storage(self, config: Config) -> None:
        self._started_with = config
        # Without a storage the mode is off, and nothing is counted.
        self._breaker = CircuitBreaker(
            config.opened_storage or self._local,
            on_change=self._storage_changed,
            clock=self._clock,
        )
        self._storage = RefusalCache(self._breaker, clock=self._clock)
        self._body_last = BodyLast(self._storage, self._local, config.storage_timeout_s)
        self._counts_alone = self._storage.reach == "process"

    def _storage_changed(self, failed: bool, cause: str) -> None:
        self._storage.clear()
        name = repr(self._breaker)
        self._notify(self._observers, "storage_changed", name, failed=failed, cause=cause)


def _verdict(plan: Plan, decision: Decision, counted_by: Literal["storage", "local"]) -> Verdict:
    """The verdict of a decision. Most requests have theirs made by :meth:`Engine._count` itself,
    which is faster."""
    if decision.granted:
        return Verdict("granted", plan, decision, counted_by)
    return Verdict("refused", plan, decision, counted_by, plan.refusing_rule(decision))


def _log_diagnostics(config: Config) -> None:
    """Log the mistakes of a file that says ``mode: off``, and so is in force all the same."""
    if config.diagnostics:
        _log.error(
            "the mode is off and every request is passed on, although the file has mistakes, which "
            "will keep it from being turned on:\n%s",
            "\n".join(map(str, config.diagnostics)),
        )
