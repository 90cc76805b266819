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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cox.errors import FormatVersionError
from cox.schema import Schema
from cox.storage import fs, layout

VERSION = 1
HEADER = b"COXLOG" + struct.pack("<H", VERSION)
MARK = b"\xc0\xc5"

ROW, TABLE, REWIND = range(3)

_head = struct.Struct("<2sII")
_pack_head = _head.pack
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_crc32 = zlib.crc32

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

    def append_payload(self, payload: bytes) -> None:
        """Append a record that is encoded already, with `next_seq` as its sequence number."""
        if self._dirty:
            self._take_back()
        data = _pack_head(MARK, len(payload), _crc32(payload, self._salt)) + payload
        size = len(data)
        try:
            if os.pwrite(self._fd, data, self.size) != size:
                fs.write_at(self._fd, data, self.size)
            if self._sync:
                fs.sync_data(self._fd)
        except BaseException:
            self._dirty = True
            with contextlib.suppress(OSError):  # if it cannot be done now, it is before the next record
                self._take_back()
            raise
        self.size += size
        self.next_seq += 1

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
                fs.sync_directory(self._run.journal_dir)
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
        records: The payloads, `[kind, seq, …]`, in the order they were written.
        size: How long it was.
        torn: Bytes of an unfinished record at the end.
        damage: A sentence for each place in the middle that could not be read.
    """

    path: Path
    writer: str
    records: list[list[Any]] = field(default_factory=list)
    size: int = 0
    torn: int = 0
    damage: list[str] = field(default_factory=list)


def read_journals(directory: Path) -> list[Journal]:
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
            data = (directory / name).read_bytes()
        except FileNotFoundError:
            continue
        journals.append(parse(data, directory / name, *parsed))
    journals.sort(key=lambda journal: (journal.writer, journal.records[0][1] if journal.records else 0))
    return journals


def parse(data: bytes, path: Path, writer: str, salt: int) -> Journal:
    """Read the bytes of a journal.

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
    _parse_records(data, salt, journal)
    if journal.damage and not journal.records and len(data) < len(HEADER):
        journal.damage, journal.torn = [], len(data)  # the very first write was cut short
    return journal


def _parse_records(data: bytes, salt: int, journal: Journal) -> None:
    view = memoryview(data)
    position, end = len(HEADER), len(data)
    records = journal.records
    unpack, size = _head.unpack_from, _head.size
    budget = _RESYNC_BUDGET * len(data)
    while position + size <= end:
        mark, length, checksum = unpack(data, position)
        stop = position + size + length
        if mark == MARK and stop <= end:
            payload = view[position + size : stop]
            if _crc32(payload, salt) == checksum:
                record = _record(payload)
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


def _record(payload: memoryview) -> list[Any]:
    """A record's payload, or nothing if it is none, whatever its checksum says."""
    try:
        record = _decode(payload)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return []
    return record if len(record) >= 2 and all(type(number) is int for number in record[:2]) else []


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
