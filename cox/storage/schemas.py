"""What columns the tables of a run have, of which each writer may have declared others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cox.errors import SchemaError
from cox.schema import Column, Schema
from cox.storage import layout

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


def rank_last(columns: list[Column], writer: str) -> list[Column]:
    """The columns as they are shown: of a rank's rows, those added later stand before `rank`."""
    if writer == layout.MAIN_WRITER:
        return columns
    return [
        *(column for column in columns if column != RANK),
        *(column for column in columns if column == RANK),
    ]


def with_rank(table: str, schema: Schema) -> Schema:
    """The columns of a table that a rank writes: `rank` is the last one.

    Raises:
        SchemaError: It has one of that name already, and of another type.
    """
    known = schema.get(layout.RANK_COLUMN)
    if known is not None and known.kind != RANK.kind:
        raise SchemaError(
            f"table {table!r}: the column {layout.RANK_COLUMN!r} is kept for the writers' rank, an int; "
            "rename yours"
        )
    return Schema([*(column for column in schema if column.name != layout.RANK_COLUMN), RANK])


def with_tail(values: tuple[Any, ...], tail: tuple[int, ...], declared: int) -> tuple[Any, ...]:
    """The cells of a row as they are journalled: `rank` stands before the columns that were added later.

    The row may have been made before the declaration, which a signal handler has widened since.
    """
    if not tail:
        return values
    return (*values[:declared], *(None,) * (declared - len(values)), *tail, *values[declared:])


def continues(known: Schema, new: Schema) -> bool:
    """Whether a script that declares `new` can go on with `known`, which may have got columns since.

    An OBJECT column takes any value: upstream inferred it for numbers of numpy, which are float or int here.
    """
    return known == new or (
        all(_takes(known.get(column.name), column) for column in new)
        and all(column.nullable for column in known if column.name not in new)
    )


def _takes(known: Column | None, new: Column) -> bool:
    if known == RANK:  # as ranks make it of a script's own
        return new.kind == RANK.kind
    return known == new or (known is not None and known.traits.in_cell and not new.traits.is_object)
