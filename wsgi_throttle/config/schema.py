"""The JSON Schema of the rule file, made of the tables of options."""

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
"""Draft-07, the version that editors know. It accepts every configuration that :func:`.load`
accepts, if the YAML is read as YAML 1.2, in which ``off`` is a word. :func:`.load` also checks what
a schema cannot say: that a cost fits into its limit, that files exist, that no two rules clash."""
