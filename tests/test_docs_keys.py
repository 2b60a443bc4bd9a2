"""docs/keys.md names every key type, and what it says about them is true."""

from __future__ import annotations

import re
from pathlib import Path

from support.servers import ROOT
from wsgi_throttle.config import load
from wsgi_throttle.identity import KEY_TYPES, is_client_controlled
from wsgi_throttle.rules.lint import warnings
from wsgi_throttle.rules.table import RuleTable

TEXT = (ROOT / "docs" / "keys.md").read_text()
ROWS = [
    [cell.strip() for cell in row.split("|")[1:-1]]
    for row in TEXT.splitlines()
    if row.startswith("| ") and not row.startswith("| key ")
]
SPECS = [spec for row in ROWS for spec in re.findall(r"`([a-z-]+(?::[^`]+)?)`", row[0])]


def test_every_key_type_has_its_row_and_there_is_no_other() -> None:
    assert {spec.partition(":")[0] for spec in SPECS} == set(KEY_TYPES)
    assert all(len(row) == 4 for row in ROWS)


def test_what_is_said_to_be_chosen_freely_is_warned_of() -> None:
    free = {spec.partition(":")[0] for spec in SPECS if is_client_controlled(spec)}
    assert free == {"header", "cookie", "query", "form", "json", "path"}
    assert is_client_controlled("environ:HTTP_X_TEAM")


def test_the_example_loads_and_has_no_warnings(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "throttle.yaml").write_text(text)
    config = load(tmp_path / "throttle.yaml")
    RuleTable(config)
    assert warnings(config) == []
