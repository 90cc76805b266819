"""The append-only log of one writer: the truth about a run's newest rows.

A journal is a header and records. A record is ::

    mark 2 bytes | length u32 | checksum u32 | payload (msgpack), `length` bytes

all little-endian. The checksum is CRC-32 of the payload, begun at the journal's salt: a random number
in the file's name, so that bytes which only look like a record (a journal logged as text, say) are none.
The header is `COXLOG`, a version, and a record that says which run the journal belongs to (`Header`).
Payloads are lists that begin with their kind and their sequence number, which counts the records of a
writer over all its journals without a gap. docs/FORMAT.md has every field.

Appending takes no lock of any other process. Reading takes none at all, and stops for nothing:
an unfinished record at the end is "not yet there", damage in the middle costs the records it touches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec

from cox.errors import FormatVersionError, IrregularFileError
from cox.schema import Column, Schema
from cox.storage import fs, layout, newest

if TYPE_CHECKING:
    from cox.storage.columns import Array, Part

VERSION = 2
MAGIC = b"COXLOG"
#: All of the header of a journal of version 1.
HEADER_1 = MAGIC + struct.pack("<H", 1)
_PREFIX = MAGIC + struct.pack("<H", VERSION)
MARK = b"\xc0\xc5"

ROW, TABLE, REWIND, COLUMN = range(4)

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
_head = struct.Struct("<2sII")
HEAD_SIZE = _head.size
pack_head = _head.pack
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_crc32 = zlib.crc32

#: No record has this sequence number or a higher one; one that claims it is none.
MOST_RECORDS = 2**61

#: How many journals a journal names that it continues.
MOST_AFTER = 16

#: Looking for the next good record may checksum this many times the file's size, so that no file,
#: however it was made, is read for longer than that.
_RESYNC_BUDGET = 16


class Header(msgspec.Struct, frozen=True):
    """What a journal says of itself: a msgpack map. Fields that are not known here are ignored.

    Attributes:
        run: The id of the run.
        after: The journals of this writer that it continues, oldest first, each with its salt and the
            sequence number behind its last record; not all of a long history.
    """

    run: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    after: tuple[tuple[int, int], ...] = ()

    def to_bytes(self, salt: int) -> bytes:
        """The bytes that a journal of this salt begins with."""
        payload = msgspec.msgpack.encode(self)
        return _PREFIX + pack_head(MARK, len(payload), _crc32(payload, salt)) + payload


_decode_header = msgspec.msgpack.Decoder(Header).decode


class Counted(Protocol):
    """What has a number of rows."""

    nrows: int


class JournalWriter:
    """Appends the records of one writer. The file is made with the first of them. For one thread at a time.

    Args:
        run: Where the run lies.
        writer: The writer's name, see `layout.writer_name`.
        next_seq: The sequence number of its next record.
        run_id: The id of the run.
        sync: Whether a record survives the machine, not just the process, once it was appended.

    Attributes:
        run_id: The argument.
        after: The journals that the next one continues, as in `Header`.
        next_seq: The sequence number of the next record.
        size: How long the file is, up to the last record that counts; 0 without a file.
        path: The file, None before its first record.
        fd: It, open; -1 without one.
        salt: What its checksums begin with.
        generation: How many files were closed before this one. Tables declared in those are not in this one.
        synced: The argument `sync`.
        dirty: Whether there may be something behind `size`, of a write that failed or was interrupted.
    """

    def __init__(self, run: layout.RunLayout, writer: str, next_seq: int, *, run_id: str, sync: bool) -> None:
        self.writer = writer
        self.run_id = run_id
        self.after: list[tuple[int, int]] = []
        self.next_seq = next_seq
        self.size = 0
        self.path: Path | None = None
        self.salt = 0
        self.generation = 0
        self._run = run
        self.synced = sync
        self.fd = -1
        self.dirty = False
        self._header_size = 0
        self._first_seq = 0

    @property
    def salts(self) -> set[int]:
        """Those of the journals that were written here, and of the ones that they continue."""
        return {self.salt, *(salt for salt, _ in self.after)}

    def append_row(self, table_id: int, values: tuple[Any, ...], table: Counted) -> int:
        """Append one row of a table that this journal has declared. Durable as `sync` says on return.

        Args:
            table_id: The number under which the table was declared.
            values: One value for each column, in the order they were declared.
            table: Has the number of this writer's rows of the table, which is then one more.

        Returns:
            How long the journal is now; 0 if it must be made anew, see `_put`.
        """
        seq, row = self.next_seq, table.nrows
        return self._put_all([[ROW, table_id, row, *values]], seq, table, row + 1)

    def append_table(
        self, table_id: int, name: str, schema: Schema, values: tuple[Any, ...] | None, table: Counted
    ) -> int:
        """Declare a table, or its columns anew, and append its next row, if any, in the same write.

        The declaration is written twice, for without it none of the rows after it could be read. Returns as
        `append_row` does.
        """
        if self.fd < 0:
            self._open()
        seq, row = self.next_seq, table.nrows
        declared = [TABLE, table_id, name, schema.to_json()]
        if values is None:
            return self._put_all([declared, declared], seq, table, row)
        return self._put_all([declared, declared, [ROW, table_id, row, *values]], seq, table, row + 1)

    def append_column(self, table_id: int, column: Column, table: Counted) -> int:
        """Add a column to a table that this journal has declared: the last cell of rows from now on.

        So each column costs what it says of itself, and not the table's whole declaration again. Returns as
        `append_row` does.
        """
        record = [COLUMN, table_id, column.name, column.kind, column.nullable]
        return self._put_all([record, record], self.next_seq, table, table.nrows)  # twice, as a declaration

    def append_rewind(self, name: str, nrows: int, table: Counted) -> int:
        """Drop this writer's rows of a table from number `nrows` on, folded or not. As `append_row`."""
        if self.fd < 0:
            self._open()
        record = [REWIND, name, nrows]  # twice: were it lost, the rows would be back
        return self._put_all([record, record], self.next_seq, table, nrows)

    def _put(self, data: bytes, seq: int, seq_after: int, table: Counted, nrows_after: int) -> int:
        """Write records that were made for this place in the journal.

        A signal handler may log, too, and comes between any two calls of the thread that it interrupts.
        So each write is checked right before and right after, and what was overtaken does not count.

        Args:
            data: The records.
            seq: The sequence number of the first one.
            seq_after: That of the next record after them.
            table: Whose rows they change …
            nrows_after: … and how many it has then.

        Returns:
            How long the journal is now. 0 if nothing was written, because other records have come before
            these, or the journal was closed: they must be made anew.
        """
        if self.dirty:
            self._cut_off()
        size, done = len(data), 0
        try:
            while done < size:  # once, unless the disk is full
                rest = data[done:] if done else data
                if self.next_seq != seq or self.fd < 0:
                    return 0
                done += os.pwrite(self.fd, rest, self.size + done)
            if self.synced:
                fs.sync_data(self.fd)
        except BaseException:
            self.take_back()
            raise
        if self.next_seq != seq or self.fd < 0:
            return 0
        self.size = length = self.size + size
        self.next_seq = seq_after
        table.nrows = nrows_after
        return length

    def sync_from_now_on(self) -> None:
        """Have everything that was appended survive the machine, and what will be."""
        self.synced = True
        if self.fd >= 0:
            fs.sync_data(self.fd)
            fs.sync_directories(self._run.journal_dir, self._run.root.parent)

    def show_to_other_hosts(self) -> None:
        """Have other hosts see what was appended so far. From any thread."""
        with contextlib.suppress(OSError):  # closed by its own thread just now, and so it has been shown
            fs.show_to_other_hosts(self.fd)

    def in_place(self) -> bool:
        """Whether a reader of the run finds this file, or there is none. From any thread."""
        fd, path = self.fd, self.path
        return path is None or fd < 0 or fs.leads_to(path, fd)

    def follow(self, run: layout.RunLayout) -> None:
        """Go on in a run that was moved, with all of its files."""
        self._run = run
        if self.path is not None:
            self.path = run.journal_dir / self.path.name

    def write_anew(self) -> None:
        """Give the file its name again, after somebody removed that: a copy, for it can still be read."""
        if self.path is None:
            return
        fs.make_directories(self._run.journal_dir, inside=self._run.root)
        beside = fs.temporary_beside(self.path)
        old, new = os.dup(self.fd), os.open(beside, _NEW_FILE, 0o666)
        try:
            copied = _copy(old, new, 0, self.size)
            os.dup2(new, self.fd, inheritable=False)
            _copy(old, new, copied, self.size)  # what a signal handler logged meanwhile
            fs.rename(beside, self.path)
            newest.write(self._run, newest.Newest(self.writer, self.salt, self._first_seq))
            if self.synced:
                self.sync_from_now_on()
        except BaseException:
            os.dup2(old, self.fd, inheritable=False)
            fs.unlink(beside)
            raise
        finally:
            os.close(old)
            os.close(new)

    def close(self) -> None:
        """Let go of the file; the next record begins a new one."""
        # a signal handler that closes it may have come right behind a write, which then does not count
        if self.dirty or (self.fd >= 0 and os.fstat(self.fd).st_size > self.size):
            self.take_back()
        # no call before the file is let go of: rows that a signal handler logs into it after its end was
        # noted would belong nowhere
        if self.size > self._header_size:
            self.after = [*self.after, (self.salt, self.next_seq)]
        fd, self.fd, self.generation = self.fd, -1, self.generation + 1
        self.dirty, self.path, self.size = False, None, 0
        if fd >= 0:
            os.close(fd)

    def abandon(self) -> None:
        """Let go of the file and do not touch it: for the copy in a forked child."""
        fd, self.fd, self.generation = self.fd, -1, self.generation + 1
        self.dirty, self.path, self.size = False, None, 0
        if fd >= 0:
            os.close(fd)

    def _put_all(self, payloads: list[list[Any]], seq: int, table: Counted, nrows_after: int) -> int:
        """Append several records at once, all or none."""
        data = b""
        for number, (kind, *fields) in enumerate(payloads):
            payload = _encode([kind, seq + number, *fields])
            data += pack_head(MARK, len(payload), _crc32(payload, self.salt)) + payload
        return self._put(data, seq, seq + len(payloads), table, nrows_after)

    def take_back(self) -> None:
        """Cut off what was written and not acknowledged: now, or else before the next record."""
        self.dirty = True
        with contextlib.suppress(OSError):
            self._cut_off()

    def _cut_off(self) -> None:
        fs.truncate(self.fd, self.size)
        self.dirty = False

    def _open(self) -> None:
        """Begin a file, unless a signal handler that logs began one meanwhile."""
        fs.refuse_links(self._run.meta_dir, self._run.journal_dir)
        fs.make_directories(self._run.journal_dir, inside=self._run.root)
        seq, generation = self.next_seq, self.generation
        salt = secrets.randbits(32)
        path = self._run.journal_file(self.writer, salt)
        header = Header(self.run_id, tuple(self.after[-MOST_AFTER:])).to_bytes(salt)
        fd = os.open(path, _NEW_FILE, 0o666)
        try:
            fs.write_at(fd, header, 0)
            newest.write(self._run, newest.Newest(self.writer, salt, seq))
            if self.synced:
                # an fsync says nothing of a directory's own name, which may be as new as the file
                fs.sync_directories(self._run.journal_dir, self._run.root.parent)
        except OSError:
            self._drop(fd, path)
            raise
        size = len(header)
        # no call from here to the end, so that no signal handler comes between
        if self.fd < 0 and self.next_seq == seq and self.generation == generation:
            self.fd, self.salt, self.path, self.size, self._header_size = fd, salt, path, size, size
            self._first_seq = seq
            return
        self._drop(fd, path)

    def _drop(self, fd: int, path: Path) -> None:
        """Remove a file that was begun and has no record, and what was said of it."""
        os.close(fd)
        with contextlib.suppress(OSError):  # then readers are told of a journal that lacks, and no row does
            newest.forget(self._run, path.name)
        fs.unlink(path)


