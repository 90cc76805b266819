"""What columns the tables of several writers have together, and values in the types that these need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cox.schema import Column, Schema
from cox.storage import layout
from cox.storage.columns import Array, Part, is_text, values_of

#: The column that tells ranks apart; a user's own column of that name is declared otherwise.
RANK = Column(layout.RANK_COLUMN, "int", nullable=True)


def merge_schemas(old: Schema, columns: Iterable[Column]) -> Schema:
    """The columns of both, the writers' `rank` last.

    Writers that disagree about a column's type get the wider one: numbers as float, else text.
    """
    columns = list(columns)
    merged = {column.name: column for column in old}
    for column in columns:
        known = merged.get(column.name, column)
        kind = known.kind
        if known.kind != column.kind:
            kind = "float" if known.traits.is_number and column.traits.is_number else "str"
        merged[column.name] = Column(column.name, kind, known.nullable or column.nullable)
    # not last where it is declared: then it is a column of the user's own
    stays = any(column.name == layout.RANK_COLUMN for column in columns[:-1])
    if merged.get(layout.RANK_COLUMN) == RANK and not stays:
        merged[layout.RANK_COLUMN] = merged.pop(layout.RANK_COLUMN)
    made = Schema(merged.values())
    return old if made == old else made


def of_other_kind(before: Schema, after: Schema) -> list[tuple[Column, Column]]:
    """The columns of both that are of another kind in `after`."""
    pairs = ((known, after.get(known.name)) for known in before)
    return [(known, column) for known, column in pairs if column is not None and column.kind != known.kind]


def widened(part: Part, before: Schema, after: Schema) -> Part:
    """The part with its values in the kinds of `after`, where they are other than those of `before`."""
    changed: dict[str, Array] = {}
    for known, column in of_other_kind(before, after):
        if column.name not in part.values:
            continue
        values = values_of(part, known)
        if is_text(column):
            made = np.empty(part.nrows, dtype=object)
            made[:] = [str(value) for value in values.tolist()]
            changed[column.name] = made
        else:
            changed[column.name] = values.astype(np.float64)
    return Part(part.nrows, part.values | changed, part.missing) if changed else part


def rank_last(columns: list[Column], writer: str) -> list[Column]:
    """The columns as they are shown: of a rank's rows, those added later stand before `rank`."""
    if writer == layout.MAIN_WRITER:
        return columns
    return [
        *(column for column in columns if column != RANK),
        *(column for column in columns if column == RANK),
    ]
