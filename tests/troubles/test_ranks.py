"""A run that goes on with another number of processes, and drops what those that are gone have written."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox
from cox.errors import LossyConversionWarning, RewindError, SchemaError
from cox.storage import layout, snapshot
from tests.conftest import ROOT, Program


def session(out: Path, rank: int | None, first: int, last: int, **options: Any) -> None:
    """What a process does that goes on from a checkpoint."""
    with cox.Store(out, "run", rank=rank) as store:
        table = store.add_table("t", {"step": int})
        store.rewind("t", step=first, **options)
        for step in range(first, last):
            table.append_row({"step": step})


def steps(out: Path) -> dict[int | None, list[int]]:
    """The steps of each rank; of None, those of the sole writer."""
    now = snapshot.read(layout.RunLayout(out / "run"))
    assert not now.damage
    if "t" not in now.tables:
        return {}
    data = now.tables["t"]
    column = next(column for column in data.schema if column.name == "step")
    values = data.column(column)[0]
    return {rank: values[rows].tolist() for rank, rows in now.by_rank("t") if len(rows)}


def span(first: int, last: int) -> list[int]:
    return list(range(first, last))


def test_a_sole_writers_run_goes_on_with_ranks(out: Path) -> None:
    session(out, None, 0, 8)
    session(out, 0, 5, 10)
    session(out, 1, 5, 10)
    assert steps(out) == {None: span(0, 5), 0: span(5, 10), 1: span(5, 10)}


def test_a_run_of_ranks_goes_on_with_a_sole_writer(out: Path) -> None:
    for rank in range(3):
        session(out, rank, 0, 8)
    session(out, None, 5, 10)
    assert steps(out) == {None: span(5, 10), 0: span(0, 5), 1: span(0, 5), 2: span(0, 5)}
    session(out, 0, 3, 4)
    assert steps(out) == {0: [0, 1, 2, 3], 1: span(0, 3), 2: span(0, 3)}, "and back"


def test_fewer_ranks_drop_the_rows_of_those_that_are_gone(out: Path) -> None:
    for rank in range(4):
        session(out, rank, 0, 8)
    assert steps(out) == dict.fromkeys(range(4), span(0, 8)), "each began after the one before had ended"
    for rank in range(2):
        session(out, rank, 5, 10)
    assert steps(out) == {0: span(0, 10), 1: span(0, 10), 2: span(0, 5), 3: span(0, 5)}
    session(out, 3, 5, 7, others=False)
    assert steps(out) == {0: span(0, 10), 1: span(0, 10), 2: span(0, 5), 3: span(0, 7)}


def test_rows_of_a_killed_rank_and_of_one_that_lives(out: Path, start: Callable[..., Program]) -> None:
    source = """
        import sys
        from cox.store import Store
        store = Store(sys.argv[1], "run", rank=int(sys.argv[2]))
        for step in range(8):
            store.add_table("t", {"step": int}).append_row({"step": step})
        print("up"); sys.stdin.readline()
        store["t"].append_row({"step": 8}); print("end"); sys.stdin.readline()
    """
    killed, living = start(source, out, 1), start(source, out, 2)
    for program in (killed, living):
        program.line()
    killed.kill()
    session(out, 0, 5, 6)
    assert steps(out) == {0: [5], 1: span(0, 8), 2: span(0, 8)}, "who is, or was, at it rewinds for itself"
    living.tell()
    living.line()
    session(out, 1, 5, 6)
    assert steps(out) == {0: [5], 1: span(0, 6), 2: span(0, 9)}


WORKER = """
    import sys
    from cox.store import Store
    rank, first, last = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    store = Store(sys.argv[1], "run", rank=rank)
    table = store.add_table("t", {"step": int})
    store.rewind("t", step=first)
    for step in range(first, last):
        table.append_row({"step": step})
    print("up"); sys.stdin.readline()
