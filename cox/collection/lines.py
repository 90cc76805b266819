"""What came of runs: a line for each, groups of them, curves, two beside each other.

Here it is read; the functions that put it together are in `overview` and in `cox.analysis`, and read nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cox.analysis.choices import WIDE_REDUCTIONS
from cox.analysis.parameters import comparable
from cox.collection import overview
from cox.collection.query import Query, as_list
from cox.errors import CompareError, there_are
from cox.steps import ROW, STEP_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from cox.analysis.shown import Comparison, Differences
    from cox.collection.moment import Moment
    from cox.collection.table import Table
    from cox.metadata import RunParameters
    from cox.storage.status import Status


def runs(now: Moment, query: Query, *, rows: bool) -> pd.DataFrame:
    """How each run is, its parameters and, with `rows`, the last row of each of its tables."""
    params, statuses = params_and_statuses(now, query)
    tables = now.tables_of(params) if rows else ()
    return overview.runs_frame(params, statuses, {table: now.lasts(params, table) for table in tables})


def params_and_statuses(now: Moment, query: Query) -> tuple[dict[str, RunParameters], dict[str, Status]]:
    """The parameters and the state of each run, of those that can be read."""
    statuses = now.statuses(now.named(query))
    params = now.parameters(name for name in now.selected(query) if name in statuses)
    return params, {name: statuses[name] for name in params}


def params(now: Moment, query: Query) -> pd.DataFrame:
    """The parameters of each run."""
    return overview.values_frame(now.parameters(now.selected(query)))


def wide(now: Moment, query: Query, tables: Iterable[str] | None, reduce: Iterable[str]) -> pd.DataFrame:
    """The parameters of each run, and what became of each metric.

    Raises:
        CompareError: There is no such way to reduce; names those there are.
        TableNotFoundError: There is no such table; names those there are.
    """
    reductions = as_list(reduce)
    unknown = [how for how in reductions if how not in WIDE_REDUCTIONS]
    if unknown:
        raise CompareError(f"reduce={unknown[0]!r}: {there_are(WIDE_REDUCTIONS, str(unknown[0]))}")
    params = now.parameters(now.selected(query))
    known = now.tables_of(params)
    wanted = known if tables is None else as_list(tables)
    for table in wanted:
        if table != now.runs.metadata:
            now.runs.refuse_unknown_table(table, known)
    rows = {table: now.read(params, table) for table in wanted}
    ranked = {name for read in rows.values() for name in read.ranked}
    return overview.wide(params, {table: read.blocks for table, read in rows.items()}, reductions, ranked)


def compare(table: Table, query: Query, metric: str, by: str | Sequence[str], **options: Any) -> Comparison:
    """Groups of runs by a metric of a table; see `statistics.compare` for the options."""
    from cox.analysis import statistics

    rows, params = table.rows_and_params([metric], query)
    groups = [by] if isinstance(by, str) else by
    return statistics.compare(rows, params, metric=metric, by=groups, **options)


def plot(
    table: Table, query: Query, x: str | None, y: str | Sequence[str], hue: str | None, **options: Any
) -> Any:
    """Curves of a table; see `plotting.plot` for the options."""
    from cox.analysis import plotting

    columns = as_list(y)
    columns += [x] if x is not None and x != ROW else []
    others = [*STEP_COLUMNS, *([hue] if hue else [])]
    rows, params = table.rows_and_params(columns, query, others)
    return plotting.plot(rows, params, x=x, y=y, hue=hue, **options)


def diff(now: Moment, first: str, second: str) -> Differences:
    """The differences between two runs.

    Raises:
        RunNotFoundError: There is no such run.
    """
    from cox.analysis import statistics

    names = now.runs.resolve(first), now.runs.resolve(second)
    return statistics.diff(facts_of(now, names[0]), facts_of(now, names[1]), names)


def facts_of(now: Moment, name: str) -> dict[str, dict[str, Any]]:
    """A run's parameters, environment, and last rows.

    Raises:
        RunNotFoundError: There is no run of that name.
    """
    now.runs.layout(name)
    params = comparable(now.parameters([name])[name])
    results = {
        f"{table}.{column}": cell
        for table in now.tables_of([name])
        for column, cell in now.lasts([name], table)[name].items()
    }
    return {"parameters": params, "environment": now.runs.environment(name), "results": results}
