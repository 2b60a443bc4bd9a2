"""Path patterns: what they accept, which wins, and that no spelling dodges them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from wsgi_throttle.rules.patterns import (
    CONVERTERS,
    MAX_FORMS,
    Matcher,
    Pattern,
    forms,
    matcher,
    too_many,
)


def winner(rules: list[str], request: str) -> str | None:
    """Which of the rules, each ``[METHOD,METHOD] /path``, takes the request ``METHOD /path``."""
    entries = []
    for index, rule in enumerate(rules):
        methods, _, path = rule.rpartition(" ")
        entries.append((Pattern.parse(path), tuple(filter(None, methods.split(","))), index))
    method, _, path = request.partition(" ")
    found = matcher(entries).match(method, path)
    return rules[found[0]] if found else None


@pytest.mark.parametrize(
    ("rules", "request_line", "expected"),
    [
        (["/a"], "GET /a", "/a"),
        (["/a"], "GET /b", None),
        (["/a/<x>", "/a/b"], "GET /a/b", "/a/b"),
        (["/a/<path:x>", "/a/<x>"], "GET /a/b", "/a/<x>"),
        (["/a/<x>", "/a/<int:x>"], "GET /a/1", "/a/<int:x>"),
        (["/a/<x>", "/a/<int:x>"], "GET /a/one", "/a/<x>"),
        (["/**", "/a/**", "/a/b/**"], "GET /a/b/c", "/a/b/**"),
        (["/a/**", "/a"], "GET /a", "/a"),
        (["/a/**"], "GET /a", "/a/**"),
        (["/a/**"], "GET /ab", None),
        (["/*/b"], "GET /a/b", "/*/b"),
        (["/*/b"], "GET /a/c/b", None),
        (["/*"], "GET /", None),
        (["/**"], "GET /", "/**"),
        (["/**"], "GET /x\ny/\r\n", "/**"),
        (["/f/<path:p>"], "GET /f/a\nb/c", "/f/<path:p>"),
        (["/f/<path:p>/edit"], "GET /f/a/b/edit", "/f/<path:p>/edit"),
        (["/<any(a,b):kind>/x"], "GET /b/x", "/<any(a,b):kind>/x"),
        (["/<any(a,b):kind>/x"], "GET /c/x", None),
        (["/<uuid:x>"], "GET /00000000-0000-4000-8000-000000000000", "/<uuid:x>"),
        (["/<int:x>"], f"GET /{'9' * 5000}", "/<int:x>"),
        (["/<float:x>"], "GET /1.5", "/<float:x>"),
        (["/<int(signed=True):x>"], "GET /-1", "/<int(signed=True):x>"),
        (["/v<int:major>.<int:minor>"], "GET /v1.2", "/v<int:major>.<int:minor>"),
        (["POST /a", "/**"], "GET /a", "/**"),
        (["/a", "POST /a"], "POST /a", "POST /a"),
        (["/a", "POST /a"], "GET /a", "/a"),
        (["GET /a", "HEAD /a"], "HEAD /a", "HEAD /a"),
        (["GET,POST /a", "HEAD,POST /a"], "HEAD /a", "HEAD,POST /a"),
        (["GET,POST /a", "HEAD,POST /a"], "POST /a", "GET,POST /a"),
        (["GET /a", "/a"], "HEAD /a", "GET /a"),
        (["POST /a/**", "/a"], "POST /a", "/a"),
        (["/a/<x>", "/a/<any(b,c):y>"], "GET /a/b", "/a/<x>"),
        (["/a.b"], "GET /axb", None),
        (["/a+<x>"], "GET /a+1", "/a+<x>"),
        (["/grüße"], "GET /grüße", "/grüße"),
        (["/a-<x>/b", "/a<x>/c", "/<x>/d"], "GET /a-1/b", "/a-<x>/b"),
        (["/a-<x>/b", "/a<x>/c", "/<x>/d"], "GET /a-1/c", "/a<x>/c"),
        (["/a-<x>/b", "/a<x>/c", "/<x>/d"], "GET /a-1/d", "/<x>/d"),
        (["/a-<x>/b", "/a<x>/c", "/<x>/d"], "GET /a-/d", "/<x>/d"),
        (["POST /a", "/<x>"], "GET /a", "/<x>"),
    ],
)
def test_the_most_specific_pattern_whose_method_fits_wins(
    rules: list[str], request_line: str, expected: str | None
) -> None:
    assert winner(rules, request_line) == expected


TEXTS = ("a", "a-", "(+", "\\\n")
VALUES = {
    "string": ("a", "a-", "a-a", "\n", "ü", "1", ""),
    "string(minlength=0)": ("", "a"),
    "any(a,ü)": ("a", "ü", "b"),
    "int": ("1", "\u0665", "-1"),
    "float": ("1.5", "1"),
    "uuid": ("00000000-0000-4000-8000-00000000000A", "0"),
    "path": ("a", "a/a", "a\n/b", "a//b", "/a", "a/", "/", ""),
}
"""Converter -> texts, most of which it fits."""
ENDINGS = ("", "", "/", "/<path:rest>", "/<path:rest>/")

_texts, _converters = st.sampled_from(TEXTS), st.sampled_from(list(VALUES))
SEGMENTS: st.SearchStrategy[tuple[str, ...]] = st.one_of(
    st.tuples(_texts),
    st.tuples(_converters),
    st.tuples(_texts, _converters),
    st.tuples(_converters, _texts),
    st.tuples(_texts, _converters, _texts),
    st.tuples(_converters, _texts, _converters),
)
"""Each of texts and converters."""


class Table(NamedTuple):
    rules: list[tuple[str, tuple[str, ...], int]]
    path: str


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Rules made of a few segments, and a path that one of them nearly fits."""
    pool = st.sampled_from(draw(st.lists(SEGMENTS, min_size=2, max_size=6)))
    table = draw(st.lists(st.lists(pool, min_size=1, max_size=3), min_size=2, max_size=8))
    rules: list[tuple[str, tuple[str, ...], int]] = []
    for segments in table:
        names = iter("pqrstu")
        text = "".join(
            "/" + "".join(f"<{piece}:{next(names)}>" if piece in VALUES else piece for piece in one)
            for one in segments
        )
        methods = draw(st.sampled_from([(), (), ("GET",), ("HEAD", "POST")]))
        rules.append((text + draw(st.sampled_from(ENDINGS)), methods, len(rules)))
    parts = [
        "".join(draw(st.sampled_from(VALUES[piece])) if piece in VALUES else piece for piece in one)
        for one in draw(st.sampled_from(table))
    ]
    parts += draw(st.sampled_from([[], [], [""], ["a"], ["a", "\n"], ["a", ""], ["", ""]]))
    slashes = draw(st.sampled_from(["/", "/", "/", "//", ""]))
    return Table(rules, slashes + "/".join(parts))


