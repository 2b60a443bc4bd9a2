"""The rule file: what it means, and that each mistake is reported with its line and a remedy."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgi_throttle import ConfigError, Diagnostic, Throttle
from wsgi_throttle.config import Config, load
from wsgi_throttle.limits import describe
from wsgi_throttle.rules.table import RuleTable


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "throttle.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def mistakes(config: Any, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(config, **options)
    assert str(caught.value).splitlines() == [str(one) for one in caught.value.diagnostics]
    return [str(one) for one in caught.value.diagnostics]


def limits(config: Config, index: int = 0) -> list[str]:
    return [describe(one.limit) for one in config.rules[index].limits]


# --- what it means ------------------------------------------------------------------------------


def test_a_file_and_a_mapping_of_its_shape_mean_the_same(write: Any) -> None:
    path = write(
        """
storage: memory://
default_limits: [200 per day, 50 per hour]
rules:
  - {path: [/static/**, /favicon.ico], exempt: true}
  - {name: login, path: /login, methods: [post], limits: 5 per minute; 20 per hour}
  - path: /api
    limits:
      - 30 per minute
      - {limit: 1000 per hour, key: all, strategy: token-bucket, burst: 50, scope: api, cost: 2}
      - default
"""
    )
    mapping = {
        "storage": "memory://",
        "default_limits": ["200 per day", "50 per hour"],
        "rules": [
            {"path": ["/static/**", "/favicon.ico"], "exempt": True},
            {
                "name": "login",
                "path": "/login",
                "methods": ["post"],
                "limits": "5 per minute; 20 per hour",
            },
            {
                "path": "/api",
                "limits": [
                    "30 per minute",
                    {
                        "limit": "1000 per hour",
                        "key": "all",
                        "strategy": "token-bucket",
                        "burst": 50,
                        "scope": "api",
                        "cost": 2,
                    },
                    "default",
                ],
            },
        ],
    }
    from_file, from_mapping = load(path), load(mapping)
    for one, other in zip(from_file.rules, from_mapping.rules, strict=True):
        assert (one.name, one.patterns, one.methods, one.limits, one.exempt) == (
            other.name,
            other.patterns,
            other.methods,
            other.limits,
            other.exempt,
        )
    assert from_file.default_limits == from_mapping.default_limits
    api = from_file.rules[2]
    assert limits(from_file, 2) == ["30 per minute", "1000 per hour", "200 per day", "50 per hour"]
    assert [one.label for one in api.limits] == ["/api-1", "/api-2", "", ""]
    assert [one.policy for one in api.limits] == ["rule-2-1", "rule-2-2", "default-1", "default-2"]
    assert (api.limits[1].limit.strategy, api.limits[1].limit.burst) == ("token-bucket", 50)
    assert (api.limits[1].cost, api.limits[1].scope, api.limits[1].key) == (
        2,
        "scope=api",
        ("all",),
    )


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"path": "/a", "methods": "POST"}, "POST /a"),
        ({"path": ["/a", "/b"], "methods": ["GET", "POST"]}, "GET,POST /a,/b"),
        ({"path": "/users/<int:id>"}, "/users/<int:id>"),
        ({"path": "/grüße"}, "/gr%C3%BC%C3%9Fe"),
        ({"path": "/a", "name": "login form"}, "login form"),
    ],
)
def test_a_rule_is_named_after_its_methods_and_path(rule: dict[str, Any], name: str) -> None:
    assert load({"rules": [{**rule, "limits": "1/s"}]}).rules[0].name == name


def test_words_that_yaml_takes_for_booleans_and_numbers_are_words(write: Any) -> None:
    config = load(write("mode: off\nnamespace: 1e3\nrules: [{path: /a, name: no, limits: 1/s}]"))
    assert (config.mode, config.namespace, config.rules[0].name) == ("off", "1e3", "no")


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("${NAME}", {"NAME": "memory://"}, "memory://"),
        ("${NAME:-memory://}", {}, "memory://"),
        ("${NAME:-memory://}", {"NAME": ""}, "memory://"),
        ("${NAME:-shared://}", {"NAME": "memory://"}, "memory://"),
        ("${SCHEME}://?max_clients=${N:-5}", {"SCHEME": "memory"}, "memory://?max_clients=5"),
    ],
)
def test_a_variable_is_filled_in(text: str, variables: dict[str, str], expected: str) -> None:
    assert load({"storage": text}, variables=variables).storage == expected


def test_two_dollars_are_one(write: Any) -> None:
    secret = load(write('session: {kind: flask, secret_key: "a$${b}$$"}')).identity.session
    assert secret is not None
    assert secret.secret_keys == ("a${b}$",)


def test_a_number_from_the_environment_is_a_number_and_a_secret_of_digits_keeps_its_zeros(
    write: Any,
) -> None:
    path = write(
        'session: {kind: flask, secret_key: "${S}"}\nrules: [{path: /a, cost: "${N}", limits: 9/s}]'
    )
    config = load(path, variables={"S": "007", "N": "3"})
    assert config.identity.session is not None
    assert config.identity.session.secret_keys == ("007",)
    assert config.rules[0].limits[0].cost == 3


def test_a_value_from_the_environment_cannot_become_structure(write: Any) -> None:
    path = write('rules: [{path: "${P}", limits: 1/s}]')
    assert "does not fit" in mistakes(path, variables={"P": "[/a, /b]"})[0]


def test_anchors_and_merges_work(write: Any) -> None:
    config = load(
        write(
            """
rules:
  - &base {path: /a, methods: [POST], limits: 5/m}
  - {<<: *base, path: /b}
"""
        )
    )
    assert config.rules[1].methods == ("POST",)
    assert limits(config, 1) == ["5 per minute"]


def test_a_list_of_networks_may_be_a_file_beside_the_rules(write: Any, tmp_path: Path) -> None:
    (tmp_path / "office.txt").write_text("# the office\n192.0.2.0/24\n")
    config = load(write('allow: [10.0.0.0/8, "file:office.txt"]'))
    assert config.allow is not None
    assert RuleTable(config).precheck(
        RuleTable(config).match("GET", "/"), {"REMOTE_ADDR": "192.0.2.9"}
    ) == ("allowed", None)


def test_a_body_may_be_a_file_beside_the_rules(write: Any, tmp_path: Path) -> None:
    (tmp_path / "429.html").write_text("<p>$retry_after")
    render = load(write("responses: {html: 429.html}")).responder.settings.html
    assert render is not None
    assert render(41, "5 per minute", "login", ["login"]) == "<p>41"


# --- what is wrong ------------------------------------------------------------------------------


def test_a_mistake_is_reported_with_file_line_column_path_value_and_remedy(write: Any) -> None:
    path = write("rules:\n  - path: /a\n    limits: 5 per minutee\n")
    (told,) = mistakes(path)
    assert told.startswith(f"{path}:3:13: rules[0].limits: ")
    assert told.endswith('"5 per minutee" is not a limit: did you mean "5 per minute"?')


def test_every_mistake_of_a_file_is_told_in_the_order_of_its_lines(write: Any) -> None:
    path = write(
        """
mode: of
stoarge: memory://
rules:
  - {path: login, limits: 5 per minute}
  - {path: /a, limits: 5 per minute; 6}
  - {path: /b, method: GET, limits: 5 per minute}
  - {path: /c}
  - {limits: 1/s}
"""
    )
    found = mistakes(path)
    assert [int(one.split(":")[1]) for one in found] == [2, 3, 5, 6, 7, 8, 9]
    assert [one.split(": ", 2)[1] for one in found] == [
        "mode",
        '"stoarge" is not a key',
        "rules[0].path",
        "rules[1].limits",
        "rules[2]",
        "rules[3]",
        "rules[4]",
    ]
    assert 'did you mean "storage"?' in found[1]
    assert 'did you mean "methods"?' in found[4]


BROKEN = {
    "a rule that is text": ("rules: [/a]", "write keys and values"),
    "rules that are a mapping": ("rules: {path: /a}", "each rule beginning with a dash"),
    "a rule without limits": ("rules: [{path: /a}]", "exempt: true"),
    "a rule without a path": ("rules: [{limits: 1/s}]", "needs a path"),
    "limits and exempt": (
        "rules: [{path: /a, limits: 1/s, exempt: true}]",
        "take out limits or exempt",
    ),
    **{
        f"an exempt rule with {key}": (
            f"rules: [{{path: /a, exempt: true, {key}: {value}}}]",
            f"rules[0].{key}: an exempt rule counts nothing: take out {key} or exempt",
        )
        for key, value in (
            ("when", '{header: {X-Internal: "1"}}'),
            ("skip", "python:os:getpid"),
            ("cost", "2"),
            ("key", "all"),
            ("per_method", "true"),
            ("scope", "api"),
            ("strategy", "fixed-window"),
            ("response", "{}"),
            ("on_storage_error", "deny"),
            ("allow", "192.0.2.1"),
        )
    },
    "a condition without headers": (
        "rules: [{path: /a, limits: 1/s, when: {header: {}}}]",
        "there is no condition",
    ),
    "a condition on what is no header": (
        'rules: [{path: /a, limits: 1/s, when: {header: {"X Internal": "1"}}}]',
        '"X Internal" is not a header name: write X-Internal',
    ),
    "a variable of no path": (
        "rules: [{path: [/a/<id>/<x>, /b/<id>], limits: 1/s, key: path:x}]",
        "rules[0].key: not every path that is limited here has <x>: use path:id",
    ),
    "a variable of no path for one limit": (
        "rules: [{path: /a/*, limits: [{limit: 1/s, key: [ip, path:x]}]}]",
        "rules[0].limits[0].key: not every path that is limited here has <x>: use another key",
    ),
    "a variable for default limits": (
        "default_limits: {limit: 1/s, key: path:id}",
        "not every path that is limited here has <id>",
    ),
    "a variable for application limits": (
        "application_limits: {limit: 1/s, key: path:id}",
        "not every path that is limited here has <id>",
    ),
    "a variable at the top and not in a rule": (
        "key: path:id\nrules: [{path: /a, limits: 1/s}]",
        "rules[0].limits: not every path that is limited here has <id>",
    ),
    "default twice": (
        "default_limits: 9/s\nrules: [{path: /a, limits: [default, default]}]",
        "leave one out",
    ),
    "a path twice": ("rules: [{path: [/a, /a/], limits: 1/s}]", "twice: leave one out"),
    "an empty list of limits": ("rules: [{path: /a, limits: []}]", "list is empty"),
    "an empty list of paths": ("rules: [{path: [], limits: 1/s}]", "list is empty"),
    "an empty list of methods": (
        "rules: [{path: /a, methods: [], limits: 1/s}]",
        "leave methods out",
    ),
    "limits that are nothing": ("rules: [{path: /a, limits: }]", "nothing stands here"),
    "limits that are a number": ("rules: [{path: /a, limits: 5}]", '"5" is not a limit'),
    "a limit as a key": ("rules: [{path: /a, limits: {5 per minute: }}]", "limit is missing"),
    "a limit as a key of a rule": (
        "rules: [{path: /a, 5 per minute: x}]",
        "quote it or use a list",
    ),
    "the same limit twice": ("rules: [{path: /a, limits: [1/s, 1 per second]}]", "here twice"),
    "default without defaults": ("rules: [{path: /a, limits: [default]}]", "there are none"),
    "a cost above the limit": ("rules: [{path: /a, limits: 5/s, cost: 6}]", "never fits"),
    "a cost of zero": ("rules: [{path: /a, limits: 5/s, cost: 0}]", "out of bounds"),
    "a cost in words": ("rules: [{path: /a, limits: 5/s, cost: two}]", "whole number"),
    "a quoted number": ('rules: [{path: /a, limits: 5/s, cost: "2"}]', "whole number"),
    "a burst without a bucket": (
        "rules: [{path: /a, limits: [{limit: 5/s, burst: 9}]}]",
        "token-bucket",
    ),
    "a burst of a limit of zero": (
        "rules: [{path: /a, limits: [{limit: 0/s, burst: 9, strategy: token-bucket}]}]",
        "no burst",
    ),
    "an unknown strategy": ("strategy: gcra", "token-bucket"),
    "an unknown key type": ("key: user", "session-user"),
    "a key type twice": ("key: [ip, ip]", "twice"),
    "session-user without a session": ("key: session-user", "secret_key"),
    "an unknown method": ("rules: [{path: /a, methods: [FETCH], limits: 1/s}]", "OTHER"),
    "an unknown mode": ("mode: on", "enforce, shadow, off"),
    "a yes": ("rules: [{path: /a, exempt: yes}]", "true or false"),
    "a quoted true": ('rules: [{path: /a, exempt: "true"}]', "true or false"),
    "an unknown policy": ("on_storage_error: open", "local, allow, deny"),
    "an unknown storage": ("storage: memcached://x", "redis://"),
    "a tag on text": ("default_limits: !vault 1/s", "the tag !vault is not known here"),
    "a tag on a list": ("default_limits: !vault [1/s]", "the tag !vault is not known here"),
    "a tag on a mapping": ("rules: [!rule {path: /a, limits: 1/s}]", "the tag !rule is not"),
    "a storage that is no URI": ("storage: redis", "it has no ://: use one of memory://"),
    "a storage that is a host": ("storage: redis:6379", "it has no ://: use one of memory://"),
    "an unknown storage option": ("storage: memory://?size=5", "max_clients"),
    "a bad namespace": ('namespace: "a:b"', "letters"),
    "a bad time": ("storage_timeout: soon", "100 ms"),
    "a time of zero": ("storage_timeout: 0", "above zero"),
    "a name in quotes": ("rules: [{path: /a, name: 'a\"b', limits: 1/s}]", "printable"),
    "a reserved name": ("rules: [{path: /a, name: default, limits: 1/s}]", "choose another"),
    "two rules of one name": (
        "rules: [{path: /a, name: x, limits: 1/s}, {path: /b, name: x, limits: 1/s}]",
        "name of its own",
    ),
    "a key twice": ("mode: off\nmode: off", "line 1"),
    "a bad proxy": ("client_ip: {trusted_proxies: [nginx]}", "unix"),
    "hops beside proxies": (
        "client_ip: {hops: 1, trusted_proxies: [10.0.0.0/8]}",
        "leave one of them out",
    ),
    "no hops": ("client_ip: {hops: 0}", "from 1 to 32"),
    "a bad prefix": ("client_ip: {ipv6_prefix: 129}", "from 16 to 128"),
    "an unknown session": ("session: {kind: rails, secret_key: x}", "flask"),
    "a session without a key": ("session: {kind: flask}", "secret_key"),
    "a session's function that is not there": ("session: {kind: python:os:nowhere}", "nowhere"),
    "a session without a kind": ("session: {secret_key: x}", "kind"),
    "a network with host bits": ("allow: [10.0.0.1/8]", "10.0.0.0/8"),
    "a list that is not there": ('block: ["file:nowhere.txt"]', "nowhere.txt"),
    "a body that is not there": ("responses: {html: nowhere.html}", "nowhere.html"),
    "an unknown header style": ("responses: {headers: github}", "x-ratelimit"),
    "an origin with a path": (
        "responses: {cors: [https://a.example, https://b.example/]}",
        'responses.cors[1]: "https://b.example/" is not an origin as browsers send it',
    ),
    "any origin, and another": (
        'responses: {cors: ["*", "https://a.example"]}',
        "leave the others",
    ),
    "a skip that is no function": ("rules: [{path: /a, limits: 1/s, skip: internal}]", "python:"),
    "a skip that is not there": (
        'rules: [{path: /a, limits: 1/s, skip: "python:os:nowhere"}]',
        "nowhere",
    ),
    "a condition without a header": ("rules: [{path: /a, limits: 1/s, when: {ip: x}}]", "header"),
    "an unset variable": ("storage: ${NOWHERE_TO_BE_SET}", "NOWHERE_TO_BE_SET is not set"),
    "a bad variable": ('storage: "${1}"', "${NAME}"),
    "an unclosed variable": ('storage: "${A"', "${NAME}"),
    "a tag": ("storage: !!python/object:os.system memory://", "this is not YAML|tag|leave it out"),
    "a list for text": ("storage: [memory://]", "one text"),
    "a list as a key": ("[a]: b", "a key is text"),
    "a merge of text": ("rules: [{<<: x, path: /a, limits: 1/s}]", "takes a mapping"),
    "a tab": ("rules:\n\t- path: /a", "not YAML"),
    "an unclosed bracket": ("rules: [{path: /a", "not YAML"),
    "a star without quotes": ("rules: [{path: /a, limits: *x}]", "not YAML"),
    "a list at the top": ("- path: /a", "keys and values"),
    "text at the top": ("hello", "keys and values"),
    "two documents": ("mode: off\n---\nmode: off", "not YAML"),
}


@pytest.mark.parametrize(("text", "told"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_with_a_remedy(write: Any, text: str, told: str) -> None:
    found = mistakes(write(text), variables={})
    assert any(part in one for one in found for part in told.split("|")), found
    assert all("Traceback" not in one for one in found)


def test_an_exempt_rule_may_name_itself_and_block(write: Any) -> None:
    config = load(
        write(
            "rules: [{name: x, path: /a, methods: GET, mode: off, block: 10.0.0.1, exempt: true}]"
        )
    )
    assert config.rules[0].exempt


@pytest.mark.parametrize(
    ("header", "place"),
    [("X-Internal", "HTTP_X_INTERNAL"), ("content-type", "CONTENT_TYPE")],
)
def test_a_condition_is_looked_up_where_wsgi_keeps_the_header(
    write: Any, header: str, place: str
) -> None:
    config = load(write(f"rules: [{{path: /a, limits: 1/s, when: {{header: {{{header}: x}}}}}}]"))
    assert config.rules[0].when == ((place, "x"),)


def test_a_variable_of_the_path_may_be_the_key_for_all_rules(write: Any) -> None:
    config = load(write("key: path:id\nrules: [{path: [/a/<id>, /b/<int:id>], limits: 1/s}]"))
    assert config.rules[0].limits[0].key == ("path:id",)


def test_the_cost_has_to_fit_into_the_burst_of_a_token_bucket() -> None:
    limit = {"limit": "5 per minute", "strategy": "token-bucket", "burst": 50, "cost": 10}
    assert load({"default_limits": limit}).default_limits[0].cost == 10


def test_the_list_of_trusted_proxies_may_be_empty(write: Any) -> None:
    config = load(write("client_ip: {trusted_proxies: []}"))
    assert config.identity.client_ip.trusted_proxies == ()


def test_proxies_may_stand_in_a_file(write: Any, tmp_path: Path) -> None:
    (tmp_path / "cdn.txt").write_text("203.0.113.0/24\n# and\n2001:db8::/32\n", "utf-8-sig")
    config = load(write('client_ip: {trusted_proxies: ["file:cdn.txt", unix, 10.0.0.1]}'))
    assert config.identity.client_ip.trusted_proxies == (
        *("203.0.113.0/24", "2001:db8::/32", "unix", "10.0.0.1/32"),
    )


def test_a_bad_line_in_a_file_of_proxies_is_named(write: Any, tmp_path: Path) -> None:
    (tmp_path / "cdn.txt").write_text("203.0.113.0/24\n203.0.113.7/24\n")
    with pytest.raises(ConfigError, match=r"cdn\.txt:2: .*203\.0\.113\.0/24 for the network"):
        load(write("client_ip: {trusted_proxies: file:cdn.txt}"))


def test_a_secret_keeps_its_white_space(write: Any) -> None:
    session = load(
        write('session: {kind: flask, secret_key: "${S}", salt: " salt"}'), variables={"S": " x\n"}
    ).identity.session
    assert session is not None
    assert (session.secret_keys, session.salt) == ((" x\n",), " salt")


def test_a_path_that_no_file_can_have_is_a_mistake() -> None:
    assert "cannot be read" in mistakes("a\0b")[0]


@pytest.mark.parametrize(
    "text",
    [
        "rules: [{path: /a, exempt: yes}]",
        "rules: [{path: /a, limits: 1/s, when: {header: x}}]",
        "key: {ip: x}",
        "default_limits:",
        'session: {kind: flask, secret_key: ""}',
        'session: {kind: flask, secret_key: ["${UNSET}"]}',
        'client_ip: {trusted_proxies: ["${UNSET}"]}',
        'client_ip: {ipv6_prefix: "129"}',
    ],
)
def test_one_mistake_is_told_once(write: Any, text: str) -> None:
    assert len(mistakes(write(text), variables={})) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"# nothing but a comment\n", "is empty"),
        (b"\x00\xff\xfe\x01", "not UTF-8"),
        (b"\x00\x01", "not YAML"),
        (b"rules: []\n#" + b"x" * 10_000_000, "larger than 1 MiB"),
        (
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9))
                for c in range(98, 107)
            ),
            "values, aliases expanded",
        ),
        (b"rules: &a [*a]", "refer to themselves"),
        (b"[" * 5000 + b"]" * 5000, "deep"),
    ],
    ids=[
        "missing",
        "empty",
        "comment",
        "binary",
        "control characters",
        "10 MB",
        "bomb",
        "recursion",
        "depth",
    ],
)
def test_a_file_that_is_no_rule_file_gets_a_clear_error(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "throttle.yaml"
    if content is not None:
        path.write_bytes(content)
    found = mistakes(path)
    assert len(found) == 1
    assert told in found[0]
    assert found[0].startswith(str(path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read" in mistakes(tmp_path)[0]


@pytest.mark.parametrize(
    "text",
    [
        'storage: "${SECRET}"',
        'rules: [{path: /a, limits: "${SECRET}"}]',
        'rules: [{path: "${SECRET}", limits: 1/s}]',
        'mode: "${SECRET}"',
        'key: "${SECRET}"',
        'namespace: "${SECRET}"',
        'rules: [{path: /a, cost: "${SECRET}", limits: 1/s}]',
        'session: {kind: "${SECRET}"}',
        'client_ip: {trusted_proxies: ["${SECRET}"]}',
        'allow: ["${SECRET}"]',
        'responses: {html: "${SECRET}"}',
    ],
)
def test_no_value_from_the_environment_is_printed(write: Any, text: str) -> None:
    found = mistakes(write(text), variables={"SECRET": "redis//:hunter2%"})
    assert found
    assert not any("hunter2" in one for one in found), found
    assert all("${SECRET}" in one or "kind" in one for one in found)


@pytest.mark.parametrize("session", ["{kind: flask}", "{kind: 'python:os:nowhere'}"])
def test_a_wrong_session_is_reported_once_however_many_keys_need_it(
    write: Any, session: str
) -> None:
    keys = "key: session-user\nrules: [{path: /a, limits: 1/s, key: [ip, session-user]}]"
    (found,) = mistakes(write(f"session: {session}\n{keys}"))
    assert ":1:10: session: " in found


def test_the_variables_may_be_unset_where_that_is_asked_for(write: Any) -> None:
    path = write(
        'storage: "${REDIS_URL}"\nkey: session-user\n'
        'session: {kind: flask, secret_key: "${SECRET_KEY}"}'
    )
    assert len(mistakes(path, variables={})) >= 2
    assert load(path, variables={}, allow_unset=True).storage == "shared://"


CODES = {
    "mode: of": "invalid-value",
    "mod: off": "unknown-option",
    "rules: [{limits: 1/s}]": "missing-option",
    "rules: [{path: /a}]": "missing-option",
    "mode: enforce\nmode: enforce": "yaml",
    "mode: [": "yaml",
    'namespace: "${UNSET}"': "unset-variable",
    "rules: [{path: /a, exempt: true, cost: 2}]": "exempt-rule",
    "rules: [{path: /a, name: x, limits: 1/s}, {path: /b, name: x, limits: 1/s}]": "duplicate-name",
    "rules: [{path: /a, limits: 1/s}, {path: /a, limits: 1/s}]": "rules-clash",
    "storage: redis": "invalid-value",
}


@pytest.mark.parametrize(("text", "code"), CODES.items())
def test_a_mistake_is_data(write: Any, text: str, code: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(path, variables={})
    (diagnostic,) = caught.value.diagnostics
    assert isinstance(diagnostic, Diagnostic)
    assert (diagnostic.severity, diagnostic.code, diagnostic.source) == ("error", code, str(path))
    assert diagnostic.line
    assert diagnostic.column


def test_a_template_s_mistake_is_told_where_the_template_is_named(
    write: Any, tmp_path: Path
) -> None:
    (tmp_path / "429.html").write_text("<p>\n$retry")
    (tmp_path / "429.json").write_text("{")
    found = mistakes(
        write(
            "responses:\n  html: 429.html\n"
            "rules:\n- {path: /a, limits: 1/s, response: {json: 429.json}}"
        )
    )
    assert [one.split(": ", 2)[:2] for one in found] == [
        [f"{tmp_path}/throttle.yaml:2:9", "responses.html"],
        [f"{tmp_path}/throttle.yaml:4:44", "rules[0].response.json"],
    ]
    assert 'line 2: "$retry" is not known' in found[0]
    assert "it is not JSON" in found[1]


# --- all in one pass ----------------------------------------------------------------------------


def test_rules_that_clash_are_reported_with_all_other_mistakes_and_with_their_line(
    write: Any,
) -> None:
    found = mistakes(
        write(
            """
mode: off
rules:
  - {path: /a, limits: 1/s}
  - {path: /b, limits: 5 per minutee}
  -   {path: /a, limits: 2/s}
  - {path: /b, limits: 2/s}
storage: nowhere
default_limits: {limit: 1/s, cost: 2}
"""
        )
    )
    assert [one.split("throttle.yaml:")[1].split(": ")[0:2] for one in found] == [
        ["5:24", "rules[1].limits"],
        ["6:7", "rules[2]"],
        ["7:5", "rules[3]"],
        ["8:10", "storage"],
        ["9:25", "default_limits.limit"],
    ]
    assert "can never be told from the rule in line 4" in found[1]
    assert "can never be told from the rule in line 5" in found[2]


@pytest.mark.parametrize(
    "option", ["methods: [FETCH]", "mode: shadwo", 'methods: "${UNSET}"', "methods: [GET, FETCH]"]
)
def test_a_rule_whose_path_methods_or_mode_are_wrong_is_not_said_to_clash(
    write: Any, option: str
) -> None:
    path = write(f"rules: [{{path: /a, limits: 1/s}}, {{path: /a, limits: 1/s, {option}}}]")
    (found,) = mistakes(path, variables={})
    assert "told from" not in found


def test_unset_variables_that_are_allowed_make_no_rules_clash(write: Any) -> None:
    path = write('rules: [{path: /a, limits: 1/s}, {path: /a, limits: 1/s, methods: "${UNSET}"}]')
    assert len(load(path, variables={}, allow_unset=True).rules) == 2


@pytest.mark.parametrize(
    "text",
    [
        'session: {kind: "${UNSET}", secret_key: x}\nkey: session-user',
        'rules: [{path: "${UNSET}", limits: 1/s}]',
        'rules: [{path: /a, limits: {limit: "${UNSET}"}}]',
        'rules: [{path: /a, limits: ["${UNSET}", 1/s]}]',
        'default_limits: "${UNSET}"',
        'client_ip: {header: "${UNSET}", trusted_proxies: "${UNSET}"}',
        'responses: {cors: "${UNSET}", html: "${UNSET}"}',
        'storage: "${UNSET}"\nstorage_timeout: "${UNSET}"\nreload: "${UNSET}"\nmode: "${UNSET}"',
        'allow: ["${UNSET}"]\nblock: "${UNSET}"',
    ],
)
def test_any_value_may_be_unset_where_that_is_asked_for(write: Any, text: str) -> None:
    path = write(text)
    RuleTable(load(path, variables={}, allow_unset=True))
    assert all("UNSET is not set" in one for one in mistakes(path, variables={}))


def test_a_name_from_the_environment_is_not_shown_of_a_mapping_either() -> None:
    rules = [{"path": "/a", "name": "${SECRET}", "limits": "1/s"}, {"path": "/a", "limits": "1/s"}]
    (found,) = mistakes({"rules": rules}, variables={"SECRET": "hunter2"})
    assert "from the rule rules[0]" in found
    assert "hunter2" not in found


def test_what_is_built_to_be_checked_is_what_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []

    def counted(module: str, name: str) -> None:
        function = getattr(importlib.import_module(module), name)

        def count(*given: Any, **options: Any) -> Any:
            made.append(name)
            return function(*given, **options)

        monkeypatch.setattr(f"{module}.{name}", count)

    counted("wsgi_throttle.config.rules", "key_function")
    counted("wsgi_throttle.rules.counters", "key_function")
    counted("wsgi_throttle.identity.settings", "user_reader")
    counted("wsgi_throttle.config.build", "open_storage")
    counted("wsgi_throttle.config.values", "compile_body")
    counted("wsgi_throttle.rules.match", "read_pieces")
    (tmp_path / "429.html").write_text(f"{tmp_path} $limit")
    path = tmp_path / "throttle.yaml"
    path.write_text(
        """
storage: memory://
session: {kind: environ}
responses: {html: 429.html}
rules:
- {path: /a, limits: 5/s; 9/m, key: session-user}
- {path: /b, limits: [5/s, {limit: 9/m, key: all}], key: session-user}
- {path: /c, limits: 5/s, key: all, response: {html: 429.html}}
- {path: /d, limits: 5/s, key: all, response: {}}
"""
    )
    Throttle(lambda environ, start_response: [b""], path).close()
    assert {name: made.count(name) for name in made} == {
        "key_function": 3,  # by ip too, for preflights
        "user_reader": 1,
        "open_storage": 1,
        "compile_body": 2,  # the file is named twice
        "read_pieces": 4,
    }


EXAMPLE = Path(__file__).parent.parent / "config.example.yaml"


@given(st.data())
def test_a_mutated_example_is_a_configuration_or_a_config_error(data: st.DataObject) -> None:
    text = EXAMPLE.read_text()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 6))
        text = (
            text[:at]
            + data.draw(st.text("{}[]:,-#&*!|>'\"%@` \n\tabc019/<$", max_size=4))
            + text[at + cut :]
        )
    path = (
        Path(f"/dev/shm/wsgi_throttle_{id(data)}.yaml")
        if Path("/dev/shm").is_dir()
        else Path("x.yaml")
    )
    path.write_text(text)
    try:
        RuleTable(load(path, variables={}))
    except ConfigError:
        pass
    finally:
        path.unlink()


def test_rules_that_cannot_be_told_apart_are_told_without_what_the_environment_gives(
    write: Any,
) -> None:
    rule = '{path: "/${SECRET}", name: "${SECRET}%d", limits: 1/s}'
    path = write(f"rules:\n- {rule % 1}\n- {rule % 2}\n")
    with pytest.raises(ConfigError) as caught:
        RuleTable(load(path, variables={"SECRET": "hunter2"}))
    assert "in line 2" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_secret_key_of_bytes_is_a_mistake_and_not_shown() -> None:
    found = mistakes({"session": {"kind": "flask", "secret_key": b"hunter2"}})
    assert "of type bytes is not known here: give it as text" in found[0]
    assert not any("hunter2" in one for one in found)
