"""TensorBoard's event file of a run: each event is on its way to the disk when `add_…` returns.

tensorboardX hands its events to a queue and a thread, which cost more than the write that they save,
lose what they hold when the process is killed, and lock up a forked child that takes them along.
Here an event is one write, at once: what was logged survives the death of the process, as rows do.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.writer import FileWriter

from cox import events, tfrecords
from cox.errors import ForkError, StorageError
from cox.storage import fs, layout

_files_made = count()
OnRefusal = Callable[[StorageError], object]


class EventFile:
    """An event file. Stands in for tensorboardX's EventFileWriter.

    Args:
        directory: Where the file is made.
        on_refusal: Gets the error of an event that the file system refused, instead of the caller.

    Raises:
        StorageError: The file cannot be made.
    """

    def __init__(self, directory: str, on_refusal: OnRefusal | None = None) -> None:
        self._directory = directory
        self._on_refusal = on_refusal
        self._pid = os.getpid()
        # reentrant: a signal handler that logs may come while its thread has it
        self._lock = threading.RLock()
        self.path = Path(directory, new_name())
        self._size = 0
        self._torn = False
        try:
            fs.make_directories(self.path.parent)
            self._fd = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666
            )
        except OSError as error:
            raise fs.refused(error, "cannot make an event file for TensorBoard", self.path) from error
        self.add_event(events.beginning(time.time()))

    def add_event(self, event: Any) -> None:
        """Write an event.

        Raises:
            StorageError: The file system refused it; it is not in the file.
            ForkError: The file is the parent process's.
        """
        self._check_owner()
        record = tfrecords.record(event.SerializeToString())
        size = len(record)
        try:
            with self._lock:
                while not self._put(record, size):
                    pass
        except OSError as error:  # what got there is cut off before the next event
            refused = fs.refused(error, "cannot write an event for TensorBoard", self.path)
            if self._on_refusal is None:
                raise refused from error
            self._on_refusal(refused)

    def _put(self, record: bytes, size: int) -> bool:
        """Write a record, unless a signal handler that logs came first. As in the journal."""
        if self._torn:
            fs.truncate(self._fd, self._size)
        at, self._torn, done = self._size, True, 0
        while done < size:  # once, unless the disk is full
            rest = record[done:] if done else record
            if self._size != at:
                return False
            done += os.pwrite(self._fd, rest, at + done)
        if self._size != at:
            return False
        self._torn, self._size = False, at + size
        return True

    def get_logdir(self) -> str:
        """The directory of the file."""
        return self._directory

    def flush(self) -> None:
        """Have what was written survive the machine.

        Raises:
            StorageError: The file system refused it.
        """
        if self._fd >= 0 and self._pid == os.getpid():
            try:
                fs.sync_data(self._fd)
            except OSError as error:
                raise fs.refused(error, "cannot sync the events for TensorBoard", self.path) from error

    def reopen(self) -> None:
        """Go on with a file that was closed.

        Raises:
            OSError: It cannot be opened.
        """
        self._fd = os.open(self.path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))

    def close(self) -> None:
        """Let go of the file. Harmless a second time, and in a forked child."""
        if self._pid != os.getpid():  # the lock may be held by a thread that is not here
            self._let_go()
            return
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _check_owner(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(
                f"{self.path} is written by the parent process: a forked child opens a store of its own, "
                "with rank= if it is to write to the same run"
            )


class RunSummaryWriter(SummaryWriter):  # type: ignore[misc]
    """tensorboardX's SummaryWriter on an `EventFile`.

    Args:
        directory: Where event files go.
        purge_step: TensorBoard is to forget what was logged from this step on.
        on_refusal: Gets the error of an event that the file system refused, instead of the caller.
    """

    def __init__(
        self, directory: str, *, purge_step: int | None = None, on_refusal: OnRefusal | None = None
    ) -> None:
        self._on_refusal = on_refusal
        super().__init__(logdir=directory, purge_step=purge_step)

    file_writer: Any
    all_writers: Any
    purge_step: int | None

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:  # or was closed: tensorboardX begins a new file then
            try:
                self.file_writer = _FileWriter(EventFile(self.logdir, self._on_refusal))
            except StorageError as error:
                if self._on_refusal is None:
                    raise
                self._on_refusal(error)
                return _FileWriter(_Nowhere(self.logdir))  # and the next event tries again
            self.all_writers = {self.logdir: self.file_writer}
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                for _ in range(2):  # TensorBoard takes a run's first for its beginning, and forgets nothing
                    self.file_writer.add_event(Event(step=self.purge_step, session_log=start))
                self.purge_step = None  # once: what comes after it is to stay
        return self.file_writer


class _Nowhere:
    """An event file for what cannot be stored."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def add_event(self, event: Any) -> None:
        """Drop it."""

    def get_logdir(self) -> str:
        """The directory of the file that is not there."""
        return self._directory

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _FileWriter(FileWriter):  # type: ignore[misc]
    """Its base would make a queue and a thread, and close them when a forked child exits."""

    def __init__(self, event_writer: EventFile | _Nowhere) -> None:
        self.event_writer = event_writer
        self._default_metadata: dict[str, Any] = {}


def new_name() -> str:
    """A name for an event file. TensorBoard reads them in the order of their names."""
    # pid and number keep two writers apart
    when, number = f"{time.time():017.6f}", f"{next(_files_made):06}"
    return f"{layout.EVENT_FILES[:-1]}{when}.{socket.gethostname()}.{os.getpid()}.{number}"


def event_files(directory: Path) -> list[Path]:
    """The event files of a directory, in the order in which TensorBoard reads them."""
    return sorted(path for path in directory.glob(layout.EVENT_FILES) if path.is_file())


def last_steps(directory: Path) -> dict[str, int]:
    """The last step of each tag in the event files of a directory.

    Raises:
        OSError: One cannot be read.
    """
    last: dict[str, int] = {}
    for path in event_files(directory):
        for data in tfrecords.contents(path.read_bytes()):
            found = events.read(data)
            for tag in found.tags:
                last[tag] = max(found.step, last.get(tag, found.step))
    return last