@settings(max_examples=500)
@given(tables(), st.sampled_from(["GET", "HEAD"]))
@example(Table([("/<string(minlength=0):p>", (), 0), ("/a", (), 1)], ""), "GET")
@example(Table([("/", (), 0)], ""), "GET")
def test_what_wins_and_its_variables_are_what_werkzeug_itself_finds(
    table: Table, method: str
) -> None:
    theirs = Map(converters=CONVERTERS, strict_slashes=False, merge_slashes=False)
    for text, methods, endpoint in table.rules:
        rule = Rule(text, endpoint=endpoint)
        rule.methods = set(methods) or None
        theirs.add(rule)
    try:
        expected = theirs.bind("").match(table.path, method)
    except HTTPException:
        expected = None
    assert Matcher(table.rules).match(method, table.path) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("login", "begins with a slash"),
        ("/a*", "whole segment"),
        ("/**/a", "whole segment"),
        ("/a/***", "whole segment"),
        ("/<a>/<a>", "twice"),
        ("/<foo:x>", "is not known"),
        ("/<int:x", "written as <name>"),
        ("/x>", "written as <name>"),
        ("/<>", "written as <name>"),
        ("/<int(min=1):x>", "let other numbers escape"),
        ("/<int(fixed_digits=4):x>", "let other numbers escape"),
        ("/<float(max=4):x>", "let other numbers escape"),
        ("/<string(size=2):x>", "size"),
        ("/<path:a>/<path:b>", "in two places"),
        ("/<path:a>/**", "in two places"),
        ("/<a>-<b>-<c>", "which is slow"),
        ("/<int:a>-<int:b>.<int:c>", "which is slow"),
        ("/r/<path:repo>/<a>..<b>", "which is slow"),
        ("/<path:a>-<b>/<c>", "which is slow"),
        ("/<int:a><int:b>", "side by side"),
        ("/users/{id}", "written as <name>"),
        ("/users/:id", "written as <name>"),
        ("/<string(minlength=99999999999):a>", "not a path pattern"),
        ("/a?b=1", "without its query"),
        ("/a%20b", "decoded"),
        ("/a/../b", "write the path that it leads to"),
    ],
)
def test_what_is_no_pattern_is_refused_with_a_remedy(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        Pattern.parse(text)
    assert f'"{text}"' in str(caught.value)


@pytest.mark.parametrize(
    ("path_info", "expected"),
    [
        ("/login", ("/login",)),
        ("//login", ("/login",)),
        ("/login/", ("/login",)),
        ("/login///", ("/login",)),
        ("login", ("/login",)),
        ("", ("/",)),
        ("/./login", ("/./login", "/login")),
        ("/x/../login", ("/x/../login", "/login")),
        ("/login/.", ("/login/.", "/login")),
        ("/../../login", ("/../../login", "/login")),
        ("/api/expensive/../../health", ("/api/expensive/../../health", "/health")),
        ("/.well-known/x", ("/.well-known/x",)),
        ("/gr\xc3\xbc\xc3\x9fe", ("/grüße",)),
        ("/\u4e2d", ("/?",)),
        ("/a b", ("/a b",)),
        ("/\xff", ("/\ufffd", "/")),
        ("/\xef\xbf\xbd", ("/\ufffd",)),
        ("/login\xff", ("/login\ufffd", "/login")),
        ("/lo\x80gin", ("/lo\ufffdgin", "/login")),
        ("/users/5/\xf0\x9fedit", ("/users/5/\ufffdedit", "/users/5/edit")),
        ("/login\n", ("/login\n", "/login")),
        ("/login/\n", ("/login/\n", "/login")),
        ("/login\n/", ("/login\n", "/login")),
        ("/ /login", ("/ /login", "/login")),
        ("/\tusers\x00/ 5\x7f", ("/\tusers\x00/ 5\x7f", "/users/5")),
        ("/login\xc2\xa0", ("/login\xa0", "/login")),
        ("/login\xe2\x80\x83", ("/login\u2003", "/login")),
        ("/x/../login\n", ("/x/../login\n", "/x/../login", "/login", "/login\n")),
        ("/x/.. /login", ("/x/.. /login", "/x/../login", "/login")),
        ("/a/ /../login", ("/a/ /../login", "/a/../login", "/a/login", "/login")),
        (
            "/users/\xff/edit\n",
            ("/users/\ufffd/edit\n", "/users/edit", "/users/edit\n", "/users/\ufffd/edit"),
        ),
        (
            "/x/../lo\x80gin\n",
            ("/x/../lo\ufffdgin\n", "/x/../login", "/login", "/lo\ufffdgin\n"),
        ),
    ],
)
def test_a_path_is_matched_in_every_form_that_an_application_may_see(
    path_info: str, expected: tuple[str, ...]
) -> None:
    assert forms(path_info) == expected


PIECES = ["a", "b", "/", ".", "..", "/../", " ", "\n", "\x00", "\xff", "\xe2\x80\x83", "\xc3\xbc"]


def slashed(segments: list[str]) -> str:
    return "/" + "/".join(segment for segment in segments if segment)


def stripped(path: str) -> str:
    return slashed([segment.strip(" \n\0\u2003") for segment in path.split("/")])


def resolved(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    return slashed(kept)


def dots(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment in (".", "..")]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("/a/\xff/../b/ \n/..\n/a\xff")
@example("/../. ")
def test_a_path_is_matched_by_the_changes_that_a_router_may_make_to_it(path_info: str) -> None:
    raw = path_info.encode("latin-1")
    written = slashed(raw.decode(errors="replace").split("/"))
    valid = slashed(raw.decode(errors="ignore").split("/"))
    found = forms(path_info)
    assert found[0] == written
    assert len(found) == len(set(found)) <= MAX_FORMS
    assert {stripped(valid), resolved(written)} <= {*found}
    if not dots(stripped(valid)):
        assert {valid, stripped(written)} <= {*found}
    if valid == written and dots(written) == dots(stripped(written)):
        assert stripped(resolved(written)) in found
    if stripped(valid) == valid:
        assert resolved(valid) in found


@given(st.text(max_size=60))
@example("/a\n")
@example("/\n")
@example("\x00")
@example("/..")
@example("/%2e%2e/|")
def test_no_path_escapes_a_pattern_for_everything(path_info: str) -> None:
    everything = matcher([(Pattern.parse("/**"), (), 7)])
    for path in forms(path_info):
        assert everything.match("GET", path) is not None


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "a.b"]), max_size=8))
def test_no_spelling_of_a_path_below_a_folder_escapes_its_pattern(segments: list[str]) -> None:
    found = matcher([(Pattern.parse("/a/**"), (), 1), (Pattern.parse("/**"), (), 0)])
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            del resolved[-1:]
        elif segment not in ("", "."):
            resolved.append(segment)
    winners = {found.match("GET", path)[0] for path in forms("/" + "/".join(segments))}  # type: ignore[index]
    if resolved[:1] == ["a"]:
        assert 1 in winners


