"""Column types: which there are, how a value becomes one, how a schema is inferred and compared.

No I/O and no heavy import: numpy scalars, arrays and torch tensors are recognised by their `.item()`.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cox.errors import DamagedError, RowError, SchemaError
from cox.timestamps import time_of, time_text

OBJECT = "__object__"
PICKLE = "__pickle__"
PYTORCH_STATE = "__pytorch_state__"

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

_NUMPY_PREFIXES = (("float", "float"), ("int", "int"), ("uint", "int"), ("bool", "bool"))
_ALLOWED = (
    "float, int, str, bool, datetime.datetime, each of them also as `| None`, and cox.store.OBJECT, PICKLE, "
    "PYTORCH_STATE"
)
_TIME = "a datetime, or such a text as 2026-01-02T03:04:05"
_RANGE = f"an int from {INT_MIN} to {INT_MAX}"


@dataclass(frozen=True, slots=True)
class Kind:
    """What holds for all columns of one kind. What only one format needs stands in that format's module.

    Attributes:
        name: What the kind is called on disk.
        given: What a user writes for it in a schema.
        cell: The Python type of its cells, which need no conversion on their way to disk.
        dtype: numpy's name for the dtype of its values in memory.
        filler: What stands in these where a cell is missing.
        convert: Makes a cell of a value; None for objects, which are encoded instead.
        wanted: What a value must be, for a message.
        most: The largest value, where there is one that the cell's type can exceed.
        is_number: Whether its values count as numbers, truth values among them: of two such kinds,
            the wider one is float.
        is_measure: Whether a run can be compared by its values: numbers, but not truth values.
        has_nan: Whether nan is a value, and not what pandas shows for a missing one.
        is_time: Whether the cell is text that tells a time, see `time_text`.
        is_object: Whether a cell is text that stands for an object …
        in_file: … which lies in a file of its own, named by the cell …
        by_torch: … that torch writes …
        is_rebuilt: … and which is shown in the place of its cell where many runs are read.
    """

    name: str
    given: Any
    cell: type
    dtype: str
    filler: Any
    convert: Callable[[Any], Conversion] | None = None
    wanted: str = "an object"
    most: int | None = None
    is_number: bool = False
    is_measure: bool = False
    has_nan: bool = False
    is_time: bool = False
    is_object: bool = False
    in_file: bool = False
    by_torch: bool = False
    is_rebuilt: bool = False

    @property
    def in_cell(self) -> bool:
        """Whether the cell is text that holds an object itself."""
        return self.is_object and not self.in_file


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its kind (a key of `KINDS`), and whether a row may leave it out."""

    name: str
    kind: str
    nullable: bool = False

    @property
    def type(self) -> Any:
        """The type as a user writes it in a schema."""
        given = self.traits.given
        return given | None if self.nullable and isinstance(given, type) else given

    @property
    def traits(self) -> Kind:
        """What holds for its kind."""
        return KINDS[self.kind]

    @property
    def exact_type(self) -> Any:
        """The Python type whose values need no conversion on their way to disk."""
        return self.traits.cell

    @classmethod
    def declare(cls, name: Any, given: Any, *, table: str) -> Column:
        """Make a column out of what a user wrote: `'loss': float`, `'note': str | None`.

        Raises:
            SchemaError: The name is no string, or the type is none that a column can have.
        """
        if not isinstance(name, str):
            raise SchemaError(f"table {table!r}: a column's name is a string, not {name!r}")
        if not _is_unicode(name):
            raise SchemaError(f"table {table!r}: the column name {name!r} is not valid unicode")
        inner, nullable = _unwrap_optional(given)
        kind = kind_of(inner)
        if kind is None or (nullable and KINDS[kind].is_object):
            raise SchemaError(
                f"table {table!r}, column {name!r}: {given!r} is no column type; use one of {_ALLOWED}"
            )
        return cls(name, kind, nullable)


