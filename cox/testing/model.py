"""What happens in a run, as a list of operations: done to a Store, and to a plain model beside it.

Every operation takes effect by one write to the journal, so that a run that was killed, or whose disk
failed, is either as the model was before the operation or as it was after it. All values follow from the
operation's number: a row that was mixed up, torn or repeated is no row that the model knows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cox
from cox.storage import layout

Rows = list[dict[str, Any]]
#: A run's tables as plain rows. A table without rows is no part of a run, and is left out.
State = dict[str, tuple[tuple[str, ...], Rows]]

SCHEMAS: dict[str, dict[str, Any]] = {
    "results": {"step": int, "loss": float, "note": str | None},
    "objects": {"step": int, "thing": cox.OBJECT, "file": cox.PICKLE},
    "val/scores": {"step": int, "best": bool, "text": str},
    "late": {"step": int | None, "f(x)": float, "a b": str},
}
_COLUMN_TYPES: list[Any] = [int, float, str, bool]


@dataclass(frozen=True)
class Op:
    """One operation. `number` makes its values; `arg` is a count of rows or the type of a column."""

    kind: str
    number: int
    table: str = ""
    arg: Any = None


def script(seed: int, length: int) -> list[Op]:
    """A session of `length` operations: mostly rows, and now and then each of the others."""
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
    """What the column of a 'column' operation is called."""
    return f"late_{op.arg.__name__}"


def cell(given: Any, number: int) -> Any:
    """The value that an operation puts into a column of a type."""
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
    """A whole row; every other one leaves out what it may."""
    return {
        name: cell(given, number + at)
        for at, (name, given) in enumerate(schema.items())
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
        """A copy of it all."""
        made: State = {}
        for name, rows in self.rows.items():
            if rows:
                columns = tuple(self.schemas[name])
                made[name] = (columns, [{c: row.get(c) for c in columns} for row in rows])
        return made


def states(ops: list[Op]) -> list[State]:
    """What the run holds after none, one, two … of the operations."""
    model = Model()
    made = [model.state()]
    for op in ops:
        model.apply(op)
        made.append(model.state())
    return made


class Session:
    """A script that logs to a Store, begins where an earlier one stopped, and may be killed anywhere.

    Args:
        folder: The folder of runs.
        exp_id: The run.
        ops: All operations of the script.
        done: How many of them the run has already.
        options: For the Store.
    """

    def __init__(self, folder: Path, exp_id: str, ops: list[Op], done: int = 0, **options: Any) -> None:
        self._open = lambda: cox.Store(folder, exp_id, **options)
        self._ops = ops
        self.store = self._open()
        self._declare(done)

    def _declare(self, done: int) -> None:
        """What a script does that was started again: declare what it declared before."""
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
            self.store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        elif op.kind == "reopen":
            self.store.close()
            self.store = self._open()
            self._declare(op.number)


def plain_rows(store: cox.Store, name: str) -> tuple[tuple[str, ...], Rows]:
    """A table's rows as a user gets them, with objects decoded and None for what is missing."""
    table = store[name]
    frame, schema = table.df, table.schema
    assert list(frame.index) == list(range(len(frame)))
    columns = {}
    for column in frame:
        values = frame[column].astype(object).where(frame[column].notna(), None).tolist()
        decode = {cox.OBJECT: table.get_object, cox.PICKLE: table.get_pickle}.get(schema[column])
        columns[column] = [_comparable(decode(value)) for value in values] if decode else values
    listed = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return tuple(frame), listed


def _comparable(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "array": value["array"].tolist()}


def expected(state: State) -> State:
    """A model's state with its arrays as lists, which compare."""
    return {
        name: (
            columns,
            [{c: _comparable(v) if isinstance(v, dict) else v for c, v in row.items()} for row in rows],
        )
        for name, (columns, rows) in state.items()
    }


def observe(folder: Path, exp_id: str, **options: Any) -> State:
    """What a reader finds in a run. Warnings are errors in this suite, damage is one of them."""
    with cox.Store(folder, exp_id, mode="r", **options) as store:
        found = {name: plain_rows(store, name) for name in list(store.tables)}
    return {name: (columns, rows) for name, (columns, rows) in found.items() if rows}


def leftovers(run: Path) -> list[str]:
    """What a clean close must not leave: unfinished files and journals."""
    journals = layout.RunLayout(run).journal_dir
    return sorted(
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.name.startswith(layout.TEMPORARY_PREFIX)
        or (path.parent == journals and path.suffix != layout.NEWEST_SUFFIX)
    )
