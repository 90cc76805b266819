"""Rows for other engines: missing is null, NaN is NaN, and plain objects are what they are."""

from __future__ import annotations

import base64
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from cox import safe_pickle
from cox.collection import shapes
from cox.collection.blocks import Block
from cox.collection.shapes import Shape
from cox.extras import needed
from cox.objects import unreadable
from cox.schema import Column, Schema
from cox.storage.columns import has_inner_nul, mask_of, values_of
from cox.storage.layout import EXP_ID


class Outgoing:
    """The rows of a block, as other engines want them.

    Args:
        block: The rows.

    Attributes:
        block: The same.
        opaque: For each column how many cells stand for what cannot leave.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.opaque: dict[str, int] = {}
        self._objects: dict[str, list[Any]] = {}
        self._shapes: dict[str, Shape] = {}

    def shape(self, column: Column) -> Shape:
        """What the cells of one of the block's columns are."""
        if column.name not in self._shapes:
            self._shapes[column.name] = self._shape(column)
        return self._shapes[column.name]

    def array(self, name: str, shape: Shape) -> Any:
        """A column as an Arrow array of a shape that is its own or wider; nulls where there is none."""
        column = self.block.schema.get(name)
        if column is None:
            return needed("pyarrow", "parquet").nulls(self.block.part.nrows, shapes.arrow_type(shape))
        if column.traits.in_cell:
            return shapes.array_of_values(self._decoded(column), shape)
        self._count_files(column)
        part = self.block.part
        narrow = part.values.get(name)
        if narrow is not None and narrow.dtype.kind == "S" and shape == "str" and not has_inner_nul(narrow):
            pa = needed("pyarrow", "parquet")
            return pa.array(narrow, mask=mask_of(part, name)).cast(pa.string())
        return shapes.array_of_cells(values_of(part, column), mask_of(part, name), shape)

    def _shape(self, column: Column) -> Shape:
        if column.traits.in_cell:
            return shapes.of_values(self._decoded(column))
        if column.kind not in shapes.BY_VALUES:
            return shapes.of_kind(column.kind)
        part = self.block.part
        return shapes.of_array(column.kind, values_of(part, column), mask_of(part, column.name))

    def _decoded(self, column: Column) -> list[Any]:
        """The objects of a column: plain data as it is, others as text that tells them apart."""
        if column.name not in self._objects:
            part = self.block.part
            known: dict[str, Any] = {}
            values: list[Any] = []
            cells = values_of(part, column).tolist()
            for cell, is_missing in zip(cells, mask_of(part, column.name).tolist(), strict=True):
                if not is_missing and cell not in known:
                    known[cell] = _decoded(cell)
                values.append(None if is_missing else known[cell])
            opaque = sum(isinstance(value, unreadable.Unreadable) for value in values)
            if opaque:
                self.opaque[column.name] = opaque
            self._objects[column.name] = values
        return self._objects[column.name]

    def _count_files(self, column: Column) -> None:
        if column.traits.in_file:
            part = self.block.part
            self.opaque[column.name] = part.nrows - int(mask_of(part, column.name).sum())


def common_shapes(
    rows: Iterable[Outgoing], schemas: Iterable[Schema], wanted: Container[str] | None = None
) -> dict[str, Shape]:
    """What each column is in all rows together.

    Args:
        rows: The rows.
        schemas: The columns of all runs, those without rows too.
        wanted: Only these columns.
    """
    found: dict[str, Shape] = {}
    for schema in schemas:
        for column in _those(schema, wanted):
            known = found.get(column.name, "null")
            found[column.name] = shapes.join(known, shapes.of_kind(column.kind))
    for one in rows:
        for column in _those(one.block.schema, wanted):
            found[column.name] = shapes.join(found.get(column.name, "null"), one.shape(column))
    return found


def _those(schema: Schema, wanted: Container[str] | None) -> list[Column]:
    return [column for column in schema if wanted is None or column.name in wanted]


def to_arrow(
    rows: Sequence[Outgoing],
    columns: Iterable[str],
    common: Mapping[str, Shape],
    called: Mapping[str, str] | None = None,
) -> Any:
    """Rows as a `pyarrow.Table` of some columns and, last, `exp_id`.

    Args:
        rows: The rows.
        columns: The columns; one that is called `exp_id` gives way to the runs' names.
        common: What each of them is.
        called: What to call the runs; by their names without it.
    """
    pa = needed("pyarrow", "parquet")
    names = [name for name in columns if name != EXP_ID]
    fields = [(name, shapes.arrow_type(common[name])) for name in names] + [(EXP_ID, pa.string())]
    schema = pa.schema(fields)
    tables = []
    for one in rows:
        arrays = [one.array(name, common[name]) for name in names]
        runs = one.block.names if called is None else [called[name] for name in one.block.names]
        exp_id = pa.array(runs, type=pa.string()).take(pa.array(_places(one.block)))
        tables.append(pa.Table.from_arrays([*arrays, exp_id], schema=schema))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def told_opaque(table: str, rows: Iterable[Outgoing]) -> str:
    """A sentence that says what of a table cannot leave; '' for nothing."""
    cells: dict[str, int] = reduce(_added, (one.opaque for one in rows), {})
    told = ", ".join(f"{name!r} ({count:,})" for name, count in cells.items() if count)
    return told and (
        f"table {table!r}: objects in files, and those that only code can rebuild, are not exported; a text "
        f"that tells them apart stands in their cells: {told}"
    )


def _added(total: dict[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {name: total.get(name, 0) + more.get(name, 0) for name in {**total, **more}}


def _places(block: Block) -> Any:
    import numpy as np

    return np.repeat(np.arange(len(block.names)), block.lengths)


def _decoded(cell: str) -> Any:
    try:
        return shapes.plain(safe_pickle.loads(base64.b64decode(cell)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes make the unpickler raise all kinds
        return unreadable.of_text(cell, str(error))
