"""CollectionReader: many runs at once.

Runs are found by listing the folder, and opened when something of them is asked for: running,
finished or killed makes no difference. Columns stay columns until the one frame is made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cox import objects
from cox.errors import CollectionWarning, CoxError, ReadOnlyError, TableNotFoundError, did_you_mean, warn
from cox.schema import Column, Schema, describe_difference
from cox.storage import layout
from cox.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from cox.storage.columns import TableData
    from cox.storage.snapshot import Snapshot

__all__ = ["CollectionReader"]

_log = logging.getLogger("cox")

#: The column that tells the runs apart.
EXP_ID = "exp_id"

ExpFilter = Callable[[str], Any]


class CollectionReader:
    """The runs of a folder, or of several.

    Args:
        directory: The folder of runs, or a list of folders.
        log_warnings: Whether to warn where runs disagree about a table, or lack it.
        mode: How the stores in `stores` are opened; a collection is read with 'r'.
        exp_filter: Called with each run's name; runs for which it is false are left out.
        skip_errs: Whether to leave out, with a warning, runs that cannot be read, instead of raising.
        allow_pickle: Whether to rebuild objects that nobody vouched for; see the README on trust.

    Raises:
        FileNotFoundError: The folder is not there.

    Example:
        >>> reader = CollectionReader("runs")
        >>> reader.df("results").groupby("exp_id")["loss"].min()
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        log_warnings: bool = True,
        mode: str = "r",
        exp_filter: ExpFilter | None = None,
        skip_errs: bool = False,
        *,
        allow_pickle: bool = False,
    ) -> None:
        if mode not in ("r", "a"):
            raise ReadOnlyError(
                f"mode={mode!r}: a collection is opened with 'r', or with 'a' to write to its stores"
            )
        self.directory = directory
        self._folders = _as_folders(directory)
        self._log_warnings = log_warnings
        self._mode = mode
        self._skip = skip_errs
        self._allow_pickle = allow_pickle
        self._runs: dict[str, layout.RunLayout] = {}
        for folder in self._folders:
            for run in find_runs(folder):
                name = run.root.name
                if exp_filter is None or exp_filter(name):
                    # runs of the same name in two folders are two runs
                    self._runs[f"{folder.name}/{name}" if name in self._runs else name] = run
        self._stores: dict[str, Store] | None = None

    # --- What there is

    @property
    def stores(self) -> dict[str, Store]:
        """The runs as opened Stores, by name, sorted."""
        if self._stores is None:
            self._stores = {}
            for name, run in self._runs.items():
                store = self._guarded(name, partial(self._open, run))
                if store is not None:
                    self._stores[name] = store
        return self._stores

    @property
    def tables(self) -> set[str]:
        """The names of all tables of all runs."""
        return set(self.schemas)

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Each table's schema, as a mapping of column names to types: where runs differ, the union."""
        return {name: schema.to_user() for name, schema in self._all_schemas().items()}

    def __str__(self) -> str:
        return "\n".join(f"-- Table: {name} --\n{list(schema)}" for name, schema in self.schemas.items())

    def __repr__(self) -> str:
        return f"<CollectionReader {self.directory!r}: {len(self._runs)} runs>"

    def __len__(self) -> int:
        return len(self._runs)

    # --- Rows

    def df(
        self,
        key: str,
        append_exp_id: bool = True,
        keep_serialized: Iterable[str] = (),
        union_schemas: bool = False,
        exp_filter: ExpFilter | None = None,
        skip_errors: bool = False,
    ) -> pd.DataFrame:
        """One table of all runs as one DataFrame.

        Args:
            key: The table.
            append_exp_id: Whether to add the run's name as the last column, `exp_id`.
            keep_serialized: OBJECT and PICKLE columns to leave as they are stored; the others hold objects.
                PYTORCH_STATE columns always hold file ids: `reader.stores[exp_id][key].get_state_dict(id)`.
            union_schemas: Whether it is expected that runs have different columns. The frame has those of
                all runs either way; without this, runs that differ from the first are warned about.
            exp_filter: Called with each run's name; runs for which it is false are left out.
            skip_errors: Whether to leave out, with a warning, runs that cannot be read, instead of raising.

        Returns:
            The rows, run by run in sorted order; each run's index is kept (0 to its n-1).

        Raises:
            TableNotFoundError: No run has the table; names those there are.
            UntrustedObjectError: An object is not plain data, and nobody vouched for it.
            DamagedError: A run cannot be read; names it.
        """
        from cox.storage.columns import TableData

        parts: list[tuple[str, TableData]] = []
        seen: dict[str, None] = {}
        without = []
        for name, run in self._runs.items():
            if exp_filter is not None and not exp_filter(name):
                continue
            snapshot = self._guarded(name, partial(_read, run, tables=[key]), skip=skip_errors)
            if snapshot is None:
                continue
            seen.update(dict.fromkeys(snapshot.tables))
            if key in snapshot.tables:
                parts.append((name, snapshot.tables[key]))
            else:
                without.append(name)
        if not parts:
            raise TableNotFoundError(_no_such_table(key, seen, self.directory, len(self._runs)))
        if without:
            self._warn(f"{len(without)} runs have no table {key!r} and are left out: {_shortened(without)}")
        schema = self._common_schema(key, parts, warn=not union_schemas)
        kept = {keep_serialized} if isinstance(keep_serialized, str) else set(keep_serialized)
        decoded: dict[str, list[Any]] = {}
        good: list[tuple[str, TableData]] = []
        names = _columns_of_objects(parts, kept)
        for name, table in parts:
            cells = self._guarded(name, partial(self._decode, name, table, names, kept), skip=skip_errors)
            if cells is not None:
                good.append((name, table))
                for column, values in cells.items():
                    decoded.setdefault(column, []).extend(values)
        return self._frame(TableData(key, schema), good, decoded, append_exp_id=append_exp_id)

    # --- The end

    def close(self) -> None:
        """Close the stores that were opened."""
        for store in (self._stores or {}).values():
            store.close()
        self._stores = None

    def __enter__(self) -> CollectionReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- Inside

    def _open(self, run: layout.RunLayout) -> Store:
        return Store(run.root.parent, run.root.name, mode=self._mode, allow_pickle=self._allow_pickle)

    def _guarded(self, name: str, read: Callable[[], Any], *, skip: bool = False) -> Any:
        """What `read` returns, or None if the run cannot be read and is to be left out."""
        try:
            return read()
        except (OSError, CoxError) as error:
            if not (skip or self._skip):
                _log.error("run %s cannot be read; skip_errs=True leaves such runs out", name)
                raise
            warn(f"run {name} is left out: {error}", CollectionWarning)
            return None

    def _warn(self, sentence: str) -> None:
        if self._log_warnings:
            warn(sentence, CollectionWarning)

    def _all_schemas(self) -> dict[str, Schema]:
        from cox.storage.snapshot import merge_schemas

        found: dict[str, Schema] = {}
        for name, run in self._runs.items():
            snapshot = self._guarded(name, partial(_read, run, rows=False))
            for table in snapshot.tables.values() if snapshot is not None else ():
                known = found.get(table.name)
                if known is not None and known != table.schema:
                    difference = describe_difference(known, table.schema)
                    self._warn(f"run {name} has table {table.name!r} with another schema: it {difference}")
                found[table.name] = table.schema if known is None else merge_schemas(known, table.schema)
        return found

    def _common_schema(self, key: str, parts: list[tuple[str, TableData]], *, warn: bool) -> Schema:
        from cox.storage.snapshot import merge_schemas

        first = schema = parts[0][1].schema
        for name, table in parts[1:]:
            if table.schema == first:
                continue
            if warn:
                difference = describe_difference(first, table.schema) or "has its columns in another order"
                self._warn(f"run {name} has table {key!r} with another schema: it {difference}")
            schema = merge_schemas(schema, table.schema)
        return schema

    def _decode(
        self, name: str, table: TableData, columns: Iterable[str], kept: set[str]
    ) -> dict[str, list[Any]]:
        """A run's cells of the columns that hold objects, decoded by its own schema."""
        run = self._runs[name]
        trust = objects.Trust(run, allow_pickle=self._allow_pickle)
        made = {}
        for column in columns:
            own = table.schema.get(column)
            if own is None:
                made[column] = [None] * table.nrows
                continue
            where = f"column {column!r} of table {table.name!r} in run {run.root}"
            values, missing = table.column(own)
            cells = values.tolist()
            if column not in kept:
                cells = [
                    cell if missing is not None and missing[row] else _decoded(cell, own, run, trust, where)
                    for row, cell in enumerate(cells)
                ]
            if missing is not None:
                cells = [None if gone else cell for cell, gone in zip(cells, missing.tolist(), strict=True)]
            made[column] = cells
        return made

    def _frame(
        self,
        whole: TableData,
        parts: list[tuple[str, TableData]],
        decoded: dict[str, list[Any]],
        *,
        append_exp_id: bool,
    ) -> pd.DataFrame:
        import numpy as np
        import pandas as pd

        from cox import frames
        from cox.storage.snapshot import widened

        for _, table in parts:
            # where runs differ in a column's kind, the wider one
            whole.parts += [widened(part, table.schema, whole.schema) for part in table.parts]
        frame = frames.to_frame(whole, decoded, optional_as_nan=True)
        lengths = [table.nrows for _, table in parts]
        frame.index = pd.Index(np.concatenate([np.arange(n) for n in lengths] or [np.arange(0)]))
        if append_exp_id:
            if EXP_ID in frame:
                self._warn(f"the column {EXP_ID!r} of table {whole.name!r} gives way to the runs' names")
                del frame[EXP_ID]
            frame[EXP_ID] = frames.repeated([name for name, _ in parts], lengths)
        return frame


