"""A run's tables as of now: the one function through which everything reads.

The journals are read first, then the store file. Whatever a writer folds in between, each row that was
acknowledged before is seen exactly once: a journal that was folded meanwhile is skipped up to the
sequence number that the store file says it holds. No lock is taken, nothing is written.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cox import steps
from cox.errors import CoxError, DamagedError, DamageWarning, RunNotFoundError, warn
from cox.storage import empty, fs, hdf5, journal, layout, lineage, newest, runinfo
from cox.storage.columns import Array, TableData, mask_of
from cox.storage.ownership import cut_rows, has_ranks, own_by_part, own_rows, uncounted_rows
from cox.storage.replay import Replay
from cox.storage.schemas import RANK

if TYPE_CHECKING:
    from cox.storage.journal import columnar
    from cox.storage.journal.writing import JournalWriter


@dataclass(slots=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        content: Tables and writers, as a store file would hold them now.
        journals: What was read on top of the store file. Of a foreign one it may be that nothing was applied.
        foreign: What belongs to another life of the run, see `lineage`.
        damage: A sentence for each thing that could not be read.
        payloads: Names of the files of objects in rows that come from a journal.
        missing: Journals that are said to be there, and are not; `damage` tells of them, too.
    """

    content: hdf5.StoreFile
    journals: list[journal.Journal]
    foreign: list[lineage.Foreign] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    payloads: list[str] = field(default_factory=list)
    missing: list[newest.Newest] = field(default_factory=list)

    @property
    def tables(self) -> dict[str, TableData]:
        """The tables by name. Those whose rows were not asked for have none."""
        return self.content.tables

    @property
    def run_id(self) -> str | None:
        """The id of the run, see `runinfo.run_id`."""
        return self.content.run_id

    @property
    def is_ranked(self) -> bool:
        """Whether several wrote it as ranks, so that the column `rank` is ours."""
        return any(writer != layout.MAIN_WRITER for writer in self.content.writers)

    def has_ranks(self, table: str) -> bool:
        """Whether ranks wrote a table, so that its column `rank` is ours; else it is the user's own."""
        data = self.tables.get(table)
        return (
            data is not None
            and data.schema.get(layout.RANK_COLUMN) == RANK
            and has_ranks(self.content, table)
        )

    def by_rank(self, table: str) -> Iterator[tuple[int | None, Array]]:
        """The ranks that wrote a table, and which of its rows are of each; None is no rank."""
        data = self.tables[table]
        if not self.has_ranks(table):
            yield None, np.arange(data.nrows)
            return
        ranks, missing = data.column(RANK)
        gone = np.zeros(data.nrows, dtype=np.bool_) if missing is None else missing
        if gone.any():
            yield None, np.flatnonzero(gone)
        for one in np.unique(ranks[~gone]):
            yield int(one), np.flatnonzero((ranks == one) & ~gone)

    def step_column(self, table: str, names: Iterable[str]) -> str | None:
        """The first of some columns of numbers that counts a table's steps, if any; see `cox.steps`."""
        data = self.tables[table]
        columns = {column.name: column for column in data.schema}
        parts = [rows for _, rows in self.by_rank(table)]
        known = [name for name in names if name in columns]
        return steps.counting(known, lambda name: data.numbers(columns[name]), parts)

    @property
    def problems(self) -> list[str]:
        """A sentence for each thing that could not be read, or that does not belong here."""
        return [*(foreign.problem for foreign in self.foreign), *self.damage]

    @property
    def store_is_foreign(self) -> bool:
        """Whether the store file belongs to another life of the run."""
        return any(foreign.writer is None for foreign in self.foreign)

    def warn(self, run: Path | str) -> None:
        """Warn of what could not be read."""
        for sentence in self.problems:
            warn(f"run {run}: {sentence}", DamageWarning)

    @property
    def writers(self) -> list[str]:
        """Who has written the run; what upstream cox wrote counts as of the sole writer."""
        return list(self.content.writers) or [layout.MAIN_WRITER]

    def own_rows(self, writer: str) -> dict[str, int]:
        """How many rows of each table are a writer's."""
        return own_rows(self.content, writer)

    def uncounted_rows(self) -> dict[str, int]:
        """How many rows of each table no writer has written, see `ownership.uncounted_rows`."""
        return uncounted_rows(self.content)

    def rows_before(self, table: str, writer: str, column: str, step: float) -> int:
        """How many of a writer's rows come before the first of which `column` is `step` or more."""
        data = self.tables.get(table)
        if data is None:
            return 0
        before = 0
        own_in_parts = own_by_part(data, writer, ranked=self.has_ranks(table))
        for part, own in zip(data.parts, own_in_parts, strict=True):
            if column in part.values:
                later = own & (part.values[column] >= step) & ~mask_of(part, column)
                if later.any():
                    return before + int(own[: int(later.argmax())].sum())
            before += int(own.sum())
        return before

    def rewind(self, table: str, writer: str, nrows: int) -> bool:
        """Drop a writer's rows of a table from number `nrows` on. Returns whether there were any."""
        state = self.content.writers.setdefault(writer, {"seq": 0, "rows": own_rows(self.content, writer)})
        rows: dict[str, int] = state["rows"]
        gone = rows.get(table, 0) - nrows
        if gone > 0:
            cut_rows(self.content, table, writer, nrows, gone=gone)
            rows[table] = nrows
        return gone > 0

    def drop_rows(self, writers: Iterable[str]) -> None:
        """Drop all rows of some writers. What they are to write next counts from their records so far.

        It will follow nothing that was before, so that an old store file, or journals of then, that a copying
        program puts back are known not to belong to it.
        """
        for writer in list(writers):
            state = self.content.writers[writer]
            for name, rows in state["rows"].items():
                cut_rows(self.content, name, writer, 0, gone=rows)
            state["rows"] = {}
            state["emptied"] = [*state.get("emptied", []), *state.get("journals", [])]
            state["journals"] = [[secrets.randbits(32), state["seq"]]]


