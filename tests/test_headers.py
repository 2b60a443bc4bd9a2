"""The headers of a decision: which limits they name, with which numbers, and when there are
none."""

from __future__ import annotations

from math import ceil

import pytest
from http_sf import parse
from hypothesis import given
from hypothesis import strategies as st

from support.charges import decision_on
from wsgi_throttle.decision import NEVER_MS, Charge, Decision, Limit, Outcome, Terms, seconds_up
from wsgi_throttle.http import headers as http_headers
from wsgi_throttle.http.headers import HEADER_STYLES, HeaderStyle, LimitHeaders, Writer

NOW_S = 1_700_000_000.123
PER_MINUTE = Limit("sliding-window", 5, 60_000, 5)
PER_HOUR = Limit("sliding-window", 20, 3_600_000, 20)


def charge(limit: Limit = PER_MINUTE, policy: str = "login", enforce: bool = True) -> Charge:
    return Charge("throttle:1:login:ip:{ip:192.0.2.1}", limit, 1, enforce, policy)


def judged(granted: bool, *pairs: tuple[Charge, Outcome]) -> Decision:
    return decision_on(granted, [pair[0] for pair in pairs], [pair[1] for pair in pairs])


def told(decision: Decision, style: str = "both") -> dict[str, str]:
    pairs = LimitHeaders(style).pairs(decision, NOW_S)
    assert len(dict(pairs)) == len(pairs), "a field is there twice"
    return dict(pairs)


ADMITTED = judged(
    True,
    (charge(), Outcome(0, 3, 41_000)),
    (charge(PER_HOUR, "login-2"), Outcome(0, 18, 3_541_000)),
)
REFUSED = judged(
    False,
    (charge(), Outcome(40_001, 0, 40_001)),
    (charge(PER_HOUR, "login-2"), Outcome(0, 15, 3_541_000)),
)

