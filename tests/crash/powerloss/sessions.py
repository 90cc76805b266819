"""Sessions that the power is to be lost in, done to a Store and to a plain model beside it.

Every row has a number of its own, in the column `n`: whatever comes back can be told from everything else.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cox
from cox.storage import hdf5, layout, open_writers, writer
from cox.testing import model
from tests.crash.powerloss.recorder import Recorder

#: Where the secret lies that objects are signed with.
CONFIGURATION = Path("my configuration", "cox")


@dataclass(eq=False)
class Row:
    """A row that was once appended: its place among its writer's rows of the table, and its values."""

    place: int
    values: dict[str, Any]


@dataclass
class State:
    """What one writer has in a run: for each table its columns and its rows."""

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def copy(self) -> State:
        return State(dict(self.columns), {name: list(rows) for name, rows in self.rows.items()})


class Stage:
    """Where a session is recorded.

    Args:
        root: A directory to make. All that is in it may be hit by the loss of power.
        sync: For the Stores.

    Attributes:
        place: Where in `root` the folder of runs lies.
        authors: The session's writers by their rank.
    """

    def __init__(self, root: Path, sync: str | None) -> None:
        self.place = Path("runs")
        (root / self.place).mkdir(parents=True)
        self.sync = sync
        self.recorder = Recorder(root)
        self.authors: dict[int | None, Author] = {}
        self._number = 0

    @property
    def folder(self) -> Path:
        """The folder of runs."""
        return self.recorder.root / self.place

    @property
    def run(self) -> layout.RunLayout:
        """The run."""
        return layout.RunLayout(self.folder / "run")

    def record(self, session: Session) -> None:
        """Have a session happen here."""
        use_configuration(self.recorder.root)
        with self.recorder.recording():
            session(self)

    def next_number(self) -> int:
        self._number += 1
        return self._number


Session = Callable[[Stage], None]


def use_configuration(root: Path) -> None:
    """Have objects signed with the secret below a directory. The tests restore the variable."""
    os.environ["COX_CONFIG_HOME"] = str(root / CONFIGURATION)


