"""Whose rows are whose: of the sole writer, of a rank, or of nobody who is known.

A store file says how many rows of each table a writer has; which of them these are, its column `rank` says
where ranks wrote the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cox.storage import layout
from cox.storage.columns import Part, TableData, mask_of
from cox.storage.hdf5.content import StoreFile
from cox.storage.schemas import RANK


def recount(content: StoreFile) -> None:
    """Count the rows of each writer anew, where some of those in the store file are lost."""
    for writer, state in content.writers.items():
        for name in state["rows"]:
            table = content.tables.get(name)
            own = [] if table is None else own_by_part(table, writer, ranked=has_ranks(content, name))
            state["rows"][name] = sum(int(mask.sum()) for mask in own)


def own_rows(content: StoreFile, writer: str) -> dict[str, int]:
    """How many rows of each table are a writer's. In a file that does not say, all are the sole one's."""
    if writer in content.writers:
        return dict(content.writers[writer]["rows"])
    if content.writers or writer != layout.MAIN_WRITER:
        return {}
    return dict(content.nrows)


def uncounted_rows(content: StoreFile) -> dict[str, int]:
    """How many rows of each table no writer has written: another program appended them to the store file."""
    if not content.writers:
        return {}
    counted = {name: sum(w["rows"].get(name, 0) for w in content.writers.values()) for name in content.nrows}
    return {name: rows - counted[name] for name, rows in content.nrows.items() if rows > counted[name]}


def adopt_rows(content: StoreFile) -> bool:
    """Count such rows as the sole writer's. Returns whether there are any."""
    uncounted = uncounted_rows(content)
    rows = content.writers.setdefault(layout.MAIN_WRITER, {"seq": 0, "rows": {}})["rows"] if uncounted else {}
    for name, more in uncounted.items():
        rows[name] = rows.get(name, 0) + more
    return bool(uncounted)


def without_rank(part: Part) -> Part:
    """The part with the column `rank` missing."""
    if layout.RANK_COLUMN not in part.values:
        return part  # the very same: it need not be written anew
    values, missing = dict(part.values), dict(part.missing)
    values.pop(layout.RANK_COLUMN, None)
    missing.pop(layout.RANK_COLUMN, None)
    return Part(part.nrows, values, missing)


def cut_rows(content: StoreFile, name: str, writer: str, keep: int, *, gone: int) -> None:
    """Drop a writer's rows of a table but the first `keep`, which are `gone` fewer than there were."""
    table = content.tables.get(name)
    if table is None:
        return
    content.nrows[name] -= gone
    ranked = writer != layout.MAIN_WRITER or has_ranks(content, name)  # also where no row of it is left
    own_in_parts = own_by_part(table, writer, ranked=ranked)
    there = sum(int(own.sum()) for own in own_in_parts)
    # of a damaged file rows may be lost, nobody knows which: better one more goes than one comes back
    left, parts = max(0, min(keep, there - gone)), []
    for part, own in zip(table.parts, own_in_parts, strict=True):
        parts.append(part.take(~own | (np.cumsum(own) <= left)))
        left -= min(left, int(own.sum()))
    table.parts = [part for part in parts if part.nrows]


def has_ranks(content: StoreFile, table: str) -> bool:
    """Whether a table has rows of ranks."""
    states = content.writers.items()
    return any(name != layout.MAIN_WRITER and state["rows"].get(table, 0) > 0 for name, state in states)


def own_by_part(table: TableData, writer: str, *, ranked: bool) -> list[Any]:
    """For each part of a table, which of its rows a writer wrote. If `ranked`, ranks have rows of it."""
    # a table without them may have a column of that very name and type all the same
    ranked = ranked and table.schema.get(layout.RANK_COLUMN) == RANK
    return [_rows_of(part, writer, ranked=ranked) for part in table.parts]


def _rows_of(part: Part, writer: str, *, ranked: bool) -> Any:
    """Which of a part's rows a writer wrote: a boolean array of shape (nrows,)."""
    rank = layout.rank_of(writer)
    if not ranked or layout.RANK_COLUMN not in part.values:
        return np.full(part.nrows, rank is None)
    missing = mask_of(part, layout.RANK_COLUMN)
    return missing if rank is None else ~missing & (part.values[layout.RANK_COLUMN] == rank)
