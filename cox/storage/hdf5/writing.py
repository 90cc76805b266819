"""Writing a store file: pandas' table layout, attribute by attribute."""

from __future__ import annotations

import contextlib
import datetime
import json
import operator
import pickle
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import msgspec
import numpy as np

from cox.schema import Column, Schema
from cox.storage import fs, layout, time_cells
from cox.storage.columns import (
    Array,
    Part,
    TableData,
    dtype_of,
    is_beyond_int64,
    is_text,
    mask_of,
    values_of,
)
from cox.storage.hdf5 import checks, packing, reading, superblock
from cox.storage.hdf5.content import (
    CHECKSUM_ATTRIBUTE,
    CHECKSUM_FROM,
    RUN_ATTRIBUTE,
    SIDECAR_GROUP,
    SLICE_BYTES,
    UPSTREAM_ATTRIBUTE,
    VERSION,
    StoreFile,
)

#: What stands for a missing text in the file, for pandas; with a mark more for each text that is just that.
MISSING_TEXT = "\x15cox:missing"
#: Above so many columns, one HDF5 field for each would not fit PyTables; they share one by kind.
_MOST_FIELDS = 400
#: HDF5 keeps the description of all fields in one message of less than 64 KB: each one's name and type.
_MOST_FIELD_BYTES, _FIELD_TYPE_BYTES = 60_000, 48
_CHUNK_BYTES = 256 * 1024
#: Integers beyond this are not all floats.
EXACT_FLOAT = 2**53
_FILLS: dict[str, str | float] = {"S": "", "f": 0.0}


def write(path: Path, content: StoreFile, *, old: Path | None = None) -> None:
    """Write a new store file.

    Args:
        path: A name that is free.
        content: Its tables (those without rows are left out), writers and byte count.
        old: The file that `content` was read from, or what is left of it: `content.foreign` is copied from
            it, and so are rows that lie there as they will here, without compressing them anew.
    """
    # In memory first: a disk that fails under HDF5's hands leaves it unable to close its file, and may take
    # the process along. HDF5 1.10's format has checksums on all that describes the data; fletcher32 adds
    # those on the data.
    how = {"driver": "core", "backing_store": False, "libver": ("v110", "v110"), "locking": False}
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(h5py.File(str(path), "w", **how))
        source = None
        if old is not None and (content.foreign or content.stored):
            source = h5py.File(opened.enter_context(reading.opened(old)))
        _write_root(file)
        described = {}
        for number, table in enumerate(content.tables.values()):
            if table.nrows:
                before = source[table.name] if source and _begins_as_stored(table, content) else None
                described[table.name] = _write_table(file, table, number, before)
        run = {
            "version": VERSION,
            "tables": described,
            "writers": content.writers,
            "folded_bytes": content.folded_bytes,
            **({"id": content.run_id} if content.run_id else {}),
        }
        text = json.dumps(run).encode()
        _set(file.id, RUN_ATTRIBUTE, text)
        if len(text) >= CHECKSUM_FROM:
            _set(file.id, CHECKSUM_ATTRIBUTE, zlib.crc32(text))
        if source is not None:
            for name in content.foreign:
                checks.check_copyable(source.id, name)
                target = name
                while target in file:  # a table of that name has come since
                    target += "_"
                parent, _, last = target.rpartition("/")
                source.copy(name, file.require_group(parent) if parent else file, last)
        file.flush()
        image = superblock.sealed(file.id.get_file_image())
    fs.write_new(path, image)


#: A value of an attribute.
_Attribute: TypeAlias = "bytes | str | int | float"


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


def _begins_as_stored(table: TableData, content: StoreFile) -> bool:
    stored = content.stored.get(table.name, [])
    first = table.parts[: len(stored)]
    return bool(stored) and len(first) == len(stored) and all(map(operator.is_, first, stored))


def _write_table(file: h5py.File, table: TableData, number: int, before: h5py.Group | None) -> dict[str, Any]:
    """Write one table, which begins with the rows of `before`; returns what COX_RUN says of it."""
    placeholder = _placeholder(table)
    zones = {column.name: _zone_of(table, column) for column in table.schema if column.traits.is_time}
    bases = {column.name: _stored_dtype(table, column, placeholder, zones) for column in table.schema}
    fields = _fields(table.schema, bases, zones)
    dtype = np.dtype([("index", "<i8"), *((f.name, f.base, f.shape) for f in fields)])
    file_type = _hdf5_type(dtype, fields)
    group = file.create_group(table.name)
    dataset = _create_dataset(group, dtype, file_type, table.nrows)
    start = 0
    if before is not None and checks.text_attribute(before.id, "nan_rep") == placeholder.encode():
        start = _copy_chunks(before["table"].id, dataset)
    (rows_a_chunk,) = dataset.get_create_plist().get_chunk()
    for chunk in _in_chunks(_stored_rows(table, fields, dtype, placeholder, start), rows_a_chunk):
        dataset.write_direct_chunk((start,), packing.pack(chunk))
        start += rows_a_chunk
    _write_pandas_attributes(group, dataset, table, fields, placeholder, zones)
    sidecars = _write_sidecars(file, table, bases, number)
    zoned = [at for at, name in enumerate(table.schema.names()) if zones.get(name)]
    places = {c.name: [f.name, at if f.block else -1] for f in fields for at, c in enumerate(f.columns)}
    return {
        "columns": table.schema.to_json(),
        "places": [places[name] for name in table.schema.names()],
        "nrows": table.nrows,
        **sidecars,
        **({"zoned": zoned} if zoned else {}),
    }


