"""README.md stays true: its snippets and commands are run, its tables compared with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import pytest
import yaml

from support.servers import ROOT, gunicorn
from wsgi_throttle import ConfigError, config
from wsgi_throttle.cli import main
from wsgi_throttle.config.mapping import Option
from wsgi_throttle.config.options import CLIENT_IP, RESPONSES, SESSION, TABLES, TOP_LEVEL
from wsgi_throttle.config.rule_options import LIMIT, RESPONSE, RULE, WHEN

README = ROOT / "README.md"
TEXT = README.read_text()


class Block(NamedTuple):
    language: str
    line: int
    text: str


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks of README.md that are in one of these languages."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    every = [Block(m[1], TEXT.count("\n", 0, m.start()) + 2, m[2]) for m in found]
    return [block for block in every if block.language in languages]


def block_id(block: Block) -> str:
    return f"line {block.line}"


def as_a_whole_file(text: str) -> str:
    """A whole rule file, made of a rule, of a list of rules, or of the limits of a rule."""
    value = yaml.safe_load(text)
    if isinstance(value, dict) and "path" in value:
        return "rules:\n  -\n" + indent(text, "    ")
    if isinstance(value, dict) and value.keys() <= {"limits", "key", "strategy", "response"}:
        return "rules:\n  - path: /example\n" + indent(text, "    ")
    if isinstance(value, list):
        return "rules:\n" + indent(text, "  ")
    return text


def load(text: str, folder: Path) -> config.Config:
    file = folder / "throttle.yaml"
    file.write_text(text)
    return config.load(file, allow_unset=True)


@pytest.mark.parametrize("block", blocks("yaml"), ids=block_id)
def test_every_rule_in_the_readme_loads(block: Block, tmp_path: Path) -> None:
    load(as_a_whole_file(block.text), tmp_path)


def test_the_example_has_no_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "config.example.yaml")]) == 0
    assert "0 warnings" in capsys.readouterr().out


# --- the first five minutes, as written -----------------------------------------------------------

(FIRST_RULES,) = [block.text for block in blocks("yaml") if "# throttle.yaml" in block.text]
(FIRST_WSGI,) = [block.text for block in blocks("python") if "# wsgi.py" in block.text]
COMMANDS = re.findall(r"^    ((?:wsgi-throttle|gunicorn|make) .*?)(?: +#.*)?$", TEXT, re.MULTILINE)
WRAPPED = re.search(r'`gunicorn "(wsgi_throttle:wrap.*?)"`', TEXT)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the files that README.md tells its reader to write, and a site for them."""
    (tmp_path / "throttle.yaml").write_text(FIRST_RULES)
    (tmp_path / "wsgi.py").write_text(FIRST_WSGI)
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "__init__.py").write_text(
        "from examples.demo import app as application\n"
    )
    (tmp_path / "mysite" / "wsgi.py").write_text("from . import application\n")
    return tmp_path


@pytest.mark.parametrize(
    "application", ["wsgi:application", WRAPPED and WRAPPED[1]], ids=["wsgi.py", "no code at all"]
)
def test_the_sixth_login_is_refused_as_shown(
    application: str, project: Path, shared_uri: str
) -> None:
    env = {"REDIS_URL": shared_uri}
    with gunicorn(application, workers=4, cwd=project, env=env) as server:
        answers = [server.post("/login", "user_id=7") for _ in range(6)]
    assert [answer.status for answer in answers] == [401] * 5 + [429]
    shown = dict(re.findall(r"^    ([A-Za-z-]+): (.*)$", TEXT, re.MULTILINE))
    assert {"RateLimit-Policy", "X-RateLimit-Limit", "Retry-After"} <= shown.keys()
    refused = answers[-1].headers
    # Remaining seconds and times of day differ from those in README.md.
    passing = re.compile(r"(?<=t=)\d+|^\d{2,}$")
    for name, value in shown.items():
        assert passing.sub("N", refused[name]) == passing.sub("N", value)


