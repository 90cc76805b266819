"""A program ends: stores that it opens, uses or closes in atexit functions, daemon threads and finalizers.

No acknowledged row is lost, no row is refused; it neither crashes nor hangs, nor shows a traceback of ours.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.integrity.verify import verify

Run = Callable[..., Any]

#: Before each program: `store()` opens the run with its table, `log` appends a row to a store.
PRELUDE = """
import atexit, os, signal, sys, threading, weakref
def log(store, value):
    store["t"].append_row({"x": value})
def store(name="run", **options):
    from cox.store import Store
    made = Store(sys.argv[1], name, **options)
    made.add_table("t", {"x": int})
    return made
"""

#: Programs, each with the rows that it acknowledges.
PROGRAMS: dict[str, tuple[str, list[int]]] = {
    "a row in an atexit function": (
        """
        s = store()
        log(s, 0)
        atexit.register(log, s, 1)
        """,
        [0, 1],
    ),
    "in one that was registered before cox was imported": (
        """
        atexit.register(lambda: log(s, 1))
        s = store()
        log(s, 0)
        """,
        [0, 1],
    ),
    "a store opened and closed in an atexit function": (
        """
        @atexit.register
        def last():
            with store() as s:
                log(s, 0)
        """,
        [0],
    ),
    "opened there and kept": (
        """
        import cox.store
        kept = []
        @atexit.register
        def last():
            kept.append(store())
            log(kept[0], 0)
        """,
        [0],
    ),
    "opened there, after cox was imported, and dropped": (
        """
        import cox.store
        @atexit.register
        def last():
            log(store(), 0)
        """,
        [0],
    ),
    "opened twice there": (
        """
        s = store()
        log(s, 0)
        @atexit.register
        def last():
            other = store()
            log(other, 1)
            other.close()
            log(s, 2)
        """,
        [0, 1, 2],
    ),
    "closed there": (
        """
        s = store()
        atexit.register(s.close)
        log(s, 0)
        """,
        [0],
    ),
    "read there, folded": (
        """
        import cox.store, pandas  # which cannot be imported for the first time in an atexit function
        @atexit.register
        def last():
            with store() as s:
                log(s, 0)
            with cox.store.Store(sys.argv[1], "run", mode="r") as s:
                assert s["t"].df["x"].tolist() == [0]
            with store() as s:
                log(s, s["t"].df["x"].sum() + 1)
        """,
        [0, 1],
    ),
    "read there, where h5py was used before": (
        """
        import h5py, pandas
        s = store()
        log(s, 0)
        s.close()
        s = store()
        @atexit.register
        def last():
            log(s, 1)
            assert s["t"].df["x"].tolist() == [0, 1]
            s.close()
        """,
        [0, 1],
    ),
    "a finalizer": (
        """
        class Thing: pass
        s, thing = store(), Thing()
        weakref.finalize(thing, log, s, 0)
        """,
        [0],
    ),
    "__del__ of a global": (
        """
        class Thing:
            def __del__(self): log(self.store, 1)
        thing = Thing()
        thing.store = store()
        log(thing.store, 0)
        """,
        [0, 1],
    ),
    "close in __del__ of a global": (
        """
        class Thing:
            def __del__(self): log(self.store, 1); self.store.close()
        thing = Thing()
        thing.store = store()
        log(thing.store, 0)
        """,
        [0, 1],
    ),
    "a row in a thread that outlives the main one": (
        """
        s, main = store(), threading.main_thread()
        def work():
            main.join()
            log(s, 0)
        threading.Thread(target=work).start()
        """,
        [0],
    ),
    "a store opened in a thread that outlives the main one": (
        """
        main = threading.main_thread()
        def work():
            main.join()
            log(store(), 0)
        threading.Thread(target=work).start()
        """,
        [0],
    ),
    "a signal in an atexit function": (
        """
        s = store()
        signal.signal(signal.SIGTERM, lambda *_: log(s, 1))
        atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
        log(s, 0)
        """,
        [0, 1],
    ),
    "an event for TensorBoard in an atexit function": (
        """
        s = store()
        s.log_table_and_tb("t", {"x": 0})
        s["t"].flush_row()
        @atexit.register
        def last():
            s.log_table_and_tb("t", {"x": 1})
            s["t"].flush_row()
        """,
        [0, 1],
    ),
    "a row that is flushed by an atexit function": (
        """
        s = store()
        s["t"].update_row({"x": 0})
        atexit.register(s["t"].flush_row)
        """,
        [0],
    ),
    "a forked child of multiprocessing": (
        """
        import multiprocessing
        def work():
            s = store()
            log(s, 0)
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start(); child.join(); assert child.exitcode == 0
        """,
        [0],
    ),
    "os._exit": (
        """
        s = store()
        log(s, 0)
        os._exit(0)
        """,
        [0],
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_row_of_the_end_is_lost(tmp_path: Path, start: Run, name: str) -> None:
    source, expected = PROGRAMS[name]
    program = start(PRELUDE + textwrap.dedent(source), tmp_path / "runs")
    program.finish()
    assert program.errors == ""
    with cox.Store(tmp_path / "runs", "run", mode="r") as store:
        assert store["t"].df["x"].tolist() == expected
    if name != "os._exit":
        assert json.loads((tmp_path / "runs/run/.cox/run.json").read_text())["state"] == "finished"
    with cox.Store(tmp_path / "runs", "run") as store:  # nobody is in its way
        assert store["t"].nrows == len(expected)


def test_rows_of_a_daemon_thread_that_never_stops(tmp_path: Path, start: Run) -> None:
    source = """
        s = store()
        begun = threading.Event()
        def work():
            for value in range(10**9):
                log(s, value)
                os.write(1, b"%d\\n" % value)
                begun.set()
        threading.Thread(target=work, daemon=True).start()
        begun.wait()
    """
    program = start(PRELUDE + textwrap.dedent(source), tmp_path / "runs")
    lines = program.finish()
    assert program.errors == ""
    with cox.Store(tmp_path / "runs", "run", mode="r") as store:
        rows = store["t"].df["x"].tolist()
    assert rows == list(range(len(rows))) and len(rows) >= len(lines)


def test_the_last_of_several_forked_ranks_folds(tmp_path: Path, start: Run) -> None:
    source = """
        import multiprocessing
        def work(rank):
            log(store(rank=rank), rank)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(rank,)) for rank in range(3)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
    """
    start(PRELUDE + textwrap.dedent(source), tmp_path / "runs").finish()
    assert not [name for name in os.listdir(tmp_path / "runs/run/.cox/journal") if name.endswith(".log")]
    with cox.Store(tmp_path / "runs", "run", mode="r") as store:
        assert sorted(store["t"].df["x"]) == [0, 1, 2]


def test_a_row_that_was_never_flushed_is_warned_about_once(tmp_path: Path, start: Run) -> None:
    source = """
        import warnings
        warnings.simplefilter("always")
        s = store()
        s["t"].update_row({"x": 0})
    """
    program = start(PRELUDE + textwrap.dedent(source), tmp_path / "runs")
    program.finish()
    assert program.errors.count("never flushed") == 1 and "Traceback" not in program.errors


RANKS_THAT_END = """
    import atexit, sys
    from cox.store import Store

    rank = int(sys.argv[2])
    store = Store(sys.argv[1], "run", rank=rank)
    store.add_table("t", {"i": int}).append_row({"i": rank})

    def late():
        print("late", flush=True)
        sys.stdin.readline()
        store["t"].append_row({"i": 100 + rank})

    atexit.register(late)
    print("up", flush=True)
    sys.stdin.readline()
