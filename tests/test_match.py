"""Compares the matching tree with Werkzeug's: which rule wins, the values of its variables; how
fast."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map, Rule

from support.bytecodes import bytecodes
from wsgi_throttle.rules.converters import CONVERTERS
from wsgi_throttle.rules.match import Matcher, Route
from wsgi_throttle.rules.parts import compile_part

TEXTS = ("a", "a", "b", "-", "1", "a-", "-1", ".", "aa", "1-1", "(+", "ü", "\\\n")
VALUES = {
    "": ("a", "b", "a-", "a-a", "-", "1", "1.5", "\n", "ü", "a.b", "aa", "0" * 8),
    "default": ("a", "b"),
    "string": ("a", "-1-", "a\n"),
    "string(minlength=1)": ("a", "1"),
    "string(minlength=0)": ("", "a", "-"),
    "string(length=2)": ("a", "aa", "a-", "-a-"),
    "string(minlength=2,maxlength=3)": ("a", "a-", "a-a", "aaaa"),
    "any(b,aa,a,'a-')": ("a", "aa", "a-", "b", "c", ""),
    "any('-','1','-1-','1-1',a)": ("-", "1", "-1-", "1-1", "a"),
    "any('a-','-',a,ü,'1')": ("a-", "-", "a", "ü", "1", "x"),
    "any('')": ("", "a"),
    "any()": ("", "a"),
    "any(a,a)": ("a", "b"),
    "int": ("1", "11", "\u0665", "-1", "1.5", "1\u06611", "²", ""),
    "int(signed=True)": ("1", "-1", "--1", "-\u0665", "-", "11"),
    "float": ("1.5", "1", "11.11", "1.", ".5", "1.1.1", "\u0665.\u0665"),
    "float(signed=True)": ("1.5", "-1.5", "--1.5", "-1", "1-1.1", "11.11"),
    "uuid": (
        "00000000-0000-4000-8000-00000000000A",
        "00000000-0000-4000-8000-00000000000",
        "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
        "0",
    ),
    "path": ("a", "a/a", "a\n/b", "a//b", "/a", "a/", "/", "", "a-1/b-1", "a/a-a/1.5", "-"),
}
"""Converter, as a rule writes it -> texts, most of which it accepts."""

SPELLINGS = {"": "string", "default": "string", "string(minlength=1)": "string"}
"""Converters that mean the same to Werkzeug, in several spellings -> one of them."""

METHODS = ("GET", "HEAD", "POST")
PAIRS = 51_000
PATHS_PER_TABLE = 200

AS_TEXT = {
    name: type(f"Text{one.__name__}", (one,), {"to_python": BaseConverter.to_python})
    for name, one in CONVERTERS.items()
}
"""Converters that convert nothing: a value is the text of the path."""


class Entry(NamedTuple):
    segments: list[list[tuple[str, str]]]
    """Lists of (``text`` or ``variable``, the text or the converter)."""
    ending: str
    methods: tuple[str, ...]

    @property
    def rule(self) -> str:
        names = iter("abcdefghijklmnopqrstuvwxy")
        return (
            "".join(
                "/"
                + "".join(
                    (f"<{one}:{next(names)}>" if one else f"<{next(names)}>")
                    if kind == "variable"
                    else one
                    for kind, one in segment
                )
                for segment in self.segments
            )
            + self.ending
        )

    @property
    def signature(self) -> str:
        """Equal for two rules that mean the same to Werkzeug."""
        return re.sub(
            r"<(?:([^:>]*):)?\w+>",
            lambda match: f"<{SPELLINGS.get(match[1] or '', match[1])}>",
            self.rule,
        )


UNBOUNDED = [converter for converter in VALUES if not converter.startswith(("any", "uuid"))]
BOUNDED = ["any(b,aa,a,'a-')", "any('a-','-',a,ü,'1')", "any('-','1','-1-','1-1',a)", "uuid"]


def random_segment(rng: random.Random) -> list[tuple[str, str]]:
    """A segment of texts and variables by turns. At most two variables accept texts of any
    length."""
    length = rng.choice((1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 7, 9))
    at_variable = rng.random() < (0.4 if length == 1 else 0.6)
    unbounded = 0
    segment: list[tuple[str, str]] = []
    for _ in range(length):
        if at_variable:
            is_bounded = unbounded == 2 or rng.random() < 0.3
            unbounded += not is_bounded
            converters = BOUNDED if is_bounded else UNBOUNDED
            converter = rng.choice(converters if length > 1 else list(VALUES))
            segment.append(("variable", converter))
        else:
            segment.append(("text", rng.choice(TEXTS)))
        at_variable = not at_variable
    return segment


def is_allowed(segments: list[list[tuple[str, str]]]) -> bool:
    """Whether a pattern may have these segments: a part (a segment, or all from a path variable on)
    has two variables of any length and 1,000 combinations of alternatives at most."""
    converters = [[one for kind, one in segment if kind == "variable"] for segment in segments]
    first = next((index for index, found in enumerate(converters) if "path" in found), None)
    if first is not None:
        converters[first:] = [[one for found in converters[first:] for one in found]]
    for part in converters:
        unbounded = [one for one in part if one in UNBOUNDED]
        # None has more than five alternatives. Werkzeug 3.2 orders the variables of a part by their
        # number as text: 10 before 2.
        too_many = sum(one.startswith("any") for one in part) > 4 or len(part) > 9
        if len(unbounded) > 2 or part.count("path") > 1 or too_many:
            return False
    return True


def random_table(rng: random.Random) -> list[Entry]:
    """Random rules of a few segments, so that many of them match the same path."""
    pool = [random_segment(rng) for _ in range(rng.randint(2, 6))]
    table: list[Entry] = []
    size = rng.randint(1, 10)
    while len(table) < size:
        segments = [rng.choice(pool) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        if rng.random() < 0.2:  # a rule of nearly equal weight beside it
            segments[-1] = random_segment(rng)
        if not is_allowed(segments):
            pool.append(random_segment(rng))
            continue
        has_path = any(one == "path" for segment in segments for _, one in segment)
        endings = ("", "", "", "/") if has_path else ("", "", "", "/", "/<path:z>", "/<path:z>/")
        methods = rng.choice(((), (), (), ("GET",), ("HEAD", "POST"), ("POST", "GET")))
        table.append(Entry(segments, rng.choice(endings), methods))
    return table


def random_value(rng: random.Random, converter: str) -> str:
    """A text that the converter may accept, or that looks like the text beside it."""
    kind = rng.random()
    if kind < 0.7 or converter not in UNBOUNDED:
        return rng.choice(VALUES[converter])
    if kind < 0.8:
        return rng.choice(TEXTS)
    return "".join(rng.choices("a-1./" if converter == "path" else "a-1.", k=rng.randint(1, 8)))


def random_path(rng: random.Random, table: list[Entry]) -> str:
    """A path that one of the rules matches, or nearly matches."""
    entry = rng.choice(table)
    parts = [
        "".join(random_value(rng, one) if kind == "variable" else one for kind, one in segment)
        for segment in entry.segments
    ]
    if rng.random() < 0.15:  # near misses
        index = rng.randrange(len(parts))
        place = rng.randint(0, len(parts[index]))
        parts[index] = parts[index][:place] + rng.choice(TEXTS) + parts[index][place:]
    if rng.random() < 0.1:
        parts.insert(rng.randint(0, len(parts)), rng.choice(("", *TEXTS)))
    if entry.ending.startswith("/<path"):
        parts.append(rng.choice(VALUES["path"]))
    parts += rng.choice(((), (), (), ("",), ("a",), ("a", "\n"), ("a", ""), ("", "")))
    return rng.choice(("/", "/", "/", "/", "//", "")) + "/".join(parts)


def oracle(table: list[Entry]) -> Map:
    """Werkzeug's own tree of these rules. A rule that equals an earlier one has only the methods
    that the earlier one has not, since Werkzeug 3.2 refuses others."""
    tree = Map(converters=AS_TEXT, strict_slashes=False, merge_slashes=False)
    taken: dict[str, set[str]] = {}
    for index, entry in enumerate(table):
        before = taken.setdefault(entry.signature, set())
        methods = set(entry.methods or METHODS) - before
        if methods:
            before |= methods
            rule = Rule(entry.rule, endpoint=index)
            rule.methods = methods  # the constructor would add HEAD to GET
            tree.add(rule)
    return tree


@pytest.mark.parametrize("seed", [1, random.SystemRandom().getrandbits(32)], ids=["1", "random"])
def test_what_wins_and_its_variables_are_what_werkzeug_finds(seed: int) -> None:
    print(f"seed {seed}")  # shown if the test fails
    rng = random.Random(seed)
    pairs = hits = splits = 0
    while pairs < PAIRS:
        table = random_table(rng)
        ours = Matcher(
            (Route.parse(one.rule), one.methods, None, index) for index, one in enumerate(table)
        )
        theirs = oracle(table).bind("")
        for _ in range(PATHS_PER_TABLE):
            path, method = random_path(rng, table), rng.choice(METHODS)
            try:
                expected = theirs.match(path, method)
            except HTTPException:
                expected = None
            found = ours.match(method, path)
            assert found == expected, ([one.rule for one in table], method, path)
            pairs += 1
            hits += expected is not None
            splits += expected is not None and len(expected[1]) > 1
    assert hits > PAIRS / 6
    assert splits > PAIRS / 20


@pytest.mark.parametrize(
    ("rule", "alphabet"),
    [
        ("/<p>-<q>", "a-"),
        ("/<int:p>1<int:q>a", "1a"),
        ("/<int(signed=True):p>-<int(signed=True):q>", "1-"),
        ("/<float:p>.<float:q>", "1.a"),
        ("/<float(signed=True):p>-<float(signed=True):q>", "1.-"),
        ("/<string(minlength=0):p>-<string(length=2):q>", "a-"),
        ("/<string(maxlength=2):p>a<string(minlength=2,maxlength=3):q>", "a-"),
        ("/<path:p>-<int:q>-<any('1','1-1'):r>", "1-a"),
        ("/<path:p>-<q>-<any('1','1-1'):r>", "1-/"),
        ("/<path:p>-<any('1-','-',''):q>1<r>/", "1-/"),
        ("/<path:p>/<int:q>/", "1a/"),
        ("/<p>-<path:q>-<any(a,'a-a'):r>", "a-/"),
        ("/<int:p>1<path:q>", "1/a"),
        ("/<p>-<path:q>a-a", "a-"),
        ("/<int:p>-<any('','-1'):q>-<int:r>-<any('1','1-1'):s>", "1-"),
        ("/<p>-<any(b,a):q>-<path:r>a-a-a", "a-"),
        ("/<any(a,'a-',''):p>-<q>-<any('-a',a):r>-<s>", "a-"),
        ("/<p>-<any('a-a','-',a,'a-'):q>-<r>", "a-"),
        ("/<any(b,aa,a):p>a<any(a,aa):q>", "ab"),
        ("/<any(aa,a):p>a<q>a<any(aa,a):r>", "a-"),
    ],
)
def test_every_short_text_is_split_as_werkzeug_splits_it(rule: str, alphabet: str) -> None:
    ours = Matcher([(Route.parse(rule), (), None, 0)])
    tree = Map(converters=AS_TEXT, strict_slashes=False, merge_slashes=False)
    tree.add(Rule(rule, endpoint=0))
    theirs = tree.bind("")
    for length in range(11 if len(alphabet) == 2 else 8):
        for letters in product(alphabet, repeat=length):
            path = f"/{''.join(letters)}"
            try:
                expected = theirs.match(path, "GET")
            except HTTPException:
                expected = None
            assert ours.match("GET", path) == expected, path


SIBLINGS = 64
LENGTH = 8_192
UUID = "00000000-0000-4000-8000-000000000000"
FITTING = {
    "string": "a",
    "string(minlength=0)": "a",
    "string(length=2)": "aa",
    "any(a,aa,a1)": "a",
    "int": "1",
    "int(signed=True)": "-1",
    "float": "1.1",
    "float(signed=True)": "-1.1",
    "uuid": UUID,
    "path": "a",
}
"""Converter -> the shortest text that it accepts."""
PAIRS_OF_CONVERTERS = [pair for pair in product(FITTING, repeat=2) if pair != ("path", "path")]


def long_paths(first: str, separator: str, second: str) -> Iterator[str]:
    """Texts that ``<first>separator<second>yyy`` accepts, nearly accepts, and does not accept."""
    begin, end = FITTING[first], FITTING[second]
    for filling in (separator, f"1{separator}", "a/"):
        long = (filling * LENGTH)[:LENGTH]
        for text in (long, begin + separator + long, begin + long + separator + end):
            yield f"/{text}{'y' * SIBLINGS}"


@pytest.mark.parametrize("separator", ["1", "."])
def test_a_long_path_takes_no_more_steps_than_a_short_one(separator: str) -> None:
    """Steps are bytecodes of Python: time in functions written in C is the next test's matter."""
    for first, second in PAIRS_OF_CONVERTERS:
        rules = [f"/<{first}:p>{separator}<{second}:q>" + "y" * k for k in range(1, SIBLINGS + 1)]
        found = Matcher((Route.parse(rule), (), None, index) for index, rule in enumerate(rules))
        for path in long_paths(first, separator, second):
            taken = bytecodes(partial(found.match, "GET", path))
            # fewer than one for 16 characters
            assert taken / SIBLINGS < LENGTH / 16, (rules[0], path[:80])