def _placeholder(table: TableData) -> str:
    """A text that stands for missing ones: one that no cell of the table holds."""
    placeholder = MISSING_TEXT
    while any(_holds(part, column, placeholder) for part in table.parts for column in table.schema):
        placeholder += "'"
    return placeholder


def _holds(part: Part, column: Column, text: str) -> bool:
    array = part.values.get(column.name)
    if array is None or not is_text(column):
        return False
    if array.dtype.kind == "S" and array.dtype.itemsize < len(text):
        return False
    found = array == (text.encode() if array.dtype.kind == "S" else text)
    return bool((found & ~mask_of(part, column.name)).any())


def _zone_of(table: TableData, column: Column) -> bool | None:
    parts = [part for part in table.parts if column.name in part.values]
    return time_cells.zone_of([(part.values[column.name], mask_of(part, column.name)) for part in parts])


def _stored_dtype(
    table: TableData, column: Column, placeholder: str, zones: dict[str, bool | None]
) -> np.dtype[Any]:
    """A column's dtype in the file: as pandas has it, which knows missing numbers as nan only.

    Times of which only some have a zone, or that are too far away, are no column of pandas': they stay text.
    """
    if zones.get(column.name) is not None:
        return time_cells.STORED
    if is_text(column):
        return np.dtype(f"S{max(1, _text_width(table, column, placeholder))}")
    if any(is_beyond_int64(part.values[column.name]) for part in table.parts if column.name in part.values):
        return np.dtype("<u8")
    missing = not column.traits.has_nan and table.has_missing(column)
    return np.dtype("<f8") if missing else dtype_of(column.kind).newbyteorder("<")


def _text_width(table: TableData, column: Column, placeholder: str) -> int:
    width = len(placeholder) if table.has_missing(column) else 0
    for part in table.parts:
        array = part.values.get(column.name)
        if array is None or not len(array):
            continue
        if array.dtype.kind == "S":
            width = max(width, array.dtype.itemsize)
        else:
            width = max(width, max(len(text.encode()) for text in array))
    return width


def _fields(schema: Schema, bases: dict[str, np.dtype[Any]], zones: dict[str, bool | None]) -> list[_Field]:
    described = sum(len(column.name.encode()) + _FIELD_TYPE_BYTES for column in schema)
    if len(schema) <= _MOST_FIELDS and described <= _MOST_FIELD_BYTES:
        made = []
        for number, column in enumerate(schema):
            is_plain = layout.is_plain_field(column.name)
            name = column.name if is_plain else f"values_block_{number}"
            made.append(_Field(name, [column], bases[column.name], block=not is_plain))
        return made
    blocks: dict[tuple[str, bool], list[Column]] = {}
    for column in schema:
        blocks.setdefault((bases[column.name].kind, bool(zones.get(column.name))), []).append(column)
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
        elif field_.base.kind == "M":
            base = h5py.h5t.STD_I64LE
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
    packing.declare_filters(how)
    space = h5py.h5s.create_simple((nrows,), (h5py.h5s.UNLIMITED,))
    return h5py.h5d.create(group.id, b"table", file_type, space, dcpl=how)


def _copy_chunks(before: h5py.h5d.DatasetID, dataset: h5py.h5d.DatasetID) -> int:
    """Copy the full chunks of an old dataset as they are. Returns how many rows these are.

    That is none if a chunk would look otherwise in the new one: a text has become longer, say.
    """
    old, new = before.get_create_plist(), dataset.get_create_plist()
    filters = [[how.get_filter(at) for at in range(how.get_nfilters())] for how in (old, new)]
    if old.get_layout() != new.get_layout() or old.get_chunk() != new.get_chunk() or filters[0] != filters[1]:
        return 0
    (rows_a_chunk,) = new.get_chunk()
    full = before.shape[0] // rows_a_chunk * rows_a_chunk
    if before.get_type() != dataset.get_type() or before.get_num_chunks() * rows_a_chunk < full:
        return 0
    for start in range(0, full, rows_a_chunk):
        mask, packed = before.read_direct_chunk((start,))
        dataset.write_direct_chunk((start,), packed, mask)
    return int(full)


