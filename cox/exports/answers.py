"""What other engines are given of the tables of many runs: all of them to DuckDB, one in pieces to Dask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from cox.analysis.parameters import comparable
from cox.collection import lines, overview
from cox.collection.partitions import PartitionedTable, read_partition
from cox.collection.query import Query
from cox.exports import PARAMS, RUNS, engines
from cox.extras import needed

if TYPE_CHECKING:
    import pandas as pd

    from cox.collection.moment import Moment


def sql(now: Moment, text: str) -> pd.DataFrame:
    """Ask DuckDB about all tables, and about `runs` and `params` where there is no table of that name."""
    own = {name: PartitionedTable(now, name) for name in now.schemas(quiet=True)}
    taken = {name.lower() for name in own}
    made = {RUNS: partial(_runs, now), PARAMS: partial(_params, now)}
    tables: dict[str, Callable[[], Any]] = {name: ask for name, ask in made.items() if name not in taken}
    tables |= {name: partial(table.arrow, Query()) for name, table in own.items()}
    return engines.sql(text, tables, lambda name: own[name].rowless() if name in own else tables[name]())


def _runs(now: Moment) -> Any:
    params, statuses = lines.params_and_statuses(now, Query())
    frame = overview.runs_frame({name: {} for name in params}, statuses, {})
    facts = needed("pyarrow", "parquet").Table.from_pandas(frame, preserve_index=False)
    values = {name: comparable(own) for name, own in params.items()}
    return engines.of_runs(values, dict(zip(facts.column_names, facts.columns, strict=True)))


def _params(now: Moment) -> Any:
    params = now.parameters(now.runs.names)
    return engines.of_runs({name: comparable(own) for name, own in params.items()})


def dask(now: Moment, key: str, query: Query, runs_per_partition: int) -> Any:
    """A table as a lazy frame of Dask's, whose partitions are read when they are computed."""
    table, runs = PartitionedTable(now, key), now.runs
    schema, objects = table.schema(), table.objects()
    meta = table.without_rows(query, schema, objects)
    names = now.selected(query)
    groups = [names[i : i + runs_per_partition] for i in range(0, len(names), runs_per_partition)]
    rows = Query(query.columns, query.where)
    read = partial(read_partition, runs.folders, runs.nested, key, rows, schema, meta, objects)
    return engines.to_dask(read, groups, meta)
