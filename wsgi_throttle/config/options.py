"""Every option of a configuration, in one row each.

The loader, the defaults, the reference in README.md, the check of exempt rules, the log's "needs a
restart" and the JSON Schema read these rows. A new option is a new row, and the code that uses its
value. Defaults stand where the value is used, in the class that has it; a row refers to them.
"""

from __future__ import annotations

from .. import limits as limit_strings
from ..http.settings import ResponseSettings
from ..identity import IPV4_PREFIXES, IPV6_PREFIXES, MAX_HOPS, ClientIP, Identity, Session
from ..rules.model import MODES, ON_STORAGE_ERROR, RuleSet
from .mapping import Option, Required, mapping
from .reader import BOOLEAN, EXACT_TEXT, TEXT, choice, integer, one_or_more
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
        "addresses, networks, `unix`, or `file:NAME` with one a line; a list replaces the default",
        "`[unix]`",
    ),
    Option(
        "hops",
        integer(1, MAX_HOPS),
        ClientIP.hops,
        "instead of `trusted_proxies`: how many proxies all requests come through, [whatever their "
        "addresses](docs/keys.md#addresses)",
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

# --- answers --------------------------------------------------------------------------------------

_DRAFT = "https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/"

RESPONSES = (
    Option(
        "headers",
        HEADER_STYLE,
        ResponseSettings.headers,
        f"`both`, `x-ratelimit`, `ietf` ([draft]({_DRAFT})) or `none`",
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
        "where the counts are: a [storage](#storages)",
        live=False,
    ),
    Option("default_limits", LIMITS, (), "for requests that no rule matches, one counter a client"),
    Option("application_limits", LIMITS, (), "for every request of a client, beside all others"),
    Option(
        "rules",
        RULES,
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
