"""The append-only log of one writer: the truth about a run's newest rows.

A journal is a header and records. A record is ::

    mark 2 bytes | length u32 | checksum u32 | payload (msgpack), `length` bytes

all little-endian. The checksum is CRC-32 of the payload, begun at the journal's salt: a random number
in the file's name, so that bytes which only look like a record (a journal logged as text, say) are none.
Payloads are lists that begin with their kind and their sequence number, which counts the records of a
writer over all its journals without a gap. docs/FORMAT.md has every field.

Appending takes no lock of any other process. Reading takes none at all, and stops for nothing:
an unfinished record at the end is "not yet there", damage in the middle costs the records it touches.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cox.errors import FormatVersionError
from cox.schema import Schema
from cox.storage import fs, layout

if TYPE_CHECKING:
    from cox.storage import bulk

VERSION = 1
HEADER = b"COXLOG" + struct.pack("<H", VERSION)
MARK = b"\xc0\xc5"

ROW, TABLE, REWIND = range(3)

_head = struct.Struct("<2sII")
HEAD_SIZE = _head.size
_pack_head = _head.pack
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_crc32 = zlib.crc32

#: No writer ever gets to this sequence number, and what follows it would not fit into a record.
MOST_RECORDS = 2**62

#: Looking for the next good record may checksum this many times the file's size, so that no file,
#: however it was made, is read for longer than that.
_RESYNC_BUDGET = 16


class JournalWriter:
    """Appends the records of one writer. The file is made with the first of them. For one thread at a time.

    Args:
        run: Where the run lies.
        writer: The writer's name, see `layout.writer_name`.
        next_seq: The sequence number of its next record.
        sync: Whether a record survives the machine, not just the process, once it was appended.
    """

    def __init__(self, run: layout.RunLayout, writer: str, next_seq: int, *, sync: bool) -> None:
        self.writer = writer
        self.next_seq = next_seq
        self.size = 0
        self.path: Path | None = None
        self._run = run
        self._sync = sync
        self._fd = -1
        self._salt = 0
        self._dirty = False  # whether a write failed half-way, or was interrupted

    def append_row(self, table_id: int, row: int, values: tuple[Any, ...]) -> None:
        """Append one row of a table that this journal has declared. Durable as `sync` says on return.

        Args:
            table_id: The number under which the table was declared.
            row: The row's number among this writer's rows of the table, from 0.
            values: One value for each column, in the order they were declared.
        """
        self.append_payload(_encode((ROW, self.next_seq, table_id, row, *values)))

    def append_payload(self, payload: bytes) -> int:
        """Append a record that is encoded already, as number `next_seq`. Returns how long the journal is."""
        if self._dirty:
            self._take_back()
        data = _pack_head(MARK, len(payload), _crc32(payload, self._salt)) + payload
        at, size = self.size, len(data)
        try:
            if os.pwrite(self._fd, data, at) != size:
                fs.write_at(self._fd, data, at)
            if self._sync:
                fs.sync_data(self._fd)
        except BaseException:
            self._dirty = True
            with contextlib.suppress(OSError):  # if it cannot be done now, it is before the next record
                self._take_back()
            raise
        self.size = size = at + size
        self.next_seq += 1
        return size

    def append_table(
        self, table_id: int, name: str, schema: Schema, row: int, values: tuple[Any, ...] | None
    ) -> None:
        """Declare a table, or its columns anew, and append its first row in the same write.

        The declaration is written twice, for without it none of the rows after it could be read.
        """
        declared = [table_id, name, schema.to_json()]
        payloads: list[list[Any]] = [[TABLE, *declared], [TABLE, *declared]]
        if values is not None:
            payloads.append([ROW, table_id, row, *values])
        self._append_all(payloads)

    def append_rewind(self, name: str, nrows: int) -> None:
        """Drop this writer's rows of a table from number `nrows` on, whether folded or not."""
        record = [REWIND, name, nrows]
        self._append_all([record, record])  # twice: were it lost, the dropped rows would be back

    def sync(self) -> None:
        """Have everything that was appended survive the machine."""
        if self._fd >= 0:
            fs.sync_data(self._fd)

    def show_to_other_hosts(self) -> None:
        """Have other hosts see what was appended so far. From any thread."""
        with contextlib.suppress(OSError):  # closed by its own thread just now, and so it has been shown
            fs.show_to_other_hosts(self._fd)

    def close(self) -> None:
        """Let go of the file; the next record begins a new one."""
        if self._fd >= 0:
            if self._dirty:
                with contextlib.suppress(OSError):  # left there, it is an unfinished record
                    self._take_back()
            os.close(self._fd)
        self._fd, self._dirty = -1, False
        self.path = None
        self.size = 0

    def _append_all(self, payloads: list[list[Any]]) -> None:
        if self._fd < 0:
            self._open()
        if self._dirty:
            self._take_back()
        data = b""
        for number, (kind, *fields) in enumerate(payloads):
            payload = _encode([kind, self.next_seq + number, *fields])
            data += _pack_head(MARK, len(payload), _crc32(payload, self._salt)) + payload
        try:
            fs.write_at(self._fd, data, self.size)
            if self._sync:
                fs.sync_data(self._fd)
        except BaseException:
            self._dirty = True
            with contextlib.suppress(OSError):  # if it cannot be done now, it is before the next record
                self._take_back()
            raise
        self.size += len(data)
        self.next_seq += len(payloads)

    def _take_back(self) -> None:
        """Cut off a record that was written and not acknowledged, as far as it got."""
        fs.truncate(self._fd, self.size)
        self._dirty = False

    def _open(self) -> None:
        fs.make_directories(self._run.journal_dir)
        salt = secrets.randbits(32)
        path = self._run.journal_file(self.writer, salt)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            fs.write_at(fd, HEADER, 0)
            if self._sync:
                # an fsync says nothing of a directory's own name, which may be as new as the file
                fs.sync_directories(self._run.journal_dir, self._run.root.parent)
        except OSError:
            os.close(fd)
            fs.unlink(path)
            raise
        self._fd, self._salt, self.path, self.size = fd, salt, path, len(HEADER)


