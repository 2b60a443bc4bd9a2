"""``wsgi-throttle check`` and ``explain``: what a rule file does, before it serves."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from ..config import Config, load
from ..errors import ConfigError
from ..limits import describe
from ..rules.lint import warnings
from ..rules.model import METHODS, Rule, RuleLimit
from ..rules.patterns import forms, matcher
from ..rules.table import MAX_PATH_BYTES, Part, RuleTable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 for a file with mistakes."""
    parser = argparse.ArgumentParser(prog="wsgi-throttle", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="check | explain")
    check_parser = commands.add_parser(
        "check", help="print the rules and what is doubtful, or every mistake"
    )
    check_parser.set_defaults(run=_check)
    explain_parser = commands.add_parser(
        "explain", help="which rule a request falls under, and why"
    )
    explain_parser.set_defaults(run=_explain)
    for command in (check_parser, explain_parser):
        command.add_argument("file")
        command.add_argument(
            "--allow-unset",
            action="store_true",
            help="let ${VARIABLES} be unset, as in CI without secrets",
        )
    explain_parser.add_argument("method", type=str.upper)
    explain_parser.add_argument("path", help="as in a URL, with a query if it matters")
    explain_parser.add_argument(
        "--ip", type=_address, default="192.0.2.1", help="the client's address (%(default)s)"
    )
    explain_parser.add_argument("--user", help="the logged-in user")
    options = parser.parse_args(arguments)
    try:
        config = load(options.file, allow_unset=options.allow_unset)
        table = RuleTable(config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.mistakes)
        print(f"{options.file}: {count} mistake{'s' * (count > 1)}", file=sys.stderr)
        return 1
    options.run(config, table, options)
    return 0


def _check(config: Config, table: RuleTable, options: Any) -> None:
    rows = [("rule", "path", "methods", "key", "limits")]
    rows += [
        (
            _named(rule),
            ", ".join(pattern.text for pattern in rule.patterns),
            ",".join(rule.methods) or "all",
            _keys(rule.limits),
            "exempt" if rule.exempt else _limits(rule.limits),
        )
        for rule in config.rules
    ]
    rows += [
        (f"({what})", "", "", _keys(limits), _limits(limits))
        for what, limits in (
            ("no rule", config.default_limits),
            ("every request", config.application_limits),
        )
        if limits
    ]
    _print_table(rows)
    print(
        f"\nstorage {_without_secrets(config.storage)}, mode {config.mode}, "
        f"on_storage_error {config.on_storage_error}"
    )
    found = warnings(config, reach=config.reach)
    for warning in found:
        print(f"warning: {warning}")
    print(f"{options.file}: {len(config.rules)} rules, {len(found)} warnings")


def _explain(config: Config, table: RuleTable, options: Any) -> None:
    given = os.fsencode(options.path)
    path, _, query = given.partition(b"?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": options.method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "REMOTE_ADDR": options.ip,
    }
    plan = table.match(options.method, environ["PATH_INFO"])
    print(f"{options.method} {given.decode(errors='backslashreplace')}")
    if len(environ["PATH_INFO"]) > MAX_PATH_BYTES:
        answer = "answered 414" if config.mode == "enforce" else "passed on"
        print(f"  too long          over {MAX_PATH_BYTES} bytes: not matched, and {answer}")
        return
    paths = forms(environ["PATH_INFO"])
    if paths != (environ["PATH_INFO"],):
        print(f"  is matched as     {' and '.join(map(_visible, paths))}")
    for rule in plan.rules:
        print(f"  rule              {_named(rule)}{_line(rule)}")
    if not plan.rules:
        print(
            "  rule              none; default_limits apply"
            if config.default_limits
            else "  rule              none"
        )
    if plan.listed and (verdict := table.verdict(plan, environ)):
        print(f"  {verdict:17} the address is on a list, whatever else stands here")
    if plan.exempt:
        print("  nothing is counted")
    for part in plan.parts:
        _print_part(part, environ, options.user)
    if plan.preflight:
        print("  a CORS preflight, without body, cookies and credentials, counts by itself:")
        for part in plan.preflight.parts:
            _print_part(part, environ, None)
    for rule, why in _losers(config, plan.rules, options.method, paths):
        print(f"  lost              {_named(rule)}{_line(rule)}: {why}")


def _print_part(part: Part, environ: dict[str, Any], user: str | None) -> None:
    for counter in part.counters:
        key = (
            f"session-user:{user}"
            if user and counter.key_types == ("session-user",)
            else counter.key(environ, part.path_args)
        )
        for term in counter.terms:
            what = "counts" if term.enforce else "counts in shadow"
            cost = f", cost {term.cost}" if term.cost > 1 else ""
            print(
                f"  {what:17} {term.policy}: {describe(term.limit)}, {term.limit.strategy}{cost}, "
                f"by {','.join(counter.key_types)}, here {key}"
            )
    if part.rule is None:
        return
    for name, value in part.rule.when:
        print(f"    only where      {name} is {value}{_otherwise(part)}")
    if part.rule.skip is not None:
        print(f"    but not where   python:{part.rule.skip.path} returns true")


def _otherwise(part: Part) -> str:
    return "; elsewhere default_limits apply" if part.otherwise else ""


def _losers(
    config: Config, winners: Iterable[Rule], method: str, paths: Sequence[str]
) -> list[tuple[Rule, str]]:
    """The rules that fit the path but not the request, or less specifically."""
    found = []
    known = method if method in METHODS else "OTHER"
    for rule in config.rules:
        if rule in winners:
            continue
        entries = [(pattern, rule.methods, 0) for pattern in rule.patterns]
        anywhere = matcher([(pattern, (), 0) for pattern in rule.patterns])
        if rule.mode == "off":
            continue
        if any(matcher(entries).match(known, path) for path in paths):
            found.append(
                (
                    rule,
                    "rides along"
                    if rule.mode == "shadow"
                    else "another pattern is more specific, or first",
                )
            )
        elif any(anywhere.match(known, path) for path in paths):
            found.append((rule, f"it is for {','.join(rule.methods)}"))
    return found


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _visible(path: str) -> str:
    """The path on one line, whatever control characters it has."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in path
    )


def _named(rule: Rule) -> str:
    return rule.name if rule.mode == "enforce" else f"{rule.name} [{rule.mode}]"


def _line(rule: Rule) -> str:
    return f" (line {rule.place.line})" if rule.place.line else ""


def _keys(limits: Iterable[RuleLimit]) -> str:
    return "; ".join(dict.fromkeys(",".join(limit.key) for limit in limits))


def _limits(limits: Iterable[RuleLimit]) -> str:
    return "; ".join(describe(limit.limit) for limit in limits)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _without_secrets(uri: str) -> str:
    """The URI without user, password and query."""
    scheme, _, rest = uri.partition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
