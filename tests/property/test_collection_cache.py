"""A collection with a cache against one without: whatever happens to the runs, no frame differs.

Runs are written, killed, gone on with, copied over each other, changed in place by pandas and removed; and
after each step readers with a cache, new ones and one that is as old as the machine, must give what a reader
without a cache gives: values, dtypes, order, warnings and errors.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import cox
from cox.collection.cache import saving
from cox.errors import CoxError, RepeatedMetadataWarning, RowError, SchemaError
from cox.storage import layout
from tests.caching import count_reads, settle

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "60")) // 8
STEPS = int(os.environ.get("COX_PROPERTY_STEPS", "30")) // 2

GOLDEN = Path(__file__).parents[1] / "compat" / "golden" / "stores" / "py311-pandas3.1-tables3.11-cox0.2"
NAMES = ["a", "b", "b_snapshot", "c é"]
TABLES = ["t", "metadata"]
TYPES: dict[str, Any] = {
    "f": float,
    "i": int,
    "b": bool,
    "s": str,
    "f?": float | None,
    "i?": int | None,
    "b?": bool | None,
    "s?": str | None,
    "o": cox.OBJECT,
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "f": st.sampled_from([0.5, math.nan, -0.0, math.inf, 5e-324]),
    "i": st.sampled_from([0, 1, -(2**63), 2**63 - 1, 2**53 + 1]),
    "b": st.booleans(),
    "s": st.sampled_from(["", "x", "a\0b", "\0", "é漢\U0001f600", "y" * 65, "z" * 300, "nan"]),
    "o": st.sampled_from([None, [1], {"k": "é"}, "text", b"\0"]),
}
#: Columns of the same name that runs may have in other types: the frame has the wider one.
COLUMNS = st.lists(
    st.tuples(st.sampled_from(["x", "y", "exp_id", "rank"]), st.sampled_from(list(TYPES))),
    min_size=1,
    max_size=3,
    unique_by=lambda column: column[0],
)

READINGS: list[dict[str, Any]] = [
    {},
    {"union_schemas": True},
    {"columns": ["x"]},
    {"columns": ["y", "x"]},
    {"where": "x > 0"},
    {"where": "not (x == 1) and exp_id != 'a'"},
    {"where": "y == 'x'", "columns": ["x"]},
    {"exp_filter": lambda name: name > "a"},
    {"params": {"x": [1, 0.5, "x", None]}},
    {"params": "x > 0"},
    {"append_exp_id": False},
    {"keep_serialized": ["x", "y"]},
]


class CacheMachine(RuleBasedStateMachine):
    """A folder of runs."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(saving, "_SETTLED", 0)  # sound within one process, see tests.caching
        self.reads = count_reads(self.patch)
        self.home = Path(tempfile.mkdtemp(prefix="cox-cache-"))
        self.folder = self.home / "runs"
        self.folder.mkdir()
        self.live: dict[str, cox.Store] = {}
        self.readers: list[cox.CollectionReader] = []

    def teardown(self) -> None:
        for store in self.live.values():
            store.close()
        self.patch.undo()
        shutil.rmtree(self.home)

    # --- What happens to runs

    @initialize(columns=COLUMNS, values=st.data())
    def begin(self, columns: list[tuple[str, str]], values: st.DataObject) -> None:
        for name in NAMES[:2]:
            self.write(name, "t", columns, 2, values)

    @rule(
        name=st.sampled_from(NAMES),
        table=st.sampled_from(TABLES),
        columns=COLUMNS,
        rows=st.integers(0, 3),
        values=st.data(),
    )
    def write(
        self, name: str, table: str, columns: list[tuple[str, str]], rows: int, values: st.DataObject
    ) -> None:
        """Begin a run, or go on with it: in its table as it is, or in another one."""
        store = self.live.get(name) or self.opened(name)
        try:
            made = (
                store[table] if table in store else store.add_table(table, {n: TYPES[t] for n, t in columns})
            )
            kinds = {n: kind for n, given in made.schema.items() for kind, t in TYPES.items() if t == given}
            for _ in range(rows):
                row = {n: values.draw(VALUES[kind[0]]) for n, kind in kinds.items()}
                if values.draw(st.booleans()):
                    row = {n: cell for n, cell in row.items() if not kinds[n].endswith("?")}
                with warnings.catch_warnings():  # other metadata than an earlier session's
                    warnings.simplefilter("ignore", RepeatedMetadataWarning)
                    made.append_row(row)
        except (SchemaError, RowError):  # `rank` among ranks
            pass
        if name not in self.live:
            store.close()

    def opened(self, name: str) -> cox.Store:
        run = self.folder / name
        if (run / "save").exists() and not (run / ".cox").exists():  # upstream's are left as they are
            self.remove(name)
        return cox.Store(self.folder, name)

    @rule(name=st.sampled_from(NAMES))
    def open(self, name: str) -> None:
        if name not in self.live:
            self.live[name] = self.opened(name)

    @precondition(lambda self: self.live)
    @rule(at=st.integers(0, 3), how=st.sampled_from(["close", "abandon", "fold", "rewind", "rewind all"]))
    def go_on(self, at: int, how: str) -> None:
        name = sorted(self.live)[at % len(self.live)]
        store = self.live[name]
        if how == "fold":
            store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        elif how.startswith("rewind"):
            for table in list(store.tables):
                keep = 0 if how == "rewind all" else max(0, store[table].nrows - 1)
                store.rewind(table, keep, purge_tensorboard=False)
        else:
            del self.live[name]
            if how == "close":
                store.close()
            else:
                store._writer.abandon()  # type: ignore[union-attr] # as dead as a process can be in here
                store._open.is_closed = True

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(list(TYPES)))
    def add_column(self, name: str, kind: str) -> None:
        store = self.live.get(name)
        if store is not None and "t" in store and "late" not in store["t"].schema and kind != "o":
            store["t"].add_column("late", TYPES[kind])

    @rule(name=st.sampled_from(NAMES), rows=st.integers(1, 2))
    def write_as_ranks(self, name: str, rows: int) -> None:
        if name in self.live:
            return
        self.remove(name)
        for rank in (0, 1):
            with cox.Store(self.folder, name, rank=rank) as store:
                table = store.add_table("t", {"x": int})
                for x in range(rows):
                    table.append_row({"x": x})

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        if name not in self.live:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @rule(source=st.sampled_from(NAMES), onto=st.sampled_from(NAMES), whole=st.booleans())
    def copy_over(self, source: str, onto: str, whole: bool) -> None:
        """As `cp -p` does, of the directory or of the store file into the one that is there."""
        if source == onto or onto in self.live or not (self.folder / source).exists():
            return
        if whole:
            self.remove(onto)
            shutil.copytree(self.folder / source, self.folder / onto)
        elif (self.folder / onto / "store.h5").exists() and (self.folder / source / "store.h5").exists():
            shutil.copy2(self.folder / source / "store.h5", self.folder / onto / "store.h5")

    @rule(name=st.sampled_from(NAMES))
    def write_as_upstream(self, name: str) -> None:
        """A store of upstream's in the place of the run, or a row more in it, in place, by pandas."""
        if name in self.live:
            return
        path = self.folder / name / "store.h5"
        if not path.exists() or (self.folder / name / ".cox").exists():
            self.remove(name)
            shutil.copytree(GOLDEN / "continued", self.folder / name)
            return
        with pd.HDFStore(path, mode="a") as opened:
            for key in opened.keys():
                opened.append(key, opened[key].iloc[:1])

    @rule(what=st.sampled_from(["cache", "index", "segments"]))
    def lose(self, what: str) -> None:
        for path in list((self.folder / layout.CACHE_DIR).glob("*")):
            if what == "cache" or path.name.startswith("index") == (what == "index"):
                path.unlink()

    @rule(nested=st.booleans())
    def keep_a_reader(self, nested: bool) -> None:
        """One that was made before what is to come."""
        self.readers = [cox.CollectionReader(self.folder, cache=True, nested=nested), *self.readers[:1]]

    # --- What must be

    @rule(reading=st.sampled_from(READINGS), table=st.sampled_from(TABLES))
    def read_otherwise(self, reading: dict[str, Any], table: str) -> None:
        self.compare(table, reading)

    @rule()
    def rest(self) -> None:
        """Once nothing has changed for a while, and the folder was read, no run is opened any more."""
        settle(self.folder)
        for table in TABLES:
            outcome(cox.CollectionReader(self.folder, cache=True), table, {})
            told = outcome(cox.CollectionReader(self.folder, cache=False), table, {})[1]
            if any("DamageWarning" in text for text in told):
                return
            self.reads.clear()
            outcome(cox.CollectionReader(self.folder, cache=True), table, {})
            assert self.reads == []

    @invariant()
    def the_cache_makes_no_difference(self) -> None:
        self.compare("t", {})

    def compare(self, table: str, reading: dict[str, Any]) -> None:
        expected = outcome(cox.CollectionReader(self.folder, cache=False), table, reading)
        for _ in range(2):  # as it was kept before, and now
            found = outcome(cox.CollectionReader(self.folder, cache=True), table, reading)
            assert_equal(found, expected)
        for reader in self.readers:
            if not all(reader.source.layout(name).root.exists() for name in reader.exp_ids):
                continue
            names = set(reader.exp_ids)
            own = reading.get("exp_filter", lambda name: True)
            both = reading | {"exp_filter": lambda name, names=names, own=own: name in names and own(name)}
            assert_equal(
                outcome(reader, table, reading),
                outcome(cox.CollectionReader(self.folder, cache=False), table, both),
                told=False,
            )


Outcome = tuple[Any, list[str]]


def outcome(reader: cox.CollectionReader, table: str, reading: dict[str, Any]) -> Outcome:
    """A frame or an error, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught, reader:
        warnings.simplefilter("always")
        try:
            found: Any = reader.df(table, **reading)
        except (CoxError, OSError) as error:
            found = error
    return found, [f"{one.category.__name__}: {one.message}" for one in caught]


def assert_equal(found: Outcome, expected: Outcome, *, told: bool = True) -> None:
    if isinstance(expected[0], Exception):
        assert type(found[0]) is type(expected[0]), found[0]
        assert not told or str(found[0]) == str(expected[0])
    else:
        assert isinstance(found[0], pd.DataFrame), found[0]
        pd.testing.assert_frame_equal(found[0], expected[0], check_exact=True)
    assert not told or found[1] == expected[1]


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