def test_a_mistake_is_reported_as_shown(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^    throttle\.yaml(:.*)$", TEXT, re.MULTILINE)
    found = re.search(r'"(.*)" is not a limit: did you mean "(.*)"', shown)
    assert found
    wrong, right = found.groups()
    assert right in FIRST_RULES
    with pytest.raises(ConfigError) as caught:
        load(FIRST_RULES.replace(right, wrong), tmp_path)
    assert str(caught.value) == f"{tmp_path / 'throttle.yaml'}{shown}"


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith("wsgi-throttle")]
)
def test_every_command_runs(
    command: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    assert main(shlex.split(command)[1:]) == 0
    assert "login" in capsys.readouterr().out


def test_the_page_of_ones_own_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks("python") if "on_limit=" in block.text]
    monkeypatch.setattr("wsgi_throttle.storage.shared.location.BASES", (str(tmp_path),))
    monkeypatch.chdir(tmp_path)
    module: dict[str, Any] = {"__name__": "readme"}
    exec(block.text, module)
    visitor = module["app"].test_client()
    assert [visitor.get("/").status_code for _ in range(51)] == [404] * 50 + [429]
    assert re.fullmatch(r"Slow down: \d+ s", visitor.get("/").text)
    module["app"].wsgi_app.close()


# --- the reference -------------------------------------------------------------------------------


def reference(first_cell: str) -> dict[str, tuple[str, str]]:
    """A table of options in README.md.

    :param first_cell: the first cell of its heading, which tells it from the other tables.
    :return: for each option, its description and its default.
    """
    (table,) = re.findall(
        rf"^\| {re.escape(first_cell)} \| \| default \|\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE
    )
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    return {name: (doc, default) for (cell, doc, default) in rows for name in [cell.strip("`")]}


REFERENCE = {
    "a top-level option": TOP_LEVEL,
    "an option of a rule": RULE,
    "an option of a limit": LIMIT,
    "`client_ip`": CLIENT_IP,
    "`session`": SESSION,
    "`responses`": RESPONSES,
}


@pytest.mark.parametrize(("first_cell", "table"), REFERENCE.items(), ids=REFERENCE)
def test_the_reference_says_what_the_rows_of_the_options_say(
    first_cell: str, table: tuple[Option, ...]
) -> None:
    expected = {option.name: (option.doc, option.reference_default) for option in table}
    assert reference(first_cell) == expected
    assert list(reference(first_cell)) == list(expected)


def test_every_table_of_options_is_in_the_reference() -> None:
    # Those two are described in the rows of the rule's options `response` and `when`.
    assert {id(table) for table in TABLES.values()} - {id(RESPONSE), id(WHEN)} == {
        id(table) for table in REFERENCE.values()
    }


def flask_limiter_rows() -> list[str]:
    """The YAML that README.md's table gives in place of Flask-Limiter's own settings."""
    (table,) = re.findall(r"^\| Flask-Limiter \| here \|\n\|.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    cells = [row.rsplit("|", 2)[1] for row in table.splitlines()]
    codes = [code for cell in cells for code in re.findall(r"`(.*?)`", cell)]
    return [code for code in codes if ": " in code]


@pytest.mark.parametrize("code", flask_limiter_rows())
def test_what_replaces_flask_limiter_loads(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(
        "def is_admin(environ): ...\ndef function(environ): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    common = "session: {kind: flask, secret_key: s}\n"
    if code.startswith("{"):
        load(f"{common}rules: [{code}]", tmp_path)
        return
    limits = "" if "exempt" in code or "limits" in code else "    limits: 5 per minute\n"
    in_a_rule = f"{common}default_limits: 9 per day\nrules:\n  - path: /x\n{limits}    {code}\n"
    try:
        load(in_a_rule, tmp_path)
    except ConfigError:
        load(f"{common}{code}\n", tmp_path)
