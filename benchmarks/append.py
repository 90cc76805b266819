"""append_row of five columns: against a bare write of as many bytes, and against other ways to log."""

from __future__ import annotations

import csv
import functools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Contestant, Times, clock_cost, take_turns, time_calls
from benchmarks.report import Report, Target, ratio, seconds, size
from cox import Store

SCHEMA = {"step": int, "loss": float, "accuracy": float, "lr": float, "phase": str}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: Turns of each contestant.
        calls: Rows a turn.
        slow_calls: Rows a turn, for those where a row takes a millisecond.
        early: A row near the beginning …
        late: … and one near the end, whose costs are compared.
    """

    rounds: int
    calls: int
    slow_calls: int
    early: int
    late: int


SIZES = {
    "full": Sizes(rounds=40, calls=500, slow_calls=25, early=1000, late=1_000_000),
    "quick": Sizes(rounds=10, calls=200, slow_calls=10, early=1000, late=100_000),
    "tiny": Sizes(rounds=2, calls=10, slow_calls=2, early=20, late=300),
}


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure single rows, then many."""
    yield compare(sizes, folder / "peers")
    yield grow(sizes, folder)


def make_rows(count: int, start: int = 0) -> Iterator[Row]:
    """Rows as a training loop makes them: each just before it is logged."""
    for step in range(start, start + count):
        yield {
            "step": step,
            "loss": 2.302585 / (1 + 0.01 * step),
            "accuracy": 1 - 0.9 / (1 + 0.02 * step),
            "lr": 0.1 / (1 + 0.001 * step),
            "phase": "train" if step % 10 else "val",
        }


# --- One row


def compare(sizes: Sizes, folder: Path) -> Report:
    """Time single rows of every way to log."""
    record = _journalled_size(folder / "probe")
    ways: dict[str, Callable[[Path], AbstractContextManager[Contestant]]] = {
        "floor": functools.partial(_bare_write, count=record),
        "cox": _cox,
        "tensorboardx": _tensorboardx,
        "csv": _csv,
        "sqlite": _sqlite,
        "pytables": _pytables,
        "hdfstore": _hdfstore,
    }
    with ExitStack() as stack:
        found = {}
        for name, way in ways.items():
            (folder / name).mkdir()
            found[name] = stack.enter_context(way(folder / name))
            found[name].calls = sizes.slow_calls if name in ("pytables", "hdfstore") else sizes.calls
        take_turns(list(found.values()), sizes.rounds, warm_up=1)
    cox, floor = found["cox"], found["floor"]
    report = Report(
        "A row of 5 columns: int, 3 floats, str",
        ["", "median", "p99", "max", "against os.write", "against cox", "bytes on disk"],
        notes=[
            f"In the journal a row is {record} bytes, and the bare write writes as many.",
            "tensorboardX puts one scalar into a queue; HDFStore is upstream's way, and flushes nothing.",
            "Bytes on disk: those of the closed file, for each of its rows.",
        ],
    )
    for name, one in found.items():
        rows = one.calls * (sizes.rounds + 1)
        report.rows.append(
            [
                one.name,
                seconds(one.median),
                seconds(one.quantile(0.99)),
                seconds(one.quantile(1.0)),
                ratio(one.times_slower_than(floor)),
                ratio(one.times_slower_than(cox)),
                size(_bytes_in(folder / name) / rows),
            ]
        )
    report.targets = [Target("append_row against a bare os.write", cox.times_slower_than(floor), 4)]
    for name, lead in (("hdfstore", 300), ("pytables", 1), ("sqlite", 1), ("tensorboardx", 1)):
        slower = found[name].times_slower_than(cox)
        report.targets.append(Target(f"{found[name].name} against cox", slower, lead, at_least=True))
    return report


def _journalled_size(folder: Path) -> int:
    """Bytes that a row adds to the journal, on average over a thousand."""
    rows = make_rows(1001)
    with Store(folder, "run") as store:
        table = store.add_table("results", SCHEMA)
        table.append_row(next(rows))
        (journal,) = (folder / "run" / ".cox" / "journal").glob("*.log")
        before = journal.stat().st_size
        for row in rows:
            table.append_row(row)
        return round((journal.stat().st_size - before) / 1000)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _bare_write(folder: Path, count: int) -> Iterator[Contestant]:
    fd = os.open(folder / "bytes", os.O_CREAT | os.O_WRONLY, 0o666)
    data = os.urandom(count)
    # a partial is called without a Python frame of its own: the floor is the system call
    yield Contestant("a bare os.write", functools.partial(os.write, fd), prepare=lambda calls: [data] * calls)
    os.close(fd)


@contextmanager
def _cox(folder: Path) -> Iterator[Contestant]:
    with Store(folder, "run") as store:
        table = store.add_table("results", SCHEMA)
        yield Contestant("cox append_row", table.append_row, prepare=make_rows)


@contextmanager
def _hdfstore(folder: Path) -> Iterator[Contestant]:
    import pandas as pd

    nrows = 0
    with pd.HDFStore(str(folder / "store.h5"), mode="w") as store:

        def append(row: Row) -> None:
            nonlocal nrows
            store.append("results", pd.DataFrame([row], index=[nrows]), min_itemsize=16)
            nrows += 1

        yield Contestant("pandas HDFStore.append", append, prepare=make_rows)


