"""Store: one run. Its directory, its tables, its TensorBoard writer.

::

    OUT_DIR/<exp_id>/
      store.h5        every table; pandas.read_hdf(path, 'results') opens it without cox
      tensorboard/    event files
      save/           for whatever the program saves
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, KeysView, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from cox.errors import (
    PendingRowWarning,
    RowError,
    RunNameError,
    TableNotFoundError,
    unknown,
    warn,
)
from cox.schema import OBJECT, PICKLE, PYTORCH_STATE, Schema, as_count, as_number
from cox.storage import fs, layout
from cox.storage.open_writers import release
from cox.store import ending, lifecycle
from cox.store.open_run import OpenRun
from cox.store.table import Table
from cox.tensorboard import summaries
from cox.tensorboard.curves import Curves, whole_step
from cox.utils import schema_from_dict

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

    from cox.storage.writer import RunWriter


class Store:
    """A run: a directory of tables, opened for writing or for reading.

    Args:
        storage_folder: The folder of runs, made if it is missing; `~` is the home directory.
        exp_id: The run's name inside it, or its absolute path; None makes a new run named by a UUID.
        new: Whether the run must not be there yet.
        mode: 'a' to write, going on where the run stopped; 'w' to begin its tables and curves anew; 'r' to
            read, also while another process writes it. 'r' changes nothing on disk.
        rank: This process's number, where several write the same run: its rows carry it in a column
            `rank`. None for a run's sole writer, which has a column of that name to itself only in tables
            that no rank wrote.
        sync: 'row' to have each row survive the machine before `flush_row` returns; by default it
            survives the process, and the machine once it is folded into store.h5 or the store closed.
        allow_pickle: Whether to rebuild objects that nobody vouched for; see the README on trust.
        on_error: What happens to a row or a point that the file system refuses, for a full disk say:
            'raise' raises a StorageError, 'warn' warns, counts it in `not_stored` and goes on without it.

    Attributes:
        exp_id: The run's name.
        path: Its directory, absolute.
        save_dir: Its directory for whatever the program saves, absolute.
        tb_dir: Its directory of TensorBoard event files, absolute.
        not_stored: How many rows were given up, under on_error='warn'.

    Raises:
        RunNameError: `exp_id` cannot name a run inside the folder.
        RunExistsError: `new=True`, and the run is there.
        RunNotFoundError: mode='r', and the run is not there.
        RunInUseError: Another process writes the run.
        StorageError: The directory cannot be made or written.
        FormatVersionError: A newer cox wrote the run.

    Example:
        >>> store = Store("runs")
        >>> store.add_table("results", {"step": int, "loss": float})
        >>> store["results"].append_row({"step": 0, "loss": 2.31})
        >>> store["results"].df
    """

    OBJECT: ClassVar[str] = OBJECT
    PICKLE: ClassVar[str] = PICKLE
    PYTORCH_STATE: ClassVar[str] = PYTORCH_STATE

    def __init__(
        self,
        storage_folder: str | os.PathLike[str],
        exp_id: str | None = None,
        new: bool = False,
        mode: str = "a",
        *,
        rank: int | None = None,
        sync: str | None = None,
        allow_pickle: bool = False,
        on_error: str = "raise",
    ) -> None:
        rank = _check_options(mode, rank, sync, on_error)
        folder = layout.absolute(storage_folder)
        if exp_id is None and mode == "r":
            raise RunNameError(f"mode='r' needs an exp_id: which run of {folder} is to be read?")
        exp_id = str(uuid4()) if exp_id is None else layout.check_run_name(exp_id, folder)
        run = layout.RunLayout(folder / exp_id)
        warns = on_error == "warn"
        opened = self._open = OpenRun(run, exp_id, mode=mode, allow_pickle=allow_pickle, warns=warns)
        opened.store = self
        self._save_dir: str | None = None
        self._rank = rank
        self._tables: dict[str, Table] = {}
        self._curves = Curves(
            lambda: opened.layout, rank, parameters=self._parameters, lock=opened.lock, warns=warns
        )
        if mode == "r":
            opened.refresh()
            self._find_tables()
            return
        opened.begin_writing(new=new, rank=rank, sync=sync == "row")
        for name, state in opened.writing().tables.items():
            if state.in_run:
                self._tables[name] = Table(opened, name, state)
        lifecycle.register(self)

    # --- Where it is

    @property
    def exp_id(self) -> str:
        """The run's name."""
        return self._open.exp_id

    @property
    def not_stored(self) -> int:
        """How many rows were given up, under on_error='warn'."""
        return self._open.not_stored

    @property
    def path(self) -> str:
        """The run's directory, absolute; where it is by now, if it was moved while it was written."""
        return self._open.path

    @property
    def save_dir(self) -> str:
        """The run's directory for whatever the program saves, absolute; programs may name another one."""
        return str(self._open.layout.save_dir) if self._save_dir is None else self._save_dir

    @save_dir.setter
    def save_dir(self, directory: str | os.PathLike[str]) -> None:
        self._save_dir = os.fspath(directory)

    @property
    def tb_dir(self) -> str:
        """The run's directory of TensorBoard event files, absolute."""
        return str(self._open.layout.tensorboard_dir)

    # --- Tables

    @property
    def tables(self) -> dict[str, Table]:
        """The tables by name, in the order they were made; in mode='r' as the writer has them by now."""
        self._open.refresh_if_open()
        self._find_tables()
        return self._tables

    @property
    def params(self) -> dict[str, Any]:
        """The run's parameters: the first row of its table `metadata`, without objects nobody vouched for."""
        self._open.refresh_if_open()
        self._find_tables()
        return self._parameters()

    @property
    def keys(self) -> KeysView[str]:
        """The names of the tables: a live view."""
        return self.tables.keys()

    def get_table(self, table_id: str) -> Table:
        """The table of that name.

        Raises:
            TableNotFoundError: There is none; names those there are.
        """
        found = self.tables.get(table_id)
        if found is None:
            raise TableNotFoundError(unknown(f"run {self.path} has no table", table_id, self._tables))
        return found

    def __getitem__(self, table_id: str) -> Table:
        return self.get_table(table_id)

    def __contains__(self, table_id: object) -> bool:
        return table_id in self.tables

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __bool__(self) -> bool:
        return True

    def _repr_html_(self) -> str:
        from cox.display import html

        tables = [(name, table.nrows, table._columns) for name, table in self.tables.items()]
        return html.of_tables(f"run {self.exp_id}", f"{self.path}, mode {self._open.mode!r}", tables)

    def add_table(self, table_name: str, schema: Mapping[str, Any]) -> Table:
        """Declare a table. It becomes part of the run with its first flushed row.

        Args:
            table_name: Its name, which is also its key in store.h5.
            schema: Column names to types: float, int, str, bool, each also as `| None` for a column that
                a row may leave out, or OBJECT, PICKLE, PYTORCH_STATE.

        Returns:
            The table; the same one if it was declared before with the same schema. As long as it has no
            row it can be declared anew with another one.

        Raises:
            SchemaError: The run has rows of it with another schema, or a name or type cannot be one.
        """
        columns = Schema.declare(schema, table=str(table_name))
        state = self._open.writing().add_table(table_name, columns)
        table = self._tables.get(table_name)
        if table is None or table._state is not state:
            pending = [] if table is None else table._pending_columns()
            if table is not None:
                table._drop_working_row()
            table = self._tables[table_name] = Table(self._open, table_name, state)
            if pending:
                self._warn_of_pending_row(table_name, pending)
        return table

    def add_table_like_example(self, table_name: str, example: Any, alternative: str = OBJECT) -> Table:
        """Declare a table with the types of an example row, which then fits it.

        Args:
            table_name: The table's name.
            example: Column names to values, as a mapping, a Namespace or a dataclass; numpy and 0-d torch
                scalars count as float, int, bool or str.
            alternative: How to store every other value, and one that a plain column cannot hold: OBJECT,
                PICKLE or PYTORCH_STATE.

        Raises:
            SchemaError: As `add_table`, or the example has no names and values.
        """
        return self.add_table(table_name, schema_from_dict(example, alternative))

    def rewind(
        self,
        table_name: str,
        nrows: int | None = None,
        *,
        step: float | None = None,
        column: str | None = None,
        others: bool = True,
        purge_tensorboard: bool = True,
    ) -> None:
        """Drop a table's later rows, to go on from a checkpoint after a preemption.

        Args:
            table_name: The table.
            nrows: Keep this many rows of those that this process has written, as this rank or as the sole
                writer; the rows of others stay.
            step: Drop the rows from the first on whose `column` is this or more: the step that will be logged
                next. That goes for this process's rows and, see `others`, for those of an earlier attempt.
            column: The column that counts steps. None: as in a plot, the first of step, global_step,
                iteration and epoch whose whole numbers grow with every row; if none does, the first of them.
            others: Whether to drop those of writers who are not at it now, and were not since this attempt
                began: of a sole writer where ranks go on, of all ranks where a sole writer does, and of ranks
                that have not come back yet or never will. A rank that the earlier attempt did not have cannot
                tell that it is the first of a new one, and leaves the rows of others to those that come back.
                Pass False where each rank works on its own.
            purge_tensorboard: Whether TensorBoard is to forget the points from there on as well: from that
                row on, wherever it stands, or, in a directory with other curves than those of tables' rows,
                from `step` on. Its slower loader forgets those of all tags of a directory; pass False for a
                table that counts otherwise.

        A kill in the middle leaves the rows of each writer as they were, or rewound.

        Raises:
            RewindError: The table has not so many rows, or no such column, or this is not a number.
            StorageError: The file system refused something.
        """
        table = self.get_table(table_name)
        sent = self._curves.drawn() if purge_tensorboard else {}
        # what log_table_and_tb has sent without a step is numbered by rows, whatever the table counts
        tags = {
            f"{name}/{column_name}": (name, each.nrows)
            for name, each in self._tables.items()
            for column_name in each.schema
        }
        left = table.rewind(nrows, step=step, column=column, others=others)
        if purge_tensorboard:
            first = None if step is None else math.ceil(as_number(step) or 0)
            self._curves.rewind(sent, table_name, left, first, tags)

    # --- TensorBoard

    @property
    def tensorboard(self) -> SummaryWriter:
        """This run's tensorboardX SummaryWriter, made on first use.

        Raises:
            ReadOnlyError: The store was opened with mode='r'.
        """
        self._open.writing()
        return self._curves.writer

    @property
    def writer(self) -> SummaryWriter:
        """The same as `tensorboard`."""
        return self.tensorboard

    def log_table_and_tb(
        self,
        table_name: str,
        update_dict: Mapping[str, Any],
        summary_type: str = "scalar",
        *,
        step: int | None = None,
    ) -> None:
        """Update a table's working row, and send the same values to TensorBoard.

        The tag is `table/column`. It does not flush.

        Args:
            table_name: The table.
            update_dict: Column names to values.
            summary_type: Which `add_…` of the SummaryWriter takes them: 'scalar', 'histogram', 'text',
                'image', 'images', 'figure', 'audio' or 'video'. A missing value is not shown.
            step: Where TensorBoard shows the values; by default the number of rows flushed so far. The table
                gets nothing of it.

        Raises:
            RowError: A column or the summary type is unknown, a value cannot be converted or shown so, or the
                step is not a whole number. Neither the table nor TensorBoard got anything.
        """
        table = self.get_table(table_name)
        row = table._working_row()
        if row.is_given_up:
            return
        if summary_type not in summaries.SUMMARY_TYPES:
            raise RowError(
                f"summary_type={summary_type!r}: choose one of {list(summaries.SUMMARY_TYPES)}; for anything "
                "else, call the method of store.tensorboard, and update_row for the table"
            )
        at = None if step is None else whole_step(step)
        with row.tolerating(), row.prepared(update_dict) as cells:
            self._curves.add_row(table_name, table.nrows, update_dict, cells, summary_type, at)

    def log_params(self, params: Any) -> None:
        """Log the parameters of the run: one row of its table `metadata`, whose columns they become.

        A script that is started again logs the same parameters once more, which changes nothing. Of several
        ranks, rank 0 logs them, and the others write nothing.

        Args:
            params: Names to values: a mapping, a Namespace, a dataclass, or a configuration of pydantic,
                OmegaConf or ml_collections. Nested ones get names with dots: `model.width`.

        Raises:
            ParametersError: The run has other parameters, or these are not names and values.

        Example:
            >>> store.log_params({"lr": 0.1, "model": {"width": 64}})
        """
        from cox.store.params import first_row, flat, refuse_others

        values = flat(params)
        writer = self._open.writing()
        if self._rank:
            return
        with writer.lock:
            first = first_row(self._open)
            if first is None:
                if values:  # a program without parameters is no error
                    self.add_table(layout.METADATA_TABLE, schema_from_dict(values)).append_row(values)
            else:
                row = self._tables[layout.METADATA_TABLE]._working_row()
                refuse_others(self._open, row.converter, first, values)

    def log_hparams(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Have TensorBoard's HParams tab compare this run with others by its parameters.

        That happens by itself, once, for the first row of the table `metadata`: when TensorBoard is first
        used, or, if there is no such row yet, when the store is closed. Call this for other parameters,
        before anything is logged to TensorBoard, which keeps to the first it is told; or, in the end, to
        add what came of it to the last values of all curves, by which the tab compares. Only the first of
        several ranks sends parameters.

        Args:
            params: Names to values; by default the first row of `metadata`.
            metrics: Tags to values, such as `{"best/acc": 0.93}`: logged as points at step 0.

        Raises:
            RowError: There are no parameters, or a metric has no value that is a number.
        """
        chosen = self._parameters() if params is None else dict(params)
        if not chosen:
            raise RowError("no parameters to log: give params=, or first a row of a table 'metadata'")
        if metrics is not None and not isinstance(metrics, Mapping):
            raise RowError(f"metrics={metrics!r}: give tags with their values, as in {{'best/acc': 0.93}}")
        self._open.writing()
        self._curves.add_hparams(chosen, metrics or {})

    def _parameters(self) -> dict[str, Any]:
        """The first row of `metadata`, without objects that nobody vouched for; empty if there is none."""
        from cox import metadata

        if metadata.METADATA not in self._tables:
            return {}
        now = self._open.snapshot(tables=[metadata.METADATA])
        table = now.tables.get(metadata.METADATA)
        ranked = now.has_ranks(metadata.METADATA)
        return metadata.parameters(table, self._open.layout, self._open.trust, is_ranked=ranked)

    # --- Copies and the end

    def snapshot_copy(self) -> str:
        """Copy the tables as of now to `<run>_snapshot/store.h5`, for programs that want a file at rest.

        Reading a run while it is written needs no copy: `Store(folder, exp_id, mode='r')`.

        Returns:
            The path of the copy.
        """
        from cox.storage import hdf5

        target = self._open.layout.snapshot_dir / layout.STORE_FILE
        fs.refuse_links(target.parent)
        fs.make_directories(target.parent)
        content = self._open.snapshot().content
        fs.replace_file(target, lambda path: hdf5.write(path, content), durable=False)
        return str(target)

    @classmethod
    def read_from_running(cls, storage_folder: str | os.PathLike[str], exp_id: str | None = None) -> Store:
        """Open a run for reading while another process writes it.

        Args:
            storage_folder: The folder of runs, or the run's own path.
            exp_id: The run; None if the path has it.
        """
        if exp_id is None:
            folder, exp_id = cls.split_storage_exp_paths(os.fspath(storage_folder))
            return cls(folder, exp_id, mode="r")
        return cls(storage_folder, exp_id, mode="r")

    @staticmethod
    def split_storage_exp_paths(full_path: str) -> tuple[str, str]:
        """A run's path as folder and name."""
        path = Path(full_path)
        return str(path.parent), path.name

    def close(self) -> None:
        """Finish the run: fold the journal into store.h5, flush TensorBoard. Harmless a second time.

        A store that is never closed is closed when the program ends. A working row that was never
        flushed is not stored, and warned about.
        """
        if self._open.is_closed:
            return
        self._open.is_closed = True
        lifecycle.unregister(self)
        try:
            self._curves.close()
        finally:  # whatever became of the points, the rows are folded and the run is given back
            self._close_tables()

    def _close_tables(self) -> None:
        if self._open.writer is None or self._open.writer.forked:
            return
        pending = self._pending_rows()
        for table in self._tables.values():
            table._detach()
        self._open.report_lost_rows()
        release(self._open.writer)
        self._warn_of_pending_rows(pending)  # last: where warnings are errors, all is closed by now

    def _pending_rows(self) -> dict[str, list[str]]:
        """The tables with a row that was never flushed, and its columns."""
        return {
            name: columns for name, table in self._tables.items() if (columns := table._pending_columns())
        }

    def _warn_of_pending_rows(self, pending: dict[str, list[str]]) -> None:
        for name, columns in pending.items():
            self._warn_of_pending_row(name, columns)

    def _warn_of_pending_row(self, table: str, columns: list[str]) -> None:
        warn(
            f"run {self.path}: table {table!r} had a row that was never flushed, with {columns}: "
            "it is not stored",
            PendingRowWarning,
        )

    def end(self, *, last: bool) -> None:
        """Close the run at the end of the program. A row that comes later all the same opens it again.

        Args:
            last: Whether rows that were never flushed are given up.
        """
        if self._open.writer is None or self._open.writer.forked or self._open.is_closed:
            return
        try:
            self._curves.pause()
        finally:
            self._open.report_lost_rows()
            self._open.writer.end()
        if last:
            pending = self._pending_rows()
            for table in self._tables.values():
                table._drop_working_row()
            self._warn_of_pending_rows(pending)

    def heartbeat(self) -> None:
        """Say that this run's writer lives. Done every few seconds by itself."""
        if self._open.writer is not None:
            self._open.writer.heartbeat()

    def look(self) -> None:
        """Notice whether the run is still where it was. Done twice a second by itself."""
        if self._open.writer is not None:
            self._open.writer.look()

    def fail(self, error: str) -> None:
        """Have the run end as failed.

        Args:
            error: What went wrong.
        """
        if self._open.writer is not None:
            self._open.writer.fail(error)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not ending.is_exit(error):
            self.fail(f"{type(error).__name__}: {error}")
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # after the atexit functions modules are gone piece by piece; the run has been ended by then
        opened = getattr(self, "_open", None)
        if opened is not None and opened.writer is not None and not opened.is_closed and not _is_finalizing():
            self.close()

    def __getstate__(self) -> object:
        raise TypeError(
            f"a Store cannot be pickled: let the other process open the run {self.path!r} by itself, with "
            "rank= if it is to write"
        )

    def __str__(self) -> str:
        return "\n".join(f"-- Table: {name} --\n{table}\n" for name, table in self.tables.items())

    def __repr__(self) -> str:
        return f"<Store {self.path!r}, mode={self._open.mode!r}: {', '.join(self._tables) or 'no tables'}>"

    # --- Inside

    @property
    def _run(self) -> layout.RunLayout:
        return self._open.layout

    @property
    def _writer(self) -> RunWriter | None:
        return self._open.writer

    def _find_tables(self) -> None:
        """In mode='r': have a table for each that was found."""
        new = [name for name in self._open.schemas if name not in self._tables]
        if new:  # a new dict, because the program may be iterating over this one
            self._tables = {**self._tables, **{name: Table(self._open, name, None) for name in new}}


def _check_options(mode: str, rank: Any, sync: str | None, on_error: str) -> int | None:
    """Refuse what is not an option. Returns the rank as Python's int."""
    if mode not in ("a", "r", "w"):
        raise ValueError(f"mode={mode!r}: choose 'a' to write, 'w' to begin anew, 'r' to read")
    number = None if rank is None or isinstance(rank, float) else as_count(rank)
    if rank is not None and number is None:
        raise ValueError(f"rank={rank!r}: give this process's number, 0 or more")
    if sync not in (None, "row"):
        raise ValueError(f"sync={sync!r}: choose 'row', or None for the default")
    if on_error not in ("raise", "warn"):
        raise ValueError(f"on_error={on_error!r}: choose 'raise', or 'warn' to go on without what is refused")
    return number
