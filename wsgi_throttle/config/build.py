"""A rule file, or a mapping of the same shape, as frozen dataclasses.

Nothing is half accepted: every mistake is reported, with its place and its remedy, in one
:class:`~wsgi_throttle.ConfigError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from .. import limits as limit_strings
from ..errors import ConfigError
from ..http.headers import HEADER_STYLES
from ..http.settings import ResponseSettings
from ..identity import (
    IPV4_PREFIXES,
    IPV6_PREFIXES,
    ClientIP,
    Hook,
    Identity,
    Networks,
    Session,
    environ_name,
    is_header_name,
    key_function,
    parse_network,
    read_networks,
    user_reader,
)
from ..rules.model import METHODS, MODES, POLICIES, Rule, RuleLimit, RuleSet
from ..rules.patterns import Pattern
from ..storage import open_storage
from ..strategies import ALIASES, STRATEGIES
from .yamltree import Node, Source

T = TypeVar("T")
D = TypeVar("D")

_RESERVED = ("application", "default")
_NAME = re.compile(r"[ !#-\[\]-~]{1,100}")


@dataclass(frozen=True)
class Config(RuleSet):
    """A whole configuration."""

    path: Path | None = None
    """The file that it was read from."""
    storage: str = "shared://"
    storage_timeout_ms: int = 100
    reload: bool = True
    responses: ResponseSettings = field(default_factory=ResponseSettings)

    @property
    def storage_identity(self) -> str:
        """What tells this application's counters from others of the same host: the path of the
        file, symlinks not resolved, so that deploys through ``current/`` keep their counters."""
        return os.path.abspath(self.path) if self.path else f"{Path.cwd()}:{self.namespace}"


def load(
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    variables: Mapping[str, str] | None = None,
    allow_unset: bool = False,
) -> Config:
    """Read and check a whole configuration.

    :param config: the path of a YAML file, or a mapping of the same shape.
    :param variables: what ``${NAME}`` is taken from; the process's environment if None.
    :param allow_unset: let a variable be unset, for checking a file without its secrets.
    :raises ConfigError: with every mistake in it.
    """
    environ = os.environ if variables is None else variables
    path = None if isinstance(config, Mapping) else Path(config)
    source = Source(str(path or "<mapping>"), environ, allow_unset=allow_unset)
    root = source.from_python(config) if isinstance(config, Mapping) else source.read(Path(config))
    loaded = _Loader(source, path).config(Place(source, root, ""))
    if source.mistakes:
        raise ConfigError(
            sorted(source.mistakes, key=lambda found: (found.line or 0, found.column or 0))
        )
    return loaded


class InvalidError(ValueError):
    """A value that does not fit; its remedy alone is told of one from the environment."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.remedy = remedy


class ReportedError(ValueError):
    """A value whose mistakes are on the list already."""


