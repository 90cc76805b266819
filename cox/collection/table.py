"""One table of many runs: its columns, and its rows as far as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cox.collection import overview
from cox.collection.assembly import Collected, object_columns, refuse_unknown
from cox.collection.moment import Moment, by_table
from cox.collection.query import Query
from cox.collection.ranks import in_order
from cox.collection.runs import Runs
from cox.errors import DamageWarning, RebuildError, warn
from cox.metadata import stand_in
from cox.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd


class Table:
    """A table, as the runs have it at one moment.

    Attributes:
        now: The runs at that moment.
        runs: The runs.
        name: Its name.
    """

    def __init__(self, now: Moment, name: str) -> None:
        self.now, self.runs, self.name = now, now.runs, name

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
        names = self.now.some_selected(query)
        columns = query.columns_to_read(predicate)
        rows = self.now.read(names, self.name, columns=columns, skip=query.skip)
        schemas = {name: own[self.name] for name, own in rows.schemas.items() if self.name in own}
        if not schemas:
            self.runs.refuse_unknown_table(self.name, by_table(rows.schemas))
        without = [name for name in rows.schemas if name not in schemas]
        if without:
            self.runs.warn(
                f"{len(without)} runs have no table {self.name!r} and are left out: {_shortened(without)}"
            )
        whole = self.runs.common_schema(self.name, schemas, quiet=union)
        blocks = list(in_order(rows.blocks, rows.ranked)) if ordered else rows.blocks
        kinds = tuple(dict.fromkeys(schemas.values()))
        found = Collected(self.name, self.only(whole, query.columns), blocks, schemas=kinds)
        return found if predicate is None else found.where(predicate, whole, self.runs.decoder(self.name))

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

        names = self.now.some_selected(query)
        found = self.rows(Query(where=query.where, exp_filter=set(names).__contains__), ordered=True)
        if all(name in found.schema for name in columns):
            wanted = {*columns, *others}
            found.schema = Schema(column for column in found.schema if column.name in wanted)
        for name in columns:
            found.refuse_text_beside_numbers(name)
        found, decoded = self.decoded(found, frozenset(), skip=False)
        values = {name: comparable(own) for name, own in self.now.parameters(names).items()}
        warn_of_copies(self.runs, values)
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
        decoder = _Decoder(self.runs, self.name)
        decoded = found.decoded(decoder, columns, kept, partial(self.runs.guarded, skip=skip))
        decoder.warn()
        return decoded

    def only(self, schema: Schema, columns: Sequence[str] | None) -> Schema:
        """The columns that are asked for.

        Raises:
            ColumnNotFoundError: There is no such column; names those there are.
        """
        if columns is None:
            return schema
        refuse_unknown(columns, schema.names(), f"table {self.name!r} has no column")
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


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
