"""Answers in place of the application's: their kind, their content, and which origins may read
them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.charges import decision_on
from wsgi_throttle.cache import Bounded
from wsgi_throttle.decision import NEVER_MS, Charge, Decision, Limit, Outcome
from wsgi_throttle.http.bodies import compile_body
from wsgi_throttle.http.headers import HEADER_STYLES
from wsgi_throttle.http.negotiate import MAX_ACCEPT, negotiate
from wsgi_throttle.http.responder import Responder, Response
from wsgi_throttle.http.settings import ResponseSettings

NOW_S = 1_700_000_000.123
PER_MINUTE = Limit("sliding-window", 5, 60_000, 5)
PER_HOUR = Limit("sliding-window", 20, 3_600_000, 20)

JSON, HTML, TEXT = "application/json", "text/html", "text/plain"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,"
    "image/avif,image/webp,image/apng,*/*;q=0.8"
)


def refused(wait_ms: int = 40_001, limit: Limit = PER_MINUTE, policy: str = "login") -> Decision:
    charges = [
        Charge("b", limit, 1, True, policy),
        Charge("b", PER_HOUR, 1, True, "login-2"),
        Charge("b", PER_HOUR, 1, False, "shadow"),
    ]
    outcomes = [Outcome(wait_ms, 0, wait_ms), Outcome(0, 15, 3_541_000), Outcome(1 << 40, 0, 0)]
    return decision_on(False, charges, outcomes)


def environ(accept: str | None = None, **more: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "GET", **({} if accept is None else {"HTTP_ACCEPT": accept}), **more}


def answer(
    accept: str | None = None,
    decision: Decision | None = None,
    settings: ResponseSettings | None = None,
    **more: Any,
) -> Response:
    responder = Responder(settings or ResponseSettings())
    return responder.too_many_requests(environ(accept, **more), decision or refused(), NOW_S)


def own(kind: str, template: str) -> ResponseSettings:
    """The settings with a template of one's own."""
    return ResponseSettings(**{kind: compile_body(kind, template)})  # type: ignore[arg-type]


ANSWERS: dict[str, Callable[[Responder, dict[str, Any]], Response]] = {
    "429": lambda responder, environ: responder.too_many_requests(environ, refused(), NOW_S),
    "503": lambda responder, environ: responder.unavailable(environ, 3),
    "403": lambda responder, environ: responder.forbidden(environ),
}


# --- which kind -----------------------------------------------------------------------------------

ACCEPTS = {
    "nothing said": ("", "json"),
    "white space": (" ", "json"),
    "anything (curl)": ("*/*", "json"),
    "a browser": (CHROME, "html"),
    "a browser's image": ("image/avif,image/webp,*/*;q=0.8", "json"),
    "axios": ("application/json, text/plain, */*", "json"),
    "an old Java": ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "html"),
    "JSON": ("application/json", "json"),
    "JSON of a charset": ("application/json; charset=utf-8", "json"),
    "a problem": ("application/problem+json", "json"),
    "any application type": ("application/*", "json"),
    "HTML": ("text/html", "html"),
    "HTML in capitals": ("TEXT/HTML", "html"),
    "HTML of a charset": ("text/html;charset=utf-8", "html"),
    "HTML as high as JSON": ("application/json, text/html", "html"),
    "HTML below JSON": ("text/html;q=0.8, application/json", "json"),
    "HTML below a problem": ("text/html;q=0.8, application/problem+json;q=0.9", "json"),
    "HTML below anything": ("text/html;q=0.5, */*", "json"),
    "HTML above anything": ("text/html, */*;q=0.9", "html"),
    "HTML refused": ("text/html;q=0, */*;q=0.1", "json"),
    "HTML alone and refused": ("text/html;q=0", "text"),
    "text": ("text/plain", "text"),
    "text above JSON": ("text/plain, application/json;q=0.9", "text"),
    "text as high as JSON": ("text/plain, application/json", "json"),
    "text above HTML": ("text/plain, text/html;q=0.9", "text"),
    "any text": ("text/*", "text"),
    "any text, or JSON": ("text/*, application/json", "json"),
    "the specific range decides, not the general": ("*/*, application/*;q=0.1", "text"),
    "XML": ("application/xml", "text"),
    "everything refused": ("*/*;q=0", "text"),
    "a quality that is none": ("text/html;q=high, application/json", "json"),
    "a quality out of bounds": ("text/html;q=7, application/json", "json"),
    "a parameter before the quality": ("text/html;level=1;q=0.4, application/json;q=0.3", "html"),
    "white space around everything": (" text/html ; q=0.9 , application/json ; q=0.8 ", "html"),
    "garbage": (";;;,,,===", "text"),
}


