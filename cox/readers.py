"""CollectionReader: many runs at once.

Runs are found by listing the folder, and opened when something of them is asked for: running,
finished or killed makes no difference. Columns stay columns until the one frame is made. What was read is
kept beside the runs, see `cox.collection.cache`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
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
    PredicateError,
    ReadOnlyError,
    RunNotFoundError,
    TableNotFoundError,
    did_you_mean,
    warn,
)
from cox.metadata import METADATA, decoded
from cox.schema import Column, Schema, describe_difference
from cox.storage import layout
from cox.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cox.collection.assembly import Collected
    from cox.collection.overview import ParamFilter
    from cox.collection.reading import Rows

__all__ = ["CollectionReader"]

_log = logging.getLogger("cox")

#: What a run says of where it was made.
_ENVIRONMENT = ("host", "platform", "python", "cox", "command")

ExpFilter = Callable[[str], Any]
Directory = Union[str, "os.PathLike[str]"]


class CollectionReader:
    """The runs of a folder, or of several: those that are there when this is made.

    What is read of them is what they have at that moment. A run that is deleted meanwhile is left out, with a
    warning.

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
        self._nested = nested
        #: For each run its folder, and its path in there.
        self._runs: dict[str, tuple[str, str]] = {}
        names: set[str] = set()
        for folder in _as_folders(directory):
            for key in scan.run_names(folder, nested=nested):
                name = _distinct(key, folder, names)
                names.add(name)
                if exp_filter is None or exp_filter(name):
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

    def _repr_html_(self) -> str:
        from cox import html

        first = frozenset(list(self._runs)[: html.MOST_ROWS])
        frame = self.runs(exp_filter=first.__contains__)
        frame["started"] = frame["started"].dt.strftime("%Y-%m-%d %H:%M:%S UTC")
        frame["duration"] = frame["duration"].dt.total_seconds().map(html.span)
        note = f"the first {len(frame)}; .runs() has all of them" if len(frame) < len(self) else ""
        return html.of_frame(f"{html.counted(len(self), 'run')} in {self.directory}", note, frame)

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
            PredicateError: A condition cannot be understood; shows where. Or no run passes.
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
        statuses = {name: self._guarded(name, partial(status_of, self._layout(name))) for name in found}
        found = {name: values for name, values in found.items() if statuses[name] is not None}
        lasts = {}
        for table in self._tables_of(found) if rows else ():
            lasts[table] = overview.lasts(self._read(found, table).blocks, found)
        return overview.runs_frame(found, statuses, lasts)

    def params(self, exp_filter: ExpFilter | None = None) -> pd.DataFrame:
        """A row for each run, a column for each parameter: the first row of its metadata. Index `exp_id`."""
        from cox.collection import overview

        return overview.values_frame(self._parameters(self._chosen(exp_filter, None)))

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

    # --- What came of it

    def compare(
        self,
        key: str,
        metric: str,
        by: str | Sequence[str] = (),
        over: str | Sequence[str] | None = None,
        reduce: str | Callable[[pd.Series[Any]], float] = "last",
        interval: str = "t",
        level: float = 0.95,
        *,
        mixed: bool = False,
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
        where: str | None = None,
    ) -> pd.DataFrame:
        """Describe the runs that share the values of some parameters: mean, deviation, confidence interval.

        Args:
            key: The table.
            metric: The column that counts. Each run's is reduced to one number.
            by: The parameters to group the runs by.
            over: The parameters, such as the seed, that may differ within a group.
            reduce: 'last', 'first', 'max', 'min', 'mean', 'median', 'sum', or a function of a Series.
            interval: 't' for Student's, 'bootstrap' for BCa.
            level: The level of the interval.
            mixed: Whether to average runs that differ in other parameters, too.
            exp_filter: As for `df`.
            params: As for `df`.
            where: As for `df`.

        Returns:
            A row for each group: the parameters `by`, `n`, `n_nan`, `mean`, `std`, `low`, `high`, `iqm`,
            `min`, `max`, and `runs`, the names of those that went in. See `cox.collection.statistics`.

        Raises:
            CompareError: A group would mix runs that differ in other parameters; names them.
            ColumnNotFoundError: There is no such metric or parameter; names those there are.

        Example:
            >>> reader.compare("results", "acc", by="lr", over="seed", reduce="max")
        """
        from cox.collection import statistics

        rows, chosen = self._rows_and_params(key, [metric], exp_filter, params, where)
        return statistics.compare(
            rows,
            chosen,
            metric=metric,
            by=[by] if isinstance(by, str) else by,
            over=over,
            reduce=reduce,
            interval=interval,
            level=level,
            mixed=mixed,
        )

    def diff(self, first: str, second: str) -> pd.DataFrame:
        """In what two runs differ: parameters, environment, and the last row of each table.

        Args:
            first: A run's name.
            second: Another one's.

        Returns:
            Columns `section`, `name`, a column for each run, and `change` for numbers. What is equal is left
            out; `attrs["same"]` counts it.

        Raises:
            RunNotFoundError: There is no such run.
        """
        from cox.collection import statistics

        return statistics.diff(self._described(first), self._described(second), (first, second))

    def plot(
        self,
        key: str,
        x: str,
        y: str,
        hue: str | None = None,
        over: str | Sequence[str] | None = None,
        band: str | None = "ci",
        *,
        log: str = "",
        title: str | None = None,
        mixed: bool = False,
        ax: Axes | None = None,
        path: Directory | None = None,
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
        where: str | None = None,
    ) -> Axes:
        """Draw a line for each run, or the mean over some of them with a band around it.

        Args:
            key: The table.
            x: The column along the axis.
            y: The column to draw.
            hue: The parameter, or column, that the lines are coloured by.
            over: The parameters, such as the seed, to average over.
            band: 'ci' for the 95 % confidence interval of the mean, 'sd', 'minmax', or None.
            log: Which axes are logarithmic: '', 'x', 'y' or 'xy'.
            title: What stands above.
            mixed: Whether to average runs that differ in other parameters, too.
            ax: Where to draw; a new figure without one.
            path: A file to save to: .png, .pdf or .svg.
            exp_filter: As for `df`.
            params: As for `df`.
            where: As for `df`.

        Returns:
            The Axes, of matplotlib. Lines of very many points are thinned so that no spike is lost.

        Raises:
            CompareError: It cannot be drawn so; says why.
            ColumnNotFoundError: There is no such column or parameter; names those there are.

        Example:
            >>> reader.plot("results", x="step", y="loss", hue="lr", over="seed", path="loss.pdf")
        """
        from cox.collection import plotting

        rows, chosen = self._rows_and_params(key, [x, y], exp_filter, params, where, hue)
        return plotting.plot(
            rows,
            chosen,
            x=x,
            y=y,
            hue=hue,
            over=over,
            band=band,
            log=log,
            title=title,
            mixed=mixed,
            ax=ax,
            path=path,
        )

    # --- Ways out

    def arrow(
        self,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        params: ParamFilter | None = None,
        exp_filter: ExpFilter | None = None,
    ) -> Any:
        """One table of all runs as a `pyarrow.Table`, with a column `exp_id`.

        Args:
            key: The table. Objects stay as they are stored.
            columns: As for `df`.
            where: As for `df`.
            params: As for `df`.
            exp_filter: As for `df`.
        """
        from cox.collection import exports

        rows = self._plain(key, columns=columns, where=where, params=params, exp_filter=exp_filter)
        return exports.to_arrow(rows)

    def polars(
        self,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        params: ParamFilter | None = None,
        exp_filter: ExpFilter | None = None,
    ) -> Any:
        """One table of all runs as a `polars.DataFrame`; as `arrow`."""
        from cox.collection import exports

        return exports.to_polars(
            self.arrow(key, columns=columns, where=where, params=params, exp_filter=exp_filter)
        )

    def dask(
        self,
        key: str,
        runs_per_partition: int = 100,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        params: ParamFilter | None = None,
        exp_filter: ExpFilter | None = None,
    ) -> Any:
        """One table of all runs as a `dask.dataframe.DataFrame`, read by whoever computes it.

        Args:
            key: The table. The folder must have the same path on all workers.
            runs_per_partition: How many runs one partition has.
            columns: As for `df`.
            where: As for `df`.
            params: As for `df`.
            exp_filter: As for `df`.
        """
        from cox.collection import exports

        if isinstance(columns, str):
            columns = [columns]
        meta, schema = self._without_rows(key, columns, where), self._whole_schema(key)
        names = self._chosen(exp_filter, params)
        groups = [names[at : at + runs_per_partition] for at in range(0, len(names), runs_per_partition)]
        read = partial(
            _read_partition, _as_folders(self.directory), self._nested, key, schema, meta, columns, where
        )
        return exports.to_dask(read, groups, meta)

    def sql(self, query: str) -> pd.DataFrame:
        """Ask DuckDB about the tables of all runs, each of which has a column `exp_id`.

        Args:
            query: SQL. Beside the tables there are `runs`, with the state of each run, and `params`; a table
                of your own of such a name takes its place.

        Raises:
            TableNotFoundError: There is no such table; names those there are.
            PredicateError: DuckDB does not understand the query; shows where. Or it mentions tables, or
                columns, whose names differ in nothing but case.

        Example:
            >>> reader.sql("select lr, max(acc) from results join metadata using (exp_id) group by lr")
        """
        from cox.collection import exports

        tables: dict[str, Callable[[], pd.DataFrame]] = {
            "runs": lambda: exports.told_apart(self.runs(rows=False)),
            "params": lambda: exports.told_apart(self.params()),
        }
        own = self._all_schemas(quiet=True)
        for name in {name.lower() for name in own}:
            tables.pop(name, None)
        tables.update((name, partial(self._plain, name)) for name in own)
        return exports.sql(
            query, tables, lambda name: self._without_rows(name) if name in own else tables[name]()
        )

    def to_parquet(
        self, dest: Directory, tables: Iterable[str] | None = None, params: ParamFilter | None = None
    ) -> dict[str, int]:
        """Write a Parquet dataset for each table, or bring it up to date: `dest/<table>/*.parquet`.

        Runs that are in it unchanged are not read again, unless the type of a column changed, and an export
        that was cut off goes on. Runs that were deleted since stay in it.

        Args:
            dest: The directory of the datasets.
            tables: Some tables; all without.
            params: As for `df`.

        Returns:
            For each table how many runs were written.

        Raises:
            TableNotFoundError: There is no such table; names those there are.
            ExportError: There is something else at `dest`, or another process exports there.
        """
        from cox.collection.parquet import Dataset

        names = self._chosen(None, params)
        states = {name: scan.state_of(os.fspath(self._layout(name).root)) for name in names}
        found = self._read(names).schemas
        known = list(dict.fromkeys(table for schemas in found.values() for table in schemas))
        wanted = known if tables is None else [tables] if isinstance(tables, str) else list(tables)
        written = {}
        for table in wanted:
            if table not in known:
                raise TableNotFoundError(_no_such_table(table, known, self.directory, len(self._runs)))
            own = {name: states[name] for name, schemas in found.items() if table in schemas}
            without = [name for name in found if name not in own]
            read = partial(self._plain_of, table, self._whole_schema(table))
            written[table] = Dataset(Path(dest, table)).update(own, without, self._without_rows(table), read)
        return written

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
            gone = isinstance(error, FileNotFoundError) and not self._layout(name).root.is_dir()
            if not (skip or self._skip or gone):
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

    def _nothing_left(self, exp_filter: ExpFilter | None, params: ParamFilter | None) -> str:
        """What to say where no run passes."""
        asked = [f"params={params!r}"] if params is not None else []
        asked += ["exp_filter"] if exp_filter is not None else []
        told = f"none of {len(self._runs)} runs passes {' and '.join(asked)}"
        if params is None or callable(params):
            return told
        from cox.collection import overview

        return told + overview.values_there(self._parameters(self._runs), params)

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
        if not names and self._runs:
            raise PredicateError(self._nothing_left(exp_filter, params))
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

    def _rows_and_params(
        self,
        key: str,
        columns: Sequence[str],
        exp_filter: ExpFilter | None,
        params: ParamFilter | None,
        where: str | None,
        hue: str | None = None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A table's rows, in no more than these columns if it has them, and the parameters of the runs."""
        from cox.collection import overview

        names = set(self._chosen(exp_filter, params))
        found = self._collect(key, where=where, exp_filter=names.__contains__)
        if all(name in found.schema for name in columns):
            wanted = {*columns, hue}
            found.schema = Schema(column for column in found.schema if column.name in wanted)
        rows = found.frame(optional_as_nan=False)
        return rows, overview.values_frame(self._parameters([name for name in self._runs if name in names]))

    def _described(self, name: str) -> dict[str, dict[str, Any]]:
        """A run's parameters, environment, and last rows."""
        from cox.collection import overview
        from cox.storage import runinfo

        if name not in self._runs:
            hint = did_you_mean(name, self._runs)
            raise RunNotFoundError(
                f"there is no run {name!r} among {len(self._runs)} in {self.directory}{hint}"
            )
        info = runinfo.read(self._layout(name))
        results: dict[str, Any] = {}
        for table in self._tables_of([name]):
            last = overview.lasts(self._read([name], table).blocks, [name])[name]
            results.update((f"{table}.{column}", cell) for column, cell in last.items())
        parameters = self._parameters([name])[name]
        return {
            "parameters": parameters,
            "environment": {key: info.get(key) for key in _ENVIRONMENT},
            "results": results,
        }

    def _plain(self, key: str, **options: Any) -> pd.DataFrame:
        """One table of all runs, objects as they are stored."""
        return self._collect(key, **options).frame()

    def _whole_schema(self, key: str) -> Schema:
        """The columns of a table in all runs, those that some run lacks as nullable."""
        known = self._all_schemas(quiet=True)
        if key not in known:
            raise TableNotFoundError(_no_such_table(key, known, self.directory, len(self._runs)))
        tables = [tables[key] for tables in self._read(self._runs).schemas.values() if key in tables]
        return Schema(
            replace(column, nullable=column.nullable or any(column.name not in own for own in tables))
            if column.kind in ("int", "bool")
            else column
            for column in known[key]
        )

    def _without_rows(
        self, key: str, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pd.DataFrame:
        """The columns of a table with their types, and no row.

        Raises:
            ColumnNotFoundError: No run has one of `columns`, or one that `where` mentions.
        """
        from cox import predicates
        from cox.collection.assembly import EXP_ID, Collected, refuse_unknown

        schema = self._whole_schema(key)
        if where is not None:
            asked = predicates.parse(where).names
            refuse_unknown(asked, [*schema.names(), EXP_ID], f"where={where!r}: no column")
        if columns is not None:
            refuse_unknown(columns, schema.names(), f"table {key!r} has no column")
            schema = Schema(column for name in columns if (column := schema.get(name)) is not None)
        return Collected(key, schema, []).frame()

    def _plain_of(
        self,
        key: str,
        schema: Schema,
        names: list[str],
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> pd.DataFrame:
        """One table of some runs, in the columns and types that it has in all runs; objects as stored."""
        from cox import predicates
        from cox.collection.assembly import Collected

        predicate = predicates.parse(where) if where is not None else None
        asked = predicate.names if predicate is not None else ()
        wanted = frozenset(columns).union(asked) if columns is not None else None
        found = Collected(key, schema, self._read(names, key, columns=wanted).blocks)
        if predicate is not None:
            found = found.where(predicate, schema)
        if columns is not None:
            found.schema = Schema(column for name in columns if (column := schema.get(name)) is not None)
        return found.frame()

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
            return decoded(column, cell, run, trusts[name], where)

        return decode

    def _all_schemas(self, *, quiet: bool = False) -> dict[str, Schema]:
        from cox.storage.snapshot import merge_schemas

        found: dict[str, Schema] = {}
        for name, schemas in self._read(self._runs).schemas.items():
            for table, schema in schemas.items():
                known = found.get(table)
                if known is not None and known != schema and not quiet:
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


def _distinct(key: str, folder: str, taken: Container[str]) -> str:
    """A name for a run: its path in its folder, with as many parents before it as tell it from the others."""
    name, parent = key, folder
    while name in taken:
        parent, last = os.path.split(parent)
        name = f"{last}/{name}" if last else f"/{name}"
    return name


def _as_folders(directory: Any) -> list[str]:
    listed = [directory] if isinstance(directory, (str, os.PathLike)) else list(directory)
    # links are kept as they are; a folder that is given twice counts once
    folders = list(dict.fromkeys(os.path.abspath(folder) for folder in listed))  # noqa: PTH100
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no directory of runs")
    return folders


def _read_partition(
    folders: list[str],
    nested: bool,
    key: str,
    schema: Schema,
    meta: pd.DataFrame,
    columns: Sequence[str] | None,
    where: str | None,
    names: list[str],
) -> pd.DataFrame:
    """The rows of some runs, in the columns and types of `meta`: what a worker of dask's calls."""
    reader = CollectionReader(folders, log_warnings=False, nested=nested, cache=False)
    rows = reader._plain_of(key, schema, names, columns=columns, where=where)
    made: pd.DataFrame = rows.reindex(columns=meta.columns).astype(meta.dtypes.to_dict())
    return made


def _no_such_table(key: str, seen: Iterable[str], directory: Any, runs: int) -> str:
    known = list(seen)
    if not known:
        return f"no table {key!r}: none of the {runs} runs in {directory} has a table"
    hint = did_you_mean(key, known)
    return f"no run in {directory} has a table {key!r}; there are {sorted(known)}{hint}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
