"""Every option of a configuration, in one row each.

The loader, the defaults, the reference in README.md, the check of exempt rules, the log's "needs a
restart" and the JSON Schema read these rows. A new option is a new row, and the code that uses its
value. Defaults stand where the value is used, in the class that has it; a row refers to them.
"""

from __future__ import annotations

from .. import limits as limit_strings
from ..http.responder import Responses
from ..identity import IPV4_PREFIXES, IPV6_PREFIXES, ClientIP, Identity, Session
from ..rules.model import MODES, ON_STORAGE_ERROR, Rule, RuleSet
from .mapping import INHERIT, Option, Options, Required, mapping
from .reader import (
    BOOLEAN,
    EXACT_TEXT,
    TEXT,
    Cursor,
    InvalidError,
    Reader,
    ReportedError,
    Schema,
    choice,
    integer,
    list_schema,
    one_or_more,
)
from .values import (
    BODY_FILE,
    CONDITION_HOOK,
    DURATION_MS,
    HEADER_STYLE,
    HEADERS,
    KEY,
    LIFETIME_S,
    LIMIT_TEXT,
    METHOD_NAMES,
    NAME,
    NAMESPACE,
    NETWORKS,
    PATHS,
    SCOPE,
    SECRET_KEYS,
    SESSION_KIND,
    STORAGE_URI,
    STRATEGY,
)

MAX_COST = 10**9

_COST = integer(1, MAX_COST)

# --- a limit --------------------------------------------------------------------------------------

LIMIT = (
    Option(
        "limit",
        LIMIT_TEXT,
        Required('a limit is missing: add limit: "5 per minute"'),
        "how many in what time",
    ),
    Option("key", KEY, INHERIT, "whose counter, as in a rule"),
    Option("strategy", STRATEGY, INHERIT, "how to count, as in a rule"),
    Option("scope", SCOPE, INHERIT, "what it shares its counter with, as in a rule"),
    Option("cost", _COST, INHERIT, "what a request uses up of it"),
    Option(
        "burst",
        integer(1, limit_strings.MAX_QUOTA),
        None,
        "how many at once; for a token bucket only",
        "the number of the limit",
    ),
)
"""A limit that is a mapping."""

_read_limit = mapping(LIMIT)


def _limit(at: Cursor) -> Options:
    if isinstance(at.node.value, dict):
        return _read_limit(at)
    values = {option.name: option.default for option in LIMIT}
    return Options(at, LIMIT, {"limit": at}, {**values, "limit": TEXT(at)})


def _limits(at: Cursor) -> tuple[Options, ...]:
    if at.node.value is None:
        raise InvalidError("nothing stands here", 'write a limit such as "5 per minute"')
    items = at.items()
    if not items:
        raise InvalidError("the list is empty", 'list a limit such as "5 per minute"')
    found = [item.attempt(_limit, None) for item in items]
    return tuple(limit for limit in found if limit is not None)


_LIMIT_SCHEMA: Schema = {"anyOf": [LIMIT_TEXT.schema, _read_limit.schema]}
LIMITS = Reader(_limits, list_schema(_LIMIT_SCHEMA))
DEFAULT_WORD = "default"
"""In the limits of a rule, it stands for default_limits."""
_RULE_LIMITS = Reader(
    _limits, list_schema({"anyOf": [{"const": DEFAULT_WORD}, *_LIMIT_SCHEMA["anyOf"]]})
)

# --- answers --------------------------------------------------------------------------------------

_BODY = "the {} of a 429: a file beside the rule file, with `$retry_after`, `$limit` and `$rule`"

RESPONSE = tuple(
    Option(kind, BODY_FILE, INHERIT, _BODY.format(what), "that of `responses`")
    for kind, what in (("html", "page"), ("json", "JSON"), ("text", "text"))
)
"""``response`` of a rule."""

_DRAFT = "https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/"

RESPONSES = (
    Option(
        "headers",
        HEADER_STYLE,
        Responses.headers,
        f"`both`, `x-ratelimit`, `ietf` ([draft]({_DRAFT})) or `none`",
    ),
    *(
        option._replace(default=getattr(Responses, option.name), shown_default="built in")
        for option in RESPONSE
    ),
    Option("cors", one_or_more(TEXT), (), "the origins whose pages may read a 429"),
)

