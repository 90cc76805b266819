"""From columns to DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pandas as pd

from cox.errors import DamagedError
from cox.schema import Column, Schema
from cox.storage import time_cells
from cox.storage.columns import Array, TableData, decode_text, dtype_of, has_inner_nul, is_text
from cox.timestamps import time_of

#: Columns that a frame may have each in a piece of memory of its own.
_MOST_APART = 50
# what this pandas makes of text by itself: `str` since pandas 3, object before
_TEXT = str(pd.Series(["text"]).dtype)
#: How pandas holds numbers of which some are missing.
NULLABLE: dict[str, Any] = {
    "float": pd.arrays.FloatingArray,
    "int": pd.arrays.IntegerArray,
    "bool": pd.arrays.BooleanArray,
}


def to_frame(
    table: TableData,
    decoded: Mapping[str, list[Any]] | None = None,
    *,
    optional_as_nan: bool = False,
    last: Mapping[str, Any] | None = None,
    index: Array | None = None,
) -> pd.DataFrame:
    """A table's rows, columns in the schema's order. The frame is the caller's own.

    Args:
        table: The rows.
        decoded: For some columns, the objects to show in the place of the stored text.
        optional_as_nan: Whether a float column that is not nullable, and lacks cells because some runs do
            not have it at all, holds nan there, as pandas.concat would have it.
        last: Columns to put behind those of the table, instead of such of the same name.
        index: The index, of shape (nrows,); 0 to n-1 without one.
    """
    columns: dict[str, Any] = {}
    for column in table.schema:
        if decoded is not None and column.name in decoded:
            columns[column.name] = objects(decoded[column.name])
        elif is_text(column):
            narrow = table.narrow_text(column)
            values, missing = (narrow, table.mask(column)) if narrow is not None else table.column(column)
            is_time = column.traits.is_time
            columns[column.name] = _times(column, values, missing) if is_time else text(values, missing)
        else:
            values, missing = table.column(column)
            if optional_as_nan and column.traits.has_nan and not column.nullable and missing is not None:
                values, missing = np.where(missing, np.nan, values), None
            columns[column.name] = series(column, values, missing)
    for name, values in (last or {}).items():
        columns.pop(name, None)
        columns[name] = values
    frame: pd.DataFrame = pd.DataFrame(
        columns,
        index=pd.RangeIndex(table.nrows),
        columns=list(columns),
        copy=len(columns) > _MOST_APART,  # the arrays are ours; but pandas warns of frames in many pieces
    )
    if index is not None:
        frame.index = pd.Index(index)
    return frame


def empty_frame(schema: Schema) -> pd.DataFrame:
    """A frame without rows, with a schema's columns."""
    return to_frame(TableData("", schema))


def series(column: Column, values: Array, missing: Array | None) -> Any:
    """A column as pandas should hold it: nullable columns in nullable dtypes, so that None stays None."""
    if column.traits.is_time:
        return _times(column, values, missing)
    if is_text(column):
        return text(values, missing)
    if not column.nullable and missing is None:
        return values
    mask = np.zeros(len(values), dtype=np.bool_) if missing is None else missing
    return _masked(column.kind, values, mask)


def _times(column: Column, values: Array, missing: Array | None) -> Any:
    """Times as datetime64[us], in UTC if they have a zone; objects if only some have one, as they are."""
    try:
        times, zoned = time_cells.decode(values, missing)
    except ValueError as error:
        raise DamagedError(f"column {column.name!r}: {error}") from error
    if not zoned.any():
        return times
    if (zoned | np.isnat(times)).all():
        return pd.DatetimeIndex(times).tz_localize("UTC")
    if values.dtype.kind == "S":
        values = decode_text(values)
    gone = np.isnat(times).tolist()
    return objects([None if g else time_of(cell) for cell, g in zip(values.tolist(), gone, strict=True)])


def text(values: Array, missing: Array | None = None) -> Any:
    """Texts as pandas should hold them: str objects, or UTF-8 bytes of a fixed width."""
    if values.dtype.kind == "S":
        if _in_arrow() and not has_inner_nul(values):
            return _text_in_arrow(values, missing)
        values = decode_text(values)
    if missing is not None:
        values = values.copy()
        values[missing] = None
    return values if _TEXT == "object" else pd.array(values, dtype=cast(Any, _TEXT))


@lru_cache(maxsize=1)
def _in_arrow() -> bool:
    """Whether pandas keeps texts as Arrow does."""
    return bool(_TEXT != "object" and getattr(pd.Series(["text"]).dtype, "storage", "") == "pyarrow")


def _text_in_arrow(values: Array, missing: Array | None) -> Any:
    import pyarrow as pa

    try:
        texts = pa.array(values, mask=missing).cast(pa.large_string())
    except pa.ArrowInvalid as error:
        raise DamagedError(f"text that is no UTF-8: {error}") from error
    return pd.array(texts, dtype=cast(Any, _TEXT))


def objects(values: list[Any]) -> pd.Series[Any]:
    """Decoded objects, whatever they are, one a cell."""
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    made: pd.Series[Any] = pd.Series(array, dtype=object)
    return made


def would_round(values: list[Any]) -> bool:
    """Whether pandas makes floats of whole numbers beyond 2**53 among others: two of them may become one."""
    return any(type(value) is int and abs(value) > 2**53 for value in values) and not all(
        type(value) is int for value in values
    )


def repeated(names: Sequence[str], lengths: Array) -> Any:
    """Each name as often as its run has rows, as a text column."""
    few = text(np.array(names, dtype=object))
    return few.repeat(lengths)


def _masked(kind: str, values: Array, mask: Array) -> Any:
    return NULLABLE[kind](np.array(values, dtype=dtype_of(kind)), mask)
