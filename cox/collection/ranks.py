"""The rows of a run that several ranks wrote, in an order that does not depend on who closed last."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

import numpy as np

from cox.collection.blocks import Block
from cox.steps import candidates
from cox.storage.columns import Array, mask_of, values_of
from cox.storage.schemas import RANK


def in_order(blocks: Iterable[Block], ranked: Container[str]) -> Iterator[Block]:
    """The same rows, those of each ranked run such that its last row is its last one, whoever closed last.

    By step, where there is a column that counts steps; of one step the lowest rank comes last. Without such a
    column the rows of the lowest rank come last. Rows of a sole writer, from before there were ranks, count
    as rank 0's.

    Args:
        blocks: The rows, with the columns of rank and step. Blocks without ranked runs stay as they are.
        ranked: The runs that ranks wrote.
    """
    for block in blocks:
        is_ranked = _is_ranked(block, ranked)
        if not is_ranked.any():
            yield block
            continue
        run = np.repeat(np.arange(len(block.names)), block.lengths)
        applies = np.repeat(is_ranked, block.lengths)
        rank = np.where(applies, _ranks(block), 0)
        step = np.where(applies, _steps(block), -np.inf)
        order = np.lexsort((np.arange(len(run)), -rank, step, run))
        yield Block(block.schema, block.part.take(order), block.names, block.lengths)


def first_rows(block: Block, ranked: Container[str]) -> Array:
    """The numbers of the rows that are first in their run, of shape (runs,): of ranks, the lowest one's."""
    starts: Array = np.cumsum(block.lengths) - block.lengths
    is_ranked = _is_ranked(block, ranked)
    if not is_ranked.any():
        return starts
    rank = _ranks(block)
    for i in np.flatnonzero(is_ranked).tolist():
        starts[i] += int(rank[starts[i] : starts[i] + block.lengths[i]].argmin())
    return starts


def last_rows(block: Block) -> Array:
    """The numbers of the rows that are last in their run, of shape (runs,)."""
    ends: Array = np.cumsum(block.lengths) - 1
    return ends


def _is_ranked(block: Block, ranked: Container[str]) -> Array:
    if RANK not in block.schema.columns:
        return np.zeros(len(block.names), dtype=np.bool_)
    return np.array([name in ranked for name in block.names], dtype=np.bool_)


def _ranks(block: Block) -> Array:
    ranks: Array = np.where(mask_of(block.part, RANK.name), 0, values_of(block.part, RANK))
    return ranks


def _steps(block: Block) -> Array:
    """The step of each row, -inf where there is none."""
    for name in candidates(block.schema.names()):
        column = block.schema.get(name)
        if column is not None and column.traits.is_measure:
            steps = values_of(block.part, column).astype(np.float64)
            return np.where(mask_of(block.part, name) | np.isnan(steps), -np.inf, steps)
    return np.full(block.part.nrows, -np.inf)
