"""No message, repr, log or command shows a secret of the configuration, wherever it stands."""

from __future__ import annotations

import gc
import logging
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from wsgi_throttle import ConfigError
from wsgi_throttle.cli import main
from wsgi_throttle.config import load, yamltree
from wsgi_throttle.engine import Engine
from wsgi_throttle.errors import StorageError, StorageURIError
from wsgi_throttle.rules.table import RuleTable
from wsgi_throttle.storage import open_storage
from wsgi_throttle.storage.breaker import CircuitBreaker
from wsgi_throttle.testing import ManualClock

SECRET = "hunter2"
RULES = "\nrules: [{path: /a, limits: 1/s}]\n"

MISTAKEN = {
    # a value where a mapping belongs
    "the whole file": "hunter2",
    "a session": "session: hunter2",
    "a list of sessions": "session: [hunter2]",
    "a client_ip": "client_ip: hunter2",
    "a condition": "rules: [{path: /a, limits: 1/s, when: hunter2}]",
    "a condition's header": "rules: [{path: /a, limits: 1/s, when: {header: hunter2}}]",
    # a mapping where a value belongs
    "a secret_key": "session: {kind: flask, secret_key: {hunter2: 1}}",
    "a storage": "storage: {hunter2: hunter2}",
    # a colon that was forgotten
    "a key with a space": "session: {kind: flask, secret_key hunter2}",
    "a key with a sign": "session: {kind: flask, secret_key=hunter2}",
    "a key of the session": "session: {kind: flask, hunter2}",
    "a key of the top level": "storage=redis://:hunter2@host: 1",
    "a key twice": "session: {secret_key=hunter2, secret_key=hunter2}",
    "a header": "rules: [{path: /a, limits: 1/s, when: {header: {X-Token=hunter2: a}}}]",
    "a header, with a space": "rules: [{path: /a, limits: 1/s, when: {header: {X hunter2: }}}]",
    # another option of the session
    "a kind": "session: {kind: hunter2, secret_key: x}",
    "a lifetime": "session: {kind: flask, secret_key: x, lifetime: hunter2}",
    "a kind without secrets": "session: {kind: environ, secret_key: hunter2, salt: hunter2}",
    "a cookie that is empty": "session: {kind: flask, secret_key: hunter2, cookie: ''}",
    # what YAML makes of it
    "an alias": "session: {kind: flask, secret_key: *hunter2}",
    "a tag": "session: {kind: flask, secret_key: !hunter2 }",
    "two tags": "session: {kind: flask, secret_key: !a!hunter2 }",
    "a forbidden start": "session: {kind: flask, secret_key: @hunter2}",
    "an open quote": 'session: {kind: flask, secret_key: "hunter2',
    "an escape": 'session: {kind: flask, secret_key: "hunter2\\q"}',
    "a variable": 'session: {kind: flask, secret_key: "hunter2${"}',
    "a variable without a name": 'storage: "redis://:hunter2${}@host"',
    # where it is counted
    "no scheme": "storage: user:hunter2@host",
    "no scheme, and slashes": "storage: //user:hunter2@host",
    "an unknown scheme": "storage: mongo://user:hunter2@host",
    "a secret for a scheme": "storage: hunter2:a://host",
    "after the ?": "storage: redis://:a?hunter2@host",
    "an option without value": "storage: redis://host?hunter2",
    "an option": "storage: redis://host?hunter2=1",
    "db": "storage: redis://host?db=hunter2",
    "max_connections": "storage: redis://host?max_connections=hunter2",
    "max_clients": "storage: memory://?max_clients=hunter2",
    "size": "storage: shared://?size=hunter2",
    "ssl": "storage: redis+sentinel://host/service?ssl=hunter2",
    "ssl_cert_reqs": "storage: rediss://host?ssl_cert_reqs=hunter2",
    "ssl_cert_reqs of Sentinel": "storage: redis+sentinel://h/s?ssl=true&ssl_cert_reqs=hunter2",
    "ssl_check_hostname": "storage: rediss://host?ssl_check_hostname=hunter2&ssl_cert_reqs=x",
    "a password with #": "storage: redis://:hunter2#@host",
    "a password with /": "storage: redis://:hunter2/@host",
    "a password with / after a number": "storage: redis+sentinel://:1/hunter2@host",
    "a password with [": "storage: redis://:hunter2[@host",
    "a password with a wide slash": "storage: redis://:hunter2\uff0f@host",
    "a port": "storage: redis://host:hunter2",
    "a database": "storage: redis://host/hunter2",
    # files that are the wrong ones
    "a list of networks": 'block: ["file:secrets"]',
    "a list of proxies": 'client_ip: {trusted_proxies: "file:secrets"}',
    # beside a value from the environment
    "beside a variable": 'storage: "redis://:hunter2/@${HOST}"',
    "a default": 'namespace: "${HOST}:${UNSET:-hunter2}"',
}


