"""Reading a store file, of this cox or of upstream's, through h5py and without running anything."""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeGuard

import h5py
import msgspec
import numpy as np

from cox import safe_pickle
from cox.errors import DamagedError, FormatVersionError, IrregularFileError, StorageError
from cox.schema import Column, Schema, kind_of
from cox.storage import fs, time_cells
from cox.storage.columns import Array, Part, TableData, decode_text, dtype_of, is_beyond_int64, is_text
from cox.storage.hdf5 import attribute, checks, packing
from cox.storage.hdf5.content import (
    CHECKSUM_ATTRIBUTE,
    CHECKSUM_FROM,
    RUN_ATTRIBUTE,
    SIDECAR_GROUP,
    SLICE_BYTES,
    UPSTREAM_ATTRIBUTE,
    StoreFile,
)

#: What pandas has in the group of a table.
_TABLE_PARTS = frozenset({"table", "_i_table"})

#: The names of the descriptors of this process.
_DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # noqa: PTH112

#: Files up to this size are read at once, which costs less than to have HDF5 find an open one by its name.
SMALL_BYTES = 128 * 1024

#: Rows of so many bytes or more are mostly padding.
WIDE = 1024


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
        StorageError: The file system refused to give it out.
    """
    try:
        with opened(path) as file:
            return _read_open(file, path, None if tables is None else frozenset(tables), rows=rows)
    except (FormatVersionError, FileNotFoundError, IrregularFileError):
        raise
    except Exception as error:
        if is_refusal(error):
            raise refused(error, path) from error
        raise DamagedError(f"{path} cannot be read as a store: {error}") from error


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[h5py.h5f.FileID]:
    """The file, as long as the block runs."""
    file = _open(path)
    try:
        yield file
    except BaseException:
        # an error that somebody keeps would keep the file open, and what is cached of it would be read
        # again in the place of a repaired one
        h5py.File(file).close()
        raise
    file.close()


def is_refusal(error: Exception) -> TypeGuard[OSError]:
    """Whether an error says that the file could not be looked into, and nothing of what is in it."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EIO, errno.EISDIR)


def refused(error: OSError, path: Path | str) -> StorageError:
    """The error for a user, of one that is a refusal."""
    said = os.strerror(error.errno or 0)
    return StorageError(error.errno, f"cannot read the store: {said}", os.fspath(path))


def _open(path: Path | str) -> h5py.h5f.FileID:
    """Open the file. HDF5 would follow a link, and wait for a pipe: it gets what was opened before."""
    fd, about = fs.open_and_look(path)
    try:
        if about.st_size <= SMALL_BYTES:
            return h5py.h5f.open_file_image(os.read(fd, about.st_size))
        return _open_again(f"{_DESCRIPTORS}/{fd}".encode())
    finally:
        os.close(fd)


def _open_again(path: bytes) -> h5py.h5f.FileID:
    try:
        return h5py.h5f.open(path, h5py.h5f.ACC_RDONLY, fapl=_access(h5py.h5f.CLOSE_STRONG))
    except OSError as error:
        if "close degree" not in str(error):
            raise
        # the program has it open itself, through h5py, and HDF5 wants all of a process to open it alike
        access = _access(h5py.h5f.CLOSE_DEFAULT)
        return h5py.h5f.open(path, h5py.h5f.ACC_RDONLY, fapl=access)


