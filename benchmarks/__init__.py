"""Measures what the middleware costs, beside Flask-Limiter: `python -m benchmarks`."""

import sys
from pathlib import Path

# tests/support starts the servers under load. The tests import it as the top-level package
# `support`, and so do the benchmarks.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
