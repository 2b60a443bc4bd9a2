"""Functions for ``python:`` keys: some that work, and some that misbehave."""

from __future__ import annotations

from typing import Any

not_a_function = 5


def tenant(environ: dict[str, Any]) -> str | None:
    return environ.get("HTTP_X_TENANT")


def number(environ: dict[str, Any]) -> int:
    return 42


def raises(environ: dict[str, Any]) -> str:
    raise RuntimeError(f"no tenant for {environ['REMOTE_ADDR']}")


def exits(environ: dict[str, Any]) -> str:
    raise SystemExit


def nonsense(environ: dict[str, Any]) -> Any:
    return environ["nonsense"]


class Users:
    @staticmethod
    def current(environ: dict[str, Any]) -> str:
        return "ann"