"""


def test_a_late_rank_leaves_the_rows_of_one_that_crashed_in_the_same_attempt(
    out: Path, start: Callable[..., Program]
) -> None:
    programs = [start(WORKER, out, rank, 0, 8) for rank in (0, 1)]
    for program in programs:
        program.line()
    programs[1].kill()
    start(WORKER, out, 2, 5, 8).line()
    assert steps(out) == {0: span(0, 8), 1: span(0, 8), 2: span(5, 8)}


def test_a_late_rank_leaves_the_rows_of_all_that_crashed_before_it_came(
    out: Path, start: Callable[..., Program]
) -> None:
    for rank in (0, 1):
        program = start(WORKER, out, rank, 0, 8)
        program.line()
        program.kill()
    start(WORKER, out, 2, 5, 8).line()
    assert steps(out) == {0: span(0, 8), 1: span(0, 8), 2: span(5, 8)}, "it may be the third of three"
    start(WORKER, out, 0, 5, 6).line()
    assert steps(out) == {0: span(0, 6), 1: span(0, 5), 2: span(5, 8)}, "who comes back knows"


@pytest.mark.parametrize("stays", [True, False], ids=["beside each other", "one after another"])
def test_ranks_that_all_crashed_and_come_back_in_turn_rewind_each_other(
    out: Path, start: Callable[..., Program], stays: bool
) -> None:
    crashed = [start(WORKER, out, rank, 0, 8) for rank in range(4)]
    for program in crashed:
        program.line()
    for program in crashed:
        program.kill()
    expected = dict.fromkeys(range(4), span(0, 8))
    for rank in (2, 0, 1):
        back = start(WORKER, out, rank, 5, 7)
        back.line()
        if not stays:
            back.kill()
        expected |= {other: span(0, 5) for other in range(4) if expected[other] == span(0, 8)}
        expected[rank] = span(0, 7)
        assert steps(out) == expected


def test_a_rewind_leaves_the_rows_of_a_rank_that_has_opened_the_run_and_not_written_yet(out: Path) -> None:
    session(out, 0, 0, 8)
    session(out, 1, 0, 8)
    back = cox.Store(out, "run", rank=1)
    session(out, 0, 5, 6)
    assert steps(out) == {0: span(0, 6), 1: span(0, 8)}, "it counts on from these"
    back["t"].append_row({"step": 8})
    back.close()
    assert steps(out) == {0: span(0, 6), 1: span(0, 9)}


# --- Scripts with a column `rank` of their own


def declared(store: cox.Store, how: str) -> cox.Table:
    """A table whose column `rank` the script declares itself."""
    if how == "add_table_like_example":
        return store.add_table_like_example("t", {"rank": 0, "step": 0})
    if how == "added":
        table = store.add_table("t", {"step": int})
        table.add_column("rank", int)
        return table
    return store.add_table("t", {"rank": int, "step": int})


@pytest.mark.filterwarnings("ignore::cox.errors.LossyConversionWarning")
@pytest.mark.parametrize("how", ["add_table", "add_table_like_example", "added"])
@pytest.mark.parametrize("writers", [(None, 0, 1, None), (0, 1, None, 0, 1)], ids=str)
def test_a_script_that_declares_rank_itself_goes_on_with_any_number_of_processes(
    out: Path, how: str, writers: tuple[int | None, ...]
) -> None:
    expected: dict[int | None, list[int]] = {}
    for step, rank in enumerate(writers):
        with cox.Store(out, "run", rank=rank) as store:
            declared(store, how).append_row({"rank": rank or 0, "step": step})
        expected.setdefault(rank, []).append(step)
    assert steps(out) == expected
    with pytest.raises(SchemaError, match="has 'rank' as float, was int"):
        cox.Store(out, "run").add_table("t", {"rank": float, "step": int})


def rows(store: cox.Store, *cells: tuple[int, int | None]) -> None:
    """Log rows of (step, rank) by a script that has a column `rank` of its own."""
    table = store.add_table("t", {"step": int, "rank": int | None})
    for step, rank in cells:
        table.append_row({"step": step, "rank": rank})


def numbers(out: Path) -> list[int | None]:
    """The column `rank`; None is missing."""
    cells = cox.Store(out, "run", mode="r")["t"].df["rank"].tolist()
    return [None if cell is pd.NA else cell for cell in cells]


def test_a_sole_writers_own_rank_is_never_taken_for_a_ranks(out: Path) -> None:
    session(out, 0, 0, 2)
    store = cox.Store(out, "run")
    with pytest.warns(LossyConversionWarning, match="'t': the value 0 .*'rank' was not stored") as told:
        rows(store, (2, 0), (3, 1), (4, None))
    assert len(told) == 1, "once a store"
    assert steps(out) == {0: [0, 1], None: [2, 3, 4]}
    store.close()
    assert steps(out) == {0: [0, 1], None: [2, 3, 4]}
    assert numbers(out) == [0, 0, None, None, None]
    session(out, 0, 1, 2)
    assert steps(out) == {0: [0, 1]}, "and its rows go as its own"


def test_rows_that_a_sole_writer_stored_with_a_rank_are_not_taken_for_a_ranks(out: Path) -> None:
    with cox.Store(out, "run") as store:
        rows(store, (0, 0), (1, 1), (2, 2))
    assert numbers(out) == [0, 1, 2]
    with pytest.warns(LossyConversionWarning, match="what the sole writer stored there before is missing"):
        session(out, 0, 3, 5)
    assert steps(out) == {None: [0, 1, 2], 0: [3, 4]}
    with cox.Store(out, "run", rank=1) as store:
        assert store["t"].nrows == 0
        store["t"].append_row({"step": 3})
        store.rewind("t", nrows=0)
    assert steps(out) == {None: [0, 1, 2], 0: [3, 4]}
    assert numbers(out) == [None, None, None, 0, 0]


def test_a_sole_writer_beside_ranks_is_told_apart_before_and_after_a_fold(out: Path) -> None:
    sole, rank = cox.Store(out, "run"), cox.Store(out, "run", rank=1)
    rows(sole, (0, 1))
    rank.add_table("t", {"step": int}).append_row({"step": 10})
    rows(sole, (1, 1))
    expected = {None: [0, 1], 1: [10]}
    assert steps(out) == expected
    assert rank._writer is not None
    rank._writer.fold_if_it_helps()
    rows(sole, (2, 1))
    expected[None].append(2)
    assert steps(out) == expected
    for store in (rank, sole):
        store.close()
        assert steps(out) == expected
    with cox.Store(out, "run", rank=1) as again:
        again.rewind("t", nrows=0)
    assert steps(out) == {None: [0, 1, 2]}


def test_a_sole_writers_own_rank_is_not_in_its_journal_either(out: Path) -> None:
    with cox.Store(out, "run", rank=0) as rank:
        rank.add_table("t", {"step": int}).append_row({"step": 0})
        with cox.Store(out, "run") as sole:
            with pytest.warns(LossyConversionWarning, match="was not stored"):
                rows(sole, (1, 0), (2, 1), (3, 2))
            rank.rewind("t", nrows=0)
            assert numbers(out) == [None] * 3


def test_a_rank_says_that_it_takes_the_column_over_however_it_begins(out: Path) -> None:
    with cox.Store(out, "run") as store:
        rows(store, (0, 7))
    with cox.Store(out, "run", rank=0) as store:
        store["t"].add_column("loss", float)
        assert numbers(out) == [7], "no row of it is there yet"
        with pytest.warns(LossyConversionWarning, match="table 't': the column 'rank' holds"):
            store["t"].append_row({"step": 1, "loss": 0.5})
        store["t"].append_row({"step": 2, "loss": 0.5})
        assert store["t"]._state.append_plain({"step": 3, "loss": 0.5}), "the fast way"
    assert steps(out) == {None: [0], 0: [1, 2, 3]}


def test_a_column_rank_of_a_table_that_no_rank_wrote_is_the_users_own(
    out: Path, recwarn: pytest.WarningsRecorder
) -> None:
    cells = [(0, 8), (1, None), (2, 0)]
    for rank in (None, 0, None):
        with cox.Store(out, "run", rank=rank) as store:
            store.add_table("u", {"x": int}).append_row({"x": 1})
            store.log_params({"lr": 0.1, "rank": 8})
            if rank is None:
                rows(store, *cells)
    assert numbers(out) == [8, None, 0] * 2
    assert steps(out) == {None: [0, 1, 2] * 2}
    assert cox.Store(out, "run", mode="r").params == {"lr": 0.1, "rank": 8}
    with cox.Store(out, "run") as store:
        store.rewind("t", step=1)
        store.rewind("t", nrows=1)
    assert numbers(out) == [8]
    assert not recwarn.list


def test_ranks_that_left_nothing_leave_the_column_to_the_sole_writer(
    out: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for first in (0, 2):
        session(out, 0, first, first + 2)
        with cox.Store(out, "run") as store:
            store.rewind("t", step=0)
            store.add_table("t", {"step": int}).append_row({"step": 1})
    assert not recwarn.list, "there was nothing that could have been lost"
    with cox.Store(out, "run") as store:
        store.rewind("t", step=0)
        rows(store, (0, 5))
    assert numbers(out) == [5]


def test_other_tables_and_missing_steps_stay(out: Path) -> None:
    with cox.Store(out, "run", rank=1) as store:
        table = store.add_table("t", {"step": float | None, "name": str})
        for step in (0.5, None, 1.5, 2.5, None):
            table.append_row({"step": step, "name": "é"})
        store.add_table("u", {"step": int}).append_row({"step": 9})
    with cox.Store(out, "run") as store:
        store.rewind("t", step=np.float32(1.5))
        assert store["t"].df["step"].isna().tolist() == [False, True]
        assert len(store["u"].df) == 1
        with pytest.raises(RewindError, match="cannot count steps"):
            store.rewind("t", step=1, column="name")
        with pytest.raises(RewindError, match=r"has no column 'epoch'; there are \['step', 'name'"):
            store.rewind("t", step=1, column="epoch")
        with pytest.raises(RewindError, match="0 of its own.*step= for the rows of all processes"):
            store.rewind("t", nrows=1)
        store.rewind("t", step=-1)
        assert len(store["t"].df) == 0
    assert list(cox.Store(out, "run", mode="r").tables) == ["u"]


def test_a_table_that_is_rewound_to_nothing_is_declared_anew(out: Path) -> None:
    session(out, None, 0, 3)
    with cox.Store(out, "run", rank=0) as store:
        table = store.add_table("t", {"step": int})
        table.append_row({"step": 7})
        store.rewind("t", step=0)
        assert steps(out) == {}
        table.append_row({"step": 0})
        assert steps(out) == {0: [0]}
    assert steps(out) == {0: [0]}


KILLED = """
    import os, sys
    from cox.store import Store
    from cox.storage import fs

    at, calls = int(sys.argv[2]), 0
    def kill(name):
        plain = getattr(fs, name)
        def call(*args, **options):
            global calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), 9)
            result = plain(*args, **options)
            return result
        setattr(fs, name, call)
    store = Store(sys.argv[1], "run", rank=0)
    for name in ("rename", "unlink", "sync_file", "write_new", "create_once", "sync_directory"):
        kill(name)
    store.rewind("t", step=5)
    os._exit(7)
