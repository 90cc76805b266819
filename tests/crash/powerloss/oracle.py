"""Whether what a loss of power left is what was promised, and whether the run can be gone on with.

* With `sync='row'`, and after a mere kill: whatever returned is there, and the operation under way may be.
* By default: whatever was folded into store.h5, or whose store was closed, is there. Rows since then may be
  lost, each for itself; none is changed, made up, there twice or in another's place. What is missing before
  something that is there is warned about.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox
from cox.errors import DamagedError, DamageWarning, RunNotFoundError, UntrustedObjectError
from cox.objects import codec
from cox.objects.trust import Place, Trust, place_of
from cox.schema import Column
from cox.storage import hdf5, layout, snapshot
from cox.storage.columns import TableData
from cox.testing import invariants, model
from tests.compat import comparison
from tests.crash.powerloss.sessions import Author, Row, Stage, State, use_configuration
from tests.crash.powerloss.trace import Fates, Trace, lay_out

Contents = dict[str, bytes | None]

#: Stands for a PICKLE cell whose file is missing or damaged.
UNREADABLE = "a payload that cannot be read"


@dataclass
class Found:
    """What a reader got: for each table its columns and rows, with objects decoded."""

    columns: dict[str, tuple[str, ...]]
    rows: dict[str, list[dict[str, Any]]]
    warnings: list[str]

    def of(self, rank: int | None) -> dict[str, list[dict[str, Any]]]:
        """A writer's own rows, by table, without those tables that have none of them."""
        own = {
            name: [row for row in rows if row.get(layout.RANK_COLUMN) == rank]
            for name, rows in self.rows.items()
        }
        return {name: rows for name, rows in own.items() if rows}


NOTHING = Found({}, {}, [])


def read(folder: Path) -> Found | None:
    """Read the run; None if there is none. Nothing but a DamageWarning is let through."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            now = snapshot.read(layout.RunLayout(folder / "run"))
        except RunNotFoundError:
            return None
        now.warn("run")
        found = Found({}, {}, [])
        for name, table in now.tables.items():
            columns = found.columns[name] = table.schema.names()
            cells = [_cells(folder, table, column) for column in table.schema]
            found.rows[name] = [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
    assert {w.category for w in caught} <= {DamageWarning}, [str(w.message) for w in caught]
    found.warnings = [str(w.message) for w in caught]
    return found


def check_independently(run: Path) -> None:
    """A reader that was written from docs/FORMAT.md alone gets what cox gets."""
    try:
        json.loads((run / ".cox" / "run.json").read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        return  # it stops at a file that is not whole; cox does without
    comparison.assert_readers_agree(run)


def _cells(folder: Path, table: TableData, column: Column) -> list[Any]:
    values, missing = table.column(column)
    absent = [False] * len(values) if missing is None else missing
    cells = [None if gone else cell for cell, gone in zip(values.tolist(), absent, strict=True)]
    if column.kind in ("object", "pickle"):
        run = layout.RunLayout(folder / "run")
        trust, place = Trust(run), place_of(run, table.name, column.name)
        return [None if cell is None else _decoded(run, column.kind, cell, trust, place) for cell in cells]
    return cells


def _decoded(run: layout.RunLayout, kind: str, cell: str, trust: Trust, place: Place) -> Any:
    try:
        if kind == "object":
            return _comparable(codec.from_text(cell, trust, place))
        return _comparable(codec.read_pickle(run.objects_dir / cell, trust, place))
    except (DamagedError, UntrustedObjectError):  # what is signed is none of ours with a hole in it
        return UNREADABLE


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def check_readers(folder: Path, found: Found | None) -> None:
    """A Store and a CollectionReader get what `read` got."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        if found is None:
            with pytest.raises(RunNotFoundError):
                cox.Store(folder, "run", mode="r")
            return
        with cox.Store(folder, "run", mode="r") as store, cox.CollectionReader(folder) as reader:
            assert list(store.tables) == list(found.rows)
            for name, rows in found.rows.items():
                frame = store[name].df
                again = reader.df(name, append_exp_id=False, keep_serialized=list(found.columns[name]))
                assert tuple(frame) == tuple(again) == found.columns[name]
                assert frame["n"].tolist() == again["n"].tolist() == [row["n"] for row in rows]


def check_store_file(path: Path) -> None:
    """pandas opens every table, and finds as many rows in it as cox does."""
    with pd.HDFStore(path, "r") as opened:
        nrows = {key.lstrip("/"): len(opened[key]) for key in opened.keys()}
    assert nrows == hdf5.read(path).nrows


