"""What the tests of the specification compare: cells of frames as plain Python values, bit for bit."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pandas as pd


def listing(directory: str | Path) -> list[str]:
    """The names in a directory, sorted, hidden ones too."""
    return sorted(path.name for path in Path(directory).iterdir())


def cells(column: pd.Series[Any]) -> list[Any]:
    """A column as Python values, None where a cell is missing; nan is a value, not a missing one."""
    return [None if _is_missing(value, column) else value for value in column.tolist()]


def exact(value: Any) -> Any:
    """Something that is equal for equal values only: floats by their bits, and 1, 1.0 and True apart."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    return type(value).__name__, value


def exactly(values: Any) -> list[Any]:
    """`exact` of each."""
    return [exact(value) for value in values]


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame as one dict for each row, in the frame's order of columns."""
    columns = {name: cells(frame[name]) for name in frame}
    return [{name: values[at] for name, values in columns.items()} for at in range(len(frame))]


def _is_missing(value: Any, column: pd.Series[Any]) -> bool:
    if value is None or value is pd.NA:
        return True
    text = isinstance(column.dtype, pd.StringDtype) or column.dtype == object
    return text and isinstance(value, float)
