"""The rule table: what a request is charged, as the plan for its method and path says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgi_throttle.config import load
from wsgi_throttle.decision import Charge, Decision, Limit, Take, Terms
from wsgi_throttle.errors import ConfigError
from wsgi_throttle.identity import Identity, key_function
from wsgi_throttle.rules.lint import WARNINGS, errors, warnings
from wsgi_throttle.rules.model import Rule, RuleLimit, RuleSet
from wsgi_throttle.rules.patterns import Pattern
from wsgi_throttle.rules.plan import Plan
from wsgi_throttle.rules.table import MAX_CACHED_CHARACTERS, RuleTable
from wsgi_throttle.storage.memory import MemoryStorage


def table(*rules: dict[str, Any], **top: Any) -> RuleTable:
    return RuleTable(load({"storage": "memory://", "rules": list(rules), **top}))


def charges(plan: Plan, environ: dict[str, Any]) -> list[Charge]:
    """What a request with this plan is charged."""
    statement, buckets = plan.statement_for(environ)
    return Decision(True, statement.terms, buckets, ()).charges


def charged(rules: RuleTable, request: str, **environ: Any) -> list[str]:
    """The charges of ``METHOD /path``, each as ``name`` (that of logs) or ``name (shadow)``."""
    method, _, path = request.partition(" ")
    plan = rules.match(method, path)
    found = charges(plan, {"REMOTE_ADDR": "192.0.2.1", "REQUEST_METHOD": method, **environ})
    return [
        (charge.label or charge.policy) + ("" if charge.enforce else " (shadow)")
        for charge in found
    ]


def buckets(rules: RuleTable, request: str, **environ: Any) -> list[str]:
    method, _, path = request.partition(" ")
    plan = rules.match(method, path)
    return [charge.bucket for charge in charges(plan, {"REMOTE_ADDR": "192.0.2.1", **environ})]


def rule(
    path: str | list[str], name: str = "", limits: Any = "5 per minute", **more: Any
) -> dict[str, Any]:
    return {"path": path, "limits": limits, **({"name": name} if name else {}), **more}


def exempt(path: str | list[str], **more: Any) -> dict[str, Any]:
    return {"path": path, "exempt": True, **more}


def test_a_request_is_charged_what_its_rule_says() -> None:
    rules = table(rule("/login", "login", "5 per minute; 20 per hour", methods=["POST"]))
    assert charged(rules, "POST /login") == ["login-1", "login-2"]
    assert charged(rules, "GET /login") == []
    assert charged(rules, "POST /other") == []


def test_requests_that_no_rule_matches_are_charged_the_defaults_in_one_counter() -> None:
    rules = table(rule("/a"), default_limits=["200 per day", "50 per hour"])
    assert charged(rules, "GET /b") == ["default-1", "default-2"]
    assert buckets(rules, "GET /b") == buckets(rules, "GET /c")
    assert charged(rules, "GET /a") == ["/a"]


def test_application_limits_are_charged_on_every_request_that_is_not_exempt() -> None:
    rules = table(rule("/a"), exempt("/e"), application_limits="1000 per hour")
    assert charged(rules, "GET /a") == ["/a", "application"]
    assert charged(rules, "GET /b") == ["application"]
    assert charged(rules, "GET /e") == []
    assert rules.match("GET", "/e").exempt


def test_default_in_a_list_charges_the_defaults_own_counter_too() -> None:
    rules = table(rule("/a", "a", ["5 per minute", "default"]), default_limits="50 per hour")
    assert charged(rules, "GET /a") == ["a", "default"]
    assert buckets(rules, "GET /a")[1] == buckets(rules, "GET /other")[0]


def test_several_paths_of_a_rule_share_one_counter() -> None:
    rules = table(rule(["/a", "/b/**"], "both"))
    assert buckets(rules, "GET /a") == buckets(rules, "GET /b/c")


def test_rules_share_a_counter_exactly_where_they_name_one_scope_and_the_same_limit() -> None:
    rules = table(
        rule("/a", "a", scope="api"),
        rule("/b", "b", scope="api"),
        rule("/c", "c"),
        rule("/api", "api"),
    )
    assert buckets(rules, "GET /a") == buckets(rules, "GET /b")
    assert buckets(rules, "GET /a") != buckets(rules, "GET /c")
    assert buckets(rules, "GET /a") != buckets(rules, "GET /api")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rule("/" + "a" * 120 + "/x"), rule("/" + "a" * 120 + "/y")),
        (rule("/one", "/two"), rule("/two")),
        (rule("/a,/b"), rule(["/a", "/b"])),
        (rule("/a", methods=["GET"]), rule("/GET /a")),
    ],
)
def test_rules_without_a_scope_never_share_a_counter(first: Any, second: Any) -> None:
    (one,) = buckets(table(first), f"GET {_path_of(first)}")
    (other,) = buckets(table(second), f"GET {_path_of(second)}")
    assert one != other


def _path_of(rule: dict[str, Any]) -> str:
    return str(rule["path"][0] if isinstance(rule["path"], list) else rule["path"])


def test_per_method_counts_each_method_by_itself() -> None:
    rules = table(rule("/a", per_method=True))
    assert buckets(rules, "GET /a") != buckets(rules, "POST /a")
    assert buckets(rules, "BREW /a") == buckets(rules, "PROPFIND /a")


def test_the_key_type_is_part_of_the_bucket_so_that_ip_and_user_limits_never_meet() -> None:
    session = {"kind": "flask", "secret_key": "s"}
    limits = ["5 per minute", {"limit": "5 per minute", "key": "session-user"}]
    rules = table(rule("/a", "a", limits), session=session)
    first, second = buckets(rules, "GET /a")
    assert first != second
    assert first.endswith("{ip:192.0.2.1}")
    assert second.endswith("{ip:192.0.2.1}")


def test_limits_of_one_counter_stand_side_by_side_whatever_their_order() -> None:
    session = {"kind": "flask", "secret_key": "s"}
    limits = ["5/s", {"limit": "6/s", "key": "session-user"}, "7/m"]
    found = buckets(table(rule("/a", "a", limits), session=session), "GET /a")
    assert [found.index(bucket) for bucket in found] == [0, 0, 2]


def test_a_shadow_rule_is_an_overlay() -> None:
    rules = table(
        rule("/**", "all"),
        rule("/export", "export", mode="shadow"),
        rule("/export/**", "below", mode="shadow"),
        default_limits="9 per hour",
    )
    assert charged(rules, "GET /export") == ["all", "export (shadow)"]
    assert charged(rules, "GET /export/a") == ["all", "below (shadow)"]
    assert charged(rules, "GET /") == ["all"]


def test_a_shadow_rule_that_would_not_win_is_not_counted() -> None:
    rules = table(rule("/a", "a"), rule("/**", "all", mode="shadow"))
    assert charged(rules, "GET /a") == ["a"]
    assert charged(rules, "GET /b") == ["all (shadow)"]


def test_a_shadow_rule_never_counts_on_an_enforced_counter() -> None:
    rules = table(rule("/a", scope="s"), rule("/b", scope="s", mode="shadow"))
    assert buckets(rules, "GET /a") != buckets(rules, "GET /b")


def test_a_shadow_rule_over_an_exempt_path_is_counted_and_the_rest_is_not() -> None:
    rules = table(
        exempt("/s/**"), rule("/s/big", "big", mode="shadow"), application_limits="9 per hour"
    )
    assert charged(rules, "GET /s/big") == ["big (shadow)"]
    assert charged(rules, "GET /s/small") == []


def test_a_rule_that_is_off_is_as_if_it_were_not_there() -> None:
    rules = table(rule("/a", mode="off"), default_limits="9 per hour")
    assert charged(rules, "GET /a") == ["default"]


@pytest.mark.parametrize(
    ("mode", "expected"), [("shadow", ["/a (shadow)", "application (shadow)"]), ("off", [])]
)
def test_the_top_levels_mode_is_for_everything(mode: str, expected: list[str]) -> None:
    rules = table(rule("/a", mode="enforce"), application_limits="9 per hour", mode=mode)
    assert charged(rules, "GET /a") == expected


def test_a_path_with_dots_is_charged_by_both_rules_that_it_may_mean() -> None:
    rules = table(
        rule("/api/expensive/**", "expensive"), exempt("/health"), rule("/login", "login")
    )
    assert charged(rules, "GET /api/expensive/../../health") == ["expensive"]
    assert charged(rules, "GET /api/expensive/../../login") == ["expensive", "login"]
    assert charged(rules, "GET /x/../login") == ["login"]


@pytest.mark.parametrize(
    "spelling",
    ["/login", "//login", "/login/", "/login//", "///login", "/./login", "/login/.", "/x/../login"],
)
def test_no_spelling_of_a_path_dodges_its_rule(spelling: str) -> None:
    rules = table(rule("/login", "login"), exempt("/x/**"), exempt("/"))
    assert buckets(rules, f"POST {spelling}") == buckets(rules, "POST /login")


def test_a_path_with_dots_is_exempt_only_if_both_its_forms_are() -> None:
    rules = table(exempt("/static/**"), exempt("/health"), default_limits="9 per hour")
    assert charged(rules, "GET /static/../health") == []
    assert charged(rules, "GET /static/../secret") == ["default"]


def test_one_limit_that_two_rules_share_is_charged_once_at_the_higher_cost() -> None:
    rules = table(rule("/a/**", "a", scope="s"), rule("/b", "b", scope="s", cost=3))
    plan = rules.match("GET", "/a/../b")
    assert [charge.cost for charge in charges(plan, {"REMOTE_ADDR": "192.0.2.1"})] == [3]


def test_skip_leaves_the_limits_of_the_application_in_force() -> None:
    rules = table(
        rule("/skip", "skip", skip="python:tests.test_rules:is_internal"),
        application_limits="9 per hour",
        default_limits="5 per hour",
    )
    assert charged(rules, "GET /skip") == ["skip", "application"]
    assert charged(rules, "GET /skip", HTTP_X_INTERNAL="1") == ["application"]


def test_where_when_does_not_hold_the_defaults_are_charged() -> None:
    rules = table(
        rule("/when", "when", when={"header": {"X-Bot": "1"}}),
        application_limits="9 per hour",
        default_limits="5 per hour",
    )
    assert charged(rules, "GET /when") == ["default", "application"]
    assert charged(rules, "GET /when", HTTP_X_BOT="1") == ["when", "application"]


def test_every_form_of_a_path_with_dots_is_charged_by_its_own_variables() -> None:
    rules = table(rule("/files/<path:name>", "files", key="path:name"))
    plain = buckets(rules, "GET /files/secret.zip")
    for path in ("/files/./secret.zip", "/files/x/../secret.zip", "/files/y/../secret.zip"):
        assert set(plain) < set(buckets(rules, f"GET {path}"))


def test_the_variables_of_two_rules_that_a_path_may_mean_are_not_mixed() -> None:
    rules = table(rule("/a/<path:id>", "a"), rule("/b/<id>", "b", key="path:id"))
    plain = buckets(rules, "GET /b/5")
    assert set(plain) < set(buckets(rules, "GET /a/z/../../b/5"))


@pytest.mark.parametrize("spelling", ["+5", "005", "0_5", " 5", "\xd9\xa5"])
def test_a_number_is_charged_as_it_is_written_and_as_int_reads_it(spelling: str) -> None:
    named, number, static = rule("/u/<name>", "name"), rule("/u/<int:id>", "id"), rule("/u/5", "5")
    assert charged(table(number), f"GET /u/{spelling}") == ["id"]
    assert charged(table(static), f"GET /u/{spelling}") == ["5"]
    as_written = "id" if spelling.isdigit() or not spelling.isascii() else "name"
    assert charged(table(named, number), f"GET /u/{spelling}") in ([as_written], ["name", "id"])
    assert charged(table(named, number, static), f"GET /u/{spelling}") == [as_written, "5"]
    assert charged(table(exempt("/u/<name>"), number), f"GET /u/{spelling}") == ["id"]


def test_a_path_with_digits_is_charged_by_what_fits_its_number_alone() -> None:
    """Whatever fits it as it is written is beaten there by what is more specific."""
    rules = table(
        rule("/zip/<string(length=5):code>", "zip"),
        rule("/api/v1_2/**", "api"),
        rule("/r/<name>", "r", key="path:name"),
        exempt("/avatar/<string(length=32):md5>"),
        default_limits="3 per hour",
    )
    assert charged(rules, "GET /zip/02134") == ["zip"]
    assert charged(rules, "GET /api/v1_2/users") == ["api"]
    assert charged(rules, "GET /avatar/5d41402abc4b2a76b9719d911017c592") == []
    assert [bucket.partition("{")[2] for bucket in buckets(rules, "GET /r/report_2024_01")] == [
        "path:name:report_2024_01}"
    ]


@pytest.mark.parametrize("path", ["/v1_2/login", "/code/007"])
@pytest.mark.parametrize("ending", ["\n", " ", "\xff", "/."])
def test_a_path_with_digits_is_charged_as_written_however_it_ends(path: str, ending: str) -> None:
    rules = table(rule(["/v1_2/login", "/code/007"], "limited"))
    assert charged(rules, f"GET {path}{ending}") == ["limited"]


def test_a_shadow_rule_is_counted_for_a_number_as_it_would_be_were_it_enforced() -> None:
    for mode, counted in (("enforce", "5"), ("shadow", "5 (shadow)")):
        rules = table(rule("/u/<name>", "name"), rule("/u/5", "5", mode=mode))
        assert charged(rules, "GET /u/+5") == ["name", counted]
    lax = table(rule("/u/<a>", "a"), rule("/u/<string(length=3):b>", "b", mode="shadow"))
    assert charged(lax, "GET /u/005") == ["a", "b (shadow)"]


def test_all_spellings_of_an_id_have_one_counter() -> None:
    rules = table(rule("/u/<int:id>", "id", key="path:id"), rule("/o/<id>", "o", key="path:id"))
    for path, spellings in {
        "/u/": ["+5", "005", "0_5", " 5\n", "\xd9\xa5"],
        "/o/": ["6BA7B8109DAD11D180B400C04FD430C8", "{6ba7b810-9dad-11d1-80b4-00c04fd430c8}"],
    }.items():
        plain = "5" if path == "/u/" else "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
        for spelling in spellings:
            assert buckets(rules, f"GET {path}{spelling}") == buckets(rules, f"GET {path}{plain}")


def test_an_exemption_frees_the_form_in_which_it_is_written() -> None:
    rules = table(exempt("/health"), exempt("/live/"), rule("/**", "all"))
    assert charged(rules, "GET /health") == charged(rules, "GET /live/") == []
    assert charged(rules, "GET /health/") == charged(rules, "GET /live") == ["all"]
    assert charged(rules, "GET /health//") == charged(rules, "GET //live") == ["all"]


def test_an_exemption_frees_the_other_form_where_no_other_rule_fits_it() -> None:
    rules = table(
        exempt("/health"),
        exempt("/live/<name>/", methods=["GET"]),
        rule("/<name>", "post", methods=["POST"]),
        default_limits="9 per hour",
    )
    assert charged(rules, "GET /health/") == charged(rules, "GET /live/x") == []
    assert charged(rules, "POST /health/") == ["post"]
    assert charged(rules, "POST /live/x") == ["default"]
    other = table(exempt("/health"), exempt("/**"), rule("/health/x"))
    assert charged(other, "GET /health/") == []


def test_an_exemption_of_the_very_form_goes_before_a_limit_of_both_wherever_it_stands() -> None:
    for rules in ([rule("/a/", "a"), exempt("/a")], [exempt("/a"), rule("/a/", "a")]):
        assert charged(table(*rules), "GET /a") == []
        assert charged(table(*rules), "GET /a/") == ["a"]


def test_an_exemption_of_a_folder_or_the_root_frees_both_forms() -> None:
    rules = table(
        *map(exempt, ("/", "/static/**", "/files/<path:name>", "/both", "/both/")),
        rule("/**", "all"),
    )
    for path in ("/", "//", "/static", "/static/", "/static/a/", "/files/a/", "/both", "/both/"):
        assert charged(rules, f"GET {path}") == [], path


def test_a_number_in_another_form_keeps_the_slash_at_the_end() -> None:
    rules = table(exempt("/archive/<int:year>/<int:month>/"), rule("/**", "all"))
    assert charged(rules, "GET /archive/2024/11/") == charged(rules, "GET /archive/2024/05/") == []
    assert charged(rules, "GET /archive/2024/11") == charged(rules, "GET /archive/2024/05")
    assert charged(rules, "GET /archive/2024/05") == ["all"]
    assert charged(rules, "GET /archive/2024/05\n/") == ["all"]
    assert charged(rules, "GET /x/../archive/2024/05/") == ["all"]


@pytest.mark.parametrize("path", ["/x/../health", "/health/.", "/health/..", "/health%0A"])
def test_an_exempt_path_that_is_spelt_in_another_way_is_not_free(path: str) -> None:
    rules = table(exempt("/health"), rule("/<name>", "one"), rule("/<a>/<b>", "two"))
    assert charged(rules, f"GET {path.replace('%0A', chr(10))}") != []


def test_a_limit_folds_the_slash_at_the_end() -> None:
    rules = table(rule("/a", "a"), rule("/b/", "b"), exempt("/**"))
    assert charged(rules, "GET /a/") == charged(rules, "GET /a") == ["a"]
    assert charged(rules, "GET /b/") == charged(rules, "GET /b") == ["b"]


def test_a_shadow_rule_minds_the_form_of_an_exemption() -> None:
    rules = table(exempt("/health"), rule("/**", "all", mode="shadow"))
    assert charged(rules, "GET /health") == []
    assert charged(rules, "GET /health/") == ["all (shadow)"]


def test_what_a_rule_allows_is_not_allowed_where_the_path_may_mean_no_rule() -> None:
    rules = table(rule("/in/**", allow=["192.0.2.0/24"]), default_limits="1 per hour")
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    assert rules.precheck(rules.match("GET", "/in/x"), environ) == ("allowed", None)
    assert rules.precheck(rules.match("GET", "/in/../x"), environ) is None


def test_the_buckets_of_one_request_stand_side_by_side_and_no_limit_twice() -> None:
    rules = table(
        rule("/a/**", "a", ["5/s", "default"], scope="s"),
        rule("/b", "b", ["5/s", "7/m"], scope="s", cost=2),
        default_limits="9 per hour",
    )
    plan = rules.match("GET", "/a/../b")
    found = [(c.bucket, c.limit.quota, c.cost) for c in charges(plan, {"REMOTE_ADDR": "192.0.2.1"})]
    assert [quota for _, quota, _ in found] == [5, 7, 9]
    assert [cost for _, _, cost in found] == [2, 2, 1]


def test_a_skip_function_that_raises_skips_nothing() -> None:
    rules = table(rule("/a", "a", skip="python:tests.test_rules:failing"))
    assert charged(rules, "GET /a") == ["a"]


def is_internal(environ: dict[str, Any]) -> bool:
    return "HTTP_X_INTERNAL" in environ


def failing(environ: dict[str, Any]) -> bool:
    raise RuntimeError("no")


def test_clients_of_the_same_rules_share_all_but_their_buckets() -> None:
    rules = table(rule("/a", "a", "5 per minute; 20 per hour"), application_limits="1000 per hour")
    plan = rules.match("GET", "/a")
    (one, mine), (other, theirs) = (
        plan.statement_for({"REMOTE_ADDR": f"192.0.2.{number}"}) for number in (1, 2)
    )
    assert one is other
    assert mine != theirs
    assert [term.policy for term in one.terms] == ["a-1", "a-2", "application"]
    assert [term.bucket for term in one.terms] == [0, 0, 1]


def test_so_do_those_of_a_rule_with_a_condition_or_several_keys() -> None:
    rules = table(
        rule("/a", skip="python:tests.test_rules:is_internal"), rule("/b", key="query:id")
    )
    plan = rules.match("GET", "/a")
    (one, _), (other, _) = (
        plan.statement_for({"REMOTE_ADDR": f"192.0.2.{number}"}) for number in (1, 2)
    )
    assert one is other
    assert charges(plan, {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_INTERNAL": "1"}) == []
    plan = rules.match("GET", "/b")
    (one, mine), (other, theirs) = (
        plan.statement_for({"QUERY_STRING": f"id={n}&id=5"}) for n in (1, 2)
    )
    assert one is other
    assert mine != theirs
    assert len(mine) == 2


def test_so_do_those_of_a_rule_that_counts_by_its_path() -> None:
    rules = table(rule("/<user>/**", key="path:user"))
    (one, mine), (other, theirs) = (
        rules.match("GET", f"/{user}/x").statement_for({}) for user in ("ann", "bob")
    )
    assert one is other
    assert mine != theirs


def test_each_key_of_a_request_is_asked_for_once_wherever_another_has_several_values() -> None:
    """Finding a key may be expensive, since it may be a function of the application."""
    keys = ["python:tests.test_rules:counted", "query:id", "python:tests.test_rules:counted"]
    limits = [
        {"limit": f"{number} per minute", "key": key, "scope": f"s{number}"}
        for number, key in enumerate(keys, start=1)
    ]
    rules = table({"path": "/a", "limits": limits})
    environ: dict[str, Any] = {"QUERY_STRING": "id=1&id=2&id=3", "asked": []}
    found = charges(rules.match("GET", "/a"), environ)
    assert len(environ["asked"]) == 2
    assert [charge.limit.quota for charge in found] == [1, 2, 2, 2, 3]
    assert len({charge.bucket for charge in found}) == 5


def counted(environ: dict[str, Any]) -> str:
    environ["asked"].append("a key")
    return "somebody"


def test_the_storage_prepares_each_combination_of_counters_once() -> None:
    prepared: list[Terms] = []

    def prepare(terms: Terms) -> Take:
        prepared.append(terms)
        return MemoryStorage().prepare(terms)

    config = load(
        {
            "storage": "memory://",
            "rules": [
                rule("/<user>/**", "user", key="path:user"),
                rule("/when", "when", when={"header": {"X-Bot": "1"}}),
                rule("/b", "b", key="query:id"),
            ],
            "default_limits": "5 per hour",
        }
    )
    rules = RuleTable(config, prepare)
    for _ in range(3):
        for number in range(20):
            rules.match("GET", f"/{number}/x").statement_for({})
            rules.match("GET", "/when").statement_for({"HTTP_X_BOT": "1"})
            rules.match("GET", "/when").statement_for({})
            rules.match("GET", "/other").statement_for({})
            rules.match("GET", "/b").statement_for({"QUERY_STRING": f"id={number}"})
            rules.match("GET", "/b").statement_for({"QUERY_STRING": f"id={number}&id=x"})
    assert [[term.policy for term in terms] for terms in prepared] == [
        ["user"],
        ["when"],
        ["default"],
        ["b"],
        ["b", "b"],
    ]


def test_path_variables_reach_the_plan_in_their_canonical_text() -> None:
    rules = table(rule("/users/<int:id>/<name>", key="path:id"), rule("/pages/<int:id>"))
    assert rules.match("GET", "/users/005/Ann").by_rule[0].path_args == {"id": "5", "name": "Ann"}
    # If no limit counts by the path's variables, all their values have the same plan.
    assert rules.match("GET", "/pages/1") is rules.match("GET", "/pages/2")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rule("/a/<x>", "first"), rule("/a/<y>", "second")),
        (rule("/a", "first"), rule("/a/", "second")),
        (rule("/a/*", "first"), rule("/a/<y>", "second")),
        (rule("/a/**", "first"), rule("/a/**", "second")),
        (
            rule("/a", "first", methods=["GET", "POST"]),
            rule("/a", "second", methods=["POST", "GET"]),
        ),
    ],
)
def test_rules_that_can_never_be_told_apart_are_an_error(first: Any, second: Any) -> None:
    with pytest.raises(ConfigError, match='never be told from the rule "first"') as caught:
        table(first, second)
    assert caught.value.diagnostics[0].where == "rules[1]"


def test_a_scope_of_more_limits_than_a_record_holds_is_an_error() -> None:
    def rules(number: int) -> list[dict[str, Any]]:
        return [rule(f"/{index}", "", f"{index}/s", scope="api") for index in range(1, number + 1)]

    table(*rules(255), *[rule(f"/x{index}", "", "5/s") for index in range(300)])
    with pytest.raises(ConfigError, match="its scope counts by more than 255 limits") as caught:
        table(*rules(257))
    assert [one.where for one in caught.value.diagnostics] == ["rules[255]"]
    many = [f"{number}/s" for number in range(1, 257)]
    with pytest.raises(ConfigError, match="default_limits: its scope counts by more than 255"):
        table(default_limits=many)
    with pytest.raises(ConfigError, match="application_limits: its scope counts by more than 255"):
        table(application_limits=many)
    with pytest.raises(ConfigError, match=r"rules\[254\]"):
        table(*rules(255), default_limits=[{"limit": "300/s", "scope": "api"}])


def test_an_enforced_rule_and_its_shadow_may_have_one_path() -> None:
    rules = table(rule("/a", "a"), rule("/a", "stricter", "1 per minute", mode="shadow"))
    assert charged(rules, "GET /a") == ["a", "stricter (shadow)"]


@pytest.mark.parametrize(
    ("rules", "top", "told"),
    [
        ([rule("/u/<name>", "n"), rule("/u/<uuid:id>", "u")], {}, 'fit this rule and "n"'),
        ([rule("/a", "x", methods=["GET", "POST"]), rule("/a", methods=["POST"])], {}, 'and "x"'),
        (
            [rule("/a", limits="100 per minute; 50 per hour")],
            {},
            "100 per minute can never be reached",
        ),
        ([], {}, "nothing is limited"),
        ([rule("/a")], {"client_ip": {"trusted_proxies": ["0.0.0.0/0"]}}, "trusts everybody"),
        ([rule("/a", key="header:X-API-Key")], {}, "(header:X-API-Key), so that each new value"),
        (
            [rule("/a", limits=["1/s", {"limit": "9/h", "key": "query:q"}], key="cookie:c")],
            {},
            "(cookie:c, query:q), so",
        ),
        ([rule("/a", key=["ip", "form:email"])], {}, "add a limit by ip beside it"),
        ([rule("/a", key="json:a.b")], {}, "the limit by json:a.b stands alone: each new value"),
        (
            [rule("/a", limits=["1/s", {"limit": "9/h", "key": "cookie:c"}], key="form:f")],
            {},
            "the limit by form:f, cookie:c stands alone",
        ),
        ([rule("/u/<id>", key="path:id")], {}, "rules[0]: every limit counts by what"),
        ([rule("/a", key="environ:HTTP_X_TEAM")], {}, "(environ:HTTP_X_TEAM)"),
        ([rule("/a", key="environ:QUERY_STRING")], {}, "(environ:QUERY_STRING)"),
        (
            [rule("/a", key="header:A")],
            {"application_limits": {"limit": "9/h", "key": "header:B"}},
            "(header:A, header:B)",
        ),
        ([], {"default_limits": "9/h", "key": "header:A"}, "default_limits: every limit counts by"),
        (
            [],
            {"application_limits": "9/h", "key": "header:A"},
            "application_limits: every limit counts",
        ),
        (
            [exempt("/health"), rule("/**", "all")],
            {},
            'it exempts /health; /health/ is taken by the rule "all": write both',
        ),
        (
            [exempt("/u/<int:id>/"), rule("/u/<name>", "u")],
            {},
            'it exempts /u/<int:id>/; /u/<int:id> is taken by the rule "u": write both',
        ),
        ([rule("/login", methods=["POST"])], {}, "nothing limits PUT, PATCH, OTHER on its path"),
        (
            [rule("/in", methods=["POST", "PUT"]), rule("/<name>", methods=["OTHER"])],
            {},
            "nothing limits PATCH on its path",
        ),
        ([rule("/a")], {"mode": "shadow"}, "the mode is shadow"),
        ([rule("/a")], {"storage": "redis://127.0.0.1"}, "a namespace of its own"),
        ([rule("/a")], {"storage": "rediss://127.0.0.1"}, "a namespace of its own"),
        ([rule("/a")], {"storage": "unix:///run/redis.sock"}, "a namespace of its own"),
        ([rule("/a")], {"storage": "redis+sentinel://h:1/s"}, "a namespace of its own"),
    ],
)
def test_what_is_doubtful_is_warned_of(rules: list[Any], top: dict[str, Any], told: str) -> None:
    config = load({"storage": "memory://", "rules": rules, **top})
    found = warnings(config, reach=config.reach)
    assert any(told in str(warning) for warning in found), found


@pytest.mark.parametrize(
    ("rules", "top"),
    [
        ([exempt(["/health", "/health/"]), rule("/**")], {}),
        ([exempt("/health"), rule("/health/live")], {"default_limits": "9/h"}),
        ([exempt("/static/**"), exempt("/files/<path:name>"), exempt("/"), rule("/**")], {}),
        ([exempt("/health"), exempt("/**")], {}),
        ([rule("/login", methods=["POST"])], {"default_limits": "9/h"}),
        ([rule("/login", methods=["POST"])], {"application_limits": "9/h"}),
        ([rule("/login", methods=["POST"]), rule("/**")], {}),
        ([rule("/login", methods=["POST", "PUT", "PATCH", "OTHER"])], {}),
        ([rule("/login", methods=["GET"])], {}),
    ],
)
def test_what_is_held_by_another_rule_is_not_warned_of(
    rules: list[Any], top: dict[str, Any]
) -> None:
    found = warnings(load({"storage": "memory://", "rules": rules, **top}))
    assert not {"exempt-slash", "other-methods"} & {warning.code for warning in found}


def test_every_check_has_a_code_and_every_finding_its_place(tmp_path: Path) -> None:
    path = tmp_path / "throttle.yaml"
    path.write_text(
        """\
