"""A line for each run: what was chosen, what came of it. Pure functions of rows that were read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cox import metadata, predicates
from cox.analysis.choices import WIDE_REDUCTIONS
from cox.collection import ranks
from cox.collection.assembly import Decode, refuse_unknown
from cox.collection.blocks import Block
from cox.errors import PredicateError
from cox.metadata import RunParameters
from cox.schema import Column, cell_value, shown
from cox.storage.columns import Array, Part, mask_of, values_of
from cox.storage.layout import EXP_ID
from cox.storage.schemas import RANK

if TYPE_CHECKING:
    import pandas as pd

    from cox.collection.query import ParamFilter
    from cox.storage import layout
    from cox.storage.status import Status


def parameters(
    blocks: Iterable[Block],
    names: Iterable[str],
    decode: Decode,
    ranked: Container[str] = (),
    layout_of: Callable[[str], layout.RunLayout] | None = None,
) -> dict[str, RunParameters]:
    """The parameters of each run: the first row of its metadata, decoded as they are asked for.

    Args:
        blocks: The metadata.
        names: The runs that could be read; one without metadata has no parameters.
        decode: Decodes a cell that stands for an object.
        ranked: The runs that ranks wrote: their column `rank` is not a parameter.
        layout_of: Where a run lies, for objects in files of their own.
    """
    cells: dict[str, dict[str, tuple[Column, Any]]] = {name: {} for name in names}
    for block in blocks:
        first = block.part.take(ranks.first_rows(block, ranked))
        for column in block.schema:
            for name, cell in _cells(block, first, column):
                if not (column == RANK and name in ranked):
                    cells[name][column.name] = column, cell
    return {
        name: RunParameters(own, partial(decode, name), layout_of and partial(layout_of, name))
        for name, own in cells.items()
    }


def filtered(found: Mapping[str, Mapping[str, Any]], params: ParamFilter, table: str) -> list[str]:
    """The runs whose parameters are as asked for.

    Raises:
        ColumnNotFoundError: No run has such a parameter.
        PredicateError: The condition cannot be understood.
    """
    if callable(params):
        return [name for name, values in found.items() if params(dict(values))]
    known = names_of(found.values())
    asked = (
        "no run has a parameter" if known else f"no run has a row in its table {table!r}, so that there is no"
    )
    if isinstance(params, str):
        predicate = predicates.parse(params)
        refuse_unknown(predicate.names, [*known, EXP_ID], asked)
        return [name for name, values in found.items() if predicate.holds({**values, EXP_ID: name})]
    refuse_unknown(params, [*known, EXP_ID], asked)
    for param, wanted in params.items():
        if isinstance(wanted, Iterator):
            raise PredicateError(f"params={{{param!r}: …}}: give a list, not {shown(wanted)}, which ends")
    return [
        name
        for name, values in found.items()
        if all(_is_one_of({**values, EXP_ID: name}.get(param), wanted) for param, wanted in params.items())
    ]


def values_there(found: Mapping[str, Mapping[str, Any]], params: str | Mapping[str, Any]) -> str:
    """The end of a sentence: which values the parameters have that are asked for."""
    asked = sorted(predicates.parse(params).names) if isinstance(params, str) else list(params)
    whole = [{**values, EXP_ID: name} for name, values in found.items()]
    return f"; the values there are: {metadata.values_told(whole, asked)}"


def names_of(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names that any run has, in the order in which they are met."""
    return list(dict.fromkeys(name for values in found for name in values))


