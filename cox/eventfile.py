"""TensorBoard's event file of a run: each event is on its way to the disk when `add_…` returns.

tensorboardX hands its events to a queue and a thread, which cost more than the write that they save,
lose what they hold when the process is killed, and lock up a forked child that takes them along.
Here an event is one write, at once: what was logged survives the death of the process, as rows do.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from itertools import count
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.writer import FileWriter

from cox.errors import ForkError
from cox.storage import fs

_files_made = count()


class EventFile:
    """An event file. Stands in for tensorboardX's EventFileWriter.

    Args:
        directory: Where the file is made.

    Raises:
        StorageError: The file cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._pid = os.getpid()
        # TensorBoard reads files in the order of their names; pid and number keep two writers apart
        when, number = f"{time.time():017.6f}", f"{next(_files_made):06}"
        name = f"events.out.tfevents.{when}.{socket.gethostname()}.{self._pid}.{number}"
        self.path = Path(directory, name)
        self._size = 0
        self._torn = False
        try:
            fs.make_directories(self.path.parent)
            self._fd = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666
            )
        except OSError as error:
            raise fs.refused(error, "cannot make an event file for TensorBoard", self.path) from error
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_event(self, event: Any) -> None:
        """Write an event.

        Raises:
            StorageError: The file system refused it; it is not in the file.
            ForkError: The file is the parent process's.
        """
        self._check_owner()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        record = length + next(sums) + data + next(sums)
        try:
            if self._torn:
                fs.truncate(self._fd, self._size)
            self._torn = True
            fs.write_at(self._fd, record, self._size)
        except OSError as error:  # what got there is cut off before the next event
            raise fs.refused(error, "cannot write an event for TensorBoard", self.path) from error
        self._torn = False
        self._size += len(record)

    def get_logdir(self) -> str:
        """The directory of the file."""
        return self._directory

    def flush(self) -> None:
        """Have what was written survive the machine."""
        if self._fd >= 0 and self._pid == os.getpid():
            fs.sync_data(self._fd)

    def close(self) -> None:
        """Let go of the file. Harmless a second time, and in a forked child."""
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
    """

    def __init__(self, directory: str, *, purge_step: int | None = None) -> None:
        super().__init__(logdir=directory, purge_step=purge_step)

    file_writer: Any
    all_writers: Any

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:  # or was closed: tensorboardX begins a new file then
            self.file_writer = _FileWriter(self.logdir)
            self.all_writers = {self.logdir: self.file_writer}
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                self.file_writer.add_event(Event(step=self.purge_step, session_log=start))
        return self.file_writer


class _FileWriter(FileWriter):  # type: ignore[misc]
    """Its base would make a queue and a thread, and close them when a forked child exits."""

    def __init__(self, directory: str) -> None:
        self.event_writer = EventFile(directory)
        self._default_metadata: dict[str, Any] = {}