CASES = {
    "an admitted request hears of all its limits, and in numbers of the one with least left": (
        ADMITTED,
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "3",
            "X-RateLimit-Reset": "1700000042",
            "RateLimit-Policy": '"login";q=5;w=60, "login-2";q=20;w=3600',
            "RateLimit": '"login";r=3;t=41, "login-2";r=18;t=3541',
        },
    ),
    "a refused one hears of all policies but only of the limit that refuses": (
        REFUSED,
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1700000041",
            "RateLimit-Policy": '"login";q=5;w=60, "login-2";q=20;w=3600',
            "RateLimit": '"login";r=0;t=41',
        },
    ),
    "where two refuse, the numbers are those of the longer wait": (
        judged(
            False,
            (charge(), Outcome(1, 0, 1)),
            (charge(PER_HOUR, "login-2"), Outcome(1_001, 0, 1_001)),
        ),
        {
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1700000002",
            "RateLimit-Policy": '"login";q=5;w=60, "login-2";q=20;w=3600',
            "RateLimit": '"login";r=0;t=1, "login-2";r=0;t=2',
        },
    ),
    "of two with as much left, the later reset is told": (
        judged(
            True,
            (charge(), Outcome(0, 3, 41_000)),
            (charge(PER_HOUR, "login-2"), Outcome(0, 3, 50_000)),
        ),
        {
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "3",
            "X-RateLimit-Reset": "1700000051",
            "RateLimit-Policy": '"login";q=5;w=60, "login-2";q=20;w=3600',
            "RateLimit": '"login";r=3;t=41, "login-2";r=3;t=50',
        },
    ),
    "an unused limit resets now": (
        judged(True, (charge(), Outcome(0, 5, 0))),
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "5",
            "X-RateLimit-Reset": "1700000001",
            "RateLimit-Policy": '"login";q=5;w=60',
            "RateLimit": '"login";r=5;t=0',
        },
    ),
    "a limit that lets nothing pass has no time": (
        judged(
            False,
            (charge(Limit("sliding-window", 0, 60_000, 0), "closed"), Outcome(NEVER_MS, 0, 0)),
            (charge(), Outcome(2_000, 0, 2_000)),
        ),
        {
            "X-RateLimit-Limit": "0",
            "X-RateLimit-Remaining": "0",
            "RateLimit-Policy": '"closed";q=0;w=60, "login";q=5;w=60',
            "RateLimit": '"closed";r=0, "login";r=0;t=2',
        },
    ),
    "a window under a second has no w": (
        judged(True, (charge(Limit("fixed-window", 3, 999, 3)), Outcome(0, 2, 400))),
        {
            "X-RateLimit-Limit": "3",
            "X-RateLimit-Remaining": "2",
            "X-RateLimit-Reset": "1700000001",
            "RateLimit-Policy": '"login";q=3',
            "RateLimit": '"login";r=2;t=1',
        },
    ),
    "a window of one second has one": (
        judged(True, (charge(Limit("fixed-window", 3, 1_000, 3)), Outcome(0, 2, 1_000))),
        {
            "X-RateLimit-Limit": "3",
            "X-RateLimit-Remaining": "2",
            "X-RateLimit-Reset": "1700000002",
            "RateLimit-Policy": '"login";q=3;w=1',
            "RateLimit": '"login";r=2;t=1',
        },
    ),
    "a window of parts of a second is rounded up": (
        judged(True, (charge(Limit("fixed-window", 3, 1_500, 3)), Outcome(0, 2, 1_000))),
        {
            "X-RateLimit-Limit": "3",
            "X-RateLimit-Remaining": "2",
            "X-RateLimit-Reset": "1700000002",
            "RateLimit-Policy": '"login";q=3;w=2',
            "RateLimit": '"login";r=2;t=1',
        },
    ),
    "shadow charges are not told of, though they have less left": (
        judged(
            True,
            (charge(policy="shadow", enforce=False), Outcome(9_000, 0, 9_000)),
            (charge(PER_HOUR, "login"), Outcome(0, 18, 3_541_000)),
        ),
        {
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "18",
            "X-RateLimit-Reset": "1700003542",
            "RateLimit-Policy": '"login";q=20;w=3600',
            "RateLimit": '"login";r=18;t=3541',
        },
    ),
    "shadow charges are not told of, though they would have refused for longer": (
        judged(
            False,
            (charge(), Outcome(1_000, 0, 1_000)),
            (charge(PER_HOUR, "shadow", enforce=False), Outcome(9_000, 0, 9_000)),
        ),
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1700000002",
            "RateLimit-Policy": '"login";q=5;w=60',
            "RateLimit": '"login";r=0;t=1',
        },
    ),
    "several keys of one rule are told of once, by the tightest": (
        judged(
            True,
            (charge(), Outcome(0, 4, 10_000)),
            (charge(), Outcome(0, 2, 30_000)),
            (charge(), Outcome(0, 3, 20_000)),
        ),
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "2",
            "X-RateLimit-Reset": "1700000031",
            "RateLimit-Policy": '"login";q=5;w=60',
            "RateLimit": '"login";r=2;t=30',
        },
    ),
    "of several keys of one rule, the one that refuses is told of": (
        judged(
            False,
            (charge(), Outcome(0, 0, 59_000)),
            (charge(), Outcome(7_000, 0, 7_000)),
        ),
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1700000008",
            "RateLimit-Policy": '"login";q=5;w=60',
            "RateLimit": '"login";r=0;t=7',
        },
    ),
    "a token bucket has up to its burst left, of which the draft can tell the quota": (
        judged(
            True,
            (charge(Limit("token-bucket", 5, 60_000, 40), "first"), Outcome(0, 38, 12_000)),
            (charge(Limit("token-bucket", 50, 60_000, 80), "second"), Outcome(0, 49, 1_000)),
        ),
        {
            "X-RateLimit-Limit": "40",
            "X-RateLimit-Remaining": "38",
            "X-RateLimit-Reset": "1700000013",
            "RateLimit-Policy": '"first";q=5;w=60, "second";q=50;w=60',
            "RateLimit": '"first";r=5;t=12, "second";r=49;t=1',
        },
    ),
    "a token bucket with a small burst has its number": (
        judged(True, (charge(Limit("token-bucket", 50, 60_000, 10)), Outcome(0, 9, 1_200))),
        {
            "X-RateLimit-Limit": "50",
            "X-RateLimit-Remaining": "9",
            "X-RateLimit-Reset": "1700000002",
            "RateLimit-Policy": '"login";q=50;w=60',
            "RateLimit": '"login";r=9;t=2',
        },
    ),
    "nothing but shadow charges: nothing is told": (
        judged(True, (charge(enforce=False), Outcome(0, 3, 41_000))),
        {},
    ),
    "no charges: nothing is told": (judged(True), {}),
}


@pytest.mark.parametrize(("decision", "expected"), CASES.values(), ids=CASES)
def test_a_decision_has_these_headers(decision: Decision, expected: dict[str, str]) -> None:
    assert told(decision) == expected


