"""The index of a cache: which runs it knows, in which state, and in which file their rows lie.

It is kept by columns, for it is read whole each time, and a folder may have a hundred thousand runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import crc32c
import msgspec
import numpy as np

from cox.collection.cache import files
from cox.collection.cache.files import SEGMENT_SUFFIX
from cox.schema import Schema
from cox.storage import fs, layout
from cox.storage.columns import Array
from cox.storage.scan import Marks, State

_log = logging.getLogger("cox")

#: The first bytes of the file: what it is, and its version.
_MAGIC = b"coxcache\x02"
_START = len(_MAGIC) + 4
#: More runs, or rows of one, or bytes of a segment, than any folder has.
_MOST = 2**40
#: More bytes than the index of millions of runs has.
_MOST_BYTES = 2**30

#: A schema as it is stored: name, kind and nullability of each column.
Columns = list[tuple[str, str, bool]]


class Blob(msgspec.Struct, array_like=True):
    """One column's values, or the bits of its missing cells, in a segment."""

    column: str
    what: str
    offset: int
    size: int
    checksum: int


class Segment(msgspec.Struct, array_like=True):
    """A file of rows of one table: `lengths[i]` rows of the run with the number `ids[i]`, and so on."""

    file: str
    table: str
    columns: Columns
    ids: bytes
    lengths: bytes
    blobs: list[Blob]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(blob.size for blob in self.blobs)

    def drop(self) -> None:
        """Know nothing of the rows in it any more."""
        self.ids = self.lengths = b""


class _Stored(msgspec.Struct, array_like=True):
    """The file's content."""

    next_id: int
    names: list[str]
    ids: bytes
    marks: bytes
    journals: dict[str, list[tuple[str, Marks]]]
    head: bytes
    nrows: bytes
    heads: list[list[tuple[str, Columns]]]
    segments: list[Segment]
    ranked: list[str]


@dataclass(slots=True)
class Entry:
    """A run, as it was when it was read.

    Attributes:
        id: The number under which segments know its rows. In another state it has another one.
        state: The state.
        head: Its tables, a place in `Index.heads`.
        nrows: How many rows each of them has.
        is_ranked: Whether ranks wrote it.
    """

    id: int
    state: State
    head: int
    nrows: list[int]
    is_ranked: bool = False


class Index:
    """What a cache knows.

    Attributes:
        next_id: The next number for a run.
        names: The runs.
        number: The place of each run in `names`, and in all that follows.
        ids: Their numbers, of shape (runs,).
        states: Their states, by name.
        head: Their tables, as places in `heads`, of shape (runs,).
        nrows: The rows of each of a run's tables, one run behind the other.
        heads: Tables and their schemas, as runs have them.
        segments: The files of rows. Where two have a run's rows, the later one counts.
        ranked: The runs that ranks wrote.
    """

    def __init__(self, stored: _Stored) -> None:
        self.next_id = stored.next_id
        self.names = stored.names
        self.number = {name: number for number, name in enumerate(self.names)}
        self.ids = ints(stored.ids)
        self.head = ints(stored.head)
        self.nrows = ints(stored.nrows)
        self.stored_heads = stored.heads
        self.heads = [{table: Schema.from_json(columns) for table, columns in head} for head in stored.heads]
        self.segments = stored.segments
        self.ranked = frozenset(stored.ranked)
        self.states = _states(stored)
        _check(self, stored)

    def rows_of(self, table: str) -> Array:
        """How many rows of a table each run has, of shape (runs,); 0 without it."""
        widths = np.array([len(head) for head in self.heads] or [0])[self.head]
        places = [list(head).index(table) if table in head else -1 for head in self.heads]
        at = np.array(places or [-1])[self.head]
        starts = np.cumsum(widths) - widths
        return np.where(at < 0, 0, np.append(self.nrows, 0)[np.where(at < 0, -1, starts + at)])

    def entries(self) -> dict[str, Entry]:
        """The runs, to be changed and handed to `save`."""
        made, start = {}, 0
        for name, number, head in zip(self.names, self.ids.tolist(), self.head.tolist(), strict=True):
            stop = start + len(self.heads[head])
            made[name] = Entry(
                number, self.states[name], head, self.nrows[start:stop].tolist(), name in self.ranked
            )
            start = stop
        return made


