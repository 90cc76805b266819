"""Reading what is left of a damaged store file: table by table, chunk by chunk.

HDF5 has a checksum on each chunk and on all that describes them, so that a chunk either is as it was
written or cannot be read. What cannot be read is left out, and named; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from cox.errors import DamagedError, FormatVersionError, IrregularFileError
from cox.schema import Column, Schema
from cox.storage.columns import Array, Part, TableData, decode_text, is_text, mask_of
from cox.storage.hdf5 import attribute, checks, reading
from cox.storage.hdf5.content import SIDECAR_GROUP, UPSTREAM_ATTRIBUTE, StoreFile
from cox.storage.hdf5.writing import EXACT_FLOAT, MISSING_TEXT

_T = TypeVar("_T")


@dataclass(slots=True)
class Salvage:
    """What is left of a store file.

    Attributes:
        content: What can be read, each table with the rows that are left. What it says of the writers is
            as it was, and counts rows that are lost.
        damage: A sentence for each thing that cannot be read.
        lost: How many rows of a table cannot be read, where any cannot.
    """

    content: StoreFile = field(default_factory=StoreFile)
    damage: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def salvage(path: Path) -> Salvage:
    """Read what is left of a store file. Of one that is whole, that is everything.

    Raises:
        FileNotFoundError: There is none.
        IrregularFileError: It is a link, a pipe, a directory or a device.
        FormatVersionError: A newer cox wrote it.
        StorageError: The file system refused to give it out.
    """
    found = Salvage()
    try:
        with reading.opened(path) as file:
            run = reading.run_attribute(file, path)
            described = run["tables"]
            found.content.writers, found.content.folded_bytes = run["writers"], run["folded_bytes"]
            found.content.run_id = run.get("id")
            for name, about in described.items():
                _described(found, file, name, about)
            _others(found, h5py.File(file), described, of_upstream=not run["version"])
    except (FormatVersionError, FileNotFoundError, IrregularFileError, MemoryError):
        raise
    except Exception as error:
        if reading.is_refusal(error):
            raise reading.refused(error, path) from error
        return Salvage(damage=[f"nothing of it can be read: {error}"])
    return found


# --- Tables of this cox


def _described(found: Salvage, file: h5py.h5f.FileID, name: str, about: attribute.Table) -> None:
    table = TableData(name, Schema.from_json(about["columns"]))
    written = about["nrows"]
    dataset = _try(found, f"table {name!r}: all its {written} rows", partial(_sound_dataset, file, name))
    if dataset is None:
        found.lost[name] = written
        return
    zoned = reading.zoned_in(table.schema, about)
    good = _read_chunks(found, dataset, table, about["places"], zoned, written)
    about = {**about, "nrows": min(written, len(good))}
    for at in about.get("missing", ()):
        _mask(found, table, at, partial(reading.missing_cells, file, about, at))
    for at in about.get("exact", ()):
        _exact(found, table, at, partial(reading.exact_cells, file, about, at))
    _keep(found, table, good)


def _sound_dataset(file: h5py.h5f.FileID, name: str) -> checks.Dataset:
    dataset = reading.dataset_at(file, f"{checks.check_table_name(name)}/table")
    nrows = dataset.nrows
    # the list of its chunks may be damaged
    checks.check_size(nrows * dataset.dtype().itemsize, file.get_filesize)
    if nrows // dataset.chunk_rows > file.get_filesize():
        raise DamagedError(f"for {nrows} rows, it has more chunks than the file has bytes")
    return dataset


def _read_chunks(
    found: Salvage,
    dataset: checks.Dataset,
    table: TableData,
    places: Sequence[Sequence[Any]],
    zoned: Container[str],
    written: int = 0,
) -> Array:
    """Read all rows, the lost ones as anything. Returns which ones are good, of shape (nrows,).

    There should be at least as many as were `written`.
    """
    nrows, step, dtype = dataset.nrows, dataset.chunk_rows, dataset.dtype()
    good = np.ones(nrows, dtype=np.bool_)
    reason = "they are not there"
    for start in range(0, nrows, step):
        try:
            rows = reading.rows_of(dataset, dtype, start, start + step)
            part = reading.part_of(rows, table.schema, places, zoned)
        except Exception as error:  # noqa: BLE001 - h5py raises all kinds
            _raise_if_no_damage(error)
            good[start : start + step], reason = False, str(error)
            rows = np.zeros(min(step, nrows - start), dtype=dtype)
            part = reading.part_of(rows, table.schema, places, zoned)
        table.parts.append(reading.unpadded(part) if dtype.itemsize >= reading.WIDE else part)
    lost = [*_ranges(np.flatnonzero(~good)), *([(nrows, written)] if written > nrows else [])]
    if lost:
        which = ", ".join(f"rows {start} to {stop - 1}" for start, stop in lost)
        found.damage.append(
            f"table {table.name!r}: {which} of {max(nrows, written)} cannot be read: {reason}"
        )
        found.lost[table.name] = sum(stop - start for start, stop in lost)
    return good


def _mask(found: Salvage, table: TableData, at: int, read: Callable[[], Array]) -> None:
    """Learn which cells of a column are missing; if it must be, from what stands in their place."""
    column = table.schema.columns[at]
    mask = _try(found, f"table {table.name!r}: the list of missing cells of column {column.name!r}", read)
    if mask is None:
        mask = np.concatenate(
            [np.zeros(0, np.bool_), *(_seems_missing(part, column) for part in table.parts)]
        )
        if column.traits.has_nan:
            found.damage[-1] += "; what is nan there counts as missing"
    reading.spread(table.parts, column, mask)


def _seems_missing(part: Part, column: Column) -> Array:
    values = part.values[column.name]
    if not is_text(column):
        return np.isnan(values)
    if values.dtype.kind == "S":
        values = decode_text(values)
    seems = np.array([text.startswith(MISSING_TEXT) for text in values], dtype=np.bool_)
    return seems | mask_of(part, column.name)  # of times NaT


def _exact(found: Salvage, table: TableData, at: int, read: Callable[[], list[list[Any]]]) -> None:
    """Put the cells right that their field cannot hold; if that cannot be done, they are missing."""
    column = table.schema.columns[at]
    which = "all cells" if is_text(column) else "the integers that no float stands for"
    cells = _try(found, f"table {table.name!r}: {which} in column {column.name!r}", read)
    if cells is not None:
        reading.patch(table.parts, column, cells)
        return
    for part in table.parts:
        values = part.values[column.name]
        if is_text(column):  # any of them may have ended in NUL
            wrong = np.ones(part.nrows, dtype=np.bool_)
        else:
            wrong = (values >= EXACT_FLOAT) | (values <= -EXACT_FLOAT)
        part.missing[column.name] = mask_of(part, column.name) | wrong
    nullable = Column(column.name, column.kind, nullable=True)
    table.schema = Schema([nullable if known == column else known for known in table.schema])


def _keep(found: Salvage, table: TableData, good: Array) -> None:
    """Put what is left of a table into the content."""
    start, parts = 0, []
    for part in table.parts:
        part_good = good[start : start + part.nrows]
        start += part.nrows
        parts.append(part if part_good.all() else part.take(part_good))
    table.parts = [part for part in parts if part.nrows]
    found.content.tables[table.name] = table
    found.content.nrows[table.name] = table.nrows


# --- What else is in the file


def _others(found: Salvage, file: h5py.File, described: Container[str], *, of_upstream: bool) -> None:
    """Salvage upstream's tables, and see which of the user's own things can be copied."""
    paths = {*found.content.tables, *found.lost}
    marked = _marked_groups(found, file, "", set())
    groups = {path: group.id for path, group in marked if path not in described}
    names = (
        _try(found, "the names of tables", partial(reading.table_names, groups, of_upstream=of_upstream))
        or {}
    )
    for path, name in names.items():
        paths.add(path)
        _try(found, f"table {name!r}", partial(_upstream, found, file, path, name, groups[path]))
    foreign = _try(found, "what is beside the tables", lambda: list(reading.foreign_paths(file.id, paths)))
    for path in foreign or []:
        if _try(found, f"{path!r}", partial(_copies, file, path)):
            found.content.foreign.append(path)


def _marked_groups(
    found: Salvage, group: h5py.Group, path: str, seen: set[Any]
) -> Iterator[tuple[str, h5py.Group]]:
    """Every group that is marked as a table, as far as groups can be read."""
    names: list[str] = _try(found, f"what is in {path or '/'!r}", partial(reading.hard_names, group.id)) or []
    for name in names:
        inner = f"{path}/{name}".lstrip("/")
        if inner == SIDECAR_GROUP:
            continue
        item = _try(found, f"{inner!r}", partial(group.__getitem__, name))
        if isinstance(item, h5py.Group) and item.id not in seen and inner.count("/") < checks.MOST_NESTED:
            seen.add(item.id)
            if "table" in item and checks.has_attribute(item.id, UPSTREAM_ATTRIBUTE):
                yield inner, item
            yield from _marked_groups(found, item, inner, seen)


def _upstream(found: Salvage, file: h5py.File, path: str, name: str, group: h5py.h5g.GroupID) -> None:
    dataset = _sound_dataset(file.id, path)
    table, places = reading.upstream_table(name, group, dataset)
    zoned = reading.zoned_of_pandas(group, table, places)
    good = _read_chunks(found, dataset, table, places, zoned)
    reading.note_missing(table)
    _keep(found, table, good)


def _copies(file: h5py.File, name: str) -> bool:
    """Whether something of the user's own can be copied along, as a fold does it."""
    checks.check_copyable(file.id, name)
    with h5py.File("copy", "w", driver="core", backing_store=False) as copy:
        file.copy(name, copy)
    return True


# --- Errors


def _try(found: Salvage, what: str, do: Callable[[], _T]) -> _T | None:
    """What `do` returns; None, and a sentence on the damage, if the file does not give it out."""
    try:
        return do()
    except Exception as error:  # noqa: BLE001 - h5py raises all kinds
        _raise_if_no_damage(error)
        found.damage.append(f"{what} cannot be read: {error}")
        return None


def _raise_if_no_damage(error: Exception) -> None:
    """Pass on what says nothing about the file: to take it for damage would lose what can be read."""
    if isinstance(error, MemoryError) or reading.is_refusal(error):
        raise error


def _ranges(rows: Array) -> list[tuple[int, int]]:
    """Ascending row numbers as ranges, each with its end behind it."""
    pieces = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces if len(piece)]
