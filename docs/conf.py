"""Settings of Sphinx for `make docs`: README.md, docs/ and the reference of the public names.

The sources are read from the root of the repository, so that a link between two pages is the same
in the built pages and where the repository is browsed.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

project = "wsgi_throttle"
release = version("wsgi-throttle")
extensions = ["myst_parser", "sphinx.ext.autodoc"]

root_doc = "README"
include_patterns = ["*.md", "docs/**"]

myst_heading_anchors = 3
highlight_language = "none"
autodoc_member_order = "bysource"
html_title = f"{project} {release}"
html_show_copyright = False

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


def setup(app: Any) -> None:
    """Called by Sphinx."""

    def add_contents(app: Any, page: str, source: list[str]) -> None:
        if page == root_doc:
            source[0] += CONTENTS

    app.connect("source-read", add_contents)
