"""Event files out of tables that were never sent to TensorBoard, made on the fly and kept up to date."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import crc32c
import numpy as np

from cox import events
from cox.collection.scan import State, state_of
from cox.errors import CoxError, ViewError, did_you_mean
from cox.schema import Column
from cox.storage import layout, snapshot
from cox.storage.columns import Array, TableData
from cox.view.selection import Shown

if TYPE_CHECKING:
    from cox.eventfile import EventFile

#: The column that counts the steps, if a table has one of these; else the row's number does.
STEP_COLUMNS = ("step", "global_step", "iteration", "epoch")
#: The column that says when a row was written, in seconds since 1970.
TIME_COLUMNS = ("wall_time", "timestamp", "time")
#: A time before this one, in 1973, is no time of day.
_NO_TIME = 1e8


@dataclass(slots=True)
class _Points:
    """The scalars of one table of a run.

    Attributes:
        tags: Of each column.
        steps: Of shape (nrows,).
        times: Of shape (nrows,), in seconds since 1970; None where nobody knows.
        values: By column, of shape (nrows,).
        missing: By column which of them are missing.
    """

    tags: list[str]
    steps: Array
    times: Array | None
    values: list[Array]
    missing: list[Array | None]

    def checksum(self, nrows: int) -> int:
        """Of the first rows, so that others in their place are noticed."""
        checksum = crc32c.crc32c(np.ascontiguousarray(self.steps[:nrows]).tobytes())
        for values in self.values:
            checksum = crc32c.crc32c(np.ascontiguousarray(values[:nrows]).tobytes(), checksum)
        return int(checksum)


@dataclass(slots=True)
class _Made:
    """What was made of a run in some state: how many rows of each table, and their checksum."""

    file: EventFile
    state: State | None = None
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)


class TableEvents:
    """A temporary directory of event files. It is there from the beginning, and gone after the block.

    Args:
        tables: The tables whose numbers are to be seen, under tags `table/column`.
    """

    def __init__(self, tables: Sequence[str]) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="cox-tables-"))
        self._tables = tables
        self._made: dict[str, _Made] = {}
        self._known: set[str] = set()

    def targets(self, shown: Iterable[Shown]) -> dict[str, Path]:
        """The directories of event files of these runs by name, with all rows that there are by now."""
        made = {}
        for one in shown:
            self._update(one.run)
            made[one.name] = self._root / one.run.root.name
        return made

    def check(self) -> None:
        """Refuse tables that none of the runs has.

        Raises:
            ViewError: There is one; says which there are.
        """
        for table in self._tables:
            if table not in self._known:
                raise ViewError(
                    f"--from-tables: no run has a table {table!r}; there are {sorted(self._known)}"
                    f"{did_you_mean(table, self._known)}"
                )

    def __enter__(self) -> TableEvents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for made in self._made.values():
            made.file.close()
        shutil.rmtree(self._root)

    def _update(self, run: layout.RunLayout) -> None:
        name = run.root.name
        if name not in self._made:
            self._begin(name)
        made = self._made[name]
        try:
            state = state_of(os.fspath(run.root), made.state)
            if state == made.state:
                return
            tables = snapshot.read(run, tables=self._tables).tables
        except (CoxError, OSError):
            return  # it stays as it is, until it can be read
        self._known.update(tables)
        points = {table: _points(tables[table]) for table in self._tables if table in tables}
        if any(found.checksum(nrows) != checksum for found, nrows, checksum in _known_rows(made, points)):
            self._begin(name)  # the run went back: what was drawn of it is no longer so
            made = self._made[name]
        for table, found in points.items():
            before, _ = made.rows.get(table, (0, 0))
            for event in _events(found, before):
                made.file.add_event(event)
            made.rows[table] = len(found.steps), found.checksum(len(found.steps))
        made.state = state

    def _begin(self, name: str) -> None:
        from cox.eventfile import EventFile

        folder = self._root / name
        if name in self._made:
            self._made[name].file.close()
            shutil.rmtree(folder)
        self._made[name] = _Made(EventFile(os.fspath(folder)))


def _known_rows(made: _Made, points: Mapping[str, _Points]) -> Iterator[tuple[_Points, int, int]]:
    for table, (nrows, checksum) in made.rows.items():
        if table in points:
            yield points[table], nrows, checksum


def _points(table: TableData) -> _Points:
    """The scalars of a table. Columns that say when are none."""
    columns = {column.name: column for column in table.schema if column.kind in ("int", "float", "bool")}
    step = next((columns[name] for name in STEP_COLUMNS if name in columns), None)
    time = next((columns[name] for name in TIME_COLUMNS if name in columns), None)
    rank = columns.get(layout.RANK_COLUMN)
    shown = [column for column in columns.values() if column not in (step, time, rank)]
    steps = np.arange(table.nrows) if step is None else _numbers(table, step)[0].astype(np.int64)
    times = None if time is None else _numbers(table, time)[0]
    if times is not None and (times < _NO_TIME).any():
        times, shown = None, [*shown, *([time] if time is not None else [])]
    found = [_numbers(table, column) for column in shown]
    return _Points(
        [f"{table.name}/{column.name}" for column in shown],
        steps,
        times,
        [values for values, _ in found],
        [missing for _, missing in found],
    )


def _numbers(table: TableData, column: Column) -> tuple[Array, Array | None]:
    values, missing = table.column(column)
    return values.astype(np.float64), missing


def _events(points: _Points, start: int) -> Iterator[Any]:
    """An event for each row from `start` on, with all its columns."""
    for row in range(start, len(points.steps)):
        values = {
            tag: float(values[row])
            for tag, values, missing in zip(points.tags, points.values, points.missing, strict=True)
            if missing is None or not missing[row]
        }
        when = float(row) if points.times is None else float(points.times[row])
        yield events.of_scalars(values, int(points.steps[row]), when)