@pytest.mark.parametrize(
    ("passed_s", "admitted_t", "refused_t"),
    [
        (-3600, (41, 3541), 41),
        (0.999, (41, 3541), 41),
        (1, (40, 3540), 40),
        (1.999, (40, 3540), 40),
        (40.5, (1, 3501), 1),
        (41, (0, 3500), 0),
        (5000, (0, 0), 0),
    ],
    ids=["clock set back", "at once", "1 s", "under 2 s", "last second", "over", "long over"],
)
def test_a_reset_stays_as_it_was_decided_and_seconds_from_now_are_less_by_those_that_have_passed(
    passed_s: float, admitted_t: tuple[int, int], refused_t: int
) -> None:
    headers = LimitHeaders("both")
    # Some floats between the two would be rounded to the second before.
    answered_s = NOW_S + passed_s + 1e-6
    admitted = dict(headers.pairs(ADMITTED, NOW_S, [], answered_s))
    assert admitted == told(ADMITTED) | {
        "RateLimit": '"login";r=3;t={}, "login-2";r=18;t={}'.format(*admitted_t)
    }
    refused = dict(headers.pairs(REFUSED, NOW_S, [], answered_s))
    assert refused == told(REFUSED) | {"RateLimit": f'"login";r=0;t={refused_t}'}


PARTS_OF_BOTH = [
    name for name, parts in HEADER_STYLES.items() if set(parts) <= set(HEADER_STYLES["both"])
]


@pytest.mark.parametrize(("decision", "expected"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("style", PARTS_OF_BOTH)
def test_a_style_alone_sends_what_it_sends_in_both(
    style: str, decision: Decision, expected: dict[str, str]
) -> None:
    names = LimitHeaders(style).names
    assert told(decision, style) == {
        name: value for name, value in expected.items() if name in names
    }


PRESENT = {
    "none of ours": ([("Content-Type", "text/html"), ("X-Real", "1"), ("Rate", "1")], True, True),
    "one of the three numbers": ([("X-RateLimit-Limit", "1")], False, True),
    "another of that family": ([("x-ratelimit-used", "1")], False, True),
    "in the letters of its framework": ([("X-Ratelimit-Remaining", "1")], False, True),
    "the IETF's": ([("RateLimit", '"a";r=1')], True, False),
    "the IETF's policy alone": ([("RATELIMIT-POLICY", '"a";q=1')], True, False),
    "the IETF's of an older draft": ([("RateLimit-Remaining", "1")], True, False),
    "both": ([("RateLimit", '"a";r=1'), ("X-RateLimit-Limit", "1")], False, False),
    "a longer name that ends alike": ([("X-My-RateLimit", "1")], True, True),
}


@pytest.mark.parametrize(("present", "x_ratelimit", "ietf"), PRESENT.values(), ids=PRESENT)
def test_nothing_is_added_to_a_family_of_which_the_application_sets_a_header(
    present: list[tuple[str, str]], x_ratelimit: bool, ietf: bool
) -> None:
    names = [name for name, _ in LimitHeaders("both").pairs(ADMITTED, NOW_S, present)]
    assert ("X-RateLimit-Limit" in names) is x_ratelimit
    assert ("RateLimit" in names) is ietf
    assert len(names) == 3 * x_ratelimit + 2 * ietf


def test_a_limit_that_was_edited_is_told_as_it_is_now() -> None:
    headers = LimitHeaders("both")
    headers.pairs(ADMITTED, NOW_S)
    edited = judged(True, (charge(PER_HOUR), Outcome(0, 3, 41_000)))
    assert dict(headers.pairs(edited, NOW_S))["RateLimit-Policy"] == '"login";q=20;w=3600'


def test_the_names_that_applications_set_are_remembered_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_headers, "MAX_UNRELATED", 100)
    headers = LimitHeaders("both")
    for number in range(200):
        assert len(headers.pairs(ADMITTED, NOW_S, [(f"X-{number}", "1")])) == 5
        ours = (f"X-RateLimit-{number}", "1")
        assert len(headers.pairs(ADMITTED, NOW_S, [(f"X-{number}", "1"), ours])) == 2
    assert len(headers._unrelated) == 100


def compile_toy(terms: Terms) -> Writer:
    quotas = [term.limit.quota for term in terms]

    def write(
        decision: Decision, tightest: int, decided_s: float, passed_s: int = 0
    ) -> list[tuple[str, str]]:
        left = decision.measured[tightest][1]
        return [("Toy-Left", f"{left} of {quotas[tightest]}, {decision.granted}, {decided_s}")]

    return write


def test_a_row_of_the_table_is_all_that_a_new_style_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy = HeaderStyle("toy-", ("Toy-Left",), compile_toy)
    monkeypatch.setitem(HEADER_STYLES, "toys", (toy, http_headers.IETF))
    headers = LimitHeaders("toys")
    assert headers.names == ("Toy-Left", "RateLimit-Policy", "RateLimit")
    assert dict(headers.pairs(ADMITTED, NOW_S)) == {
        "Toy-Left": f"3 of 5, True, {NOW_S}",
        "RateLimit-Policy": '"login";q=5;w=60, "login-2";q=20;w=3600',
        "RateLimit": '"login";r=3;t=41, "login-2";r=18;t=3541',
    }
    assert headers.pairs(REFUSED, NOW_S)[0] == ("Toy-Left", f"0 of 5, False, {NOW_S}")
    # An application that sets one header of a family has numbers of its own for all of them.
    assert len(headers.pairs(ADMITTED, NOW_S, [("TOY-Used", "1")])) == 2
    assert len(headers.pairs(ADMITTED, NOW_S, [("X-RateLimit-Limit", "1")])) == 3
    assert dict(LimitHeaders("both").pairs(ADMITTED, NOW_S)).keys() == set(
        LimitHeaders("both").names
    )


def test_nothing_is_told_of_a_shadow_rule_that_counts_several_keys() -> None:
    shadows = [(charge(enforce=False), Outcome(0, 3, 41_000))] * 2
    assert LimitHeaders("both").pairs(judged(True, *shadows), NOW_S) == []
    both = judged(True, *shadows, (charge(PER_HOUR, "hourly"), Outcome(0, 18, 3_541_000)))
    assert told(both)["RateLimit"] == '"hourly";r=18;t=3541'


def test_a_name_with_a_percent_sign_is_told_as_it_is() -> None:
    named = judged(True, (charge(policy="100% of %d"), Outcome(0, 3, 41_000)))
    assert told(named)["RateLimit"] == '"100% of %d";r=3;t=41'


def test_a_rule_that_counts_several_keys_is_told_of_once() -> None:
    decision = judged(True, *[(charge(), Outcome(0, 3, 41_000))] * 1_000)
    assert told(decision)["RateLimit-Policy"] == '"login";q=5;w=60'
    assert told(decision)["RateLimit"] == '"login";r=3;t=41'


POLICY_NAMES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1
)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    names = draw(st.lists(POLICY_NAMES, max_size=4, unique=True))
    charges = [
        charge(Limit("sliding-window", quota, window_ms, quota), name, draw(st.booleans()))
        for name in names
        for quota in [draw(st.integers(0, 10**12))]
        for window_ms in [draw(st.integers(1, 10**13))]
    ]
    waits = [draw(st.sampled_from([0, 1, 999, 1_000, 60_001, NEVER_MS])) for _ in charges]
    granted = not any(wait and each.enforce for wait, each in zip(waits, charges, strict=True))
    outcomes = [
        # No more is left than may be had at once.
        Outcome(wait, draw(st.integers(0, min(3, each.limit.burst))), draw(st.integers(0, 3_000)))
        for wait, each in zip(waits, charges, strict=True)
    ]
    return decision_on(granted, charges, outcomes)


