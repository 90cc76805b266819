"""A Parquet dataset of runs: what is in it, and how it is read back.

`DEST/<table>/part-<uuid>.parquet` has the rows of some runs, in the types that all runs have in common, for
pyarrow, DuckDB and polars. What these files cannot say lies in `DEST/_cox/`: `dataset.json` says which runs
there are and which parts have their rows; `cells/<part>` has the columns of a part whose cells were
converted, as they were. Both together are the rows as the runs had them: `Archive` reads them back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import msgspec
import numpy as np

from cox.collection.blocks import Block
from cox.collection.reading import Guard, Rows
from cox.collection.shapes import Shape
from cox.display.text import digest
from cox.errors import DamagedError
from cox.extras import needed
from cox.schema import KINDS, Schema
from cox.storage import fs, layout, time_cells
from cox.storage.columns import Array, Part, join
from cox.storage.status import RUNNING, UNKNOWN, Status

if TYPE_CHECKING:
    from cox.storage.layout import RunLayout

#: What a dataset keeps beside the tables.
META_DIR = "_cox"
MANIFEST = "dataset.json"
CELLS_DIR = "cells"
VERSION = 1
#: How long the name of a directory may be, and what is left of a longer one, whose end is a digest.
_NAME_BYTES, _CUT_BYTES = 255, 200
#: Of a run's status, what is kept.
_STATUS = ("state", "started", "duration", "host", "pid", "error", "not_stored")


class Piece(msgspec.Struct):
    """Rows of some runs with the same columns: a file of the dataset.

    Attributes:
        file: Its name.
        columns: Its columns as its runs have them, as in `Schema.to_json`.
        runs: The keys of the runs, in the order of their rows.
        lengths: How many rows each has; a run may have none.
        states: In which state each was when it was read; None for unknown.
        shapes: What each column's cells are.
        types: The types of the columns in the file, by name and in order.
        kept: The columns that `cells/<file>` has as they were.
    """

    file: str
    columns: list[list[Any]]
    runs: list[str]
    lengths: list[int]
    states: list[Any]
    shapes: dict[str, Shape]
    types: dict[str, str]
    kept: list[str]

    @property
    def schema(self) -> Schema:
        """Its columns."""
        return Schema.from_json(self.columns)


class Entry(msgspec.Struct):
    """A run.

    Attributes:
        name: Its `exp_id` in the dataset.
        id: Its own id; None for a run of upstream cox.
        place: The folder it was in and its path there; None if nobody knows.
        is_ranked: Whether ranks wrote it.
        status: How it was.
        environment: Where it was made.
    """

    name: str
    id: str | None = None
    place: list[str] | None = None
    is_ranked: bool = False
    status: dict[str, Any] = msgspec.field(default_factory=dict)
    environment: dict[str, Any] = msgspec.field(default_factory=dict)


class Manifest(msgspec.Struct):
    """What is in a dataset.

    Attributes:
        version: Of this description.
        runs: The runs by key.
        tables: The pieces of each table.
        params: The pieces of the table `params`, which is made of the metadata and not read back.
    """

    version: int = VERSION
    runs: dict[str, Entry] = msgspec.field(default_factory=dict)
    tables: dict[str, list[Piece]] = msgspec.field(default_factory=dict)
    params: list[Piece] = msgspec.field(default_factory=list)


def directory_of(dest: Path, table: str) -> Path:
    """Where the files of a table lie: a directory in `dest`, whatever the table is called."""
    name = quote(table, safe=" !#$&'()+,;=@[]{}~^` ")
    if not name or name[0] in "._":  # which pyarrow takes for hidden
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    if len(name) > _NAME_BYTES:  # %~ is in no other name, so that none is taken for one that was cut
        name = f"{name[:_CUT_BYTES]}%~{digest(table, 32)}"
    return dest / name


def manifest_path(dest: Path) -> Path:
    """Where a dataset says what is in it."""
    return dest / META_DIR / MANIFEST


def load(dest: Path) -> Manifest | None:
    """What is in a dataset; None if there is none.

    Raises:
        DamagedError: It cannot be read, or a newer cox wrote it.
    """
    path = manifest_path(dest)
    try:
        content = fs.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
        if manifest.version != VERSION:
            raise ValueError(f"version {manifest.version}")  # noqa: TRY301 - as all else that is wrong with it
        _check(manifest)
    except (ValueError, LookupError, RecursionError) as error:  # also msgspec's
        raise DamagedError(f"{path} cannot be read ({error}): it is damaged, or of a newer cox") from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Refuse files that lie elsewhere, and runs that nobody knows.

    Raises:
        ValueError: There are such.
    """
    for piece in [*(piece for pieces in manifest.tables.values() for piece in pieces), *manifest.params]:
        if not layout.is_file_name(piece.file):
            raise ValueError(f"a file {piece.file!r} that lies elsewhere")
        if not len(piece.runs) == len(piece.lengths) == len(piece.states):
            raise ValueError("runs of which something is missing")
        if not manifest.runs.keys() >= set(piece.runs) or min(piece.lengths, default=0) < 0:
            raise ValueError("rows of unknown runs")


