"""Builds the configuration that the rest of the package uses from the values of the options."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
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
    """Everything that a rule file says. Immutable."""

    path: Path | None = None
    """The file that it was read from; None for a mapping."""
    storage: str = field(default="", repr=False)
    """The URI of the storage, which may contain a password."""
    opened_storage: Storage | None = field(default=None, compare=False, repr=False)
    """The storage itself, which does not connect before it is used; None where its URI is wrong."""
    storage_timeout_s: float = 0.1
    """The longest a request waits for the storage to be reached, and again for its answer."""
    reload: bool = True
    """Whether to watch the file and use it again when it changes."""
    start_options: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The values of the options whose change needs a restart."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """The mistakes of a file with ``mode: off``, which made :meth:`without_rules` necessary. Empty
    otherwise."""

    @property
    def reach(self) -> str:
        """Which processes share the counters of the storage: this ``process`` alone, all of the
        ``host``, or all of the ``network``."""
        return self.opened_storage.reach if self.opened_storage else "process"

    def without_rules(self, diagnostics: Sequence[Diagnostic]) -> Config:
        """A copy that cannot refuse or block any request, because of these mistakes."""
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
        """The options that another configuration changes and that only a restart applies."""
        return [
            name
            for name, value in self.start_options.items()
            if changed.start_options.get(name) != value
        ]


def application_id(path: Path | None, namespace: str) -> str:
    """A text that separates this application's counters from those of others on the same host: the
    path of the rule file. Symbolic links are not resolved, so that an application that is deployed
    through a link such as ``current/`` keeps its counters."""
    return os.path.abspath(path) if path else f"{Path.cwd()}:{namespace}"


def build_config(top: Options, path: Path | None) -> Config:
    """Build the configuration. Options with mistakes have their defaults in it.

    Mistakes that only show when several options are seen together are reported to the source.
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
        opened_storage=_open_storage(top, path),
        storage_timeout_s=top["storage_timeout"] / 1000,
        application_limits=builder.limits(top, "application_limits", application),
        default_limits=default_limits,
        rules=builder.rules(top["rules"], {**top.values(), "key": key}, responses, default_limits),
        identity=identity,
        responder=Responder(responses),
        start_options={option.name: top[option.name] for option in TOP_LEVEL if not option.live},
        locations={
            name: Location(name, at.node.line, at.node.column) for name, at in top.given.items()
        },
        **{name: top[name] for name in _AS_THEY_ARE},
    )
    top.at.source.diagnostics += lint.errors(_comparable(config, top))
    return config


_AS_THEY_ARE = {option.name for option in TOP_LEVEL} & (
    {one.name for one in fields(Config)} - {"application_limits", "default_limits", "rules"}
)
"""The options that the configuration takes over, under their own names."""


def _comparable(config: Config, top: Options) -> Config:
    """The configuration without the rules whose path, methods or mode are wrong. It is not known
    which requests those are for, so nothing can be said about clashes with them."""
    unknown = {rule.at.path for rule in top["rules"] if rule.invalid & {"path", "methods", "mode"}}
    rules = tuple(rule for rule in config.rules if rule.location.where not in unknown)
    return replace(config, rules=rules)


def _open_storage(top: Options, path: Path | None) -> Storage | None:
    if "storage" in top.invalid and not top.given["storage"].node.unset:
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

    # Load the session's function now, even if no key needs it, to report it if it is missing.
    reader = top.given["session"].attempt(lambda _: identity.read_user, None)
    return identity if reader else replace(identity, session=_ANY_SESSION)


_ANY_SESSION = Session("environ")
"""Stands for a session with mistakes, so that they are not reported again for every key."""


def _client_ip(top: Options) -> ClientIP:
    options: Options | None = top["client_ip"]
    if options is None or "client_ip" in top.invalid:
        return ClientIP()
    return options.at.attempt(lambda _: ClientIP(**options.values()), ClientIP())


def _session(top: Options) -> Session | None:
    if "session" in top.invalid:
        return _ANY_SESSION
    options: Options | None = top["session"]
    if options is None:
        return None
    if options["kind"] is None:  # an unset variable, which is allowed
        return _ANY_SESSION
    values = options.values(secret_key="secret_keys", lifetime="lifetime_s")  # noqa: S106
    if "secret_key" in options.invalid:  # an unset variable, which is allowed
        values["secret_keys"] = (UNSET_SECRET,)
    return options.at.attempt(lambda _: Session(**values), _ANY_SESSION)


def _responses(top: Options) -> ResponseSettings:
    options: Options | None = top["responses"]
    if options is None:
        return ResponseSettings()
    return options.at.attempt(lambda _: ResponseSettings(**options.values()), ResponseSettings())