@contextmanager
def _pytables(folder: Path) -> Iterator[Contestant]:
    import tables

    description = {
        "step": tables.Int64Col(),
        **{name: tables.Float64Col() for name in ("loss", "accuracy", "lr")},
        "phase": tables.StringCol(16),
    }
    with tables.open_file(str(folder / "rows.h5"), "w") as file:
        table = file.create_table("/", "results", description)

        def append(row: Row) -> None:
            cells = table.row
            for name, value in row.items():
                cells[name] = value
            cells.append()
            table.flush()

        yield Contestant("PyTables append + flush", append, prepare=make_rows)


@contextmanager
def _sqlite(folder: Path) -> Iterator[Contestant]:
    # isolation_level None: a statement is a transaction of its own, and commits
    database = sqlite3.connect(folder / "rows.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("CREATE TABLE results (step INTEGER, loss REAL, accuracy REAL, lr REAL, phase TEXT)")
    execute = database.execute

    def append(row: Row) -> None:
        execute("INSERT INTO results VALUES (?, ?, ?, ?, ?)", tuple(row.values()))

    yield Contestant("sqlite3 in WAL mode, commit", append, prepare=make_rows)
    database.close()


@contextmanager
def _csv(folder: Path) -> Iterator[Contestant]:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)

        def append(row: Row) -> None:
            writer.writerow(row.values())
            file.flush()

        yield Contestant("csv.writer + flush", append, prepare=make_rows)


@contextmanager
def _tensorboardx(folder: Path) -> Iterator[Contestant]:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder))

    def append(row: Row) -> None:
        writer.add_scalar("results/loss", row["loss"], row["step"])

    yield Contestant("tensorboardX add_scalar", append, prepare=make_rows, settle=writer.flush)
    writer.close()


# --- A million rows


def grow(sizes: Sizes, folder: Path) -> Report:
    """Log on and on: does a late row cost what an early one does, and how much time goes into folding?"""
    with Store(folder, "early") as early_store, _folds_timed(folder / "late") as folds:
        late_store = Store(folder, "late")
        table = late_store.add_table("results", SCHEMA)
        times = _fill(table.append_row, sizes.late)
        folds_while_logging = list(folds)
        early, late = _in_turns(early_store.add_table("results", SCHEMA), table, sizes.early)
        nrows = table.nrows
        start = time.perf_counter()
        late_store.close()
        closing = time.perf_counter() - start
    total = float(times.sum()) + closing
    report = Report(
        f"{sizes.late:,} rows",
        ["", ""],
        notes=[
            "Early and late rows are timed in turns, in two stores open at once.",
            "Folds are timed around cox.storage.fold.fold_locked, which closing calls, too.",
            "h5py, which the first fold of a process imports, is imported before the clock starts.",
        ],
    )
    report.rows = [
        [f"a row around row {sizes.early:,}, median", seconds(early.median)],
        [f"a row around row {sizes.late:,}, median", seconds(late.median)],
        ["all rows: median", seconds(float(np.median(times)))],
        ["all rows: p99", seconds(float(np.quantile(times, 0.99)))],
        ["all rows: longest, the one that folds", seconds(float(times.max()))],
        ["all rows: total with folds and closing", seconds(total)],
        ["all rows: total for each", seconds(total / sizes.late)],
        ["folds while logging", f"{len(folds_while_logging)} in {seconds(sum(folds_while_logging))}"],
        ["closing", seconds(closing)],
        ["store.h5 for each row", size((folder / "late" / "store.h5").stat().st_size / nrows)],
    ]
    report.targets = [
        Target(f"row {sizes.late:,} against row {sizes.early:,}", late.times_slower_than(early), 1.2),
        Target("share of the time spent folding", 100 * sum(folds) / total, 25, unit="%"),
    ]
    return report


def _fill(append: Callable[[Row], object], count: int) -> Times:
    clock, chunk = clock_cost(), 10_000
    parts = [
        time_calls(append, make_rows(min(chunk, count - start), start)) for start in range(0, count, chunk)
    ]
    return np.maximum(np.concatenate(parts) - clock, 1e-9)


def _in_turns(young: Any, old: Any, early: int) -> tuple[Contestant, Contestant]:
    """Time a table from row `early` / 2 to 1.5 × `early`, and another that is far beyond, in turns."""
    for row in make_rows(early // 2):
        young.append_row(row)
    calls = max(1, early // 20)
    contestants = (
        Contestant("early", young.append_row, calls, make_rows),
        Contestant("late", old.append_row, calls, make_rows),
    )
    take_turns(contestants, rounds=20, warm_up=0)
    return contestants


@contextmanager
def _folds_timed(run_folder: Path) -> Iterator[list[float]]:
    """Seconds of each fold of one run, while the block runs."""
    from cox.storage import fold  # and with it h5py: a process's first fold would import it

    taken: list[float] = []
    original = fold.fold_locked

    def timed(run: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(run, **options)
        finally:
            if run.root == run_folder:
                taken.append(time.perf_counter() - start)

    setattr(fold, "fold_locked", timed)  # noqa: B010 - for the type checker, a function is no variable
    try:
        yield taken
    finally:
        setattr(fold, "fold_locked", original)  # noqa: B010
