"""Invariants: what must hold of a run at any moment, whatever its writers were doing, and when it was closed.

Each check raises AssertionError with what it found. A warning of damage is an error in a test where warnings
are; elsewhere `cox.integrity.verify`, which `check_run` calls, finds the same.

Example:
    After a kill, where two rows had been acknowledged and the third may or may not have been written:

    >>> rows = [{"step": 0}, {"step": 1}, {"step": 2}]
    >>> invariants.check_run(run, {"results": rows[:2]}, {"results": rows})
    0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cox.integrity.verify import verify
from cox.readers import CollectionReader
from cox.schema import OBJECT, PICKLE
from cox.storage import layout
from cox.store import Store
from cox.testing.model import Rows, State, comparable

#: What a run must hold: a `State` of the model, or rows by table alone. None stands for a missing cell, and
#: so does a column that a row does not have.
Expected = Mapping[str, Any]


def check_run(run: str | Path, acknowledged: Expected, *or_else: Expected, closed: bool = False) -> int:
    """Check that a run holds what it must: each row once, in order, and readable by whoever reads it.

    A Store and a CollectionReader see the same rows, pandas opens the store file, and `verify` says that the
    run is whole.

    Args:
        run: The run's directory.
        acknowledged: The rows of which the program was told that they are stored. A table without rows may
            be left out.
        or_else: What the run may hold as well: the same after the operation that was under way at a kill.
        closed: Whether all its writers have closed it. Then nothing is left over, and the store file has all
            rows.

    Returns:
        Which of these the run holds: 0 for `acknowledged`, 1 for the first of `or_else`.

    Raises:
        AssertionError: Something does not hold.
    """
    run = Path(run)
    state = observe(run.parent, run.name)
    allowed = [_rows(expected) for expected in (acknowledged, *or_else)]
    present = _rows(state)
    _check(present in allowed, f"{run} holds {present}, and should hold {allowed}")
    check_readers_agree(run, state)
    nrows = {name: len(frame) for name, frame in frames_of(run).items() if len(frame)}
    report = verify(run)
    _check(report.ok, f"{run} is damaged: {report.findings}")
    if closed:
        _check(leftovers(run) == [], f"{run} was closed, and has {leftovers(run)}")
        expected = {name: len(rows) for name, (_, rows) in state.items()}
        _check(nrows == expected, f"{run} was closed, and store.h5 has {nrows} rows of {expected}")
    return allowed.index(present)


def observe(folder: Path, exp_id: str, **options: Any) -> State:
    """Return what a reader finds in a run.

    Args:
        folder: The folder of runs.
        exp_id: The run.
        options: For the Store.
    """
    with Store(folder, exp_id, mode="r", **options) as store:
        state = {name: plain_rows(store, name) for name in list(store.tables)}
    return {name: (columns, rows) for name, (columns, rows) in state.items() if rows}


def plain_rows(store: Store, name: str) -> tuple[tuple[str, ...], Rows]:
    """Return a table's columns, and its rows as a user gets them: objects decoded, None for what is missing.

    Args:
        store: The store.
        name: The table.
    """
    table = store[name]
    frame, schema = table.df, table.schema
    _check(list(frame.index) == list(range(len(frame))), f"table {name!r}: rows numbered {frame.index}")
    columns: dict[str, list[Any]] = {}
    for column in map(str, frame):
        values = frame[column].astype(object).where(frame[column].notna(), None).tolist()
        decode = {OBJECT: table.get_object, PICKLE: table.get_pickle}.get(schema[column])
        columns[column] = [comparable(decode(value)) for value in values] if decode else values
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return tuple(columns), rows


def check_readers_agree(run: Path, state: State) -> None:
    """Check that a CollectionReader sees what a Store sees.

    Args:
        run: The run's directory.
        state: What a Store sees.

    Raises:
        AssertionError: It does not.
    """
    with CollectionReader(run.parent, log_warnings=False, exp_filter=lambda name: name == run.name) as reader:
        for name, (columns, rows) in state.items():
            objects = [column for column in columns if isinstance(rows[0][column], dict)]
            frame = reader.df(name, keep_serialized=objects)
            _check(tuple(frame) == (*columns, "exp_id"), f"table {name!r}: a reader sees {tuple(frame)}")
            for column in columns:
                if column not in objects:
                    cells = frame[column].astype(object).where(frame[column].notna(), None).tolist()
                    expected = [row[column] for row in rows]
                    _check(cells == expected, f"column {column!r} of {name!r}: a reader sees {cells}")


def frames_of(run: Path) -> dict[str, pd.DataFrame]:
    """Return what pandas reads of a run's store file, by table.

    Args:
        run: The run's directory.
    """
    path = layout.RunLayout(run).store_file
    with pd.HDFStore(path, "r") as opened:
        return {key.lstrip("/"): opened[key] for key in opened.keys()}  # noqa: SIM118 - it is not a dict


def leftovers(run: Path) -> list[str]:
    """Return what a clean close must not leave: unfinished files and journals.

    Args:
        run: The run's directory.
    """
    journals = layout.RunLayout(run).journal_dir
    return sorted(
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.name.startswith(layout.TEMPORARY_PREFIX)
        or (path.parent == journals and path.suffix != layout.NEWEST_SUFFIX)
    )


def _rows(expected: Expected) -> dict[str, Rows]:
    """Rows without their missing cells, of the tables that have any."""
    listed = {name: _listed(given) for name, given in expected.items()}
    return {
        name: [{c: comparable(value) for c, value in row.items() if value is not None} for row in rows]
        for name, rows in listed.items()
        if rows
    }


def _listed(given: Any) -> Sequence[Mapping[str, Any]]:
    """The rows of a table, of which the columns may stand before them."""
    rows: Sequence[Mapping[str, Any]] = given[1] if isinstance(given, tuple) else given
    return rows


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
