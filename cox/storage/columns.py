"""A table in memory, as columns. What the journal and the HDF5 file both turn into, and the fold writes.

A table is a list of parts, one behind the other, so that adding rows copies nothing. A part lacks a
column that was added after its rows were written: there, all of its cells are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cox.errors import DamagedError
from cox.schema import KINDS, Column, Schema

Array = npt.NDArray[Any]

#: Texts of so many bytes or less take less memory side by side, padded, than as objects.
_NARROW = 64

_DTYPES = {name: np.dtype(kind.dtype) for name, kind in KINDS.items()}


def dtype_of(kind: str) -> np.dtype[Any]:
    """The dtype of a column's values; object for everything that is text."""
    return _DTYPES[kind]


def is_text(column: Column) -> bool:
    """Whether a column's cells are text: str columns, and those whose text stands for an object."""
    return _DTYPES[column.kind].hasobject


@dataclass(slots=True)
class Part:
    """Some consecutive rows of a table.

    Attributes:
        nrows: How many.
        values: Column names to arrays of shape (nrows,): float64, int64 or bool, and for text either
            str objects or fixed-width UTF-8 bytes (dtype S). Missing cells hold anything.
        missing: Column names to boolean arrays of shape (nrows,), True where a cell is missing.
    """

    nrows: int
    values: dict[str, Array]
    missing: dict[str, Array] = field(default_factory=dict)

    def take(self, rows: Any) -> Part:
        """Only these rows: a slice, a boolean array of shape (nrows,), or the numbers of the rows."""
        values = {name: array[rows] for name, array in self.values.items()}
        missing = {name: mask[rows] for name, mask in self.missing.items()}
        if isinstance(rows, slice):
            count = len(range(*rows.indices(self.nrows)))
        else:
            count = int(rows.sum()) if rows.dtype == np.bool_ else len(rows)
        return Part(count, values, missing)


@dataclass(slots=True)
class TableData:
    """A table's schema and rows, read at one moment.

    Attributes:
        name: The table's name.
        schema: Its columns, in order.
        parts: Its rows.
    """

    name: str
    schema: Schema
    parts: list[Part] = field(default_factory=list)

    @property
    def nrows(self) -> int:
        """How many rows."""
        return sum(part.nrows for part in self.parts)

    def has_missing(self, column: Column) -> bool:
        """Whether any cell of a column is missing."""
        return any(lacks(part, column.name) for part in self.parts)

    def column(self, column: Column) -> tuple[Array, Array | None]:
        """A column's values and, where cells are missing, the mask; both of shape (nrows,).

        Text comes as an array of str objects. Missing cells hold 0, False or ''.
        """
        return _joined([values_of(part, column) for part in self.parts], column), self.mask(column)

    def numbers(self, column: Column) -> tuple[Array, Array | None]:
        """A column of numbers as float64, and the mask, as `column`."""
        values, missing = self.column(column)
        return values.astype(np.float64), missing

    def mask(self, column: Column) -> Array | None:
        """Which cells of a column are missing, of shape (nrows,); None if none is."""
        if not self.has_missing(column):
            return None
        return np.concatenate([mask_of(part, column.name) for part in self.parts])

    def narrow_text(self, column: Column) -> Array | None:
        """A column's texts as UTF-8 bytes of a fixed, small width; None if it does not hold them so."""
        arrays = [part.values.get(column.name) for part in self.parts]
        if not arrays or any(array is None or not _is_narrow(array) for array in arrays):
            return None
        return np.concatenate(arrays)  # type: ignore[arg-type]


def values_of(part: Part, column: Column) -> Array:
    """A column's values in one part, text as str objects."""
    array = part.values.get(column.name)
    if array is None:
        return _filler(column, part.nrows)
    return decode_text(array) if array.dtype.kind == "S" else array


def mask_of(part: Part, name: str) -> Array:
    """Which of a part's cells of a column are missing, of shape (nrows,)."""
    if name not in part.values:
        return np.ones(part.nrows, dtype=np.bool_)
    mask = part.missing.get(name)
    return np.zeros(part.nrows, dtype=np.bool_) if mask is None else mask


def lacks(part: Part, name: str) -> bool:
    """Whether any of a part's cells of a column is missing."""
    if name not in part.values:
        return part.nrows > 0
    mask = part.missing.get(name)
    return mask is not None and bool(mask.any())


def join(parts: Sequence[Part], schema: Schema) -> Part:
    """Consecutive parts of one table as one part."""
    if len(parts) == 1:
        return parts[0]
    made = Part(sum(part.nrows for part in parts), {})
    for column in schema:
        arrays = [part.values.get(column.name) for part in parts]
        if all(array is None for array in arrays):
            continue
        if all(array is not None and _is_narrow(array) for array in arrays):
            made.values[column.name] = np.concatenate(arrays)  # type: ignore[arg-type]
        else:
            made.values[column.name] = _joined([values_of(part, column) for part in parts], column)
        if any(lacks(part, column.name) for part in parts):
            made.missing[column.name] = np.concatenate([mask_of(part, column.name) for part in parts])
    return made


