"""Event files out of tables that were never sent to TensorBoard, made on the fly and kept up to date."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crc32c
import numpy as np

from cox import metadata, progress, steps
from cox.errors import (
    CollectionWarning,
    CoxError,
    DamagedError,
    FormatVersionError,
    ViewError,
    unknown,
    warn,
)
from cox.objects.trust import Trust
from cox.storage import layout, runinfo, snapshot
from cox.storage.columns import Array, TableData
from cox.storage.scan import State, state_of
from cox.storage.sessions import RUNNING
from cox.storage.status import status_of
from cox.tensorboard import summaries
from cox.tensorboard.view import names
from cox.tensorboard.view.scratch import Scratch
from cox.tensorboard.view.selection import Shown

if TYPE_CHECKING:
    from cox.tensorboard.eventfile import EventFile

#: The column that says when a row was written, in seconds since 1970.
TIME_COLUMNS = ("wall_time", "timestamp", "time")
#: How many rows are turned into numbers of Python's at once.
_BLOCK = 10_000
#: A table, and a rank if there are several.
_Key = tuple[str, "int | None"]
#: A time before this one, in 1973, is no time of day.
_NO_TIME = 1e8
#: Nor is one behind this, in the year 5138.
_FAR_TIME = 1e11


@dataclass(slots=True)
class _Points:
    """The scalars of one table of a run, or of what one rank wrote of it.

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
    """What was made of a run in some state.

    Attributes:
        folder: The directory of its event file.
        state: The state; None if nothing was made.
        rows: How many rows of each table and rank, and their checksum.
        until: The time of the last row of each, where it was made up.
        file: Where it is.
        has_params: Whether the parameters for the HParams tab are in it.
    """

    folder: Path
    state: State | None = None
    rows: dict[_Key, tuple[int, int]] = field(default_factory=dict)
    until: dict[_Key, float] = field(default_factory=dict)
    file: EventFile | None = None
    has_params: bool = False


class TableEvents(Scratch):
    """A temporary directory of event files. It is there from the beginning, and gone after the block.

    Args:
        tables: The tables whose numbers are to be seen, under tags `table/column`.
        metadata_table: The table of the parameters, for the HParams tab.

    Attributes:
        tables: The tables.
    """

    def __init__(self, tables: Sequence[str], metadata_table: str = metadata.METADATA) -> None:
        super().__init__("cox-tables-")
        self.tables = tables
        self._metadata = metadata_table
        self._made: dict[str, _Made] = {}
        self._numbers: dict[str, int] = {}
        self._known: set[str] = set()
        self._told: set[str] = set()

    def targets(self, shown: Iterable[Shown]) -> dict[str, Path]:
        """The directories of event files of these runs by name, with all rows that there are by now."""
        made = {}
        listed = list(shown)
        for one in progress.shown(listed, len(listed), "drawing"):
            self._update(one)
            made[one.name] = self._made[one.exp_id].folder
        return made

    def check(self, shown: Sequence[Shown]) -> None:
        """Refuse tables that none of the runs has; warn of those that a run which is being written may get.

        Args:
            shown: The runs; there may be none yet.

        Raises:
            ViewError: There is one; says which there are.
        """
        lacking = [table for table in self.tables if table not in self._known] if shown else []
        is_running = lacking and any(status_of(one.run).state == RUNNING for one in shown)
        for table in lacking:
            known = sorted(self._known)
            if not is_running:
                raise ViewError(unknown("--from-tables: no run has a table", table, known))
            warn(unknown("no run has a table", table, known, " yet"), CollectionWarning)

    def _update(self, one: Shown) -> None:
        run, name = one.run, one.exp_id
        if name not in self._made or not self._made[name].folder.is_dir():
            self._begin(name)
        made = self._made[name]
        state = None
        try:
            state = state_of(os.fspath(run.root), made.state)
            if state == made.state:
                return
            now = snapshot.read(run, tables=[*self.tables, self._metadata])
            span = _span(run, state)
        except (CoxError, OSError) as error:  # it stays as it is, until it can be read
            said = f"run {name} is shown as it was, if at all: {error}"
            if said not in self._told:
                self._told.add(said)
                warn(said, CollectionWarning)
            if isinstance(error, (DamagedError, FormatVersionError)):
                made.state = state  # which no second look would change
            return
        self._known.update(now.tables)
        points: dict[_Key, _Points] = {}
        for table in self.tables:
            if table in now.tables:
                points.update(_points(now, now.tables[table]))
        if not all(_is_part_of(points, key, *known) for key, known in made.rows.items()):
            self._begin(name)  # the run went back: what was drawn of it is no longer so
            made = self._made[name]
        try:
            table_of_params = None if made.has_params else now.tables.get(self._metadata)
            params = metadata.parameters(
                table_of_params, run, Trust(run), is_ranked=now.has_ranks(self._metadata)
            )
            self._write(made, points, params, span)
        except OSError:
            del self._made[name]  # nobody knows how much of it got there: it is begun anew
            raise
        made.state = state

    def _write(
        self,
        made: _Made,
        points: Mapping[_Key, _Points],
        params: Mapping[str, Any],
        span: tuple[float, float],
    ) -> None:
        """Draw what is not drawn yet. The file is closed after it: one for each run would be too many."""
        from cox.tensorboard.eventfile import EventFile

        fresh = {key: made.rows.get(key, (0, 0))[0] for key in points}
        count = sum(max(0, len(points[key].steps) - start) for key, start in fresh.items())
        if not params and not count:
            return
        if made.file is None:
            made.file = EventFile(os.fspath(made.folder))
        try:
            if params:
                made.file.add_event(summaries.of_values(summaries.hparams(params), 0, time.time()))
                made.has_params = True
            for key, found in points.items():
                times = _times_between(found, fresh[key], made.until.get(key, span[0]), span[1])
                drawn = progress.shown(_events(found, fresh[key], times), count, "drawing", "row")
                made.file.add_events(drawn)
                made.rows[key] = len(found.steps), found.checksum(len(found.steps))
                if len(times):
                    made.until[key] = float(times[-1])
        finally:
            made.file.close()

    def _begin(self, name: str) -> None:
        self.renew()
        # numbered, because the names of runs deeper down are paths
        number = self._numbers.setdefault(name, len(self._numbers))
        folder = self.path / f"{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        self._made[name] = _Made(folder)


