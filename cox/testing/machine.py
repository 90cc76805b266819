"""A run against a plain model: whatever is done to it, in any order, every reader sees what the model says.

The files are real, two ranks may write at once in this process, and after each step a new reader looks.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import cox
from cox.errors import RewindError, RowError, SchemaError
from cox.storage import snapshot, writer
from tests.compat import comparison

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "60"))
STEPS = int(os.environ.get("COX_PROPERTY_STEPS", "30"))

TABLES = ["t", "val/acc", "a table"]
PLAIN = ["float", "int", "bool", "str"]
TYPES: dict[str, Any] = {
    "float": float,
    "int": int,
    "bool": bool,
    "str": str,
    "object": cox.OBJECT,
    "pickle": cox.PICKLE,
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
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    made = []
    for name in names:
        kind = draw(st.sampled_from(list(TYPES)))
        made.append((name, kind, kind in PLAIN and draw(st.booleans())))
    return tuple(made)


class Table:
    """What one table must hold: rows of each writer, in the order in which they were written."""

    def __init__(self, own: tuple[Column, ...]) -> None:
        self.columns = list(own)
        self.rows: dict[int | None, list[dict[str, Any]]] = {}

    def of(self, rank: int | None) -> list[dict[str, Any]]:
        return self.rows.setdefault(rank, [])

    @property
    def nrows(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


def bits(value: Any) -> Any:
    """A value so that equal means the same bits, and nan is itself."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return (type(value).__name__, value)


