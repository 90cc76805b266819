"""`store.h5`: written so that pandas opens it without cox, read through h5py without pandas.

pandas and PyTables unpickle HDF5 attributes by themselves, so that listing a stranger's file runs its
code. Here attributes are read raw and go through `cox.plain`. What is written is the layout of
`HDFStore.append(…, data_columns=True)`, attribute by attribute, plus `COX_DATA` for upstream cox, and
one root attribute, COX_RUN, with all that cox itself needs to read the file back (docs/FORMAT.md).

A file is only ever made new; nothing here changes one in place.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from cox import plain
from cox.errors import DamagedError, FormatVersionError
from cox.schema import KINDS, Column, Schema, kind_of
from cox.storage import layout
from cox.storage.columns import Array, Part, TableData, decode_text, dtype_of, is_text, mask_of, values_of

VERSION = 1
RUN_ATTRIBUTE = "COX_RUN"
UPSTREAM_ATTRIBUTE = "COX_DATA"
SIDECAR_GROUP = "_cox"

#: What stands for a missing text in the file, for pandas; unlikely enough to be nobody's text.
MISSING_TEXT = "\x15cox:missing"
#: Above so many columns, one HDF5 field for each would not fit PyTables; they share one by kind.
_MOST_FIELDS = 400
_CHUNK_BYTES = 256 * 1024
_SLICE_BYTES = 32 * 1024 * 1024
_COMPRESSION_LEVEL = 3
_EXACT_FLOAT = 2**53
_FILLS: dict[str, str | float] = {"S": "", "f": 0.0}


@dataclass(slots=True)
class StoreFile:
    """What a store file holds.

    Attributes:
        tables: By name, in the order they were made. Without parts, if only the header was read.
        nrows: Rows of each table.
        writers: For each writer, the sequence number up to which its journal is in here, and how many
            rows of each table are its own.
        folded_bytes: Bytes of journal that went into the file so far.
        foreign: What else lies at the file's root: put there by the user, and kept.
    """

    tables: dict[str, TableData] = field(default_factory=dict)
    nrows: dict[str, int] = field(default_factory=dict)
    writers: dict[str, dict[str, Any]] = field(default_factory=dict)
    folded_bytes: int = 0
    foreign: list[str] = field(default_factory=list)


# --- Writing


def write(path: Path, content: StoreFile, *, old: Path | None = None) -> None:
    """Write a new store file.

    Args:
        path: A name that is free.
        content: Its tables (those without rows are left out), writers and byte count.
        old: The file that `content.foreign` is copied from.
    """
    # HDF5 1.10's format has checksums on all that describes the data; fletcher32 adds those on the data
    with h5py.File(path, "x", libver=("v110", "v110"), locking=False) as file:
        _write_root(file)
        described = {}
        for number, table in enumerate(content.tables.values()):
            if table.nrows:
                described[table.name] = _write_table(file, table, number)
        run = {
            "version": VERSION,
            "tables": described,
            "writers": content.writers,
            "folded_bytes": content.folded_bytes,
        }
        _set(file.id, RUN_ATTRIBUTE, json.dumps(run).encode())
        if old is not None and content.foreign:
            with h5py.File(old, "r", locking=False) as source:
                for name in content.foreign:
                    source.copy(name, file)


@dataclass(slots=True)
class _Field:
    """One field of a table's HDF5 dataset: a column under its own name, or a block of columns."""

    name: str
    columns: list[Column]
    base: np.dtype[Any]
    block: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.columns),) if self.block else ()


def _write_root(file: h5py.File) -> None:
    for name, value in (("CLASS", "GROUP"), ("PYTABLES_FORMAT_VERSION", "2.1"), ("VERSION", "1.0")):
        _set(file.id, name, value)
    _set(file.id, "TITLE", "")