@lru_cache(maxsize=2)
def _access(close_degree: int) -> h5py.h5p.PropFAID:
    """How files are opened: without locks, which fail on network file systems and would shut others out."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(close_degree)
    access.set_file_locking(False, True)
    return access


def _read_open(
    file: h5py.h5f.FileID, path: Path | str, wanted: frozenset[str] | None, *, rows: bool
) -> StoreFile:
    content = StoreFile()
    run = run_attribute(file, path)
    described = run["tables"]
    content.writers, content.folded_bytes = run["writers"], run["folded_bytes"]
    content.run_id = run.get("id")
    for name, about in described.items():
        table = TableData(name, _schema_of(tuple(about["columns"])))
        content.tables[name], content.nrows[name] = table, about["nrows"]
        if wanted is None or name in wanted:
            dataset = dataset_at(file, f"{name}/table")
            content.nrows[name] = dataset.nrows  # another program may have appended
            if dataset.nrows < about["nrows"]:
                raise DamagedError(f"table {name!r} has only {dataset.nrows} of its {about['nrows']} rows")
            if rows:
                table.parts = _read_described(file, dataset, table, about)
                if dataset.nrows == about["nrows"]:
                    content.stored[name] = list(table.parts)
    roots = {name.partition("/")[0] for name in described}
    if any("number" in about for about in described.values()):
        roots.add(SIDECAR_GROUP)
    if (wanted is None and rows) or file.get_num_objs() != len(roots):
        _read_others(file, content, wanted, rows=rows, of_upstream=not run["version"])
    return content


#: Runs share few schemas.
_schema_of = lru_cache(maxsize=64)(Schema.from_json)


def _read_others(
    file: h5py.h5f.FileID,
    content: StoreFile,
    wanted: frozenset[str] | None,
    *,
    rows: bool,
    of_upstream: bool,
) -> None:
    """Read what is in the file that cox did not write: upstream's tables; and note what is the user's."""
    paths = set(content.tables)
    groups = dict(upstream_groups(file, content.tables))
    for path, name in table_names(groups, of_upstream=of_upstream).items():
        paths.add(path)
        dataset = dataset_at(file, f"{path}/table")
        table, places = upstream_table(name, groups[path], dataset)
        content.tables[name], content.nrows[name] = table, dataset.nrows
        if rows and (wanted is None or name in wanted):
            table.parts = _read_parts(
                dataset, table.schema, places, zoned_of_pandas(groups[path], table, places)
            )
            note_missing(table)
    content.foreign = list(foreign_paths(file, paths))


def table_names(groups: Mapping[str, h5py.h5g.GroupID], *, of_upstream: bool) -> dict[str, str]:
    """Which of the groups that are marked as tables are tables, by path, and under which names.

    A program that copies a group inside of the file copies the mark along, and in it the original's name. So
    a name other than that of the group counts only in a file of upstream's, and where nobody else has it.

    Args:
        groups: The groups by path.
        of_upstream: Whether there is no COX_RUN.
    """
    marks = {path: _plain_attribute(group, UPSTREAM_ATTRIBUTE) for path, group in groups.items()}
    names = {path: checks.check_table_name(mark.get("name", path)) for path, mark in marks.items()}
    counts = Counter(names.values())
    tables = {}
    for path, name in names.items():
        if name == path:
            tables[path] = name
        elif of_upstream and name not in groups:
            tables[path] = name if counts[name] == 1 else path  # or several copies, and no original
    return tables


def foreign_paths(
    group: h5py.h5f.FileID | h5py.h5g.GroupID, tables: Collection[str], place: str = ""
) -> Iterator[str]:
    """What is in a file beside its tables: the paths of what the user put there.

    Args:
        group: The file, or a group in it.
        tables: The paths of the tables.
        place: The path of the group, with a slash at its end.
    """
    for name in hard_names(group):
        path = f"{place}{name}"
        if path == SIDECAR_GROUP:
            continue
        if path in tables or any(table.startswith(f"{path}/") for table in tables):
            if _is_group(h5py.h5o.get_info(group, name.encode())):
                yield from foreign_paths(h5py.h5g.open(group, name.encode()), tables, f"{path}/")
        elif not (name in _TABLE_PARTS and place.rstrip("/") in tables):
            yield path


def run_attribute(file: h5py.h5f.FileID, path: Path | str) -> attribute.Run:
    """COX_RUN, which says all about the tables; empty for a file of upstream's."""
    if not checks.has_attribute(file, RUN_ATTRIBUTE):
        return {"version": 0, "tables": {}, "writers": {}, "folded_bytes": 0}
    text = checks.text_attribute(file, RUN_ATTRIBUTE)
    has_checksum = len(text) >= CHECKSUM_FROM and checks.has_attribute(file, CHECKSUM_ATTRIBUTE)
    if has_checksum and zlib.crc32(text) != checks.integer_attribute(file, CHECKSUM_ATTRIBUTE):
        raise DamagedError(f"{RUN_ATTRIBUTE} does not have the checksum that it should")
    return attribute.decode(text, os.fspath(path))


