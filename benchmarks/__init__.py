"""What the middleware costs, measured beside Flask-Limiter; `python -m benchmarks` runs it all."""

import sys
from pathlib import Path

# The servers under load are started by tests/support, which the tests too import as a top-level
# package.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