def read(
    run: layout.RunLayout,
    *,
    tables: Iterable[str] | None = None,
    rows: bool = True,
    own: JournalWriter | None = None,
) -> Snapshot:
    """Read a run.

    Args:
        run: Where it lies.
        tables: The rows of these tables only; None for all.
        rows: Whether to read rows at all, or only which tables there are and how many rows they have.
        own: The journal of the writer that asks, whose rows go before others in its place. What a signal
            handler logs meanwhile counts, too.

    Raises:
        RunNotFoundError: There is no store file, and no journal.
        DamagedError: The store file cannot be read.
        FormatVersionError: A newer cox wrote it.
        StorageError: The file system refused to read it.
    """
    # a newer format is refused before anything is taken for an older one
    known = runinfo.id_of(runinfo.read(run))
    wanted = None if tables is None else frozenset(tables)
    # On a network file system a file that another host replaces cannot be read to its end, and a new one is
    # believed missing for a while: nothing is called missing or damaged that was not read twice.
    before = None
    for turn in range(fs.REPLACED_TIMES):
        try:
            seen = _read_once(run, wanted, run_id=known, rows=rows, own=own)
        except (DamagedError, OSError) as error:
            if turn and (turn == fs.REPLACED_TIMES - 1 or fs.identity(run.store_file) == before):
                if isinstance(error, CoxError):
                    raise
                path = error.filename or run.root
                raise fs.refused(error, "cannot read the run", path, reading=True) from error
        else:
            if turn or not seen.problems:
                return seen
        fs.look_again(run.root)
        before = fs.identity(run.store_file)
    raise AssertionError("unreachable")


def _read_once(
    run: layout.RunLayout,
    tables: frozenset[str] | None,
    *,
    run_id: str | None,
    rows: bool,
    own: JournalWriter | None,
) -> Snapshot:
    directory = run.inside(layout.JOURNALS)
    names = fs.names_in(directory)
    journals = journal.read_journals(directory, _read_by_columns, names=names)
    store_file = run.inside(layout.STORE_FILE)
    try:
        # rewinds reach into rows of the store file, so that journals want their tables whole
        content = (
            hdf5.StoreFile()
            if empty.is_empty(store_file)
            else hdf5.read(store_file, tables=tables, rows=rows)
        )
    except FileNotFoundError:
        if not journals:
            raise RunNotFoundError(f"{run.root} is no run: it has no {layout.STORE_FILE}") from None
        content = hdf5.StoreFile()
    now = replay(content, journals, run_id=run_id, tables=tables, rows=rows, own=own)
    _say_what_is_missing(now, newest.among(names))
    return now


def _read_by_columns(data: bytes, salt: int, start: int) -> tuple[columnar.Rows, int] | None:
    from cox.storage.journal import columnar  # of many runs few have a journal

    return columnar.read(data, salt, start)


def _say_what_is_missing(now: Snapshot, marks: list[newest.Newest]) -> None:
    """Note each journal that is not there, and whose rows are not in the store file either."""
    names = {log.path.name for log in now.journals}
    for mark in marks:
        seq = now.content.writers.get(mark.writer, {"seq": 0})["seq"]
        if mark.journal not in names and seq <= mark.seq:
            now.missing.append(mark)
            now.damage.append(mark.missing(seq))


def replay(
    content: hdf5.StoreFile,
    journals: list[journal.Journal],
    *,
    run_id: str | None = None,
    tables: Iterable[str] | None = None,
    rows: bool = True,
    own: JournalWriter | None = None,
) -> Snapshot:
    """Apply journals to what a store file holds, or to what is left of it. Changes `content`.

    Args:
        content: What the store file holds.
        journals: What is to be applied, as far as it belongs to the run.
        run_id: The id that the run has by its `run.json`.
        tables: The rows of these tables only; None for all.
        rows: Whether rows are read at all.
        own: As in `read`.
    """
    snapshot = Snapshot(content, journals)
    known = lineage.choose_id(run_id, content.run_id, journals)
    if content.run_id not in (None, known):
        problem = (
            f"{layout.STORE_FILE} belongs to another life of the run, and is left out: "
            f"it is of run {content.run_id}, and this is run {known}"
        )
        snapshot.foreign.append(lineage.Foreign(Path(layout.STORE_FILE), problem, None))
        snapshot.content = hdf5.StoreFile()
    snapshot.content.run_id = known
    if journals:
        applied = Replay(snapshot.content, journals, tables=tables, rows=rows, own=own)
        applied.run()
        snapshot.foreign += applied.foreign
        snapshot.damage += applied.damage
        snapshot.payloads += applied.payloads
    return snapshot
