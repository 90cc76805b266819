"""One writer of one run in this process: its claim, its journal, the tables it knows.

However many Stores a program opens on a run, they share one of these. It folds when the journal has
grown as large as all that was folded before, so that the total cost of folding stays linear.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cox.errors import ClosedError, CoxError, DamagedError, RewindError, SchemaError
from cox.schema import Column, Schema, describe_difference
from cox.storage import claims, empty, fs, layout, leftovers, sessions
from cox.storage.hold import Hold, explained
from cox.storage.journal import MOST_RECORDS, compiled
from cox.storage.schemas import continues, with_rank, with_tail

if TYPE_CHECKING:
    from cox.storage.snapshot import Snapshot


_log = logging.getLogger("cox")

#: A journal is folded once it is this large, or as large as all that was folded before, in bytes.
FOLD_AT = 32 * 1024 * 1024
#: A run with higher sequence numbers than this was not written by logging.
_MOST_RECORDS = MOST_RECORDS // 2


class TableState:
    """A table as its writer knows it.

    Attributes:
        name: The table's name.
        schema: Its columns, with `rank` at the end where the writer is one of several.
        nrows: How many rows of it this writer flushed.
        declared: How many columns, but for `rank`, it had when the journal declared it.
        in_run: Whether it has a flushed row, and so is part of the run.
        logged_before: Of metadata, how many rows the same process has written in earlier sessions, by rank;
            None is the sole writer, which is the same as rank 0.
        has_ranks: Whether ranks have rows of it, as far as is known, so that its column `rank` is theirs.
        takes_rank: Whether the next row makes a column `rank` of the sole writer's own that of the ranks.
        append_plain: Journals a row that needs no conversion, and returns whether it was such a row.
    """

    __slots__ = (
        "append_plain",
        "declared",
        "generation",
        "has_ranks",
        "id",
        "in_run",
        "logged_before",
        "name",
        "nrows",
        "schema",
        "takes_rank",
        "writer",
    )

    def __init__(self, writer: RunWriter, name: str, schema: Schema, nrows: int, *, in_run: bool) -> None:
        self.writer = writer
        self.name = name
        self.schema = schema
        self.nrows = nrows
        self.in_run = in_run
        self.logged_before: dict[int | None, int] = {}
        self.has_ranks = self.takes_rank = False
        self.forget_declaration()

    def forget_declaration(self) -> None:
        """Have the next row declare the table: it is not declared in the journal to come."""
        self.id = self.generation = -1
        self.declared = 0
        self.append_plain: compiled.Append = compiled.never

    def check_current(self, *, writes: bool = True) -> None:
        """Refuse a table of which nothing is left.

        Args:
            writes: Whether it is to be written: a run that the end of the program closed is opened again.

        Raises:
            ClosedError: The run was opened again with mode='w', or the table declared with other columns.
        """
        if writes or not self.writer.reopens:
            self.writer.check_usable()
        if self.writer.tables.get(self.name) is not self:
            raise ClosedError(
                f"table {self.name!r} of run {self.writer.run.root} was begun anew, with mode='w' or with "
                "other columns: use store[name], or what add_table returned last"
            )

    def append(self, values: tuple[Any, ...]) -> None:
        """Journal one row: a value for each column but `rank`, None where it is missing.

        Raises:
            StorageError: The file system refused it; the row is not in the run.
        """
        writer = self.writer
        with writer.lock:
            try:
                while not (
                    writer.declare(self, values)
                    if self.generation != writer.journal.generation
                    else writer.journal.append_row(
                        self.id, with_tail(values, writer.tail, self.declared), self
                    )
                ):
                    self.check_current()
            except CoxError:
                raise
            except OSError as error:
                raise self.refusal(error) from error
            if writer.journal.size >= writer.fold_at:
                writer.fold_if_it_helps()

    def refusal(self, error: OSError) -> Exception:
        """The error to raise for a row that was not written."""
        return self.writer.refusal(error, f"cannot write a row of table {self.name!r}")


class RunWriter(Hold):
    """The right to write a run, and the means. Use `open_writer`. For arguments and errors see `Hold`."""

    def __init__(self, run: layout.RunLayout, rank: int | None, *, sync: bool, made: bool = False) -> None:
        self.tail: tuple[int, ...] = () if rank is None else (rank,)
        self.users = 0
        self.tables: dict[str, TableState] = {}
        self.fold_at = FOLD_AT
        self._ids = 0
        super().__init__(run, rank, sync=sync, made=made)

    # --- What a run has

    def add_table(self, name: str, schema: Schema) -> TableState:
        """Declare a table, or find it declared before with the same columns; anew, while it has no row.

        Raises:
            SchemaError: It has rows and other columns, or its name cannot be one.
        """
        with self.lock:
            layout.check_table_name(name)
            schema = self._with_rank(name, schema)
            known = self.tables.get(name)
            if known is None or (not known.in_run and known.schema != schema):
                # without a row it is not part of the run yet: a mistaken declaration binds nobody
                known = self.tables[name] = TableState(self, name, schema, 0, in_run=False)
            elif not continues(known.schema, schema):
                raise SchemaError(
                    f"table {name!r} is in run {self.run.root} with another schema: the new one "
                    f"{describe_difference(known.schema, schema)}; use another name, or add_column for new "
                    "columns"
                )
            return known

    def declare(self, table: TableState, values: tuple[Any, ...] | None, column: Column | None = None) -> int:
        """Journal a table's declaration, together with its next row. The caller holds the lock.

        Args:
            table: The table.
            values: The row: a value for each column but `rank`.
            column: A column that it gets with this declaration.

        Returns:
            As `JournalWriter.append_table`; 0 also if a signal handler added a column meanwhile.
        """
        table.check_current()
        self.check_place()
        self.begin_session()
        number, self._ids = self._ids, self._ids + 1  # used up even if the write fails
        before = table.schema
        schema = before if column is None else self._with_rank(table.name, before.with_column(column))
        columns = self.own_columns(schema)
        append = self._compile_append(table, number, columns, len(columns))
        generation = self.journal.generation
        row = None if values is None else with_tail(values, self.tail, len(columns))
        size = self.journal.append_table(number, table.name, schema, row, table)
        # no call from here on, so that no signal handler comes between
        if size:
            table.in_run = True
            if table.schema is before:
                table.schema, table.declared = schema, len(columns)
                table.id, table.generation, table.append_plain = number, generation, append
            elif column is not None:
                return 0
        return size

    def _compile_append(
        self, table: TableState, number: int, columns: list[Column], declared: int
    ) -> compiled.Append:
        if table.logged_before or table.takes_rank or (self.rank is None and table.has_ranks):
            return compiled.never  # each row is compared with the earlier ones, or its `rank` is not stored
        return compiled.compile_append(table, number, columns, self.tail, declared)

    def add_column(self, table: TableState, column: Column) -> None:
        """Add a column to a table; rows before it read as missing, and rows after it may leave it out.

        Raises:
            SchemaError: The table has one of that name and another type.
        """
        with self.lock:
            self.check_usable()
            known = table.schema.get(column.name)
            column = Column(column.name, column.kind, nullable=True)
            if known == column:
                return
            if known is not None or column.name == layout.RANK_COLUMN and self.rank is not None:
                raise SchemaError(
                    f"table {table.name!r} has a column {column.name!r} of another type already"
                )
            try:
                while column.name not in table.schema and not self._journal_column(table, column):
                    pass  # overtaken by a signal handler that logs
            except CoxError:
                raise
            except OSError as error:
                raise self.refusal(error, f"cannot add a column to table {table.name!r}") from error

    def _journal_column(self, table: TableState, column: Column) -> int:
        """Journal that a table has a column more. Returns as `declare`."""
        if not table.in_run:  # the next row declares it, also where all its rows were rewound
            table.forget_declaration()
            table.schema = self._with_rank(table.name, table.schema.with_column(column))
            return 1
        if table.generation != self.journal.generation:
            return self.declare(table, None, column)
        self.check_usable()
        table.check_current()
        before, number, generation, declared = table.schema, table.id, table.generation, table.declared
        schema = self._with_rank(table.name, before.with_column(column))
        append = self._compile_append(table, number, self.own_columns(schema), declared)
        table.forget_declaration()  # a signal handler that logs now does so under another number
        size = self.journal.append_column(number, column, table)
        # no call from here on, as in `declare`
        if not size or table.schema is not before or table.generation != -1:
            return 0
        table.schema, table.declared = schema, declared
        table.id, table.generation, table.append_plain = number, generation, append
        return size

    def rewind_to_step(self, table: TableState, columns: Sequence[str], step: float, *, others: bool) -> int:
        """Drop the rows of a table from a step on.

        Args:
            table: The table.
            columns: Its columns of numbers that may count steps, the likeliest first: the first of them that
                does, or else the first.
            step: The first step to be dropped.
            others: Whether to drop not only this writer's rows, but also those of an earlier attempt at the
                run whose writers are not at it now.

        Returns:
            How many rows of its own this writer has left.
        """
        from cox.storage import snapshot

        with self.lock:
            self.check_usable()
            now = snapshot.read(self.run, tables=[table.name])
            counting = now.step_column(table.name, columns) if table.name in now.tables else None
            column = counting or columns[0]
            kept = {name: now.rows_before(table.name, name, column, step) for name in now.writers}
            rows = {name: now.own_rows(name).get(table.name, 0) for name in kept}
            if others and any(kept[name] < rows[name] for name in kept if name != self.name):
                self._rewind_others(table, column, step)
            self.rewind(table, kept.get(self.name, 0))
            return table.nrows

    def _rewind_others(self, table: TableState, column: str, step: float) -> None:
        from cox.storage import fold

        self.begin_session()  # from here on the attempt is ours, and that of all who have begun since
        attempt = sessions.read(self.run).last_attempt()
        # whoever was at it since: one that crashed as well, for its rows are no older than ours
        spared = [self.name, *(one.writer or "" for one in attempt)]
        patience = 0 if self._folding else claims.PATIENCE  # called from a handler, in mid-fold
        try:
            fold.rewind_others(
                self.run, table.name, column, step, own=self.journal, spared=spared, patience=patience
            )
        except OSError as error:
            raise self.refusal(error, f"cannot rewind table {table.name!r}") from error
        self._look_whether_in_run(table)

    def rewind(self, table: TableState, nrows: int) -> None:
        """Drop this writer's rows of a table from number `nrows` on.

        Raises:
            RewindError: It has not so many.
        """
        with self.lock:
            self.check_usable()
            if not 0 <= nrows <= table.nrows:
                whose = "it has" if self.rank is None else f"rank {self.rank} has"
                raise RewindError(
                    f"table {table.name!r}: cannot rewind to {nrows} rows, {whose} {table.nrows} of its own; "
                    f"give 0 to {table.nrows}, or step= for the rows of all processes"
                )
            if nrows == table.nrows:
                return
            self.begin_session()
            try:
                self.check_place()
                while not self.journal.append_rewind(table.name, nrows, table):
                    self.check_usable()
            except CoxError:
                raise
            except OSError as error:
                raise self.refusal(error, f"cannot rewind table {table.name!r}") from error
            if self.rank in table.logged_before:
                table.logged_before[self.rank] = min(nrows, table.logged_before[self.rank])
            if nrows == 0:
                self._look_whether_in_run(table)

    def _look_whether_in_run(self, table: TableState) -> None:
        """Learn whether there are rows of a table left: without any, the next one declares the table."""
        from cox.storage import snapshot

        if not table.nrows:
            table.forget_declaration()
            table.in_run = snapshot.read(self.run, rows=False).content.nrows.get(table.name, 0) > 0

    def sync_from_now_on(self) -> None:
        """Have what was written so far survive the machine, and each row to come: `sync='row'`."""
        with self.lock:
            self.sync = True
            with explained(self.run.root, "cannot sync the run"):
                self.journal.sync_from_now_on()
            for table in self.tables.values():
                table.forget_declaration()  # the fast way syncs nothing

    # --- Its life

    def fold_if_it_helps(self) -> None:
        """Fold a grown journal. What goes wrong is logged: the rows are safe where they are."""
        from cox.storage import fold

        with self.lock:
            try:
                self.check_place()
            except CoxError:
                self.journal.generation += 1  # the next row says so
                return
            # a new journal first: whatever comes in between, a signal handler that logs or an exception of
            # one, no row goes into a journal that is being folded or is gone
            counted = {name: table.nrows for name, table in self.tables.items()}
            self.journal.close()
            generation = self.journal.generation
            self._folding = True
            try:
                now = fold.fold(self.run, own=self.journal, patience=0)  # no row waits for another's fold
            except BlockingIOError:
                self.fold_at = FOLD_AT // 4
            except (CoxError, OSError, RuntimeError, ValueError, LookupError, MemoryError) as error:
                _log.warning("run %s: cannot fold the journal yet: %s", self.run.root, error)
                self.fold_at = FOLD_AT
            else:
                own = now.own_rows(self.name)
                for name, nrows in counted.items():
                    table, lost = self.tables[name], nrows - own.get(name, 0)
                    if lost > 0:  # the disk lost some
                        table.nrows -= lost
                        _log.warning("run %s: %d rows of table %r are lost", self.run.root, lost, name)
                self._learn_ranks(now)
                self._store = fs.identity(self.run.store_file)
                self.fold_at = max(FOLD_AT, now.content.folded_bytes)
                unchanged = self.journal.generation == generation and self.journal.fd < 0  # no handler logged
                if unchanged and any(other.writer == self.name for other in now.foreign):
                    self._go_on_from(now)
            finally:
                self._folding = False

    def _go_on_beside_others(self) -> None:
        """Learn what other ranks have made of the run since this writer left it.

        Raises:
            ClosedError: Another process has written in this writer's place.
        """
        from cox.storage import snapshot

        now = snapshot.read(self.run, rows=False)
        if now.content.writers.get(self.name, {"seq": 0})["seq"] != self.journal.next_seq:
            self.reopens = False
            raise ClosedError(f"run {self.run.root} was written by another process since it was closed")
        self._go_on_from(now)
        self._learn_ranks(now)
        self._store = fs.identity(self.run.store_file)

    def truncate(self) -> None:
        """Begin anew: mode='w'. Only what other ranks have, that write the run at this moment, stays."""
        from cox.storage import fold

        with self.lock:
            self.check_usable()
            self.check_place()
            self.begin_session()
            with explained(self.run.root, "cannot empty the run"):
                self.journal.close()
                emptied = fold.empty_run(self.run, own=self.journal)
                for table in self.tables.values():
                    table.forget_declaration()
                self.tables.clear()
                if emptied:
                    shutil.rmtree(self.run.objects_dir, ignore_errors=True)
                    fs.make_directories(self.run.objects_dir)
                self._learn_tables()
                self._store = fs.identity(self.run.store_file)

    def abandon(self) -> None:
        """Let go of everything and touch nothing: for the copy in a forked child."""
        for table in self.tables.values():
            table.forget_declaration()  # its fast way holds the old lock, which may be another thread's
        super().abandon()

    def count_rows(self) -> int:
        """How many rows this writer has in the run."""
        return sum(table.nrows for table in self.tables.values())

    def _recover(self) -> int:
        """Fold what an earlier writer left behind, and learn the tables. Returns the next sequence number."""
        leftovers.sweep(self.run, self.name)
        if empty.is_empty(self.run.store_file) and not leftovers.journals(self.run):
            return 0
        return self._learn_tables(leftovers.fold_left(self.run, self.journal, adopt=self.rank is None))

    def _learn_tables(self, now: Snapshot | None = None) -> int:
        """Learn which tables the run has, from `now` if it was read. Returns the next sequence number."""
        from cox.storage import snapshot

        now = now or snapshot.read(self.run, rows=False, own=self.journal)
        own = now.own_rows(self.name)
        for name, table in now.tables.items():
            schema = self._with_rank(name, table.schema)
            self.tables[name] = TableState(self, name, schema, own.get(name, 0), in_run=True)
            if self.rank is not None:
                self.tables[name].takes_rank = layout.RANK_COLUMN in table.schema and not now.has_ranks(name)
        self._learn_ranks(now)
        if layout.METADATA_TABLE in now.tables:
            self.tables[layout.METADATA_TABLE].logged_before = self._logged_before(now)
        self.fold_at = max(FOLD_AT, now.content.folded_bytes)
        return self._go_on_after(now)

    def _learn_ranks(self, now: Snapshot) -> None:
        for name, table in self.tables.items():
            table.has_ranks = now.has_ranks(name)

    def _go_on_after(self, now: Snapshot) -> int:
        """Have the next journal continue what the run holds. Returns the next sequence number."""
        self.run_id = self.journal.run_id = now.run_id or self.run_id
        writer = now.content.writers.get(self.name, {"seq": 0})
        if writer["seq"] > _MOST_RECORDS:  # what is logged after that, no reader would take for a record
            raise DamagedError(
                errno.EIO,
                f"no number is left for the next record of {self.name}: the last is {writer['seq'] - 1}",
                str(self.run.root),
            )
        self.journal.after = [(salt, end) for salt, end in writer.get("journals", ())]
        return int(writer["seq"])

    def _go_on_from(self, now: Snapshot) -> None:
        """Go on where the run is, after others have changed what there is of this writer.

        Another program put files of another life in the place of its own, or another rank began anew.
        """
        self.journal.next_seq = self._go_on_after(now)
        self._session.run_id = self.run_id
        own = now.own_rows(self.name)
        for name, table in self.tables.items():
            table.nrows, table.in_run = own.get(name, 0), name in now.tables

    def _logged_before(self, now: Snapshot) -> dict[int | None, int]:
        """How many rows of metadata this process has written before, by rank."""
        ranks = (self.rank,) if self.rank else (None, 0)
        rows = {rank: now.own_rows(layout.writer_name(rank)).get(layout.METADATA_TABLE, 0) for rank in ranks}
        return {rank: count for rank, count in rows.items() if count}

    def _with_rank(self, table: str, schema: Schema) -> Schema:
        return schema if self.rank is None else with_rank(table, schema)

    def own_columns(self, schema: Schema) -> list[Column]:
        """The columns that rows are given for: not `rank`, which is the same in all of this process."""
        return [c for c in schema if self.rank is None or c.name != layout.RANK_COLUMN]
