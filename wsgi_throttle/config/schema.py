"""The JSON Schema of the rule file, made of the rows of its options."""

from __future__ import annotations

from .mapping import mapping_schema
from .options import TOP_LEVEL
from .reader import DEFINITIONS, Schema

SCHEMA: Schema = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "The rule file of wsgi_throttle",
    **mapping_schema(TOP_LEVEL),
    "definitions": DEFINITIONS,
}
"""Draft-07, which editors read. It accepts every configuration that :func:`.load` accepts, if the
YAML is read as YAML 1.2, where ``off`` is a word. What it cannot say, :func:`.load` checks as well:
that a rule's cost fits into its limit, that files are there, that no two rules clash."""
