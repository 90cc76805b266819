"""The row of a table that is being filled, from its first value until it is flushed or dropped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cox.errors import LossyConversionWarning, RepeatedMetadataWarning, RowError, StorageError, warn
from cox.schema import Column, type_name
from cox.storage import fs, layout
from cox.store.cells import Cells, PendingFile, discard

if TYPE_CHECKING:
    from cox.storage.writer import TableState
    from cox.store.open_run import OpenRun

_log = logging.getLogger("cox")


class WorkingRow:
    """The working row of a table that is open for writing.

    Args:
        run: The run.
        state: The table.

    Attributes:
        state: The table, as its writer knows it.
        cells: What was filled so far, by column.
        converter: What makes cells of values.
    """

    __slots__ = ("_has_warned", "_is_detached", "_name", "_refusal", "_run", "cells", "converter", "state")

    def __init__(self, run: OpenRun, state: TableState) -> None:
        self.state = state
        self.cells: dict[str, Any] = {}
        self.converter = Cells(run, state)
        self._run = run
        self._name = state.name
        self._refusal: StorageError | None = None  # of a value that cannot be stored
        self._is_detached = False
        self._has_warned = False

    def writable(self) -> TableState:
        """The table, which can be written.

        Raises:
            ClosedError: The store was closed, or nothing is left of the table.
        """
        if self._is_detached:
            self._run.writing()  # says that it is closed
        self.state.check_current()
        return self.state

    @property
    def is_given_up(self) -> bool:
        """Whether the row will not be stored, whatever else it gets."""
        return self._refusal is not None

    # --- Filling it

    def append(self, data: Mapping[str, Any]) -> None:
        """Write the row with these values, or nothing at all. As `Table.append_row`."""
        with self.writable().writer.lock:  # rows of threads that log to one table do not mix
            if self._refusal is not None:
                self.flush()
                return
            # the working row takes nothing before the row is written: what fails leaves no half of
            # itself, and a signal handler that logs in between writes no half of this row
            cells: dict[str, Any] = {}
            try:
                cells = self.converter.of_row(data)
                self._write({**self.cells, **cells})
            except StorageError as error:
                discard(cells.values())
                self._give_up(error)
            except RowError:
                discard(cells.values())
                raise

    def update(self, data: Mapping[str, Any]) -> None:
        """Fill columns of the row. As `Table.update_row`."""
        if self._refusal is None:
            with self.tolerating():
                self.writable()
                self._put(self.converter.of_row(data))

    def flush(self) -> None:
        """Write the row for good and begin a new one. As `Table.flush_row`."""
        if self._refusal is not None:
            self._give_up(self._refusal)
            return
        try:
            self._write(self.cells)
        except StorageError as error:
            self._give_up(error)

    def drop(self) -> None:
        """Give up what was filled."""
        discard(self.cells.values())
        self.cells, self._refusal = {}, None

    def detach(self) -> None:
        """Let go of the table, because the store is closed, and of what was filled."""
        self.drop()
        self._is_detached = True

    @contextlib.contextmanager
    def tolerating(self) -> Iterator[None]:
        """Under on_error='warn', give the row up for what the file system refuses of it."""
        try:
            yield
        except StorageError as error:
            if not self._run.warns:
                raise
            self._refusal = error

    @contextlib.contextmanager
    def prepared(self, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Convert values to cells, and put them into the working row unless the block raises."""
        self.writable()
        cells = self.converter.of_row(data)
        try:
            yield cells
        except BaseException:
            discard(cells.values())
            raise
        self._put(cells)

    def _put(self, cells: dict[str, Any]) -> None:
        """Put cells into the row, in the place of what was there."""
        discard(self.cells[name] for name in cells if name in self.cells)
        self.cells.update(cells)

    def _give_up(self, error: StorageError) -> None:
        """Under on_error='warn', go on with the next row. Otherwise raise `error`, and keep the row."""
        if not self._run.warns:
            raise error
        self.drop()
        self._run.give_up_row(self._name, error)

    # --- Writing it

    def _write(self, row: dict[str, Any]) -> None:
        """Write a row for good, which has all of the working row, and begin a new one."""
        state = self.writable()
        columns = state.writer.own_columns(state.schema)
        missing = [c.name for c in columns if c.name not in row and not c.nullable]
        if missing:
            optional = f"{type_name(state.schema.get(missing[0]).type)} | None"  # type: ignore[union-attr]
            raise RowError(
                f"table {self._name!r}: the row lacks {missing}; give them a value, or declare a column that "
                f"a row may leave out as `{optional}`"
            )
        working, before = self.cells, state.nrows
        if state.logged_before and self._was_logged(row, columns):
            discard([*row.values(), *working.values()])
            self.cells = {}
            return
        if state.takes_rank:
            self._take_rank(state)
        try:
            state.append(tuple(self._finished(row.get(c.name)) for c in columns))
        finally:
            if state.nrows > before:  # also where the fold after it was interrupted
                discard(cell for name, cell in working.items() if row.get(name) is not cell)
                if working and self.cells is working:
                    self.cells = {}

    def _finished(self, cell: Any) -> Any:
        """What goes into the journal for a cell; an object's file gets its name before its row is written."""
        if not isinstance(cell, PendingFile):
            return cell
        try:
            return cell.finish(sync=self.writable().writer.sync)
        except OSError as error:
            raise fs.refused(error, f"cannot store an object of table {self._name!r}", cell.path) from error

    def _take_rank(self, state: TableState) -> None:
        """Say that the sole writer's own values in a column `rank` are gone from this row on."""
        state.takes_rank = False
        state.forget_declaration()  # with the next one rows go the fast way
        data = self._run.read_table(self._name)
        column = None if data is None else data.schema.get(layout.RANK_COLUMN)
        missing = None if data is None or column is None else data.mask(column)
        if column is None or (missing is not None and missing.all()):
            return
        warn(
            f"run {self._run.path}: table {self._name!r}: the column 'rank' holds the number of the rank "
            "that wrote a row, and what the sole writer stored there before is missing from now on; give a "
            "column of your own another name",
            LossyConversionWarning,
        )

    def _was_logged(self, row: dict[str, Any], columns: list[Column]) -> bool:
        """Whether an earlier session has logged this row of metadata. Warns if all of its rows are others."""
        from cox.store import repeats

        name, path = self._name, self._run.path
        changes = repeats.changes(self._run, self.writable(), columns, row)
        if [] in changes:
            _log.info("run %s: an earlier session has logged this row of %r", path, name)
            return True
        if changes and not self._has_warned:
            self._has_warned = True
            warn(
                f"run {path}: {name!r} has a row of an earlier session: {'; '.join(changes[0])}. "
                "This one is added, and a join with the table has each row of the run twice. To have other "
                "parameters refused, use store.log_params; to have both, begin a run of another name",
                RepeatedMetadataWarning,
            )
        return False
