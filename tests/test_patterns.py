"""Path patterns: what they match, which one wins, and that no spelling of a path dodges them."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsgi_throttle.identity import canonical_path_value
from wsgi_throttle.rules.patterns import Entry, Pattern, matcher, why_slow_to_match
from wsgi_throttle.rules.readings import MAX_READINGS, readings


def winner(rules: list[str], request: str) -> str | None:
    """Which of the rules wins a request.

    :param rules: each is ``[METHOD,METHOD] /path``.
    :param request: ``METHOD /path``.
    """
    entries = []
    for index, rule in enumerate(rules):
        methods, _, path = rule.rpartition(" ")
        entries.append(Entry(Pattern.parse(path), tuple(filter(None, methods.split(","))), index))
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


ALTERNATIVES = ",".join(f"a{index}" for index in range(32))


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
        ("/a" * 101, "more than 100 segments"),
        (f"/<any({ALTERNATIVES}):a>-<any({ALTERNATIVES},last):b>", "1,056 combinations"),
        ("/<é>", "written as <name>"),
    ],
)
def test_what_is_no_pattern_is_refused_with_a_remedy(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        Pattern.parse(text)
    assert f'"{text}"' in str(caught.value)


UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


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
            "/report\n/\xff/../",
            ("/report\n/\ufffd/..", "/report/..", "/report", "/report\n"),
        ),
        (
            "/users/\xff/edit\n",
            ("/users/\ufffd/edit\n", "/users/edit", "/users/edit\n", "/users/\ufffd/edit"),
        ),
        (
            "/x/../lo\x80gin\n",
            ("/x/../lo\ufffdgin\n", "/x/../login", "/login", "/lo\ufffdgin\n"),
        ),
        ("/users/+5", ("/users/+5", "/users/5")),
        ("/users/005/", ("/users/005", "/users/5")),
        ("/users/-0/1_0", ("/users/-0/1_0", "/users/0/10")),
        ("/users/ +5", ("/users/ +5", "/users/+5", "/users/5")),
        ("/users/\xd9\xa5", ("/users/\u0665", "/users/5")),
        ("/users/+5.json", ("/users/+5.json", "/users/5.json")),
        ("/v/1.0/2026-01-05/a0", ("/v/1.0/2026-01-05/a0",)),
        (f"/x/{{{UUID.upper()}}}", (f"/x/{{{UUID.upper()}}}", f"/x/{UUID}")),
        (f"/x/{UUID.replace('-', '')}", (f"/x/{UUID.replace('-', '')}", f"/x/{UUID}")),
        (
            f"/x/{'1'.zfill(32)}",
            (f"/x/{'1'.zfill(32)}", "/x/1", "/x/00000000-0000-0000-0000-000000000001"),
        ),
        (
            f"//x/{'1'.zfill(32)}",
            (f"/x/{'1'.zfill(32)}", "/x/1", "/x/00000000-0000-0000-0000-000000000001"),
        ),
        (f"/x/urn:uuid:{UUID}", (f"/x/urn:uuid:{UUID}", f"/x/{UUID}")),
        # What a router makes of a number comes before what few make of the rest.
        ("/u/+5/\xff\n", ("/u/+5/\ufffd\n", "/u/5/\ufffd\n", "/u/+5", "/u/+5/\n")),
        ("/v1_2/login\n", ("/v1_2/login\n", "/v12/login\n", "/v1_2/login", "/v12/login")),
        ("/x/../v1_2/a", ("/x/../v1_2/a", "/x/../v12/a", "/v1_2/a", "/v12/a")),
        (
            "/+1 /\xff/../login",
            ("/+1 /\ufffd/../login", "/1/\ufffd/../login", "/+1/../login", "/+1/login"),
        ),
    ],
)
def test_a_path_is_matched_in_every_form_that_an_application_may_see(
    path_info: str, expected: tuple[str, ...]
) -> None:
    assert readings(path_info).all == expected


@given(st.text("0159+-_ \n\u0665\uff10\u2003", max_size=8))
@example("0" * 9)
@example("-0_0")
def test_what_int_reads_is_matched_as_its_number_too(text: str) -> None:
    try:
        number = int(text)
    except ValueError:
        return
    assert f"/u/{number}" in readings("/u/" + text.encode().decode("latin-1")).all
    assert canonical_path_value(text) == str(number)


UUID_PIECES = ["{", "}", "-", "urn:", "uuid:", "+", "0x", "_", "A", UUID[:8], UUID[9:13], UUID[14:]]


@given(st.lists(st.sampled_from(UUID_PIECES), max_size=8).map("".join))
@example(f"{{urn:uuid:{UUID}}}")
@example("-" * 40 + UUID)
@example(f"0x{UUID[2:]}")
@example("+1234567-89ab-cdef-0123-456789abcdef")
@example("1_234567-89ab-cdef-0123-456789abcdef")
@example("{-+" + "12345678" * 3 + "9abcdef}")
def test_what_uuid_reads_is_matched_as_its_uuid_too(text: str) -> None:
    try:
        identifier = uuid.UUID(text)
    except ValueError:
        return
    assert f"/u/{identifier}" in readings(f"/u/{text}").all
    assert canonical_path_value(text) == str(identifier)


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
    found = readings(path_info).all
    assert found[0] == written
    assert len(found) == len(set(found)) <= MAX_READINGS
    assert {stripped(valid), resolved(written)} <= {*found}
    if not dots(stripped(valid)):
        assert {valid, stripped(written)} <= {*found}
    if valid == written and dots(written) == dots(stripped(written)):
        assert stripped(resolved(written)) in found
    if stripped(valid) == valid and valid.count("/") == written.count("/"):
        assert resolved(valid) in found


@given(st.text(max_size=60))
@example("/a\n")
@example("/\n")
@example("\x00")
@example("/..")
@example("/%2e%2e/|")
def test_no_path_escapes_a_pattern_for_everything(path_info: str) -> None:
    everything = matcher([Entry(Pattern.parse("/**"), (), 7)])
    for path in readings(path_info).all:
        assert everything.match("GET", path) is not None


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "a.b"]), max_size=8))
def test_no_spelling_of_a_path_below_a_folder_escapes_its_pattern(segments: list[str]) -> None:
    found = matcher([Entry(Pattern.parse("/a/**"), (), 1), Entry(Pattern.parse("/**"), (), 0)])
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            del resolved[-1:]
        elif segment not in ("", "."):
            resolved.append(segment)
    winners = {found.match("GET", path)[0] for path in readings("/" + "/".join(segments)).all}  # type: ignore[index]
    if resolved[:1] == ["a"]:
        assert 1 in winners


def test_more_partial_segments_under_a_node_than_werkzeug_matches_fast_are_told() -> None:
    assert why_slow_to_match([Pattern.parse(f"/item-{index}-<x>") for index in range(64)]) is None
    assert "slow" in (
        why_slow_to_match([Pattern.parse(f"/item-{index}-<x>") for index in range(65)]) or ""
    )


def test_a_part_may_have_a_thousand_combinations_of_alternatives() -> None:
    lists = [",".join(f"{letter}{index}" for index in range(10)) for letter in "abc"]
    text = "/" + "-".join(f"<any({one}):{one[0]}>" for one in lists)
    found = matcher([Entry(Pattern.parse(text), (), 0)]).match("GET", "/a3-b9-c0")
    assert found == (0, {"a": "a3", "b": "b9", "c": "c0"})


def test_the_deepest_pattern_is_matched() -> None:
    found = matcher([Entry(Pattern.parse("/a" * 99 + "/<x>"), (), 0)])
    assert found.match("GET", "/a" * 99 + "/b") == (0, {"x": "b"})


def test_different_segments_may_be_more_than_the_cache_of_re_holds() -> None:
    patterns = [Pattern.parse(f"/{index}/a{index}-<x>") for index in range(600)]
    found = matcher([Entry(pattern, (), index) for index, pattern in enumerate(patterns)])
    assert why_slow_to_match(patterns) is None
    re.purge()
    assert found.match("GET", "/599/a599-b") == (599, {"x": "b"})
    assert not re._cache  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["/<any(k{}):x>/y", "/<path:x>/e{}"])
def test_other_variables_that_are_tried_one_by_one_are_counted_too(text: str) -> None:
    assert "slow" in (
        why_slow_to_match(Pattern.parse(text.format(index)) for index in range(65)) or ""
    )


def test_alternatives_between_variables_are_counted_over_all_siblings() -> None:
    def reason(count: int, text: str) -> str:
        alternatives = ",".join(f"k{index}" for index in range(count))
        texts = (text.format(index, alternatives) for index in range(20))
        return why_slow_to_match(map(Pattern.parse, texts)) or ""

    assert not reason(50, "/<a>-{}-<any({}):k>-<b>")
    assert "1,020 combinations" in reason(51, "/<a>-{}-<any({}):k>-<b>")
    assert not reason(51, "/<a>-{}-<any({}):k>")


def test_whole_segment_variables_may_be_as_many_as_one_likes() -> None:
    assert why_slow_to_match(Pattern.parse(f"/{index}/<x>") for index in range(10_000)) is None