@pytest.mark.parametrize(("accept", "kind"), ACCEPTS.values(), ids=ACCEPTS)
def test_the_kind_of_body_that_the_client_prefers(accept: str, kind: str) -> None:
    assert negotiate(accept) == kind


@given(st.text(st.characters(max_codepoint=0xFF)) | st.text("texhmlp/*;q=01., "))
def test_no_accept_header_raises(accept: str) -> None:
    assert negotiate(accept) in {"html", "json", "text"}


CONTENT_TYPES = {
    JSON: "application/problem+json",
    HTML: "text/html; charset=utf-8",
    TEXT: "text/plain; charset=utf-8",
}


@pytest.mark.parametrize("status", ANSWERS)
@pytest.mark.parametrize(("accept", "content_type"), CONTENT_TYPES.items())
def test_every_answer_comes_in_every_kind(status: str, accept: str, content_type: str) -> None:
    line, headers, body = ANSWERS[status](Responder(ResponseSettings()), environ(accept))
    assert line.startswith(status)
    assert dict(headers)["Content-Type"] == content_type
    assert dict(headers)["Content-Length"] == str(len(body))
    assert dict(headers)["Cache-Control"] == "no-store"
    assert dict(headers)["Vary"] == "Accept"
    assert ("Retry-After" in dict(headers)) == (status != "403")
    assert len(dict(headers)) == len(headers), "a field is there twice"


def test_only_the_beginning_of_a_long_accept_header_counts() -> None:
    responder = Responder(ResponseSettings())
    early = "text/html," + "a/b;q=0.5," * MAX_ACCEPT
    late = "a/b;q=0.5," * MAX_ACCEPT + "text/html"
    cut = "a/b," * 125 + ",,,text/html-and-more,*/*"
    assert cut[:MAX_ACCEPT].endswith(",text/html")
    types = [
        dict(responder.forbidden(environ(accept))[1])["Content-Type"]
        for accept in (early, late, cut)
    ]
    assert types == [CONTENT_TYPES[HTML], CONTENT_TYPES[TEXT], CONTENT_TYPES[TEXT]]


def test_what_is_cached_for_clients_is_bounded() -> None:
    responder = Responder(ResponseSettings())
    for number in range(3_000):
        accept = f"application/json;n={number}"
        responder.too_many_requests(environ(accept), refused(number * 1_000 + 1), NOW_S)
        responder.unavailable(environ(accept), number + 1)
    kept: list[Bounded[Any, Any]] = [responder._kinds, responder._refusals, responder._unavailable]
    assert all(len(cache) <= cache.max_size <= 1024 for cache in kept)


def test_a_client_that_sends_many_keys_makes_no_answer_larger() -> None:
    charges = [Charge(f"b{number}", PER_MINUTE, 1, True, "login") for number in range(5_000)]
    responder = Responder(ResponseSettings())
    many = decision_on(False, charges, [Outcome(40_001, 0, 40_001)] * 5_000)
    one = decision_on(False, charges[:1], many.outcomes[:1])
    given = [responder.too_many_requests(environ(), decision, NOW_S) for decision in (many, one)]
    assert given[0] == given[1]
    assert given[0][2] is given[1][2], "the same answer was made twice"


# --- what is in it --------------------------------------------------------------------------------

DETAIL = "The limit is 5 per minute. Try again in 41 seconds."


def test_a_problem_has_the_members_of_rfc_9457_and_those_that_clients_of_flask_know() -> None:
    assert json.loads(answer(JSON)[2]) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": DETAIL,
        "retry_after": 41,
        "violated-policies": ["login"],
        "error": "rate_limit_exceeded",
        "message": DETAIL,
    }


def test_a_problem_names_all_limits_that_refuse_and_speaks_of_the_longest_wait() -> None:
    charges = [
        Charge("b", PER_MINUTE, 1, True, "login"),
        Charge("b", PER_HOUR, 1, True, "login-2"),
        Charge("c", PER_MINUTE, 1, True, "login"),
    ]
    decision = decision_on(
        False, charges, [Outcome(1, 0, 1), Outcome(2_000, 0, 2), Outcome(3, 0, 3)]
    )
    headers, body = answer(JSON, decision)[1:]
    problem = json.loads(body)
    assert problem["violated-policies"] == ["login", "login-2"]
    assert problem["detail"] == "The limit is 20 per hour. Try again in 2 seconds."
    assert problem["retry_after"] == 2
    assert dict(headers)["Retry-After"] == "2"
    assert dict(headers)["X-RateLimit-Limit"] == "20"


