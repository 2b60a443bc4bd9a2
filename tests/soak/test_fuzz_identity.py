"""Random requests for FUZZ_SECONDS of the environment, by default 600."""

from __future__ import annotations

import os

import pytest
from fuzz_identity import run


@pytest.mark.soak
def test_no_random_request_breaks_the_identity_of_a_client() -> None:
    assert run(float(os.environ.get("FUZZ_SECONDS", "600"))) > 0