def test_a_path_is_split_no_deeper_than_the_rules() -> None:
    matcher = Matcher(
        [(Route.parse(rule), (), None, 0) for rule in ("/ab/<name>/cd", "/ab/<path:rest>")]
    )
    path = "/ab" * (LENGTH // 3)
    tracemalloc.start()
    try:
        assert matcher.match("GET", path) == (0, {"rest": path.removeprefix("/ab/")})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * LENGTH  # a split at every slash would take 16 times as much


def test_no_regular_expression_can_match_a_text_in_two_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So backtracking takes no longer than the length of the text. Each regular expression is for
    one variable. If it has two repetitions, the first can end only at the point between them."""
    compiled: set[str] = set()

    def recording(regex: str, compiled_by: Callable[[str], re.Pattern[str]] = re.compile) -> object:
        compiled.add(regex)
        return compiled_by(regex)

    rules = [f"/a<{first}:p>-<{second}:q>b" for first, second in PAIRS_OF_CONVERTERS]
    rules += [f"/a-<{one}:p>" for one in FITTING]
    compile_part.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(re, "compile", recording)
        Matcher((Route.parse(rule), (), None, index) for index, rule in enumerate(rules))
    one_way = re.compile(r"\[\^/\]\{\d*,?\}|\\d\+(\\\.\\d\+)?")
    for regex in compiled - {CONVERTERS["uuid"].regex, "(?s:[^/].*)"}:
        shortest, longest = re.fullmatch(r"(?:\(\?=\((.*)\?\)\))?(.*)", regex).groups()  # type: ignore[union-attr]
        for part in filter(None, (shortest, longest)):
            assert one_way.fullmatch(part.removeprefix("-?").removesuffix("-?")), regex
    assert len(compiled) == 18