# --- a rule ---------------------------------------------------------------------------------------

WHEN = (Option("header", HEADERS, (), "header names and the values that they must have"),)

_read_when = mapping(WHEN)


def _when(at: Cursor) -> tuple[tuple[str, str], ...]:
    found = _read_when(at)
    headers: tuple[tuple[str, str], ...] = found["header"]
    if not headers:
        if found.mistaken or found.given.keys() - {"header"}:
            raise ReportedError
        raise InvalidError("there is no condition", 'write {header: {X-Internal: "1"}}')
    return headers


RULE = (
    Option(
        "path",
        PATHS,
        Required('a rule needs a path: add path: /login, or path: "/**" for all'),
        "a pattern or a list of them, which share one counter",
        on_exempt=True,
    ),
    Option(
        "methods",
        METHOD_NAMES,
        Rule.methods,
        "a list; `GET` brings `HEAD`, and `OTHER` is what RFC 9110 does not list",
        "all",
        on_exempt=True,
    ),
    Option("limits", _RULE_LIMITS, (), "what it may", "required, or `exempt`"),
    Option(
        "exempt",
        BOOLEAN,
        Rule.exempt,
        "true: nothing is counted, application limits neither",
        on_exempt=True,
    ),
    Option("name", NAME, "", "in headers, logs and keys", "from methods and path", on_exempt=True),
    Option("key", KEY, INHERIT, "whose counter: a [key](#keys)"),
    Option("strategy", STRATEGY, INHERIT, "how to count: a [strategy](#strategies)"),
    Option(
        "on_storage_error",
        choice(ON_STORAGE_ERROR),
        INHERIT,
        "what its requests get while the storage fails",
    ),
    Option(
        "mode",
        choice(MODES),
        Rule.mode,
        "`shadow`: an overlay that is counted and never refuses; `off`: as if it were not there",
        on_exempt=True,
    ),
    Option(
        "scope",
        SCOPE,
        "",
        "rules of one scope share the counters of the limits that they have in common",
        "the rule",
    ),
    Option("per_method", BOOLEAN, Rule.per_method, "count each method by itself"),
    Option("cost", _COST, 1, "what a request uses up"),
    Option(
        "skip",
        CONDITION_HOOK,
        Rule.skip,
        "`python:package.module:function`, called with the environ; true leaves this rule's limits "
        "out",
    ),
    Option(
        "when",
        Reader(_when, {**_read_when.schema, "required": ["header"]}),
        Rule.when,
        '`{header: {X-Internal: "1"}}`: only such requests; others are charged the defaults',
    ),
    Option("allow", NETWORKS, Rule.allow, "addresses and networks that this rule does not limit"),
    Option(
        "block",
        NETWORKS,
        Rule.block,
        "addresses and networks that this rule answers 403",
        on_exempt=True,
    ),
    Option(
        "response",
        mapping(RESPONSE),
        None,
        "`html`, `json` and `text` as in `responses`, for this rule",
        "inherited",
    ),
)


def _exempt_schema() -> Schema:
    """What an exempt rule may not have, and that any other needs limits."""
    forbidden = {option.name: False for option in RULE if not option.on_exempt}
    is_exempt: Schema = {"properties": {"exempt": {"const": True}}, "required": ["exempt"]}
    is_limited: Schema = {"properties": {"exempt": {"const": False}}}
    return {
        "allOf": [
            {"if": is_exempt, "then": {"properties": forbidden}},
            {"if": is_limited, "then": {"required": ["limits"]}},
        ]
    }


RULE_READER = Reader(mapping(RULE).parse, {**mapping(RULE).schema, **_exempt_schema()})


def _rules(at: Cursor) -> tuple[Options, ...]:
    if not isinstance(at.node.value, list):
        raise InvalidError(
            f"{at.shape} stands here", "write a list, each rule beginning with a dash"
        )
    found = [item.attempt(RULE_READER, None) for item in at.items()]
    return tuple(rule for rule in found if rule is not None)


# --- who the client is ----------------------------------------------------------------------------

