"""Which type a column has outside of cox, whatever the runs hold: types widen, and never narrow.

A shape says what the cells of a column are: `null` (nothing yet), `bool`, `int`, `long` (an int that no float
holds exactly), `uint`, `float`, `str`, `bytes`, `time`, `timetz` (a time with a zone), `anytime` (a time, of
which no cell tells whether it has a zone), `["list", shape]`, or `["struct", [[name, shape], …]]`. Shapes are
JSON, to be kept beside a dataset.

`join` is the type of two columns together: the order in which runs are met does not matter. What has no type
in common is text: text as it is, numbers as Python writes them, containers as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Any

import numpy as np

from cox.extras import needed
from cox.schema import KINDS
from cox.storage import time_cells
from cox.storage.columns import Array

#: A JSON value: see above.
Shape = Any

_EXACT = 2**53
_INT64 = range(-(2**63), 2**63)
_NUMBERS = ("bool", "int", "float")
_TIMES = ("time", "timetz", "anytime")
_WIDER = [("int", "long"), ("anytime", "time"), ("anytime", "timetz")]
#: The shape of a column by its kind; objects have that of their values.
OF_KIND: dict[str, Shape] = {
    "float": "float",
    "int": "int",
    "str": "str",
    "bool": "bool",
    "datetime": "anytime",
    "object": "null",
    "pickle": "str",
    "pytorch_state": "str",
}
#: The kinds of which the values tell the shape.
BY_VALUES = frozenset({"int", "datetime"})


def of_kind(kind: str) -> Shape:
    """The shape of a column of a schema that has no rows."""
    return OF_KIND[kind]


def of_array(kind: str, values: Array, missing: Array) -> Shape:
    """The shape of a column of numbers, truth values or text."""
    if kind not in BY_VALUES or not len(values):
        return of_kind(kind)
    if KINDS[kind].is_time:
        zoned = time_cells.zone_of([(values, missing)])
        return "str" if zoned is None else "anytime" if missing.all() else "timetz" if zoned else "time"
    if values.dtype == np.uint64 and bool((values[~missing] > _INT64[-1]).any()):
        return "uint"
    there = values[~missing]
    return "long" if bool(((there > _EXACT) | (there < -_EXACT)).any()) else "int"


def of_values(values: Iterable[Any]) -> Shape:
    """The shape of objects, each as `plain` gives it."""
    shape: Shape = "null"
    for value in values:
        shape = join(shape, _of_value(value))
    return shape


def join(one: Shape, other: Shape) -> Shape:
    """The shape of two columns together."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, list) and isinstance(other, list) and one[0] == other[0]:
        return _join_nested(one, other)
    for narrow, wider in _WIDER:
        if [one, other] in ([narrow, wider], [wider, narrow]):
            return wider
    return "float" if one in _NUMBERS and other in _NUMBERS else "str"


def _join_nested(one: Shape, other: Shape) -> Shape:
    if one[0] == "list":
        inner = _join_strictly(one[1], other[1])
        return "str" if inner is None else ["list", inner]
    fields, others = dict(one[1]), dict(other[1])
    if fields.keys() != others.keys():
        return "str"
    joined = {name: _join_strictly(shape, others[name]) for name, shape in fields.items()}
    return "str" if None in joined.values() else _struct(joined)


def _join_strictly(one: Shape, other: Shape) -> Shape | None:
    """As `join`; None for what would become text only because it differs."""
    shape = join(one, other)
    return None if shape == "str" and not {"str"} >= {str(one), str(other)} - {"null"} else shape


def _struct(fields: Mapping[str, Shape]) -> Shape:
    return ["struct", [[name, fields[name]] for name in sorted(fields)]]


def _of_value(value: Any) -> Shape:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= _EXACT else "long" if value in _INT64 else "str"
    for kind, shape in ((float, "float"), (bytes, "bytes")):
        if isinstance(value, kind):
            return shape
    if isinstance(value, datetime):
        return "time" if value.tzinfo is None else "timetz"
    if isinstance(value, list):
        start: Shape = "null"
        inner = reduce(_join_or_none, map(_of_value, value), start)
        return "str" if inner is None else ["list", inner]
    if isinstance(value, dict) and value and all(isinstance(name, str) for name in value):
        return _struct({name: _of_value(item) for name, item in value.items()})
    return "str"


def _join_or_none(one: Shape | None, other: Shape) -> Shape | None:
    return None if one is None else _join_strictly(one, other)


def plain(value: Any) -> Any:
    """A decoded object in lists, dicts, numbers and text as far as it is made of such."""
    if type(value) in (bool, int, float, str, type(None)):
        return value
    if isinstance(value, np.generic) or (hasattr(value, "tolist") and hasattr(value, "shape")):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def text_of(value: Any) -> str | None:
    """A value among others that it has no type in common with."""
    if value is None:
        return None
    text = json.dumps(value, default=str, ensure_ascii=False) if _is_container(value) else str(value)
    return text.encode(errors="backslashreplace").decode()


def _is_container(value: Any) -> bool:
    return isinstance(value, list) or (
        isinstance(value, dict)
        and all(isinstance(name, (str, int, float, bool, type(None))) for name in value)
    )


def arrow_type(shape: Shape) -> Any:
    """The type that Arrow gives a shape."""
    pa = needed("pyarrow", "parquet")
    if isinstance(shape, list):
        if shape[0] == "list":
            return pa.list_(arrow_type(shape[1]))
        return pa.struct([(name, arrow_type(inner)) for name, inner in shape[1]])
    types = {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "long": pa.int64(),
        "uint": pa.uint64(),
        "float": pa.float64(),
        "bytes": pa.binary(),
        "time": pa.timestamp("us"),
        "timetz": pa.timestamp("us", tz="UTC"),
        "anytime": pa.timestamp("us"),
    }
    return types.get(shape, pa.string())


def array_of_values(values: Sequence[Any], shape: Shape) -> Any:
    """Objects, each as `plain` gives it, as an Arrow array of a shape that is theirs or wider."""
    pa = needed("pyarrow", "parquet")
    return pa.array([_convert(value, shape) for value in values], type=arrow_type(shape), from_pandas=False)


def array_of_cells(values: Array, missing: Array, shape: Shape) -> Any:
    """A column of numbers, truth values or text as an Arrow array: nan stays nan, and missing is null."""
    pa = needed("pyarrow", "parquet")
    kind = arrow_type(shape)
    if shape in _TIMES and values.dtype == object:
        return pa.array(time_cells.decode(values, missing)[0], mask=missing).cast(kind)
    if shape == "float" and values.dtype != object:
        values = values.astype(np.float64)
    if (values.dtype == object) == (shape == "str"):
        try:
            return pa.array(values, type=kind, mask=missing, from_pandas=False)
        except (pa.ArrowException, UnicodeError):
            pass  # half of a surrogate pair
    cells = [None if gone else cell for cell, gone in zip(values.tolist(), missing.tolist(), strict=True)]
    return array_of_values(cells, shape)


def _convert(value: Any, shape: Shape) -> Any:
    if value is None:
        return None
    if shape == "float":
        return float(value)
    if shape == "str":
        return text_of(value)
    if isinstance(shape, list):
        if shape[0] == "list":
            return [_convert(item, shape[1]) for item in value]
        return {name: _convert(value.get(name), inner) for name, inner in shape[1]}
    return value
