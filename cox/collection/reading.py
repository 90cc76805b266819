"""The rows of a folder's runs: from the cache where they did not change since, else from the runs' files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from cox import progress
from cox.collection.blocks import BYTES_IN_BLOCK, Block, batched, bytes_of
from cox.collection.cache import Cache, Fresh
from cox.collection.cache.saving import save
from cox.schema import Schema
from cox.storage import layout, snapshot
from cox.storage.columns import join
from cox.storage.scan import State, state_of

#: So many runs, or bytes of rows, are worth keeping: a folder of a few small runs gets no cache.
_WORTH_RUNS = 30
_WORTH_BYTES = 16 * 1024 * 1024

#: Reads a run, and decides what becomes of one that cannot be read: None leaves it out.
Guard = Callable[[str, Callable[[], Any]], Any]


@dataclass(slots=True)
class Rows:
    """A table of many runs.

    Attributes:
        blocks: The rows, in the order of the runs that were asked for.
        schemas: The tables of each run that could be read, those without rows included. Not to be changed.
        ranked: The runs that ranks wrote: their column `rank` is not the user's.
    """

    blocks: list[Block] = field(default_factory=list)
    schemas: dict[str, dict[str, Schema]] = field(default_factory=dict)
    ranked: set[str] = field(default_factory=set)


class Folder:
    """The runs of one folder, read as of now and no more often than needed.

    Args:
        path: The folder.
        cache: Whether to keep what is read beside them: None for where it pays.
    """

    def __init__(self, path: Path, *, cache: bool | None) -> None:
        self.path = path
        self._cache = cache

    def read(
        self,
        names: Sequence[str],
        guard: Guard,
        *,
        table: str | None = None,
        columns: frozenset[str] | None = None,
    ) -> Rows:
        """Read one table of some runs, or only which tables they have.

        Args:
            names: The runs, as paths in the folder, in the order in which their rows are wanted.
            guard: Called for every run that is read from its files.
            table: The table. Runs that do not have it have no block.
            columns: The columns that are wanted; None for all. Blocks may have others, too.
        """
        started = time.monotonic()
        cache = Cache(None if self._cache is False else self.path)
        reading = _Reading(self.path, names, guard, table, columns, cache)
        rows = reading.read()
        worth = reading.is_worth_keeping if self._cache is None else self._cache
        if worth and reading.fresh.states:
            save(self.path, reading.fresh, took=time.monotonic() - started)
        return rows


class _Reading:
    """One reading of a folder."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        guard: Guard,
        table: str | None,
        columns: frozenset[str] | None,
        cache: Cache,
    ) -> None:
        self.fresh = Fresh()
        self._bytes = 0
        self._cache, self._folder, self._names, self._guard = cache, folder, names, guard
        self._table, self._columns = table, columns
        self._schemas: dict[str, dict[str, Schema]] = {}
        self._ranked: set[str] = set()
        self._pending: list[Block] = []
        self._pending_bytes = 0

    @property
    def is_worth_keeping(self) -> bool:
        """Whether so much was read from files that it is not to be read from there again."""
        return len(self.fresh.states) >= _WORTH_RUNS or self._bytes >= _WORTH_BYTES

    def read(self) -> Rows:
        """All of it."""
        changed = self._changed()
        bar = progress.shown(changed.items(), len(changed), "reading")
        blocks: list[Block] = []
        for cached, group in groupby(self._names, key=lambda name: name not in changed):
            names = list(group)
            found = self._from_cache(names) if cached else None
            if found is not None:
                blocks += self._joined()
                blocks += found
                continue
            todo = ((name, self._cache.states.get(name)) for name in names) if cached else bar
            for _, (name, state) in zip(names, todo, strict=False):
                blocks += self._from_files(name, state)
        blocks += self._joined()
        next(bar, None)  # it goes
        schemas = {name: self._schemas[name] for name in self._names if name in self._schemas}
        return Rows(blocks, schemas, self._ranked)

    def _changed(self) -> dict[str, State | None]:
        """The runs that the cache does not have as they are now, with their state if there is one."""
        changed: dict[str, State | None] = {}
        states = self._cache.states
        there = states.keys() if self._table is None else self._cache.with_rows(self._table)
        prefix = os.fspath(self._folder)
        for name in self._names:
            known = states.get(name)
            try:
                state = state_of(f"{prefix}/{name}", known)
            except OSError:
                state = None  # reading it says what is the matter
            if state is None or state != known or name not in there:
                changed[name] = state
        return changed

    def _from_cache(self, names: list[str]) -> list[Block] | None:
        found = [] if self._table is None else self._cache.blocks(self._table, names, self._columns)
        if found is not None:
            self._schemas.update((name, self._cache.schemas(name)) for name in names)
            self._ranked |= self._cache.index.ranked.intersection(names)
        return found

    def _from_files(self, name: str, state: State | None) -> list[Block]:
        """Read a run. Returns the rows before it, if they were waiting for more of their kind."""
        now = self._guard(name, partial(self._snapshot, name))
        if now is None:
            return []
        schemas = self._schemas[name] = {table: data.schema for table, data in now.tables.items()}
        if now.is_ranked:
            self._ranked.add(name)
        if state is not None and not now.damage:
            self.fresh.states[name], self.fresh.schemas[name] = state, schemas
            self.fresh.nrows[name] = {table: now.content.nrows[table] for table in schemas}
            if now.is_ranked:
                self.fresh.ranked.add(name)
        data = None if self._table is None else now.tables.get(self._table)
        if data is None or not data.nrows:
            return []
        block = Block(data.schema, join(data.parts, data.schema), [name], np.array([data.nrows]))
        before = []
        if self._pending and (
            self._pending[0].schema != block.schema or self._pending_bytes > BYTES_IN_BLOCK
        ):
            before = self._joined()
        self._pending.append(block)
        size = bytes_of(block.part)
        self._pending_bytes += size
        self._bytes += size
        return before

    def _snapshot(self, name: str) -> snapshot.Snapshot:
        wanted = () if self._table is None else (self._table,)
        now = snapshot.read(
            layout.RunLayout(self._folder / name), tables=wanted, rows=self._table is not None
        )
        now.warn(name)
        return now

    def _joined(self) -> list[Block]:
        """The rows that were read and wait for more of their kind."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if not pending or self._table is None:
            return []
        made = list(batched(pending, pending[0].schema))
        self.fresh.blocks += [(self._table, block) for block in made]
        return made