def _write_table(file: h5py.File, table: TableData, number: int) -> dict[str, Any]:
    """Write one table; returns what COX_RUN says of it."""
    bases = {column.name: _stored_dtype(table, column) for column in table.schema}
    fields = _fields(table.schema, bases)
    dtype = np.dtype([("index", "<i8"), *((f.name, f.base, f.shape) for f in fields)])
    file_type = _hdf5_type(dtype, fields)
    group = file.create_group(table.name)
    dataset = _create_dataset(group, dtype, file_type, table.nrows)
    start = 0
    for rows in _stored_rows(table, fields, dtype):
        _write_slice(dataset, file_type, rows, start)
        start += len(rows)
    _write_pandas_attributes(group, dataset, table, fields)
    sidecars = _write_sidecars(file, table, bases, number)
    places = {c.name: [f.name, at if f.block else -1] for f in fields for at, c in enumerate(f.columns)}
    return {
        "columns": table.schema.to_json(),
        "places": [places[name] for name in table.schema.names()],
        "nrows": table.nrows,
        **sidecars,
    }


def _stored_dtype(table: TableData, column: Column) -> np.dtype[Any]:
    """A column's dtype in the file: as pandas has it, which knows missing numbers as nan only."""
    if is_text(column):
        return np.dtype(f"S{max(1, _text_width(table, column))}")
    if any(_is_beyond_int64(part.values[column.name]) for part in table.parts if column.name in part.values):
        return np.dtype("<u8")
    missing = column.kind != "float" and table.has_missing(column)
    return np.dtype("<f8") if missing else dtype_of(column.kind).newbyteorder("<")


def _text_width(table: TableData, column: Column) -> int:
    width = len(MISSING_TEXT) if table.has_missing(column) else 0
    for part in table.parts:
        array = part.values.get(column.name)
        if array is None or not len(array):
            continue
        if array.dtype.kind == "S":
            width = max(width, array.dtype.itemsize)
        else:
            width = max(width, max(len(text.encode()) for text in array))
    return width


def _fields(schema: Schema, bases: dict[str, np.dtype[Any]]) -> list[_Field]:
    if len(schema) <= _MOST_FIELDS:
        made = []
        for number, column in enumerate(schema):
            is_plain = layout.is_plain_field(column.name)
            name = column.name if is_plain else f"values_block_{number}"
            made.append(_Field(name, [column], bases[column.name], block=not is_plain))
        return made
    blocks: dict[str, list[Column]] = {}
    for column in schema:
        blocks.setdefault(bases[column.name].kind, []).append(column)
    return [
        _Field(
            f"values_block_{number}",
            columns,
            max((bases[c.name] for c in columns), key=_itemsize),
            block=True,
        )
        for number, columns in enumerate(blocks.values())
    ]


def _itemsize(dtype: np.dtype[Any]) -> int:
    return dtype.itemsize


def _hdf5_type(dtype: np.dtype[Any], fields: list[_Field]) -> h5py.h5t.TypeID:
    """The compound type as PyTables makes it: booleans as bit fields, text null-terminated."""
    made = h5py.h5t.create(h5py.h5t.COMPOUND, dtype.itemsize)
    assert dtype.fields is not None  # noqa: S101 - for the type checker
    made.insert(b"index", 0, h5py.h5t.STD_I64LE)
    for field_ in fields:
        if field_.base.kind == "S":
            base = h5py.h5t.C_S1.copy()
            base.set_size(field_.base.itemsize)
        elif field_.base.kind == "b":
            base = h5py.h5t.STD_B8LE
        else:
            base = h5py.h5t.py_create(field_.base)
        if field_.block:
            base = h5py.h5t.array_create(base, field_.shape)
        made.insert(field_.name.encode(), dtype.fields[field_.name][1], base)
    return made