def check_going_on(folder: Path, found: Found | None) -> None:
    """The run can be written: all that was found stays, new rows come after it, and nothing is left over."""
    expected = {name: list(rows) for name, rows in (found or NOTHING).rows.items() if rows}
    with cox.Store(folder, "run") as store:
        store.add_table("new", {"n": int, "file": cox.PICKLE})
        for name, table in store.tables.items():
            schema = table.schema
            row = model.row_of(schema, 1_000_000)  # an even number leaves out what may be
            table.append_row(row)
            expected.setdefault(name, []).append({c: _comparable(row.get(c)) for c in schema})
    again = read(folder)
    assert again is not None
    assert again.warnings == [], "what was lost has been said, and is done with"
    assert {name: rows for name, rows in again.rows.items() if rows} == expected
    left = [name for name in invariants.leftovers(folder / "run") if not name.endswith(".damaged")]
    assert left == []


@dataclass
class Told:
    """What a writer had been told by a moment: how many operations had returned, and were folded."""

    returned: int = 0
    folded: int = 0


def told(trace: Trace, moment: int) -> dict[int | None, Told]:
    """What each writer had been told."""
    by: dict[int | None, Told] = {}
    for what, rank, *number in trace.marks(moment):
        if what == "returned":
            by.setdefault(rank, Told()).returned = number[0]
        elif what == "closed":
            by[rank].folded = by[rank].returned
        else:
            for one in by.values():
                one.folded = one.returned
    return by


class Oracle:
    """Knows what may be found.

    Args:
        stage: Where the session was recorded.
    """

    def __init__(self, stage: Stage) -> None:
        trace = stage.recorder.trace
        self._authors = stage.authors
        self._sync = stage.sync is not None
        self._told = {moment: told(trace, moment) for moment in trace.moments()}

    def check(self, found: Found | None, moment: int, fates: Fates) -> None:
        """Whether this may be found after a loss of power at that moment."""
        found = found or NOTHING
        ranks = {row.get(layout.RANK_COLUMN) for rows in found.rows.values() for row in rows}
        assert ranks <= set(self._authors), "rows of nobody"
        for rank, author in self._authors.items():
            one = self._told[moment].get(rank, Told())
            exactly = self._sync or not fates
            first = one.returned if exactly else one.folded
            allowed = author.states[first : one.returned + 2]
            whole = any(_is(found, author, state, readable=exactly) for state in allowed)
            if exactly:
                assert whole, f"rank {rank} is not as after {first} operations, or one more: {found.of(rank)}"
            else:
                _check_each(found.of(rank), allowed)
                assert whole or found.warnings, f"rank {rank}: nobody was warned: {found.of(rank)}"


def _is(found: Found, author: Author, state: State, *, readable: bool) -> bool:
    """Whether a writer's rows are exactly those of a state."""
    rows = found.of(author.rank)
    expected = {name: listed for name, listed in state.rows.items() if listed}
    if rows.keys() != expected.keys():
        return False
    if author.rank is None and any(found.columns[name] != state.columns[name] for name in rows):
        return False
    return all(
        len(rows[name]) == len(listed)
        and all(
            _matches(row, known, readable=readable) for row, known in zip(rows[name], listed, strict=True)
        )
        for name, listed in expected.items()
    )


def _check_each(rows: dict[str, list[dict[str, Any]]], allowed: list[State]) -> None:
    """Each row is one that was written, in its place, and all that are safe are there."""
    for name in {*rows, *(name for state in allowed for name in state.rows)}:
        histories = [state.rows.get(name, []) for state in allowed]
        known = {row.values["n"]: row for history in histories for row in history}
        safe = [row for row in histories[0] if all(row in history for history in histories)]
        there = []
        for row in rows.get(name, []):
            assert row["n"] in known, f"table {name!r}: a row that never was, or was dropped for good: {row}"
            there.append(known[row["n"]])
            whole = _matches(row, there[-1], readable=there[-1] in safe)
            assert whole, f"table {name!r}: {row} was written as {there[-1].values}"
        lost = [row.values for row in safe if row not in there]
        assert not lost, f"table {name!r}: these were folded, and are lost: {lost}"
        places = [row.place for row in there]
        assert places == sorted(set(places)), (
            f"table {name!r}: two rows in one place, or out of order: {there}"
        )


