"""Rows of many runs in few pieces, one kind of table at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cox.schema import Schema
from cox.storage.columns import Array, Part, join

#: About so many runs, or bytes of rows, make one piece.
RUNS_IN_BLOCK = 2000
BYTES_IN_BLOCK = 64 * 1024 * 1024


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


def bytes_of(part: Part) -> int:
    """Bytes of rows, about: texts that are objects count as so many references."""
    return sum(values.nbytes for values in part.values.values())


def batched(blocks: Iterable[Block], schema: Schema) -> Iterator[Block]:
    """Blocks of one schema, joined to some of about `RUNS_IN_BLOCK` runs or `BYTES_IN_BLOCK` bytes."""
    pending: list[Block] = []
    runs = nbytes = 0
    for block in blocks:
        pending.append(block)
        runs, nbytes = runs + len(block.names), nbytes + bytes_of(block.part)
        if runs >= RUNS_IN_BLOCK or nbytes >= BYTES_IN_BLOCK:
            yield joined(pending, schema)
            pending, runs, nbytes = [], 0, 0
    if pending:
        yield joined(pending, schema)


def joined(blocks: Sequence[Block], schema: Schema) -> Block:
    """Blocks of one schema as one."""
    if len(blocks) == 1:
        return blocks[0]
    names = [name for block in blocks for name in block.names]
    lengths = np.concatenate([block.lengths for block in blocks])
    return Block(schema, join([block.part for block in blocks], schema), names, lengths)
