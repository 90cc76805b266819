"""Whether the reader that was written from docs/FORMAT.md alone reads what cox reads."""

from __future__ import annotations

import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cox.errors import DamageWarning
from cox.storage import layout, snapshot
from tests.compat import independent_reader

#: A table's columns with kind and whether they may be missing, and its rows.
Contents = tuple[dict[str, tuple[str, bool]], list[tuple[Any, ...]]]


def assert_readers_agree(run: Path) -> dict[str, Contents]:
    """Read a run, which may be damaged, with both readers; return what each of them sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        independent, ours = read_independently(run), read_with_cox(run)
    assert list(independent) == list(ours), "tables"
    for name, (columns, rows) in independent.items():
        assert list(columns.items()) == list(ours[name][0].items()), f"columns of {name!r}"
        assert rows == ours[name][1], f"table {name!r}"
    return independent


def read_independently(run: Path) -> dict[str, Contents]:
    """What the independent reader reads. A table that has no rows is no part of a run, and is left out."""
    contents: dict[str, Contents] = {}
    for name, table in sorted(independent_reader.read(run).items()):
        rows = [tuple(exact(row.get(column)) for column in table.columns) for _, _, row in table.rows]
        if rows:
            contents[name] = table.columns, rows
    return contents


def read_with_cox(run: Path) -> dict[str, Contents]:
    """What cox reads, with every missing cell told from one that holds nan."""
    contents: dict[str, Contents] = {}
    for name, table in sorted(snapshot.read(layout.RunLayout(run)).tables.items()):
        columns = {column.name: (column.kind, column.nullable) for column in table.schema}
        cells = []
        for column in table.schema:
            values, missing = table.column(column)
            gone = np.zeros(len(values), bool) if missing is None else missing
            cells.append([None if m else exact(v) for v, m in zip(values.tolist(), gone, strict=True)])
        if table.nrows:
            contents[name] = columns, list(zip(*cells, strict=True))
    return contents


def exact(value: Any) -> Any:
    """A value so that equal means the same type and the same bits; None stays None."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return value if value is None else (type(value), value)
