"""Settings of Sphinx for `make docs`: README.md, docs/ and the reference of the public names.

The sources are read from the root of the repository, so that a link between two pages is the same
in the built pages and where the repository is browsed.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

project = "wsgi_throttle"
release = metadata.version("wsgi-throttle")
extensions = ["myst_parser", "sphinx.ext.autodoc"]

root_doc = "README"
include_patterns = ["*.md", "docs/**"]

myst_heading_anchors = 3
highlight_language = "none"
autodoc_member_order = "bysource"
html_title = f"{project} {release}"
html_show_copyright = False
html_theme_options = {"page_width": "1200px", "body_max_width": "none", "sidebar_width": "250px"}

CONTENTS = """
```{toctree}
:hidden:
:glob:

docs/keys
docs/**
CONTRIBUTING
SECURITY
CHANGELOG
```
"""
"""What README.md has in the built pages only: every page of docs/ is found by itself."""


def add_contents(app: Any, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += CONTENTS


def drop_aliases(*arguments: Any) -> None:
    """Leave out what Python itself says of a named tuple's field that has no docstring."""
    lines: list[str] = arguments[-1]
    if lines[:1] and lines[0].startswith("Alias for field number"):
        lines[:] = []


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", drop_aliases)