def load(path: Path) -> Index:
    """The index in a file; one that knows nothing if there is none, or none that can be read."""
    try:
        with files.opened(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                raise ValueError("more than an index has")  # noqa: TRY301 - as all else that is wrong with it
            data = file.read()
        if data[: len(_MAGIC)] == _MAGIC and _checksum(data[_START:]) == data[len(_MAGIC) : _START]:
            return Index(msgspec.msgpack.decode(data[_START:], type=_Stored))
        _log.debug("cache %s: of another version, or damaged", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, LookupError, RecursionError, MemoryError) as error:  # also msgspec's
        _log.debug("cache %s: not readable: %s", path, error)
    return nothing()


def nothing() -> Index:
    """An index that knows nothing."""
    return Index(_Stored(0, [], b"", b"", {}, b"", b"", [], [], []))


def save(path: Path, index: Index, entries: dict[str, Entry]) -> None:
    """Replace the index by one of these runs."""
    kept = list(entries.values())
    heads = sorted({entry.head for entry in kept})  # others are of runs as they were once
    place = {head: at for at, head in enumerate(heads)}
    stored = _Stored(
        index.next_id,
        list(entries),
        as_bytes([entry.id for entry in kept]),
        as_bytes([mark for entry in kept for mark in entry.state[:5]]),
        {name: list(entry.state.journals) for name, entry in entries.items() if entry.state.journals},
        as_bytes([place[entry.head] for entry in kept]),
        as_bytes([nrows for entry in kept for nrows in entry.nrows]),
        [index.stored_heads[head] for head in heads],
        [segment for segment in index.segments if segment.ids],
        [name for name, entry in entries.items() if entry.is_ranked],
    )
    data = msgspec.msgpack.encode(stored)
    fs.replace_bytes(path, _MAGIC + _checksum(data) + data)


def ints(data: bytes) -> Array:
    """Numbers out of bytes."""
    return np.frombuffer(data, dtype="<i8")


def as_bytes(numbers: list[int] | Array) -> bytes:
    """Undo `ints`."""
    return np.array(numbers, dtype="<i8").tobytes()


def can_hold(name: str, state: State) -> bool:
    """Whether a run can be noted: its name is text, and its times are in this age."""
    try:
        name.encode()
        as_bytes([*state[:5], *(mark for _, marks in state.journals for mark in marks)])
    except (UnicodeEncodeError, OverflowError):
        return False
    return True


def _states(stored: _Stored) -> dict[str, State]:
    marks = ints(stored.marks).reshape(-1, 5).tolist()
    states = {name: State._make([*own, ()]) for name, own in zip(stored.names, marks, strict=True)}
    for name, journals in stored.journals.items():
        states[name] = states[name]._replace(journals=tuple(journals))
    return states


def _check(index: Index, stored: _Stored) -> None:
    """Refuse an index that refers to what is not there, or leads out of its directory.

    Raises:
        ValueError: It does.
    """
    for holds, reason in _rules(index, stored):
        if not holds:
            raise ValueError(reason)


def _rules(index: Index, stored: _Stored) -> Iterator[tuple[bool, str]]:
    """What must hold of an index, and what it has otherwise. Each rule relies on those before it."""
    runs = len(index.names)
    yield 0 <= index.next_id <= _MOST and len(index.number) == runs, "runs that no folder has"
    is_whole = len(index.ids) == len(index.head) == len(stored.marks) // 40 == runs
    yield is_whole, "runs of which something is missing"
    yield _are_below(index.ids, index.next_id), "runs without a number"
    yield _are_below(index.head, len(index.heads)), "runs without tables"
    widths = np.array([len(head) for head in index.stored_heads] or [0])
    yield len(index.nrows) == widths[index.head].sum(), "tables without a number of rows"
    for segment in index.segments:
        yield from _rules_of_segment(segment, index.next_id)


def _rules_of_segment(segment: Segment, next_id: int) -> Iterator[tuple[bool, str]]:
    ids, lengths = ints(segment.ids), ints(segment.lengths)
    is_here = layout.is_file_name(segment.file) and segment.file.endswith(SEGMENT_SUFFIX)
    yield is_here, "a segment that lies elsewhere"
    has_size = all(blob.size >= 0 for blob in segment.blobs) and segment.size <= _MOST
    yield has_size, "a segment of no size"
    has_numbers = len(ids) == len(lengths) and bool((lengths >= 0).all())
    yield has_numbers, "a segment of runs without a number of rows"
    # each row has a cell at least
    yield lengths.sum(dtype=np.float64) <= segment.size, "a segment with more rows than bytes"
    yield _are_below(ids, next_id), "a segment of unknown runs"


def _are_below(numbers: Array, end: int) -> bool:
    """Whether all of some numbers are from 0 on, and below an end."""
    return not len(numbers) or (numbers.min() >= 0 and numbers.max() < end)


def _checksum(data: bytes) -> bytes:
    made: bytes = crc32c.crc32c(data).to_bytes(4, "little")
    return made
