"""TensorBoard's event files of a run: each event is written before `add_…` returns.

tensorboardX hands its events to a queue and a thread, which cost more than the write that they save,
lose what they hold when the process is killed, and lock up a forked child that takes them along.
Here an event is one write, at once: what was logged survives the death of the process, as rows do.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tensorboardX.writer import FileWriter
from tensorboardX.x2num import make_np

from cox.errors import ClosedError, ForkError, IrregularFileError, RowError, StorageError
from cox.storage import curvefiles, fs, layout
from cox.tensorboard import summaries, tfrecords

_files_made = count()
OnRefusal = Callable[[StorageError], object]
#: Parameters, metrics, and the step of these.
SendHParams = Callable[[Mapping[str, Any], Mapping[str, Any], Any], object]

#: How many files of `add_scalars` are kept open. The others are opened anew for each event.
_MOST_OPEN = 64
#: How many events of many are written at once.
_BATCH = 500


class EventFile:
    """An event file. Stands in for tensorboardX's EventFileWriter.

    It is opened again by the next event after a close. If somebody removed it, the next event begins another.

    Args:
        directory: Where the file is made.
        on_refusal: Gets the error of an event that the file system refused, instead of the caller.
        inside: The run, whose own directory is not made: somebody removed it.

    Raises:
        StorageError: The file cannot be made.
    """

    def __init__(
        self, directory: str, on_refusal: OnRefusal | None = None, *, inside: Path | None = None
    ) -> None:
        self._directory = directory
        self._on_refusal = on_refusal
        self._pid = os.getpid()
        # reentrant: a signal handler that logs may come while its thread has it
        self._lock = threading.RLock()
        self.path = Path(directory)
        self._fd = -1
        try:
            fs.make_directories(self.path, inside=inside)
            fs.refuse_links(self.path)
            self._begin()
        except IrregularFileError:
            raise
        except OSError as error:
            raise fs.refused(error, "cannot make an event file for TensorBoard", self.path) from error
        self.add_event(summaries.beginning(time.time()))

    def _begin(self) -> None:
        self.path = Path(self._directory, new_name())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(self.path, flags, 0o666)
        self._let_go()
        self._fd, self._size, self._torn = fd, 0, False

    def add_event(self, event: Any) -> None:
        """Write an event.

        Raises:
            StorageError: The file system refused it; it is not in the file.
            ForkError: The file is the parent process's.
        """
        self._write(tfrecords.record(event.SerializeToString()))

    def add_events(self, many: Iterable[Any]) -> None:
        """Write events, some hundreds at a time: when this returns, all of them are written.

        Raises:
            StorageError: The file system refused some; of these and those after them none is in the file.
            ForkError: The file is the parent process's.
        """
        records = (tfrecords.record(event.SerializeToString()) for event in many)
        while batch := b"".join(islice(records, _BATCH)):
            self._write(batch)

    def _write(self, record: bytes) -> None:
        """Write a record, or several, whole or not at all."""
        self._check_owner()
        size = len(record)
        try:
            with self._lock:
                if self._fd < 0:
                    self._fd = fs.open_own(self.path, os.O_WRONLY)
                elif fs.is_removed(self._fd):  # nobody finds what is written to it
                    self._begin()
                    record = tfrecords.record(summaries.beginning(time.time()).SerializeToString()) + record
                    size = len(record)
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

    @property
    def is_open(self) -> bool:
        """Whether it has a descriptor."""
        return self._fd >= 0

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
        _check_process(self._pid, self.path)


class RunSummaryWriter(SummaryWriter):  # type: ignore[misc]
    """tensorboardX's SummaryWriter on `EventFile`s, also where it writes into files of their own.

    `add_hparams` tells the parameters of the run itself, where tensorboardX would make another run.

    Args:
        directory: Where event files go.
        inside: The run, whose own directory is not made: somebody removed it.
        purges: Directories of event files, and the step from which on TensorBoard is to forget what is there.
        on_refusal: Gets the error of an event that the file system refused, instead of the caller.
        send_hparams: Sends what `add_hparams` is given; without it, tensorboardX does.
    """

    def __init__(
        self,
        directory: str,
        *,
        inside: Path | None = None,
        purges: Mapping[Path, int] | None = None,
        on_refusal: OnRefusal | None = None,
        send_hparams: SendHParams | None = None,
    ) -> None:
        self._on_refusal = on_refusal
        self._inside = inside
        self._send_hparams = send_hparams
        self._purges: dict[str, int] = {}
        self._end: str | None = None  # why nothing more can be logged
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._add_purges(purges or {})
        super().__init__(logdir=directory)
        self._begin_purges()

    file_writer: Any
    all_writers: Any
    scalar_dict: dict[str, list[list[Any]]]

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Write values that TensorBoard shows as curves of one chart: a file for each, in its own directory.

        Raises:
            RowError: A tag leads out of the directory of the run.
            StorageError: The file system refused it.
        """
        walltime = time.time() if walltime is None else walltime
        self._get_file_writer()
        points = []
        for tag, value in tag_scalar_dict.items():
            directory = os.path.normpath(os.path.join(self.logdir, main_tag, tag))  # noqa: PTH118
            if not directory.startswith(os.path.join(self.logdir, "")):  # noqa: PTH118
                raise RowError(f"add_scalars: the tags {main_tag!r} and {tag!r} lead out of {self.logdir}")
            points.append((directory, scalar(main_tag, value), float(make_np(value).squeeze())))
        for directory, summary, number in points:
            self._writer_of(directory).add_summary(summary, global_step, walltime)
            # what export_scalars_to_json writes
            self.scalar_dict.setdefault(directory, []).append([walltime, global_step, number])

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Tell the HParams tab the parameters of this run, and add points of its metrics.

        Args:
            hparam_dict: Names to values.
            metric_dict: Tags to values.
            name: Is not heeded: what is to be another run is another Store.
            global_step: The step of the points; 0, if it is not given.

        Raises:
            RowError: A metric is not a number.
        """
        self._get_file_writer()
        if self._send_hparams is None:
            super().add_hparams(hparam_dict, metric_dict, name, global_step)
        else:
            self._send_hparams(hparam_dict, metric_dict, global_step)

    def add_embedding(
        self,
        mat: Any,
        metadata: Any = None,
        label_img: Any = None,
        global_step: int | None = None,
        tag: str = "default",
        metadata_header: Any = None,
    ) -> None:
        """Write a matrix for the projector. One of the same tag and step takes the place of an earlier one.

        Raises:
            RowError: The tag cannot name a directory.
            StorageError: The file system refused it.
        """
        place = Path(self._get_file_writer().get_logdir())
        try:
            with self._making(), _scratch(place) as scratch:
                writer = SummaryWriter(logdir=os.fspath(scratch), write_to_disk=False)
                writer.add_embedding(mat, metadata, label_img, global_step, tag, metadata_header)
                (entry,) = curvefiles.read_embeddings(scratch)
                if entry.place is None:
                    raise RowError(f"add_embedding: tag={tag!r} cannot name a directory")
                curvefiles.add_embedding(place, scratch, entry)
        except OSError as error:
            refused = fs.refused(error, "cannot write an embedding for TensorBoard", error.filename or place)
            if self._on_refusal is None:
                raise refused from error
            self._on_refusal(refused)

    def purge(self, steps: Mapping[Path, int]) -> None:
        """Have TensorBoard forget what was sent from some steps on, and go on in new files.

        Args:
            steps: The directories of event files, and the first step that is to be forgotten in each.
        """
        self.close()
        self._add_purges(steps)
        self._get_file_writer()
        self._begin_purges()

    def flush(self) -> None:
        """Sync what was written to disk."""
        with self._making():
            super().flush()

    def close(self) -> None:
        """Let go of all files. The next event begins new ones."""
        with self._making():
            super().close()

    def end(self, why: str) -> None:
        """Close it for good: whoever kept it gets a ClosedError that says why."""
        self._end = why
        self.close()

    def _get_file_writer(self) -> Any:
        if self._end is not None:
            raise ClosedError(self._end)
        _check_process(self._pid, self.logdir)
        if self.file_writer is None:  # or was closed: tensorboardX begins a new file then
            with self._making():  # of two threads that come here, one makes it
                if self.file_writer is None:
                    writer = self._begun(self.logdir)
                    if isinstance(writer.event_writer, _Nowhere):
                        return writer  # and the next event tries again
                    self.all_writers = {self.logdir: writer}
                    self.file_writer = writer
        return self.file_writer

    def _writer_of(self, directory: str) -> Any:
        """The writer of a directory below the own one."""
        with self._making():
            if self.all_writers is None:  # nothing can be stored
                return self._begun(directory)
            writer = self.all_writers.pop(directory, None) or self._begun(directory)
            if isinstance(writer.event_writer, EventFile):
                self.all_writers[directory] = writer  # the last one is the one that was used last
                self._close_idle()
            return writer

    def _begun(self, directory: str) -> _FileWriter:
        try:
            writer = _FileWriter(EventFile(directory, self._on_refusal, inside=self._inside))
        except StorageError as error:
            if self._on_refusal is None:
                raise
            self._on_refusal(error)
            return _FileWriter(_Nowhere(directory))
        if (step := self._purges.get(directory)) is not None:
            start = SessionLog(status=SessionLog.START)
            for _ in range(2):  # TensorBoard takes a run's first for its beginning, and forgets nothing
                writer.add_event(Event(step=step, session_log=start))
            del self._purges[directory]  # once: what comes after it is to stay
        return writer

    def _add_purges(self, steps: Mapping[Path, int]) -> None:
        self._purges.update({os.fspath(directory): step for directory, step in steps.items()})

    def _begin_purges(self) -> None:
        """Begin new files where something is to be forgotten: TensorBoard is told by them."""
        for directory in list(self._purges):
            if directory != self.logdir:
                self._writer_of(directory)

    def _making(self) -> AbstractContextManager[object]:
        """Be the one who makes or closes files. In a forked child, a thread that is not here may have it."""
        return self._lock if self._pid == os.getpid() else nullcontext()

    def _close_idle(self) -> None:
        """Let go of descriptors of the files that were not used for longest."""
        files = [
            writer.event_writer for writer in self.all_writers.values() if writer is not self.file_writer
        ]
        open_files = [file for file in files if file.is_open]
        for file in open_files[:-_MOST_OPEN]:
            file.close()


def _check_process(pid: int, path: str | os.PathLike[str]) -> None:
    if pid != os.getpid():
        raise ForkError(
            f"{os.fspath(path)} is written by the parent process: a forked child opens a store of its own, "
            "with rank= if it is to write to the same run"
        )


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
    """A name for an event file. Process and number keep two writers apart."""
    return layout.event_file_name(time.time(), socket.gethostname(), os.getpid(), next(_files_made))


@dataclass(slots=True)
class Drawn:
    """What stands in the event files of a directory, without what was purged.

    Attributes:
        last: The last step of each tag.
        rows: Of tables whose rows were sent with steps of their own: number and step of each row.
    """

    last: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))


def drawn(directory: Path) -> Drawn:
    """What stands in the event files of a directory.

    Raises:
        OSError: One cannot be read.
    """
    seen = Drawn()
    for path in curvefiles.event_files(directory):
        for data in tfrecords.contents(fs.read_bytes(path)):
            event = summaries.read(data)
            if event.purged_from is not None:
                start = event.purged_from
                seen.last = {tag: min(step, start - 1) for tag, step in seen.last.items()}
                for table, rows in seen.rows.items():
                    seen.rows[table] = [(row, step) for row, step in rows if step < start]
            for tag in event.tags:
                seen.last[tag] = max(event.step, seen.last.get(tag, event.step))
            if event.row is not None:
                table, row = event.row
                seen.rows[table].append((row, event.step))
    return seen


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A directory for unfinished files, beside where they are to go."""
    for path in place.glob(f"{layout.TEMPORARY_PREFIX}*.d"):
        shutil.rmtree(path, ignore_errors=True)  # of one that was killed
    path = fs.temporary_beside(place / "embedding").with_suffix(".d")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
