"""Reading a store file, of this cox or of upstream's, through h5py and without running anything."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from cox import plain
from cox.errors import DamagedError, FormatVersionError
from cox.schema import Column, Schema, kind_of
from cox.storage.columns import Array, Part, TableData, decode_text, dtype_of, is_beyond_int64, is_text
from cox.storage.hdf5.content import (
    RUN_ATTRIBUTE,
    SIDECAR_GROUP,
    SLICE_BYTES,
    UPSTREAM_ATTRIBUTE,
    VERSION,
    StoreFile,
)


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
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=_access())
        try:
            return _read_open(file, None if tables is None else frozenset(tables), rows=rows)
        finally:
            file.close()
    except (DamagedError, FormatVersionError, FileNotFoundError):
        raise
    except Exception as error:
        raise DamagedError(f"{path} cannot be read as a store: {error}") from error


@lru_cache(maxsize=1)
def _access() -> h5py.h5p.PropFAID:
    """How files are opened: without locks, which fail on network file systems and would shut others out."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)
    return access


def _read_open(file: h5py.h5f.FileID, wanted: frozenset[str] | None, *, rows: bool) -> StoreFile:
    content = StoreFile()
    run = _run_attribute(file)
    described: dict[str, Any] = run.get("tables", {})
    content.writers, content.folded_bytes = run.get("writers", {}), run.get("folded_bytes", 0)
    for name, about in described.items():
        table = TableData(name, Schema.from_json(about["columns"]))
        content.tables[name], content.nrows[name] = table, about["nrows"]
        if wanted is None or name in wanted:
            dataset = _dataset(file, f"{name}/table")
            content.nrows[name] = dataset.shape[0]  # another program may have appended
            if rows:
                table.parts = _read_described(file, dataset, table, about)
    roots = {name.partition("/")[0] for name in described}
    if any("number" in about for about in described.values()):
        roots.add(SIDECAR_GROUP)
    if (wanted is None and rows) or h5py.h5g.open(file, b"/").get_num_objs() != len(roots):
        _read_others(h5py.File(file), content, wanted, rows=rows)
    return content


def _read_others(file: h5py.File, content: StoreFile, wanted: frozenset[str] | None, *, rows: bool) -> None:
    """Read what is in the file that cox did not write: upstream's tables; and note what is the user's."""
    for name, group in _upstream_groups(file, content.tables):
        dataset = _dataset(file.id, f"{name}/table")
        table, places = _upstream_table(name, group, dataset)
        content.tables[table.name], content.nrows[table.name] = table, dataset.shape[0]
        if rows and (wanted is None or table.name in wanted):
            table.parts = _read_parts(dataset, table.schema, places)
    known = {name.partition("/")[0] for name in content.tables} | {SIDECAR_GROUP}
    content.foreign = [name for name in file if name not in known and _is_hard(file.id, name.encode())]


def _run_attribute(file: h5py.h5f.FileID) -> dict[str, Any]:
    """COX_RUN, which says all about the tables; empty in a file of upstream's."""
    name = RUN_ATTRIBUTE.encode()
    if not h5py.h5a.exists(file, name):
        return {}
    attribute = h5py.h5a.open(file, name)
    kind = attribute.get_type()
    if kind.get_class() != h5py.h5t.STRING or kind.is_variable_str():
        raise DamagedError(f"{RUN_ATTRIBUTE} is no text")
    raw = np.empty((), dtype=f"S{kind.get_size()}")
    attribute.read(raw, mtype=kind)
    run: dict[str, Any] = json.loads(raw.tobytes())
    if run["version"] > VERSION:
        raise FormatVersionError(
            f"{file.name.decode()} is a store of format {run['version']}; this cox reads up to {VERSION}: "
            "upgrade cox"
        )
    return run


def _dataset(file: h5py.h5f.FileID, path: str) -> h5py.h5d.DatasetID:
    """A dataset that lies in the file itself: links may lead to other files, and so may raw data."""
    group = file
    *parents, last = path.encode().split(b"/")
    for name in parents:
        _check_hard_link(group, name)
        group = h5py.h5g.open(group, name)
    _check_hard_link(group, last)
    dataset = h5py.h5d.open(group, last)
    how = dataset.get_create_plist()
    if how.get_external_count() or how.get_layout() == h5py.h5d.VIRTUAL:
        raise DamagedError(f"{path!r} keeps its rows outside of the file")
    if dataset.rank != 1:
        raise DamagedError(f"{path!r} is no list of rows")
    return dataset


