"""A model of a run: what happens in it as a list of operations, done to a store and to plain Python.

Every operation takes effect by one write to the journal, so that a run that was killed, or whose disk
failed, is either as the model was before the operation or as it was after it. All values follow from the
operation's number: a row that was mixed up, torn or repeated is not a row that the model knows.

Example:
    >>> ops = model.script(seed=1, length=60)
    >>> session = model.Session(folder, "run", ops)
    >>> for op in ops:
    ...     session.apply(op)
    >>> session.store.close()
    >>> invariants.check_run(folder / "run", model.states(ops)[-1], closed=True)
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cox.schema import OBJECT, PICKLE
from cox.storage import snapshot
from cox.store import Store

Rows = list[dict[str, Any]]
#: A run's tables as plain rows: for each its columns, and its rows, with None for what is missing. A table
#: without rows is not a part of a run, and is left out.
State = dict[str, tuple[tuple[str, ...], Rows]]

#: The tables of a script.
SCHEMAS: dict[str, dict[str, Any]] = {
    "results": {"step": int, "loss": float, "note": str | None},
    "objects": {"step": int, "thing": OBJECT, "file": PICKLE},
    "val/scores": {"step": int, "best": bool, "text": str},
    "late": {"step": int | None, "f(x)": float, "a b": str},
}
_COLUMN_TYPES: list[Any] = [int, float, str, bool]


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        kind: 'table', 'row', 'update', 'column', 'rewind', 'fold' or 'reopen'.
        number: Its place in the script, of which its values are made.
        table: The table that it is done to.
        arg: The number of rows that a rewind keeps, or the type of a column.
    """

    kind: str
    number: int
    table: str = ""
    arg: Any = None


def script(seed: int, length: int) -> list[Op]:
    """Make a session of `length` operations: mostly rows, and now and then each of the others.

    Args:
        seed: The same one makes the same session.
        length: The number of operations.
    """
    choose = random.Random(seed)
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    ops: list[Op] = []

    def add(kind: str, table: str = "", arg: Any = None) -> None:
        ops.append(Op(kind, len(ops), table, arg))

    while len(ops) < length:
        missing = [name for name in SCHEMAS if name not in rows]
        dice = choose.random()
        if not rows or (missing and dice < 0.06):
            name = missing[0]
            add("table", name)
            rows[name] = columns[name] = 0
            continue
        table = choose.choice(list(rows))
        if dice < 0.80:
            add(choose.choice(["row", "row", "row", "update"]), table)
            rows[table] += 1
        elif dice < 0.85 and columns[table] < len(_COLUMN_TYPES):
            add("column", table, _COLUMN_TYPES[columns[table]])
            columns[table] += 1
        elif dice < 0.91:
            keep = choose.choice([max(0, rows[table] - 2), choose.randint(0, rows[table])])
            add("rewind", table, keep)
            rows[table] = keep
        elif dice < 0.96:
            add("fold")
        else:
            add("reopen")
    return ops[:length]


def column_name(op: Op) -> str:
    """Return the name of the column of a 'column' operation."""
    return f"late_{op.arg.__name__}"


def cell(given: Any, number: int) -> Any:
    """Return the value that an operation puts into a column of a type.

    Args:
        given: The type, as in a schema.
        number: The operation's.
    """
    mixed = (number * 0x9E3779B97F4A7C15 + 0x7F4A7C15) & 0x7FFF_FFFF_FFFF_FFFF
    if _is_nullable(given):
        given = given.__args__[0]
    if given is int:
        return mixed if number % 3 else -mixed
    if given is float:
        return mixed / 7.0
    if given is bool:
        return mixed % 2 == 0
    if given is str:
        return f"é{number}-" + "ab\N{SNOWMAN}"[number % 3] * (mixed % 97)
    return {"number": number, "list": [mixed, str(number), None], "array": np.arange(number % 5)}