def read_block(dest: Path, table: str, piece: Piece, columns: frozenset[str] | None = None) -> Block:
    """The rows of a piece as its runs had them; its runs are called by their keys.

    Raises:
        DamagedError: A file is missing, or damaged.
    """
    schema = piece.schema
    wanted = [column for column in schema if columns is None or column.name in columns]
    kept = [column.name for column in wanted if column.name in piece.kept]
    shown = [column.name for column in wanted if column.name not in piece.kept]
    part = Part(sum(piece.lengths), {})
    for path, names in (
        (_existing(dest, table, piece.file), shown),
        (dest / META_DIR / CELLS_DIR / piece.file, kept),
    ):
        if not names:
            continue
        cells = _read(path, names)
        if cells.num_rows != part.nrows:
            raise DamagedError(f"{path} has {cells.num_rows:,} rows, not {part.nrows:,}")
        for name in names:
            column = schema.get(name)
            values, missing = _as_numpy(cells[name], "" if column is None else column.kind)
            part.values[name] = values
            if missing is not None:
                part.missing[name] = missing
    return Block(schema, part, piece.runs, np.array(piece.lengths, dtype=np.int64))


def staged(dest: Path, file: str) -> Path:
    """Where a new file of a table waits for its place."""
    return dest / META_DIR / "new" / file


def _existing(dest: Path, table: str, file: str) -> Path:
    waiting = staged(dest, file)
    return waiting if waiting.exists() else directory_of(dest, table) / file


