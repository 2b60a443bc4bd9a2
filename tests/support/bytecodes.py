"""What a call costs, in a count that a busy machine does not change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import wsgi_throttle

_PACKAGE = str(Path(wsgi_throttle.__file__).parent)


CALLS = 2 if sys.version_info >= (3, 12) else 1
"""From 3.12 on, the bytecodes of a function are traced from its second traced call only."""


def bytecodes(act: Callable[[], object]) -> int:
    """How many bytecodes of this package are executed by the last of CALLS calls."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()  # the one that measures coverage
    sys.settrace(trace)
    try:
        for _ in range(CALLS):
            count = 0
            act()
    finally:
        sys.settrace(before)
    return count