def dataset_at(file: h5py.h5f.FileID, path: str) -> checks.Dataset:
    """A dataset that lies in the file itself: links may lead to other files, and so may raw data."""
    for part in accumulate(path.split("/"), "{}/{}".format):  # a group before what is in it
        if not is_hard(file, part.encode()):
            raise DamagedError(f"{part!r} is a link to somewhere else")
    return checks.open_dataset(file, path)


def is_hard(group: Any, name: bytes) -> bool:
    """Whether a name in a group stands for something in the file itself."""
    return bool(group.links.get_info(name).type == h5py.h5l.TYPE_HARD)


def hard_names(group: h5py.h5f.FileID | h5py.h5g.GroupID) -> list[str]:
    """The names in a group that stand for something in the file itself, without opening any of it."""
    names: list[str] = []

    def note(name: bytes, link: h5py.h5l.LinkInfo) -> None:
        if link.type == h5py.h5l.TYPE_HARD:
            names.append(name.decode(errors="surrogateescape"))

    group.links.iterate(note, info=True)
    return names


def _is_group(about: h5py.h5o.ObjInfo) -> bool:
    return bool(about.type == h5py.h5o.TYPE_GROUP)


def _read_described(
    file: h5py.h5f.FileID, dataset: checks.Dataset, table: TableData, about: attribute.Table
) -> list[Part]:
    parts = _read_parts(dataset, table.schema, about["places"], zoned_in(table.schema, about))
    for at in about.get("missing", ()):
        spread(parts, table.schema.columns[at], missing_cells(file, about, at))
    for at in about.get("exact", ()):
        patch(parts, table.schema.columns[at], exact_cells(file, about, at))
    return parts


def zoned_in(schema: Schema, about: attribute.Table) -> frozenset[str]:
    """The columns whose field holds times that have a zone."""
    return frozenset(schema.columns[i].name for i in about.get("zoned", ()))


def missing_cells(file: h5py.h5f.FileID, about: attribute.Table, at: int) -> Array:
    """Which cells of the column at `at` are missing, for all rows that cox wrote."""
    bits = _sidecar(file, f"{SIDECAR_GROUP}/{about['number']}/missing_{at}")
    return np.unpackbits(bits, count=about["nrows"]).astype(np.bool_)


def exact_cells(file: h5py.h5f.FileID, about: attribute.Table, at: int) -> list[list[Any]]:
    """Row numbers and values of the cells of the column at `at` that their field cannot hold."""
    packed = _sidecar(file, f"{SIDECAR_GROUP}/{about['number']}/exact_{at}")
    return msgspec.msgpack.decode(packed.tobytes(), type=list[list[Any]])


def _sidecar(file: h5py.h5f.FileID, path: str) -> Array:
    dataset = dataset_at(file, path)
    dtype = dataset.dtype()
    checks.check_size(dataset.nrows * dtype.itemsize, dataset.id.get_storage_size)
    return rows_of(dataset, dtype)


