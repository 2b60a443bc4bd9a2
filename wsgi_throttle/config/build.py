"""From the options of a configuration to what the rest of the package uses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import Diagnostic
from ..http.responder import Responder
from ..http.settings import ResponseSettings
from ..identity import ClientIP, Identity, Session
from ..rules import lint
from ..rules.model import Location, RuleSet
from ..storage import Storage, open_storage
from .mapping import Options
from .options import TOP_LEVEL
from .reader import Cursor
from .rules import Owner, RuleBuilder
from .values import UNSET_SECRET


@dataclass(frozen=True)
class Config(RuleSet):
    """A whole configuration."""

    path: Path | None = None
    """The file that it was read from."""
    storage: str = field(default="", repr=False)
    """The URI of the storage, which may hold a password."""
    opened_storage: Storage | None = field(default=None, compare=False, repr=False)
    """The storage itself, which connects to nothing before it is used; None where the URI has a
    mistake."""
    reload: bool = True
    start_options: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The values of the options that are read at start only."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """The mistakes of a file whose mode is off, because of which nothing else of it is in force.
    Empty otherwise."""

    @property
    def reach(self) -> str:
        """Who counts together in the storage: ``process``, ``host`` or ``network``."""
        return self.opened_storage.reach if self.opened_storage else "process"

    def without_rules(self, diagnostics: Sequence[Diagnostic]) -> Config:
        """The same with nothing in it that could refuse a request, because of these mistakes."""
        return replace(
            self,
            rules=(),
            application_limits=(),
            default_limits=(),
            allow=None,
            block=None,
            diagnostics=tuple(diagnostics),
        )

    def needs_restart(self, changed: Config) -> list[str]:
        """The options whose change in another configuration is not in force before a restart."""
        return [
            name
            for name, value in self.start_options.items()
            if changed.start_options.get(name) != value
        ]


def application_id(path: Path | None, namespace: str) -> str:
    """What tells this application's counters from others of the same host: the path of the file,
    symlinks not resolved, so that deploys through ``current/`` keep their counters."""
    return os.path.abspath(path) if path else f"{Path.cwd()}:{namespace}"


def build_config(top: Options, path: Path | None) -> Config:
    """A configuration of whatever is right in these options.

    What is wrong with several of them together is put on the list of mistakes.
    """
    identity = _identity(top)
    builder = RuleBuilder(identity)
    key = builder.key(top, ("ip",), None)
    owner = Owner(key, top["strategy"], scope="default", cost=1, policy="default")
    application = replace(owner, scope="application", policy="application")
    default_limits = builder.limits(top, "default_limits", owner)
    responses = _responses(top)
    config = Config(
        source=top.at.source.name,
        path=path,
        storage=top["storage"],
        opened_storage=_open_storage(top, path),
        namespace=top["namespace"],
        mode=top["mode"],
        on_storage_error=top["on_storage_error"],
        reload=top["reload"],
        application_limits=builder.limits(top, "application_limits", application),
        default_limits=default_limits,
        rules=builder.rules(top["rules"], {**top.values(), "key": key}, responses, default_limits),
        identity=identity,
        allow=top["allow"],
        block=top["block"],
        responder=Responder(responses),
        start_options={option.name: top[option.name] for option in TOP_LEVEL if not option.live},
        locations={
            name: Location(name, at.node.line, at.node.column) for name, at in top.given.items()
        },
    )
    top.at.source.diagnostics += lint.errors(_comparable(config, top))
    return config


def _comparable(config: Config, top: Options) -> Config:
    """The configuration without the rules of which it is not known which requests they are for, so
    that none is said to clash because of a mistake in another option."""
    unknown = {rule.at.path for rule in top["rules"] if rule.mistaken & {"path", "methods", "mode"}}
    rules = tuple(rule for rule in config.rules if rule.location.where not in unknown)
    return replace(config, rules=rules)


def _open_storage(top: Options, path: Path | None) -> Storage | None:
    if "storage" in top.mistaken and not top.given["storage"].node.unset:
        return None

    def parse(_: Cursor) -> Storage:
        return open_storage(
            top["storage"],
            application_id=application_id(path, top["namespace"]),
            timeout_s=top["storage_timeout"] / 1000,
        )

    return top.given.get("storage", top.at).attempt(parse, None)


def _identity(top: Options) -> Identity:
    session = _session(top)
    identity = Identity(
        client_ip=_client_ip(top), session=session, form_max_bytes=top["form_max_bytes"]
    )
    if session is None:
        return identity

    # Found now, though no key may need it: its function may not be there.
    reader = top.given["session"].attempt(lambda _: identity.read_user, None)
    return identity if reader else replace(identity, session=_ANY_SESSION)


_ANY_SESSION = Session("environ")
"""In place of a mistaken one, so that the mistake is told once and not for every key."""


def _client_ip(top: Options) -> ClientIP:
    options: Options | None = top["client_ip"]
    if options is None or "client_ip" in top.mistaken:
        return ClientIP()
    return options.at.attempt(lambda _: ClientIP(**options.values()), ClientIP())


def _session(top: Options) -> Session | None:
    if "session" in top.mistaken:
        return _ANY_SESSION
    options: Options | None = top["session"]
    if options is None:
        return None
    if options["kind"] is None:  # which is unset, and may be
        return _ANY_SESSION
    values = options.values(secret_key="secret_keys", lifetime="lifetime_s")  # noqa: S106
    if "secret_key" in options.mistaken:  # which is unset, and may be
        values["secret_keys"] = (UNSET_SECRET,)
    return options.at.attempt(lambda _: Session(**values), _ANY_SESSION)


def _responses(top: Options) -> ResponseSettings:
    options: Options | None = top["responses"]
    if options is None:
        return ResponseSettings()
    return options.at.attempt(lambda _: ResponseSettings(**options.values()), ResponseSettings())
