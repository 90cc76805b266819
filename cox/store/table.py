"""Table: a run's rows of one kind, and the working row that becomes the next of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox import steps
from cox.errors import (
    ReadOnlyError,
    RewindError,
    RowError,
    there_are,
    unknown,
)
from cox.objects import codec
from cox.schema import Column, Schema, as_count, as_number, shown, type_name
from cox.storage import layout
from cox.store.working_row import WorkingRow

if TYPE_CHECKING:
    import pandas as pd

    from cox.objects.trust import Place
    from cox.storage.writer import TableState
    from cox.store.open_run import OpenRun


class Table:
    """One table of a run. Made by `Store.add_table`, or found as `store['name']`.

    At any time there is one *working row*. `update_row` fills it, `flush_row` writes it for good and
    begins the next; `append_row` does both. A flushed row survives the death of the process, and is
    seen by every reader from then on.
    """

    def __init__(self, run: OpenRun, name: str, state: TableState | None) -> None:
        self.name = name
        self._run = run
        self._row = None if state is None else WorkingRow(run, state)

    # --- Reading

    @property
    def schema(self) -> dict[str, Any]:
        """Column names to types, as they were declared."""
        return self._columns.to_user()

    @property
    def nrows(self) -> int:
        """How many rows were flushed: by this process, where several write the run."""
        if self._row is not None:
            return self._row.state.nrows
        return self._run.count_rows(self.name)

    @property
    def df(self) -> pd.DataFrame:
        """All flushed rows as a DataFrame of the caller's own, index 0 to n-1, columns as declared.

        OBJECT cells hold the stored text, PICKLE and PYTORCH_STATE cells the name of a file; the `get_`
        methods turn them into objects. Nullable columns have pandas' nullable dtypes.
        """
        from cox import frames

        state = self._state
        if state is not None:
            state.check_current(writes=False)
            if not state.in_run:
                return frames.empty_frame(self._columns)
        found = self._run.read_table(self.name)
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
        return codec.from_text(s, self._run.trust, self._place)

    def get_pickle(self, uid: str) -> Any:
        """The object of a PICKLE cell. Raises as `get_object` does."""
        return codec.read_pickle(self._payload(uid), self._run.trust, self._place)

    def get_state_dict(self, uid: str, **kwargs: Any) -> Any:
        """The state of a PYTORCH_STATE cell.

        Args:
            uid: The cell.
            kwargs: For torch.load: `map_location='cpu'` for a state that was saved on a GPU.

        Raises:
            UntrustedObjectError: It is more than tensors, and nobody vouched for it.
        """
        return codec.read_torch(self._payload(uid), self._run.trust, self._place, **kwargs)

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
        row = self._row
        # the common case: all columns present, each value already of its column's type
        if row is not None and not row.cells and row.state.append_plain(data):
            return
        self._working_row().append(data)

    def update_row(self, data: Mapping[str, Any]) -> None:
        """Fill columns of the working row. Nothing is visible to anybody before `flush_row`.

        Args:
            data: Column names to values, which are converted to the column's type as calling it does:
                `float(value)`. It is not changed.

        Raises:
            RowError: A column is unknown, or a value cannot be converted. The working row is as before.
            StorageError: The file system refused an object's file. The working row is as before.
        """
        self._working_row().update(data)

    def flush_row(self) -> None:
        """Write the working row for good and begin a new one.

        Raises:
            RowError: A column without a value. The working row is kept and can be completed.
            StorageError: The file system refused it. The working row is kept.
        """
        self._working_row().flush()

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
        return self._run.place(self.name, self._columns)

    @property
    def _state(self) -> TableState | None:
        return None if self._row is None else self._row.state

    @property
    def _columns(self) -> Schema:
        if self._row is not None:
            return self._row.state.schema
        self._run.refresh_if_open()
        return self._run.schemas[self.name]

    def _pending_columns(self) -> list[str]:
        """The columns of the row that was not flushed."""
        return [] if self._row is None else list(self._row.cells)

    def _drop_working_row(self) -> None:
        if self._row is not None:
            self._row.drop()

    def _detach(self) -> None:
        """Let go of the writer, because the store is closed, and of the row that was never flushed."""
        row = self._row
        if row is not None:
            self._run.schemas[self.name] = row.state.schema
            self._row = None
            row.detach()

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
        return self._run.layout.objects_dir / uid

    def _working_row(self) -> WorkingRow:
        row = self._row
        if row is None:
            self._run.writing()  # says that it is closed
            raise ReadOnlyError(
                f"table {self.name!r}: the store was opened with mode='r'; open it with mode='a' to write"
            )
        return row

    def _writable(self) -> TableState:
        return self._working_row().writable()