@dataclass(slots=True)
class Journal:
    """What a journal holds, read once.

    Attributes:
        path: The file.
        writer: Whose it is.
        size: How long it was.
        torn: Bytes of an unfinished record at the end.
        damage: A sentence for each place in the middle that could not be read.
        rows: The records by columns, if they were read so.
    """

    path: Path
    writer: str
    size: int = 0
    torn: int = 0
    damage: list[str] = field(default_factory=list)
    rows: bulk.Rows | None = None
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
    def is_empty(self) -> bool:
        """Whether no record could be read."""
        return self.rows is None and not self._records


#: Reads the records of a journal of this salt by columns, and says where the last one ends; see `bulk.read`.
ReadRows = Callable[[bytes, int], "tuple[bulk.Rows, int] | None"]


def read_journals(directory: Path, read_rows: ReadRows | None = None) -> list[Journal]:
    """Read every journal in a directory, oldest records first. Blocks and is blocked by nobody.

    A journal that vanishes meanwhile was folded: its rows are in the store file, which is read after.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a plain listing, without a Path for each
    except (FileNotFoundError, NotADirectoryError):
        return []
    journals = []
    for name in names:
        parsed = layout.parse_journal_name(name)
        if parsed is None:
            continue
        try:
            data = fs.read_bytes(directory / name)
        except FileNotFoundError:
            continue
        journals.append(parse(data, directory / name, *parsed, read_rows=read_rows))
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
    journal = Journal(path, writer, size=len(data))
    if data[:6] == HEADER[:6] and len(data) >= len(HEADER):
        version = int.from_bytes(data[6:8], "little")
        # a version far beyond any that will ever be is a damaged header, and the records may still be good
        if VERSION < version < 256:
            raise FormatVersionError(
                f"{path} is a journal of version {version}; this cox reads up to {VERSION}: upgrade cox"
            )
    elif data:
        journal.damage.append("its header is damaged")
    found = read_rows(data, salt) if read_rows and not journal.damage else None
    if found is not None:
        journal.rows = _parse_tail(data, salt, journal, *found)
    if journal.rows is None:
        _parse_records(data, salt, journal, len(HEADER))
    if journal.damage and not journal._records and len(data) < len(HEADER):
        journal.damage, journal.torn = [], len(data)  # the very first write was cut short
    return journal


def _parse_tail(data: bytes, salt: int, journal: Journal, rows: bulk.Rows, stop: int) -> bulk.Rows | None:
    """The rows again, if nothing but an unfinished record is behind them."""
    tail = Journal(journal.path, journal.writer)
    _parse_records(data, salt, tail, stop)
    if tail.damage or tail._records:
        return None
    journal.torn = tail.torn
    return rows


def _parse_records(data: bytes, salt: int, journal: Journal, position: int) -> None:
    view = memoryview(data)
    end = len(data)
    records = journal._records
    unpack, size = _head.unpack_from, HEAD_SIZE
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


def decode(payload: bytes | memoryview) -> list[Any]:
    """A record's payload, or nothing if it is none, whatever its checksum says."""
    try:
        record = _decode(payload)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return []
    sound = len(record) >= 2 and type(record[0]) is type(record[1]) is int and 0 <= record[1] < MOST_RECORDS
    return record if sound else []


def _next_record(data: bytes, position: int, salt: int, budget: int) -> tuple[int, int]:
    """The offset of the next whole record, or -1; and what is left of the budget of bytes to checksum."""
    view = memoryview(data)
    end = len(data) - _head.size
    while budget > 0:
        position = data.find(MARK, position)
        if position < 0 or position > end:
            return -1, budget
        _, length, checksum = _head.unpack_from(data, position)
        start = position + _head.size
        if start + length <= len(data):
            budget -= length + 1
            if _crc32(view[start : start + length], salt) == checksum:
                return position, budget
        position += 1
    return -1, budget
