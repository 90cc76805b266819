"""From blocks of rows to what a user asked for: rows that fit a condition, objects decoded, one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cox.collection.blocks import Block
from cox.errors import ColumnNotFoundError, CompareError, PredicateError, argument, unknown
from cox.schema import KINDS, Column, Kind, Schema, type_name
from cox.storage.columns import Array, TableData, mask_of, values_of, widened
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

    from cox.predicates import Predicate

#: Decodes one cell of a run's column.
Decode = Callable[[str, Column, Any], Any]
#: Calls a function for a run; None leaves the run out.
Guard = Callable[[str, Callable[[], Any]], Any]


@dataclass(slots=True)
class Collected:
    """One table of many runs.

    Attributes:
        table: Its name.
        schema: The columns that were asked for, in order; where runs differ, the wider type.
        blocks: The rows, in the order of the runs.
        numbers: For each block the number of each row within its run; None for all from 0 on.
        schemas: The columns that runs have, those without rows too.
    """

    table: str
    schema: Schema
    blocks: list[Block]
    numbers: list[Array] | None = None
    schemas: tuple[Schema, ...] = ()

    @property
    def lengths(self) -> Array:
        """How many rows each run has, of shape (number of `names`,)."""
        return np.concatenate([np.empty(0, np.int64), *(block.lengths for block in self.blocks)])

    @property
    def names(self) -> list[str]:
        """The runs."""
        return [name for block in self.blocks for name in block.names]

    def where(self, predicate: Predicate, whole: Schema, decode: Decode | None = None) -> Collected:
        """Only the rows that fit a condition.

        Args:
            predicate: The condition.
            whole: All columns that the table has. The blocks have those that the condition mentions.
            decode: Decodes a cell of a column that holds objects in some runs; without it they are refused.
        """
        refuse_unknown(predicate.names, [*whole.names(), EXP_ID], f"where={predicate.text!r}: no column")
        mixed = self._mixed(predicate.names)
        beside_objects = object_columns((block.schema for block in self.blocks), frozenset())
        blocks, numbers = [], []
        for block in self.blocks:
            columns = _Columns(block, whole, predicate.text, decode, beside_objects)
            try:
                mask = predicate.mask(columns, block.part.nrows)
            except PredicateError as error:
                told = "".join(f". {self._told_kinds(name)}" for name in mixed)
                raise PredicateError(f"{error}{told}") from error
            kept, number = _kept(block, mask)
            blocks.append(kept)
            numbers.append(number)
        return Collected(self.table, self.schema, blocks, numbers, self.schemas)

    def refuse_text_beside_numbers(self, name: str) -> None:
        """Raise if a column is text in some runs, and a number in others.

        Raises:
            CompareError: Names the runs.
        """
        kinds = {kind for kind, _ in self._kinds(name)}
        if len(kinds) > 1 and any(_is_text(KINDS[kind]) for kind in kinds):
            raise CompareError(
                f"the column {name!r} of table {self.table!r} is not a number in all runs. "
                f"{self._told_kinds(name)}; leave those runs out by {argument('params')}"
            )

    def _mixed(self, names: Iterable[str]) -> list[str]:
        """Those of some columns that are of several kinds."""
        return [name for name in names if len({kind for kind, _ in self._kinds(name)}) > 1]

    def _kinds(self, name: str) -> Iterator[tuple[str, list[str]]]:
        """The kinds that a column has, each with runs that have it so."""
        for block in self.blocks:
            column = block.schema.get(name)
            if column is not None:
                yield column.kind, block.names

    def _told_kinds(self, name: str) -> str:
        """A sentence that names the runs in which a column is of another kind than in most."""
        from cox.analysis.parameters import named_runs

        runs: dict[str, list[str]] = {}
        for kind, names in self._kinds(name):
            runs.setdefault(kind, []).extend(names)
        usual = max(runs, key=lambda kind: len(runs[kind]))
        told = (f"{_shown(kind)} in {named_runs(own)}" for kind, own in runs.items() if kind != usual)
        return f"{name!r} is {' and '.join(told)}, and {_shown(usual)} in {len(runs[usual])} others"

    def decoded(
        self, decode: Decode, columns: Sequence[str], kept: frozenset[str], guard: Guard
    ) -> tuple[Collected, dict[str, list[Any]]]:
        """The cells of columns that hold objects by some run's schema, decoded by each run's own.

        Args:
            decode: Decodes one cell.
            columns: The columns.
            kept: Those of them whose cells stay as they are stored.
            guard: Called for each run; one for which it gives None is left out.

        Returns:
            The rows of the other runs, and the cells by column.
        """
        made: dict[str, list[Any]] = {column: [] for column in columns}
        good = []
        for name, block in self._by_run():
            found = guard(name, partial(_cells, name, block, columns, kept, decode))
            good.append(found is not None)
            for column, cells in (found or {}).items():
                made[column] += cells
        return (self if all(good) else self._only(np.array(good))), made

    def _by_run(self) -> Iterator[tuple[str, Block]]:
        for block in self.blocks:
            stops = np.cumsum(block.lengths)
            for name, start, stop in zip(block.names, stops - block.lengths, stops, strict=True):
                part = block.part.take(slice(int(start), int(stop)))
                yield name, Block(block.schema, part, [name], np.array([stop - start]))

    def _only(self, good: Array) -> Collected:
        """Without the runs that are not good: `good` is of shape (number of `names`,)."""
        blocks, numbers, start = [], [], 0
        for at, block in enumerate(self.blocks):
            mask = np.repeat(good[start : start + len(block.names)], block.lengths)
            start += len(block.names)
            kept, number = _kept(block, mask)
            blocks.append(kept)
            numbers.append(number if self.numbers is None else self.numbers[at][mask])
        return Collected(self.table, self.schema, blocks, numbers, self.schemas)

    def data(self) -> TableData:
        """The rows as one table."""
        whole = TableData(self.table, self.schema)
        for block in self.blocks:
            whole.parts.append(widened(block.part, block.schema, self.schema))
        return whole

    def frame(
        self,
        decoded: Mapping[str, list[Any]] | None = None,
        *,
        append_exp_id: bool = True,
        optional_as_nan: bool = True,
    ) -> pd.DataFrame:
        """The rows as one frame; each run's index is its own. For the arguments see `frames.to_frame`."""
        from cox import frames

        lengths = self.lengths
        last = {EXP_ID: frames.repeated(self.names, lengths)} if append_exp_id else {}
        return frames.to_frame(
            self.data(), decoded, optional_as_nan=optional_as_nan, last=last, index=self.index(lengths)
        )

    def index(self, lengths: Array) -> Array:
        """The number of each row within its run, of shape (nrows,)."""
        if self.numbers is not None:
            return np.concatenate([np.empty(0, np.int64), *self.numbers])
        return counted(lengths)