class Schema:
    """The columns of a table, in order. Iterates over `Column`; two schemas with equal columns are equal."""

    __slots__ = ("_by_name", "columns")

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = tuple(columns)
        self._by_name = {column.name: column for column in self.columns}

    @classmethod
    def declare(cls, given: Mapping[str, Any], *, table: str) -> Schema:
        """Make a schema out of a user's mapping of column names to types.

        Raises:
            SchemaError: It is no mapping, has no columns, or one of them cannot be declared.
        """
        if not isinstance(given, Mapping):
            raise SchemaError(f"table {table!r}: a schema maps column names to types, and is not {given!r}")
        if not given:
            raise SchemaError(f"table {table!r}: a schema needs at least one column, like {{'loss': float}}")
        return cls(Column.declare(name, kind, table=table) for name, kind in given.items())

    @classmethod
    def from_json(cls, columns: Iterable[Any]) -> Schema:
        """Undo `to_json`.

        Raises:
            SchemaError: It is no such list, or has a kind that this version does not know.
        """
        try:
            made = [Column(str(name), str(kind), bool(nullable)) for name, kind, nullable in columns]
        except (TypeError, ValueError) as error:
            raise SchemaError(f"{columns!r} is no list of [name, kind, nullable]") from error
        for column in made:
            if column.kind not in KINDS:
                raise SchemaError(
                    f"column {column.name!r} is of kind {column.kind!r}; known are {', '.join(KINDS)}; "
                    "upgrade cox if a newer one wrote this"
                )
        return cls(made)

    def to_json(self) -> list[list[Any]]:
        """As plain lists: `[[name, kind, nullable], …]`."""
        return [[column.name, column.kind, column.nullable] for column in self.columns]

    def to_user(self) -> dict[str, Any]:
        """As the mapping that a user would declare."""
        return {column.name: column.type for column in self.columns}

    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(self._by_name)

    def with_column(self, column: Column) -> Schema:
        """This schema and one column more."""
        return Schema((*self.columns, column))

    def get(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return self._by_name.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.columns == other.columns

    def __hash__(self) -> int:
        return hash(self.columns)

    def __repr__(self) -> str:
        return f"Schema({self.to_user()!r})"


def kind_of(given: Any) -> str | None:
    """The kind of column that a type stands for, numpy's scalar types included; None for no such type."""
    if isinstance(given, (type, str)) and given in _KIND_OF:
        return _KIND_OF[given]
    if isinstance(given, type) and given.__module__ == "numpy":
        if given.__name__ in ("str_", "str"):
            return "str"
        return next((kind for prefix, kind in _NUMPY_PREFIXES if given.__name__.startswith(prefix)), None)
    return None


def type_name(given: Any) -> str:
    """A type as a user would write it: `float`, `int | None`, `OBJECT`."""
    if isinstance(given, type):
        return given.__name__
    inner, nullable = _unwrap_optional(given)
    if nullable:
        return f"{type_name(inner)} | None"
    return given.strip("_").upper() if isinstance(given, str) else str(given)


def describe_difference(old: Schema, new: Schema) -> str:
    """What `new` has otherwise than `old`, as a sentence; empty where they hold the same columns."""
    parts = []
    if missing := [name for name in old.names() if name not in new]:
        parts.append(f"lacks {missing}")
    if extra := [name for name in new.names() if name not in old]:
        parts.append(f"adds {extra}")
    for column in old:
        other = new.get(column.name)
        if other is not None and other != column:
            parts.append(f"has {column.name!r} as {type_name(other.type)}, was {type_name(column.type)}")
    return "; ".join(parts)


def shown(value: Any, how: Callable[[Any], str] = repr) -> str:
    """A value for a message: short, and whatever its own `__repr__` does."""
    try:
        text = how(value)
    except Exception:  # noqa: BLE001 - a message must not fail over somebody's __repr__
        text = object.__repr__(value)
    return text if len(text) <= 200 else text[:200] + "…"


def infer(d: Any, alternative: str = OBJECT) -> dict[str, Any]:
    """Infer a schema from a row of values.

    Args:
        d: Column names to values: a mapping, a Namespace or a dataclass. int, float, str and bool, numpy
            scalars and 0-d arrays and tensors give the plain type; every other value gives `alternative`, and
            so does a value that a plain column cannot hold, such as an int beyond 64 bits.
        alternative: OBJECT, PICKLE or PYTORCH_STATE.

    Returns:
        Column names to types, as `Store.add_table` takes them.
    """
    if alternative not in (OBJECT, PICKLE, PYTORCH_STATE):
        raise SchemaError(f"alternative={alternative!r}; choose OBJECT, PICKLE or PYTORCH_STATE")
    row = as_mapping(d)
    if row is None:
        raise SchemaError(
            f"an example row is a mapping of names to values, a Namespace or a dataclass, not {shown(d)}"
        )
    return {name: _infer_type(value, alternative) for name, value in row.items()}


def as_mapping(row: Any) -> dict[str, Any] | None:
    """A row or a set of parameters as a new dict: of a mapping, a Series, a Namespace or a dataclass.

    Nothing nested is converted. None for what has no names and values.
    """
    if isinstance(row, type):
        return None
    if isinstance(row, Mapping) or callable(getattr(row, "items", None)):
        return dict(row.items())
    if dataclasses.is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if {"Namespace", "SimpleNamespace"} & {base.__name__ for base in type(row).__mro__}:  # without an import
        return dict(vars(row))
    as_dict = getattr(row, "as_dict", None)  # cox.utils.Parameters
    return dict(as_dict()) if callable(as_dict) else None


class Conversion(typing.NamedTuple):
    """A value as its column stores it, and whether it lost something on the way."""

    value: Any
    lossy: bool


def convert(value: Any, column: Column, *, table: str) -> Conversion:
    """Convert a value to its column's type as Python does: `type(value)`.

    Args:
        value: Anything. Arrays and tensors of one element count as that element.
        column: A column of kind float, int, str or bool.
        table: The table's name, for the error.

    Raises:
        RowError: The value cannot be converted. Names table, column, value and what is allowed.
    """
    if column.nullable and is_missing(value, column.kind):
        return Conversion(None, lossy=False)
    try:
        return _converter(column)(value)
    except Exception as error:
        optional = f"{type_name(column.type)} | None"
        remedy = (
            f"; declare the column as {optional} to leave it out"
            if is_missing(value, column.kind) and not column.nullable
            else ""
        )
        raise RowError(
            f"table {table!r}, column {column.name!r}: {shown(value)} is not {column.traits.wanted} "
            f"(the column is {type_name(column.type)}: {shown(error, str)}){remedy}"
        ) from error


def is_missing(value: Any, kind: str) -> bool:
    """Whether a value stands for a missing cell of a column: None, and what pandas shows for one.

    pandas shows NA and NaT, and a nan where a column of int, bool or str has no value. In a column of float a
    nan is a measurement.
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if KINDS[kind].is_time and type(value).__name__ == "datetime64":
        return bool(value != value)
    is_float = isinstance(value, float) or (type(value).__module__, type(value).__name__[:5]) == (
        "numpy",
        "float",
    )
    return not KINDS[kind].has_nan and is_float and bool(value != value)


def cell_value(column: Column, cell: Any) -> Any:
    """A cell as the value that was logged: the time that its text tells. Objects stay as they are stored.

    Raises:
        DamagedError: It is not a time.
    """
    if cell is None or not column.traits.is_time:
        return cell
    try:
        return time_of(cell)
    except ValueError as error:
        raise DamagedError(f"column {column.name!r} holds {shown(cell)}, which is not a time") from error


def as_number(value: Any) -> int | float | None:
    """A number as Python's own, an int where it is whole; None if the value is not a finite number.

    Args:
        value: Numbers of Python, numpy and torch, arrays and tensors of one element too.
    """
    try:
        plain = _one(value)
        if isinstance(plain, (bool, str, bytes)):
            return None
        number = float(plain)
        return int(plain) if number.is_integer() else number if math.isfinite(number) else None
    except Exception:  # noqa: BLE001 - an array of several elements, or whatever else has an `item`
        return None


def as_count(value: Any) -> int | None:
    """A number of rows or of a process, 0 or more, as Python's int; None if the value is not one."""
    number = as_number(value)
    return number if isinstance(number, int) and number >= 0 else None


def _unwrap_optional(given: Any) -> tuple[Any, bool]:
    if typing.get_origin(given) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(given) if arg is not type(None)]
        if len(inner) == 1:
            return inner[0], True
    return given, False


