"""A program's values as the cells of a table, and the files of those that are objects."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox.errors import CoxError, LossyConversionWarning, RowError, unknown, warn
from cox.objects import codec
from cox.objects.signing import Origin
from cox.schema import Column, as_mapping, convert, shown, type_name
from cox.storage import fs, layout

if TYPE_CHECKING:
    from cox.storage.writer import TableState
    from cox.store.open_run import OpenRun


class PendingFile:
    """An object's file that has no row yet: at `path`, a temporary one, until the row is flushed."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name

    def finish(self, *, sync: bool) -> str:
        """Give the file its name, after its bytes are safe if `sync` is set; harmless a second time."""
        final = self.path.with_name(self._name)
        if self.path != final:
            if sync:
                fs.sync_file(self.path)
            fs.rename(self.path, final)
            self.path = final
            if sync:
                fs.sync_directory(final.parent)
        return self._name

    def discard(self) -> None:
        """Remove the file: its value was replaced, or its row was never flushed."""
        with contextlib.suppress(OSError):  # then it stays, and costs its space
            fs.unlink(self.path)


def discard(cells: Iterable[Any]) -> None:
    """Remove the files of cells that will not be in a row."""
    for cell in cells:
        if isinstance(cell, PendingFile):
            cell.discard()


class Cells:
    """Converts values to the cells of one table. Of each column that loses something it warns once."""

    def __init__(self, run: OpenRun, state: TableState) -> None:
        self._run = run
        self._state = state
        self._name = state.name
        self._warned: set[str] = set()

    def of_row(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Convert values to cells of a row of this process, whose `rank` is no other's."""
        cells = self.of(data)
        if layout.RANK_COLUMN in cells:
            try:
                cells[layout.RANK_COLUMN] = self._rank_cell(cells[layout.RANK_COLUMN])
            except BaseException:
                discard(cells.values())
                raise
        return cells

    def _rank_cell(self, given: Any) -> Any:
        """What a row of this process holds for a column `rank` that it gives a value itself."""
        state = self._state
        rank = state.writer.rank
        if rank is not None and given != rank:
            raise RowError(f"table {self._name!r}: rank is {rank} in this process, not {given}")
        if rank is not None or not state.has_ranks or given is None:
            return given
        self._run.warn_of_rank(self._name, given)
        return None

    def of(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Convert values to cells. Files of objects are written under temporary names."""
        schema = self._state.schema
        row = as_mapping(data)
        if row is None:
            raise RowError(
                f"table {self._name!r}: a row is a mapping of column names to values, not {shown(data)}; "
                f"the columns are {list(schema.names())}"
            )
        if others := [name for name in row if name not in schema]:
            raise RowError(unknown(f"table {self._name!r} has no column", others[0], schema.names()))
        cells: dict[str, Any] = {}
        try:
            for name, value in row.items():
                column = schema.get(name)
                if column is not None:
                    cells[name] = self._cell(column, value)
        except BaseException:
            discard(cells.values())
            raise
        return cells

    def _cell(self, column: Column, value: Any) -> Any:
        if column.traits.in_file:
            return self._file_cell(column, value)
        if column.traits.in_cell:
            if value is None and column.nullable:
                return None
            return self._stored(column, value, codec.to_text)
        made, lossy = convert(value, column, table=self._name)
        if lossy and column.name not in self._warned:
            self._warned.add(column.name)
            warn(
                f"table {self._name!r}, column {column.name!r}: {shown(value)} became {made!r}; "
                "later values of this column may lose something too, without a further warning",
                LossyConversionWarning,
            )
        return made

    def _file_cell(self, column: Column, value: Any) -> Any:
        if value is None and column.nullable:
            return None
        write = codec.write_torch if column.traits.by_torch else codec.write_pickle
        self._state.check_current()
        writer = self._state.writer
        with writer.lock:
            writer.check_place()  # a file is made: what this costs does not count
        directory = writer.run.objects_dir
        path = fs.temporary_beside(directory / column.kind)
        checksum = self._stored(column, value, lambda obj, origin: write(obj, path, origin))
        return PendingFile(path, layout.payload_name(str(uuid.uuid4()), checksum))

    def _stored(self, column: Column, value: Any, store: Any) -> Any:
        origin = Origin(self._state.writer.run_id, self._name, column.name)
        try:
            return store(value, origin)
        except CoxError:
            raise
        except OSError as error:
            doing = f"cannot store an object of table {self._name!r}"
            raise self._state.writer.refusal(error, doing) from error
        except Exception as error:
            raise RowError(
                f"table {self._name!r}, column {column.name!r}: a {type(value).__qualname__} cannot be "
                f"stored as {type_name(column.type)}: {error}"
            ) from error
