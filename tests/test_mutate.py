"""What tests/mutate.py takes for no change is in the code that it changes."""

from __future__ import annotations

from mutate import EQUIVALENT, FILES, ROOT, mutants


def test_every_reason_is_for_a_mutant() -> None:
    changed = {
        mutant.line_in((ROOT / file).read_text()).strip()
        for file in FILES
        for mutant in mutants(ROOT, file)
    }
    assert set(EQUIVALENT) - changed == set()
