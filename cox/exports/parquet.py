"""Writing a Parquet dataset, and bringing it up to date: what is in it unchanged is not read again.

The dataset keeps every run that it ever had. A run is known by its id and its place, so that runs of one name
do not replace each other. Each cell has the value that it would have if all runs were exported at once: where
a column gets a wider type, its files are written anew from what the runs had; see `cox.collection.dataset`.

New files wait in `_cox/new`. The new `dataset.json` decides: before it is in place nothing has changed, and
after it the next export finishes what is left to do. The directory of a table is exchanged whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cox.analysis.parameters import comparable
from cox.collection import dataset, shapes
from cox.collection.blocks import Block
from cox.collection.dataset import Archive, Entry, Manifest, Piece, directory_of
from cox.collection.exported import OLD, Keys, Run, Source, as_json, source_of
from cox.collection.moment import by_table
from cox.collection.outgoing import Outgoing, common_shapes, to_arrow, told_opaque
from cox.collection.query import Query, as_list
from cox.collection.shapes import Shape
from cox.errors import ExportError
from cox.exports import PARAMS, engines
from cox.extras import needed
from cox.schema import Column, Schema
from cox.storage import claims, fs, layout
from cox.storage.columns import Part, mask_of, values_of
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    from cox.collection.moment import Moment

#: So many runs go into one file.
RUNS_IN_PART = 250
#: How long to wait for another export to the same place, in seconds.
PATIENCE = claims.PATIENCE

_LOCK = "lock"
_NEXT = "next"
_OLD_MANIFEST = "_cox.json"
_PART = re.compile(r"part-[0-9a-f]{32}\.parquet")
#: How names begin that say nothing of who made a directory: of an export that did not come far.
_PASSING = (".part-", ".lock", layout.TEMPORARY_PREFIX)


class Dataset:
    """The dataset in a directory.

    Args:
        dest: The directory.
    """

    def __init__(self, dest: Path) -> None:
        self._dest = dest
        self._meta = dest / dataset.META_DIR
        self._arrow = needed("pyarrow", "parquet")
        self._parquet = needed("pyarrow.parquet", "parquet")
        self._manifest = Manifest()
        #: For each table the runs whose rows are not those of before.
        self._changed: dict[str, set[str]] = {}

    def update(self, source: Source, tables: Sequence[str]) -> dict[str, int]:
        """Bring tables up to date.

        Args:
            source: The runs. Those that the dataset has beside these stay.
            tables: The tables.

        Returns:
            For each table how many runs were read.

        Raises:
            ExportError: There is something else at the place of a table; or another process exports there.
            DamagedError: What is there cannot be read.
        """
        for table in tables:
            self._refuse_foreign(table)
        fs.make_directories(self._meta / "new")
        fs.make_directories(self._meta / dataset.CELLS_DIR)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(claims.exclusive(self._meta / _LOCK, patience=PATIENCE))
            except BlockingIOError as error:
                raise ExportError(f"another process exports to {self._dest}: wait for it") from error
            self._manifest = dataset.load(self._dest) or Manifest()
            self._publish()
            for table in tables:
                self._take_over(table)
            keys = Keys(self._dest, self._manifest, source).keys()
            written = {table: self._update(source, table, keys) for table in tables}
            if PARAMS in self._manifest.tables:  # a table of the user's own
                self._manifest.params = []
            elif source.metadata in tables:
                self._update_params(source, keys)
            self._commit()
            self._publish()
        return written

    # --- A table

    def _update(self, source: Source, table: str, keys: Mapping[str, str]) -> int:
        pieces = self._manifest.tables.setdefault(table, [])
        known = {key: state for piece in pieces for key, state in zip(piece.runs, piece.states, strict=True)}
        has_table = {run.name: run for run in source.runs if table in source.schemas.get(run.name, ())}
        changed = [name for name, run in has_table.items() if known.get(keys[name], 0) != as_json(run.state)]
        gone = {
            keys[run.name]
            for run in source.runs
            if run.name not in has_table and run.name in source.schemas and keys[run.name] in known
        }
        stale = self._changed[table] = {keys[name] for name in changed} | gone
        schemas = list(dict.fromkeys(source.schemas[name][table] for name in has_table))
        common = _Common(pieces, schemas)
        kept = [piece for piece in pieces if stale.isdisjoint(piece.runs)]
        for piece in pieces:
            if not stale.isdisjoint(piece.runs):
                kept += self._without(table, piece, stale, common)
        for start in range(0, len(changed), RUNS_IN_PART):
            names = changed[start : start + RUNS_IN_PART]
            kept += self._read(source, table, names, {name: has_table[name] for name in names}, keys, common)
        self._manifest.tables[table] = [self._conformed(table, piece, common) for piece in kept]
        return len(changed)

    def _without(self, table: str, piece: Piece, stale: set[str], common: _Common) -> Iterator[Piece]:
        """The rows of a piece but those of some runs."""
        block = dataset.read_block(self._dest, table, piece)
        stays = np.array([key not in stale for key in piece.runs], dtype=np.bool_)
        if stays.any():
            part = block.part.take(np.repeat(stays, block.lengths))
            keys = [key for key in piece.runs if key not in stale]
            states = [state for state, there in zip(piece.states, stays, strict=True) if there]
            yield self._write(Block(block.schema, part, keys, block.lengths[stays]), states, common)

    def _read(
        self,
        source: Source,
        table: str,
        names: list[str],
        runs: Mapping[str, Run],
        keys: Mapping[str, str],
        common: _Common,
    ) -> Iterator[Piece]:
        """New pieces: the rows of some runs, one for each kind of columns."""
        rows = source.read(names, table)
        by_schema: dict[Schema, list[Block]] = {}
        for block in rows.blocks:
            by_schema.setdefault(block.schema, []).append(block)
        with_rows = {name for block in rows.blocks for name in block.names}
        for name in names:
            schema = rows.schemas.get(name, {}).get(table)
            if schema is not None and name not in with_rows:
                by_schema.setdefault(schema, []).append(Block(schema, _no_rows(), [name], np.array([0])))
        for schema, blocks in by_schema.items():
            block = _joined(blocks, schema)
            states = [as_json(runs[name].state) for name in block.names]
            block.names = [keys[name] for name in block.names]
            yield self._write(block, states, common, source.opaque.setdefault(table, []))

    def _conformed(self, table: str, piece: Piece, common: _Common) -> Piece:
        """A piece whose file has the types that all pieces have in common now."""
        if list(piece.types.items()) == list(common.types().items()):
            return piece
        return self._write(dataset.read_block(self._dest, table, piece), piece.states, common)

    def _write(
        self, block: Block, states: list[Any], common: _Common, opaque: list[Outgoing] | None = None
    ) -> Piece:
        rows = Outgoing(block)
        common.add(rows)
        if opaque is not None:
            opaque.append(rows)
        types = common.types()
        called = {key: self._manifest.runs[key].name for key in block.names}
        file = f"part-{uuid.uuid4().hex}.parquet"
        self._write_file(
            dataset.staged(self._dest, file), to_arrow([rows], common.names(), common.shapes, called)
        )
        kept = [column for column in block.schema if not _is_as_it_was(column, rows, types)]
        if kept:
            arrays = {column.name: _as_it_was(column, block) for column in kept}
            self._write_file(self._meta / dataset.CELLS_DIR / file, self._arrow.table(arrays))
        return Piece(
            file,
            block.schema.to_json(),
            list(block.names),
            block.lengths.tolist(),
            states,
            {column.name: rows.shape(column) for column in block.schema},
            types,
            [column.name for column in kept],
        )

    def _write_file(self, path: Path, table: Any) -> None:
        def write(beside: Path) -> None:
            self._parquet.write_table(table, beside, compression="zstd", write_page_checksum=True)

        fs.replace_file(path, write, durable=True)

    # --- The parameters

    def _update_params(self, source: Source, keys: Mapping[str, str]) -> None:
        """Bring the table of parameters up to date: a row for each run of the dataset."""
        self._refuse_foreign(PARAMS)
        changed = self._changed.get(source.metadata, set())
        kept = [piece for piece in self._manifest.params if changed.isdisjoint(piece.runs)]
        there = {key for piece in kept for key in piece.runs}
        values = self._params_of(source, keys, [key for key in self._manifest.runs if key not in there])
        if not values and kept == self._manifest.params:
            return
        common = _Common(kept, [])
        common.widen(engines.shapes_of_runs(values.values()))
        if any(piece.types != common.types() for piece in kept):
            kept, values = [], self._params_of(source, keys, list(self._manifest.runs))
        self._manifest.params = kept + list(self._params_pieces(values, common))

    def _params_pieces(self, values: Mapping[str, Mapping[str, Any]], common: _Common) -> Iterator[Piece]:
        if not values:
            return
        file = f"part-{uuid.uuid4().hex}.parquet"
        called = {self._manifest.runs[key].name: own for key, own in values.items()}
        self._write_file(dataset.staged(self._dest, file), engines.of_runs(called, common=common.shapes))
        own = engines.shapes_of_runs(values.values())
        ones = [1] * len(values)
        yield Piece(file, [], list(values), ones, [None] * len(values), own, common.types(), [])

    def _params_of(
        self, source: Source, keys: Mapping[str, str], wanted: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        """The parameters of runs, by key: those of the reader from there, which has their objects."""
        here = {key: name for name, key in keys.items()}
        own = source.params([here[key] for key in wanted if key in here])
        others = {self._manifest.runs[key].name: key for key in wanted if key not in here}
        kept = archived_params(Archive(self._dest, self._manifest), list(others), source.metadata)
        values = {key: own[name] for key, name in here.items() if name in own}
        values |= {others[name]: params for name, params in kept.items()}
        return {key: values[key] for key in wanted if key in values}

    # --- Steps

    def _commit(self) -> None:
        content = msgspec.json.encode(self._manifest)
        path = dataset.manifest_path(self._dest)
        if not path.exists() or path.read_bytes() != content:
            fs.sync_directory(self._meta / "new")
            fs.sync_directory(self._meta / dataset.CELLS_DIR)
            fs.replace_bytes(path, content, durable=True)

    def _publish(self) -> None:
        """Do what is written down: the directory of each table is exchanged for one with the files of now."""
        wanted = {
            directory_of(self._dest, table): {piece.file for piece in pieces}
            for table, pieces in self._manifest.tables.items()
        }
        if self._manifest.params:
            wanted[directory_of(self._dest, PARAMS)] = {piece.file for piece in self._manifest.params}
        for directory, files in wanted.items():
            self._exchange(directory, files)
        known = {piece.file for pieces in self._manifest.tables.values() for piece in pieces}
        for path in (self._meta / "new").iterdir():
            fs.unlink(path)
        for path in (self._meta / dataset.CELLS_DIR).iterdir():
            if path.name not in known:
                fs.unlink(path)

    def _exchange(self, directory: Path, files: set[str]) -> None:
        beside = self._meta / _NEXT / directory.name
        self._clear(beside, directory)
        there = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
        if {name for name in there if _PART.fullmatch(name)} == files and directory.is_dir():
            return
        fs.make_directories(beside)
        for name in files:
            waiting = dataset.staged(self._dest, name)
            fs.link(waiting if waiting.exists() else directory / name, beside / name)
        fs.sync_directory(beside)
        fs.exchange(beside, directory)
        fs.sync_directory(self._dest)
        self._clear(beside, directory)

    def _clear(self, beside: Path, directory: Path) -> None:
        """Remove the files of before, which were exchanged; what somebody else put there goes back."""
        for path in beside.iterdir() if beside.is_dir() else ():
            if _PART.fullmatch(path.name) or path.name == _OLD_MANIFEST or path.name.startswith(_PASSING):
                fs.unlink(path)
            else:
                fs.rename(path, directory / path.name)
        if beside.is_dir():
            beside.rmdir()

    def _refuse_foreign(self, table: str) -> None:
        """Raise if there are files in the place of a table, but no dataset.

        Raises:
            ExportError: There are.
        """
        directory = directory_of(self._dest, table)
        if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
            raise ExportError(f"{directory} is not a directory of its own: choose a new directory")
        if not directory.is_dir() or (directory / _OLD_MANIFEST).exists():
            return
        manifest = dataset.load(self._dest)
        if manifest is not None and (table in manifest.tables or (table == PARAMS and manifest.params)):
            return
        names = [path.name for path in directory.iterdir() if not path.name.startswith(_PASSING)]
        if names and dataset.load(self._dest) == manifest:  # else another export made it just now
            raise ExportError(
                f"{directory} has files that no export made: choose an empty or a new directory"
            )

    # --- What the version before wrote

    def _take_over(self, table: str) -> None:
        """Enter what a version wrote that kept one `_cox.json` for each table."""
        directory = directory_of(self._dest, table)
        path = directory / _OLD_MANIFEST
        if table in self._manifest.tables or not path.exists():
            return
        try:
            content = json.loads(fs.read_bytes(path))
            parts = {
                file: runs
                for file, runs in content["parts"].items()
                if _PART.fullmatch(file)
                and ((directory / file).exists() or (directory / f".{file}").exists())
            }
            for file in parts:
                if not (directory / file).exists():  # an export that was cut off
                    fs.rename(directory / f".{file}", directory / file)
            pieces = [self._old_piece(directory / file, runs) for file, runs in parts.items()]
        except (ValueError, LookupError, TypeError, AttributeError, self._arrow.ArrowException) as error:
            raise ExportError(
                f"{path} cannot be read ({error}): delete {directory} and export anew"
            ) from error
        self._manifest.tables[table] = pieces

    def _old_piece(self, path: Path, runs: Mapping[str, Any]) -> Piece:
        rows = self._parquet.read_table(path, partitioning=None)
        arrow, names = rows.schema, rows[EXP_ID].to_pylist()
        lengths: dict[str, int] = {}
        for name in names:
            lengths[name] = lengths.get(name, 0) + 1
        lengths |= {name: 0 for name in runs if name not in lengths}
        columns = [
            [field.name, _old_kind(field.type), rows[field.name].null_count > 0]
            for field in arrow
            if field.name != EXP_ID
        ]
        keys = []
        for name in lengths:
            key = f"{OLD}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
            self._manifest.runs.setdefault(key, Entry(name))
            keys.append(key)
        return Piece(
            path.name,
            columns,
            keys,
            list(lengths.values()),
            [runs.get(name) for name in lengths],
            {name: shapes.of_kind(kind) for name, kind, _ in columns},
            {field.name: str(field.type) for field in arrow},
            [],
        )


def export(now: Moment, dest: Path, tables: Iterable[str] | None, query: Query) -> dict[str, int]:
    """Bring the dataset in a directory up to date with some runs, and warn of what could not go out.

    Args:
        now: The runs.
        dest: The directory.
        tables: The tables; None for all.
        query: Which runs.

    Raises:
        TableNotFoundError: There is no such table; names those there are.
    """
    source = source_of(now, now.selected(query))
    known = by_table(source.schemas)
    wanted = list(known) if tables is None else as_list(tables)
    for name in wanted:
        now.runs.refuse_unknown_table(name, known)
    written = Dataset(dest).update(source, list(dict.fromkeys(wanted)))
    for name, rows in source.opaque.items():
        if sentence := told_opaque(name, rows):
            now.runs.warn(sentence)
    return written


class _Common:
    """The columns of a table in all runs, and what they have in common.

    Args:
        pieces: What the dataset has.
        schemas: The columns of the runs that are exported now.
    """

    def __init__(self, pieces: Iterable[Piece], schemas: Iterable[Schema]) -> None:
        pieces = list(pieces)
        own = [piece.schema for piece in pieces]
        self.shapes = common_shapes([], [*own, *schemas])
        for piece in pieces:
            self.widen(piece.shapes)

    def add(self, rows: Outgoing) -> None:
        """Widen the columns to some rows."""
        self.widen({column.name: rows.shape(column) for column in rows.block.schema})

    def widen(self, more: Mapping[str, Shape]) -> None:
        """Widen the columns to other shapes."""
        for name, shape in more.items():
            self.shapes[name] = shapes.join(self.shapes.get(name, "null"), shape)

    def names(self) -> list[str]:
        """The columns but `exp_id`, which is the last one."""
        return [name for name in self.shapes if name != EXP_ID]

    def types(self) -> dict[str, str]:
        """The types of all columns, as text."""
        types = {name: str(shapes.arrow_type(self.shapes[name])) for name in self.names()}
        return {**types, EXP_ID: "string"}


def archived_params(archive: Archive, names: list[str], metadata: str) -> Mapping[str, Mapping[str, Any]]:
    """The parameters of runs that only the dataset has."""
    from cox.collection import overview
    from cox.metadata import decoded
    from cox.objects.trust import Trust

    def decode(name: str, column: Column, cell: Any) -> Any:
        run = archive.layout(name)
        return decoded(column, cell, run, Trust(run, run_id=archive.entry(name).id), metadata)

    def guard(name: str, read: Callable[[], Any]) -> Any:
        return read()

    rows = archive.read(names, guard, table=metadata)
    values = overview.parameters(rows.blocks, names, decode, rows.ranked, archive.layout)
    return {name: comparable(own) for name, own in values.items()}


def _joined(blocks: Sequence[Block], schema: Schema) -> Block:
    from cox.collection.blocks import joined

    return joined(list(blocks), schema)


def _no_rows() -> Part:
    return Part(0, {})


def _is_as_it_was(column: Column, rows: Outgoing, types: Mapping[str, str]) -> bool:
    """Whether a column is in the file of all types as the runs had it."""
    if column.traits.in_cell or column.name == EXP_ID:
        return False
    return str(shapes.arrow_type(rows.shape(column))) == types[column.name]


def _as_it_was(column: Column, block: Block) -> Any:
    values, missing = values_of(block.part, column), mask_of(block.part, column.name)
    kind = "str" if column.traits.in_cell else column.kind
    return shapes.array_of_cells(values, missing, shapes.of_array(kind, values, missing))


def _old_kind(kind: Any) -> str:
    names = {"double": "float", "int64": "int", "uint64": "int", "bool": "bool"}
    return names.get(str(kind), "str")
