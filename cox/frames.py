"""From columns to DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from cox.schema import Column, Schema
from cox.storage.columns import Array, TableData, dtype_of

_NULLABLE = {"float": "Float64", "int": "Int64", "bool": "boolean"}
# what this pandas makes of text by itself: `str` since pandas 3, object before
_TEXT = str(pd.Series(["text"]).dtype)


def to_frame(
    table: TableData, decoded: Mapping[str, list[Any]] | None = None, *, optional_as_nan: bool = False
) -> pd.DataFrame:
    """A table's rows, index 0 to n-1, columns in the schema's order. The frame is the caller's own.

    Args:
        table: The rows.
        decoded: For some columns, the objects to show in the place of the stored text.
        optional_as_nan: Whether a float column that is not nullable, and lacks cells because some runs do
            not have it at all, holds nan there, as pandas.concat would have it.
    """
    columns = {}
    for column in table.schema:
        if decoded is not None and column.name in decoded:
            columns[column.name] = objects(decoded[column.name])
        else:
            values, missing = table.column(column)
            if optional_as_nan and column.kind == "float" and not column.nullable and missing is not None:
                values, missing = np.where(missing, np.nan, values), None
            columns[column.name] = series(column, values, missing)
    frame: pd.DataFrame = pd.DataFrame(
        columns, index=pd.RangeIndex(table.nrows), columns=list(table.schema.names())
    )
    return frame


def empty_frame(schema: Schema) -> pd.DataFrame:
    """A frame without rows, with a schema's columns."""
    return to_frame(TableData("", schema))


def series(column: Column, values: Array, missing: Array | None) -> Any:
    """A column as pandas should hold it: nullable columns in nullable dtypes, so that None stays None."""
    if column.kind in _NULLABLE:
        if not column.nullable and missing is None:
            return values
        mask = np.zeros(len(values), dtype=np.bool_) if missing is None else missing
        return _masked(column.kind, values, mask)
    if missing is not None:
        values = values.copy()
        values[missing] = None
    return text(values)


def text(values: Array) -> Any:
    """An array of str objects as pandas should hold it."""
    return values if _TEXT == "object" else pd.array(values, dtype=cast(Any, _TEXT))


def objects(values: list[Any]) -> pd.Series[Any]:
    """Decoded objects, whatever they are, one a cell."""
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    made: pd.Series[Any] = pd.Series(array, dtype=object)
    return made


def repeated(names: Sequence[str], lengths: Sequence[int]) -> Any:
    """Each name as often as its run has rows, as a text column."""
    array = np.repeat(np.array(names, dtype=object), lengths)
    return text(array)


def _masked(kind: str, values: Array, mask: Array) -> Any:
    made = {"float": pd.arrays.FloatingArray, "int": pd.arrays.IntegerArray, "bool": pd.arrays.BooleanArray}
    return made[kind](np.array(values, dtype=dtype_of(kind)), mask)
