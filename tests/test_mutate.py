"""Every line that tests/mutate.py lists as making no difference can be made by a change of the
code."""

from __future__ import annotations

from mutate import EQUIVALENT, FILES, ROOT, mutants


def test_every_reason_is_for_a_mutant() -> None:
    changed = {
        mutant.line_in((ROOT / file).read_text()).strip()
        for file in FILES
        for mutant in mutants(ROOT, file)
    }
    assert set(EQUIVALENT) - changed == set()