class Author:
    """One writer of the run. What it was told is marked in the trace:

    * `("returned", rank, k)`: its k-th operation returned; `states[k]` is what it has then;
    * `("closed", rank)`: so did the closing of its store;
    * `("folded", None)`: whatever had returned, of any writer, was folded.

    Args:
        stage: Where it writes.
        rank: Its rank, if it is one of several.
    """

    def __init__(self, stage: Stage, rank: int | None = None) -> None:
        self.rank = rank
        self.now = State()
        self.states = [self.now.copy()]
        self._stage = stage
        self._schemas: dict[str, dict[str, Any]] = {}
        self._working: dict[str, Any] = {}
        stage.authors[rank] = self
        self.open()

    def open(self, mode: str = "a") -> None:
        """Open the run and declare its tables, as a script does that is started again."""
        if mode == "w":
            self.now, self._schemas = State(), {}
        stage = self._stage
        self._store = cox.Store(stage.folder, "run", rank=self.rank, sync=stage.sync, mode=mode)
        self._done()
        for name, schema in self._schemas.items():
            self._store.add_table(name, schema)

    def table(self, name: str, **schema: Any) -> None:
        """Declare a table."""
        self._store.add_table(name, schema)
        self._schemas[name] = schema
        self.now.columns[name] = tuple(schema)
        self.now.rows[name] = []
        self._done()

    def row(self, name: str, **given: Any) -> None:
        """Append a row; what is not given follows from its number."""
        values = self._values(name, given)
        self._store[name].append_row(values)
        self._flushed(name, values)

    def begin_row(self, name: str, **given: Any) -> None:
        """Fill the working row, to be flushed later."""
        self._working = self._values(name, given)
        self._store[name].update_row(self._working)

    def flush_row(self, name: str) -> None:
        """Flush the working row."""
        self._store[name].flush_row()
        self._flushed(name, self._working)

    def column(self, name: str, column: str, of: Any) -> None:
        """Add a column."""
        self._store[name].add_column(column, of)
        self._schemas[name][column] = of | None
        self.now.columns[name] += (column,)
        self._done()

    def rewind(self, name: str, nrows: int) -> None:
        """Drop the later rows."""
        self._store.rewind(name, nrows, purge_tensorboard=False)
        del self.now.rows[name][nrows:]
        self._done()

    def fold(self, *, of_all: bool = True) -> None:
        """Have the journals folded: of all writers, unless one of them went on meanwhile."""
        self._writer.fold_if_it_helps()
        self._done()
        if of_all:
            self._stage.recorder.mark(("folded", None))

    def close(self) -> None:
        """Close the store."""
        self._store.close()
        self._done()
        self._stage.recorder.mark(("closed", self.rank))

    def reopen(self) -> None:
        """End, and be started again."""
        self.close()
        self.open()

    def die(self) -> None:
        """As dead as a process can be in here: nothing is closed, and all that was written is there."""
        gone = self._writer
        gone.abandon()
        self._store.close()
        open_writers.release(gone)

    def lose(self, name: str, text: str) -> None:
        """After it died: have an earlier damage take the row with a text out of the journal."""
        (path,) = self._stage.run.journal_dir.glob("*.log")
        at = path.read_bytes().index(text.encode())
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, bytes(len(text.encode())), at)
        os.fsync(fd)
        os.close(fd)
        self.now.rows[name] = [row for row in self.now.rows[name] if text not in row.values.values()]
        self._done()

    @property
    def _writer(self) -> writer.RunWriter:
        assert self._store._writer is not None
        return self._store._writer

    def _values(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        number = self._stage.next_number()
        return {**model.row_of(self._schemas[name], number), **given, "n": number}

    def _flushed(self, name: str, values: dict[str, Any]) -> None:
        rows = self.now.rows[name]
        rows.append(Row(rows[-1].place + 1 if rows else 0, values))
        self._done()

    def _done(self) -> None:
        """An operation returned. If no journal is left, all is folded."""
        self.states.append(self.now.copy())
        self._stage.recorder.mark(("returned", self.rank, len(self.states) - 1))
        if not any(self._stage.run.journal_dir.glob("*.log")):
            self._stage.recorder.mark(("folded", None))


def sole_writer(stage: Stage) -> None:
    """One of everything."""
    log = Author(stage)
    log.table("results", n=int, loss=float, note=str | None)
    log.table("objects", n=int, thing=cox.OBJECT, file=cox.PICKLE)
    log.row("results")
    log.row("results")
    log.row("objects")
    log.column("results", "late", float)
    log.row("results")
    log.rewind("results", 2)
    log.row("results")
    log.fold()
    log.row("objects")
    log.row("results")
    log.rewind("results", 1)
    log.row("results")
    log.reopen()
    log.row("results")
    log.rewind("objects", 0)
    log.row("objects")
    log.close()


def folds_by_itself(stage: Stage) -> None:
    """Rows and nothing else, with a fold every few of them."""
    log = Author(stage)
    log.table("results", n=int, text=str)
    for _ in range(16):
        log.row("results")
    log.close()


def new_folder(stage: Stage) -> None:
    """A folder of runs that is not there yet, nor the one that it is in."""
    stage.place = Path("new", "folder")
    log = Author(stage)
    log.table("results", n=int)
    log.row("results")
    log.close()


def two_ranks(stage: Stage) -> None:
    """Two writers. The first to leave does not fold, for the other is still there."""
    zero, one = Author(stage, 0), Author(stage, 1)
    for log in (zero, one):
        log.table("results", n=int, loss=float)
        log.table("objects", n=int, file=cox.PICKLE)
    for _ in range(2):
        zero.row("results")
        one.row("results")
    one.row("objects")
    zero.fold()
    one.row("results")
    one.rewind("results", 1)
    zero.row("results")
    one.row("objects")
    one.close()
    zero.row("results")
    zero.row("objects")
    zero.close()


def after_a_kill(stage: Stage) -> None:
    """A writer that is killed twice, and finds its journal when it is started again."""
    log = Author(stage)
    log.table("results", n=int, note=str | None)
    log.table("objects", n=int, file=cox.PICKLE)
    for _ in range(3):
        log.row("results")
    log.row("objects")
    log.rewind("results", 2)
    log.row("results")
    log.die()
    log.open()
    log.row("results")
    log.row("objects")
    log.die()
    log.open()
    log.row("results")
    log.close()


def after_a_loss(stage: Stage) -> None:
    """A journal that an earlier loss of power left with a hole is recovered, and the power goes again."""
    log = Author(stage)
    log.table("results", n=int, text=str)
    for number in range(3):
        log.row("results", text=f"row {number} in the journal")
    log.die()
    log.lose("results", "row 1 in the journal")
    log.open()
    for number in range(3, 5):
        log.row("results", text=f"row {number} in the journal")
    log.close()


def begun_anew(stage: Stage) -> None:
    """mode='w' on a run with rows in its store file and in a journal, and tables of other columns then."""
    log = Author(stage)
    log.table("results", n=int, old=float)
    log.table("objects", n=int, file=cox.PICKLE)
    log.row("results")
    log.row("objects")
    log.reopen()
    log.row("results")
    log.die()
    log.open(mode="w")
    log.table("results", n=int, new=str)
    log.table("objects", n=int, file=cox.PICKLE)
    log.row("results")
    log.row("objects")
    log.fold()
    log.row("results")
    log.close()


def late_payload(stage: Stage) -> None:
    """An object whose row is flushed long after it was given, with a fold in between."""
    log = Author(stage)
    log.table("results", n=int)
    log.table("objects", n=int, file=cox.PICKLE)
    log.row("results")
    log.row("objects")
    log.begin_row("objects", file=[1, 2, 3])
    for path in stage.run.objects_dir.glob(f"{layout.TEMPORARY_PREFIX}*"):
        os.utime(path, (0, 0))
    log.fold()
    log.flush_row("objects")
    log.fold()
    log.row("results")
    log.close()


def during_a_fold(stage: Stage) -> None:
    """An object that one rank flushes while another one folds, for so long that store.h5 is newer."""
    zero, one = Author(stage, 0), Author(stage, 1)
    zero.table("results", n=int)
    one.table("objects", n=int, file=cox.PICKLE)
    zero.row("results")
    real_write = hdf5.write

    def write(*args: Any, **options: Any) -> None:
        one.row("objects")
        real_write(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdf5, "write", write)
        zero.fold(of_all=False)
    later = time.time() + 5
    os.utime(stage.run.store_file, (later, later))
    zero.row("results")
    zero.fold()
    zero.close()
    one.close()


def large_payload(stage: Stage) -> None:
    """Objects of several pages, of which some may reach the disk, and others not."""
    log = Author(stage)
    log.table("objects", n=int, file=cox.PICKLE)
    for first in (0, 1):
        log.row("objects", file={"weights": np.arange(first, 2000)})
    log.fold()
    log.row("objects", file={"weights": np.arange(2000)})
    log.close()


def own_class(stage: Stage) -> None:
    """Objects that only a signature makes readable, by a secret that is made with the first of them."""
    log = Author(stage)
    log.table("objects", n=int, thing=cox.OBJECT, file=cox.PICKLE)
    for number in (0, 1):
        log.row("objects", thing=ip_address(number), file=ip_address(number + 9))
    log.fold()
    log.row("objects", thing=ip_address(2), file=ip_address(11))
    log.close()


SESSIONS: dict[str, Session] = {
    session.__name__: session
    for session in (
        *(sole_writer, folds_by_itself, new_folder, two_ranks, after_a_kill, after_a_loss, begun_anew),
        *(late_payload, during_a_fold, large_payload, own_class),
    )
}


def random_session(seed: int, length: int = 25) -> Session:
    """A session of random operations."""

    def session(stage: Stage) -> None:
        choose = random.Random(seed)
        log = Author(stage)
        log.table("results", n=int, loss=float, note=str | None)
        log.table("objects", n=int, file=cox.PICKLE)
        for step in range(length):
            name = choose.choice(["results", "results", "results", "objects"])
            what = choose.choices(["row", "rewind", "column", "fold", "reopen", "kill"], [75, 9, 4, 4, 4, 4])
            if what == ["row"]:
                log.row(name)
            elif what == ["rewind"]:
                log.rewind(name, choose.randint(0, len(log.now.rows[name])))
            elif what == ["column"]:
                log.column("results", f"late{step}", choose.choice([int, float, bool, str]))
            elif what == ["fold"]:
                log.fold()
            elif what == ["reopen"]:
                log.reopen()
            else:
                log.die()
                log.open()
        log.close()

    return session
