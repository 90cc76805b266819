"""The operators of a condition on columns: on all rows at once."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cox.predicates.operators import DIVISIONS, INT64, Operator
from cox.predicates.scalars import Scalars, unboxed

_EXACT = 2**53  # up to here, every int is a float


@dataclass(frozen=True, eq=False)
class Column:
    """A value for each row. Of a missing one, what stands in `values` means nothing.

    `values` is an array of that dtype for bool, int (64 bits) and float, a Series for text, and else an
    array of objects.
    """

    kind: str
    values: Any
    missing: Any


class Columns(Scalars):
    """The operators on columns, or on a column and a plain value.

    What numpy or pandas would not do exactly as Python does goes cell by cell through `Scalars`.
    """

    def __init__(self, column: Callable[[str], pd.Series[Any]], nrows: int) -> None:
        super().__init__(functools.cache(lambda name: _as_column(column(name))))
        self._nrows = nrows

    def load(self, name: str) -> Any:
        """The column of a name."""
        return self._get(name)

    def spread(self, value: Any) -> Column:
        """A condition as a column."""
        if isinstance(value, Column):
            return value
        return Column("bool", np.full(self._nrows, value is True), np.full(self._nrows, value is None))

    def truth(self, value: Any) -> Any:
        """A column as a condition: cell by cell, unless it is of bools."""
        if not isinstance(value, Column) or value.kind == "bool":
            return value if isinstance(value, Column) else super().truth(value)
        return self._by_cell("bool", super().truth, value)

    def missing(self, value: Any) -> Any:
        """In which rows a value is missing."""
        if not isinstance(value, Column):
            return super().missing(value)
        return self._known(value.missing)

    def negate(self, value: Any) -> Any:
        """`not`, which leaves unknown what is unknown."""
        if not isinstance(value, Column):
            return super().negate(value)
        return Column("bool", ~value.values, value.missing)

    def all(self, values: Iterable[Any]) -> Any:
        """`and`: unknown where none is False, and not all are True."""
        true, false = np.ones(self._nrows, dtype=bool), np.zeros(self._nrows, dtype=bool)
        for column in map(self.spread, values):
            known = ~column.missing
            true, false = true & column.values & known, false | (known & ~column.values)
        return Column("bool", true, ~(true | false))

    def among(self, value: Any, choices: list[Any]) -> Any:
        """In which rows a value is one of some; of text at once."""
        if not isinstance(value, Column) or value.kind != "text" or not choices:
            return super().among(value, choices)
        found = value.values.isin([choice for choice in choices if isinstance(choice, str)])
        made = Column("bool", found.to_numpy(dtype=bool), value.missing)
        return self.any([made, self.missing(value)]) if None in choices else made

    def contains(self, part: str, whole: Any) -> Any:
        """In which rows a text contains another; of text at once."""
        if whole.kind != "text":
            return self._by_cell("bool", super().contains, part, whole)
        found = whole.values.str.contains(part, regex=False)
        return Column("bool", found.to_numpy(dtype=bool, na_value=False), whole.missing)

    def compare(self, op: Operator, left: Any, right: Any) -> Any:
        """`==` or an order: at once where numpy compares as exactly as Python does."""
        if left is None or right is None or not (isinstance(left, Column) or isinstance(right, Column)):
            return super().compare(op, left, right)
        kinds = {_kind(left), _kind(right)}
        missing = _missing(left) | _missing(right)
        if kinds == {"text"}:
            made = op(_values(left), _values(right)).to_numpy(dtype=bool, na_value=False)
        elif kinds <= {"bool", "int", "float"} and (kinds != {"int", "float"} or _exact(left, right)):
            made = op(_values(left), _values(right))
        elif op is operator.eq and "object" not in kinds:
            made = missing & False
        else:
            return self._by_cell("bool", functools.partial(super().compare, op), left, right)
        return Column("bool", made, missing)

    def arithmetic(self, op: Operator, left: Any, right: Any) -> Any:
        """A calculation: at once where 64 bits hold the result, and floats all ints."""
        if left is None or right is None or not (isinstance(left, Column) or isinstance(right, Column)):
            return super().arithmetic(op, left, right)
        kinds = {_kind(left), _kind(right)}
        ints = kinds == {"int"} and op not in DIVISIONS
        if not kinds <= {"int", "float"} or not (
            _stays_int(op, left, right) if ints else _exact(left, right)
        ):
            return self._by_cell("object", functools.partial(super().arithmetic, op), left, right)
        missing, divisor = _missing(left) | _missing(right), _values(right)
        if op in DIVISIONS:
            missing = missing | (divisor == 0)
            divisor = np.where(divisor == 0, 1, divisor)
        with np.errstate(all="ignore"):
            made = op(_values(left), divisor)
        return Column("int" if made.dtype.kind == "i" else "float", made, missing)

    def _known(self, values: Any) -> Column:
        return Column("bool", values, np.zeros(self._nrows, dtype=bool))

    def _by_cell(self, kind: str, operation: Callable[..., Any], *operands: Any) -> Column:
        """Apply an operator of `Scalars` to the cells of all rows that have them."""
        missing = functools.reduce(operator.or_, map(_missing, operands)) | np.zeros(self._nrows, dtype=bool)
        cells = [
            np.asarray(operand.values, dtype=object)[~missing]
            if isinstance(operand, Column)
            else np.array(operand, dtype=object)  # numpy's own text would lose a NUL at the end
            for operand in operands
        ]
        with np.errstate(all="ignore"):
            made = np.frompyfunc(operation, len(cells), 1)(*cells)
        values = np.zeros(self._nrows, dtype=object)
        values[~missing] = made
        missing[~missing] = made == None  # noqa: E711 - of each cell
        return Column(kind, values.astype(bool) if kind == "bool" else values, missing)


def _as_column(series: pd.Series[Any]) -> Column:
    dtype: Any = series.dtype
    letter = "O" if isinstance(dtype, pd.StringDtype) else dtype.kind
    kind = {"b": "bool", "i": "int", "u": "int", "f": "float"}.get(letter, "object")
    if letter == "u" and dtype.itemsize == 8:  # may be beyond int64
        kind = "object"
    if kind != "object":
        plain = {"bool": np.bool_, "int": np.int64, "float": np.float64}[kind]
        if isinstance(dtype, np.dtype):  # where nan is a value
            return Column(
                kind, series.to_numpy().astype(plain, copy=False), np.zeros(len(series), dtype=bool)
            )
        return Column(kind, series.to_numpy(dtype=plain, na_value=plain(0)), series.isna().to_numpy())
    missing = series.isna().to_numpy()
    if isinstance(dtype, pd.StringDtype):
        return Column("text", series.reset_index(drop=True), missing)
    cells = series.to_numpy(dtype=object)
    if pd.api.types.infer_dtype(cells, skipna=True) == "string":
        return Column("text", pd.Series(np.where(missing, "", cells), dtype=object), missing)
    return Column("object", np.frompyfunc(unboxed, 1, 1)(cells), missing)


def _kind(operand: Any) -> str:
    if isinstance(operand, Column):
        return operand.kind
    if isinstance(operand, int) and operand not in INT64:
        return "object"
    return "text" if isinstance(operand, str) else type(operand).__name__


def _values(operand: Any) -> Any:
    return operand.values if isinstance(operand, Column) else operand


def _missing(operand: Any) -> Any:
    return operand.missing if isinstance(operand, Column) else operand is None


def _bounds(operand: Any) -> tuple[int, int]:
    if not isinstance(operand, Column):
        return operand, operand
    return (int(operand.values.min()), int(operand.values.max())) if len(operand.values) else (0, 0)


def _exact(*operands: Any) -> bool:
    """Whether every int is also a float, so that it is no matter which of them numpy takes."""
    return all(
        -_EXACT <= bound <= _EXACT
        for operand in operands
        if _kind(operand) == "int"
        for bound in _bounds(operand)
    )


def _stays_int(op: Operator, left: Any, right: Any) -> bool:
    """Whether all that comes out are ints of 64 bits; the corners of a range are the ends of its results."""
    corners = (op(one, other) for one in _bounds(left) for other in _bounds(right))
    return all(corner in INT64 for corner in corners)