def _matches(found: dict[str, Any], row: Row, *, readable: bool) -> bool:
    """Whether a row is the one that was written; its payload may be gone, unless it must be readable."""
    left = {column: _comparable(value) for column, value in row.values.items() if value is not None}
    for column, cell in found.items():
        value = left.pop(column, None)
        if column != layout.RANK_COLUMN and cell != value and (readable or cell != UNREADABLE):
            return False
    return not left


class Checker:
    """Tries out what a loss of power leaves of a recorded session.

    Each state of the store file, the journals and the payloads is read. The run is gone on with if something
    was lost, or if a file beside these is whole, empty, zeroed, half or missing for the first time; and else
    now and then.

    Args:
        stage: Where it was recorded.
        scratch: A folder to lay states out in.
        thorough: Whether to go on with all different rows, and all different sets of other files.

    Attributes:
        states: How many different states were read.
    """

    def __init__(self, stage: Stage, scratch: Path, *, thorough: bool = False) -> None:
        self.states = 0
        self._thorough = thorough
        self._place = stage.place
        self._trace = stage.recorder.trace
        self._oracle = Oracle(stage)
        self._scratch = scratch
        self._found: dict[str, Found | None] = {}
        self._names: set[str] = set()
        self._done: set[str] = set()

    def check(self, moment: int, fates: Fates) -> None:
        """Have the power go at a moment, and have these events not take place as they should.

        Raises:
            AssertionError: A promise is broken.
            Exception: The run cannot be read, or gone on with.
        """
        contents = self._trace.tree(moment, fates).contents()
        key, shape = _rows_key(contents), self._shape(contents)
        if key not in self._found or not shape <= self._done:
            self.states += 1
            folder = self._scratch / f"state {self.states}"
            lay_out(contents, folder)
            use_configuration(folder)
            try:
                self._found[key] = self._try_out(folder / self._place, shape)
            finally:
                shutil.rmtree(folder)
            self._done |= shape
        self._oracle.check(self._found[key], moment, fates)

    def explain(self, moment: int, fates: Fates) -> str:
        """Which of the fates it takes to fail."""
        needed = dict(fates)
        for at in fates:
            less = {other: fate for other, fate in needed.items() if other != at}
            try:
                self.check(moment, less)
            except Exception:  # noqa: BLE001 - it fails without this one as well
                needed = less
        return self._trace.describe(moment, needed)

    def _try_out(self, folder: Path, shape: set[str]) -> Found | None:
        store_file = folder / "run" / layout.STORE_FILE
        if store_file.exists() and self._first(f"store file {_digest(store_file.read_bytes())}"):
            check_store_file(store_file)
        found = read(folder) if folder.exists() else None
        new = self._first(f"rows {found!r}")
        if new and folder.exists():
            check_readers(folder, found)
            if found is not None:
                check_independently(folder / "run")
        now_and_then = self._thorough or self.states % 3 == 0 or (found is not None and found.warnings)
        if (new and now_and_then) or not shape <= self._done:
            check_going_on(folder, found)
        return found

    def _first(self, what: str) -> bool:
        """Whether this is new. From now on it is not."""
        new = what not in self._done
        self._done.add(what)
        return new

    def _shape(self, contents: Contents) -> set[str]:
        """What there is beside rows, as far as it can matter: which files, and whether they are whole."""
        states = {
            _SALT.sub(r"\1", name): "rows" if _holds_rows(name) and data else _state_of(data)
            for name, data in contents.items()
        }
        self._names |= states.keys()
        listed = {f"{name} is {states.get(name, 'missing')}" for name in self._names}
        return {repr(sorted(listed))} if self._thorough else listed


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _rows_key(contents: Contents) -> str:
    """What rows depend on: the store file, the journals and the payloads."""
    kept = {
        name: data for name, data in contents.items() if _holds_rows(name) or name.endswith(layout.STORE_FILE)
    }
    return _digest(repr(kept).encode())


def _holds_rows(name: str) -> bool:
    """Whether a file is a journal or a payload."""
    path = Path(name)
    return path.suffix == layout.JOURNAL_SUFFIX or (
        path.parent.name == layout.OBJECTS_DIR and not path.name.startswith(layout.TEMPORARY_PREFIX)
    )


#: What is random in names: of unfinished files, of journals, of payloads.
_SALT = re.compile(
    rf"({re.escape(layout.TEMPORARY_PREFIX)}|-|{re.escape(layout.OBJECTS_DIR)}/)[0-9a-f-]{{8,}}"
)


def _state_of(data: bytes | None) -> str:
    if not data:
        return "directory" if data is None else "empty"
    if not any(data):
        return "zeros"
    try:
        json.loads(data)
    except ValueError:
        return "something"
    return "whole"