@given(decisions())
def test_the_fields_are_structured_fields_and_say_what_the_decision_says(
    decision: Decision,
) -> None:
    headers = told(decision)
    enforced = list(decision.enforced)
    if not enforced:
        assert headers == {}
        return

    policies = parse(headers["RateLimit-Policy"].encode(), tltype="list")
    assert policies == [
        (
            each.policy,
            {"q": each.limit.quota}
            | ({"w": seconds_up(each.limit.window_ms)} if each.limit.window_ms >= 1000 else {}),
        )
        for each, _ in enforced
    ]
    items = parse(headers["RateLimit"].encode(), tltype="list")
    shown = enforced if decision.granted else decision.refusing
    due = [outcome.wait_ms or outcome.reset_ms for _, outcome in shown]
    assert items == [
        (
            each.policy,
            {"r": min(outcome.remaining, each.limit.quota)}
            | ({"t": seconds_up(ms)} if ms < NEVER_MS else {}),
        )
        for (each, outcome), ms in zip(shown, due, strict=True)
    ]

    assert decision.tightest is not None
    tightest, outcome = decision.tightest
    assert headers["X-RateLimit-Limit"] == str(tightest.limit.quota)
    assert headers["X-RateLimit-Remaining"] == str(outcome.remaining)
    due_ms = outcome.wait_ms or outcome.reset_ms
    if due_ms < NEVER_MS:
        assert headers["X-RateLimit-Reset"] == str(ceil(NOW_S + due_ms / 1000))
    else:
        assert "X-RateLimit-Reset" not in headers
