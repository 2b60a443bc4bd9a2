"""The tables of the options of a rule and of a limit. See :mod:`.options`."""

from __future__ import annotations

from .. import limits as limit_strings
from ..rules.model import MODES, ON_STORAGE_ERROR, Rule
from .mapping import INHERIT, Option, Options, Required, mapping
from .reader import (
    BOOLEAN,
    TEXT,
    Cursor,
    InvalidError,
    Reader,
    ReportedError,
    Schema,
    choice,
    definition,
    integer,
    list_schema,
)
from .values import (
    CONDITION_HOOK,
    HEADERS,
    KEY,
    LIMIT_TEXT,
    METHOD_NAMES,
    NAME,
    NETWORKS,
    PATHS,
    SCOPE,
    STRATEGY,
    template_file,
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
    Option("key", KEY, INHERIT, "what tells clients apart, as in a rule"),
    Option("strategy", STRATEGY, INHERIT, "how to count, as in a rule"),
    Option("scope", SCOPE, INHERIT, "limits of one scope share their counters, as in a rule"),
    Option("cost", _COST, INHERIT, "how much of it a request uses up"),
    Option(
        "burst",
        integer(1, limit_strings.MAX_QUOTA),
        None,
        "how many at once; for a token bucket only",
        "the number of the limit",
    ),
)
"""The options of a limit that is written as a mapping."""

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


_LIMIT_SCHEMA = definition("limit", {"anyOf": [LIMIT_TEXT.schema, _read_limit.schema]})
LIMITS = Reader(_limits, list_schema(_LIMIT_SCHEMA))
DEFAULT_WORD = "default"
"""The word that stands for default_limits in the limits of a rule."""
_RULE_LIMITS = Reader(_limits, list_schema({"anyOf": [{"const": DEFAULT_WORD}, _LIMIT_SCHEMA]}))

# --- answers --------------------------------------------------------------------------------------

_BODY = "the {} of a 429: a file beside the rule file, with `$retry_after`, `$limit` and `$rule`"

RESPONSE = tuple(
    Option(kind, template_file(kind), INHERIT, _BODY.format(what), "that of `responses`")
    for kind, what in (("html", "page"), ("json", "JSON"), ("text", "text"))
)
"""The options of ``response`` in a rule."""

# --- a rule ---------------------------------------------------------------------------------------

WHEN = (Option("header", HEADERS, (), "header names and the values that they must have"),)

_read_when = mapping(WHEN)


def _when(at: Cursor) -> tuple[tuple[str, str], ...]:
    found = _read_when(at)
    headers: tuple[tuple[str, str], ...] = found["header"]
    if not headers:
        if found.invalid or found.given.keys() - {"header"}:
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
        "a list; `GET` includes `HEAD`, and `OTHER` is every method without a name of its own here",
        "all",
        on_exempt=True,
    ),
    Option("limits", _RULE_LIMITS, (), "a limit, or a list of limits", "required, or `exempt`"),
    Option(
        "exempt",
        BOOLEAN,
        Rule.exempt,
        "true: nothing is counted, not even for `application_limits`",
        on_exempt=True,
    ),
    Option(
        "name",
        NAME,
        "",
        "its name in headers, logs and keys. Without one, clients are told `rule-1`, `rule-2` and "
        "so on",
        "from methods and path",
        on_exempt=True,
    ),
    Option("key", KEY, INHERIT, "what tells clients apart: a [key](#keys)"),
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
        "`shadow`: counted beside the other rules, but never refuses; `off`: as if it were not "
        "there",
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
    Option("cost", _COST, 1, "how much of a limit a request uses up"),
    Option(
        "skip",
        CONDITION_HOOK,
        Rule.skip,
        "`python:package.module:function`, called with the environ; if it returns true, the rule's "
        "limits do not count the request",
    ),
    Option(
        "when",
        Reader(_when, {**_read_when.schema, "required": ["header"]}),
        Rule.when,
        '`{header: {X-Internal: "1"}}`: only requests with these headers; others are charged the '
        "defaults",
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
    """Says that an exempt rule may not have some options, and that any other rule needs limits."""
    forbidden = {option.name: False for option in RULE if not option.on_exempt}
    is_exempt: Schema = {"properties": {"exempt": {"const": True}}, "required": ["exempt"]}
    is_limited: Schema = {"properties": {"exempt": {"const": False}}}
    return {
        "allOf": [
            {"if": is_exempt, "then": {"properties": forbidden}},
            {"if": is_limited, "then": {"required": ["limits"]}},
        ]
    }


_read_rule = mapping(RULE)
_RULE_SCHEMA = definition("rule", {**_read_rule.schema, **_exempt_schema()})


def _rules(at: Cursor) -> tuple[Options, ...]:
    if not isinstance(at.node.value, list):
        raise InvalidError(
            f"{at.shape} stands here", "write a list, each rule beginning with a dash"
        )
    found = [item.attempt(_read_rule, None) for item in at.items()]
    return tuple(rule for rule in found if rule is not None)


RULES = Reader(_rules, {"type": "array", "items": _RULE_SCHEMA})