def _copy(source: int, target: int, start: int, stop: int) -> int:
    """Copy bytes of a file to the same place in another. Returns where they stop."""
    while start < stop:
        piece = os.pread(source, min(stop - start, 1 << 20), start)
        if not piece:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fs.write_at(target, piece, start)
        start += len(piece)
    return stop


class Rows(Protocol):
    """Records by columns, as `columnar.read` gives them; see `columnar.Rows`."""

    seq: Array
    table: Array
    number: Array
    others: dict[int, list[Any]]

    def records(self) -> list[list[Any]]:
        """All of them, decoded one by one."""

    def width(self, table: int) -> int:
        """How many cells the longest row of a table has."""

    def part(self, table: int, columns: Sequence[Column], chosen: Array) -> Part:
        """Rows of a table as columns."""


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
    if journal.damage and not journal._records and len(data) < len(_PREFIX):
        journal.damage, journal.torn = [], len(data)  # the very first write was cut short
    return journal


def _parse_header(data: bytes, salt: int, journal: Journal) -> int:
    """Read the header of a journal. Returns where the records begin.

    Raises:
        FormatVersionError: A newer cox wrote it.
    """
    start = len(_PREFIX)
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
    mark, length, checksum = _head.unpack_from(data, start)
    stop: int = start + HEAD_SIZE + length
    if mark == MARK and stop > len(data) and data.find(MARK, start + 1) < 0:
        return start  # cut short, too
    payload = memoryview(data)[start + HEAD_SIZE : stop]
    if version == VERSION and mark == MARK and _crc32(payload, salt) == checksum:
        with contextlib.suppress(ValueError):  # msgspec's errors are ValueErrors
            journal.header = _decode_header(payload)
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
    return record if _is_sound(record) else []


def _is_sound(record: list[Any]) -> bool:
    """Whether the fields before the cells have the types that they should."""
    if len(record) < 2 or not (_is_count(record[1]) and type(record[0]) is int):
        return False
    kind, fields = record[0], record[2:]
    if kind == ROW:
        return len(fields) >= 2 and _is_count(fields[0]) and _is_count(fields[1])
    if kind == TABLE:
        return len(fields) == 3 and _is_count(fields[0]) and type(fields[1]) is str
    if kind == COLUMN:
        return len(fields) == 4 and _is_count(fields[0]) and type(fields[1]) is type(fields[2]) is str
    if kind == REWIND:
        return len(fields) == 2 and type(fields[0]) is str and _is_count(fields[1])
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_RECORDS


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