"""


def test_a_kill_in_the_middle_of_a_rewind_leaves_the_rows_of_others_as_they_were_or_rewound(
    out: Path,
) -> None:
    for rank in (0, 1, 2):
        session(out, rank, 0, 8)
    script = out.parent / "killed.py"
    script.write_text("\n".join(line[4:] for line in KILLED.splitlines()))
    whole, rewound = span(0, 8), span(0, 5)
    moments = set()
    (out / "run").rename(out / "before")
    for at in itertools.count(1, 4):
        shutil.rmtree(out / "run", ignore_errors=True)
        shutil.copytree(out / "before", out / "run")
        environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
        command = [sys.executable, os.fspath(script), os.fspath(out), str(at)]
        status = subprocess.run(command, env=environment, timeout=120, check=False).returncode
        there = steps(out)
        moments.add((there[0] == rewound, there[1] == rewound))
        assert there[1] == there[2]
        assert all(rows in (whole, rewound) for rows in there.values())
        if status == 7:
            assert there == dict.fromkeys(range(3), rewound)
            break
        assert status == -signal.SIGKILL
        assert at < 60
    assert (False, False) in moments


# --- Numbers


@pytest.mark.parametrize(
    "two", [2, 2.0, np.int64(2), np.uint8(2), np.float32(2), np.array(2), np.array([2])], ids=repr
)
def test_numbers_of_any_kind_are_taken(out: Path, two: Any) -> None:
    rank = 2 if type(two) is float else two  # which a float is not
    with cox.Store(out, "run", rank=rank) as store:
        table = store.add_table("t", {"step": int})
        for keyword in ("nrows", "step"):
            for step in range(table.nrows, 4):
                table.append_row({"step": step})
            store.tensorboard.add_scalar("x", 1.0, 0)
            store.rewind("t", **{keyword: two})
            assert repr(table.nrows) == "2"
    assert steps(out) == {2: [0, 1]}


def test_torchs_numbers_are_taken(out: Path) -> None:
    torch = pytest.importorskip("torch")
    test_numbers_of_any_kind_are_taken(out, torch.tensor(2))


@pytest.mark.parametrize("bad", ["2", None.__class__, True, float("nan"), np.array([1, 2]), [2]], ids=repr)
def test_what_is_not_a_number_is_refused(out: Path, bad: Any) -> None:
    store = cox.Store(out, "run")
    store.add_table("t", {"step": int}).append_row({"step": 1})
    for keyword in ("nrows", "step"):
        with pytest.raises(RewindError, match="is not a number"):
            store.rewind("t", **{keyword: bad})
    with pytest.raises(RewindError, match="nrows=2.5 is not a number of rows"):
        store.rewind("t", nrows=2.5)
    store.rewind("t", step=2.5)
    assert store["t"].nrows == 1
    with pytest.raises(ValueError, match="rank="):
        cox.Store(out, "other", rank=bad)
    store.close()
