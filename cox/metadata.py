"""The parameters of a run: the first row of its table `metadata`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox import objects
from cox.schema import Column, shown
from cox.storage import layout

if TYPE_CHECKING:
    from cox.storage.columns import TableData

#: The table, unless told otherwise.
METADATA = "metadata"
#: Of `cox.utils.Parameters` a schema makes one column of this name, which holds all of them.
_ALL_IN_ONE = "params"
#: How many values of a parameter a message tells.
_MOST_TOLD = 20


def first_row(table: TableData) -> dict[str, tuple[Column, Any]]:
    """The columns of a table's first row and its cells, objects still as they are stored; None is missing."""
    first = {}
    for column in table.schema:
        values, missing = table.column(column)
        is_missing = missing is not None and bool(missing[0])
        first[column.name] = (column, None if is_missing else values[:1].tolist()[0])
    return first


def decoded(column: Column, cell: Any, run: layout.RunLayout, trust: objects.Trust, where: str) -> Any:
    """A cell as the object that it stands for.

    Args:
        column: Its column.
        cell: The cell.
        run: Its run.
        trust: Which of the run's objects may be rebuilt.
        where: For the error.

    Raises:
        UntrustedObjectError: Nobody vouched for it.
    """
    if cell is None:
        return None
    if column.kind == "object":
        return objects.from_text(cell, trust, where)
    if column.kind == "pickle":
        return objects.read_pickle(run.objects_dir / Path(cell).name, trust, where)
    return cell


def parameters(
    table: TableData | None, run: layout.RunLayout, trust: objects.Trust, *, is_ranked: bool = False
) -> dict[str, Any]:
    """The parameters of a run, without objects that nobody vouched for; empty if it has no row of them.

    Args:
        table: Its metadata, if there are any.
        run: The run.
        trust: Which of its objects may be rebuilt.
        is_ranked: Whether the column `rank` tells who wrote the row, and is no parameter.
    """
    if table is None or not table.nrows:
        return {}
    values = {}
    for name, (column, cell) in first_row(table).items():
        if not (is_ranked and name == layout.RANK_COLUMN):
            with contextlib.suppress(Exception):  # its class is gone, or is not what it was
                values[name] = decoded(column, cell, run, trust, name)
    return unfolded(values)


def unfolded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, also where one column holds all of them."""
    inner = values.get(_ALL_IN_ONE)
    if isinstance(inner, dict) and all(isinstance(name, str) for name in inner):
        return {name: value for name, value in values.items() if name != _ALL_IN_ONE} | inner
    return dict(values)


def values_told(found: Collection[Mapping[str, Any]], params: Iterable[str]) -> str:
    """Which values some parameters have, for a message: `lr: 0.1 (2 runs), 1.0; arch: 'vgg'`."""
    told = []
    for param in dict.fromkeys(params):
        counts = Counter(shown(values.get(param)) for values in found)
        seen = [text + (f" ({runs} runs)" if runs > 1 else "") for text, runs in counts.items()]
        more = f" and {len(seen) - _MOST_TOLD} more" if len(seen) > _MOST_TOLD else ""
        told.append(f"{param}: {', '.join(seen[:_MOST_TOLD])}{more}")
    return "; ".join(told)