def is_beyond_int64(values: Array) -> bool:
    """Whether these are integers that pandas stored unsigned, for they are too large for an int64."""
    return values.dtype == np.uint64 and bool((values > np.iinfo(np.int64).max).any())


def decode_text(array: Array) -> Array:
    """Fixed-width UTF-8 bytes as str objects."""
    made = np.empty(len(array), dtype=object)
    try:
        made[:] = [cell.decode() for cell in array.tolist()]
    except UnicodeDecodeError as error:
        raise DamagedError(f"text that is no UTF-8: {error}") from error
    return made


def has_inner_nul(values: Array) -> bool:
    """Whether a text goes on after a NUL, where Arrow takes it to end."""
    width = values.dtype.itemsize
    cells = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width) if width else None
    return cells is not None and bool(((cells[:, :-1] == 0) & (cells[:, 1:] != 0)).any())


def part_from_rows(rows: Sequence[Sequence[Any]], columns: Sequence[Column]) -> Part:
    """A part out of journalled rows.

    Args:
        rows: The cells of each row, in the order of `columns`; a row from before a column was added
            is shorter, and None is a missing cell.
        columns: The columns as the journal declared them.

    Raises:
        DamagedError: A cell is not what its column holds.
    """
    part = Part(len(rows), {})
    if not rows:
        return part
    width = len(columns)
    short = any(len(row) != width for row in rows)
    cells: Iterator[Sequence[Any]] = zip(
        *((_padded(row, width) for row in rows) if short else rows), strict=True
    )
    for column, listed in zip(columns, cells, strict=True):
        array, mask = _array_of(listed, column)
        part.values[column.name] = array
        if mask is not None:
            part.missing[column.name] = mask
    return part


def _is_narrow(array: Array) -> bool:
    return array.dtype.kind == "S" and array.dtype.itemsize <= _NARROW


def _joined(arrays: list[Array], column: Column) -> Array:
    if len(arrays) > 1 and any(array.dtype == np.uint64 for array in arrays):
        arrays = [_as_unsigned(array, column) for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays or [_filler(column, 0)])


def _as_unsigned(array: Array, column: Column) -> Array:
    """Integers beside those of an old store that are beyond int64; with negative ones they fit nowhere."""
    if array.dtype != np.uint64 and (array < 0).any():
        raise DamagedError(f"column {column.name!r} holds both negative numbers and such beyond int64")
    return array.astype(np.uint64)


def _padded(row: Sequence[Any], width: int) -> Sequence[Any]:
    return [*row[:width], *[None] * (width - len(row))]


def _array_of(cells: Sequence[Any], column: Column) -> tuple[Array, Array | None]:
    kinds = set(map(type, cells))
    mask = None
    if type(None) in kinds:
        kinds.discard(type(None))
        mask = np.fromiter((cell is None for cell in cells), dtype=np.bool_, count=len(cells))
        filler = _filler(column, 1)[0]
        cells = [filler if cell is None else cell for cell in cells]
    if not kinds <= {column.exact_type}:
        raise DamagedError(f"column {column.name!r} holds something else than {column.exact_type.__name__}")
    array = np.empty(len(cells), dtype=dtype_of(column.kind))
    try:
        array[:] = cells
    except OverflowError as error:
        raise DamagedError(f"column {column.name!r} holds a number that does not fit: {error}") from error
    return array, mask


def _filler(column: Column, nrows: int) -> Array:
    return np.full(nrows, column.traits.filler, dtype=dtype_of(column.kind))


def of_other_kind(before: Schema, after: Schema) -> list[tuple[Column, Column]]:
    """The columns of both that are of another kind in `after`."""
    pairs = ((known, after.get(known.name)) for known in before)
    return [(known, column) for known, column in pairs if column is not None and column.kind != known.kind]


def widened(part: Part, before: Schema, after: Schema) -> Part:
    """The part with its values in the kinds of `after`, where they are other than those of `before`."""
    changed: dict[str, Array] = {}
    for known, column in of_other_kind(before, after):
        if column.name not in part.values:
            continue
        values = values_of(part, known)
        if is_text(column):
            made = np.empty(part.nrows, dtype=object)
            made[:] = [str(value) for value in values.tolist()]
            changed[column.name] = made
        else:
            changed[column.name] = values.astype(np.float64)
    return Part(part.nrows, part.values | changed, part.missing) if changed else part
