"""The JSON Schema of the rule file: it accepts what the loader accepts, and knows every option."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from support.servers import ROOT
from test_config import BROKEN
from test_docs import as_a_whole_file, blocks, flask_limiter_rows
from wsgi_throttle.cli import main
from wsgi_throttle.config.mapping import Option
from wsgi_throttle.config.options import TABLES
from wsgi_throttle.config.schema import SCHEMA

VALIDATOR = Draft7Validator(SCHEMA)


class Yaml12(yaml.SafeLoader):
    """Reads YAML 1.2, as editors do: ``off``, ``no`` and dates are words."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for tag, pattern, beginnings in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]*", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("merge", r"<<", "<"),
):
    Yaml12.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(beginnings)
    )


def parsed(text: str) -> Any:
    return yaml.load(text, Loader=Yaml12)


def errors(value: Any) -> list[str]:
    return [f"{list(error.path)}: {error.message}" for error in VALIDATOR.iter_errors(value)]


def keys_example() -> str:
    text = (ROOT / "docs" / "keys.md").read_text()
    example: str = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    return example


EXAMPLES = {
    "config.example.yaml": (ROOT / "config.example.yaml").read_text(),
    "docs/keys.md": keys_example(),
    **{f"README.md, line {block.line}": as_a_whole_file(block.text) for block in blocks("yaml")},
    **{
        f"in place of Flask-Limiter's: {code}": f"rules: [{code}]"
        for code in flask_limiter_rows()
        if code.startswith("{")
    },
}

ACCEPTED = {
    "every top-level option": """
storage: redis+sentinel://host:26379/service
default_limits: [200 per day, {limit: 50 PER 2 hours, key: [ip, "header:X-API-Key"], cost: 2}]
application_limits: 1/s; 5/m | 7 per 3 weeks
rules: []
key: python:package.module:function
strategy: moving-window
mode: off
allow: ["file:office.txt", 10.0.0.0/8, "2001:db8::/32"]
block: 192.0.2.1
client_ip: {trusted_proxies: [], header: Forwarded, ipv6_prefix: 64, ipv4_prefix: 32}
session: {kind: django, secret_key: [a, b], cookie: c, salt: s, lifetime: 31 days, user: [id]}
form_max_bytes: 1000
responses: {headers: none, html: a.html, json: a.json, text: a.txt, cors: "*"}
on_storage_error: deny
storage_timeout: 0.1
namespace: 1e3
reload: false
""",
    "every option of a rule": """
rules:
  - path: [/a/<int:id>, "/b/<id>"]
    methods: [get, Post, OTHER]
    limits: [5 per minute, default, {limit: 9/s, strategy: token-bucket, burst: 20, scope: x}]
    exempt: false
    name: no
    key: path:id
    strategy: token-bucket
    on_storage_error: allow
    mode: shadow
    scope: api
    per_method: true
    cost: 2
    skip: python:package.module:function
    when: {header: {X-Internal: 1}}
    allow: 192.0.2.1
    block: [192.0.2.2]
    response: {html: a.html, json: b.json, text: c.txt}
""",
    "an exempt rule with all that it may have": """
rules: [{name: x, path: /a, methods: GET, mode: off, block: 10.0.0.1, exempt: true}]
""",
    "a merge": """
rules:
  - &base {path: /a, methods: [POST], limits: 5/m}
  - {<<: *base, path: /c}
""",
    "a name of digits": "rules: [{path: /a, name: 404, limits: 1/s}]",
    "a time in words": "storage_timeout: 100 ms",
    "exempt by the environment": 'rules: [{path: /a, exempt: "${EXEMPT}"}]',
}