def _infer_type(value: Any, alternative: str) -> Any:
    plain = value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):
            return alternative  # numpy's times: some of them give an int as their item
        plain = value.item()
    if isinstance(value, datetime.datetime) and _is_plain_time(value):
        return datetime.datetime
    fits = type(plain) in (float, bool) or (
        INT_MIN <= plain <= INT_MAX if type(plain) is int else type(plain) is str and _is_unicode(plain)
    )
    return type(plain) if fits else alternative


def _is_unicode(text: str) -> bool:
    """Whether a file can hold a text: not one with a lone surrogate, as a path that is not UTF-8 has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _one(value: Any) -> Any:
    """The element of a one-element array or tensor; anything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _to_float(value: Any) -> Conversion:
    plain = _one(value)
    made = float(plain)
    return Conversion(made, lossy=_differs(made, plain))


def _to_int(value: Any) -> Conversion:
    plain = _one(value)
    made = int(plain)
    if not INT_MIN <= made <= INT_MAX:
        raise OverflowError("out of range")
    return Conversion(made, lossy=_differs(made, plain))


def _to_bool(value: Any) -> Conversion:
    plain = _one(value)
    made = bool(plain)
    return Conversion(made, lossy=bool(made != plain))


def _to_str(value: Any) -> Conversion:
    text = str(value)
    text.encode()  # a lone surrogate cannot be written to a file
    # NA becomes the text '<NA>', as None becomes 'None'; but whoever copies a frame does not mean the text
    lossy = value is not None and not isinstance(value, str) and is_missing(value, "str")
    return Conversion(text if type(text) is str else str.__str__(text), lossy=lossy)


