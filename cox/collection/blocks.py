"""Rows of many runs in few pieces, one kind of table at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cox.schema import Schema
from cox.storage.columns import Array, Part, join

#: About so many runs make one piece.
RUNS_IN_BLOCK = 2000


@dataclass(slots=True)
class Block:
    """Rows of one table, of some runs one behind the other.

    Attributes:
        schema: The columns, the same in all of these runs.
        part: The rows.
        names: The runs. Each has a row at least.
        lengths: How many rows each has, of shape (len(names),).
    """

    schema: Schema
    part: Part
    names: list[str]
    lengths: Array


def batched(blocks: Iterable[Block], schema: Schema) -> Iterator[Block]:
    """Blocks of one schema, joined to some of about `RUNS_IN_BLOCK` runs."""
    pending: list[Block] = []
    runs = 0
    for block in blocks:
        pending.append(block)
        runs += len(block.names)
        if runs >= RUNS_IN_BLOCK:
            yield joined(pending, schema)
            pending, runs = [], 0
    if pending:
        yield joined(pending, schema)


def joined(blocks: Sequence[Block], schema: Schema) -> Block:
    """Blocks of one schema as one."""
    if len(blocks) == 1:
        return blocks[0]
    names = [name for block in blocks for name in block.names]
    lengths = np.concatenate([block.lengths for block in blocks])
    return Block(schema, join([block.part for block in blocks], schema), names, lengths)
