"""Change the arithmetic, one token at a time, and list what no test notices.

    python -m tests.mutate [PART OF A FILE'S NAME]

Every comparison, sign and whole number of the two files that count is changed in a copy of the
repository, where the tests of them then have to fail. A mutant that they pass is a survivor: a test
is missing, or the change is none.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILES = ["wsgi_throttle/strategies.py", "wsgi_throttle/storage/take.lua"]
# The quickest first: one failure is enough.
TESTS = ["tests/test_agreement.py", "tests/test_strategies.py"]
NOT_COPIED = (".*", "build", "dist", "*.egg-info", "__pycache__")
PATIENCE_S = 300
"""A mutant that runs longer has been noticed: it never ends."""

EACH_OTHER = [
    *(("<", "<="), (">", ">="), ("==", "!="), ("+", "-"), ("+=", "-="), ("and", "or")),
    *(("min", "max"), ("ceil", "floor"), ("True", "False")),
]
SWAPS = dict(EACH_OTHER) | {new: old for old, new in EACH_OTHER}
SWAPS |= {"*": "+", "/": "*", "//": "*", "%": "*", "not": "", "~=": "=="}
LUA_TOKEN = re.compile(r"--.*|'[^'\n]*'|\w+(?:\.\w+)*|[<>=~]=|[-+*/%<>]|\S")


class Mutant(NamedTuple):
    line: int
    column: int
    old: str
    new: str

    def apply(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        line = lines[self.line - 1]
        end = self.column + len(self.old)
        lines[self.line - 1] = line[: self.column] + self.new + line[end:]
        return "".join(lines)


def tokens(file: Path) -> Iterator[tuple[int, int, str]]:
    """(line, column, text) of all that is neither a comment nor a string."""
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


def mutants(file: Path) -> Iterator[Mutant]:
    for line, column, old in tokens(file):
        if old.isdigit():
            swaps = [str(int(old) + 1), *([str(int(old) - 1)] if int(old) else [])]
        else:
            swaps = [SWAPS[old]] if old in SWAPS else []
            if file.suffix == ".lua":
                swaps = [new.replace("!=", "~=") for new in swaps]
        for new in swaps:
            yield Mutant(line, column, old, new)


def passes(folder: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
    try:
        result = subprocess.run(
            command, cwd=folder, stdout=subprocess.DEVNULL, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    tried = survivors = 0
    with TemporaryDirectory() as parent:
        folder = Path(parent, "copy")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
        if not passes(folder):
            print("the tests fail as it is")
            return 1
        for name in FILES:
            if wanted not in name:
                continue
            text = (ROOT / name).read_text()
            for mutant in mutants(ROOT / name):
                (folder / name).write_text(mutant.apply(text))
                tried += 1
                if passes(folder):
                    survivors += 1
                    line = text.splitlines()[mutant.line - 1].strip()
                    change = f"{mutant.old!r} -> {mutant.new!r}"
                    print(f"{name}:{mutant.line}:{mutant.column + 1}: {change}: {line}", flush=True)
            (folder / name).write_text(text)
    print(f"{tried} mutants, {survivors} survivors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