class Place:
    """A node and the dotted path to it, for reading it as what it should be."""

    def __init__(self, source: Source, node: Node, path: str) -> None:
        self.source = source
        self.node = node
        self.path = path

    def mistake(self, error: ValueError | str) -> None:
        message = str(error)
        if self.node.secret:
            remedy = getattr(error, "remedy", "")
            message = (
                f"what the environment gives for {self.node.secret} does not fit here "
                "(it is not shown)"
            )
            message += f": {remedy}" if remedy else ""
        self.source.mistake(message, self.node.line, self.node.column, self.path)

    def attempt(self, parse: Callable[[Place], T], default: D) -> T | D:
        """What parse makes of it, or the default and a mistake on the list."""
        try:
            return parse(self)
        except ReportedError:
            return default
        except ValueError as error:
            if not self.node.unset:  # or it was reported, or is allowed
                self.mistake(error)
            return default

    def section(self) -> Section:
        if not isinstance(self.node.value, dict):
            raise InvalidError(f"{self.shape} stands here", "write keys and values")
        return Section(self, self.node.value)

    def items(self) -> list[Place]:
        """The places of a list; a single value is a list of one."""
        if isinstance(self.node.value, list):
            return [
                Place(self.source, node, f"{self.path}[{index}]")
                for index, node in enumerate(self.node.value)
            ]
        return [self]

    def text(self) -> str:
        if not isinstance(self.node.value, str) or not self.node.value.strip():
            raise InvalidError(f"{self.shape} stands here", "write one text")
        return self.node.value.strip()

    def texts(self, *, least: int = 1) -> tuple[str, ...]:
        found = [item.attempt(Place.text, None) for item in self.items()]
        if len(found) < least:
            raise InvalidError("the list is empty", "leave the key out, or list something")
        if None in found:
            raise ReportedError
        return tuple(filter(None, found))

    def boolean(self) -> bool:
        if not self.node.plain or self.node.value not in ("true", "false"):
            raise InvalidError(f"{self.shape} stands here", "write true or false")
        return self.node.value == "true"

    def integer(self, least: int, most: int) -> int:
        text = self.node.value
        if (
            not self.node.plain
            or not isinstance(text, str)
            or not re.fullmatch("[0-9]{1,18}", text)
        ):
            raise InvalidError(
                f"{self.shape} stands here", f"write a whole number from {least} to {most}"
            )
        if not least <= int(text) <= most:
            raise InvalidError(
                f"{text} is out of bounds", f"write a whole number from {least} to {most}"
            )
        return int(text)

    def choice(self, names: Iterable[str]) -> str:
        text = self.text()
        known = list(names)
        if text not in known:
            raise InvalidError(f'"{text}" is not known here', f"use one of {', '.join(known)}")
        return text

    def duration_ms(self) -> int:
        text = self.text()
        match = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?\s*([a-z]*)", text)
        unit_ms = limit_strings.UNITS_MS.get(match[3] or "s") if match else None
        if not match or unit_ms is None:
            raise InvalidError(
                f'"{text}" is not a time', 'write it as "0.1 s", "100 ms" or "31 days"'
            )
        thousandths = int(match[1]) * 1000 + int((match[2] or "0").ljust(3, "0"))
        duration = thousandths * unit_ms // 1000
        if not 0 < duration <= limit_strings.MAX_WINDOW_MS:
            raise InvalidError(f'"{text}" is out of bounds', "write a time above zero")
        return duration

    @property
    def shape(self) -> str:
        """What stands here, in words."""
        if self.node.value is None:
            return "nothing"
        if isinstance(self.node.value, dict):
            return "a mapping"
        if isinstance(self.node.value, list):
            return "a list"
        return f'"{self.node.value}"' if self.node.value else "an empty text"


class Section:
    """A mapping that is read key by key; what nobody asked for is a mistake."""

    def __init__(self, place: Place, values: dict[str, Node]) -> None:
        self._place = place
        self._values = values
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def place(self, key: str) -> Place:
        path = f"{self._place.path}.{key}" if self._place.path else key
        return Place(self._place.source, self._values[key], path)

    def take(self, key: str, parse: Callable[[Place], T], default: D) -> T | D:
        """The value of a key, or the default where the key is missing or mistaken."""
        self._known.append(key)
        if key not in self._values or (self._values[key].unset and key not in _SECRETS):
            return default
        return self.place(key).attempt(parse, default)

    def close(self) -> None:
        """Report the keys that nobody asked for."""
        for key in self._values.keys() - set(self._known):
            line, column = self._place.node.keys.get(key, (None, None))
            close = get_close_matches(key, self._known, n=1)
            if limit_strings.is_limit(key):
                remedy = "a limit stands where a key belongs; quote it or use a list"
            elif close:
                remedy = f'did you mean "{close[0]}"?'
            else:
                remedy = f"the keys here are {', '.join(self._known)}"
            message = f'"{key}" is not a key: {remedy}'
            self._place.source.mistake(message, line, column, self._place.path)


_SECRETS = ("secret_key",)
"""Keys that may be checked without their value."""


_COUNTING = (
    *("limits", "key", "strategy", "scope", "cost", "per_method", "when", "skip"),
    *("allow", "response", "on_storage_error"),
)
"""Keys that mean nothing to an exempt rule."""