def _stored_rows(
    table: TableData, fields: list[_Field], dtype: np.dtype[Any], placeholder: str, begin: int
) -> Iterator[Array]:
    """The rows from `begin` on, as they lie in the file: in slices that fit into memory, however wide."""
    at_once = max(1, SLICE_BYTES // dtype.itemsize)
    start = begin
    for part in _without(table.parts, begin):
        for first in range(0, part.nrows, at_once):
            some = part if part.nrows <= at_once else part.take(slice(first, first + at_once))
            rows = np.zeros(some.nrows, dtype=dtype)
            rows["index"] = np.arange(start, start + some.nrows)
            for field_ in fields:
                for at, column in enumerate(field_.columns):
                    target = rows[field_.name][:, at] if field_.block else rows[field_.name]
                    target[:] = _stored_values(some, column, field_.base, placeholder)
            start += some.nrows
            yield rows


def _without(parts: list[Part], rows: int) -> Iterator[Part]:
    """The parts but for so many rows at the beginning."""
    for part in parts:
        left = max(0, part.nrows - rows)
        if left:
            yield part.take(slice(part.nrows - left, None)) if left < part.nrows else part
        rows -= part.nrows - left


def _stored_values(part: Part, column: Column, base: np.dtype[Any], placeholder: str) -> Array:
    array = part.values.get(column.name)
    mask = mask_of(part, column.name)
    missing = bool(mask.any())
    if base.kind == "S":
        if array is not None and array.dtype.kind == "S":
            return np.where(mask, placeholder.encode(), array) if missing else array
        texts = values_of(part, column)
        if missing:
            texts = np.where(mask, placeholder, texts)
        return np.array([text.encode() for text in texts], dtype=base)
    if base.kind == "M":
        times = time_cells.decode(values_of(part, column) if array is None else array, mask)[0]
        return times.astype(time_cells.STORED)
    values = values_of(part, column)
    return np.where(mask, np.nan, values) if missing else values


def _in_chunks(slices: Iterable[Array], size: int) -> Iterator[Array]:
    """Rows in chunks of one size, the last one with zeros at its end where it would be shorter."""
    rest: Array | None = None
    for rows in slices:
        rows = rows if rest is None or not len(rest) else np.concatenate([rest, rows])
        whole = len(rows) // size * size
        for start in range(0, whole, size):
            yield rows[start : start + size]
        rest = rows[whole:]
    if rest is not None and len(rest):
        yield np.concatenate([rest, np.zeros(size - len(rest), dtype=rest.dtype)])


def _write_pandas_attributes(
    group: h5py.Group,
    dataset: h5py.h5d.DatasetID,
    table: TableData,
    fields: list[_Field],
    placeholder: str,
    zones: dict[str, bool | None],
) -> None:
    for name, value in _group_attributes(table, fields, placeholder, zones).items():
        _set(group.id, name, value)
    for name, value in _table_attributes(table, fields).items():
        _set(dataset, name, value)


def _group_attributes(
    table: TableData, fields: list[_Field], placeholder: str, zones: dict[str, bool | None]
) -> dict[str, _Attribute]:
    """What pandas reads at the group of a table, and upstream cox."""
    names = list(table.schema.names())
    info: dict[Any, Any] = {1: {"names": [None], "type": "Index"}, "index": {}}
    utc = {"tz": datetime.timezone.utc}
    info.update({f.name: utc if zones.get(f.columns[0].name) else {} for f in fields})
    upstream = {"schema": {c.name: c.traits.given for c in table.schema}, "name": table.name}
    return {
        "CLASS": "GROUP",
        "TITLE": "",
        "VERSION": "1.0",
        "pandas_type": "frame_table",
        "pandas_version": "0.15.2",
        "table_type": "appendable_frame",
        "encoding": "UTF-8",
        "errors": "strict",
        "nan_rep": placeholder,
        "levels": 1,
        "index_cols": _pickled([(0, "index")]),
        "values_cols": _pickled([f.name for f in fields]),
        "data_columns": _pickled([f.name for f in fields if not f.block]),
        "non_index_axes": _pickled([(1, names)]),
        "info": _pickled(info),
        UPSTREAM_ATTRIBUTE: _pickled(upstream),
    }


def _table_attributes(table: TableData, fields: list[_Field]) -> dict[str, _Attribute]:
    """What PyTables and pandas read at the rows of a table."""
    attributes: dict[str, _Attribute] = {
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
    return attributes


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
        if array is not None and array.dtype.kind in "iu" and base.kind == "f":
            rows = np.flatnonzero((np.abs(array) > EXACT_FLOAT) | (array == np.iinfo(np.int64).min))
            cells += [(start + row, int(array[row])) for row in rows.tolist()]
        elif array is not None and array.dtype == object:
            cells += [(start + row, text) for row, text in enumerate(array) if text.endswith("\0")]
        start += part.nrows
    return cells