def _to_time(value: Any) -> Conversion:
    if isinstance(value, str):
        return Conversion(time_text(time_of(value)), lossy=False)
    if getattr(getattr(value, "dtype", None), "kind", "") == "M":
        value = _of_datetime64(value)
    if not isinstance(value, datetime.datetime):
        is_number = as_number(value) is not None
        remedy = "; datetime.fromtimestamp(seconds, timezone.utc) makes a time" if is_number else ""
        raise TypeError(f"this is {type(value).__name__}{remedy}")
    if getattr(value, "nanosecond", 0):
        raise ValueError("it has nanoseconds, a column has microseconds; round it, as .round('us') does")
    return Conversion(time_text(value), lossy=False)


def _of_datetime64(value: Any) -> Any:
    """A datetime64, or an array of one, as a datetime; refused if it is finer than microseconds."""
    micros = value.astype("datetime64[us]")
    if micros.astype(value.dtype) != value:
        raise ValueError("it is finer than the microseconds of a column; round it: .astype('datetime64[us]')")
    return micros.item()


def _is_plain_time(value: Any) -> bool:
    """Whether a column of times gives a time back as it is; not so a subclass of somebody's own."""
    if type(value) is not datetime.datetime and type(value).__name__ != "Timestamp":
        return False
    try:
        return bool(_to_time(value))
    except (ValueError, OverflowError):
        return False


def _differs(made: float, plain: Any) -> bool:
    """Whether a number changed in conversion. Text has no number to compare with; nan is never equal."""
    if type(plain) is type(made) or isinstance(plain, (str, bytes, bytearray)):
        return False
    return bool(made != plain) and bool(plain == plain)


def _converter(column: Column) -> Callable[[Any], Conversion]:
    convert = column.traits.convert
    if convert is None:
        raise TypeError("objects are encoded, and not converted")
    return convert


_EVERY_KIND = (
    Kind(
        "float",
        float,
        float,
        dtype="float64",
        filler=0.0,
        convert=_to_float,
        wanted="a number",
        is_number=True,
        is_measure=True,
        has_nan=True,
    ),
    Kind(
        "int",
        int,
        int,
        dtype="int64",
        filler=0,
        convert=_to_int,
        wanted=_RANGE,
        most=INT_MAX,
        is_number=True,
        is_measure=True,
    ),
    Kind("str", str, str, dtype="object", filler="", convert=_to_str, wanted="text"),
    Kind(
        "bool",
        bool,
        bool,
        dtype="bool",
        filler=False,
        convert=_to_bool,
        wanted="a truth value",
        is_number=True,
    ),
    Kind(
        "datetime",
        datetime.datetime,
        str,
        dtype="object",
        filler="",
        convert=_to_time,
        wanted=_TIME,
        is_time=True,
    ),
    Kind("object", OBJECT, str, dtype="object", filler="", is_object=True, is_rebuilt=True),
    Kind("pickle", PICKLE, str, dtype="object", filler="", is_object=True, in_file=True, is_rebuilt=True),
    Kind(
        "pytorch_state",
        PYTORCH_STATE,
        str,
        dtype="object",
        filler="",
        is_object=True,
        in_file=True,
        by_torch=True,
    ),
)
#: Every kind of column, by its name on disk.
KINDS: dict[str, Kind] = {kind.name: kind for kind in _EVERY_KIND}
_KIND_OF = {kind.given: kind.name for kind in _EVERY_KIND}
