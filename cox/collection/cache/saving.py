"""Adding to a cache what was read, and keeping it small."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from cox.collection.blocks import BYTES_IN_BLOCK, RUNS_IN_BLOCK, Block, batched, bytes_of
from cox.collection.cache import Cache, Fresh, place, places, segments
from cox.collection.cache import index as indexes
from cox.collection.cache.files import INDEX_FILE, is_own
from cox.collection.cache.index import Entry, Index, ints
from cox.schema import Schema
from cox.storage import fs

_log = logging.getLogger("cox")

#: A file that changed so short a time ago, in ns, may change again without looking different.
_SETTLED = 2_000_000_000
#: The same, where the cache lies on another file system, whose clock may go otherwise.
_SETTLED_ELSEWHERE = 60_000_000_000
#: Bytes that a cache may take, in MiB, unless this variable says otherwise.
_LIMIT_VARIABLE, _LIMIT = "COX_CACHE_MB", 4096
#: Small segments of a table are joined when there are so many more than its runs fill and its schemas need.
_MOST_PIECES = 8
#: What is joined, or freed of outdated rows, at once, in bytes: it goes through memory.
_TIDIED_BYTES = 4 * BYTES_IN_BLOCK
#: A segment that no index knows may be of a reader that is just saving; after so many seconds it is not.
_ORPHAN_AFTER = 600.0


def save(folder: Path, fresh: Fresh, *, took: float) -> None:
    """Add what was read to a folder's cache. Whatever is in the way, it is left as it was.

    Args:
        folder: The folder of runs.
        fresh: What was read.
        took: How many seconds ago reading began.
    """
    try:
        directory = places.of_saving(folder)
        if directory is not None:
            _Saving(folder, directory).save(fresh, took)
    except (OSError, MemoryError) as error:
        _log.debug("cache of %s: not saved: %s", folder, error)


class _Saving:
    """Adds to the newest index there is, which another reader may have written since ours was loaded."""

    def __init__(self, folder: Path, directory: Path) -> None:
        self._folder, self._directory = folder, directory
        self._cache = Cache(folder)
        self._index: Index = self._cache.index
        self._entries = self._index.entries()
        #: Segments that are removed if the new index does not know them: whoever else may is just saving.
        self._own = {segment.file for segment in self._index.segments}
        self._written: list[str] = []
        self._limit = self._room = _limit()
        self._head = {_key(schemas): at for at, schemas in enumerate(self._index.heads)}

    def save(self, fresh: Fresh, took: float) -> None:
        """Write the segments, then the index, then remove what it does not know."""
        settled = self._clock() - int(took * 1e9) - self._patience()
        known = {
            name
            for name, state in fresh.states.items()
            if state.newest <= settled and indexes.can_hold(name, state)
        }
        if not known:
            return
        try:
            self._add(fresh, known)
            indexes.save(self._directory / INDEX_FILE, self._index, self._entries)
        except BaseException:
            for file in self._written:  # a disk that is full does not get fuller by being read
                with contextlib.suppress(OSError):
                    fs.unlink(self._directory / file)
            raise
        self._sweep()

    def _add(self, fresh: Fresh, known: set[str]) -> None:
        for name in [name for name in self._entries if not os.path.isdir(self._folder / name)]:  # noqa: PTH112 - never raises
            del self._entries[name]
        for name in sorted(known):
            self._enter(name, fresh)
        self._tidy()
        for table, block in fresh.blocks:
            self._write(table, block, known)
        self._shrink()

    def _patience(self) -> int:
        """How long ago a file must have changed, in ns; longer if the clock may not be that of its disk."""
        same = self._directory.stat().st_dev == self._folder.stat().st_dev
        return _SETTLED if same else _SETTLED_ELSEWHERE

    def _clock(self) -> int:
        """The time by the clock of the cache's file system, in ns."""
        probe = fs.temporary_beside(self._directory / INDEX_FILE)
        try:
            fs.write_new(probe, b"")
            return probe.stat().st_mtime_ns
        finally:
            fs.unlink(probe)

    def _enter(self, name: str, fresh: Fresh) -> None:
        """Note a run's state."""
        schemas = fresh.schemas[name]
        head = self._head.setdefault(_key(schemas), len(self._index.heads))
        if head == len(self._index.heads):
            self._index.heads.append(schemas)
            self._index.stored_heads.append(
                [(table, [(c.name, c.kind, c.nullable) for c in schema]) for table, schema in schemas.items()]
            )
        nrows = [fresh.nrows[name][table] for table in self._index.heads[head]]
        known = self._entries.get(name)
        entry = Entry(self._index.next_id, fresh.states[name], head, nrows, name in fresh.ranked)
        if known is None or replace(known, id=entry.id) != entry:
            self._entries[name] = entry
            self._index.next_id += 1

    def _write(self, table: str, block: Block, known: set[str]) -> None:
        """Write the rows of those runs of a block that are known."""
        kept = np.array([name in known for name in block.names], dtype=np.bool_)
        if not kept.any():
            return
        part = block.part if kept.all() else block.part.take(np.repeat(kept, block.lengths))
        if bytes_of(part) > self._room:
            return
        ids = [self._entries[name].id for name in block.names if name in known]
        try:
            made = segments.write(self._directory, table, block.schema, part, ids, block.lengths[kept])
        except UnicodeEncodeError as error:  # texts of some other program
            _log.debug("cache %s: table %r is not kept: %s", self._directory, table, error)
            return
        self._index.segments.append(made)
        self._written.append(made.file)
        self._room -= made.size

    def _tidy(self) -> None:
        """Join small segments where there are many, and write those anew of which much is outdated."""
        index, left = self._index, _TIDIED_BYTES
        ids = [self._entries[name].id if name in self._entries else -1 for name in index.names]
        valid = index.ids == np.array(ids, dtype=np.int64)
        for table in sorted({segment.table for segment in index.segments}):
            places = place(index, table)
            used = places.is_whole & (places.segment >= 0) & valid
            live = np.bincount(places.segment[used], places.length[used], minlength=len(index.segments))
            own = [at for at, segment in enumerate(index.segments) if segment.table == table]
            small = [at for at in own if index.segments[at].size < BYTES_IN_BLOCK // 2]
            kinds = len({tuple(index.segments[at].columns) for at in own})
            if len(small) <= _MOST_PIECES + kinds + int(used.sum()) // RUNS_IN_BLOCK:
                small = []
            todo = []
            for at in own:
                rows = int(ints(index.segments[at].lengths).sum())
                if left > 0 and (rows > 2 * live[at] or at in small):
                    left -= index.segments[at].size if live[at] else 0
                    todo.append(at)
            among = np.flatnonzero(used & np.isin(places.segment, todo)).tolist()
            self._rewrite(table, [index.segments[at] for at in todo], [index.names[at] for at in among])

    def _rewrite(self, table: str, old: list[indexes.Segment], names: list[str]) -> None:
        found = self._cache.blocks(table, sorted(names), None)
        for segment in old:
            segment.drop()
        by_schema: dict[Schema, list[Block]] = {}
        for block in found or ():
            by_schema.setdefault(block.schema, []).append(block)
        for schema, blocks in by_schema.items():
            for whole in batched(blocks, schema):
                self._write(table, whole, set(whole.names))

    def _shrink(self) -> None:
        """Drop the oldest rows beyond the limit."""
        room = self._limit
        for segment in reversed(self._index.segments):
            if segment.size > room:
                segment.drop()
            elif segment.ids:
                room -= segment.size

    def _sweep(self) -> None:
        """Remove the segments that the index does not know any more, and what a killed reader left."""
        known = {segment.file for segment in self._index.segments if segment.ids} | {INDEX_FILE}
        now = (self._directory / INDEX_FILE).stat().st_mtime
        for path in self._directory.iterdir():
            if path.name in known or not is_own(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another reader sweeps, too
                ours = path.name in self._own or path.name in self._written
                if ours or now - path.lstat().st_mtime > _ORPHAN_AFTER:
                    fs.unlink(path)


def _limit() -> int:
    """Bytes that the cache may take."""
    given = os.environ.get(_LIMIT_VARIABLE) or str(_LIMIT)
    try:
        return int(float(given) * 1024 * 1024)
    except (ValueError, OverflowError):
        _log.warning("%s=%r is no number of MiB: the limit is %s", _LIMIT_VARIABLE, given, _LIMIT)
        return _LIMIT * 1024 * 1024


def _key(schemas: dict[str, Schema]) -> tuple[tuple[str, Schema], ...]:
    return tuple(schemas.items())
