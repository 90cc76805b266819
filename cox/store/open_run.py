"""A run that a store has open, to write it or to read it. The store has one, and gives it to its tables."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cox.errors import (
    ClosedError,
    CoxError,
    CoxWarning,
    LossyConversionWarning,
    ReadOnlyError,
    RunExistsError,
    RunInUseError,
    RunNotFoundError,
    StorageWarning,
    warn,
)
from cox.objects.trust import Place, Trust, adopt
from cox.schema import Schema
from cox.storage import empty, fs, layout, runinfo
from cox.storage.layout import RunLayout
from cox.storage.open_writers import open_writer, release

if TYPE_CHECKING:
    from cox.errors import StorageError
    from cox.storage.columns import TableData
    from cox.storage.snapshot import Snapshot
    from cox.storage.writer import RunWriter

_log = logging.getLogger("cox")


class OpenRun:
    """A run that is open.

    Args:
        run: Where it lies.
        exp_id: Its name.
        mode: 'a', 'w' or 'r', as in `Store`.
        allow_pickle: Whether to rebuild objects that nobody vouched for.
        warns: Whether to go on, with a warning, without what the file system refuses.

    Attributes:
        exp_id: Its name, which changes if a run that is read was renamed.
        mode: The argument.
        trust: Which of its objects may be rebuilt.
        warns: The argument.
        writer: What writes it; None in mode='r'.
        schemas: The columns of its tables, as far as they are known from reading.
        is_closed: Whether the store is closed.
        not_stored: How many rows were given up.
        store: The store, which is not closed as long as one of its tables is in use.
    """

    def __init__(self, run: RunLayout, exp_id: str, *, mode: str, allow_pickle: bool, warns: bool) -> None:
        self.exp_id = exp_id
        self.mode = mode
        self.trust = Trust(run, allow_pickle=allow_pickle)
        self.warns = warns
        self.writer: RunWriter | None = None
        self.schemas: dict[str, Schema] = {}
        self.is_closed = False
        self.not_stored = 0
        self.store: object = None
        self._opened = run
        self._reported = 0  # how many of these the run has been told of
        self._said_of_rank = False  # that a sole writer's own value for `rank` is not stored

    @property
    def layout(self) -> RunLayout:
        """Where it lies by now."""
        return self._opened if self.writer is None else self.writer.run

    @property
    def path(self) -> str:
        """Its directory, absolute."""
        return str(self.layout.root)

    # --- Writing

    def begin_writing(self, *, new: bool, rank: int | None, sync: bool) -> None:
        """Take the right to write it, and make it if it is not there. For the arguments see `Store`."""
        run = self._opened
        made = False
        try:
            fs.make_directories(run.root.parent, durable=True)
            made = fs.make_directory(run.root)
            if made:
                _log.info("Logging in: %s", self.path)
            elif new:
                raise RunExistsError(f"run {self.path} exists already; leave new=True out to go on with it")
            is_old = not made and run.store_file.exists() and runinfo.run_id(run) is None
            self.writer = open_writer(run, rank, sync=sync, made=made)
            if is_old:
                adopt(run, self.writer.run_id)
        except OSError as error:
            if made and not isinstance(error, RunInUseError):
                _remove_unused(run, rank)
            if isinstance(error, CoxError):
                raise
            raise fs.refused(error, "cannot make the run", error.filename or self.path) from error
        if self.mode == "w":
            try:
                self.writer.truncate()
            except BaseException:
                release(self.writer)
                self.writer = None
                raise

    def writing(self) -> RunWriter:
        """What writes it.

        Raises:
            ClosedError: The store is closed.
            ReadOnlyError: It was opened to be read.
        """
        if self.is_closed:
            raise ClosedError(f"the store of run {self.path} is closed: open it again to go on")
        if self.writer is None:
            raise ReadOnlyError(f"run {self.path} was opened with mode='r'; open it with mode='a' to write")
        return self.writer

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Write something besides rows, which is not to bring a run back that is gone."""
        writer = self.writing()
        with writer.lock:
            writer.check_usable()
            writer.check_place()
            writer.begin_session()
            yield

    def give_up_row(self, table: str, error: StorageError) -> None:
        """Count a row that was not stored. Warns of the first, and whenever their number has doubled."""
        self.not_stored += 1
        if self.not_stored & (self.not_stored - 1) == 0:
            rows = f"{self.not_stored} rows" if self.not_stored > 1 else "a row"
            warn(
                f"{rows} of run {self.path} so far not stored, now of table {table!r}: {error}",
                StorageWarning,
            )

    def report_lost_rows(self) -> None:
        """Have the run say how many rows were not stored, each of them once."""
        lost = self.not_stored - self._reported
        if lost and self.writer is not None:
            self._reported = self.not_stored
            self.writer.count_lost(lost)
            _log.warning("run %s: %d rows were not stored, for the file system refused them", self.path, lost)

    def warn_of_rank(self, table: str, value: Any) -> None:
        """Say, once, that the sole writer's own value for a column `rank` is not stored."""
        if self._said_of_rank:
            return
        self._said_of_rank = True
        warn(
            f"run {self.path}: table {table!r}: the value {value} for the column 'rank' was "
            "not stored, nor will later ones be: ranks wrote this table too, and the column holds the "
            "number of the rank that wrote a row; give a column of your own another name",
            LossyConversionWarning,
        )

    # --- Reading

    def snapshot(self, **options: Any) -> Snapshot:
        """Its tables as of now, see `cox.storage.snapshot.read`. Warns of what cannot be read."""
        from cox.storage import snapshot

        now = snapshot.read(self.layout, **options)
        now.warn(self.path)
        return now

    def refresh_if_open(self) -> None:
        """In mode='r': learn which tables there are by now."""
        if self.mode == "r" and not self.is_closed:
            self.refresh()

    def refresh(self) -> None:
        """Learn which tables there are."""
        if not self.layout.root.is_dir():
            self._opened = self._moved_run()
        runinfo.read(self.layout)
        self.schemas |= {name: table.schema for name, table in self.snapshot(rows=False).tables.items()}

    def read_table(self, name: str) -> TableData | None:
        """One of its tables as of now; None if there is no such one."""
        return self.snapshot(tables=[name]).tables.get(name)

    def count_rows(self, name: str) -> int:
        """How many rows one of its tables has by now."""
        return self.snapshot(rows=False).content.nrows.get(name, 0)

    def _moved_run(self) -> RunLayout:
        """The run that had this name until it was moved, within the folder, while it was written."""
        run = runinfo.moved_from(self.layout)
        if run is None:
            raise RunNotFoundError(f"there is no run {self.exp_id!r} in {self.layout.root.parent}")
        name = run.root.name
        warn(f"run {self.path} was renamed while it was written: {name!r} is read in its place", CoxWarning)
        self.exp_id = name
        return run

    def place(self, table: str, schema: Schema) -> Place:
        """Where an object of a table stands, of which only the cell is known."""
        columns = tuple(column.name for column in schema if column.traits.is_object)
        return Place(table, columns, f"table {table!r} of run {self.path}")


def _remove_unused(run: layout.RunLayout, rank: int | None) -> None:
    """Remove a run directory that could not be made whole, if there is nothing in it that anybody wrote."""
    known = {layout.STORE_FILE, layout.RUN_FILE, layout.FOLD_LOCK}
    with contextlib.suppress(OSError):
        files = [path for path in run.root.rglob("*") if path.is_file()]
        unused = all(
            path.name in known
            or path.parent == run.claims_dir
            or path == run.sessions_file(layout.writer_name(rank))
            or path.suffix == layout.HELD_SUFFIX
            or path.name.startswith(layout.TEMPORARY_PREFIX)
            for path in files
        )
        if unused and not (run.store_file.exists() and run.store_file.stat().st_size > len(empty.contents())):
            shutil.rmtree(run.root)