def _create_dataset(
    group: h5py.Group, dtype: np.dtype[Any], file_type: h5py.h5t.TypeID, nrows: int
) -> h5py.h5d.DatasetID:
    rows_a_chunk = max(1, min(max(nrows, 16), _CHUNK_BYTES // dtype.itemsize))
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((rows_a_chunk,))
    how.set_shuffle()
    how.set_deflate(_COMPRESSION_LEVEL)
    how.set_fletcher32()
    space = h5py.h5s.create_simple((nrows,), (h5py.h5s.UNLIMITED,))
    return h5py.h5d.create(group.id, b"table", file_type, space, dcpl=how)


def _stored_rows(table: TableData, fields: list[_Field], dtype: np.dtype[Any]) -> Iterator[Array]:
    """The rows as they lie in the file, in slices that fit into memory however wide a text is."""
    at_once = max(1, _SLICE_BYTES // dtype.itemsize)
    start = 0
    for part in table.parts:
        for first in range(0, part.nrows, at_once):
            some = part if part.nrows <= at_once else part.take(slice(first, first + at_once))
            rows = np.zeros(some.nrows, dtype=dtype)
            rows["index"] = np.arange(start, start + some.nrows)
            for field_ in fields:
                for at, column in enumerate(field_.columns):
                    target = rows[field_.name][:, at] if field_.block else rows[field_.name]
                    target[:] = _stored_values(some, column, field_.base)
            start += some.nrows
            yield rows


def _stored_values(part: Part, column: Column, base: np.dtype[Any]) -> Array:
    array = part.values.get(column.name)
    mask = mask_of(part, column.name)
    missing = bool(mask.any())
    if base.kind == "S":
        if array is not None and array.dtype.kind == "S" and not missing:
            return array
        texts = values_of(part, column)
        if missing:
            texts = np.where(mask, MISSING_TEXT, texts)
        return np.array([text.encode() for text in texts], dtype=base)
    values = values_of(part, column)
    return np.where(mask, np.nan, values) if missing else values


def _write_slice(dataset: h5py.h5d.DatasetID, file_type: h5py.h5t.TypeID, rows: Array, start: int) -> None:
    memory = h5py.h5s.create_simple((len(rows),))
    place = dataset.get_space()
    place.select_hyperslab((start,), (len(rows),))
    dataset.write(memory, place, rows, mtype=file_type)


def _write_pandas_attributes(
    group: h5py.Group, dataset: h5py.h5d.DatasetID, table: TableData, fields: list[_Field]
) -> None:
    names = list(table.schema.names())
    info: dict[Any, Any] = {1: {"names": [None], "type": "Index"}, "index": {}}
    info.update({f.name: {} for f in fields})
    upstream = {"schema": {c.name: KINDS[c.kind] for c in table.schema}, "name": table.name}
    described: dict[str, bytes | str | int | float] = {
        "CLASS": "GROUP",
        "TITLE": "",
        "VERSION": "1.0",
        "pandas_type": "frame_table",
        "pandas_version": "0.15.2",
        "table_type": "appendable_frame",
        "encoding": "UTF-8",
        "errors": "strict",
        "nan_rep": MISSING_TEXT,
        "levels": 1,
        "index_cols": _pickled([(0, "index")]),
        "values_cols": _pickled([f.name for f in fields]),
        "data_columns": _pickled([f.name for f in fields if not f.block]),
        "non_index_axes": _pickled([(1, names)]),
        "info": _pickled(info),
        UPSTREAM_ATTRIBUTE: _pickled(upstream),
    }
    for name, value in described.items():
        _set(group.id, name, value)
    attributes: dict[str, bytes | str | int | float] = {
        "CLASS": "TABLE",
        "TITLE": "",
        "VERSION": "2.7",
        "NROWS": table.nrows,
        "FIELD_0_NAME": "index",
        "FIELD_0_FILL": 0,
        "index_kind": "integer",
    }
    for number, field_ in enumerate(fields, 1):
        attributes[f"FIELD_{number}_NAME"] = field_.name
        attributes[f"FIELD_{number}_FILL"] = _FILLS.get(field_.base.kind, 0)
        attributes[f"{field_.name}_kind"] = _pickled([column.name for column in field_.columns])
        attributes[f"{field_.name}_meta"] = _pickled(None)
        attributes[f"{field_.name}_dtype"] = _pandas_dtype(field_.base)
    for name, value in attributes.items():
        _set(dataset, name, value)


def _pandas_dtype(base: np.dtype[Any]) -> str:
    return f"bytes{base.itemsize * 8}" if base.kind == "S" else base.newbyteorder("=").name


def _pickled(value: Any) -> bytes:
    # protocol 0 is text without a NUL, which a fixed-width HDF5 string keeps whole; PyTables does the same
    return pickle.dumps(value, 0)


def _set(owner: Any, name: str, value: bytes | str | int | float) -> None:
    """Set an attribute with the types that PyTables gives it: pickles as bytes, text marked as UTF-8."""
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    if isinstance(value, (bytes, str)):
        raw = value.encode() if isinstance(value, str) else value
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(max(1, len(raw)))
        if isinstance(value, str):
            kind.set_cset(h5py.h5t.CSET_UTF8)
        array = np.array(raw, dtype=f"S{max(1, len(raw))}")
        if not raw:
            space = h5py.h5s.create(h5py.h5s.NULL)
    else:
        array = np.array(value)
        kind = h5py.h5t.py_create(array.dtype)
    attribute = h5py.h5a.create(owner, name.encode(), kind, space)
    if space.get_simple_extent_type() != h5py.h5s.NULL:
        attribute.write(array, mtype=kind)


def _write_sidecars(
    file: h5py.File, table: TableData, bases: dict[str, np.dtype[Any]], number: int
) -> dict[str, Any]:
    """Write beside the table what pandas' layout cannot hold: which cells are missing, and exact values."""
    missing, exact = [], []
    for at, column in enumerate(table.schema):
        if table.has_missing(column):
            mask = np.concatenate([mask_of(part, column.name) for part in table.parts])
            _write_sidecar(file, f"{number}/missing_{at}", np.packbits(mask))
            missing.append(at)
        cells = _inexact_cells(table, column, bases[column.name])
        if cells:
            packed = msgspec.msgpack.encode(cells)
            _write_sidecar(file, f"{number}/exact_{at}", np.frombuffer(packed, dtype=np.uint8))
            exact.append(at)
    return {"number": number, "missing": missing, "exact": exact} if missing or exact else {}


def _write_sidecar(file: h5py.File, name: str, data: Array) -> None:
    file.create_dataset(f"{SIDECAR_GROUP}/{name}", data=data, compression="gzip")


def _inexact_cells(table: TableData, column: Column, base: np.dtype[Any]) -> list[tuple[int, Any]]:
    """Row number and value of the cells that their field changes: ints as float, text that ends in NUL."""
    cells: list[tuple[int, Any]] = []
    start = 0
    for part in table.parts:
        array = part.values.get(column.name)
        if array is not None and column.kind == "int" and base.kind == "f":
            rows = np.flatnonzero((np.abs(array) > _EXACT_FLOAT) | (array == np.iinfo(np.int64).min))
            cells += [(start + row, int(array[row])) for row in rows.tolist()]
        elif array is not None and array.dtype == object:
            cells += [(start + row, text) for row, text in enumerate(array) if text.endswith("\0")]
        start += part.nrows
    return cells


# --- Reading


def read(path: Path | str, *, tables: Iterable[str] | None = None, rows: bool = True) -> StoreFile:
    """Read a store file, of this cox or of upstream's.

    Args:
        path: The file.
        tables: Only these tables' rows; None for all.
        rows: Whether to read rows at all, or only which tables there are.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: It is no HDF5 file, or not readable as a store.
        FormatVersionError: A newer cox wrote it.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read_open(file, None if tables is None else frozenset(tables), rows=rows)
    except (DamagedError, FormatVersionError, FileNotFoundError):
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise DamagedError(f"{path} cannot be read as a store: {error}") from error


def _read_open(file: h5py.File, wanted: frozenset[str] | None, *, rows: bool) -> StoreFile:
    content = StoreFile()
    described: dict[str, Any] = {}
    if RUN_ATTRIBUTE in file.attrs:
        run = json.loads(bytes(file.attrs[RUN_ATTRIBUTE]))
        if run["version"] > VERSION:
            raise FormatVersionError(
                f"{file.filename} is a store of format {run['version']}; this cox reads up to {VERSION}: "
                "upgrade cox"
            )
        described = run["tables"]
        content.writers, content.folded_bytes = run["writers"], run["folded_bytes"]
    for name, about in described.items():
        table = TableData(name, Schema.from_json(about["columns"]))
        dataset = _dataset(file, f"{name}/table")
        content.tables[name], content.nrows[name] = table, dataset.shape[0]
        if rows and (wanted is None or name in wanted):
            table.parts = _read_described(file, dataset, table, about)
    if len(file) > len(described):  # more than cox wrote there: upstream's tables, the user's, or sidecars
        for name, group in _upstream_groups(file, described):
            dataset = _dataset(file, f"{name}/table")
            table, fields = _upstream_table(name, group, dataset)
            content.tables[table.name], content.nrows[table.name] = table, dataset.shape[0]
            if rows and (wanted is None or table.name in wanted):
                table.parts = _read_parts(dataset, table.schema, fields)
        known = {name.partition("/")[0] for name in content.tables} | {SIDECAR_GROUP}
        content.foreign = [name for name in file if name not in known and _is_hard(file.id, name.encode())]
    return content


def _dataset(file: h5py.File, path: str) -> h5py.Dataset:
    """A dataset that lies in the file itself: links may lead to other files, and so may raw data."""
    group = file.id
    *parents, last = path.encode().split(b"/")
    for name in parents:
        _check_hard_link(group, name)
        group = h5py.h5g.open(group, name)
    _check_hard_link(group, last)
    dataset = h5py.h5d.open(group, last)
    how = dataset.get_create_plist()
    if how.get_external_count() or how.get_layout() == h5py.h5d.VIRTUAL:
        raise DamagedError(f"{path!r} keeps its rows outside of the file")
    return h5py.Dataset(dataset)


def _check_hard_link(group: Any, name: bytes) -> None:
    if not _is_hard(group, name):
        raise DamagedError(f"{name.decode()!r} is a link to somewhere else")


def _is_hard(group: Any, name: bytes) -> bool:
    return bool(group.links.get_info(name).type == h5py.h5l.TYPE_HARD)


def _read_described(
    file: h5py.File, dataset: h5py.Dataset, table: TableData, about: dict[str, Any]
) -> list[Part]:
    parts = _read_parts(dataset, table.schema, about["places"])
    for at in about.get("missing", ()):
        bits = _dataset(file, f"{SIDECAR_GROUP}/{about['number']}/missing_{at}")[()]
        _spread(parts, table.schema.columns[at], np.unpackbits(bits, count=about["nrows"]).astype(np.bool_))
    for at in about.get("exact", ()):
        packed = _dataset(file, f"{SIDECAR_GROUP}/{about['number']}/exact_{at}")[()]
        _patch(parts, table.schema.columns[at], msgspec.msgpack.decode(packed.tobytes()))
    return parts


def _spread(parts: list[Part], column: Column, mask: Array) -> None:
    """Hand a table's mask of missing cells out to its parts; rows that others appended have none."""
    start = 0
    for part in parts:
        own = mask[start : start + part.nrows]
        part.missing[column.name] = np.pad(own, (0, part.nrows - len(own)))
        start += part.nrows
        values = part.values[column.name]
        if values.dtype.kind == "f" and column.kind != "float":
            filled = np.where(part.missing[column.name] | np.isnan(values), 0, values)
            part.values[column.name] = filled.astype(dtype_of(column.kind))


def _patch(parts: list[Part], column: Column, cells: list[list[Any]]) -> None:
    """Put exact values in the place of what the HDF5 field made of them."""
    starts = np.cumsum([0, *(part.nrows for part in parts)])
    for row, value in cells:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        part = parts[at]
        if part.values[column.name].dtype.kind == "S":
            part.values[column.name] = decode_text(part.values[column.name])
        part.values[column.name][row - starts[at]] = value


def _read_parts(dataset: h5py.Dataset, schema: Schema, places: list[list[Any]]) -> list[Part]:
    """A table's rows. Texts so wide that they would not fit into memory padded are decoded in slices."""
    nrows, itemsize = dataset.shape[0], dataset.dtype.itemsize
    at_once = max(1, _SLICE_BYTES // itemsize)
    if itemsize < 1024 or nrows <= at_once:
        return [_part(dataset[()], schema, places)]
    parts = []
    for start in range(0, nrows, at_once):
        part = _part(dataset[start : start + at_once], schema, places)
        for name, values in part.values.items():
            if values.dtype.kind == "S":
                part.values[name] = decode_text(values)
        parts.append(part)
    return parts


def _part(rows: Array, schema: Schema, places: list[list[Any]]) -> Part:
    part = Part(len(rows), {})
    for column, (name, at) in zip(schema, places, strict=True):
        values = rows[name] if at < 0 else rows[name][:, at]
        if is_text(column):
            if values.dtype.kind != "S":
                raise DamagedError(f"column {column.name!r} holds {values.dtype}, not text")
        elif values.dtype.kind == "f" and column.kind != "float":
            pass  # a column with missing cells: `_spread` makes it whole
        elif not _is_beyond_int64(values):
            values = values.astype(dtype_of(column.kind), copy=False)
        part.values[column.name] = np.ascontiguousarray(values)
    return part


def _is_beyond_int64(values: Array) -> bool:
    """Whether these are integers that pandas stored unsigned, for they are too large for an int64."""
    return values.dtype == np.uint64 and bool((values > np.iinfo(np.int64).max).any())


def _upstream_groups(file: h5py.File, described: dict[str, Any]) -> Iterator[tuple[str, h5py.Group]]:
    """Every group that upstream cox or a program that goes on with its file marked as a table."""
    found: list[tuple[str, h5py.Group]] = []

    def visit(name: str, item: Any) -> None:
        marked = isinstance(item, h5py.Group) and UPSTREAM_ATTRIBUTE in item.attrs
        if marked and name not in described and "table" in item:
            found.append((name, item))

    file.visititems(visit)
    yield from found


def _upstream_table(name: str, group: h5py.Group, dataset: h5py.Dataset) -> tuple[TableData, list[list[Any]]]:
    """Schema and places of a table in pandas' layout, from the attributes."""
    data = _plain_attribute(group, UPSTREAM_ATTRIBUTE)
    schema = data["schema"]
    places: dict[str, list[Any]] = {}
    for field_name in _plain_attribute(group, "values_cols"):
        shape = dataset.dtype[field_name].shape
        listed = _plain_attribute(dataset, f"{field_name}_kind")
        for at, column in enumerate(listed):
            places[column] = [field_name, at if shape else -1]
    ordered = [column for column in _column_order(group, schema) if column in places]
    columns = [Column(column, kind_of(schema[column]) or "str") for column in ordered]
    return TableData(str(data.get("name", name)), Schema(columns)), [places[column] for column in ordered]


def _column_order(group: h5py.Group, schema: dict[str, Any]) -> list[str]:
    axes = _plain_attribute(group, "non_index_axes")
    order = [str(column) for column in axes[0][1]]
    return [column for column in order if column in schema]


def _plain_attribute(owner: Any, name: str) -> Any:
    """An attribute as PyTables means it: pickled, or a value of its own. Runs no code."""
    value = owner.attrs[name]
    if isinstance(value, (bytes, np.bytes_)):
        raw = bytes(value)
        return plain.loads(raw) if raw.endswith(b".") else raw.decode()
    if isinstance(value, np.void):
        return plain.loads(value.tobytes())
    return value
