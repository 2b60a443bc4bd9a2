"""What docs/paths.md says of paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import setup_testing_defaults

import pytest

from routers import RAN, SITES
from wsgi_throttle.rules.patterns import Pattern
from wsgi_throttle.rules.readings import readings

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "paths.md").read_text()
UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under this heading."""
    section = TEXT.split(f"## {heading}", 1)[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("row", rows("Readings"), ids=lambda row: row[0])
def test_a_spelling_of_the_table_has_the_reading_that_stands_beside_it(row: list[str]) -> None:
    spellings, expected = (
        [
            text.replace("{6BA7B810...}", f"{{{UUID.upper()}}}").replace("6ba7b810-...", UUID)
            for text in re.findall("`(/[^`]*)`", cell)
        ]
        for cell in (row[0], row[2])
    )
    assert spellings
    for spelling in spellings:
        found = readings(unquote_to_bytes(spelling).decode("latin-1")).all
        assert {*found} & {*expected}, spelling


@pytest.mark.parametrize("row", rows("What a rule cannot know"), ids=lambda row: row[0][:40])
def test_what_the_table_advises_are_patterns(row: list[str]) -> None:
    for code in re.findall("`([^`]*)`", row[1]):
        for pattern in re.findall(r"/[^,\] ]*", code):
            Pattern.parse(pattern)


def test_falcon_runs_a_view_with_an_empty_variable() -> None:
    """Were it to change, its row could go."""
    environ: dict[str, Any] = {RAN: []}
    setup_testing_defaults(environ)
    environ["PATH_INFO"] = "/users//edit"
    SITES["falcon"]()(environ, lambda *_: None)
    assert environ[RAN] == ["edit"]
