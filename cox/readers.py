"""CollectionReader: many runs at once.

Runs are found by listing the folder, and opened when something of them is asked for: running,
finished or killed makes no difference. Columns stay columns until the one frame is made. What was read is
kept beside the runs, see `cox.collection.cache`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cox.collection.opened import OpenedRuns
from cox.collection.query import ExpFilter, ParamFilter, Query, as_list
from cox.collection.runs import Directory, Runs
from cox.metadata import METADATA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cox.analysis.shown import Comparison, Differences
    from cox.collection.moment import Moment
    from cox.collection.table import Table
    from cox.store import Store

__all__ = ["CollectionReader"]


class CollectionReader:
    """The runs of a folder, or of several: those that are there when this is made.

    Each call sees what they have at its moment. A run that is deleted meanwhile is left out, with a warning.

    Which runs, rows and columns count, say arguments of the methods. Of other runs no rows are read.

    - `params`: Only the runs with such parameters: values, as in `{"lr": 0.1}` or `{"lr": [0.1, 1]}`, a
      condition, as in `"lr < 1 and arch == 'resnet18'"`, or a function of the mapping of all parameters.
    - `exp_filter`: Called with each run's name; runs for which it is false are left out.
    - `where`: Only the rows that fit a condition, such as `"step > 10 and phase == 'test'"`; see
      `cox.predicates`. Rows keep the numbers that they have in their run.
    - `columns`: Only these columns, in this order; None for all.

    Args:
        directory: The folder of runs, or a list of folders.
        log_warnings: Whether to warn where runs disagree about a table, or lack it.
        mode: How the stores in `stores` are opened; a collection is read with 'r'.
        exp_filter: Called with each run's name; runs for which it is false are left out.
        skip_errs: Whether to leave out, with a warning, runs that cannot be read, instead of raising.
        allow_pickle: Whether to rebuild objects that nobody vouched for; see the README on trust.
        nested: Whether runs may lie deeper in the folder, too, also behind links. They are named by their
            path in it.
        cache: Whether to keep what is read in `.cox-cache` beside the runs, so that a second reading
            touches only what changed; where others may write to that, or you may not, in `~/.cache/cox`.
            None: where reading takes long enough. It can always be deleted.
        metadata: The table whose first row holds a run's parameters.

    Raises:
        FileNotFoundError: The folder is not there.

    Example:
        >>> reader = CollectionReader("runs")
        >>> reader.df("results").groupby("exp_id")["loss"].min()
        >>> for run in reader:
        ...     print(run.exp_id, run.params, run["results"].nrows)
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
        self.directory = directory
        self.source = Runs(
            directory,
            exp_filter,
            nested=nested,
            metadata=metadata,
            skip=skip_errs,
            log_warnings=log_warnings,
            allow_pickle=allow_pickle,
            cache=cache,
        )
        self._opened = OpenedRuns(self.source, mode)

    # --- What there is

    @property
    def stores(self) -> dict[str, Store]:
        """The runs as opened Stores, by name, sorted."""
        return self._opened.all()

    @property
    def tables(self) -> set[str]:
        """The names of all tables of all runs."""
        return set(self.schemas)

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Each table's schema, as a mapping of column names to types: where runs differ, the union."""
        return {name: schema.to_user() for name, schema in self._now().schemas().items()}

    @property
    def exp_ids(self) -> list[str]:
        """The names of the runs, sorted within each folder."""
        return list(self.source.names)

    def __str__(self) -> str:
        return "\n".join(f"-- Table: {name} --\n{list(schema)}" for name, schema in self.schemas.items())

    def __repr__(self) -> str:
        folders = self.source.folders
        where = os.path.relpath(folders[0]) if len(folders) == 1 else f"{len(folders)} folders"
        return f"<CollectionReader {min(where, folders[0], key=len)!r}: {len(self):,} runs>"

    def __len__(self) -> int:
        return len(self.source)

    def _repr_html_(self) -> str:
        from cox.collection import listing

        return listing.as_html(self._now())

    # --- One run, one table

    def __iter__(self) -> Iterator[Store]:
        """The runs, each as a Store that is opened when its turn comes, as in `stores`."""
        return iter(self._opened)

    def __contains__(self, name: object) -> bool:
        """Whether there is a run of that name."""
        return name in self.exp_ids

    def __getitem__(self, key: str) -> pd.DataFrame:
        """One table of all runs: `reader["results"]` is `reader.df("results")`."""
        return self.df(key)

    def run(self, name: str) -> Store:
        """One run as an opened Store.

        Args:
            name: Its name, or as much of its beginning as no other run has, as the commands take it.

        Raises:
            RunNotFoundError: There is no such run; names what may have been meant.
            RunNameError: Several begin so; names them.

        Example:
            >>> reader.run("3f2a")["results"].df
        """
        return self._opened.one(name)

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

        The class says which runs, rows and columns count.

        Args:
            key: The table.
            append_exp_id: Whether to add the run's name as the last column, `exp_id`.
            keep_serialized: OBJECT and PICKLE columns to leave as they are stored; the others hold objects.
                PYTORCH_STATE columns always hold file ids: `reader.stores[exp_id][key].get_state_dict(id)`.
            union_schemas: Whether it is expected that runs have different columns. The frame has those of
                all runs either way; without this, runs that differ from the first are warned about.
            skip_errors: Whether to leave out, with a warning, runs that cannot be read, instead of raising.

        Returns:
            The rows, run by run in sorted order; each run's index is kept (0 to its n-1).

        Raises:
            TableNotFoundError: No run has the table; names those there are.
            ColumnNotFoundError: No run has such a column or parameter; names those there are.
            PredicateError: A condition cannot be understood; shows where. Or no run passes.
            UntrustedObjectError: An object is not plain data, and nobody vouched for it.
            DamagedError: A run cannot be read; names it.
        """
        kept = frozenset(as_list(keep_serialized))
        query = Query(columns, where, params, exp_filter, skip=skip_errors)
        found, decoded = self._table(key).rows_and_objects(query, kept, union=union_schemas)
        if append_exp_id and "exp_id" in found.schema:
            self.source.warn(f"the column 'exp_id' of table {key!r} gives way to the runs' names")
        return found.frame(decoded, append_exp_id=append_exp_id)

    # --- A line for each run

    def runs(
        self, exp_filter: ExpFilter | None = None, params: ParamFilter | None = None, *, rows: bool = True
    ) -> pd.DataFrame:
        """A row for each run: how it is, its parameters, and the last row of each of its tables.

        The class says which runs, rows and columns count.

        Args:
            rows: Whether to add the last rows, for which every table must be read.

        Returns:
            Index `exp_id`; the columns `state` (running, finished, failed, crashed, or unknown for
            upstream's runs), `started` (UTC), `duration`, `host`, then the parameters, then
            `table.column` for the last rows. Objects are left out of those.
        """
        from cox.collection import lines

        return lines.runs(self._now(), Query(params=params, exp_filter=exp_filter), rows=rows)

    def params(self, exp_filter: ExpFilter | None = None) -> pd.DataFrame:
        """A row for each run, a column for each parameter: the first row of its metadata. Index `exp_id`."""
        from cox.collection import lines

        return lines.params(self._now(), Query(exp_filter=exp_filter))

    def wide(
        self,
        tables: Iterable[str] | None = None,
        reduce: Iterable[str] = ("last", "min", "max"),
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
    ) -> pd.DataFrame:
        """A row for each run: its parameters, and what became of each metric.

        The class says which runs, rows and columns count.

        Args:
            tables: Whose numeric columns count as metrics; by default all tables but the metadata.
            reduce: Some of 'last', 'min', 'max'.

        Returns:
            Index `exp_id`; the parameters, then `table.metric.last` and so on. Cells that are missing and
            nan count for none of them.
        """
        from cox.collection import lines

        return lines.wide(self._now(), Query(params=params, exp_filter=exp_filter), tables, reduce)

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
    ) -> Comparison:
        """Describe the runs that share the values of some parameters: mean, deviation, confidence interval.

        The class says which runs, rows and columns count.

        Args:
            key: The table.
            metric: The column that counts. Each run's is reduced to one number.
            by: The parameters to group the runs by.
            over: The parameters, such as the seed, that may differ within a group.
            reduce: 'last', 'first', 'max', 'min', 'mean', 'median', 'sum', or a function of a Series.
            interval: 't' for Student's, 'bootstrap' for BCa.
            level: The level of the interval.
            mixed: Whether to average runs that differ in other parameters, too.

        Returns:
            A row for each group: the parameters `by`, `n`, `n_nan`, `mean`, `std`, `low`, `high`, `iqm`,
            `min`, `max`. It prints itself with the interval; its method `runs()` names the runs of each
            group. See `cox.analysis.statistics`.

        Raises:
            CompareError: A group would mix runs that differ in other parameters; names them.
            ColumnNotFoundError: There is no such metric or parameter; names those there are.

        Example:
            >>> reader.compare("results", "acc", by="lr", over="seed", reduce="max")
        """
        from cox.collection import lines

        query = Query(where=where, params=params, exp_filter=exp_filter)
        options = {"over": over, "reduce": reduce, "interval": interval, "level": level, "mixed": mixed}
        return lines.compare(self._table(key), query, metric, by, **options)

    def diff(self, first: str, second: str) -> Differences:
        """Show the differences between two runs: parameters, environment, and the last row of each table.

        Args:
            first: A run's name, or a beginning of it that no other run has.
            second: Another one's.

        Returns:
            Columns `section`, `name`, a column for each run, and `change` for numbers. What is equal is left
            out; `attrs["same"]` counts it.

        Raises:
            RunNotFoundError: There is no such run.
        """
        from cox.collection import lines

        return lines.diff(self._now(), first, second)

    def plot(
        self,
        key: str,
        x: str | None = None,
        y: str | Sequence[str] = (),
        hue: str | None = None,
        over: str | Sequence[str] | None = None,
        band: str | None = "ci",
        *,
        bins: int | None = None,
        smooth: float = 0.0,
        log: str = "",
        title: str | None = None,
        mixed: bool = False,
        ax: Axes | Sequence[Axes] | None = None,
        path: Directory | None = None,
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
        where: str | None = None,
    ) -> Any:
        """Draw a line for each run, or the mean over some of them with a band around it.

        The class says which runs, rows and columns count.

        Args:
            key: The table.
            x: The column along the axis. None: step, global_step, iteration or epoch, whichever counts the
                rows, or else the number of the row, which 'row' always is.
            y: The column to draw; a list draws a panel for each.
            hue: The parameter, or column, that the lines are coloured by.
            over: The parameters, such as the seed, to average over.
            band: 'ci' for the 95 % confidence interval of the mean, 'sd', 'minmax', or None.
            bins: Divide the axis into so many equal parts, and average each run's rows in them.
            smooth: From 0 to below 1: smooth each run as TensorBoard does.
            log: Which axes are logarithmic: '', 'x', 'y' or 'xy'.
            title: What stands above.
            mixed: Whether to average runs that differ in other parameters, too.
            ax: Where to draw; a new figure without one. For a list of y, a list.
            path: A file to save to: .png, .pdf or .svg.

        Returns:
            The Axes, of matplotlib; for a list of y, a list of them. Lines of very many points are thinned so
            that no spike is lost.

        Raises:
            CompareError: It cannot be drawn so; says why.
            ColumnNotFoundError: There is no such column or parameter; names those there are.

        Example:
            >>> reader.plot("results", x="step", y="loss", hue="lr", over="seed", path="loss.pdf")
        """
        from cox.collection import lines

        query = Query(where=where, params=params, exp_filter=exp_filter)
        shown = {"over": over, "band": band, "bins": bins, "smooth": smooth, "mixed": mixed}
        axes = {"log": log, "title": title, "ax": ax, "path": path}
        return lines.plot(self._table(key), query, x, y, hue, **shown, **axes)

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

        The class says which runs, rows and columns count.

        Args:
            key: The table. Missing cells are null, and nan is nan. Objects of plain data are what they are:
                numbers, text, lists, structs; where they differ, text, or JSON for what is nested. What only
                code can rebuild is text that tells it apart, and what lies in files the name of its file.
        """
        return self._table(key).arrow(Query(columns, where, params, exp_filter))

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
        from cox.exports import engines

        return engines.to_polars(self._table(key).arrow(Query(columns, where, params, exp_filter)))

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

        The class says which runs, rows and columns count.

        Args:
            key: The table. The folder must have the same path on all workers.
            runs_per_partition: How many runs one partition has.
        """
        from cox.exports import answers

        return answers.dask(self._now(), key, Query(columns, where, params, exp_filter), runs_per_partition)

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
        from cox.exports import answers

        return answers.sql(self._now(), query)

    def to_parquet(
        self, dest: Directory, tables: Iterable[str] | None = None, params: ParamFilter | None = None
    ) -> dict[str, int]:
        """Write a Parquet dataset for each table, or bring it up to date: `dest/<table>/*.parquet`.

        Runs that are in it unchanged are not read again, and an export that was cut off goes on. The dataset
        keeps every run that was ever exported to it: those that were deleted since, and those of other
        folders. Values are as if all of them were exported at once. With the metadata goes `dest/params/`, a
        row for each run. `CollectionReader(dest)` reads the runs back. What the name of a directory
        cannot have is spelled out as in a URL; a long one ends with `%~` and a digest.

        Args:
            dest: The directory of the datasets.
            tables: Some tables; all without.

        Returns:
            For each table how many runs were written.

        Raises:
            TableNotFoundError: There is no such table; names those there are.
            ExportError: There is something else at `dest`, or another process exports there.
        """
        from cox.exports.parquet import export

        return export(self._now(), Path(dest), tables, Query(params=params))

    # --- The end

    def close(self) -> None:
        """Close the stores that were opened."""
        self._opened.close()

    def __enter__(self) -> CollectionReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- Inside

    def _now(self) -> Moment:
        """The runs as of now, for one call."""
        from cox.collection.moment import Moment

        return Moment(self.source)

    def _table(self, key: str) -> Table:
        from cox.collection.table import Table

        return Table(self._now(), key)