def _read(path: Path, names: list[str]) -> Any:
    pa = needed("pyarrow", "parquet")
    parquet = needed("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=names)
    except (OSError, pa.ArrowException) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error


def _as_numpy(column: Any, kind: str) -> tuple[Array, Array | None]:
    missing = column.is_null().to_numpy() if column.null_count else None
    pa = needed("pyarrow", "parquet")
    if pa.types.is_timestamp(column.type):
        times = column.cast(pa.timestamp("us", column.type.tz)).to_numpy()
        return time_cells.encode(times, zoned=column.type.tz is not None), missing
    traits = KINDS.get(kind)  # a column of no kind is text
    if traits is not None and traits.is_number:
        filled = column.fill_null(traits.filler) if missing is not None else column
        values = filled.to_numpy()
        if traits.has_nan:
            values = values.astype(np.float64)
        return np.array(values), missing
    values = np.empty(len(column), dtype=object)
    values[:] = ["" if cell is None else cell for cell in column.to_pylist()]
    return values, missing


class Archive:
    """The runs of a dataset, read as `cox.collection.reading.Folder` reads those of a folder.

    Args:
        dest: The dataset.
        manifest: What is in it.
    """

    def __init__(self, dest: Path, manifest: Manifest) -> None:
        self.path = dest
        self._manifest = manifest
        self._keys = {entry.name: key for key, entry in manifest.runs.items()}

    @classmethod
    def at(cls, folder: str) -> Archive | None:
        """The dataset in a folder; None if there is none."""
        manifest = load(Path(folder))
        return None if manifest is None else cls(Path(folder), manifest)

    @property
    def names(self) -> list[str]:
        """The runs, sorted."""
        return sorted(self._keys)

    def entry(self, name: str) -> Entry:
        """What is known of a run."""
        return self._manifest.runs[self._keys[name]]

    def status(self, name: str) -> Status:
        """How a run was when it was exported; of one that was running nobody knows what became of it."""
        status = {key: value for key, value in self.entry(name).status.items() if key in _STATUS}
        state = status.pop("state", UNKNOWN)
        return Status(UNKNOWN if state == RUNNING else state, **status)

    def layout(self, name: str) -> RunLayout:
        """Where the files of a run would be."""
        return layout.RunLayout(self.path / META_DIR / "runs" / self._keys[name])

    def read(
        self,
        names: Sequence[str],
        guard: Guard,
        *,
        table: str | None = None,
        columns: frozenset[str] | None = None,
    ) -> Rows:
        """As `Folder.read`."""
        pieces = self._manifest.tables.get(table or "", [])
        if any(not _existing(self.path, table or "", piece.file).exists() for piece in pieces):
            self._manifest = load(self.path) or self._manifest  # an export has replaced the files meanwhile
        return self._read(names, guard, table, columns)

    def _read(
        self, names: Sequence[str], guard: Guard, table: str | None, columns: frozenset[str] | None
    ) -> Rows:
        rows = Rows()
        rows.schemas = {name: {} for name in names}
        called = {self._keys[name]: name for name in names if name in self._keys}
        for other, pieces in self._manifest.tables.items():
            for piece in pieces:
                schema = piece.schema
                for key in piece.runs:
                    if key in called:
                        rows.schemas[called[key]][other] = schema
        rows.ranked = {name for key, name in called.items() if self._manifest.runs[key].is_ranked}
        found: dict[str, Block] = {}
        for piece in self._manifest.tables.get(table, []) if table is not None else []:
            mine = [called[key] for key in piece.runs if key in called]
            if mine and table is not None:
                block = guard(mine[0], partial(read_block, self.path, table, piece, columns))
                if block is None:
                    for name in mine:
                        rows.schemas.pop(name, None)
                else:
                    found |= _by_run(block, called)
        rows.blocks = list(_joined([found[name] for name in names if name in found]))
        return rows


def status_to_keep(status: Status) -> dict[str, Any]:
    """How a run is, as JSON."""
    return {key: getattr(status, key) for key in _STATUS}


def _by_run(block: Block, called: Mapping[str, str]) -> dict[str, Block]:
    """The rows of each run that has a name; not of those without rows."""
    stops = np.cumsum(block.lengths).tolist()
    return {
        called[key]: Block(
            block.schema, block.part.take(slice(stop - length, stop)), [called[key]], np.array([length])
        )
        for key, stop, length in zip(block.names, stops, block.lengths.tolist(), strict=True)
        if length and key in called
    }


def _joined(blocks: list[Block]) -> Iterator[Block]:
    """Neighbours with the same columns as one block."""
    start = 0
    for stop in range(1, len(blocks) + 1):
        if stop == len(blocks) or blocks[stop].schema != blocks[start].schema:
            same = blocks[start:stop]
            part = join([block.part for block in same], same[0].schema)
            names = [block.names[0] for block in same]
            yield Block(same[0].schema, part, names, np.concatenate([block.lengths for block in same]))
            start = stop


def place_of(folder: str, key: str) -> list[str]:
    """Where a run lies, whatever links lead there: its folder, and its path in it, as JSON takes them."""
    return [_as_text(os.path.realpath(folder)), _as_text(key)]


def path_of(place: Sequence[str]) -> Path:
    """The path of a run at a place."""
    return Path(*(os.fsdecode(unquote_to_bytes(text[1:])) if text[:1] == "%" else text for text in place))


def _as_text(path: str) -> str:
    """A path that is not UTF-8 with its bytes spelled out, behind a `%`."""
    is_text = not path.startswith("%") and path.encode(errors="ignore").decode() == path
    return path if is_text else f"%{quote(os.fsencode(path))}"


def portable(status: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run as JSON has it: text that was in no encoding loses what is not text."""
    loaded: dict[str, Any] = json.loads(json.dumps(status, ensure_ascii=False).encode(errors="replace"))
    return loaded