def values_frame(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each run, a column for each name that any of them has; index `exp_id`."""
    import pandas as pd

    columns = {name: [values.get(name) for values in found.values()] for name in names_of(found.values())}
    index = pd.Index(list(found), name=EXP_ID)
    frame: pd.DataFrame = pd.DataFrame(
        {name: _column(cells, index) for name, cells in columns.items()}, index=index
    )
    return frame


def runs_frame(
    found: Mapping[str, Mapping[str, Any]],
    statuses: Mapping[str, Status],
    lasts: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> pd.DataFrame:
    """A row for each run: how it is, its parameters, and the last row of each table; index `exp_id`.

    Args:
        found: Its parameters.
        statuses: How it is.
        lasts: For each table the last row of each of these runs.
    """
    import pandas as pd

    index = pd.Index(list(found), name=EXP_ID)
    states = [statuses[name] for name in found]
    started = np.array([np.nan if status.started is None else status.started for status in states])
    duration = np.array([np.nan if status.duration is None else status.duration for status in states])
    frame = pd.DataFrame(
        {
            "state": [status.state for status in states],
            "started": pd.to_datetime(started, unit="s", utc=True),
            "duration": pd.to_timedelta(duration, unit="s"),
            "host": pd.Series([status.host for status in states], index=index, dtype=object),
        },
        index=index,
    )
    tables = [values_frame(last).add_prefix(f"{table}.") for table, last in lasts.items()]
    params = values_frame(found).rename(columns={name: f"params.{name}" for name in frame})
    made: pd.DataFrame = pd.concat([frame, params, *tables], axis=1)
    return made


def lasts(
    blocks: Iterable[Block], names: Iterable[str], ranked: Container[str] = ()
) -> dict[str, dict[str, Any]]:
    """The last row of each run, objects left out; None is missing. Empty for a run without rows.

    Which row of several ranks is the last one, says `cox.collection.ranks`.
    """
    made: dict[str, dict[str, Any]] = {name: {} for name in names}
    for block in ranks.in_order(blocks, ranked):
        last = block.part.take(ranks.last_rows(block))
        for column in block.schema:
            if not column.traits.is_object:
                for name, cell in _cells(block, last, column):
                    made[name][column.name] = cell_value(column, cell)
    return made


def wide(
    found: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Iterable[Block]],
    reductions: Collection[str] = WIDE_REDUCTIONS,
    ranked: Container[str] = (),
) -> pd.DataFrame:
    """A row for each run: its parameters, and numbers of each metric, `table.metric.last`; index `exp_id`.

    Args:
        found: Its parameters.
        tables: The rows of each table.
        reductions: Some of `WIDE_REDUCTIONS`. Missing cells and nan count for none of them. They are floats,
            so that integers beyond 2**53 are rounded.
        ranked: The runs that ranks wrote; see `cox.collection.ranks` for which row is the last one.
    """
    import pandas as pd

    index = pd.Index(list(found), name=EXP_ID)
    at = {name: number for number, name in enumerate(index)}
    cells_of: dict[str, Array] = {}
    for table, blocks in tables.items():
        for block in ranks.in_order(blocks, ranked):
            rows = [at[name] for name in block.names]
            no_metric = np.repeat([name in ranked for name in block.names], block.lengths)
            for column in block.schema:
                if not column.traits.is_measure or (column == RANK and no_metric.all()):
                    continue
                values = values_of(block.part, column).astype(np.float64)
                values[mask_of(block.part, column.name)] = np.nan
                if column == RANK:
                    values[no_metric] = np.nan
                for how in reductions:
                    cells = cells_of.setdefault(f"{table}.{column.name}.{how}", np.full(len(index), np.nan))
                    cells[rows] = _reduced(values, block.lengths, how)
    metrics = pd.DataFrame(cells_of, index=index)
    made: pd.DataFrame = pd.concat([values_frame(found), metrics], axis=1)
    return made


def _reduced(values: Array, lengths: Array, how: str) -> Array:
    starts = np.cumsum(lengths) - lengths
    if how == "min":
        return np.fmin.reduceat(values, starts)
    if how == "max":
        return np.fmax.reduceat(values, starts)
    numbers = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.reduceat(numbers, starts)
    return np.where(last < starts, np.nan, values[last])


def _cells(block: Block, rows: Part, column: Column) -> Iterator[tuple[str, Any]]:
    """The cells of a column in `rows`, of which each of the block's runs has one; None is missing."""
    cells = values_of(rows, column).tolist()
    for name, cell, gone in zip(block.names, cells, mask_of(rows, column.name).tolist(), strict=True):
        yield name, None if gone else cell


def _column(cells: list[Any], index: Any) -> Any:
    """Cells as a column of the type that they have in common; objects if they have none."""
    import pandas as pd

    kinds = {type(cell) for cell in cells}
    for kind, dtype in ((int, "Int64"), (bool, "boolean")):
        if kinds == {kind, type(None)}:
            return pd.Series(cells, index=index, dtype=dtype)
    from cox import frames

    alike = kinds <= {int} or kinds <= {bool} or kinds <= {str, type(None)}
    if alike or (kinds <= {int, float, type(None)} and not frames.would_round(cells)):
        return pd.Series(cells, index=index)
    made = frames.objects(cells)
    made.index = index
    return made


def _is_one_of(value: Any, wanted: Any) -> bool:
    """Whether a value is the one that is wanted, or one of several."""
    if isinstance(wanted, np.ndarray) or hasattr(wanted, "to_numpy"):  # an array, a Series, an Index
        wanted = np.asarray(wanted).tolist()
    if isinstance(wanted, (list, tuple, set, frozenset, range)):
        return _equal(value, wanted) or any(_equal(value, one) for one in wanted)
    return _equal(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, np.ndarray) or isinstance(wanted, np.ndarray):
        return np.array_equal(value, wanted)
    return bool(value == wanted)