def row_of(schema: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the row that an operation writes; every other one leaves out what it may.

    Args:
        schema: The table's.
        number: The operation's.
    """
    return {
        name: cell(given, number + i)
        for i, (name, given) in enumerate(schema.items())
        if number % 2 or not _is_nullable(given)
    }


def _is_nullable(given: Any) -> bool:
    return type(None) in getattr(given, "__args__", ())


class Model:
    """What a run must hold: plain Python, nothing clever."""

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, Rows] = {}

    def apply(self, op: Op) -> None:
        """Do an operation."""
        if op.kind == "table":
            self.schemas[op.table] = dict(SCHEMAS[op.table])
            self.rows[op.table] = []
        elif op.kind in ("row", "update"):
            self.rows[op.table].append(row_of(self.schemas[op.table], op.number))
        elif op.kind == "column":
            given = op.arg
            self.schemas[op.table][column_name(op)] = given | None
        elif op.kind == "rewind":
            del self.rows[op.table][op.arg :]

    def state(self) -> State:
        """Return a copy of it all."""
        state: State = {}
        for name, rows in self.rows.items():
            if rows:
                columns = tuple(self.schemas[name])
                state[name] = (columns, [{c: comparable(row.get(c)) for c in columns} for row in rows])
        return state


def states(ops: list[Op]) -> list[State]:
    """Return what the run holds after none, one, two … of the operations."""
    model = Model()
    history = [model.state()]
    for op in ops:
        model.apply(op)
        history.append(model.state())
    return history


def comparable(value: Any) -> Any:
    """Return a value with its arrays as lists, which compare."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


class Stores:
    """How stores are opened and treated: cox's own. Another implementation overrides what differs."""

    def open(self, folder: Path, exp_id: str, **options: Any) -> Any:
        """Open a run; the store has the methods of `cox.Store`.

        Args:
            folder: The folder of runs.
            exp_id: The run.
            options: `mode` and `rank`, as for `cox.Store`.
        """
        return Store(folder, exp_id, **options)

    def fold(self, store: Any) -> None:
        """Have a writer move its rows from the journal to where they stay, if there are any."""
        store._writer.fold_if_it_helps()

    def drop_rows(self, store: Any) -> None:
        """Forget all rows that were begun with `update_row`."""
        for name in store._tables:
            self.drop_row(store, name)

    def drop_row(self, store: Any, table: str) -> None:
        """Forget a table's row that was begun with `update_row`."""
        store._tables[table]._drop_working_row()

    def abandon(self, store: Any) -> None:
        """Leave a store as dead as a killed process leaves it, as far as a process can do that to itself."""
        self.drop_rows(store)
        store._writer.abandon()
        store._open.is_closed = True

    def is_declared(self, store: Any, table: str) -> bool:
        """Return whether a table is a part of the run, so that it cannot be declared otherwise any more."""
        return bool(store._tables[table]._state.in_run)

    def cells(self, store: Any, table: str) -> dict[str, list[Any]]:
        """Return a table's cells by column, None for what is missing. In a frame it would look like a nan."""
        data = snapshot.read(store._run).tables[table]
        cells: dict[str, list[Any]] = {}
        for column in data.schema:
            values, missing = data.column(column)
            gone = [False] * len(values) if missing is None else missing.tolist()
            cells[column.name] = [None if m else v for v, m in zip(values.tolist(), gone, strict=True)]
        return cells


class Session:
    """A script that logs to a store, begins where an earlier one stopped, and may be killed anywhere.

    Args:
        folder: The folder of runs.
        exp_id: The run.
        ops: All operations of the script.
        done: How many of them the run has already.
        stores: What opens the store.
        options: For the store.

    Attributes:
        store: The store that is open now.
    """

    def __init__(
        self,
        folder: Path,
        exp_id: str,
        ops: list[Op],
        done: int = 0,
        *,
        stores: Stores | None = None,
        **options: Any,
    ) -> None:
        self._stores = stores or Stores()
        self._place, self._options = (folder, exp_id), options
        self._ops = ops
        self.store = self._open()
        self._declare(done)

    def _open(self) -> Any:
        return self._stores.open(*self._place, **self._options)

    def _declare(self, done: int) -> None:
        """Do what a script does that was started again: declare what it declared before."""
        for op in self._ops[:done]:
            if op.kind in ("table", "column"):
                self.apply(op)

    def apply(self, op: Op) -> None:
        """Do one operation. On return it is acknowledged."""
        if op.kind == "table":
            self.store.add_table(op.table, SCHEMAS[op.table])
        elif op.kind == "row":
            self.store[op.table].append_row(row_of(self.store[op.table].schema, op.number))
        elif op.kind == "update":
            table = self.store[op.table]
            for name, value in row_of(table.schema, op.number).items():
                table.update_row({name: value})
            table.flush_row()
        elif op.kind == "column":
            self.store[op.table].add_column(column_name(op), op.arg)
        elif op.kind == "rewind":
            self.store.rewind(op.table, op.arg, purge_tensorboard=False)
        elif op.kind == "fold":
            self._stores.fold(self.store)
        elif op.kind == "reopen":
            self.store.close()
            self.store = self._open()
            self._declare(op.number)
