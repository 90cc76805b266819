"""Signals in the middle of a row: Ctrl-C, and handlers that log.

The interpreter looks for signals behind a call, and at no other instruction of code without loops. So the
tests have one come behind every call that a row makes, one after the other.
"""

from __future__ import annotations

import dis
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

import cox
from cox.errors import ClosedError
from cox.storage import fold, fs, hold, schemas, snapshot, writer
from cox.storage.hdf5 import content, reading, writing
from cox.storage.journal import format as journal_format
from cox.storage.journal import writing as journal_writing
from cox.store import cells, table, working_row
from cox.testing import invariants

#: Of the many calls that a fold makes, one in so many is interrupted.
STRIDE = int(os.environ.get("COX_STRIDE", "13"))
CALLS = {number for name, number in dis.opmap.items() if name.startswith("CALL")}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "fdatasync"):  # to wait for a real disk shows nothing here
        monkeypatch.setattr(os, name, lambda fd: None)


def behind_call(code: CodeType, offset: int) -> bool:
    """Whether the instruction before the one at `offset` is a call."""
    before = offset - 2
    while before > 0 and dis.opname[code.co_code[before]] == "CACHE":
        before -= 2
    return before >= 0 and code.co_code[before] in CALLS


@contextmanager
def interrupted(point: int, handler: Callable[[], object], *modules: ModuleType) -> Iterator[None]:
    """Call `handler` behind the call with the number `point`, if code of the modules makes so many."""
    own = table, working_row, cells, journal_format, journal_writing
    places = {"<string>", *(module.__file__ for module in (*own, *modules))}
    passed = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal passed
        if frame.f_code.co_filename not in places:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and behind_call(frame.f_code, frame.f_lasti):
            passed += 1
            if passed == point + 1:
                handler()
        return trace

    before = sys.gettrace()
    gc.disable()  # what other tests left must not be closed, and interrupted, in here
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        gc.enable()


def ctrl_c() -> None:
    raise KeyboardInterrupt


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
        with interrupted(point, ctrl_c):
            append(1)
    except KeyboardInterrupt:
        stopped = True
    another = threading.Thread(target=append, args=(2,), daemon=True)
    another.start()
    another.join(timeout=60)
    if another.is_alive():
        store._writer.lock.release()  # type: ignore[union-attr] # or that thread would wait for ever
        pytest.fail(f"interrupt {point} left the lock taken")
    append(3)
    store.close()
    found = cox.Store(folder, "run", mode="r")["t"].df["step"].tolist()
    assert found in ([0, 1, 2, 3], [0, 2, 3]), point
    assert stopped or 1 in found, point
    return stopped


Operation = Callable[[cox.Store], object]

OPERATIONS: dict[str, Operation] = {
    "append_row": lambda store: store["t"].append_row({"step": 1, "text": "the loop's"}),
    "append_row converted": lambda store: store["t"].append_row({"step": "1", "text": "the loop's"}),
    "first row": lambda store: store["u"].append_row({"step": 1}),
    "add_column": lambda store: store["t"].add_column("late", int),
    "rewind": lambda store: store.rewind("t", 2, purge_tensorboard=False),
    "fold": lambda store: store._writer.fold_if_it_helps(),  # type: ignore[union-attr]
}
HANDLERS: dict[str, Operation] = {
    "a row": lambda store: store["t"].append_row({"step": 100, "text": "!"}),
    "a long row": lambda store: store["t"].append_row({"step": 100, "text": "preempted " * 20}),
    "a row elsewhere": lambda store: store["u"].append_row({"step": 100}),
    "a row, and a fold": lambda store: (
        store["t"].append_row({"step": 100, "text": "!"}),
        store._writer.fold_if_it_helps(),  # type: ignore[union-attr]
    ),
    "a row, and the end": lambda store: (store["t"].append_row({"step": 100, "text": "!"}), store.close()),
}


@pytest.mark.slow
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_handler_that_logs_in_the_middle_of_anything_loses_nothing(
    tmp_path: Path, operation: str, handler: str
) -> None:
    """As programs do that say in their SIGTERM handler that they were preempted."""
    point = 0
    while handler_comes(tmp_path / str(point), point, operation, handler):
        point += 1
    assert point > 4


