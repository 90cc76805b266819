"""Ctrl-C in the middle of a row.

The interpreter raises KeyboardInterrupt behind a call, and at no other instruction of code without loops.
So the test raises it behind every call that a row makes, one after the other.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import cox
from cox import table
from cox.storage import journal

CALLS = {number for name, number in dis.opmap.items() if name.startswith("CALL")}


def behind_call(code: CodeType, offset: int) -> bool:
    """Whether the instruction before the one at `offset` is a call."""
    before = offset - 2
    while before > 0 and dis.opname[code.co_code[before]] == "CACHE":
        before -= 2
    return before >= 0 and code.co_code[before] in CALLS


@contextmanager
def interrupted(point: int) -> Iterator[None]:
    """Raise KeyboardInterrupt behind the call with the number `point`, if there are so many."""
    places = {"<string>", table.__file__, journal.__file__}
    passed = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal passed
        if frame.f_code.co_filename not in places:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and behind_call(frame.f_code, frame.f_lasti):
            passed += 1
            if passed == point + 1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("how", ["append_row", "update_and_flush"])
def test_an_interrupt_behind_any_call_of_a_row_costs_that_row_at_most(tmp_path: Path, how: str) -> None:
    point = 0
    while append_interrupted(tmp_path / str(point), point, how):
        point += 1
    assert point > 10


def append_interrupted(folder: Path, point: int, how: str) -> bool:
    """Append four rows, the second of them interrupted. Returns whether there was something to interrupt."""
    stopped = False
    store = cox.Store(folder, "run")
    rows = store.add_table("t", {"step": int, "loss": float})

    def append(step: int) -> None:
        if how == "append_row":
            rows.append_row({"step": step, "loss": 0.5})
        else:
            rows.update_row({"step": step, "loss": 0.5})
            rows.flush_row()

    append(0)
    try:
        with interrupted(point):
            append(1)
    except KeyboardInterrupt:
        stopped = True
    another = threading.Thread(target=append, args=(2,), daemon=True)
    another.start()
    another.join(timeout=10)
    if another.is_alive():
        store._writer.lock.release()  # type: ignore[union-attr] # or that thread would wait for ever
        pytest.fail(f"interrupt {point} left the lock taken")
    append(3)
    store.close()
    found = cox.Store(folder, "run", mode="r")["t"].df["step"].tolist()
    assert found in ([0, 1, 2, 3], [0, 2, 3]), point
    assert stopped or 1 in found, point
    return stopped