class _Columns:
    """The columns of a block, as a condition asks for them.

    Args:
        block: The block.
        whole: All columns that the table has.
        text: The condition, for errors.
        decode: Decodes a cell of an object; without it objects are refused.
        beside_objects: The columns that hold objects in some block.
    """

    def __init__(
        self, block: Block, whole: Schema, text: str, decode: Decode | None, beside_objects: Sequence[str]
    ) -> None:
        self._block, self._whole, self._text = block, whole, text
        self._decode, self._beside_objects = decode, beside_objects

    def __call__(self, name: str) -> pd.Series[Any]:
        import pandas as pd

        from cox import frames

        if name == EXP_ID:
            names: pd.Series[Any] = pd.Series(frames.repeated(self._block.names, self._block.lengths))
            return names
        own = self._block.schema.get(name)
        if own is not None and own.traits.in_cell and self._decode is not None:
            return frames.objects(self._decoded(self._decode, own))
        column = self._whole.get(name)
        if column is None or column.traits.is_object or (own is not None and own.traits.is_object):
            raise PredicateError(
                f"where={self._text!r}: the column {name!r} holds objects, not numbers or text"
            )
        if own is not None and name in self._beside_objects:
            column = own  # as a frame has it
        wanted = Schema([column])
        data = TableData("", wanted, [widened(self._block.part, self._block.schema, wanted)])
        made: pd.Series[Any] = pd.Series(frames.series(column, *data.column(column)))
        return made

    def _decoded(self, decode: Decode, column: Column) -> list[Any]:
        """The objects of a column, as long as they are numbers and text.

        Raises:
            PredicateError: One is something else; names its run.
        """
        cells = values_of(self._block.part, column).tolist()
        gone = mask_of(self._block.part, column.name).tolist()
        runs = np.repeat(self._block.names, self._block.lengths).tolist()
        values = []
        for run, cell, is_missing in zip(runs, cells, gone, strict=True):
            value = None if is_missing else decode(run, column, cell)
            value = value.item() if isinstance(value, np.generic) else value
            if not isinstance(value, (bool, int, float, str, type(None))):
                raise PredicateError(
                    f"where={self._text!r}: the column {column.name!r} holds objects, not numbers or text: "
                    f"{type(value).__name__} in run {run}"
                )
            values.append(value)
        return values


def _shown(kind: str) -> str:
    return type_name(KINDS[kind].given)


def _is_text(kind: Kind) -> bool:
    return not kind.is_number and not kind.is_object


def counted(lengths: Array) -> Array:
    """0 to n-1 for each n in `lengths`, one behind the other."""
    made: Array = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return made


def refuse_unknown(names: Iterable[str], known: Sequence[str], what: str) -> None:
    """Raise if a name is none of those that are known.

    Raises:
        ColumnNotFoundError: Says `what` there is none of, what there is, and the nearest.
    """
    for name in names:
        if name not in known:
            raise ColumnNotFoundError(unknown(what, name, known))


def object_columns(schemas: Iterable[Schema], kept: frozenset[str]) -> list[str]:
    """The columns that hold objects by some run's schema, but those that all runs keep as text."""
    kinds: dict[str, set[str]] = {}
    for schema in schemas:
        for column in schema:
            kinds.setdefault(column.name, set()).add(column.kind)
    return [
        name
        for name, found in kinds.items()
        if any(KINDS[kind].is_rebuilt for kind in found) and (name not in kept or len(found) > 1)
    ]


def _kept(block: Block, mask: Array) -> tuple[Block, Array]:
    runs = np.repeat(np.arange(len(block.names)), block.lengths)[mask]
    lengths = np.bincount(runs, minlength=len(block.names)).astype(np.int64)
    there = np.flatnonzero(lengths)
    names = [block.names[at] for at in there]
    kept = Block(block.schema, block.part.take(mask), names, lengths[there])
    return kept, counted(block.lengths)[mask]


def _cells(
    run: str, block: Block, columns: Sequence[str], kept: frozenset[str], decode: Decode
) -> dict[str, list[Any]]:
    """One run's cells of some columns."""
    made: dict[str, list[Any]] = {}
    for name in columns:
        column = block.schema.get(name)
        if column is None:
            made[name] = [None] * block.part.nrows
            continue
        cells = values_of(block.part, column).tolist()
        made[name] = [
            None if gone else cell if name in kept else decode(run, column, cell)
            for cell, gone in zip(cells, mask_of(block.part, name).tolist(), strict=True)
        ]
    return made