@pytest.mark.parametrize(
    ("wait_ms", "seconds"), [(1, 1), (999, 1), (1_000, 1), (1_001, 2), (86_400_000, 86_400)]
)
def test_seconds_are_rounded_up_and_the_same_everywhere(wait_ms: int, seconds: int) -> None:
    decision = refused(wait_ms)
    headers, body = answer(JSON, decision)[1:]
    assert dict(headers)["Retry-After"] == str(seconds) == str(decision.retry_after_s)
    assert dict(headers)["RateLimit"] == f'"login";r=0;t={seconds}'
    assert json.loads(body)["retry_after"] == seconds
    assert f'data-seconds="{seconds}"' in answer(HTML, decision)[2].decode()
    unit = "second" if seconds == 1 else "seconds"
    assert answer(TEXT, decision)[2].decode().endswith(f" in {seconds} {unit}.\n")


def test_a_limit_that_lets_nothing_pass_has_no_time_anywhere() -> None:
    decision = refused(NEVER_MS, Limit("sliding-window", 0, 60_000, 0))
    status, headers, body = answer(JSON, decision)
    assert status == "429 Too Many Requests"
    assert "Retry-After" not in dict(headers)
    assert dict(headers)["RateLimit"] == '"login";r=0'
    assert json.loads(body)["retry_after"] is None
    assert json.loads(body)["detail"] == "The limit is 0 per minute. Waiting will not help."
    assert 'data-seconds=""' in answer(HTML, decision)[2].decode()
    assert answer(TEXT, decision)[2].decode() == (
        "Too many requests. The limit is 0 per minute. Waiting will not help.\n"
    )


def test_a_cached_refusal_is_never_sent_in_place_of_another() -> None:
    """Answers are cached. One for another refusal must not be used."""
    responder = Responder(ResponseSettings())
    for policy in ("login", "search"):
        for limit in (PER_MINUTE, PER_HOUR):
            for wait_ms in (1_000, 2_000, NEVER_MS):
                for accept in (JSON, JSON, TEXT, HTML):
                    decision = refused(wait_ms, limit, policy)
                    given = responder.too_many_requests(environ(accept), decision, NOW_S)
                    assert given == answer(accept, decision)


def test_outage_and_block_are_problems_too() -> None:
    responder = Responder(ResponseSettings())
    status, headers, body = responder.unavailable(environ(JSON), 3)
    assert status == "503 Service Unavailable"
    assert dict(headers)["Retry-After"] == "3"
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The service cannot answer right now. Try again in 3 seconds.",
        "retry_after": 3,
        "error": "service_unavailable",
        "message": "The service cannot answer right now. Try again in 3 seconds.",
    }
    status, headers, body = responder.forbidden(environ(JSON))
    assert status == "403 Forbidden"
    problem = json.loads(body)
    assert (problem["status"], problem["title"]) == (403, "Forbidden")
    assert "retry_after" not in problem


@pytest.mark.parametrize("status", ANSWERS)
@pytest.mark.parametrize("accept", CONTENT_TYPES)
def test_head_has_the_headers_of_get_but_for_the_bodys_length_and_no_body(
    status: str, accept: str
) -> None:
    responder = Responder(ResponseSettings())
    line, headers, body = ANSWERS[status](responder, environ(accept))
    assert body
    head = ANSWERS[status](responder, environ(accept, REQUEST_METHOD="HEAD"))
    told = [(name, value) for name, value in headers if name != "Content-Length"]
    assert head == (line, told, b"")


@pytest.mark.parametrize("style", HEADER_STYLES)
def test_the_configured_headers_are_there(style: str) -> None:
    headers = answer(JSON, settings=ResponseSettings(headers=style))[1]
    for name, choice in (("X-RateLimit-Limit", "x-ratelimit"), ("RateLimit", "ietf")):
        assert (name in dict(headers)) == (style in {choice, "both"})
    assert "Retry-After" in dict(headers)


def test_a_caller_may_change_the_headers_that_it_got() -> None:
    responder = Responder(ResponseSettings())
    for give in ANSWERS.values():
        first = give(responder, environ())[1]
        first.append(("X-Added", "1"))
        assert ("X-Added", "1") not in give(responder, environ())[1]


