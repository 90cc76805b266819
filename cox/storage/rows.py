"""Rows of a table as plain values, without pandas: what commands print, and whoever follows a run gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cox.errors import ColumnNotFoundError, unknown
from cox.schema import cell_value

if TYPE_CHECKING:
    from cox.storage.columns import Array, TableData

Row = tuple[Any, ...]


def names_of(table: TableData, wanted: Sequence[str] | None) -> list[str]:
    """The columns of a table, or those that are wanted.

    Raises:
        ColumnNotFoundError: It has no such column; names those it has.
    """
    known = list(table.schema.names())
    for name in wanted or ():
        if name not in known:
            raise ColumnNotFoundError(unknown(f"table {table.name!r} has no column", name, known))
    return known if wanted is None else list(wanted)


def rows_at(table: TableData, names: Iterable[str], at: slice | Array) -> list[Row]:
    """Some rows. A missing cell is None; an object is not rebuilt, and shown as `<object>`."""
    cells = [_cells(table, name, at) for name in names]
    return list(zip(*cells, strict=True))


def _cells(table: TableData, name: str, at: slice | Array) -> list[Any]:
    column = table.schema.get(name)
    if column is None:
        raise ColumnNotFoundError(unknown(f"table {table.name!r} has no column", name, table.schema.names()))
    values, missing = table.column(column)
    found: list[Any] = values[at].tolist()
    if column.traits.is_object:
        found = [f"<{column.kind}>"] * len(found)
    if missing is not None:
        found = [None if gone else value for value, gone in zip(found, missing[at].tolist(), strict=True)]
    return [cell_value(column, cell) for cell in found] if column.traits.is_time else found


def last(table: TableData, names: Sequence[str], most: int) -> list[Row]:
    """The last rows of a table, `most` at most."""
    return rows_at(table, names, slice(max(0, table.nrows - most), None))
