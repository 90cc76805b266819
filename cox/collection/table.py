"""One table of many runs: its columns, and its rows as far as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cox import predicates
from cox.collection import overview
from cox.collection.assembly import Collected, object_columns, refuse_unknown
from cox.collection.ranks import in_order
from cox.collection.runs import Directory, ExpFilter, Runs, by_table
from cox.errors import DamageWarning, RebuildError, warn
from cox.metadata import stand_in
from cox.schema import Column, Schema
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

    from cox.collection.overview import ParamFilter
    from cox.collection.shapes import Shape


class Table:
    """A table, as the runs have it.

    Args:
        runs: The runs.
        name: The table.
    """

    def __init__(self, runs: Runs, name: str) -> None:
        self._runs, self._name = runs, name

    def rows(
        self,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
        union: bool = True,
        skip: bool = False,
        ordered: bool = False,
    ) -> Collected:
        """The rows that are asked for, objects as they are stored. For all else see `CollectionReader.df`.

        Args:
            columns: As for `CollectionReader.df`.
            where: As there.
            exp_filter: As there.
            params: As there.
            union: As there.
            skip: As there.
            ordered: Whether those of ranks come in the order of `ranks.in_order`; reads all columns.
        """
        predicate = predicates.parse(where) if where is not None else None
        columns = [columns] if isinstance(columns, str) else columns
        names = self._runs.chosen(exp_filter, params, skip=skip)
        self._runs.refuse_none(names, exp_filter, params)
        found = self._runs.read(names, self._name, columns=_needed(columns, predicate), skip=skip)
        schemas = {name: own[self._name] for name, own in found.schemas.items() if self._name in own}
        if not schemas:
            self._runs.refuse_unknown_table(self._name, by_table(found.schemas))
        without = [name for name in found.schemas if name not in schemas]
        if without:
            self._runs.warn(
                f"{len(without)} runs have no table {self._name!r} and are left out: {_shortened(without)}"
            )
        whole = self._runs.common_schema(self._name, schemas, quiet=union)
        blocks = list(in_order(found.blocks, found.ranked)) if ordered else found.blocks
        kinds = tuple(dict.fromkeys(schemas.values()))
        rows = Collected(self._name, self._only(whole, columns), blocks, schemas=kinds)
        return rows if predicate is None else rows.where(predicate, whole, self._runs.decoder(self._name))

    def arrow(
        self,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        exp_filter: ExpFilter | None = None,
        params: ParamFilter | None = None,
    ) -> Any:
        """The rows as a `pyarrow.Table`. For the arguments see `CollectionReader.df`."""
        from cox.collection import outgoing

        found = self.rows(columns=columns, where=where, exp_filter=exp_filter, params=params)
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
        """The columns that hold objects in some run, and what these are together; reads those columns."""
        from cox.collection import outgoing

        schemas = by_table(self._runs.read(self._runs.names).schemas)[self._name].values()
        names = frozenset(object_columns(schemas, frozenset()))
        if not names:
            return {}
        blocks = self._runs.read(self._runs.names, self._name, columns=names).blocks
        rows = [outgoing.Outgoing(block) for block in blocks]
        return outgoing.common_shapes(rows, schemas, names)

    def rows_and_params(
        self,
        columns: Sequence[str],
        *,
        where: str | None,
        exp_filter: ExpFilter | None,
        params: ParamFilter | None,
        others: Sequence[str] = (),
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows, in no more than these columns and those of the others that there are, and the parameters.

        Objects in these columns are decoded, the parameters are as `comparable` gives them, and the rows of
        ranks are in order.

        Raises:
            CompareError: One of `columns` is text in some runs, and a number in others; names those.
        """
        chosen = self._runs.chosen(exp_filter, params)
        self._runs.refuse_none(chosen, exp_filter, params)
        found = self.rows(where=where, exp_filter=set(chosen).__contains__, ordered=True)
        if all(name in found.schema for name in columns):
            wanted = {*columns, *others}
            found.schema = Schema(column for column in found.schema if column.name in wanted)
        for name in columns:
            found.refuse_text_beside_numbers(name)
        found, decoded = self.decoded(found, frozenset(), skip=False)
        from cox.analysis.parameters import comparable

        values = {name: comparable(own) for name, own in self._runs.parameters(chosen).items()}
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
        tables = by_table(self._runs.read(self._runs.names).schemas)
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
        self,
        schema: Schema,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        objects: Mapping[str, Shape] | None = None,
    ) -> pd.DataFrame:
        """The columns with their types, and no row.

        Args:
            schema: The columns in all runs.
            columns: As for `CollectionReader.df`.
            where: As for `CollectionReader.df`.
            objects: As `objects` gives it.

        Raises:
            ColumnNotFoundError: No run has one of `columns`, or one that `where` mentions.
        """
        if where is not None:
            asked = predicates.parse(where).names
            refuse_unknown(asked, [*schema.names(), EXP_ID], f"where={where!r}: no column")
        return _with_objects(Collected(self._name, self._only(schema, columns), []), objects or {})

    def of_runs(
        self,
        names: Sequence[str],
        schema: Schema,
        *,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        objects: Mapping[str, Shape] | None = None,
    ) -> pd.DataFrame:
        """The rows of some runs, in the columns and types that there are in all runs."""
        predicate = predicates.parse(where) if where is not None else None
        rows = self._runs.read(names, self._name, columns=_needed(columns, predicate))
        found = Collected(self._name, self._only(schema, columns), rows.blocks)
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
    schema: Schema,
    meta: pd.DataFrame,
    columns: Sequence[str] | None,
    where: str | None,
    objects: Mapping[str, Shape],
    names: list[str],
) -> pd.DataFrame:
    """The rows of some runs, in the columns and types of `meta`: what a worker of dask's calls."""
    own: list[Directory] = [*folders]
    runs = Runs(own, nested=nested, log_warnings=False, cache=False)
    rows = Table(runs, table).of_runs(names, schema, columns=columns, where=where, objects=objects)
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


def _needed(columns: Sequence[str] | None, predicate: predicates.Predicate | None) -> frozenset[str] | None:
    """The columns to read; None for all."""
    if columns is None:
        return None
    return frozenset(columns).union(predicate.names if predicate is not None else ())


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
