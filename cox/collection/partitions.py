"""One table of many runs by groups of runs, in the columns that all runs have together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cox.collection.assembly import Collected, object_columns, refuse_unknown
from cox.collection.moment import Moment, by_table
from cox.collection.query import Query
from cox.collection.runs import Directory, Runs
from cox.collection.table import Table
from cox.schema import Schema
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

    from cox.collection.shapes import Shape


class PartitionedTable(Table):
    """A table, as the runs have it at one moment, which can be had without rows, and by groups of runs."""

    def schema(self) -> Schema:
        """The columns in all runs, those that some run lacks as nullable.

        Raises:
            TableNotFoundError: There is no such table; names those there are.
        """
        tables = by_table(self.now.read(self.runs.names).schemas)
        self.runs.refuse_unknown_table(self.name, tables)
        schemas = tables[self.name]
        different = set(schemas.values())
        return Schema(
            replace(column, nullable=column.nullable or any(column.name not in own for own in different))
            if column.traits.is_number
            else column
            for column in self.runs.common_schema(self.name, schemas, quiet=True)
        )

    def without_rows(
        self, query: Query, schema: Schema, objects: Mapping[str, Shape] | None = None
    ) -> pd.DataFrame:
        """The columns that are asked for, with their types, and no row.

        Args:
            query: Which.
            schema: The columns in all runs.
            objects: As `objects` gives it.

        Raises:
            ColumnNotFoundError: No run has one of the columns, or one that `where` mentions.
        """
        predicate = query.predicate()
        if predicate is not None:
            known = [*schema.names(), EXP_ID]
            refuse_unknown(predicate.names, known, f"where={query.where!r}: no column")
        return _with_objects(Collected(self.name, self.only(schema, query.columns), []), objects or {})

    def of_runs(
        self, names: Sequence[str], query: Query, schema: Schema, objects: Mapping[str, Shape] | None = None
    ) -> pd.DataFrame:
        """The rows of some runs, in the columns and types that there are in all runs."""
        predicate = query.predicate()
        rows = self.now.read(names, self.name, columns=query.columns_to_read(predicate))
        found = Collected(self.name, self.only(schema, query.columns), rows.blocks)
        if predicate is not None:
            found = found.where(predicate, schema, self.runs.decoder(self.name))
        return _with_objects(found, objects or {})

    def rowless(self) -> Any:
        """The columns with their types, and no row, as a `pyarrow.Table`; objects count as text."""
        from cox.collection import outgoing

        schema = self.schema()
        return outgoing.to_arrow([], schema.names(), outgoing.common_shapes([], [schema]))

    def objects(self) -> dict[str, Shape]:
        """The columns that hold objects or times in some run, and what these are together; reads them."""
        from cox.collection import outgoing

        schemas = by_table(self.now.read(self.runs.names).schemas)[self.name].values()
        times = {column.name for schema in schemas for column in schema if column.traits.is_time}
        names = frozenset(object_columns(schemas, frozenset())) | times
        if not names:
            return {}
        blocks = self.now.read(self.runs.names, self.name, columns=names).blocks
        rows = [outgoing.Outgoing(block) for block in blocks]
        return outgoing.common_shapes(rows, schemas, names)


def read_partition(
    folders: list[str],
    nested: bool,
    table: str,
    query: Query,
    schema: Schema,
    meta: pd.DataFrame,
    objects: Mapping[str, Shape],
    names: list[str],
) -> pd.DataFrame:
    """The rows of some runs, in the columns and types of `meta`: what a worker of dask's calls."""
    own: list[Directory] = [*folders]
    runs = Runs(own, nested=nested, log_warnings=False, cache=False)
    rows = PartitionedTable(Moment(runs), table).of_runs(names, query, schema, objects)
    made: pd.DataFrame = rows.reindex(columns=meta.columns).astype(meta.dtypes.to_dict())
    return made


def _with_objects(rows: Collected, objects: Mapping[str, Shape]) -> pd.DataFrame:
    """The rows as a frame, with plain objects as what they are."""
    frame = rows.frame()
    if not objects:
        return frame
    import pandas as pd
    import pyarrow as pa

    from cox.collection.outgoing import Outgoing
    from cox.collection.shapes import arrow_type

    types = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.bool_(): pd.BooleanDtype()}
    blocks = [Outgoing(block) for block in rows.blocks]
    for name, shape in objects.items():
        if name in frame:
            arrays = pa.chunked_array([block.array(name, shape) for block in blocks], arrow_type(shape))
            frame[name] = arrays.to_pandas(types_mapper=types.get).set_axis(frame.index)
    return frame
