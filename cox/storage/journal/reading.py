"""The journals of a run, read. That takes no lock at all, and stops for nothing.

An unfinished record at the end is "not yet there", damage in the middle costs the records it touches.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox.errors import FormatVersionError, IrregularFileError
from cox.storage import fs, layout
from cox.storage.journal.format import (
    HEAD_SIZE,
    MAGIC,
    MARK,
    PREFIX,
    VERSION,
    Header,
    decode,
    decode_header,
    unpack_head,
)

if TYPE_CHECKING:
    from cox.storage.journal.columnar import Rows

_crc32 = zlib.crc32

#: Looking for the next good record may checksum this many times the file's size, so that no file,
#: however it was made, is read for longer than that.
_RESYNC_BUDGET = 16


@dataclass(slots=True)
class Journal:
    """What a journal holds, read once.

    Attributes:
        path: The file.
        writer: Whose it is.
        salt: What its checksums begin with.
        header: What it says of itself; None in version 1, or if that is damaged.
        size: How long it was.
        torn: Bytes of an unfinished record at the end.
        damage: A sentence for each place in the middle that could not be read.
        rows: The records by columns, if they were read so.
    """

    path: Path
    writer: str
    salt: int = 0
    header: Header | None = None
    size: int = 0
    torn: int = 0
    damage: list[str] = field(default_factory=list)
    rows: Rows | None = None
    _records: list[list[Any]] = field(default_factory=list)

    @property
    def records(self) -> list[list[Any]]:
        """The payloads, `[kind, seq, …]`, in the order they were written."""
        if self.rows is not None and not self._records:
            self._records = self.rows.records()
        return self._records

    @property
    def first_seq(self) -> int:
        """The first record's sequence number, or 0."""
        if self.rows is not None:
            return int(self.rows.seq[0])
        return int(self._records[0][1]) if self._records else 0

    @property
    def end_seq(self) -> int:
        """The sequence number behind the last record, or 0."""
        if self.rows is not None:
            return int(self.rows.seq.max()) + 1
        return max((record[1] for record in self._records), default=-1) + 1

    @property
    def is_empty(self) -> bool:
        """Whether no record could be read."""
        return self.rows is None and not self._records


#: Reads the records of a journal of this salt, from an offset on, by columns, and says where the last one
#: ends; see `columnar.read`.
ReadRows = Callable[[bytes, int, int], "tuple[Rows, int] | None"]


def read_journals(
    directory: str | os.PathLike[str],
    read_rows: ReadRows | None = None,
    *,
    names: Iterable[str] | None = None,
) -> list[Journal]:
    """Read every journal in a directory, oldest records first. Blocks and is blocked by nobody.

    A journal that vanishes meanwhile was folded: its rows are in the store file, which is read after. One
    that is a link or a pipe has nothing but damage.

    Args:
        directory: The directory.
        read_rows: Reads them by columns where it can.
        names: The names in there, where somebody has just listed them.

    Raises:
        IrregularFileError: The directory is a link.
        FormatVersionError: A newer cox wrote a journal.
    """
    directory = os.fspath(directory)
    fs.refuse_links(os.path.dirname(directory), directory)  # noqa: PTH120 - nor one for those
    journals = []
    for name in fs.names_in(directory) if names is None else names:
        parsed = layout.parse_journal_name(name)
        if parsed is None:
            continue
        path = Path(directory, name)
        try:
            data = fs.read_bytes(path)
        except FileNotFoundError:
            continue
        except IrregularFileError as error:
            journals.append(Journal(path, *parsed, damage=[str(error)]))
            continue
        journals.append(parse(data, path, *parsed, read_rows=read_rows))
    journals.sort(key=lambda journal: (journal.writer, journal.first_seq))
    return journals


