"""A run against a plain model: whatever is done to it, in any order, every reader sees what the model says.

The files are real, two ranks may write at once in this process, and after each step a new reader looks. It
needs Hypothesis: `cox.testing.run_machine` says so where it is missing.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cox.errors import CoxError, RewindError, RowError, SchemaError
from cox.schema import OBJECT, PICKLE
from cox.testing.model import Stores

TABLES = ["t", "val/acc", "a table"]
PLAIN = ["float", "int", "bool", "str"]
TYPES: dict[str, Any] = {
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
    "object": OBJECT,
    "pickle": PICKLE,
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(width=64) | st.sampled_from([math.nan, -0.0, math.inf, -math.inf, 5e-324]),
    "int": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53 + 1, -(2**63), 2**63 - 1, 0]),
    "bool": st.booleans(),
    "str": st.text(max_size=20)
    | st.sampled_from(["", "nan", "None", "\0", "a\0", "\x15cox:missing", "é漢\U0001f600", "x" * 3000]),
}
OBJECTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
VALUES["object"] = VALUES["pickle"] = OBJECTS
NAMES = st.sampled_from(["a", "b", "f(x)", "a b", "a/b", "index", "values_block_0", "é", "", "class"])

#: A column: its name, its kind, whether it may be left out.
Column = tuple[str, str, bool]


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, ...]:
    """Draw the columns of a table."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    kinds = [draw(st.sampled_from(list(TYPES))) for _ in names]
    return tuple(
        (name, kind, kind in PLAIN and draw(st.booleans())) for name, kind in zip(names, kinds, strict=True)
    )


class Table:
    """What one table must hold: rows of each writer, in the order in which they were written."""

    def __init__(self, own: tuple[Column, ...]) -> None:
        self.columns = list(own)
        self.rows: dict[int | None, list[dict[str, Any]]] = {}

    def of(self, rank: int | None) -> list[dict[str, Any]]:
        """The rows of a writer."""
        return self.rows.setdefault(rank, [])

    @property
    def nrows(self) -> int:
        """The number of rows."""
        return sum(len(rows) for rows in self.rows.values())