@dataclass(frozen=True)
class _Defaults:
    """What a limit takes from the rule and the top level where it does not say otherwise."""

    key: tuple[str, ...]
    strategy: str
    scope: str
    cost: int
    policy: str
    variables: frozenset[str] | None = frozenset()
    """What all paths of the rule have; None where they are mistaken."""


class _Loader:
    """Reads the sections of a configuration in the order in which they need each other."""

    def __init__(self, source: Source, path: Path | None) -> None:
        self._source = source
        self._path = path
        self._folder = path.parent if path else Path()
        self._identity = Identity()

    def config(self, place: Place) -> Config:
        top = place.attempt(Place.section, None)
        if top is None:
            return Config()
        self._identity = self._read_identity(top)
        defaults = _Defaults(
            key=top.take("key", lambda at: self._key(at, None), ("ip",)),
            strategy=top.take("strategy", _strategy, "sliding-window"),
            scope="default",
            cost=1,
            policy="default",
        )
        application = replace(defaults, scope="application", policy="application")
        default_limits = top.take("default_limits", lambda at: self._limits(at, defaults, None), ())
        mode = top.take("mode", lambda at: at.choice(MODES), "enforce")
        on_storage_error = top.take("on_storage_error", lambda at: at.choice(POLICIES), "local")
        responses = top.take("responses", lambda at: self._responses(at, None), ResponseSettings())
        inherited = Rule("", (), on_storage_error=on_storage_error, responses=responses)
        config = Config(
            source=self._source.name,
            path=self._path,
            storage=top.take("storage", Place.text, "shared://"),
            namespace=top.take("namespace", _namespace, "throttle"),
            mode=mode,
            storage_timeout_ms=top.take("storage_timeout", Place.duration_ms, 100),
            on_storage_error=on_storage_error,
            reload=top.take("reload", Place.boolean, True),
            application_limits=top.take(
                "application_limits", lambda at: self._limits(at, application, None), ()
            ),
            default_limits=default_limits,
            rules=top.take(
                "rules", lambda at: self._rules(at, defaults, inherited, default_limits), ()
            ),
            identity=self._identity,
            allow=top.take("allow", self._networks, None),
            block=top.take("block", self._networks, None),
            responses=responses,
        )
        top.close()
        if "storage" in top:
            top.place("storage").attempt(lambda at: _check_storage(config), None)
        return config

    # --- rules ------------------------------------------------------------------------------------

    def _rules(
        self,
        place: Place,
        defaults: _Defaults,
        inherited: Rule,
        default_limits: tuple[RuleLimit, ...],
    ) -> tuple[Rule, ...]:
        if not isinstance(place.node.value, list):
            raise InvalidError(
                f"{place.shape} stands here", "write a list, each rule beginning with a dash"
            )
        names: dict[str, int | None] = {}
        rules = []
        for item in place.items():
            section = item.attempt(Place.section, None)
            if section is None:
                continue
            rule = self._rule(item, section, defaults, inherited, default_limits)
            section.close()
            if "name" in section and rule.name in names:
                first = names[rule.name]
                where = "above" if first is None else f"in line {first}"
                section.place("name").mistake(
                    f'another rule is called "{rule.name}" {where}: give each a name of its own'
                )
            names.setdefault(rule.name, rule.line)
            rules.append(rule)
        return tuple(rules)

    def _rule(
        self,
        place: Place,
        section: Section,
        defaults: _Defaults,
        inherited: Rule,
        default_limits: tuple[RuleLimit, ...],
    ) -> Rule:
        patterns = section.take("path", _patterns, ())
        if "path" not in section:
            place.mistake('a rule needs a path: add path: /login, or path: "/**" for all')
        methods = section.take("methods", _methods, ())
        name = section.take("name", _name, "") or _default_name(methods, patterns)
        variables = (
            frozenset.intersection(*(frozenset(pattern.variables) for pattern in patterns))
            if patterns
            else None
        )
        own = replace(
            defaults,
            key=section.take("key", lambda at: self._key(at, variables), defaults.key),
            strategy=section.take("strategy", _strategy, defaults.strategy),
            scope=section.take(
                "scope", _scope, _own_scope(name, methods, patterns, "name" in section)
            ),
            cost=section.take("cost", lambda at: at.integer(1, 10**9), 1),
            policy=name,
            variables=variables,
        )
        exempt = section.take("exempt", Place.boolean, None)
        limits = section.take("limits", lambda at: self._limits(at, own, default_limits), ())
        for key in _COUNTING if exempt else ():
            if key in section:
                section.place(key).mistake(
                    f"an exempt rule counts nothing: take out {key} or exempt"
                )
        if "limits" not in section and (exempt is False or "exempt" not in section):
            place.mistake('a rule needs limits: add limits: "5 per minute", or exempt: true')
        return Rule(
            name=name,
            patterns=patterns,
            methods=methods,
            limits=limits,
            exempt=bool(exempt),
            per_method=section.take("per_method", Place.boolean, False),
            mode=section.take("mode", lambda at: at.choice(MODES), "enforce"),
            on_storage_error=section.take(
                "on_storage_error", lambda at: at.choice(POLICIES), inherited.on_storage_error
            ),
            skip=section.take("skip", _skip, None),
            when=section.take("when", _when, ()),
            allow=section.take("allow", self._networks, None),
            block=section.take("block", self._networks, None),
            responses=section.take(
                "response", lambda at: self._responses(at, inherited.responses), None
            ),
            line=place.node.line,
        )

    def _limits(
        self, place: Place, defaults: _Defaults, default_limits: tuple[RuleLimit, ...] | None
    ) -> tuple[RuleLimit, ...]:
        """
        :param default_limits: what the word ``default`` stands for; None where it has no place.
        """
        items = place.items()
        if place.node.value is None:
            raise InvalidError("nothing stands here", 'write a limit such as "5 per minute"')
        if not items:
            raise InvalidError("the list is empty", 'list a limit such as "5 per minute"')
        found: list[RuleLimit] = []
        inherited: tuple[RuleLimit, ...] = ()
        for item in items:
            if item.node.value == "default" and default_limits is not None:
                if not default_limits:
                    item.mistake(
                        '"default" stands for default_limits, and there are none: add them'
                    )
                if inherited:
                    item.mistake('"default" is here twice: leave one out')
                inherited = default_limits
                continue
            for limit in item.attempt(lambda at: self._limit(at, defaults), []):
                if any(
                    (limit.limit, limit.key, limit.scope) == (old.limit, old.key, old.scope)
                    for old in found
                ):
                    item.mistake(
                        f"{limit_strings.describe(limit.limit)} is here twice: leave one out"
                    )
                else:
                    found.append(limit)
        if any(limit.key == defaults.key for limit in found):
            _check_variables(defaults.key, defaults.variables)
        if len(found) > 1:
            found = [
                replace(limit, policy=f"{defaults.policy}-{number}")
                for number, limit in enumerate(found, 1)
            ]
        return (*found, *inherited)

    def _limit(self, place: Place, defaults: _Defaults) -> list[RuleLimit]:
        burst = None
        text = place
        if isinstance(place.node.value, dict):
            section = place.section()
            if "limit" not in section:
                raise InvalidError("a limit is missing", 'add limit: "5 per minute"')
            text = section.place("limit")
            section.take("limit", Place.text, "")
            defaults = replace(
                defaults,
                key=section.take("key", lambda at: self._key(at, defaults.variables), defaults.key),
                strategy=section.take("strategy", _strategy, defaults.strategy),
                scope=section.take("scope", _scope, defaults.scope),
                cost=section.take("cost", lambda at: at.integer(1, 10**9), defaults.cost),
            )
            burst = section.take("burst", lambda at: at.integer(1, limit_strings.MAX_QUOTA), None)
            if burst is not None and defaults.strategy != "token-bucket":
                section.place("burst").mistake(
                    "only the token-bucket has a burst: add strategy: token-bucket, or leave it out"
                )
            section.close()
        limits = text.attempt(
            lambda at: limit_strings.parse(at.text(), strategy=defaults.strategy, burst=burst), []
        )
        for limit in limits:
            if limit.quota == 0 and burst:
                text.mistake("a limit of 0 refuses always and has no burst: leave the burst out")
            elif limit.quota and limit.burst < defaults.cost:
                text.mistake(
                    f"its cost never fits into {limit_strings.describe(limit)}: "
                    "raise the limit or lower the cost"
                )
        return [
            RuleLimit(limit, defaults.key, defaults.scope, defaults.cost, defaults.policy)
            for limit in limits
        ]

    # --- the other sections -----------------------------------------------------------------------

    def _key(self, place: Place, variables: frozenset[str] | None) -> tuple[str, ...]:
        """
        :param variables: those of the path that a ``path:`` key can name; None for any.
        """
        key = place.texts()
        key_function(key, self._identity)
        _check_variables(key, variables)
        return key

    def _read_identity(self, top: Section) -> Identity:
        client_ip = top.take("client_ip", self._client_ip, ClientIP())
        session = top.take("session", self._session, None)
        if session is None and "session" in top:
            session = Session("environ")  # the mistake is on the list: once, not for every key
        form_max_bytes = top.take("form_max_bytes", lambda at: at.integer(1, 1 << 24), 65536)
        return Identity(client_ip=client_ip, session=session, form_max_bytes=form_max_bytes)

    def _client_ip(self, place: Place) -> ClientIP:
        return _build(
            place,
            ClientIP,
            {
                "trusted_proxies": lambda at: at.texts(least=0),
                "header": Place.text,
                "ipv4_prefix": lambda at: at.integer(*IPV4_PREFIXES),
                "ipv6_prefix": lambda at: at.integer(*IPV6_PREFIXES),
            },
            {},
        )

    def _session(self, place: Place) -> Session:
        section = place.section()
        if "kind" not in section:
            raise InvalidError("a kind is missing", "write kind: flask")
        session = _build(
            place,
            Session,
            {
                "kind": Place.text,
                "secret_key": _secrets,
                "cookie": Place.text,
                "user": Place.texts,
                "lifetime": lambda at: -(-at.duration_ms() // 1000),
                "salt": _unaltered,
            },
            {"kind": "kind", "secret_key": "secret_keys", "lifetime": "lifetime_s"},
        )
        user_reader(session)  # raises where its function cannot be had, though no key may need it
        return session

    def _networks(self, place: Place) -> Networks:
        found: list[str] = []
        for item in place.items():
            found += item.attempt(self._network, [])
        return Networks(found)

    def _network(self, place: Place) -> list[str]:
        text = place.text()
        if text.startswith("file:"):
            return read_networks(self._folder / text.removeprefix("file:"))
        parse_network(text)
        return [text]

    def _responses(self, place: Place, inherited: ResponseSettings | None) -> ResponseSettings:
        section = place.section()
        base = inherited or ResponseSettings()
        bodies = {
            kind: section.take(kind, self._file, getattr(base, kind))
            for kind in ("html", "json", "text")
        }
        if inherited is None:
            base = replace(
                base,
                headers=section.take("headers", lambda at: at.choice(HEADER_STYLES), base.headers),
                cors=section.take("cors", Place.texts, base.cors),
            )
        section.close()
        return replace(base, **bodies)

    def _file(self, place: Place) -> str:
        """The text of a file that the configuration names, relative to its own folder."""
        path = self._folder / place.text()
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InvalidError(
                f'"{path}" cannot be read: {reason}', "name a file beside the rule file"
            ) from error


def _unaltered(place: Place) -> str:
    """A text as it stands, white space too."""
    if not isinstance(place.node.value, str) or not place.node.value:
        raise InvalidError(f"{place.shape} stands here", "write one text")
    return place.node.value


def _secrets(place: Place) -> tuple[str, ...]:
    found = [
        "unset" if item.node.unset else item.attempt(_unaltered, None) for item in place.items()
    ]
    if None in found:
        raise ReportedError
    return tuple(filter(None, found))


def _build(
    place: Place,
    kind: Callable[..., T],
    fields: Mapping[str, Callable[[Place], object]],
    names: Mapping[str, str],
) -> T:
    """A settings class from a section; what the section leaves out keeps the class's default.

    :param names: what a key is called in the class, where that differs.
    """
    section = place.section()
    before = len(place.source.mistakes)
    values = {names.get(key, key): section.take(key, parse, None) for key, parse in fields.items()}
    section.close()
    if len(place.source.mistakes) > before:
        raise ReportedError
    given = {name: value for name, value in values.items() if value is not None}
    return kind(**given)


def _check_variables(key: tuple[str, ...], variables: frozenset[str] | None) -> None:
    """
    :raises InvalidError: the key names a variable that not every path has.
    """
    if variables is None:
        return
    for part in key:
        kind, _, name = part.partition(":")
        if kind == "path" and name not in variables:
            known = [f"path:{one}" for one in sorted(variables) if "wsgi_throttle" not in one]
            raise InvalidError(
                f"not every path that is limited here has <{name}>",
                f"use {' or '.join(known)}" if known else "use another key",
            )


def _check_storage(config: Config) -> None:
    open_storage(config.storage, identity=config.storage_identity).close()


def _strategy(place: Place) -> str:
    name = place.choice([*STRATEGIES, *ALIASES])
    return ALIASES.get(name, name)


def _namespace(place: Place) -> str:
    text = place.text()
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", text):
        raise InvalidError(
            f'"{text}" is not a namespace',
            "use up to 40 letters, digits, dots, dashes and underscores",
        )
    return text


def _name(place: Place) -> str:
    text = place.text()
    if not _NAME.fullmatch(text):
        raise InvalidError(
            f'"{text}" is not a name',
            "use up to 100 printable ASCII characters, without quotes and backslashes",
        )
    if text in _RESERVED:
        raise InvalidError(f'"{text}" is the name of the {text}_limits', "choose another")
    return text


def _scope(place: Place) -> str:
    return f"scope={_name(place)}"


def _default_name(methods: tuple[str, ...], patterns: tuple[Pattern, ...]) -> str:
    paths = ",".join(quote(pattern.text, safe="/<>:(),*=+-._~!$&;@ ") for pattern in patterns)
    return f"{','.join(methods)} {paths}".strip()[:100]


def _own_scope(
    name: str, methods: tuple[str, ...], patterns: tuple[Pattern, ...], named: bool
) -> str:
    """A scope that no other rule has: its name, or all of what it is for, where the default name
    may be cut and look like another's."""
    if named:
        return f"rule={name}"
    paths = " ".join(quote(pattern.text, safe="/<>:()=") for pattern in patterns)
    return f"path={','.join(methods)} {paths}"


def _patterns(place: Place) -> tuple[Pattern, ...]:
    found: list[Pattern] = []
    for item in place.items():
        pattern = item.attempt(lambda at: Pattern.parse(at.text()), None)
        if pattern and pattern.signatures in [one.signatures for one in found]:
            item.mistake("this path is in the rule twice: leave one out")
        elif pattern:
            found.append(pattern)
    if not place.items():
        raise InvalidError("the list is empty", "name a path")
    return tuple(found)


def _methods(place: Place) -> tuple[str, ...]:
    found: list[str] = []
    for item in place.items():
        method = item.attempt(_method, None)
        if method and method not in found:
            found.append(method)
    if not found and not place.items():
        raise InvalidError("the list is empty", "leave methods out for all of them")
    return tuple(found)


def _method(place: Place) -> str:
    text = place.text().upper()
    if text not in METHODS:
        raise InvalidError(
            f'"{text}" is not a method',
            f"use {', '.join(METHODS)}; OTHER is every method that is not listed here",
        )
    return text


def _skip(place: Place) -> Hook:
    text = place.text()
    if not text.startswith("python:"):
        raise InvalidError(f'"{text}" is not a function', "write python:package.module:function")
    return Hook(text.removeprefix("python:"), bool)


def _when(place: Place) -> tuple[tuple[str, str], ...]:
    section = place.section()
    headers = section.take("header", Place.section, None)
    section.close()
    if headers is None and "header" in section:
        raise ReportedError
    if headers is None or not list(headers):
        raise InvalidError("there is no condition", 'write {header: {X-Internal: "1"}}')
    for name in headers:
        if not is_header_name(name):
            headers.place(name).mistake(f'"{name}" is not a header name: write X-Internal')
    return tuple((environ_name(name), headers.take(name, Place.text, "")) for name in headers)
