"""Adding to a cache what was read, and keeping it small."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from cox.collection.blocks import RUNS_IN_BLOCK, Block, batched
from cox.collection.cache import INDEX_FILE, Cache, Fresh, place, segments
from cox.collection.cache import index as indexes
from cox.collection.cache.index import Entry, Index, ints
from cox.schema import Schema
from cox.storage import fs, layout

_log = logging.getLogger("cox")

#: A file that changed so short a time ago, in ns, may change again without looking different.
_SETTLED = 2_000_000_000
#: Bytes that a cache may take, in MiB, unless this variable says otherwise.
_LIMIT_VARIABLE, _LIMIT = "COX_CACHE_MB", 4096
#: A table is written anew in one piece when it has so many segments more than its runs fill, or when more of
#: the rows in them are outdated than not.
_MOST_PIECES = 8
#: A segment that no index knows may be of a reader that is just saving; after so many seconds it is not.
_ORPHAN_AFTER = 600.0


def save(folder: Path, fresh: Fresh, *, took: float) -> None:
    """Add what was read to a folder's cache. Whatever is in the way, it is left as it was.

    Args:
        folder: The folder of runs.
        fresh: What was read.
        took: How many seconds ago reading began.
    """
    directory = folder / layout.CACHE_DIR
    try:
        directory.mkdir(exist_ok=True)
        _Saving(folder, directory).save(fresh, took)
    except OSError as error:
        _log.debug("cache %s: not saved: %s", directory, error)


class _Saving:
    """Adds to the newest index there is, which another reader may have written since ours was loaded."""

    def __init__(self, folder: Path, directory: Path) -> None:
        self._directory = directory
        self._cache = Cache(folder)
        self._index: Index = self._cache.index
        self._entries = self._index.entries()
        self._before = {segment.file for segment in self._index.segments}
        self._head = {_key(schemas): at for at, schemas in enumerate(self._index.heads)}

    def save(self, fresh: Fresh, took: float) -> None:
        """Write the segments, then the index, then remove what it does not know."""
        for name in [name for name in self._entries if not (self._directory.parent / name).is_dir()]:
            del self._entries[name]
        self._tidy()
        settled = self._clock() - int(took * 1e9) - _SETTLED
        known = {name for name, state in fresh.states.items() if state.newest <= settled}
        for name in known:
            self._enter(name, fresh)
        for table, block in fresh.blocks:
            self._write(table, block, known)
        self._shrink()
        indexes.save(self._directory / INDEX_FILE, self._index, self._entries)
        self._sweep()

    def _clock(self) -> int:
        """The time by the clock of the folder's file system, in ns."""
        probe = fs.temporary_beside(self._directory / INDEX_FILE)
        try:
            fs.write_new(probe, b"")
            return probe.stat().st_mtime_ns
        finally:
            fs.unlink(probe)

    def _enter(self, name: str, fresh: Fresh) -> None:
        """Note a run's state."""
        if name in self._entries and self._entries[name].state == fresh.states[name]:
            return
        schemas = fresh.schemas[name]
        head = self._head.setdefault(_key(schemas), len(self._index.heads))
        if head == len(self._index.heads):
            self._index.heads.append(schemas)
            self._index.stored_heads.append(
                [(table, [(c.name, c.kind, c.nullable) for c in schema]) for table, schema in schemas.items()]
            )
        nrows = [fresh.nrows[name][table] for table in self._index.heads[head]]
        self._entries[name] = Entry(self._index.next_id, fresh.states[name], head, nrows)
        self._index.next_id += 1

    def _write(self, table: str, block: Block, known: set[str]) -> None:
        """Write the rows of those runs of a block that are known."""
        kept = np.array([name in known for name in block.names], dtype=np.bool_)
        if kept.any():
            part = block.part if kept.all() else block.part.take(np.repeat(kept, block.lengths))
            ids = [self._entries[name].id for name in block.names if name in known]
            made = segments.write(self._directory, table, block.schema, part, ids, block.lengths[kept])
            self._index.segments.append(made)

    def _tidy(self) -> None:
        """Write tables anew that lie in many pieces, or of which much is outdated."""
        index = self._index
        for table in {segment.table for segment in index.segments}:
            places = place(index, table)
            used = np.array([name in self._entries for name in index.names], dtype=np.bool_) & places.is_whole
            own = [segment for segment in index.segments if segment.table == table]
            rows = sum(int(ints(segment.lengths).sum()) for segment in own)
            pieces = _MOST_PIECES + int(used.sum()) // RUNS_IN_BLOCK
            if len(own) > pieces or rows > 2 * int(places.length[used].sum()):
                self._rewrite(table, own, [index.names[at] for at in np.flatnonzero(used).tolist()])

    def _rewrite(self, table: str, own: list[indexes.Segment], names: list[str]) -> None:
        found = self._cache.blocks(table, sorted(names), None)
        for segment in own:
            segment.drop()
        by_schema: dict[Schema, list[Block]] = {}
        for block in found or ():
            by_schema.setdefault(block.schema, []).append(block)
        for schema, blocks in by_schema.items():
            for whole in batched(blocks, schema):
                self._write(table, whole, set(whole.names))

    def _shrink(self) -> None:
        """Drop the oldest rows beyond the limit."""
        room = int(os.environ.get(_LIMIT_VARIABLE) or _LIMIT) * 1024 * 1024
        for segment in reversed(self._index.segments):
            room -= segment.size
            if room < 0:
                segment.drop()

    def _sweep(self) -> None:
        """Remove the segments that the index does not know any more."""
        known = {segment.file for segment in self._index.segments if segment.ids}
        now = (self._directory / INDEX_FILE).stat().st_mtime
        for path in self._directory.iterdir():
            if path.name in known or path.name == INDEX_FILE:
                continue
            if path.name in self._before or now - path.stat().st_mtime > _ORPHAN_AFTER:
                fs.unlink(path)


def _key(schemas: dict[str, Schema]) -> tuple[tuple[str, Schema], ...]:
    return tuple(schemas.items())