# --- the page -------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects the elements of a page, and checks that each of them is closed."""

    VOID = {"meta", "link", "br"}

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(body.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("status", ANSWERS)
def test_pages_have_a_language_a_title_and_a_viewport_and_load_nothing(status: str) -> None:
    body = ANSWERS[status](Responder(ResponseSettings()), environ(HTML))[2]
    page = Page(body)
    assert ("html", {"lang": "en"}) in page.elements
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == tags.count("title") == tags.count("main") == 1
    assert any(attributes.get("name") == "viewport" for _, attributes in page.elements)
    loaded = [
        value
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href"} and tag != "a"
    ]
    assert loaded == ["data:,"]
    assert b"url(" not in body
    assert b"@import" not in body


def test_the_script_is_the_same_on_every_page() -> None:
    """So that a Content-Security-Policy can allow it by its hash."""
    scripts = {
        re.findall(r"<script>(.*?)</script>", answer(HTML, refused(wait))[2].decode(), re.DOTALL)[0]
        for wait in (1_000, 2_000, NEVER_MS)
    }
    assert len(scripts) == 1


# --- templates ------------------------------------------------------------------------------------

FILLED = {
    "the three names": ("text", "$rule: $limit, $retry_after s", "login: 5 per minute, 41 s"),
    "in braces": ("text", "${retry_after}s", "41s"),
    "a dollar sign": ("text", "$$5, $$rule", "$5, $rule"),
    "what is no name stays": ("text", "$ $5 100$", "$ $5 100$"),
    "twice": ("text", "$rule$rule", "loginlogin"),
    "nothing to fill": ("text", "slow down", "slow down"),
    "no text": ("text", "", ""),
    "umlauts": ("html", "<p>Später: $rule", "<p>Später: login"),
    "braces and percent signs": ("html", "{} {0} %s $rule", "{} {0} %s login"),
    "a copy of ours in JSON": ("json", '{"wait": $retry_after}', '{"wait": 41}'),
}


@pytest.mark.parametrize(("kind", "template", "expected"), FILLED.values(), ids=FILLED)
def test_own_templates_are_filled(kind: str, template: str, expected: str) -> None:
    accept = {"html": HTML, "json": JSON, "text": TEXT}[kind]
    headers, body = answer(accept, settings=own(kind, template))[1:]
    assert body.decode() == expected
    assert dict(headers)["Content-Length"] == str(len(body))


def test_own_json_is_not_called_a_problem_but_other_answers_still_are() -> None:
    responder = Responder(own("json", '{"wait": $retry_after}'))
    given = responder.too_many_requests(environ(JSON), refused(), NOW_S)
    assert dict(given[1])["Content-Type"] == "application/json"
    assert dict(responder.forbidden(environ(JSON))[1])["Content-Type"] == CONTENT_TYPES[JSON]


ESCAPED = {
    "html": ('<p title="$rule">', '<p title="&lt;b&gt;&#x27;&amp;">'),
    "json": ('{"rule": "$rule"}', '{"rule": "<b>\'&"}'),
    "text": ("$rule", "<b>'&"),
}


@pytest.mark.parametrize("kind", ESCAPED)
def test_values_are_escaped(kind: str) -> None:
    template, expected = ESCAPED[kind]
    accept = {"html": HTML, "json": JSON, "text": TEXT}[kind]
    settings = own(kind, template)
    assert answer(accept, refused(policy="<b>'&"), settings)[2].decode() == expected


def test_a_rule_s_name_cannot_break_the_problem() -> None:
    name = "".join(map(chr, range(0x20, 0x7F))).replace('"', "").replace("\\", "")
    body = answer(JSON, refused(policy=name))[2]
    assert json.loads(body)["violated-policies"] == [name]


BAD_TEMPLATES = {
    "an unknown name": ("html", "a\n$retry", r'^line 2: "\$retry" is not known: use '),
    "an unknown name in braces": ("text", "${wait}", r"use \$retry_after, \$limit, \$rule, or"),
    "a script's own": ("html", "`${count}`", r"\$\$ for a dollar sign"),
    "no JSON": ("json", '{"a": $rule}', "it is not JSON"),
    "no JSON without a time": ("json", '{"a": 1$retry_after}', "^with .*null it is not"),
}


@pytest.mark.parametrize(("kind", "template", "message"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_bad_templates_say_what_would_be_right(kind: str, template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_body(kind, template)


NEVER = {
    "html": ("<p>$retry_after</p>", "<p></p>"),
    "json": ('{"wait": $retry_after}', '{"wait": null}'),
    "text": ("wait $retry_after", "wait "),
}


@pytest.mark.parametrize("kind", NEVER)
def test_own_templates_have_no_time_where_there_is_none(kind: str) -> None:
    template, expected = NEVER[kind]
    accept = {"html": HTML, "json": JSON, "text": TEXT}[kind]
    settings = own(kind, template)
    assert answer(accept, refused(NEVER_MS), settings)[2].decode() == expected


# --- browsers of other origins --------------------------------------------------------------------

APP = "https://app.example.com"


def cors(settings: ResponseSettings, **more: Any) -> dict[str, str]:
    headers = dict(answer(JSON, settings=settings, **more)[1])
    return {
        name.removeprefix("Access-Control-"): value
        for name, value in headers.items()
        if name.startswith("Access-Control-") or name == "Vary"
    }


EXPOSED = (
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    "RateLimit-Policy, RateLimit, Retry-After"
)


def test_without_cors_no_origin_may_read() -> None:
    assert cors(ResponseSettings(), HTTP_ORIGIN=APP) == {"Vary": "Accept"}


def test_a_listed_origin_may_read_our_headers() -> None:
    assert cors(ResponseSettings(cors=["https://x.example", APP]), HTTP_ORIGIN=APP) == {
        "Allow-Origin": APP,
        "Allow-Credentials": "true",
        "Expose-Headers": EXPOSED,
        "Vary": "Accept, Origin",
    }


@pytest.mark.parametrize("origin", ["https://evil.example", APP + ".evil.example", "null", ""])
def test_an_origin_that_is_not_listed_may_not(origin: str) -> None:
    assert cors(ResponseSettings(cors=[APP]), HTTP_ORIGIN=origin) == {"Vary": "Accept, Origin"}


def test_a_request_without_origin_says_that_others_may_differ() -> None:
    assert cors(ResponseSettings(cors=[APP])) == {"Vary": "Accept, Origin"}


@pytest.mark.parametrize("more", [{}, {"HTTP_ORIGIN": APP}], ids=["no origin", "some origin"])
@pytest.mark.parametrize("setting", ["*", ["*"]], ids=["text", "list"])
def test_any_origin_may_read_without_credentials(setting: Any, more: dict[str, str]) -> None:
    expected = {"Allow-Origin": "*", "Expose-Headers": EXPOSED, "Vary": "Accept"}
    assert cors(ResponseSettings(cors=setting), **more) == expected


def test_only_what_we_send_is_exposed() -> None:
    settings = ResponseSettings(headers="none", cors=[APP])
    assert cors(settings, HTTP_ORIGIN=APP)["Expose-Headers"] == "Retry-After"


# --- settings -------------------------------------------------------------------------------------

GOOD_ORIGINS = [
    APP,
    "http://localhost:3000",
    "http://[::1]:8080",
    "https://xn--bcher-kva.example",
    "chrome-extension://abcdefghijklmnop",
    "capacitor://localhost",
]


@pytest.mark.parametrize("origin", GOOD_ORIGINS)
def test_origins_are_accepted_as_browsers_send_them(origin: str) -> None:
    assert ResponseSettings(cors=[origin]).cors == (origin,)
    assert ResponseSettings(cors=origin).cors == (origin,)


BAD = {
    "headers": ({"headers": "x"}, "use one of x-ratelimit, ietf"),
    "a path": ({"cors": [APP + "/"]}, f'write "{APP}"'),
    "capitals": ({"cors": ["HTTPS://App.example.com"]}, f'write "{APP}"'),
    "the port that goes without saying": ({"cors": [APP + ":443"]}, f'write "{APP}"'),
    "no scheme": ({"cors": ["app.example.com"]}, f'write "{APP}"'),
    "a pattern": ({"cors": ["https://*.example.com"]}, f'write "{APP}"'),
    "null, which is any sandboxed page": ({"cors": ["null"]}, "is not an origin"),
    "nothing": ({"cors": [""]}, "is not an origin"),
    "a line break": ({"cors": [APP + "\n"]}, "is not an origin"),
    "any, and others": ({"cors": ["*", APP]}, "leave the others out"),
}


@pytest.mark.parametrize(("settings", "message"), BAD.values(), ids=BAD)
def test_bad_settings_say_what_would_be_right(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResponseSettings(**settings)


def test_settings_of_the_same_values_are_equal() -> None:
    assert ResponseSettings(cors=[APP]) == ResponseSettings(cors=(APP,))
    assert hash(ResponseSettings(cors=[APP])) == hash(ResponseSettings(cors=(APP,)))
