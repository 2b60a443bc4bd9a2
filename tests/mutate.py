"""Change the arithmetic, one token at a time, and list what no test notices.

    python -m tests.mutate [--sample N] [PART OF A FILE'S NAME]

The two files that count, strategies.py and take.lua, are changed in a copy of the repository: one
comparison, sign or whole number at a time. Their tests then have to fail. If they pass, the change
has survived: either a test is missing, or the change makes no difference and is listed, with the
reason, in EQUIVALENT. The program ends with 1 if a survivor is not listed.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILES = ["wsgi_throttle/strategies.py", "wsgi_throttle/storage/redis/take.lua"]
# One failure is enough. The tests that find most in the least time come first.
TESTS = [
    f"tests/test_{name}.py" for name in ("limits", "agreement", "strategies", "storage_contract")
]
NOT_COPIED = (".*", "build", "dist", "*.egg-info", "__pycache__")
AT_ONCE = 2
PATIENCE = 4
"""A run that takes so many times as long as one without a change is taken for an endless loop."""

_ENTRIES = "what begins an entry is no byte that ends one, nor is 1"
_MADE_ANEW = "the same state is made anew"
_FROM_1 = "sub() takes 0 for 1"
_NOW_IS_SAME = "a stamp of exactly now becomes now, which it is"
_MERGES = "an entry of exactly now is one with what is appended at now, either way"
_NEVER_KEPT = "with a quota of 0 nothing is ever charged, so that no state has a lifetime"
_MARGIN = "a margin, of which one that is near does as well"
_GRACE = "  -- Redis counts a TTL from the start of the script, and TIME may be later"

EQUIVALENT = {
    "while kept < len(state) - 2 and state[kept + 1] <= oldest:": (
        "the length of a log is odd, and what is kept of it even"
    ),
    "while kept and state[kept - 1] >= now:": _MERGES,
    "_steps: Bounded[str, Step] = Bounded(4097)": _MARGIN,
    "_steps: Bounded[str, Step] = Bounded(4095)": _MARGIN,
    "for (step, cost, _), state in zip(compiled, states, strict=False):": "they are as many",
    "return [(step, cost, enforce) for (step, _, enforce), cost in "
    "zip(compiled, costs, strict=False)]": "they are as many",
    "return -(-capacity // flow) if flow else 2": _NEVER_KEPT,
    "return -(-capacity // flow) if flow else 0": _NEVER_KEPT,
    "local GRACE_MS = 101" + _GRACE: _MARGIN,
    "local GRACE_MS = 99" + _GRACE: _MARGIN,
    "if opened >= now then": _NOW_IS_SAME,
    "if cost >= 0 then state = write(PAIR, opened, used + cost) end": _MADE_ANEW,
    "while kept <= last do": _ENTRIES,
    "while last > 1 do": _ENTRIES,
    "if at < now then break end": _MERGES,
    "return last > 1 and sub(state, 1, last) .. write(NUMBER, total - late) or '', late": _ENTRIES,
    "return last > 0 and sub(state, 0, last) .. write(NUMBER, total - late) or '', late": _FROM_1,
    "if oldest <= now + window then state = drop(state, now - window) end": _MADE_ANEW,
    "state = sub(state, 0, -TAIL - 1) .. write(TRIPLE, count + cost, now, total + cost)": _FROM_1,
    "state = sub(state, 0, -SUM - 1) .. write(TRIPLE, cost, now, total + cost)": _FROM_1,
    "if at >= now then": _NOW_IS_SAME,
    "elseif at <= now then": _MADE_ANEW,
}
"""The line after a change that makes no difference -> why it makes none."""

EACH_OTHER = [
    *(("<", "<="), (">", ">="), ("==", "!="), ("+", "-"), ("+=", "-="), ("and", "or")),
    *(("min", "max"), ("ceil", "floor"), ("True", "False")),
]
SWAPS = dict(EACH_OTHER) | {new: old for old, new in EACH_OTHER}
SWAPS |= {"*": "+", "/": "*", "//": "*", "%": "*", "not": "", "~=": "=="}
LUA_TOKEN = re.compile(r"--.*|'[^'\n]*'|\w+(?:\.\w+)*|[<>=~]=|[-+*/%<>]|\S")


class Mutant(NamedTuple):
    file: str
    line: int
    column: int
    old: str
    new: str

    def apply(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        lines[self.line - 1] = self.line_in(text)
        return "".join(lines)

    def line_in(self, text: str) -> str:
        """The line of the text, changed."""
        line = text.splitlines(keepends=True)[self.line - 1]
        return line[: self.column] + self.new + line[self.column + len(self.old) :]


class Survivor(NamedTuple):
    mutant: Mutant
    before: str
    after: str


def tokens(file: Path) -> Iterator[tuple[int, int, str]]:
    """(line, column, text) of each token that is neither a comment nor a string."""
    text = file.read_text()
    if file.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.OP):
                yield *token.start, token.string
        return
    for number, line in enumerate(text.splitlines(), start=1):
        for match in LUA_TOKEN.finditer(line):
            if not match[0].startswith(("--", "'")):
                yield number, match.start(), match[0]


def mutants(folder: Path, file: str) -> Iterator[Mutant]:
    for line, column, old in tokens(folder / file):
        if old.isdigit():
            swaps = [str(int(old) + 1), *([str(int(old) - 1)] if int(old) else [])]
        else:
            swaps = [SWAPS[old]] if old in SWAPS else []
            if file.endswith(".lua"):
                swaps = [new.replace("!=", "~=") for new in swaps]
        for new in swaps:
            yield Mutant(file, line, column, old, new)


class Copy:
    """A copy of the repository, in which one mutant at a time is tested.

    :param folder: the copy, and the tests' temporary files, are put into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "copy"
        self._scratch = folder / "scratch"
        shutil.copytree(ROOT, self.folder, ignore=shutil.ignore_patterns(*NOT_COPIED))

    def survivor(self, mutant: Mutant, patience_s: float) -> Survivor | None:
        path = self.folder / mutant.file
        text = path.read_text()
        path.write_text(mutant.apply(text))
        try:
            if not self.passes(patience_s):
                return None
        finally:
            path.write_text(text)
        before = text.splitlines()[mutant.line - 1].strip()
        return Survivor(mutant, before, mutant.line_in(text).strip())

    def passes(self, patience_s: float | None = None) -> bool:
        self._scratch.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS],
            cwd=self.folder,
            env=os.environ | {"TMPDIR": str(self._scratch), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(patience_s) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.returncode is None:
                # Its whole group, with the servers that the tests have started.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            shutil.rmtree(self._scratch)


def survivors_of(chosen: list[Mutant], copies: list[Copy], patience_s: float) -> list[Survivor]:
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def test(mutant: Mutant) -> Survivor | None:
        copy = free.get()
        try:
            return copy.survivor(mutant, patience_s)
        finally:
            free.put(copy)

    found = []
    with ThreadPoolExecutor(len(copies)) as pool:
        for number, survivor in enumerate(pool.map(test, chosen), start=1):
            if survivor:
                found.append(survivor)
            if survivor or number % 20 == 0 or number == len(chosen):
                print(f"{number} of {len(chosen)}, {len(found)} survive", flush=True)
    return found


def report(found: list[Survivor]) -> int:
    """Print the survivors, and return how many of them EQUIVALENT does not explain."""
    unexplained = 0
    for (file, line, column, _, _), before, after in found:
        why = EQUIVALENT.get(after)
        unexplained += why is None
        print(f"{file}:{line}:{column + 1}: {why or 'NOT EXPLAINED'}\n  - {before}\n  + {after}")
    return unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description="list the changes that no test notices")
    parser.add_argument("part", nargs="?", default="", help="of the name of the file to change")
    parser.add_argument("--sample", type=int, metavar="N", help="try N of the changes, any of them")
    settings = parser.parse_args()
    with TemporaryDirectory(prefix="wt-mutate-") as parent:
        copies = [Copy(Path(parent, str(number))) for number in range(AT_ONCE)]
        began = time.monotonic()
        if not copies[0].passes():
            print(f"the tests fail as it is: python -m pytest {' '.join(TESTS)}")
            return 1
        patience_s = PATIENCE * (time.monotonic() - began)
        files = [file for file in FILES if settings.part in file]
        chosen = [mutant for file in files for mutant in mutants(copies[0].folder, file)]
        if settings.sample:
            chosen = random.sample(chosen, min(settings.sample, len(chosen)))
        found = survivors_of(chosen, copies, patience_s)
    unexplained = report(found)
    print(f"{len(chosen)} mutants, {len(found)} survivors, {unexplained} of them not explained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