storage: redis://127.0.0.1
namespace: throttle
mode: shadow
client_ip: {trusted_proxies: [0.0.0.0/0]}
default_limits: [9 per second, 9 per hour, {limit: 2/s, key: query:q}]
rules:
- {path: /u/<name>, limits: 1/s}
-  {path: /u/<uuid:id>, limits: 1/s}
- {path: /a, limits: 5/s, key: cookie:c}
- {path: /health, exempt: true}
- {path: /health/, limits: 5/s}
- {path: /b, limits: 5/s, key: "json:user.email"}
"""
    )
    config = load(path)
    found = warnings(config, reach=config.reach)
    nothing = warnings(load({}))
    methods = warnings(load({"rules": [rule("/login", methods=["POST"])]}))
    assert {one.code for one in (*found, *nothing, *methods)} == set(WARNINGS)
    assert {one.severity for one in found} == {"warning"}
    assert {(one.code, one.line, one.column, one.where) for one in found} == {
        ("rules-overlap", 8, 4, "rules[1]"),
        ("client-controlled-key", 9, 3, "rules[2]"),
        ("limit-unreachable", 5, 17, "default_limits"),
        ("exempt-slash", 10, 3, "rules[3]"),
        ("body-key-alone", 12, 3, "rules[5]"),
        ("client-ip", 4, 12, "client_ip"),
        ("not-enforced", 3, 7, "mode"),
        ("shared-namespace", 2, 12, "namespace"),
    }


def test_a_rule_set_needs_no_file() -> None:
    """A program may build one itself."""
    pattern, find = Pattern.parse("/a"), key_function("ip", Identity())
    limit = RuleLimit(Limit("fixed-window", 0, 1000, 0), ("ip",), find, "rule=a", 1, "a")
    rules = RuleSet(rules=(Rule("a", (pattern,), limits=(limit,)),) * 2)
    assert [one.code for one in errors(rules)] == ["rules-clash"]
    assert warnings(rules)[0].line is None
    table = RuleTable(replace(rules, rules=rules.rules[:1]))
    assert charged(table, "GET /a") == ["a"]


def test_a_sound_configuration_has_no_warnings() -> None:
    limits = ["5 per minute", "20 per hour", {"limit": "1 per second", "key": "all"}]
    assert warnings(load({"storage": "memory://", "rules": [rule("/a", limits=limits)]})) == []


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        ("form:email", {"limits": ["5 per minute", {"limit": "50 per minute", "key": "ip"}]}),
        ("header:A", {"limits": ["5 per minute", {"limit": "50 per minute", "key": "all"}]}),
        ("header:A", {"limits": ["5 per minute", "default"]}),
        ("environ:REMOTE_USER", {}),
        ("session-user", {}),
        (["ip", "environ:beaker.session.id"], {}),
    ],
)
def test_a_key_that_the_client_chooses_is_sound_beside_one_that_it_does_not(
    key: Any, beside: dict[str, Any]
) -> None:
    limited = {**rule("/a", key=key), **beside}
    top = {"storage": "memory://", "default_limits": "9/d", "session": {"kind": "environ"}}
    assert warnings(load({**top, "rules": [limited]})) == []


def test_application_limits_by_ip_hold_whoever_changes_a_chosen_key() -> None:
    top = {"application_limits": {"limit": "9/h", "key": "ip"}, "default_limits": "3/h"}
    rules = [rule("/a", key="header:A")]
    assert warnings(load({"storage": "memory://", "rules": rules, "key": "header:B", **top})) == []


def test_the_plans_of_long_paths_are_not_kept() -> None:
    rules = table(rule("/<name>", key="path:name"))  # each path has a plan of its own

    def is_kept(path: str) -> bool:
        return rules.match("GET", path) is rules.match("GET", path)

    assert is_kept("/" + "x" * (MAX_CACHED_CHARACTERS - len("GET/")))
    assert not is_kept("/" + "x" * (MAX_CACHED_CHARACTERS - len("GET")))


def test_as_many_paths_as_a_client_likes_do_not_make_the_table_grow() -> None:
    rules = table(*[rule(f"/{index}", f"r{index}") for index in range(100)])
    for index in range(10_000):
        rules.match("GET", f"/{index % 100}/{index}/../../{index * 7 % 100}")
    assert len(rules._paths) <= rules._paths.max_size
    assert len(rules._plans) <= rules._plans.max_size
    assert len(rules._statements._known) <= rules._statements._known.max_size


@given(st.text(max_size=20), st.text(max_size=50))
def test_any_method_and_path_meet_a_rule_for_everything(method: str, path: str) -> None:
    assert charged(EVERYTHING, f"{method.replace(' ', '')} {path}")[0].startswith("all")


EVERYTHING = table(rule("/**", "all"))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a:b", "ip"),
        ("a", "ip"),
        ("a{x}", "ip"),
        ("a%3Ab", "ip"),
        ("a", "all"),
        ("rule=a", "ip"),
        ("shadow", "ip"),
    ],
)
def test_no_two_names_make_one_prefix(name: str, key: str) -> None:
    others = [
        ("a:b", "ip"),
        ("a", "ip"),
        ("a{x}", "ip"),
        ("a%3Ab", "ip"),
        ("a", "all"),
        ("rule=a", "ip"),
        ("shadow", "ip"),
    ]
    mine = buckets(table(rule("/a", name, key=key)), "GET /a")[0].partition("{")[0]
    for other, other_key in others:
        prefix = buckets(table(rule("/a", other, key=other_key)), "GET /a")[0].partition("{")[0]
        assert (prefix == mine) == ((other, other_key) == (name, key))