def test_more_partial_segments_under_a_node_than_werkzeug_matches_fast_are_told() -> None:
    assert too_many([Pattern.parse(f"/item-{index}-<x>") for index in range(64)]) is None
    assert "slow" in (too_many([Pattern.parse(f"/item-{index}-<x>") for index in range(65)]) or "")


def test_of_many_siblings_only_those_that_begin_as_the_segment_does_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def counting(regex: str, compiled: Callable[[str], re.Pattern[str]] = re.compile) -> object:
        class Counting:
            def match(self, text: str, start: int) -> re.Match[str] | None:
                tried.append(text[:start])
                return compiled(regex).match(text, start)

        return Counting()

    texts = [*(f"/item-{index}-<int:x>" for index in range(61)), "/item-<int:x>", "/i<x>", "/<y>"]
    patterns = [Pattern.parse(text) for text in texts]
    with monkeypatch.context() as patch:
        patch.setattr(re, "compile", counting)
        found = matcher([(pattern, (), index) for index, pattern in enumerate(patterns)])
    for path, expected, begins in [
        ("/item-60-5", (60, {"x": "5"}), ["item-60-"]),
        ("/item-6-a", (62, {"x": "tem-6-a"}), ["item-6-", "item-", "i"]),
        ("/item-6", (61, {"x": "6"}), ["item-"]),
        ("/other", (63, {"y": "other"}), [""]),
    ]:
        tried.clear()
        assert found.match("GET", path) == expected
        assert tried == begins


def test_different_segments_may_be_more_than_the_cache_of_re_holds() -> None:
    patterns = [Pattern.parse(f"/{index}/a{index}-<x>") for index in range(600)]
    found = matcher([(pattern, (), index) for index, pattern in enumerate(patterns)])
    assert too_many(patterns) is None
    re.purge()
    assert found.match("GET", "/599/a599-b") == (599, {"x": "b"})
    assert not re._cache  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["/<any(k{}):x>/y", "/<path:x>/e{}"])
def test_other_variables_that_are_tried_one_by_one_are_counted_too(text: str) -> None:
    assert "slow" in (too_many(Pattern.parse(text.format(index)) for index in range(65)) or "")


def test_whole_segment_variables_may_be_as_many_as_one_likes() -> None:
    assert too_many(Pattern.parse(f"/{index}/<x>") for index in range(10_000)) is None