def told(error: ConfigError) -> str:
    """All that a message, a log or a debugger shows of it."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.diagnostics)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("name", MISTAKEN)
def test_no_mistake_shows_a_secret(
    name: str, loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yamltree, "_Loader", getattr(yaml, loader))  # as PyYAML may be built
    (tmp_path / "secrets").write_text(f"SECRET_KEY={SECRET}\n")
    path = tmp_path / "throttle.yaml"
    path.write_text(MISTAKEN[name] + ("" if "rules" in MISTAKEN[name] else RULES))
    if name == "the whole file":
        path.write_text(MISTAKEN[name])
    with pytest.raises(ConfigError) as caught:
        load(path, variables={"HOST": "host"})
    assert SECRET not in told(caught.value)
    assert all(mistake.line for mistake in caught.value.diagnostics)


@pytest.mark.parametrize(
    ("mapping", "where"),
    [
        ({"session": {"kind": "flask", "secret_key": f"{SECRET}${{"}}, "session.secret_key"),
        ({"storage": f"redis://:{SECRET}${{@host"}, "storage"),
        ({"rules": [{"path": "/a", "when": SECRET, "limits": "1/s"}]}, "rules[0].when"),
        ({"session": {"kind": "flask", "secret_key": SECRET.encode()}}, "session.secret_key"),
        ({"session": SECRET}, "session"),
        ({"session": {f"secret_key={SECRET}": {"a": f"{SECRET}${{"}}}, "session"),
    ],
)
def test_no_mistake_in_a_mapping_shows_one_and_all_have_their_place(
    mapping: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(mapping)
    assert SECRET not in told(caught.value)
    assert any(mistake.where.startswith(where) for mistake in caught.value.diagnostics)


@pytest.mark.parametrize(
    "text",
    [
        'storage: "redis://${SECRET}"\nnamespace: "a:b"',
        'storage: "${SECRET}://x"',
        'session: {kind: flask, secret_key: "${SECRET}", lifetime: "-1"}',
        'session: {kind: flask, secret_key: x, lifetime: "${SECRET}"}',
        'session: "${SECRET}"',
        'rules: [{path: /a, limits: 1/s, when: "${SECRET}"}]',
        'rules: [{path: /a, limits: 1/s, when: {header: "${SECRET}"}}]',
        'rules: [{path: "/a/<${SECRET}", limits: 1/s}]',
        'rules: [{path: /a, limits: "${SECRET}"}]',
        'rules: [{path: /a, limits: 1/s, scope: "\\"${SECRET}"}]',
        'rules: [{path: /a, limits: 1/s, name: "\\"${SECRET}"}]',
        'rules: [{path: /a, limits: 1/s, skip: "${SECRET}"}]',
        'rules: [{path: /a, limits: 1/s, mode: "${SECRET}"}]',
        'rules: [{path: /a, limits: 1/s, key: "path:${SECRET}"}]',
        'key: "path:${SECRET}"\nrules: [{path: /a, limits: 1/s}]',
        'client_ip: {header: "a b ${SECRET}"}',
        'responses: {text: "${SECRET}", cors: "${SECRET}"}',
        'allow: "file:${SECRET}"',
    ],
)
def test_no_mistake_shows_a_value_from_the_environment(text: str, tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, variables={"SECRET": SECRET})
    assert SECRET not in told(caught.value)


GOOD = f"""
storage: "redis+sentinel://user:{SECRET}@127.0.0.1:1/service?sentinel_password={SECRET}"
namespace: shop
session: {{kind: flask, secret_key: [{SECRET}, "{SECRET}x"], salt: {SECRET}}}
default_limits: {{limit: 9/s, key: session-user}}
rules:
- {{path: /a, limits: 1/s, when: {{header: {{X-Token: {SECRET}}}}}}}
"""
STORAGES = [
    f"redis://user:{SECRET}@127.0.0.1:1/0",
    f"redis://127.0.0.1:1/0?password={SECRET}",
    f"rediss://:{SECRET}@127.0.0.1:1/0?ssl_password={SECRET}",
    f"unix://user:{SECRET}@/nowhere.sock",
    f"redis+sentinel://:{SECRET}@127.0.0.1:1/service?sentinel_password={SECRET}",
]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "throttle.yaml"
    path.write_text(GOOD)
    return path


def test_no_repr_shows_a_secret(good: Path) -> None:
    config = load(good)
    plan = RuleTable(config).match("GET", "/a")
    shown = [
        *(config, config.rules, config.identity, config.identity.session, config.opened_storage),
        *(
            config.identity.read_user,
            config.start_options.keys(),
            plan,
            plan.by_rule,
            plan.rules[0],
        ),
        *vars(config.identity).values(),
    ]
    for each in shown:
        assert SECRET not in repr(each)
    assert "namespace='shop'" in repr(config), "of the rest everything is shown"


@pytest.mark.parametrize("storage", STORAGES)
def test_neither_a_storage_nor_the_log_of_its_outage_shows_one(
    storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_storage(storage)
    breaker = CircuitBreaker(opened, on_change=lambda failed, cause: None, clock=ManualClock())
    assert SECRET not in repr(opened)
    assert SECRET not in repr(breaker)
    for each in vars(opened).values():
        assert SECRET not in repr(each)
    causes: list[str] = []
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(StorageError) as caught:
            opened.ping()
        causes.append("".join(traceback.format_exception(caught.value)))
    assert SECRET not in caplog.text + "".join(causes)
    opened.close()
    with warnings.catch_warnings():
        # Old versions of redis-py do not close a unix socket that they could not connect.
        warnings.simplefilter("ignore", ResourceWarning)
        del caught
        gc.collect()


@pytest.mark.parametrize("command", [("check",), ("explain", "GET", "/a")])
def test_no_command_shows_one(
    command: tuple[str, ...], good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = command
    assert main([name, str(good), *arguments]) == 0
    captured = capsys.readouterr()
    assert "/a" in captured.out
    assert SECRET not in captured.out + captured.err


@pytest.mark.parametrize("command", [("check",), ("explain", "GET", "/a")])
def test_no_command_shows_one_of_a_mistake(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(f"session: {SECRET}\nstorage: redis://:{SECRET}?@host\nmode: {SECRET[:0]}x\n")
    name, *arguments = command
    assert main([name, str(path), *arguments]) == 1
    captured = capsys.readouterr()
    assert "3 mistakes" in captured.err
    assert SECRET not in captured.out + captured.err


def test_no_log_of_a_reload_shows_one(good: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(load(good))
    with caplog.at_level(logging.DEBUG):
        good.write_text(GOOD.replace("127.0.0.1:1", "127.0.0.2:1"))
        engine.reload(good)
        good.write_text(GOOD + f"session: {SECRET}\nmode: of")
        engine.reload(good)
    engine.close()
    assert "not in force before a restart: storage" in caplog.text
    assert "the old rules stay in force" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "name", [name for name in MISTAKEN if MISTAKEN[name].startswith("storage: ")]
)
def test_no_storage_uri_is_shown_with_what_caused_the_error(name: str) -> None:
    uri = MISTAKEN[name].removeprefix("storage: ").strip('"')
    if uri.startswith("{") or "${" in uri:
        return
    with pytest.raises(StorageURIError) as caught:
        open_storage(uri)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
