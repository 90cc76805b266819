"""What was read of a folder's runs, kept beside them, so that a second reading touches only what changed.

Everything here is disposable: a cache that is missing, damaged, outdated or unwritable costs time, never
an answer. An index says in which state each run was when it was read, and where the rows of its tables lie:
in segments, each with rows of one table of many runs, column by column. Segments are written once and never
changed. Readers that save at once overwrite each other's index, and runs that only the other one knew are
read again.

Whoever may write to the folder of runs may put anything in the place of these files, or of their directory.
So only what is this user's, in a directory that nobody else may write to, is believed (see `places`), and
nothing is removed that is not named as a cache's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cox.collection.blocks import Block
from cox.collection.cache import index as indexes
from cox.collection.cache import places, segments
from cox.collection.cache.files import INDEX_FILE, is_own
from cox.collection.cache.index import Index, ints
from cox.schema import Schema
from cox.storage import fs, layout
from cox.storage.columns import Array, Part
from cox.storage.scan import State

_log = logging.getLogger("cox")


@dataclass(slots=True)
class Fresh:
    """What a reader has read and the cache did not have.

    Attributes:
        states: The state that each run was in before it was read.
        schemas: The tables of each of these runs …
        nrows: … and how many rows they have.
        blocks: Rows, with the name of their table: all that a run has of it. Those of other runs are ignored.
        ranked: The runs that ranks wrote.
    """

    states: dict[str, State] = field(default_factory=dict)
    schemas: dict[str, dict[str, Schema]] = field(default_factory=dict)
    nrows: dict[str, dict[str, int]] = field(default_factory=dict)
    blocks: list[tuple[str, Block]] = field(default_factory=list)
    ranked: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Places:
    """Where the rows of a table are, by the place of a run in the index: each array is of shape (runs,).

    Attributes:
        segment: Which segment has them; -1 if none has.
        start: The first of them in there.
        length: How many.
        is_whole: Whether these are all that there are.
    """

    segment: Array
    start: Array
    length: Array
    is_whole: Array


class Cache:
    """The cache of one folder, as it was when this was made.

    Args:
        folder: The folder of runs; None for a cache that knows nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        directory = None if folder is None else places.of_reading(folder)
        self.directory = directory or Path(layout.CACHE_DIR)
        self.index: Index = indexes.load(directory / INDEX_FILE) if directory else indexes.nothing()
        self._places: dict[str, _Places] = {}
        self._in_memory: dict[tuple[int, frozenset[str] | None], tuple[Schema, Part]] = {}

    @property
    def states(self) -> dict[str, State]:
        """The runs that are known, and in which state."""
        return self.index.states

    def schemas(self, name: str) -> dict[str, Schema]:
        """The tables of a known run. Not to be changed."""
        return self.index.heads[int(self.index.head[self.index.number[name]])]

    def nrows(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many rows known runs have of each of their tables."""
        of_table = {table: self.index.rows_of(table) for head in self.index.heads for table in head}
        return {
            name: {table: int(of_table[table][self.index.number[name]]) for table in self.schemas(name)}
            for name in names
        }

    def forget_rows(self) -> None:
        """Let go of the segments that were read."""
        self._in_memory.clear()

    def with_rows(self, table: str) -> set[str]:
        """The known runs whose rows of a table are here, or which have none."""
        whole = self._place(table).is_whole
        return {name for name, there in zip(self.index.names, whole.tolist(), strict=True) if there}

    def blocks(self, table: str, names: Sequence[str], columns: frozenset[str] | None) -> list[Block] | None:
        """The rows of known runs, in this order; None if they turn out not to be readable.

        Args:
            table: The table.
            names: Runs in `with_rows`.
            columns: The columns that are wanted; None for all.
        """
        places = self._place(table)
        at = np.array([self.index.number[name] for name in names], dtype=np.int64)
        if not places.is_whole[at].all():  # they were in a segment that could not be read
            return None
        has_rows = np.flatnonzero((places.segment[at] >= 0) & (places.length[at] > 0))
        there = at[has_rows]
        segment, start, length = places.segment[there], places.start[there], places.length[there]
        made = []
        checked: set[int] = set()
        for piece in _stretches(segment):
            number = int(segment[piece[0]])
            try:
                schema, whole = self._loaded(number, columns)
                if number not in checked:
                    self._check_schemas(table, schema, there[segment == number])
                    checked.add(number)
            except (OSError, ValueError, RecursionError, MemoryError) as error:
                _log.debug("cache %s: table %r cannot be read: %s", self.directory, table, error)
                self.index.segments[number].drop()
                self._places.clear()
                return None
            part = _taken(whole, start[piece], length[piece])
            made.append(Block(schema, part, [names[i] for i in has_rows[piece].tolist()], length[piece]))
        return made

    def _place(self, table: str) -> _Places:
        if table not in self._places:
            self._places[table] = place(self.index, table)
        return self._places[table]

    def _check_schemas(self, table: str, schema: Schema, at: Array) -> None:
        """Refuse rows that are not as their runs say.

        Raises:
            ValueError: They are not.
        """
        for head in np.unique(self.index.head[at]).tolist():
            if self.index.heads[head].get(table) != schema:
                raise ValueError("a segment with other columns than its runs have")

    def _loaded(self, at: int, columns: frozenset[str] | None) -> tuple[Schema, Part]:
        if (at, columns) not in self._in_memory:
            segment = self.index.segments[at]
            schema = Schema.from_json(segment.columns)
            self._in_memory[at, columns] = schema, segments.read(self.directory, segment, columns)
        return self._in_memory[at, columns]


def _stretches(segment: Array) -> list[Array]:
    """The places of neighbours that lie in the same segment."""
    changes = np.flatnonzero(segment[1:] != segment[:-1]) + 1
    return np.split(np.arange(len(segment)), changes) if len(segment) else []


def _taken(whole: Part, start: Array, length: Array) -> Part:
    """The rows of some runs, which begin at `start` and are `length` many, in this order."""
    if (start[1:] == (start + length)[:-1]).all():
        first, last = int(start[0]), int(start[-1] + length[-1])
        return whole if (first, last) == (0, whole.nrows) else whole.take(slice(first, last))
    before = np.cumsum(length) - length
    return whole.take(np.repeat(start - before, length) + np.arange(int(length.sum())))


def place(index: Index, table: str) -> _Places:
    """Where the rows of a table are."""
    runs = len(index.names)
    segment, start, length = np.full(runs, -1), np.zeros(runs, np.int64), np.zeros(runs, np.int64)
    order = np.argsort(index.ids, kind="stable")
    ordered = np.append(index.ids[order], -1)
    for at, one in enumerate(index.segments):
        if one.table == table and one.ids:
            ids, lengths = ints(one.ids), ints(one.lengths)
            found = np.searchsorted(ordered[:-1], ids)
            known = ordered[found] == ids  # others are of runs as they were once
            to = order[found[known]]
            segment[to] = at
            start[to] = (np.cumsum(lengths) - lengths)[known]
            length[to] = lengths[known]
    nrows = index.rows_of(table)
    return _Places(segment, start, length, (nrows == 0) | ((segment >= 0) & (length == nrows)))


def size(folder: Path) -> tuple[int, int, int]:
    """How many runs a folder's cache knows, in how many segments, and how many bytes its files take.

    Raises:
        OSError: The file system refused to look.
    """
    cache = Cache(folder)
    sizes = 0
    for directory in places.there(folder):
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a reader is saving
                sizes += path.lstat().st_size
    return len(cache.index.names), len(cache.index.segments), sizes


def clear(folder: Path) -> None:
    """Remove a folder's cache; what else somebody put into its directory stays.

    Raises:
        OSError: The file system refused.
    """
    for directory in places.there(folder):
        paths = [path for path in directory.iterdir() if is_own(path.name)]
        for path in sorted(paths, key=lambda path: path.name != INDEX_FILE):  # first what knows the others
            fs.unlink(path)
        with contextlib.suppress(OSError):  # something else is in it, or is being saved now
            directory.rmdir()
