"""Metadata that a resumed script logs again: whether a row says what one of an earlier session has said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cox.errors import RowError
from cox.objects import codec
from cox.objects.trust import place_of
from cox.schema import Column, convert, shown
from cox.storage import fs, layout
from cox.store.cells import PendingFile

if TYPE_CHECKING:
    from pathlib import Path

    from cox.storage.snapshot import Snapshot
    from cox.storage.writer import TableState
    from cox.store.open_run import OpenRun

Row = dict[str, Any]


def changes(run: OpenRun, state: TableState, columns: list[Column], row: Row) -> list[list[str]]:
    """In what a row of metadata differs from each that this process has logged in earlier sessions.

    Args:
        run: The run.
        state: The table.
        columns: The columns that rows of this process have.
        row: The row, as it is about to be written.
    """
    now = run.snapshot(tables=[state.name])
    ranked = now.has_ranks(state.name)
    columns = [c for c in columns if not (ranked and c.name == layout.RANK_COLUMN)]
    cells = {name: cell.path if isinstance(cell, PendingFile) else cell for name, cell in row.items()}
    directory = run.layout.objects_dir

    def is_same_object(column: Column, before: Any, after: Any) -> bool:
        return _is_same_object(run, state.name, column, before, after)

    return [
        differences(columns, earlier, cells, directory, is_same_object)
        for earlier in rows_of(now, state.name, state.logged_before)
    ]


def _is_same_object(run: OpenRun, table: str, column: Column, before: Any, after: Any) -> bool:
    """Whether a stored cell and one that is to be stored stand for equal objects."""
    trust, place = run.trust, place_of(run.layout, table, column.name)
    try:
        if column.traits.in_cell:
            return bool(codec.from_text(before, trust, place) == codec.from_text(after, trust, place))
        stored = codec.read_pickle(run.layout.objects_dir / before, trust, place)
        return column.traits.is_rebuilt and bool(stored == codec.read_pickle(after, trust, place))
    except Exception:  # noqa: BLE001 - what has no truth value, as arrays, or cannot be rebuilt: the bytes differ
        return False


def rows_of(now: Snapshot, table: str, counts: Mapping[int | None, int]) -> Iterator[Row]:
    """The first rows of some writers, as names to cells; None is missing.

    Args:
        now: The run.
        table: The table.
        counts: How many rows of each rank; None is the sole writer.
    """
    data = now.tables.get(table)
    if data is None:
        return
    columns = {column.name: data.column(column) for column in data.schema}
    for rank, chosen in now.by_rank(table):
        for row in chosen[: counts.get(rank, 0)].tolist():
            yield {
                name: None if missing is not None and missing[row] else values[row : row + 1].tolist()[0]
                for name, (values, missing) in columns.items()
            }


def differences(
    columns: list[Column],
    before: Row,
    after: Mapping[str, Any],
    directory: Path,
    is_same_object: Callable[[Column, Any, Any], bool],
) -> list[str]:
    """In what two rows of a table differ, a few words for each column.

    Args:
        columns: The columns to compare.
        before: The cells of the earlier row.
        after: The cells of the later one; for an object in a file, the path of it.
        directory: Where the files of objects are.
        is_same_object: Whether two cells of a column of objects stand for equal ones, though their bytes
            differ: each process stores a set of texts in another order.
    """
    return [
        f"{column.name} {_change(column, before.get(column.name), after.get(column.name))}"
        for column in columns
        if not _is_same(column, before.get(column.name), after.get(column.name), directory)
        and not (
            column.traits.is_object
            and is_same_object(column, before.get(column.name), after.get(column.name))
        )
    ]


def _is_same(column: Column, before: Any, after: Any, directory: Path) -> bool:
    if before is None or after is None:
        return before is after
    if column.traits.in_file:
        name = layout.is_file_name(before)
        try:
            return name and fs.read_bytes(directory / before) == fs.read_bytes(after)
        except OSError:  # the earlier one is gone
            return False
    return bool(before == after or (before != before and after != after))


def _change(column: Column, before: Any, after: Any) -> str:
    if column.traits.is_object:
        return "is another object"
    return f"was {shown(before)} and is {shown(after)}"


def parameter_changes(
    first: Mapping[str, tuple[Column, Any]],
    params: Mapping[str, Any],
    encode: Callable[[str, Any], Any],
    decode: Callable[[Column, Any], Any],
) -> list[str]:
    """In what parameters differ from those that a run has, a few words for each.

    Args:
        first: The columns and cells of the run's row of metadata.
        params: Names to values.
        encode: Makes the cell of a parameter, as it would be stored.
        decode: Gives the object of a cell.
    """
    changes = []
    for name in dict.fromkeys([*first, *params]):
        column, cell = first.get(name, (None, None))
        if name not in params:
            if cell is not None:
                changes.append(f"{name} was logged and is missing")
        elif column is None:
            changes.append(f"{name} is new")
        elif not _is_same_parameter(column, cell, params[name], encode, decode):
            changes.append(f"{name} {_was(column, cell, decode)} and is {shown(params[name])}")
    return changes


def _was(column: Column, cell: Any, decode: Callable[[Column, Any], Any]) -> str:
    if cell is None or not column.traits.is_object:
        return f"was {shown(cell)}"
    try:
        return f"was {shown(decode(column, cell))}"
    except Exception:  # noqa: BLE001 - nobody vouched for it, or its code is gone: whatever it raises
        return "was another object"


def _is_same_parameter(
    column: Column,
    cell: Any,
    value: Any,
    encode: Callable[[str, Any], Any],
    decode: Callable[[Column, Any], Any],
) -> bool:
    if not column.traits.is_object:
        try:
            made, lossy = convert(value, column, table=layout.METADATA_TABLE)
        except RowError:
            return False
        return not lossy and bool(made == cell or (made != made and cell != cell))
    if column.traits.in_cell and encode(column.name, value) == cell:
        return True
    try:  # a set of texts is stored in another order by each process
        return bool(decode(column, cell) == value)
    except Exception:  # noqa: BLE001 - arrays, and whatever else has no truth value: their bytes were compared
        return False