def find_runs(folder: Path) -> Iterator[layout.RunLayout]:
    """The runs of a folder, sorted by name: directories with a store file, a journal or a `run.json`.

    Copies that `snapshot_copy` left beside their run are not runs.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name != layout.CACHE_DIR)
    known = set(names)
    for name in names:
        run = layout.RunLayout(folder / name)
        if is_run(run) and not _is_copy(run, known):
            yield run


def is_run(run: layout.RunLayout) -> bool:
    """Whether a directory is a run, or what is left of one."""
    try:
        return run.store_file.exists() or run.journal_dir.exists() or run.run_file.exists()
    except OSError:
        return True  # what may not be looked into is named when it is read


def _is_copy(run: layout.RunLayout, names: set[str]) -> bool:
    """Whether a directory is what `snapshot_copy` left beside a run."""
    name = run.root.name
    return (
        name.endswith(layout.SNAPSHOT_SUFFIX)
        and name.removesuffix(layout.SNAPSHOT_SUFFIX) in names
        and not run.meta_dir.exists()
        and not run.tensorboard_dir.exists()
    )


def _as_folders(directory: Any) -> list[Path]:
    listed = [directory] if isinstance(directory, (str, os.PathLike)) else list(directory)
    folders = [Path(os.path.abspath(folder)) for folder in listed]  # noqa: PTH100 - keep links as they are
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no directory of runs")
    return folders


def _read(run: layout.RunLayout, **options: Any) -> Snapshot:
    from cox.storage import snapshot

    now = snapshot.read(run, **options)
    now.warn(run.root.name)
    return now


def _no_such_table(key: str, seen: Iterable[str], directory: Any, runs: int) -> str:
    known = list(seen)
    if not known:
        return f"no table {key!r}: none of the {runs} runs in {directory} has a table"
    hint = did_you_mean(key, known)
    return f"no run in {directory} has a table {key!r}; there are {sorted(known)}{hint}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _columns_of_objects(parts: list[tuple[str, TableData]], kept: set[str]) -> list[str]:
    """The columns that hold objects by some run's schema, but those that all runs keep as text."""
    kinds: dict[str, set[str]] = {}
    for _, table in parts:
        for column in table.schema:
            kinds.setdefault(column.name, set()).add(column.kind)
    return [
        name
        for name, found in kinds.items()
        if found & {"object", "pickle"} and (name not in kept or len(found) > 1)
    ]


def _decoded(cell: Any, column: Column, run: layout.RunLayout, trust: objects.Trust, where: str) -> Any:
    if column.kind == "object":
        return objects.from_text(cell, trust, where)
    if column.kind == "pickle":
        return objects.read_pickle(run.objects_dir / Path(cell).name, trust, where)
    return cell