class RunMachine(RuleBasedStateMachine):
    """One run, by its sole writer or by two ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cox-model-"))
        self.model: dict[str, Table] = {}
        self.stores: dict[int | None, cox.Store] = {}
        self.pending: dict[tuple[int | None, str], dict[str, Any]] = {}
        self.objects = 0

    def teardown(self) -> None:
        if self.stores:
            comparison.assert_readers_agree(self.folder / "run")
        for store in self.stores.values():
            for table in store._tables.values():
                table._drop_working_row()
            store.close()
        shutil.rmtree(self.folder)

    # --- Opening and closing

    @initialize(ranked=st.booleans())
    def open_it(self, ranked: bool) -> None:
        self.ranks: list[int | None] = [0, 1] if ranked else [None]
        for rank in self.ranks:
            self.stores[rank] = cox.Store(self.folder, "run", rank=rank)

    @rule(which=st.integers(0, 1), pick=st.sampled_from(["close", "abandon"]))
    def reopen(self, which: int, pick: str) -> None:
        """The script ends, by itself or by a kill, and is started again."""
        rank = self.ranks[which % len(self.ranks)]
        store = self.stores.pop(rank)
        for table in store._tables.values():
            table._drop_working_row()
        if pick == "close":
            store.close()
        else:
            store._writer.abandon()  # type: ignore[union-attr] # as dead as a process can be in here
            store._open.is_closed = True
        self.pending = {key: row for key, row in self.pending.items() if key[0] != rank}
        alone = not self.stores
        if alone:
            self.forget_empty_tables()
        self.stores[rank] = cox.Store(self.folder, "run", rank=rank)
        for name, table in self.model.items():
            self.declare(rank, name, table)

    def forget_empty_tables(self) -> None:
        """A table without rows is no part of the run; a script may declare it otherwise next time."""
        self.model = {name: table for name, table in self.model.items() if table.nrows}

    @precondition(lambda self: self.ranks == [None])
    @rule()
    def begin_anew(self) -> None:
        for table in self.stores[None]._tables.values():
            table._drop_working_row()
        self.stores[None].close()
        self.model, self.pending = {}, {}
        self.stores[None] = cox.Store(self.folder, "run", mode="w")

    @rule(which=st.integers(0, 1))
    def fold(self, which: int) -> None:
        rank = self.ranks[which % len(self.ranks)]
        self.stores[rank]._writer.fold_if_it_helps()  # type: ignore[union-attr]

    # --- Tables

    def declare(self, rank: int | None, name: str, table: Table) -> None:
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
        if name not in self.model:
            self.model[name] = Table(own)
            for rank in self.ranks:
                self.declare(rank, name, self.model[name])
        elif self.stores[self.ranks[0]]._tables[name]._state.in_run:  # type: ignore[union-attr]
            if {c[0] for c in own} - {c[0] for c in self.model[name].columns}:
                schema = {column: TYPES[kind] for column, kind, _ in own}
                with pytest.raises(SchemaError):
                    self.stores[self.ranks[0]].add_table(name, schema)
        elif not self.model[name].nrows:  # without rows it is declared anew
            self.model[name] = Table(own)
            self.pending = {key: row for key, row in self.pending.items() if key[1] != name}
            for rank in self.ranks:
                self.stores[rank]._tables[name]._drop_working_row()
                self.declare(rank, name, self.model[name])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), column=NAMES, kind=st.sampled_from(list(TYPES)))
    def add_column(self, data: st.DataObject, column: str, kind: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        table = self.model[name]
        if any(column == known for known, _, _ in table.columns):
            return
        for rank in self.ranks:
            self.stores[rank][name].add_column(column, TYPES[kind])
        table.columns.append((column, kind, True))

    # --- Rows

    def a_row(self, data: st.DataObject, table: Table) -> dict[str, Any]:
        row = {}
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
        rank = data.draw(st.sampled_from(self.ranks))
        name = data.draw(st.sampled_from(sorted(self.model)))
        return rank, name, self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        rank, name, table = self.pick(data)
        if (rank, name) in self.pending:
            return
        row = self.a_row(data, table)
        before = copy.deepcopy(row)
        self.stores[rank][name].append_row(row)
        assert repr(row) == repr(before), "the caller's row is not changed"
        table.of(rank).append(row)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), times=st.integers(2, 12))
    def append_many(self, data: st.DataObject, times: int) -> None:
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
        rank, name, table = self.pick(data)
        row = self.a_row(data, table)
        some = {column: row[column] for column in row if data.draw(st.booleans())}
        self.stores[rank][name].update_row(some)
        if some:
            self.pending.setdefault((rank, name), {}).update(some)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        rank, name, _ = self.pick(data)
        with pytest.raises(RowError, match="no such column as this"):
            self.stores[rank][name].append_row({"no such column as this": 1})

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        rank, name = key = data.draw(st.sampled_from(sorted(self.pending, key=repr)))
        table = self.model[name]
        row = self.pending[key]
        lacking = [c for c, _, nullable in table.columns if not nullable and c not in row]
        if lacking:
            with pytest.raises(RowError, match="lacks"):
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
        rank, name, table = self.pick(data)
        rows = table.of(rank)
        keep = data.draw(st.integers(0, len(rows)))
        self.stores[rank].rewind(name, keep, purge_tensorboard=False)
        del rows[keep:]
        with pytest.raises(RewindError):
            self.stores[rank].rewind(name, keep + 1, purge_tensorboard=False)

    # --- What must hold

    @invariant()
    def readers_see_the_model(self) -> None:
        if not self.stores:
            return
        with cox.Store(self.folder, "run", mode="r") as store:
            found = set(store.tables)
            filled = {name for name, table in self.model.items() if table.nrows}
            assert filled <= found <= filled | set(self.model), (found, filled)
            for name in filled:
                self.check_table(store, name, self.model[name])

    @invariant()
    def writers_count_their_rows(self) -> None:
        for rank, store in self.stores.items():
            for name, table in self.model.items():
                assert store[name].nrows == len(table.of(rank))
                assert store[name].schema.keys() >= {column for column, _, _ in table.columns}

    def check_table(self, store: cox.Store, name: str, table: Table) -> None:
        ranked = self.ranks != [None]
        names = [column for column, _, _ in table.columns]
        frame = store[name].df
        assert list(frame) == names + ["rank"] * ranked
        assert len(frame) == table.nrows == store[name].nrows
        cells = cells_of(store, name)
        for rank in self.ranks:
            rows = table.of(rank)
            own = [at for at in range(len(frame)) if not ranked or cells["rank"][at] == rank]
            assert len(own) == len(rows)
            for column, kind, _ in table.columns:
                decode = {"object": store[name].get_object, "pickle": store[name].get_pickle}.get(kind)
                got = [cells[column][at] for at in own]
                if decode:
                    got = [None if cell is None else decode(cell) for cell in got]
                want = [row.get(column) for row in rows]
                assert list(map(bits, got)) == list(map(bits, want)), f"{name}.{column} of {rank}"


def cells_of(store: cox.Store, name: str) -> dict[str, list[Any]]:
    """A table's cells, exactly: pandas' nan would not tell a missing cell from one that holds nan."""
    table = snapshot.read(store._run).tables[name]
    found = {}
    for column in table.schema:
        values, missing = table.column(column)
        gone = np.zeros(len(values), dtype=bool) if missing is None else missing
        found[column.name] = [None if m else v for v, m in zip(values.tolist(), gone, strict=True)]
    return found


@pytest.mark.slow
class TestRunMachine(RunMachine.TestCase):  # type: ignore[name-defined]
    """Run by pytest."""

    settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )

    @pytest.fixture(autouse=True)
    def fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "fdatasync"):  # to wait for a real disk shows nothing here
            monkeypatch.setattr(os, name, lambda fd: None)
        monkeypatch.setattr(writer, "FOLD_AT", 4000)
