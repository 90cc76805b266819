"""One table of many runs: its columns, and its rows as far as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cox.collection import overview
from cox.collection.assembly import Collected, object_columns, refuse_unknown
from cox.collection.moment import Moment, by_table
from cox.collection.query import Query
from cox.collection.ranks import in_order
from cox.collection.runs import Directory, Runs
from cox.errors import DamageWarning, RebuildError, warn
from cox.metadata import stand_in
from cox.schema import Column, Schema
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

    from cox.collection.shapes import Shape


class Table:
    """A table, as the runs have it at one moment.

    Args:
        now: The runs.
        name: The table.
    """

    def __init__(self, now: Moment, name: str) -> None:
        self._now, self._runs, self._name = now, now.runs, name

    def rows(self, query: Query, *, union: bool = True, ordered: bool = False) -> Collected:
        """Read the rows that are asked for, objects as they are stored.

        Args:
            query: Which.
            union: Whether it is expected that runs have different columns.
            ordered: Whether those of ranks come in the order of `ranks.in_order`; reads all columns.

        Raises:
            TableNotFoundError: No run has the table; names those there are.
            ColumnNotFoundError: No run has such a column or parameter; names those there are.
            PredicateError: A condition cannot be understood; shows where. Or no run passes.
        """
        predicate = query.predicate()
        names = self._now.some_selected(query)
        columns = query.columns_to_read(predicate)
        rows = self._now.read(names, self._name, columns=columns, skip=query.skip)
        schemas = {name: own[self._name] for name, own in rows.schemas.items() if self._name in own}
        if not schemas:
            self._runs.refuse_unknown_table(self._name, by_table(rows.schemas))
        without = [name for name in rows.schemas if name not in schemas]
        if without:
            self._runs.warn(
                f"{len(without)} runs have no table {self._name!r} and are left out: {_shortened(without)}"
            )
        whole = self._runs.common_schema(self._name, schemas, quiet=union)
        blocks = list(in_order(rows.blocks, rows.ranked)) if ordered else rows.blocks
        kinds = tuple(dict.fromkeys(schemas.values()))
        found = Collected(self._name, self._only(whole, query.columns), blocks, schemas=kinds)
        return found if predicate is None else found.where(predicate, whole, self._runs.decoder(self._name))

    def rows_and_objects(
        self, query: Query, kept: frozenset[str] = frozenset(), *, union: bool = True
    ) -> tuple[Collected, dict[str, list[Any]]]:
        """Read the rows that are asked for, and the objects of their columns but those that are `kept`."""
        return self.decoded(self.rows(query, union=union), kept, skip=query.skip)

    def arrow(self, query: Query) -> Any:
        """Read the rows that are asked for as a `pyarrow.Table`."""
        from cox.collection import outgoing

        found = self.rows(query)
        names = found.schema.names()
        rows = [outgoing.Outgoing(block) for block in found.blocks]
        common = outgoing.common_shapes(rows, found.schemas, frozenset(names))
        return outgoing.to_arrow(rows, names, common)

    def rowless(self) -> Any:
        """The columns with their types, and no row, as a `pyarrow.Table`; objects count as text."""
        from cox.collection import outgoing

        schema = self.schema()
        return outgoing.to_arrow([], schema.names(), outgoing.common_shapes([], [schema]))

    def objects(self) -> dict[str, Shape]:
        """The columns that hold objects or times in some run, and what these are together; reads them."""
        from cox.collection import outgoing

        schemas = by_table(self._now.read(self._runs.names).schemas)[self._name].values()
        times = {column.name for schema in schemas for column in schema if column.traits.is_time}
        names = frozenset(object_columns(schemas, frozenset())) | times
        if not names:
            return {}
        blocks = self._now.read(self._runs.names, self._name, columns=names).blocks
        rows = [outgoing.Outgoing(block) for block in blocks]
        return outgoing.common_shapes(rows, schemas, names)

    def rows_and_params(
        self, columns: Sequence[str], query: Query, others: Sequence[str] = ()
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Read the rows, in no more than these columns and those of the others there are, and the parameters.

        Objects in these columns are decoded, the parameters are as `comparable` gives them, and the rows of
        ranks are in order. Warns of copies of runs.

        Raises:
            CompareError: One of `columns` is text in some runs, and a number in others; names those.
        """
        from cox.analysis.parameters import comparable
        from cox.collection.copies import warn_of_copies

        names = self._now.some_selected(query)
        found = self.rows(Query(where=query.where, exp_filter=set(names).__contains__), ordered=True)
        if all(name in found.schema for name in columns):
            wanted = {*columns, *others}
            found.schema = Schema(column for column in found.schema if column.name in wanted)
        for name in columns:
            found.refuse_text_beside_numbers(name)
        found, decoded = self.decoded(found, frozenset(), skip=False)
        values = {name: comparable(own) for name, own in self._now.parameters(names).items()}
        warn_of_copies(self._runs, values)
        return found.frame(decoded, optional_as_nan=False), overview.values_frame(values)

    def decoded(
        self, found: Collected, kept: frozenset[str], *, skip: bool
    ) -> tuple[Collected, dict[str, list[Any]]]:
        """The objects of the columns that hold some; without the runs whose objects cannot be decoded.

        An object whose code is gone costs its own cell, which holds an `Unreadable`, and is warned about.
        """
        schemas = dict.fromkeys(block.schema for block in found.blocks)
        columns = [name for name in object_columns(schemas, kept) if name in found.schema]
        if not columns:
            return found, {}
        decoder = _Decoder(self._runs, self._name)
        decoded = found.decoded(decoder, columns, kept, partial(self._runs.guarded, skip=skip))
        decoder.warn()
        return decoded

    # --- For those who take the runs in groups

    def schema(self) -> Schema:
        """The columns in all runs, those that some run lacks as nullable.

        Raises:
            TableNotFoundError: There is no such table; names those there are.
        """
        tables = by_table(self._now.read(self._runs.names).schemas)
        self._runs.refuse_unknown_table(self._name, tables)
        schemas = tables[self._name]
        different = set(schemas.values())
        return Schema(
            replace(column, nullable=column.nullable or any(column.name not in own for own in different))
            if column.traits.is_number
            else column
            for column in self._runs.common_schema(self._name, schemas, quiet=True)
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
        return _with_objects(Collected(self._name, self._only(schema, query.columns), []), objects or {})

    def of_runs(
        self, names: Sequence[str], query: Query, schema: Schema, objects: Mapping[str, Shape] | None = None
    ) -> pd.DataFrame:
        """The rows of some runs, in the columns and types that there are in all runs."""
        predicate = query.predicate()
        rows = self._now.read(names, self._name, columns=query.columns_to_read(predicate))
        found = Collected(self._name, self._only(schema, query.columns), rows.blocks)
        if predicate is not None:
            found = found.where(predicate, schema, self._runs.decoder(self._name))
        return _with_objects(found, objects or {})

    def _only(self, schema: Schema, columns: Sequence[str] | None) -> Schema:
        if columns is None:
            return schema
        refuse_unknown(columns, schema.names(), f"table {self._name!r} has no column")
        return Schema(column for name in columns if (column := schema.get(name)) is not None)


class _Decoder:
    """Decodes the cells of a table, and remembers those that it had to put something else for."""

    def __init__(self, runs: Runs, table: str) -> None:
        self._runs, self._table = runs, table
        self._decode = runs.decoder(table)
        #: By column, class and reason, the runs of the cells.
        self._lost: dict[tuple[str, str, str], list[str]] = {}

    def __call__(self, run: str, column: Column, cell: Any) -> Any:
        try:
            return self._decode(run, column, cell)
        except RebuildError as error:
            reason = f"{type(error.__cause__).__name__}: {error.__cause__}"
            instead = stand_in(column, cell, self._runs.layout(run), reason)
            self._lost.setdefault((column.name, error.needs or instead.name, reason), []).append(run)
            return instead

    def warn(self) -> None:
        """Say once for each class of a column that its objects are not there."""
        for (column, needs, reason), runs in self._lost.items():
            warn(
                f"column {column!r} of table {self._table!r}: {needs} cannot be rebuilt ({reason}); is the "
                f"code still there, under the same name? {len(runs)} cells hold a placeholder, in run "
                f"{_shortened(list(dict.fromkeys(runs)))}",
                DamageWarning,
            )


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
    rows = Table(Moment(runs), table).of_runs(names, query, schema, objects)
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


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
