"""CollectionReader: many runs at once.

Runs are found by listing the folder, and opened when something of them is asked for: running,
finished or killed makes no difference. Columns stay columns until the one frame is made. What was read is
kept beside the runs, see `cox.collection.cache`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Union

from cox import objects
from cox.collection import scan
from cox.errors import (
    CollectionWarning,
    CompareError,
    CoxError,
    ReadOnlyError,
    TableNotFoundError,
    did_you_mean,
    warn,
)
from cox.schema import Column, Schema, describe_difference
from cox.storage import layout
from cox.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from cox.collection.assembly import Collected
    from cox.collection.overview import ParamFilter
    from cox.collection.reading import Rows

__all__ = ["CollectionReader"]

_log = logging.getLogger("cox")

#: The table whose first row holds a run's parameters.
METADATA = "metadata"

ExpFilter = Callable[[str], Any]
Directory = Union[str, "os.PathLike[str]"]


class CollectionReader:
    """The runs of a folder, or of several.

    Args:
        directory: The folder of runs, or a list of folders.
        log_warnings: Whether to warn where runs disagree about a table, or lack it.
        mode: How the stores in `stores` are opened; a collection is read with 'r'.
        exp_filter: Called with each run's name; runs for which it is false are left out.
        skip_errs: Whether to leave out, with a warning, runs that cannot be read, instead of raising.
        allow_pickle: Whether to rebuild objects that nobody vouched for; see the README on trust.
        nested: Whether runs may lie deeper in the folder, too. Those are named by their path in it.
        cache: Whether to keep what is read in `.cox-cache` beside the runs, so that a second reading
            touches only what changed. None: where reading takes long enough. It can always be deleted.
        metadata: The table whose first row holds a run's parameters.

    Raises:
        FileNotFoundError: The folder is not there.

    Example:
        >>> reader = CollectionReader("runs")
        >>> reader.df("results").groupby("exp_id")["loss"].min()
    """

    def __init__(
        self,
        directory: Directory | Iterable[Directory],
        log_warnings: bool = True,
        mode: str = "r",
        exp_filter: ExpFilter | None = None,
        skip_errs: bool = False,
        *,
        allow_pickle: bool = False,
        nested: bool = False,
        cache: bool | None = None,
        metadata: str = METADATA,
    ) -> None:
        if mode not in ("r", "a"):
            raise ReadOnlyError(
                f"mode={mode!r}: a collection is opened with 'r', or with 'a' to write to its stores"
            )
        self.directory = directory
        self._log_warnings = log_warnings
        self._mode = mode
        self._skip = skip_errs
        self._allow_pickle = allow_pickle
        self._metadata = metadata
        #: For each run its folder, and its path in there.
        self._runs: dict[str, tuple[str, str]] = {}
        for folder in _as_folders(directory):
            for key in scan.run_names(folder, nested=nested):
                if exp_filter is None or exp_filter(key):
                    # runs of the same name in two folders are two runs
                    name = f"{os.path.basename(folder)}/{key}" if key in self._runs else key  # noqa: PTH119
                    self._runs[name] = folder, key
        self._cache = cache
        self._stores: dict[str, Store] | None = None

    # --- What there is

    @property
    def stores(self) -> dict[str, Store]:
        """The runs as opened Stores, by name, sorted."""
        if self._stores is None:
            self._stores = {}
            for name in self._runs:
                store = self._guarded(name, partial(self._open, self._layout(name)))
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

    @property
    def exp_ids(self) -> list[str]:
        """The names of the runs, sorted within each folder."""
        return list(self._runs)

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
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        params: ParamFilter | None = None,
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
            columns: Only these columns, in this order; None for all.
            where: Only the rows that fit a condition, such as `"step > 10 and phase == 'test'"`; see
                `cox.predicates`. Rows keep the numbers that they have in their run.
            params: Only the runs with such parameters: values, as in `{"lr": 0.1}` or `{"lr": [0.1, 1]}`,
                a condition, as in `"lr < 1 and arch == 'resnet18'"`, or a function of the mapping of all
                parameters. Other runs' rows are not read.

        Returns:
            The rows, run by run in sorted order; each run's index is kept (0 to its n-1).

        Raises:
            TableNotFoundError: No run has the table; names those there are.
            ColumnNotFoundError: No run has such a column or parameter; names those there are.
            PredicateError: A condition cannot be understood; shows where.
            UntrustedObjectError: An object is not plain data, and nobody vouched for it.
            DamagedError: A run cannot be read; names it.
        """
        kept = frozenset([keep_serialized] if isinstance(keep_serialized, str) else keep_serialized)
        found = self._collect(
            key,
            columns=columns,
            where=where,
            exp_filter=exp_filter,
            params=params,
            union=union_schemas,
            skip=skip_errors,
        )
        found, decoded = self._decoded(found, kept, skip=skip_errors)
        if append_exp_id and "exp_id" in found.schema:
            self._warn(f"the column 'exp_id' of table {key!r} gives way to the runs' names")
        return found.frame(decoded, append_exp_id=append_exp_id)

    # --- A line for each run

    def runs(
        self, exp_filter: ExpFilter | None = None, params: ParamFilter | None = None, *, rows: bool = True
    ) -> pd.DataFrame:
        """A row for each run: how it is, its parameters, and the last row of each of its tables.

        Args:
            exp_filter: As for `df`.
            params: As for `df`.
            rows: Whether to add the last rows, for which every table must be read.

        Returns:
            Index `exp_id`; the columns `state` (running, finished, failed, crashed, or unknown for
            upstream's runs), `started` (UTC), `duration`, `host`, then the parameters, then
            `table.column` for the last rows. Objects are left out of those.
        """
        from cox.collection import overview
        from cox.collection.status import status_of

        found = self._parameters(self._chosen(exp_filter, params))
        statuses = {name: status_of(self._layout(name)) for name in found}
        lasts = {}
        for table in self._tables_of(found) if rows else ():
            lasts[table] = overview.lasts(self._read(found, table).blocks, found)
        return overview.runs_frame(found, statuses, lasts)

    def params(self, exp_filter: ExpFilter | None = None) -> pd.DataFrame:
        """A row for each run, a column for each parameter: the first row of its metadata. Index `exp_id`."""
        from cox.collection import overview

        return overview.params_frame(self._parameters(self._chosen(exp_filter, None)))

    def wide(
        self,
        tables: Iterable[str] | None = None,
        reduce: Iterable[str] = ("last", "min", "max"),
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
    ) -> pd.DataFrame:
        """A row for each run: its parameters, and what became of each metric.

        Args:
            tables: Whose numeric columns count as metrics; by default all tables but the metadata.
            reduce: Some of 'last', 'min', 'max'.
            exp_filter: As for `df`.
            params: As for `df`.

        Returns:
            Index `exp_id`; the parameters, then `table.metric.last` and so on. Cells that are missing and
            nan count for none of them.
        """
        from cox.collection import overview

        reductions = [reduce] if isinstance(reduce, str) else list(reduce)
        unknown = [how for how in reductions if how not in overview.REDUCTIONS]
        if unknown:
            raise CompareError(f"reduce={unknown[0]!r}: choose from {', '.join(overview.REDUCTIONS)}")
        found = self._parameters(self._chosen(exp_filter, params))
        known = self._tables_of(found)
        wanted = known if tables is None else [tables] if isinstance(tables, str) else list(tables)
        for table in wanted:
            if table not in known and table != self._metadata:
                raise TableNotFoundError(_no_such_table(table, known, self.directory, len(self._runs)))
        return overview.wide(found, {table: self._read(found, table).blocks for table in wanted}, reductions)

    def _tables_of(self, names: Iterable[str]) -> list[str]:
        """The tables that any of the runs has, but the metadata."""
        found = self._read(names).schemas.values()
        tables = dict.fromkeys(table for schemas in found for table in schemas)
        return [table for table in tables if table != self._metadata]

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

    def _layout(self, name: str) -> layout.RunLayout:
        folder, key = self._runs[name]
        return layout.RunLayout(Path(folder, key))

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

    def _read(
        self,
        names: Iterable[str],
        table: str | None = None,
        *,
        columns: frozenset[str] | None = None,
        skip: bool = False,
    ) -> Rows:
        """What runs have, and the rows of one table."""
        from cox.collection.reading import Folder, Rows

        by_folder: dict[str, dict[str, str]] = {}
        for name in names:
            folder, key = self._runs[name]
            by_folder.setdefault(folder, {})[key] = name
        rows = Rows()
        for folder, shown in by_folder.items():
            guard = partial(self._guarded_in, shown, skip=skip)
            reader = Folder(Path(folder), cache=self._cache)
            found = reader.read(list(shown), guard, table=table, columns=columns)
            for block in found.blocks:
                block.names = [shown[key] for key in block.names]
            rows.blocks += found.blocks
            rows.schemas.update((shown[key], schemas) for key, schemas in found.schemas.items())
        return rows

    def _guarded_in(self, shown: Mapping[str, str], key: str, read: Callable[[], Any], *, skip: bool) -> Any:
        return self._guarded(shown[key], read, skip=skip)

    def _chosen(
        self, exp_filter: ExpFilter | None, params: ParamFilter | None, *, skip: bool = False
    ) -> list[str]:
        """The names of the runs that pass both filters."""
        names = [name for name in self._runs if exp_filter is None or exp_filter(name)]
        if params is None:
            return names
        from cox.collection import overview

        return overview.filtered(self._parameters(names, skip=skip), params, self._metadata)

    def _parameters(self, names: Iterable[str], *, skip: bool = False) -> dict[str, dict[str, Any]]:
        """The parameters of each run, as far as it can be read; none for a run without."""
        from cox.collection import overview

        rows = self._read(names, self._metadata, skip=skip)
        return overview.parameters(rows.blocks, rows.schemas, self._decoder(self._metadata))

    def _collect(
        self,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
        union: bool = True,
        skip: bool = False,
    ) -> Collected:
        from cox import predicates
        from cox.collection.assembly import Collected, refuse_unknown

        predicate = predicates.parse(where) if where is not None else None
        if isinstance(columns, str):
            columns = [columns]
        wanted = (
            frozenset(columns).union(predicate.names if predicate else ()) if columns is not None else None
        )
        names = self._chosen(exp_filter, params, skip=skip)
        rows = self._read(names, key, columns=wanted, skip=skip)
        schemas = {name: tables[key] for name, tables in rows.schemas.items() if key in tables}
        if not schemas:
            seen = dict.fromkeys(table for tables in rows.schemas.values() for table in tables)
            raise TableNotFoundError(_no_such_table(key, seen, self.directory, len(self._runs)))
        without = [name for name in rows.schemas if name not in schemas]
        if without:
            self._warn(f"{len(without)} runs have no table {key!r} and are left out: {_shortened(without)}")
        whole = chosen = self._common_schema(key, schemas, warn=not union)
        if columns is not None:
            refuse_unknown(columns, whole.names(), f"table {key!r} has no column")
            chosen = Schema(column for name in columns if (column := whole.get(name)) is not None)
        found = Collected(key, chosen, rows.blocks)
        return found if predicate is None else found.where(predicate, whole)

    def _decoded(
        self, found: Collected, kept: frozenset[str], *, skip: bool
    ) -> tuple[Collected, dict[str, list[Any]]]:
        """The objects of the columns that hold some; without the runs whose objects cannot be decoded."""
        from cox.collection.assembly import object_columns

        schemas = dict.fromkeys(block.schema for block in found.blocks)
        columns = [name for name in object_columns(schemas, kept) if name in found.schema]
        if not columns:
            return found, {}
        return found.decoded(self._decoder(found.table), columns, kept, partial(self._guarded, skip=skip))

    def _decoder(self, table: str) -> Callable[[str, Column, Any], Any]:
        """What decodes a table's cells, each by its run's own schema and as far as its run is trusted."""
        trusts: dict[str, objects.Trust] = {}

        def decode(name: str, column: Column, cell: Any) -> Any:
            run = self._layout(name)
            if name not in trusts:
                trusts[name] = objects.Trust(run, allow_pickle=self._allow_pickle)
            where = f"column {column.name!r} of table {table!r} in run {run.root}"
            if column.kind == "object":
                return objects.from_text(cell, trusts[name], where)
            if column.kind == "pickle":
                return objects.read_pickle(run.objects_dir / Path(cell).name, trusts[name], where)
            return cell

        return decode

    def _all_schemas(self) -> dict[str, Schema]:
        from cox.storage.snapshot import merge_schemas

        found: dict[str, Schema] = {}
        for name, schemas in self._read(self._runs).schemas.items():
            for table, schema in schemas.items():
                known = found.get(table)
                if known is not None and known != schema:
                    difference = describe_difference(known, schema)
                    self._warn(f"run {name} has table {table!r} with another schema: it {difference}")
                found[table] = schema if known is None else merge_schemas(known, schema)
        return found

    def _common_schema(self, key: str, schemas: Mapping[str, Schema], *, warn: bool) -> Schema:
        from cox.storage.snapshot import merge_schemas

        first = made = next(iter(schemas.values()))
        for name, schema in schemas.items():
            if schema is first or schema == first:
                continue
            if warn:
                difference = describe_difference(first, schema) or "has its columns in another order"
                self._warn(f"run {name} has table {key!r} with another schema: it {difference}")
            made = merge_schemas(made, schema)
        return made


def _as_folders(directory: Any) -> list[str]:
    listed = [directory] if isinstance(directory, (str, os.PathLike)) else list(directory)
    folders = [os.path.abspath(folder) for folder in listed]  # noqa: PTH100 - keep links as they are
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no directory of runs")
    return folders


def _no_such_table(key: str, seen: Iterable[str], directory: Any, runs: int) -> str:
    known = list(seen)
    if not known:
        return f"no table {key!r}: none of the {runs} runs in {directory} has a table"
    hint = did_you_mean(key, known)
    return f"no run in {directory} has a table {key!r}; there are {sorted(known)}{hint}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
