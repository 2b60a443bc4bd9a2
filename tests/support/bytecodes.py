"""What a call costs, in a count that a busy machine does not change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import wsgi_throttle

_PACKAGE = str(Path(wsgi_throttle.__file__).parent)


def bytecodes(act: Callable[[], object]) -> int:
    """How many bytecodes of this package are executed. From Python 3.12 on, those of a function are
    seen from its second traced call only, so that the first count is too small."""
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
        act()
    finally:
        sys.settrace(before)
    return count