def rows_of(dataset: checks.Dataset, dtype: np.dtype[Any], start: int = 0, stop: int | None = None) -> Array:
    """Rows as they lie in the file, without a conversion.

    Args:
        dataset: One of `dataset_at`.
        dtype: Its dtype.
        start: The first row.
        stop: The one behind the last; None for all.

    Raises:
        DamagedError: A chunk is not there, or does not hold its rows.
    """
    stop = dataset.nrows if stop is None else min(stop, dataset.nrows)
    filters, step, itemsize = dataset.filters, dataset.chunk_rows, dtype.itemsize
    rows = np.empty(max(0, stop - start), dtype=dtype)
    raw = rows.view(np.uint8).reshape(len(rows), itemsize)
    for first in range(start - start % step, stop, step):
        mask, stored = dataset.id.read_direct_chunk((first,))
        passed = [number for i, number in enumerate(filters) if not mask >> i & 1] if mask else filters
        chunk = packing.unpack(stored, passed, step, itemsize)
        begin, end = max(first, start), min(first + step, stop)
        raw[begin - start : end - start] = chunk[begin - first : end - first]
    return rows


def spread(parts: list[Part], column: Column, mask: Array) -> None:
    """Hand a table's mask of missing cells out to its parts; rows that others appended have none."""
    start = 0
    for part in parts:
        own = mask[start : start + part.nrows]
        padded = np.pad(own, (0, part.nrows - len(own)))
        known = part.missing.get(column.name)  # NaT, also in rows that others appended
        part.missing[column.name] = padded if known is None else padded | known
        start += part.nrows
        values = part.values[column.name]
        if values.dtype.kind == "f" and not column.traits.has_nan:
            filled = np.where(part.missing[column.name] | np.isnan(values), 0, values)
            with np.errstate(invalid="ignore"):  # 2**63-1 as a float is one more than fits; `patch` mends it
                part.values[column.name] = filled.astype(dtype_of(column.kind))


def note_missing(table: TableData) -> None:
    """Note which cells of upstream's table are missing: a number that is nan in a column of ints or bools."""
    for column in table.schema:
        stored = [part.values[column.name] for part in table.parts]
        is_whole = column.traits.is_number and not column.traits.has_nan
        if is_whole and any(values.dtype.kind == "f" for values in stored):
            spread(table.parts, column, np.isnan(np.concatenate(stored)))


def patch(parts: list[Part], column: Column, cells: list[list[Any]]) -> None:
    """Put exact values in the place of what the HDF5 field made of them."""
    starts = np.cumsum([0, *(part.nrows for part in parts)])
    for row, value in cells:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        part = parts[at]
        if part.values[column.name].dtype.kind == "S":
            part.values[column.name] = decode_text(part.values[column.name])
        part.values[column.name][row - starts[at]] = value