def _check_hard_link(group: Any, name: bytes) -> None:
    if not _is_hard(group, name):
        raise DamagedError(f"{name.decode()!r} is a link to somewhere else")


def _is_hard(group: Any, name: bytes) -> bool:
    return bool(group.links.get_info(name).type == h5py.h5l.TYPE_HARD)


def _read_described(
    file: h5py.h5f.FileID, dataset: h5py.h5d.DatasetID, table: TableData, about: dict[str, Any]
) -> list[Part]:
    parts = _read_parts(dataset, table.schema, about["places"])
    for at in about.get("missing", ()):
        bits = _slice(_dataset(file, f"{SIDECAR_GROUP}/{about['number']}/missing_{at}"))
        _spread(parts, table.schema.columns[at], np.unpackbits(bits, count=about["nrows"]).astype(np.bool_))
    for at in about.get("exact", ()):
        packed = _slice(_dataset(file, f"{SIDECAR_GROUP}/{about['number']}/exact_{at}"))
        _patch(parts, table.schema.columns[at], msgspec.msgpack.decode(packed.tobytes()))
    return parts


_dtypes: dict[bytes, np.dtype[Any]] = {}


def _dtype(kind: h5py.h5t.TypeID) -> np.dtype[Any]:
    """The dtype of a dataset. Runs share few of them, and h5py takes its time over each."""
    key = kind.encode()
    if key not in _dtypes:
        made = kind.dtype
        if made.hasobject:  # text of variable length, references: memory that a file would be trusted with
            raise DamagedError(f"rows of type {made}, which no table has")
        if len(_dtypes) > 1000:
            _dtypes.clear()
        _dtypes[key] = made
    return _dtypes[key]


def _slice(dataset: h5py.h5d.DatasetID, start: int = 0, stop: int | None = None) -> Array:
    """Rows as they lie in the file, without a conversion."""
    kind, nrows = dataset.get_type(), dataset.shape[0]
    count = nrows - start if stop is None else min(stop, nrows) - start
    rows = np.empty(count, dtype=_dtype(kind))
    if count == nrows:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, rows, mtype=kind)
    elif count:
        place = dataset.get_space()
        place.select_hyperslab((start,), (count,))
        dataset.read(h5py.h5s.create_simple((count,)), place, rows, mtype=kind)
    return rows


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
            with np.errstate(invalid="ignore"):  # 2**63-1 as a float is one more than fits; `_patch` mends it
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


def _read_parts(dataset: h5py.h5d.DatasetID, schema: Schema, places: list[list[Any]]) -> list[Part]:
    """A table's rows. Texts so wide that they would not fit into memory padded are decoded in slices."""
    nrows, itemsize = dataset.shape[0], dataset.get_type().get_size()
    at_once = max(1, SLICE_BYTES // itemsize)
    if itemsize < 1024 or nrows <= at_once:
        return [_part(_slice(dataset), schema, places)]
    parts = []
    for start in range(0, nrows, at_once):
        part = _part(_slice(dataset, start, start + at_once), schema, places)
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
        elif not is_beyond_int64(values):
            values = values.astype(dtype_of(column.kind), copy=False)
        part.values[column.name] = np.ascontiguousarray(values)
    return part


def _upstream_groups(file: h5py.File, described: Container[str]) -> Iterator[tuple[str, h5py.Group]]:
    """Every group that upstream cox or a program that goes on with its file marked as a table."""
    found: list[tuple[str, h5py.Group]] = []

    def visit(name: str, item: Any) -> None:
        marked = isinstance(item, h5py.Group) and UPSTREAM_ATTRIBUTE in item.attrs
        if marked and name not in described and "table" in item:
            found.append((name, item))

    file.visititems(visit)
    yield from found


def _upstream_table(
    name: str, group: h5py.Group, dataset: h5py.h5d.DatasetID
) -> tuple[TableData, list[list[Any]]]:
    """Schema and places of a table in pandas' layout, from the attributes."""
    data = _plain_attribute(group, UPSTREAM_ATTRIBUTE)
    schema = data["schema"]
    places: dict[str, list[Any]] = {}
    for field_name in _plain_attribute(group, "values_cols"):
        shape = _dtype(dataset.get_type())[field_name].shape
        listed = _plain_attribute(h5py.Dataset(dataset), f"{field_name}_kind")
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