def _is_part_of(points: Mapping[_Key, _Points], key: _Key, nrows: int, checksum: int) -> bool:
    """Whether what was drawn of a table is there as it was."""
    return key in points and points[key].checksum(nrows) == checksum


def _points(now: snapshot.Snapshot, table: TableData) -> Iterator[tuple[_Key, _Points]]:
    """The scalars of a table, of each rank by itself. Columns that say when are none."""
    columns = {column.name: column for column in table.schema if column.traits.is_number}
    counting = now.step_column(table.name, steps.candidates(columns))
    step = None if counting is None else table.numbers(columns[counting])
    clock = next((columns[name] for name in TIME_COLUMNS if name in columns), None)
    times = None if clock is None else _times(*table.numbers(clock))
    hidden = {
        counting: step is not None,
        layout.RANK_COLUMN: now.has_ranks(table.name),
        clock and clock.name: times is not None,
    }
    shown = [column for column in columns.values() if not hidden.get(column.name)]
    cells = [table.numbers(column) for column in shown]
    for rank, rows in now.by_rank(table.name):
        rows, places = _placed(rows, step)
        mark = "" if rank is None else f" (rank {rank})"
        yield (
            (table.name, rank),
            _Points(
                [f"{names.tag(table.name, column.name)}{mark}" for column in shown],
                places.astype(np.int64),
                None if times is None else times[rows],
                [values[rows] for values, _ in cells],
                [None if missing is None else missing[rows] for _, missing in cells],
            ),
        )


def _placed(rows: Array, step: tuple[Array, Array | None] | None) -> tuple[Array, Array]:
    """The rows that have a place along the axis, and their places: steps, or the numbers of the rows."""
    if step is None:
        return rows, np.arange(len(rows), dtype=np.float64)
    values, missing = step
    rows = rows[steps.are_steps(values, missing)[rows]]
    return rows, values[rows]


def _times(times: Array, missing: Array | None) -> Array | None:
    """When rows were written; None if that is not what the numbers say. Between two times, in proportion."""
    known = np.isfinite(times) if missing is None else np.isfinite(times) & ~missing
    while (times[known] > _FAR_TIME).any():  # in milliseconds, or in less
        times = times / 1000
    if not known.any() or (times[known] < _NO_TIME).any():
        return None
    if known.all():
        return times
    return np.interp(np.arange(len(times)), np.flatnonzero(known), times[known])


def _span(run: layout.RunLayout, state: State) -> tuple[float, float]:
    """When the first and the last row of a run were written, as far as is known, in seconds since 1970."""
    info = runinfo.read(run)
    written = state.written / 1e9
    end = written if info.get("state") == "running" else _time(info.get("ended"), written)
    return min(_time(info.get("created"), end), end), end


def _time(value: Any, otherwise: float) -> float:
    """A time that a run tells of itself; another, if it is not one."""
    return float(value) if isinstance(value, (int, float)) and _NO_TIME < value < _FAR_TIME else otherwise


def _times_between(points: _Points, row: int, start: float, end: float) -> Array:
    """When the rows from one on were written; evenly spread, where nobody knows."""
    if points.times is not None:
        return points.times[row:]
    return np.linspace(start, max(start, end), max(0, len(points.steps) - row) + 1)[1:]


def _events(points: _Points, start: int, times: Array) -> Iterator[Any]:
    """An event for each row from `start` on, with all its columns."""
    for first in range(start, len(points.steps), _BLOCK):
        block = slice(first, first + _BLOCK)
        columns = [values[block].tolist() for values in points.values]
        missing = [None if cells is None else cells[block].tolist() for cells in points.missing]
        rows = zip(points.steps[block].tolist(), times[first - start :][:_BLOCK].tolist(), strict=True)
        for row, (step, when) in enumerate(rows):
            values = {
                tag: cells[row]
                for tag, cells, gaps in zip(points.tags, columns, missing, strict=True)
                if gaps is None or not gaps[row]
            }
            yield summaries.of_scalars(values, step, when)
