"""The rows of a folder's runs: from the cache where they did not change since, else from the runs' files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cox import progress
from cox.collection.blocks import BYTES_IN_BLOCK, Block, batched, bytes_of
from cox.collection.cache import Cache, Fresh
from cox.collection.cache.saving import save
from cox.schema import Schema
from cox.storage import layout, snapshot
from cox.storage.columns import Part, join
from cox.storage.scan import State, state_of

#: So many runs, or bytes of rows, are worth keeping: a folder of a few small runs gets no cache.
_WORTH_RUNS = 30
_WORTH_BYTES = 16 * 1024 * 1024

#: Reads a run, and decides what becomes of one that cannot be read: None leaves it out.
Guard = Callable[[str, Callable[[], Any]], Any]


class Look(NamedTuple):
    """What a run had when its files were read first. A later look into them is taken back to this.

    Attributes:
        schemas: Its tables. Not to be changed.
        nrows: How many rows each has. Not to be changed.
        writers: How many rows of each table each writer wrote, if ranks wrote it.
    """

    schemas: dict[str, Schema]
    nrows: dict[str, int]
    writers: dict[str, dict[str, int]] | None = None

    @classmethod
    def at(cls, now: snapshot.Snapshot, other: Look | None = None) -> Look:
        """Note what a run has. What is the same in another look is not kept twice."""
        schemas = {table: data.schema for table, data in now.tables.items()}
        nrows = {table: now.content.nrows[table] for table in schemas}
        if other is not None:
            schemas = other.schemas if schemas == other.schemas else schemas
            nrows = other.nrows if nrows == other.nrows else nrows
        if not now.is_ranked:
            return cls(schemas, nrows)
        writers = now.content.writers.items()
        return cls(schemas, nrows, {name: dict(state["rows"]) for name, state in writers})

    @property
    def is_ranked(self) -> bool:
        """Whether ranks wrote it."""
        return self.writers is not None

    def restore(self, now: snapshot.Snapshot) -> None:
        """Take from a run what was added to it since. What a rewind dropped since does not come back."""
        if now.is_ranked:
            writers = {layout.MAIN_WRITER: self.nrows} if self.writers is None else self.writers
            for writer in list(now.content.writers):
                for table in now.tables:
                    now.rewind(table, writer, writers.get(writer, {}).get(table, 0))
        for table in [table for table in now.tables if table not in self.schemas]:
            del now.tables[table]
        for table, schema in self.schemas.items():
            if table in now.tables:
                data, names = now.tables[table], set(schema.names())
                data.schema = Schema(column for column in data.schema if column.name in names)
                data.parts = list(_first(data.parts, self.nrows[table]))


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


def _first(parts: Iterable[Part], count: int) -> Iterator[Part]:
    """The first rows of some parts, so many in all."""
    for part in parts:
        if count > 0:
            yield part if part.nrows <= count else part.take(slice(count))
            count -= part.nrows


class Folder:
    """The runs of one folder at one moment, which for each is when it is looked at first.

    However often it is read, the index of the cache is loaded once, and the state of each run is asked once.

    Args:
        path: The folder.
        cache: Whether to keep what is read beside them: None for where it pays.
    """

    def __init__(self, path: Path, *, cache: bool | None) -> None:
        self.path = path
        self._keeps = cache
        self._cache: Cache | None = None
        self._started = 0.0
        #: Whether something was said of its runs already.
        self.was_read = False
        self._states: dict[str, State] = {}
        #: Runs whose files were read; None for those that were left out.
        self._looks: dict[str, Look | None] = {}

    @property
    def cache(self) -> Cache:
        """What is kept, as it was when it was asked for first."""
        if self._cache is None:
            self._started = time.monotonic()
            self._cache = Cache(None if self._keeps is False else self.path)
        return self._cache

    def state(self, name: str) -> State:
        """The state of a run before anything of it was read.

        Raises:
            OSError: The file system refused to look.
        """
        state = self._states.get(name)
        if state is None:
            known = self.cache.states.get(name)
            state = self._states[name] = state_of(f"{os.fspath(self.path)}/{name}", known)
        return state

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
        reading = _Reading(self, self._looks, names, guard, table, columns)
        rows = reading.read()
        self.was_read = True
        worth = reading.is_worth_keeping if self._keeps is None else self._keeps
        if worth and reading.fresh.states:
            save(self.path, reading.fresh, took=time.monotonic() - self._started)
        self.cache.forget_rows()
        return rows


class _Reading:
    """One reading of a folder."""

    def __init__(
        self,
        folder: Folder,
        looks: dict[str, Look | None],
        names: Sequence[str],
        guard: Guard,
        table: str | None,
        columns: frozenset[str] | None,
    ) -> None:
        self.fresh = Fresh()
        self._bytes = 0
        self._folder, self._looks, self._names, self._guard = folder, looks, names, guard
        self._cache, self._is_later = folder.cache, folder.was_read
        self._table, self._columns = table, columns
        self._schemas: dict[str, dict[str, Schema]] = {}
        self._ranked: set[str] = set()
        self._latest: Look | None = None
        self._pending: list[Block] = []
        self._pending_bytes = 0

    @property
    def is_worth_keeping(self) -> bool:
        """Whether so much was read from files that it is not to be read from there again."""
        return len(self.fresh.states) >= _WORTH_RUNS or self._bytes >= _WORTH_BYTES

    def read(self) -> Rows:
        """All of it."""
        changed = self._changed()
        self._take_looks_from_cache(
            [name for name, state in changed.items() if state and state == self._cache.states.get(name)]
        )
        bar = progress.shown(changed.items(), len(changed), "reading")
        blocks: list[Block] = []
        for cached, group in groupby(self._names, key=lambda name: name not in changed):
            names = list(group)
            found = self._from_cache(names) if cached else None
            if found is not None:
                blocks += [*self._joined(), *found]
                continue
            if cached:  # the rows are gone
                self._take_looks_from_cache(names)
            todo = ((name, self._cache.states.get(name)) for name in names) if cached else bar
            for _, (name, state) in zip(names, todo, strict=False):
                blocks += self._from_files(name, state)
        blocks += self._joined()
        next(bar, None)  # it goes
        return Rows(blocks, self._schemas, self._ranked)

    def _changed(self) -> dict[str, State | None]:
        """The runs that the cache does not have as they are now, with their state if there is one."""
        changed: dict[str, State | None] = {}
        states = self._cache.states
        there = states.keys() if self._table is None else self._cache.with_rows(self._table)
        for name in self._names:
            try:
                state = self._folder.state(name)
            except OSError:
                state = None  # reading it says what is the matter
            if state is None or state != states.get(name) or name not in there:
                changed[name] = state
        return changed

    def _from_cache(self, names: list[str]) -> list[Block] | None:
        found = [] if self._table is None else self._cache.blocks(self._table, names, self._columns)
        if found is not None:
            self._schemas.update((name, self._cache.schemas(name)) for name in names)
            self._ranked |= self._cache.index.ranked.intersection(names)
        return found

    def _take_looks_from_cache(self, names: list[str]) -> None:
        """See runs whose rows are not in the cache as it said before that they are.

        It does not say how many rows each rank has, so that those of ranks are seen as they are now.
        """
        if not self._is_later:
            return
        ranked = self._cache.index.ranked
        nrows = self._cache.nrows([name for name in names if name not in ranked and name not in self._looks])
        self._looks.update((name, Look(self._cache.schemas(name), own)) for name, own in nrows.items())

    def _from_files(self, name: str, state: State | None) -> list[Block]:
        """Read a run. Returns the rows before it, if they were waiting for more of their kind."""
        now = self._now(name, state)
        data = None if now is None or self._table is None else now.tables.get(self._table)
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

    def _now(self, name: str, state: State | None) -> snapshot.Snapshot | None:
        """Read a run, as it was when it was looked at first, and note what it has; None for no rows."""
        look = self._looks.get(name)
        if look is not None and not (self._table and look.nrows.get(self._table)):
            self._note(name, look, look.schemas)
            return None
        if look is None and name in self._looks:  # it was left out
            return None
        now: snapshot.Snapshot | None = self._guard(name, partial(self._snapshot, name))
        if now is None:
            self._looks.setdefault(name, None)
            return None
        latest = self._latest = Look.at(now, self._latest)
        if look is None:
            look = self._looks[name] = latest
        if latest == look:
            self._note(name, look, look.schemas)
            self._keep(name, look, None if now.damage else state)
        else:
            look.restore(now)
            self._note(name, look, look.schemas | Look.at(now).schemas)
        return now

    def _note(self, name: str, look: Look, schemas: dict[str, Schema]) -> None:
        self._schemas[name] = schemas
        if look.is_ranked:
            self._ranked.add(name)

    def _keep(self, name: str, look: Look, state: State | None) -> None:
        if state is None:
            return
        self.fresh.states[name], self.fresh.schemas[name] = state, look.schemas
        self.fresh.nrows[name] = look.nrows
        if look.is_ranked:
            self.fresh.ranked.add(name)

    def _snapshot(self, name: str) -> snapshot.Snapshot:
        wanted = () if self._table is None else (self._table,)
        now = snapshot.read(
            layout.RunLayout(self._folder.path / name), tables=wanted, rows=self._table is not None
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
