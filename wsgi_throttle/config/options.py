"""The table of all options of a configuration, with one row for each.

The rows are used to load the file, to fill in defaults, to check exempt rules, to log that a change
needs a restart, and to make the JSON Schema; a test compares them with the reference in README.md.
A new option takes a new row and the code that uses its value. Where a class has the default of an
option, the row refers to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .. import limits as limit_strings
from ..http.headers import HEADER_STYLES
from ..http.settings import ResponseSettings
from ..identity import IPV4_PREFIXES, IPV6_PREFIXES, MAX_HOPS, ClientIP, Identity, Session
from ..rules.model import MODES, ON_STORAGE_ERROR, RuleSet
from .mapping import Option, Required, mapping
from .reader import BOOLEAN, EXACT_TEXT, TEXT, choice, integer, list_of
from .rule_options import LIMIT, LIMITS, RESPONSE, RULE, RULES, WHEN
from .values import (
    DURATION_MS,
    HEADER_STYLE,
    KEY,
    LIFETIME_S,
    NAMESPACE,
    NETWORKS,
    ORIGINS,
    PROXIES,
    SECRET_KEYS,
    SESSION_KIND,
    STORAGE_URI,
    STRATEGY,
)

# --- who the client is ----------------------------------------------------------------------------

CLIENT_IP = (
    Option(
        "trusted_proxies",
        PROXIES,
        ClientIP.trusted_proxies,
        "the proxies to believe: addresses, networks, `unix`, or `file:NAME` with one on each "
        "line; a list replaces the default",
        "`[unix]`",
    ),
    Option(
        "hops",
        integer(1, MAX_HOPS),
        ClientIP.hops,
        "in place of `trusted_proxies`: how many proxies every request comes through, [whatever "
        "their addresses](docs/keys.md#addresses)",
    ),
    Option(
        "header",
        TEXT,
        ClientIP.header,
        "the header that they set: `X-Forwarded-For`, `Forwarded`, `X-Real-IP` or another",
    ),
    Option(
        "ipv6_prefix",
        integer(*IPV6_PREFIXES),
        ClientIP.ipv6_prefix,
        "IPv6 addresses that agree in so many leading bits are one client",
    ),
    Option(
        "ipv4_prefix",
        integer(*IPV4_PREFIXES),
        ClientIP.ipv4_prefix,
        "the same for IPv4",
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
        "the application's secret key, or a list of keys during a rotation",
        "required to verify",
    ),
    Option("cookie", TEXT, Session.cookie, "the name of the session's cookie", "the framework's"),
    Option(
        "salt",
        EXACT_TEXT,
        Session.salt,
        "the salt of the framework's signatures",
        "the framework's",
    ),
    Option(
        "lifetime",
        LIFETIME_S,
        Session.lifetime_s,
        "how long a cookie is valid after it was signed",
        "the framework's",
    ),
    Option(
        "user",
        list_of(TEXT),
        Session.user,
        "the names under which the session may have the user",
        "the framework's",
    ),
)

# --- answers --------------------------------------------------------------------------------------


def _one_of(names: Iterable[str]) -> str:
    """These words in Markdown, for a reader who is to choose one."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}"


_DRAFT = "https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/"

RESPONSES = (
    Option(
        "headers",
        HEADER_STYLE,
        ResponseSettings.headers,
        f"{_one_of(HEADER_STYLES)}; `ietf` is [a draft]({_DRAFT})",
    ),
    *(
        option._replace(default=getattr(ResponseSettings, option.name), shown_default="built in")
        for option in RESPONSE
    ),
    Option("cors", ORIGINS, (), "the origins whose pages may read a 429"),
)

# --- the top level --------------------------------------------------------------------------------

TOP_LEVEL = (
    Option(
        "storage",
        STORAGE_URI,
        "shared://",
        "where the counters are kept: a [storage](#storages)",
        live=False,
    ),
    Option(
        "default_limits",
        LIMITS,
        (),
        "limits for requests that no rule matches, which share one counter for each client",
    ),
    Option(
        "application_limits",
        LIMITS,
        (),
        "limits for all requests of a client together, in addition to all others",
    ),
    Option(
        "rules",
        RULES,
        (),
        "the rules: a list of mappings",
    ),
    Option("key", KEY, ("ip",), "what tells clients apart: a [key](#keys)", "`ip`"),
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
        "`enforce`; `shadow` counts and logs but refuses nothing; `off`. It holds for everything, "
        "whatever the rules say",
    ),
    Option(
        "allow",
        NETWORKS,
        RuleSet.allow,
        "addresses and networks that are never limited, or `file:NAME` of a file with one on each "
        "line",
    ),
    Option(
        "block",
        NETWORKS,
        RuleSet.block,
        "the same for those that are answered 403 on every path; `allow` goes before it",
    ),
    Option("client_ip", mapping(CLIENT_IP), None, "which proxies to believe", "below"),
    Option("session", mapping(SESSION), None, "where `session-user` finds the user"),
    Option(
        "form_max_bytes",
        integer(1, 1 << 24),
        Identity.form_max_bytes,
        "the longest body that a `form:` or `json:` key reads, in bytes",
    ),
    Option("responses", mapping(RESPONSES), None, "the headers and bodies of responses", "below"),
    Option(
        "on_storage_error",
        choice(ON_STORAGE_ERROR),
        RuleSet.on_storage_error,
        "what to do while the storage fails: `local` counts in each process, `allow`, `deny` (503)",
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
        "the prefix of this application's keys in Redis",
    ),
    Option("reload", BOOLEAN, True, "whether a changed file is used without a restart", live=False),
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
"""All tables, by the names of their mappings."""