"""


def test_a_late_row_of_a_rank_is_stored_though_another_one_has_folded_since(
    out: Path, start: Callable[..., Any]
) -> None:
    ranks = [start(RANKS_THAT_END, out, rank) for rank in (0, 1)]
    for program in ranks:
        assert program.line() == "up"
    for program in ranks:
        program.tell()
        assert program.line() == "late"
    for program in reversed(ranks):  # the run changes behind the back of the first
        program.tell()
        program.finish()
    with cox.Store(out, "run", mode="r") as store:
        assert sorted(store["t"].df["i"].tolist()) == [0, 1, 100, 101]


def test_a_late_row_of_a_rank_is_stored_though_another_one_has_begun_anew_since(
    out: Path, start: Callable[..., Any]
) -> None:
    program = start(RANKS_THAT_END, out, 1)
    assert program.line() == "up"
    program.tell()
    assert program.line() == "late"
    with cox.Store(out, "run", rank=0, mode="w") as store:
        store.add_table("t", {"i": int}).append_row({"i": 0})
    program.tell()
    program.finish()
    assert program.errors == ""
    with cox.Store(out, "run", mode="r") as store:
        assert store["t"].df["i"].tolist() == [0, 101]
    assert verify(out / "run").ok


LATE = """
    import atexit, sys
    from cox.errors import ClosedError
    from cox.store import Store

    store = Store(sys.argv[1], "run")
    store.add_table("t", {"i": int}).append_row({"i": 0})

    def late():
        print("late", flush=True)
        sys.stdin.readline()
        try:
            store["t"].append_row({"i": 2})
        except ClosedError as error:
            print(error)

    atexit.register(late)
"""


def test_a_late_row_is_refused_once_another_process_has_written_in_its_place(
    out: Path, start: Callable[..., Any]
) -> None:
    program = start(LATE, out)
    assert program.line() == "late"
    with cox.Store(out, "run") as store:
        store["t"].append_row({"i": 1})
    program.tell()
    (said,) = program.finish()
    assert "was written by another process since it was closed" in said
    with cox.Store(out, "run", mode="r") as store:
        assert store["t"].df["i"].tolist() == [0, 1]