def _read_parts(
    dataset: checks.Dataset, schema: Schema, places: Sequence[Sequence[Any]], zoned: Container[str] = ()
) -> list[Part]:
    """A table's rows. Texts so wide that they would not fit into memory padded are decoded in slices."""
    nrows, dtype = dataset.nrows, dataset.dtype()
    checks.check_size(nrows * dtype.itemsize, dataset.id.get_storage_size)
    at_once = max(1, SLICE_BYTES // dtype.itemsize)
    if dtype.itemsize < WIDE or nrows <= at_once:
        return [part_of(rows_of(dataset, dtype), schema, places, zoned)]
    parts = []
    for start in range(0, nrows, at_once):
        rows = rows_of(dataset, dtype, start, start + at_once)
        parts.append(unpadded(part_of(rows, schema, places, zoned)))
    return parts


def unpadded(part: Part) -> Part:
    """The part with its texts at their own lengths, not all at that of the longest."""
    for name, values in part.values.items():
        if values.dtype.kind == "S":
            part.values[name] = decode_text(values)
    return part


def part_of(rows: Array, schema: Schema, places: Sequence[Sequence[Any]], zoned: Container[str] = ()) -> Part:
    """Rows as they lie in the file, as columns: what `spread` and `patch` do is still to be done.

    Args:
        rows: The rows.
        schema: The columns.
        places: For each the field, and its position in that.
        zoned: Those whose field holds times that have a zone.
    """
    part = Part(len(rows), {})
    for column, (name, at) in zip(schema, places, strict=True):
        values = rows[name] if at < 0 else rows[name][:, at]
        if column.traits.is_time and values.dtype == np.int64:
            times = values.astype(np.int64).view(time_cells.STORED).astype(time_cells.DTYPE)
            values = time_cells.encode(times, zoned=column.name in zoned)
            if (gone := np.isnat(times)).any():
                part.missing[column.name] = gone
        elif is_text(column):
            if values.dtype.kind != "S":
                raise DamagedError(f"column {column.name!r} holds {values.dtype}, not text")
        elif values.dtype.kind == "f" and not column.traits.has_nan:
            pass  # a column with missing cells: `spread` makes it whole
        elif not is_beyond_int64(values):
            values = values.astype(dtype_of(column.kind), copy=False)
        part.values[column.name] = np.ascontiguousarray(values)
    return part


def upstream_groups(
    file: h5py.h5f.FileID, described: Container[str]
) -> Iterator[tuple[str, h5py.h5g.GroupID]]:
    """Every group that upstream cox or a program that goes on with its file marked as a table."""
    seen: set[int] = set()
    pending = [("", h5py.h5g.open(file, b"/"))]
    while pending:
        place, group = pending.pop(0)
        for name in hard_names(group):
            about = h5py.h5o.get_info(group, name.encode())
            if not _is_group(about) or about.addr in seen:  # a group that lies in itself
                continue
            seen.add(about.addr)
            item, whole = h5py.h5g.open(group, name.encode()), f"{place}{name}"
            if (
                whole not in described
                and checks.has_attribute(item, UPSTREAM_ATTRIBUTE)
                and item.links.exists(b"table")
            ):
                yield whole, item
            if whole.count("/") < checks.MOST_NESTED:
                pending.append((f"{whole}/", item))


def upstream_table(
    name: str, group: h5py.h5g.GroupID, dataset: checks.Dataset
) -> tuple[TableData, list[list[Any]]]:
    """Schema and places of a table in pandas' layout, from the attributes."""
    data = _plain_attribute(group, UPSTREAM_ATTRIBUTE)
    schema = data["schema"]
    places: dict[str, list[Any]] = {}
    for field_name in _plain_attribute(group, "values_cols"):
        shape = dataset.dtype()[field_name].shape
        listed = _plain_attribute(dataset.id, f"{field_name}_kind")
        for at, column in enumerate(listed):
            places[column] = [field_name, at if shape else -1]
    ordered = [column for column in _column_order(group, schema) if column in places]
    columns = [Column(column, kind_of(schema[column]) or "str") for column in ordered]
    return TableData(name, Schema(columns)), [places[column] for column in ordered]


def zoned_of_pandas(
    group: h5py.h5g.GroupID, table: TableData, places: Sequence[Sequence[Any]]
) -> frozenset[str]:
    """As `zoned_in`, by what pandas' attributes say."""
    fields = {column.name: place[0] for column, place in zip(table.schema, places, strict=True)}
    times = [column.name for column in table.schema if column.traits.is_time]
    info = _plain_attribute(group, "info") if times else {}
    return frozenset(name for name in times if info.get(fields[name], {}).get("tz") is not None)


def _column_order(group: h5py.h5g.GroupID, schema: dict[str, Any]) -> list[str]:
    axes = _plain_attribute(group, "non_index_axes")
    order = [str(column) for column in axes[0][1]]
    return [column for column in order if column in schema]


def _plain_attribute(owner: Any, name: str) -> Any:
    """An attribute as PyTables means it: pickled, or a value of its own. Runs no code."""
    raw = checks.text_attribute(owner, name)
    return safe_pickle.loads(raw) if raw.endswith(b".") else raw.decode()