CLIENT_IP = (
    Option(
        "trusted_proxies",
        one_or_more(TEXT, least=0),
        ClientIP.trusted_proxies,
        "addresses, networks and `unix`; a list replaces the default",
        "`[unix]`",
    ),
    Option(
        "header",
        TEXT,
        ClientIP.header,
        "what they set: `X-Forwarded-For`, `Forwarded`, `X-Real-IP` or another",
    ),
    Option(
        "ipv6_prefix",
        integer(*IPV6_PREFIXES),
        ClientIP.ipv6_prefix,
        "how many leading bits of an IPv6 address are one client",
    ),
    Option(
        "ipv4_prefix",
        integer(*IPV4_PREFIXES),
        ClientIP.ipv4_prefix,
        "how many leading bits of an IPv4 address are one client",
    ),
)

SESSION = (
    Option(
        "kind",
        SESSION_KIND,
        Required("a kind is missing: write kind: flask"),
        "`flask`, `django` (signed cookies), `environ`, `python:package.module:function`",
    ),
    Option(
        "secret_key",
        SECRET_KEYS,
        (),
        "the application's, or a list for rotation",
        "required to verify",
    ),
    Option("cookie", TEXT, Session.cookie, "the name of the session's cookie", "the framework's"),
    Option(
        "salt",
        EXACT_TEXT,
        Session.salt,
        "what the framework signs with besides the key",
        "the framework's",
    ),
    Option(
        "lifetime",
        LIFETIME_S,
        Session.lifetime_s,
        "how long a cookie is good after it was signed",
        "the framework's",
    ),
    Option("user", one_or_more(TEXT), Session.user, "the names to look for", "the framework's"),
)

# --- the top level --------------------------------------------------------------------------------

TOP_LEVEL = (
    Option(
        "storage",
        STORAGE_URI,
        "shared://",
        "where the counts are: a [storage](#storages)",
        live=False,
    ),
    Option("default_limits", LIMITS, (), "for requests that no rule matches, one counter a client"),
    Option("application_limits", LIMITS, (), "for every request of a client, beside all others"),
    Option(
        "rules",
        Reader(_rules, {"type": "array", "items": RULE_READER.schema}),
        (),
        "the rules: a list of mappings",
    ),
    Option("key", KEY, ("ip",), "whose counter: a [key](#keys)", "`ip`"),
    Option(
        "strategy",
        STRATEGY,
        limit_strings.DEFAULT_STRATEGY,
        "how to count: a [strategy](#strategies)",
    ),
    Option(
        "mode",
        choice(MODES),
        RuleSet.mode,
        "`enforce`; `shadow` counts and logs and refuses nothing; `off`. For everything, whatever "
        "the rules say",
    ),
    Option(
        "allow",
        NETWORKS,
        RuleSet.allow,
        "addresses and networks, or `file:NAME` with one a line, that are never limited",
    ),
    Option(
        "block",
        NETWORKS,
        RuleSet.block,
        "the same, answered 403 on every path; `allow` wins",
    ),
    Option("client_ip", mapping(CLIENT_IP), None, "which proxies to believe", "below"),
    Option("session", mapping(SESSION), None, "whose session `session-user` means"),
    Option(
        "form_max_bytes",
        integer(1, 1 << 24),
        Identity.form_max_bytes,
        "the longest body that a `form:` key reads",
    ),
    Option("responses", mapping(RESPONSES), None, "headers and bodies", "below"),
    Option(
        "on_storage_error",
        choice(ON_STORAGE_ERROR),
        RuleSet.on_storage_error,
        "`local` counts in the process until the storage is back, `allow`, `deny` (503)",
    ),
    Option(
        "storage_timeout",
        DURATION_MS,
        100,
        "how long a request waits for Redis",
        "0.1 s",
        live=False,
    ),
    Option(
        "namespace",
        NAMESPACE,
        RuleSet.namespace,
        "what this application's keys in Redis begin with",
    ),
    Option("reload", BOOLEAN, True, "whether to look for a changed file", live=False),
)

TABLES = {
    "top level": TOP_LEVEL,
    "rule": RULE,
    "limit": LIMIT,
    "client_ip": CLIENT_IP,
    "session": SESSION,
    "responses": RESPONSES,
    "response": RESPONSE,
    "when": WHEN,
}
"""All of them, by what their mappings are called."""
