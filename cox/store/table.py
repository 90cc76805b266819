"""Table: a run's rows of one kind, and the working row that becomes the next of them."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox import steps
from cox.errors import (
    CoxError,
    LossyConversionWarning,
    ReadOnlyError,
    RepeatedMetadataWarning,
    RewindError,
    RowError,
    StorageError,
    there_are,
    unknown,
    warn,
)
from cox.objects import codec
from cox.objects.signing import Origin
from cox.objects.trust import place_of
from cox.schema import Column, Schema, as_count, as_mapping, as_number, convert, shown, type_name
from cox.storage import fs, layout

if TYPE_CHECKING:
    import pandas as pd

    from cox.objects.trust import Place
    from cox.storage.writer import TableState
    from cox.store.open_run import OpenRun


_log = logging.getLogger("cox")


class Table:
    """One table of a run. Made by `Store.add_table`, or found as `store['name']`.

    At any time there is one *working row*. `update_row` fills it, `flush_row` writes it for good and
    begins the next; `append_row` does both. A flushed row survives the death of the process, and is
    seen by every reader from then on.
    """

    def __init__(self, store: OpenRun, name: str, schema: Schema, state: TableState | None) -> None:
        self.name = name
        self._store = store
        self._state = state
        self._found = schema  # as the reader found it, where there is no writer
        self._working: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._refusal: StorageError | None = None  # of a value of the working row, which cannot be stored

    # --- Reading

    @property
    def schema(self) -> dict[str, Any]:
        """Column names to types, as they were declared."""
        return self._columns.to_user()

    @property
    def nrows(self) -> int:
        """How many rows were flushed: by this process, where several write the run."""
        if self._state is not None:
            return self._state.nrows
        return self._store._count_rows(self.name)

    @property
    def df(self) -> pd.DataFrame:
        """All flushed rows as a DataFrame of the caller's own, index 0 to n-1, columns as declared.

        OBJECT cells hold the stored text, PICKLE and PYTORCH_STATE cells the name of a file; the `get_`
        methods turn them into objects. Nullable columns have pandas' nullable dtypes.
        """
        from cox import frames

        if self._state is not None:
            self._state.check_current(writes=False)
            if not self._state.in_run:
                return frames.empty_frame(self._columns)
        found = self._store._read_table(self.name)
        return frames.empty_frame(self._columns) if found is None else frames.to_frame(found)

    def _repr_html_(self) -> str:
        from cox.display import html

        frame = self.df
        return html.of_frame(f"table {self.name}", html.counted(len(frame), "row"), frame)

    def get_object(self, s: str | None) -> Any:
        """The object of an OBJECT cell; None for a missing or empty one.

        Raises:
            UntrustedObjectError: It is not plain data, and nobody vouched for it.
            RebuildError: The code that it is made of is not there any more, or another.
            DamagedError: The text does not decode to an object.
        """
        if s is None or s == "" or (not isinstance(s, str) and s != s):
            return None
        return codec.from_text(s, self._store._trust, self._place)

    def get_pickle(self, uid: str) -> Any:
        """The object of a PICKLE cell. Raises as `get_object` does."""
        return codec.read_pickle(self._payload(uid), self._store._trust, self._place)

    def get_state_dict(self, uid: str, **kwargs: Any) -> Any:
        """The state of a PYTORCH_STATE cell.

        Args:
            uid: The cell.
            kwargs: For torch.load: `map_location='cpu'` for a state that was saved on a GPU.

        Raises:
            UntrustedObjectError: It is more than tensors, and nobody vouched for it.
        """
        return codec.read_torch(self._payload(uid), self._store._trust, self._place, **kwargs)

    def get_pytorch_state(self, uid: str, **kwargs: Any) -> Any:
        """The same as `get_state_dict`."""
        return self.get_state_dict(uid, **kwargs)

    def __len__(self) -> int:
        return self.nrows

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        frame = self.df
        if len(frame) > 5:
            return f"{frame[:4]}\n … ({len(frame) - 4} more rows)"
        return str(frame)

    def __repr__(self) -> str:
        return f"<Table {self.name!r}: {self.nrows} rows of {', '.join(self._columns.names())}>"

    # --- Writing

    def append_row(self, data: Mapping[str, Any]) -> None:
        """Write one row: `update_row(data)` and `flush_row()`, or nothing at all.

        Args:
            data: A value for every column, except nullable ones; the columns filled by `update_row`
                may be left out. A mapping, a Namespace or a dataclass. It is not changed.

        On return the row survives the process's death (and the machine's, under `sync='row'`).

        Raises:
            RowError: A column is unknown or missing, or a value cannot be converted. What `update_row` had
                filled is kept, and nothing of `data`.
            StorageError: The file system refused it. What `update_row` had filled is kept.

        Example:
            >>> store.add_table("results", {"step": int, "loss": float})
            >>> store["results"].append_row({"step": 0, "loss": 2.31})
        """
        state = self._state
        # the way of nearly every row: every column there, each value of its column's own type
        if state is not None and not self._working and state.append_plain(data):
            return
        with self._writable().writer.lock:  # rows of threads that log to one table do not mix
            if self._is_given_up():
                self.flush_row()
                return
            # the working row takes nothing before the row is written: what fails leaves no half of
            # itself, and a signal handler that logs in between writes no half of this row
            cells: dict[str, Any] = {}
            try:
                cells = self._row_cells(data)
                self._write({**self._working, **cells})
            except StorageError as error:
                _discard(cells.values())
                self._give_up_row(error)
            except RowError:
                _discard(cells.values())
                raise

    def update_row(self, data: Mapping[str, Any]) -> None:
        """Fill columns of the working row. Nothing is visible to anybody before `flush_row`.

        Args:
            data: Column names to values, which are converted to the column's type as calling it does:
                `float(value)`. It is not changed.

        Raises:
            RowError: A column is unknown, or a value cannot be converted. The working row is as before.
            StorageError: The file system refused an object's file. The working row is as before.
        """
        if not self._is_given_up():
            with self._tolerating(), self._prepared(data):
                pass

    def flush_row(self) -> None:
        """Write the working row for good and begin a new one.

        Raises:
            RowError: A column without a value. The working row is kept and can be completed.
            StorageError: The file system refused it. The working row is kept.
        """
        if self._refusal is not None:
            self._give_up_row(self._refusal)
            return
        try:
            self._write(self._working)
        except StorageError as error:
            self._give_up_row(error)

    def add_column(self, name: str, type: Any) -> None:
        """Add a column while the run goes on.

        Earlier rows read as missing, and later ones may leave it out: the column is nullable. Adding
        it again is harmless.

        Args:
            name: The column's name.
            type: Any type that a schema takes.

        Raises:
            SchemaError: The table has a column of that name and another type.
        """
        column = Column.declare(name, type, table=self.name)
        state = self._writable()
        state.writer.add_column(state, column)

    def rewind(
        self,
        nrows: int | None = None,
        *,
        step: float | None = None,
        column: str | None = None,
        others: bool = True,
    ) -> int:
        """Drop the later rows, to go on from a checkpoint. See `Store.rewind`.

        Returns:
            How many rows of this process's own are left.
        """
        state = self._writable()
        if (nrows is None) == (step is None):
            raise RewindError(f"table {self.name!r}: give nrows= or step=, one of them")
        if step is None:
            keep = as_count(nrows)
            if keep is None:
                raise RewindError(f"table {self.name!r}: nrows={shown(nrows)} is not a number of rows")
            state.writer.rewind(state, keep)
            return keep
        first = as_number(step)
        if first is None:
            raise RewindError(f"table {self.name!r}: step={shown(step)} is not a number")
        columns = self._counting(column)
        return state.writer.rewind_to_step(state, columns, first, others=others) if state.in_run else 0

    # --- Inside

    @property
    def _place(self) -> Place:
        return self._store._place(self.name, self._columns)

    @property
    def _columns(self) -> Schema:
        if self._state is None:
            self._store._refresh_if_open()
            return self._found
        return self._state.schema

    def _is_given_up(self) -> bool:
        """Whether the working row will not be stored, whatever else it gets."""
        return self._refusal is not None

    @contextlib.contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Under on_error='warn', give the working row up for what the file system refuses of it."""
        try:
            yield
        except StorageError as error:
            if self._store._on_error != "warn":
                raise
            self._refusal = error

    def _give_up_row(self, error: StorageError) -> None:
        """Under on_error='warn', go on with the next row. Otherwise raise `error`, and keep the row."""
        if self._store._on_error != "warn":
            raise error
        self._drop_working_row()
        self._store._give_up_row(self.name, error)

    @contextlib.contextmanager
    def _prepared(self, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Convert values to cells, and put them into the working row unless the block raises."""
        cells = self._row_cells(data)
        try:
            yield cells
        except BaseException:
            _discard(cells.values())
            raise
        _discard(self._working[name] for name in cells if name in self._working)
        self._working.update(cells)

    def _row_cells(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Convert values to cells of a row of this process, whose `rank` is no other's."""
        cells = self._cells(data)
        if layout.RANK_COLUMN in cells:
            try:
                cells[layout.RANK_COLUMN] = self._rank_cell(cells[layout.RANK_COLUMN])
            except BaseException:
                _discard(cells.values())
                raise
        return cells

    def _rank_cell(self, given: Any) -> Any:
        """What a row of this process holds for a column `rank` that it gives a value itself."""
        state = self._writable()
        rank = state.writer.rank
        if rank is not None and given != rank:
            raise RowError(f"table {self.name!r}: rank is {rank} in this process, not {given}")
        if rank is not None or not state.has_ranks or given is None:
            return given
        if not self._store._said_of_rank:
            self._store._said_of_rank = True
            warn(
                f"run {self._store.path}: table {self.name!r}: the value {given} for the column 'rank' was "
                "not stored, nor will later ones be: ranks wrote this table too, and the column holds the "
                "number of the rank that wrote a row; give a column of your own another name",
                LossyConversionWarning,
            )
        return None

    def _cells(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Convert values to cells. Files of objects are written under temporary names."""
        schema = self._writable().schema
        row = as_mapping(data)
        if row is None:
            raise RowError(
                f"table {self.name!r}: a row is a mapping of column names to values, not {shown(data)}; "
                f"the columns are {list(schema.names())}"
            )
        if others := [name for name in row if name not in schema]:
            raise RowError(unknown(f"table {self.name!r} has no column", others[0], schema.names()))
        cells: dict[str, Any] = {}
        try:
            for name, value in row.items():
                column = schema.get(name)
                if column is not None:
                    cells[name] = self._cell(column, value)
        except BaseException:
            _discard(cells.values())
            raise
        return cells

    def _cell(self, column: Column, value: Any) -> Any:
        if column.traits.in_file:
            return self._file_cell(column, value)
        if column.traits.in_cell:
            if value is None and column.nullable:
                return None
            return self._stored(column, value, codec.to_text)
        made, lossy = convert(value, column, table=self.name)
        if lossy and column.name not in self._warned:
            self._warned.add(column.name)
            warn(
                f"table {self.name!r}, column {column.name!r}: {shown(value)} became {made!r}; "
                "later values of this column may lose something too, without a further warning",
                LossyConversionWarning,
            )
        return made

    def _file_cell(self, column: Column, value: Any) -> Any:
        if value is None and column.nullable:
            return None
        write = codec.write_torch if column.traits.by_torch else codec.write_pickle
        writer = self._writable().writer
        with writer.lock:
            writer.check_place()  # a file is made: what this costs does not count
        directory = writer.run.objects_dir
        path = fs.temporary_beside(directory / column.kind)
        checksum = self._stored(column, value, lambda obj, origin: write(obj, path, origin))
        return _PendingFile(path, layout.payload_name(str(uuid.uuid4()), checksum))

    def _stored(self, column: Column, value: Any, store: Any) -> Any:
        origin = Origin(self._writable().writer.run_id, self.name, column.name)
        try:
            return store(value, origin)
        except CoxError:
            raise
        except OSError as error:
            doing = f"cannot store an object of table {self.name!r}"
            raise self._writable().writer.refusal(error, doing) from error
        except Exception as error:
            raise RowError(
                f"table {self.name!r}, column {column.name!r}: a {type(value).__qualname__} cannot be stored "
                f"as {type_name(column.type)}: {error}"
            ) from error

    def _is_same_object(self, column: Column, before: Any, after: Any) -> bool:
        """Whether a stored cell and one that is to be stored stand for equal objects."""
        run, trust = self._store._run, self._store._trust
        place = place_of(run, self.name, column.name)
        try:
            if column.traits.in_cell:
                return bool(codec.from_text(before, trust, place) == codec.from_text(after, trust, place))
            stored = codec.read_pickle(run.objects_dir / before, trust, place)
            return column.traits.is_rebuilt and bool(stored == codec.read_pickle(after, trust, place))
        except Exception:  # noqa: BLE001 - what has no truth value, as arrays, or cannot be rebuilt: the bytes differ
            return False

    def _finished(self, cell: Any) -> Any:
        """What goes into the journal for a cell; an object's file gets its name before its row is written."""
        if not isinstance(cell, _PendingFile):
            return cell
        try:
            return cell.finish(sync=self._writable().writer.sync)
        except OSError as error:
            raise fs.refused(error, f"cannot store an object of table {self.name!r}", cell.path) from error

    def _write(self, row: dict[str, Any]) -> None:
        """Write a row for good, which has all of the working row, and begin a new one."""
        state = self._writable()
        columns = state.writer.own_columns(state.schema)
        missing = [c.name for c in columns if c.name not in row and not c.nullable]
        if missing:
            optional = f"{type_name(state.schema.get(missing[0]).type)} | None"  # type: ignore[union-attr]
            raise RowError(
                f"table {self.name!r}: the row lacks {missing}; give them a value, or declare a column that "
                f"a row may leave out as `{optional}`"
            )
        working, before = self._working, state.nrows
        if state.logged_before and self._was_logged(row, columns):
            _discard([*row.values(), *working.values()])
            self._working = {}
            return
        if state.takes_rank:
            self._take_rank(state)
        try:
            state.append(tuple(self._finished(row.get(c.name)) for c in columns))
        finally:
            if state.nrows > before:  # also where the fold after it was interrupted
                _discard(cell for name, cell in working.items() if row.get(name) is not cell)
                if working and self._working is working:
                    self._working = {}

    def _take_rank(self, state: TableState) -> None:
        """Say that the sole writer's own values in a column `rank` are gone from this row on."""
        state.takes_rank = False
        state.forget_declaration()  # with the next one rows go the fast way
        data = self._store._read_table(self.name)
        column = None if data is None else data.schema.get(layout.RANK_COLUMN)
        missing = None if data is None or column is None else data.mask(column)
        if column is None or (missing is not None and missing.all()):
            return
        warn(
            f"run {self._store.path}: table {self.name!r}: the column 'rank' holds the number of the rank "
            "that wrote a row, and what the sole writer stored there before is missing from now on; give a "
            "column of your own another name",
            LossyConversionWarning,
        )

    def _was_logged(self, row: dict[str, Any], columns: list[Column]) -> bool:
        """Whether an earlier session has logged this row of metadata. Warns if all of its rows are others."""
        from cox.store import repeats

        state, store = self._writable(), self._store
        now = store._snapshot(tables=[self.name])
        ranked = now.has_ranks(self.name)
        columns = [c for c in columns if not (ranked and c.name == layout.RANK_COLUMN)]
        cells = {name: cell.path if isinstance(cell, _PendingFile) else cell for name, cell in row.items()}
        changes = [
            repeats.differences(columns, earlier, cells, state.writer.run.objects_dir, self._is_same_object)
            for earlier in repeats.rows_of(now, self.name, state.logged_before)
        ]
        if [] in changes:
            _log.info("run %s: an earlier session has logged this row of %r", store.path, self.name)
            return True
        if changes and self.name not in self._warned:
            self._warned.add(self.name)
            warn(
                f"run {store.path}: {self.name!r} has a row of an earlier session: {'; '.join(changes[0])}. "
                "This one is added, and a join with the table has each row of the run twice. To have other "
                "parameters refused, use store.log_params; to have both, begin a run of another name",
                RepeatedMetadataWarning,
            )
        return False

    def _drop_working_row(self) -> None:
        _discard(self._working.values())
        self._working, self._refusal = {}, None

    def _detach(self) -> None:
        """Let go of the writer, because the store is closed, and of the row that was never flushed."""
        self._drop_working_row()
        if self._state is not None:
            self._found, self._state = self._state.schema, None

    def _counting(self, column: str | None) -> list[str]:
        """The columns that may count the steps of a rewind: the one that is given, or those of such names.

        Raises:
            RewindError: There is none; names those that would do.
        """
        numbers = [each.name for each in self._columns if each.traits.is_number]
        names = steps.candidates(numbers) if column is None else [column] if column in numbers else []
        if names:
            return names
        refusal = f"table {self.name!r}: no column {', '.join(steps.STEP_COLUMNS)} counts steps; give column="
        if column is not None:
            known = self._columns.get(column)
            refusal = (
                unknown(f"table {self.name!r} has no column", column, self._columns.names())
                if known is None
                else f"table {self.name!r}: column {column!r} ({type_name(known.type)}) cannot count steps"
            )
        raise RewindError(f"{refusal}; of columns that can {there_are(numbers)}")

    def _payload(self, uid: str) -> Path:
        if not isinstance(uid, str) or not layout.is_file_name(uid):
            raise RowError(
                f"{uid!r} is no file of an object: give a cell of a PICKLE or PYTORCH_STATE column"
            )
        return self._store._run.objects_dir / uid

    def _writable(self) -> TableState:
        state = self._state
        if state is None:
            self._store._writing()  # says that it is closed
            raise ReadOnlyError(
                f"table {self.name!r}: the store was opened with mode='r'; open it with mode='a' to write"
            )
        state.check_current()
        return state


class _PendingFile:
    """An object's file that has no row yet: at `path`, a temporary one, until the row is flushed."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name

    def finish(self, *, sync: bool) -> str:
        """Give the file its name, after its bytes are safe if `sync` is set; harmless a second time."""
        final = self.path.with_name(self.name)
        if self.path != final:
            if sync:
                fs.sync_file(self.path)
            fs.rename(self.path, final)
            self.path = final
            if sync:
                fs.sync_directory(final.parent)
        return self.name

    def discard(self) -> None:
        """Remove the file: its value was replaced, or its row was never flushed."""
        with contextlib.suppress(OSError):  # then it stays, and costs its space
            fs.unlink(self.path)


def _discard(cells: Any) -> None:
    for cell in cells:
        if isinstance(cell, _PendingFile):
            cell.discard()