def bits(value: Any) -> Any:
    """A value so that equal means the same bits, and nan is itself."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return (type(value).__name__, value)


@contextlib.contextmanager
def refused(error: type[CoxError], message: str = "") -> Iterator[None]:
    """Check that what the block does is refused.

    Args:
        error: What is to be raised.
        message: What it is to say, as a pattern.
    """
    try:
        yield
    except error as refusal:
        check(re.search(message, str(refusal)) is not None, f"{refusal!r} does not say {message!r}")
    else:
        raise AssertionError(f"{error.__name__} was not raised")


def check(holds: bool, message: object) -> None:
    """Check something; unlike an assert statement, with -O too."""
    if not holds:
        raise AssertionError(message)


class RunMachine(RuleBasedStateMachine):
    """One run, by its sole writer or by two ranks.

    Attributes:
        implementation: How its stores are opened and treated.
    """

    implementation: ClassVar[Stores] = Stores()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cox-model-"))
        self.model: dict[str, Table] = {}
        self.stores: dict[int | None, Any] = {}
        self.pending: dict[tuple[int | None, str], dict[str, Any]] = {}
        self.objects = 0

    def open(self, rank: int | None = None, **options: Any) -> Any:
        """Open the run."""
        return self.implementation.open(self.folder, "run", rank=rank, **options)

    def close(self, rank: int | None) -> None:
        """Close a writer's store, and forget the rows that were begun."""
        store = self.stores.pop(rank)
        self.implementation.drop_rows(store)
        store.close()

    def teardown(self) -> None:
        """Close all stores, and remove the run."""
        for rank in list(self.stores):
            self.close(rank)
        shutil.rmtree(self.folder)

    # --- Opening and closing

    @initialize(ranked=st.booleans())
    def open_it(self, ranked: bool) -> None:
        """Begin the run."""
        self.ranks: list[int | None] = [0, 1] if ranked else [None]
        for rank in self.ranks:
            self.stores[rank] = self.open(rank)

    @rule(which=st.integers(0, 1), pick=st.sampled_from(["close", "abandon"]))
    def reopen(self, which: int, pick: str) -> None:
        """The script ends, by itself or by a kill, and is started again."""
        rank = self.ranks[which % len(self.ranks)]
        if pick == "close":
            self.close(rank)
        else:
            self.implementation.abandon(self.stores.pop(rank))
        self.pending = {key: row for key, row in self.pending.items() if key[0] != rank}
        alone = not self.stores
        if alone:
            self.forget_empty_tables()
        self.stores[rank] = self.open(rank)
        for name, table in self.model.items():
            self.declare(rank, name, table)

    def forget_empty_tables(self) -> None:
        """A table without rows is no part of the run; a script may declare it otherwise next time."""
        self.model = {name: table for name, table in self.model.items() if table.nrows}

    @precondition(lambda self: self.ranks == [None])
    @rule()
    def begin_anew(self) -> None:
        """Drop all that there is, with mode='w'."""
        self.close(None)
        self.model, self.pending = {}, {}
        self.stores[None] = self.open(mode="w")

    @rule(which=st.integers(0, 1))
    def fold(self, which: int) -> None:
        """Have a writer fold its journal."""
        self.implementation.fold(self.stores[self.ranks[which % len(self.ranks)]])

    # --- Tables

    def declare(self, rank: int | None, name: str, table: Table) -> None:
        """Declare a table in a writer's store, as it is in the model."""
        schema = {
            column: TYPES[kind] | None if nullable and kind in PLAIN else TYPES[kind]
            for column, kind, nullable in table.columns
            if not (nullable and kind not in PLAIN)
        }
        self.stores[rank].add_table(name, schema)
        for column, kind, nullable in table.columns:
            if nullable and kind not in PLAIN:
                self.stores[rank][name].add_column(column, TYPES[kind])

    @rule(name=st.sampled_from(TABLES), own=columns())
    def add_table(self, name: str, own: tuple[Column, ...]) -> None:
        """Declare a table; one that has other columns is refused, unless it has no rows yet."""
        if name not in self.model:
            self.model[name] = Table(own)
            for rank in self.ranks:
                self.declare(rank, name, self.model[name])
        elif self.implementation.is_declared(self.stores[self.ranks[0]], name):
            if {c[0] for c in own} - {c[0] for c in self.model[name].columns}:
                schema = {column: TYPES[kind] for column, kind, _ in own}
                with refused(SchemaError):
                    self.stores[self.ranks[0]].add_table(name, schema)
        elif not self.model[name].nrows:  # without rows it is declared anew
            self.model[name] = Table(own)
            self.pending = {key: row for key, row in self.pending.items() if key[1] != name}
            for rank in self.ranks:
                self.implementation.drop_row(self.stores[rank], name)
                self.declare(rank, name, self.model[name])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), column=NAMES, kind=st.sampled_from(list(TYPES)))
    def add_column(self, data: st.DataObject, column: str, kind: str) -> None:
        """Add a column to a table of every writer."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        table = self.model[name]
        if any(column == known for known, _, _ in table.columns):
            return
        for rank in self.ranks:
            self.stores[rank][name].add_column(column, TYPES[kind])
        table.columns.append((column, kind, True))

    # --- Rows

    def a_row(self, data: st.DataObject, table: Table) -> dict[str, Any]:
        """Draw a row."""
        row: dict[str, Any] = {}
        for column, kind, nullable in table.columns:
            if nullable and data.draw(st.booleans(), label=f"leave out {column!r}"):
                if data.draw(st.booleans(), label="as None"):
                    row[column] = None
                continue
            value = data.draw(VALUES[kind], label=column)
            if value is None and nullable:  # in a nullable column, None is no object but a missing cell
                value = ()
            row[column] = value
        return row

    def pick(self, data: st.DataObject) -> tuple[int | None, str, Table]:
        """Draw a writer and a table."""
        rank = data.draw(st.sampled_from(self.ranks))
        name = data.draw(st.sampled_from(sorted(self.model)))
        return rank, name, self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        """Append a row."""
        rank, name, table = self.pick(data)
        if (rank, name) in self.pending:
            return
        row = self.a_row(data, table)
        before = copy.deepcopy(row)
        self.stores[rank][name].append_row(row)
        check(repr(row) == repr(before), "the caller's row was changed")
        table.of(rank).append(row)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), times=st.integers(2, 12))
    def append_many(self, data: st.DataObject, times: int) -> None:
        """Append the same row many times."""
        rank, name, table = self.pick(data)
        if (rank, name) in self.pending:
            return
        row = self.a_row(data, table)
        for _ in range(times):
            self.stores[rank][name].append_row(row)
            table.of(rank).append(row)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        """Begin a row, or go on with it."""
        rank, name, table = self.pick(data)
        row = self.a_row(data, table)
        some = {column: row[column] for column in row if data.draw(st.booleans())}
        self.stores[rank][name].update_row(some)
        if some:
            self.pending.setdefault((rank, name), {}).update(some)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def append_wrongly(self, data: st.DataObject) -> None:
        """Append a row with a column that is not there."""
        rank, name, _ = self.pick(data)
        with refused(RowError, "no such column as this"):
            self.stores[rank][name].append_row({"no such column as this": 1})

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        """Finish a row that was begun."""
        rank, name = key = data.draw(st.sampled_from(sorted(self.pending, key=repr)))
        table = self.model[name]
        row = self.pending[key]
        lacking = [c for c, _, nullable in table.columns if not nullable and c not in row]
        if lacking:
            with refused(RowError, "lacks"):
                self.stores[rank][name].flush_row()
            full = self.a_row(data, table)
            rest = {column: full[column] for column in lacking}
            self.stores[rank][name].update_row(rest)
            row.update(rest)
        self.stores[rank][name].flush_row()
        table.of(rank).append(self.pending.pop(key))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        """Rewind a writer's rows; to more than there are is refused."""
        rank, name, table = self.pick(data)
        rows = table.of(rank)
        keep = data.draw(st.integers(0, len(rows)))
        self.stores[rank].rewind(name, keep, purge_tensorboard=False)
        del rows[keep:]
        with refused(RewindError):
            self.stores[rank].rewind(name, keep + 1, purge_tensorboard=False)

    # --- What must hold

    @invariant()
    def readers_see_the_model(self) -> None:
        """A reader that opens the run now sees what the model says."""
        if not self.stores:
            return
        with self.open(mode="r") as store:
            tables = set(store.tables)
            filled = {name for name, table in self.model.items() if table.nrows}
            check(filled <= tables <= filled | set(self.model), (tables, filled))
            for name in filled:
                self.check_table(store, name, self.model[name])

    @invariant()
    def writers_count_their_rows(self) -> None:
        """Each writer counts its own rows."""
        for rank, store in self.stores.items():
            for name, table in self.model.items():
                check(store[name].nrows == len(table.of(rank)), f"{name} of {rank}: {store[name].nrows} rows")
                missing = {column for column, _, _ in table.columns} - store[name].schema.keys()
                check(not missing, f"{name} of {rank} lacks {missing}")

    def check_table(self, store: Any, name: str, table: Table) -> None:
        """Check a table's columns and rows."""
        ranked = self.ranks != [None]
        names = [column for column, _, _ in table.columns]
        frame = store[name].df
        check(list(frame) == names + ["rank"] * ranked, f"{name}: columns {list(frame)}")
        check(len(frame) == table.nrows == store[name].nrows, f"{name}: {len(frame)} rows of {table.nrows}")
        cells = self.implementation.cells(store, name)
        for rank in self.ranks:
            own = [i for i in range(len(frame)) if not ranked or cells["rank"][i] == rank]
            check(len(own) == len(table.of(rank)), f"{name} of {rank}: {len(own)} rows")
            for column, kind, _ in table.columns:
                self.check_column(store, name, column, kind, [cells[column][i] for i in own], rank)

    def check_column(
        self, store: Any, name: str, column: str, kind: str, cells: list[Any], rank: int | None
    ) -> None:
        """Check a writer's cells of a column."""
        decode = {"object": store[name].get_object, "pickle": store[name].get_pickle}.get(kind)
        if decode:
            cells = [None if cell is None else decode(cell) for cell in cells]
        expected = [row.get(column) for row in self.model[name].of(rank)]
        same = list(map(bits, cells)) == list(map(bits, expected))
        check(same, f"{name}.{column} of {rank}: {cells} is not {expected}")