def parse(data: bytes, path: Path, writer: str, salt: int, *, read_rows: ReadRows | None = None) -> Journal:
    """Read the bytes of a journal.

    Args:
        data: All of them.
        path: Where they are from.
        writer: Whose they are.
        salt: What its checksums begin with.
        read_rows: The fast way, which the caller pays numpy for. It is taken for a journal without damage.

    Raises:
        FormatVersionError: A newer cox wrote it.
    """
    journal = Journal(path, writer, salt, size=len(data))
    start = _parse_header(data, salt, journal)
    found = read_rows(data, salt, start) if read_rows and not journal.damage else None
    if found is not None:
        journal.rows = _parse_tail(data, salt, journal, *found)
    if journal.rows is None:
        _parse_records(data, salt, journal, start)
    if journal.damage and not journal._records and len(data) < len(PREFIX):
        journal.damage, journal.torn = [], len(data)  # the very first write was cut short
    return journal


def _parse_header(data: bytes, salt: int, journal: Journal) -> int:
    """Read the header of a journal. Returns where the records begin.

    Raises:
        FormatVersionError: A newer cox wrote it.
    """
    start = len(PREFIX)
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        if data:
            journal.damage.append("its header is damaged")
        return start
    version = int.from_bytes(data[len(MAGIC) : start], "little")
    # a version far beyond any that will ever be is a damaged header, and the records may still be good
    if VERSION < version < 256:
        raise FormatVersionError(
            f"{journal.path} is a journal of version {version}; this cox reads up to {VERSION}: upgrade cox"
        )
    if version == 1 or len(data) < start + HEAD_SIZE:  # of the latter, the very first write was cut short
        return start
    mark, length, checksum = unpack_head(data, start)
    stop: int = start + HEAD_SIZE + length
    if mark == MARK and stop > len(data) and data.find(MARK, start + 1) < 0:
        return start  # cut short, too
    payload = memoryview(data)[start + HEAD_SIZE : stop]
    if version == VERSION and mark == MARK and _crc32(payload, salt) == checksum:
        with contextlib.suppress(ValueError):  # msgspec's errors are ValueErrors
            journal.header = decode_header(payload)
            return stop
    journal.damage.append("its header is damaged")
    return start


def _parse_tail(data: bytes, salt: int, journal: Journal, rows: Rows, stop: int) -> Rows | None:
    """The rows again, if nothing but an unfinished record is behind them."""
    tail = Journal(journal.path, journal.writer, salt)
    _parse_records(data, salt, tail, stop)
    if tail.damage or tail._records:
        return None
    journal.torn = tail.torn
    return rows


def _parse_records(data: bytes, salt: int, journal: Journal, position: int) -> None:
    view = memoryview(data)
    end = len(data)
    records = journal._records
    unpack, size = unpack_head, HEAD_SIZE
    budget = _RESYNC_BUDGET * len(data)
    while position + size <= end:
        mark, length, checksum = unpack(data, position)
        stop = position + size + length
        if mark == MARK and stop <= end:
            payload = view[position + size : stop]
            if _crc32(payload, salt) == checksum:
                record = decode(payload)
                if record:
                    records.append(record)
                else:
                    journal.damage.append(f"the record at {position} makes no sense")
                position = stop
                continue
        found, budget = _next_record(data, position + 1, salt, budget)
        if found < 0:
            if (mark == MARK and stop > end) or not any(view[position:]):
                journal.torn = end - position  # the rest of it is not there yet
            else:
                journal.damage.append(f"the last {end - position} bytes, from {position} on, are damaged")
            return
        journal.damage.append(f"{found - position} bytes at {position} are damaged")
        position = found
    journal.torn = max(0, end - position)


def _next_record(data: bytes, position: int, salt: int, budget: int) -> tuple[int, int]:
    """The offset of the next whole record, or -1; and what is left of the budget of bytes to checksum."""
    view = memoryview(data)
    end = len(data) - HEAD_SIZE
    while budget > 0:
        position = data.find(MARK, position)
        if position < 0 or position > end:
            return -1, budget
        _, length, checksum = unpack_head(data, position)
        start = position + HEAD_SIZE
        if start + length <= len(data):
            budget -= length + 1
            if _crc32(view[start : start + length], salt) == checksum:
                return position, budget
        position += 1
    return -1, budget