BEYOND_A_SCHEMA = {
    # values that are wrong together
    *("a variable of no path", "a variable of no path for one limit"),
    *("a variable for default limits", "a variable for application limits"),
    *("a variable at the top and not in a rule", "a path twice", "the same limit twice"),
    *("default without defaults", "default twice", "a cost above the limit"),
    *("a burst without a bucket", "a burst of a limit of zero", "two rules of one name"),
    *("a key type twice", "session-user without a session", "a session without a key"),
    # an option that is missing, or one too many
    *("a session's function that is not there", "a list that is not there"),
    *("a body that is not there", "a skip that is not there", "an unset variable"),
    # texts with a grammar of their own
    *("hops beside proxies", "a network with host bits", "an unknown storage option"),
    "a condition on what is no header",
    "any origin, and another",
    # what YAML itself allows
    "a key twice",
}
"""Mistakes that only the loader finds, and the schema does not."""


@pytest.mark.parametrize(
    "text", [*EXAMPLES.values(), *ACCEPTED.values()], ids=[*EXAMPLES, *ACCEPTED]
)
def test_what_can_be_used_is_accepted(text: str) -> None:
    assert errors(parsed(text)) == []


def test_a_mistake_is_found_unless_it_is_beyond_a_schema() -> None:
    accepted = set()
    for name, (text, _) in BROKEN.items():
        try:
            value = parsed(text)
        except (yaml.YAMLError, TypeError):  # TypeError: a list as a key
            continue
        if not errors(value):
            accepted.add(name)
    assert accepted == BEYOND_A_SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        "default_limits: 5 per minutee",
        "default_limits: 5",
        "rules: [{path: /a, limits: 1/s, methd: GET}]",
        "rules: [{path: /a, limits: 1/s, exempt: true}]",
        "rules: [{path: /a}]",
        "rules: [{limits: 1/s}]",
        "client_ip: {ipv6_prefix: 129}",
        "session: {}",
        "storage_timeout: 0",
        "responses: {headers: github}",
        "reload: maybe",
    ],
)
def test_a_mistake_is_refused(text: str) -> None:
    assert errors(parsed(text))


def with_variables(value: Any) -> Iterator[tuple[str, Any]]:
    """Copies of the value, each with a variable in place of one scalar, and the scalar."""
    if isinstance(value, dict):
        for key, item in value.items():
            for path, changed in with_variables(item):
                yield f"{key}.{path}", {**value, key: changed}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for path, changed in with_variables(item):
                yield f"{index}.{path}", [*value[:index], changed, *value[index + 1 :]]
    else:
        yield "", "${NAME}"
        yield "", "${NAME:-5}"


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_every_value_may_come_from_the_environment(text: str) -> None:
    for path, changed in with_variables(parsed(text)):
        assert errors(changed) == [], path


def mappings(schema: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in the schema, the schema itself included."""
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    for value in schema if isinstance(schema, list) else ():
        yield from mappings(value)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_option_of_every_table_is_in_it_with_its_description(
    table: tuple[Option, ...],
) -> None:
    expected = {option.name: re.sub(r"\[(.*?)\]\(.*?\)", r"\1", option.doc) for option in table}
    found = [
        {name: each.get("description") for name, each in one["properties"].items()}
        for one in mappings(SCHEMA)
        if one.get("type") == "object" and "properties" in one
    ]
    assert expected in found
    assert all(expected.values())


def test_nothing_stands_beside_a_reference() -> None:
    """Draft-07 ignores whatever stands beside ``$ref``."""
    assert all(set(one) == {"$ref"} for one in mappings(SCHEMA) if "$ref" in one)


def test_it_is_a_schema_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == SCHEMA
    assert printed["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(printed)


def test_the_loader_accepts_what_the_examples_of_this_test_say(tmp_path: Path) -> None:
    """So that no example is left out of the other tests by being no mistake at all."""
    from wsgi_throttle.config import load

    for name in ("office.txt", "a.html", "a.txt", "c.txt"):
        (tmp_path / name).write_text("")
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    path = tmp_path / "throttle.yaml"
    for text in ACCEPTED.values():
        text = text.replace("package.module:function", "os.path:exists")
        path.write_text(f"default_limits: 9/d\n{text}" if "default_limits" not in text else text)
        load(path, variables={"EXEMPT": "true"})