def handler_comes(folder: Path, point: int, operation: str, handler: str) -> bool:
    store = cox.Store(folder, "run")
    store.add_table("u", {"step": int})
    rows = store.add_table("t", {"step": int, "text": str})
    rows.append_row({"step": 0, "text": ""})
    rows.append_row({"step": 0, "text": ""})
    came, ended = False, "end" in handler

    def handle() -> None:
        nonlocal came
        came = True
        HANDLERS[handler](store)

    done = False
    try:
        with interrupted(point, handle, writer, hold, schemas, fold):
            OPERATIONS[operation](store)
            done = True
    except ClosedError:
        assert came
        assert ended
    if not (came and ended):
        rows.append_row({"step": 2, "text": "later"})
        store.close()
    expected = {"t": [0, 0], "u": []}
    if operation.startswith("append_row") and done:
        expected["t"].append(1)
    if operation == "first row" and done:
        expected["u"].append(1)
    if came:
        expected["u" if "elsewhere" in handler else "t"].append(100)
    if not (came and ended):
        expected["t"].append(2)
    with cox.Store(folder, "run", mode="r") as reader:
        found = {name: reader[name].df["step"].tolist() if name in reader else [] for name in expected}
        if not done:  # what the operation was told to be refused may be there all the same
            found = {name: [step for step in steps if step != 1] for name, steps in found.items()}
        if operation == "rewind" and came and 100 not in found["t"]:
            expected["t"] = [step for step in expected["t"] if step != 100]  # it came before, and was dropped
        assert {name: sorted(steps) for name, steps in found.items()} == {
            name: sorted(steps) for name, steps in expected.items()
        }, point
        if operation == "add_column" and done:
            assert "late" in reader["t"].schema
    return came


PREEMPTED_IN_MID_FOLD = """
import os, signal, sys
import cox
from cox.store import lifecycle
from cox.storage import snapshot

lifecycle.LOOK = 600  # it never looks whether its files are still there
store = cox.Store(sys.argv[1], "run")
table = store.add_table("t", {"step": int})
table.append_row({"step": 0})
signal.signal(signal.SIGTERM, lambda *_: table.append_row({"step": 1}))
read = snapshot.read

def read_after_a_signal(*args, **named):
    snapshot.read = read
    signal.raise_signal(signal.SIGTERM)
    return read(*args, **named)

snapshot.read = read_after_a_signal
store._writer.fold_if_it_helps()
table.append_row({"step": 2})
print("stored")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_behind_a_fold_in_which_a_handler_logged_costs_nothing(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    program = start(PREEMPTED_IN_MID_FOLD, tmp_path / "runs")
    assert program.finish(status=-signal.SIGKILL) == ["stored"]
    with cox.Store(tmp_path / "runs", "run", mode="r") as reader:
        assert reader["t"].df["step"].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_fold_costs_nothing(tmp_path: Path) -> None:
    """Neither rows, nor that the run can be read and written by the same process, as in a notebook."""
    point, at, stopped = 0, 0, True
    with cox.Store(tmp_path, "run") as store:
        rows = store.add_table("t", {"step": int, "thing": cox.PICKLE})
        while stopped and at < 1200:  # rows that are left over make the next fold longer
            rows.append_row({"step": point, "thing": point})
            try:
                with interrupted(at, ctrl_c, writer, hold, fold, snapshot, fs, reading, writing, content):
                    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
                stopped = False
            except KeyboardInterrupt:
                pass
            with cox.Store(tmp_path, "run", mode="r") as reader:
                frame = reader["t"].df
                assert frame["step"].tolist() == list(range(point + 1)), point
                assert reader["t"].get_pickle(frame["thing"].iloc[-1]) == point
            point, at = point + 1, at + STRIDE
    assert at > 300
    with cox.Store(tmp_path, "run", mode="r") as reader:
        assert reader["t"].df["step"].tolist() == list(range(point))
    cox.Store(tmp_path, "run").close()  # and what was not finished is swept up
    assert invariants.leftovers(tmp_path / "run") == []
