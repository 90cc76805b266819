"""The append-only log of one writer, written. Appending takes no lock of any other process."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import zlib
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cox.schema import Column, Schema
from cox.storage import fs, layout, newest
from cox.storage.journal.format import COLUMN, MARK, REWIND, ROW, TABLE, Header, pack_head

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
_encode = msgspec.msgpack.Encoder().encode
_crc32 = zlib.crc32

#: How many journals a journal names that it continues.
MOST_AFTER = 16
#: So many of the last bytes tell whether a file still has what was written.
_LAST_BYTES = 16


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
        #: What stood in the file when it was last looked at: its salt, an offset, and the bytes before that.
        self._seen = 0, 0, b""

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

    def is_whole(self) -> bool:
        """Whether the file still holds what stood in it when this was last asked. From any thread.

        Another program may have emptied it, or put an older copy's bytes into it. What is written behind
        those makes it as long as before, so that its length alone does not tell.
        """
        fd, size, salt = self.fd, self.size, self.salt
        of, offset, last = self._seen
        length = min(size, _LAST_BYTES)
        try:
            if fd < 0 or (of == salt and os.pread(fd, len(last), offset - len(last)) != last):
                return fd < 0
            now = os.pread(fd, length, size - length)
        except OSError:  # closed by its own thread just now, or the disk does not say
            return True
        if len(now) < length:
            return False
        self._seen = salt, size, now
        return True

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
