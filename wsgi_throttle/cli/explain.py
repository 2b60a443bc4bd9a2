"""``wsgi-throttle explain``: prints which rule is for a request, what it is charged, and why other
rules are not for it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from ..config import Config
from ..limits import describe
from ..rules.model import METHODS, Rule
from ..rules.plan import RuleCounters
from ..rules.readings import readings
from ..rules.table import MAX_PATH_BYTES, RuleTable
from .command import Command, add_file, name_and_mode, read_file


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    parser.add_argument("method", type=str.upper)
    parser.add_argument("path", help="as in a URL, with a query if it matters")
    parser.add_argument(
        "--ip", type=_address, default="192.0.2.1", help="the client's address (%(default)s)"
    )
    parser.add_argument("--user", help="the logged-in user")


def _run(arguments: Any) -> int:
    config = read_file(arguments)
    if config is None:
        return 1
    table = RuleTable(config)
    given = os.fsencode(arguments.path)
    path, _, query = given.partition(b"?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": arguments.method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "REMOTE_ADDR": arguments.ip,
    }
    plan = table.match(arguments.method, environ["PATH_INFO"])
    print(f"{arguments.method} {given.decode(errors='backslashreplace')}")
    if len(environ["PATH_INFO"]) > MAX_PATH_BYTES:
        answer = "answered 414" if config.mode == "enforce" else "passed on"
        print(f"  too long          over {MAX_PATH_BYTES} bytes: not matched, and {answer}")
        return 0
    paths = readings(environ["PATH_INFO"]).all
    if paths != (environ["PATH_INFO"],):
        print(f"  is matched as     {' and '.join(map(_visible, paths))}")
    for rule in plan.rules:
        print(f"  rule              {name_and_mode(rule)}{_line(rule)}")
    if not plan.rules:
        print(
            "  rule              none; default_limits apply"
            if config.default_limits
            else "  rule              none"
        )
    if plan.needs_precheck and (prechecked := table.precheck(plan, environ)):
        print(f"  {prechecked[0]:17} the address is on a list, so that nothing below applies")
    if plan.exempt:
        print("  nothing is counted")
    for each in plan.by_rule:
        _print_counters(each, environ, arguments.user)
    if plan.preflight:
        print("  a CORS preflight, without body, cookies and credentials, counts by itself:")
        for each in plan.preflight.by_rule:
            _print_counters(each, environ, None)
    for rule, why in _losers(config, plan.rules, arguments.method, paths):
        print(f"  lost              {name_and_mode(rule)}{_line(rule)}: {why}")
    return 0


def _print_counters(of_rule: RuleCounters, environ: dict[str, Any], user: str | None) -> None:
    for counter in of_rule.counters:
        key = (
            f"session-user:{user}"
            if user and counter.key_types == ("session-user",)
            else counter.key(environ, of_rule.path_args)
        )
        for term in counter.limits:
            what = "counts" if term.enforce else "counts in shadow"
            name = term.label or term.policy
            cost = f", cost {term.cost}" if term.cost > 1 else ""
            print(
                f"  {what:17} {name}: {describe(term.limit)}, {term.limit.strategy}{cost}, "
                f"by {','.join(counter.key_types)}, here {key}"
            )
    if of_rule.rule is None:
        return
    for name, value in of_rule.rule.when:
        print(f"    only where      {name} is {_shown(value)}{_otherwise(of_rule)}")
    if of_rule.rule.skip is not None:
        print(f"    but not where   python:{of_rule.rule.skip.path} returns true")


def _shown(value: str) -> str:
    """The value of a header, unless it is long enough to be a secret."""
    return value if len(value) <= 4 else "what the file says"


def _otherwise(of_rule: RuleCounters) -> str:
    return "; elsewhere default_limits apply" if of_rule.otherwise else ""


def _losers(
    config: Config, winners: Iterable[Rule], method: str, paths: Sequence[str]
) -> list[tuple[Rule, str]]:
    """The rules that match the path but are not for the request, each with the reason."""
    found = []
    known = method if method in METHODS else "OTHER"
    for rule in config.rules:
        if rule in winners or rule.mode == "off":
            continue
        if any(rule.fits(path, known) for path in paths):
            found.append(
                (
                    rule,
                    "a shadow rule never wins, it only counts beside others"
                    if rule.mode == "shadow"
                    else "another rule is more specific, or stands first",
                )
            )
        elif any(map(rule.fits, paths)):
            found.append((rule, f"it is for {','.join(rule.methods)}"))
    return found


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _visible(path: str) -> str:
    """The path on one line, with control characters escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in path
    )


def _line(rule: Rule) -> str:
    return f" (line {rule.location.line})" if rule.location.line else ""


COMMAND = Command("explain", "which rule a request falls under, and why", _add_arguments, _run)
