"""A run's tables as of now: the one function through which everything reads.

The journals are read first, then the store file. Whatever a writer folds in between, each row that was
acknowledged before is seen exactly once: a journal that was folded meanwhile is skipped up to the
sequence number that the store file says it holds. No lock is taken, nothing is written.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cox.errors import CoxError, DamagedError, DamageWarning, RunNotFoundError, warn
from cox.schema import FILE_KINDS, Column, Schema
from cox.storage import empty, fs, hdf5, journal, layout, lineage, newest, runinfo
from cox.storage.columns import Array, Part, TableData, mask_of, part_from_rows, values_of

if TYPE_CHECKING:
    from cox.storage.journal import columnar
    from cox.storage.journal.writing import JournalWriter

_NONE = np.empty(0, dtype=np.int64)
#: The column that tells ranks apart; a user's own column of that name is declared otherwise.
_RANK = Column(layout.RANK_COLUMN, "int", nullable=True)


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
            and data.schema.get(layout.RANK_COLUMN) == _RANK
            and _has_ranks(self.content, table)
        )

    def by_rank(self, table: str) -> Iterator[tuple[int | None, Array]]:
        """The ranks that wrote a table, and which of its rows are of each; None is no rank."""
        data = self.tables[table]
        if not self.has_ranks(table):
            yield None, np.arange(data.nrows)
            return
        ranks, missing = data.column(_RANK)
        gone = np.zeros(data.nrows, dtype=np.bool_) if missing is None else missing
        if gone.any():
            yield None, np.flatnonzero(gone)
        for one in np.unique(ranks[~gone]):
            yield int(one), np.flatnonzero((ranks == one) & ~gone)

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

    def rows_before(self, table: str, writer: str, column: str, step: float) -> int:
        """How many of a writer's rows come before the first of which `column` is `step` or more."""
        data = self.tables.get(table)
        if data is None:
            return 0
        before = 0
        own_in_parts = _own_in(data, writer, ranked=self.has_ranks(table))
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
            _cut(self.content, table, writer, nrows, gone=gone)
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
                _cut(self.content, name, writer, 0, gone=rows)
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
        _Replay(snapshot, None if tables is None else frozenset(tables), rows=rows, own=own).run()
    return snapshot


def recount(content: hdf5.StoreFile) -> None:
    """Count the rows of each writer anew, where some of those in the store file are lost."""
    for writer, state in content.writers.items():
        for name in state["rows"]:
            table = content.tables.get(name)
            own = [] if table is None else _own_in(table, writer, ranked=_has_ranks(content, name))
            state["rows"][name] = sum(int(mask.sum()) for mask in own)


def own_rows(content: hdf5.StoreFile, writer: str) -> dict[str, int]:
    """How many rows of each table are a writer's. In a file that does not say, all are the sole one's."""
    if writer in content.writers:
        return dict(content.writers[writer]["rows"])
    if content.writers or writer != layout.MAIN_WRITER:
        return {}
    return dict(content.nrows)


def uncounted_rows(content: hdf5.StoreFile) -> dict[str, int]:
    """How many rows of each table no writer has written: another program appended them to the store file."""
    if not content.writers:
        return {}
    counted = {name: sum(w["rows"].get(name, 0) for w in content.writers.values()) for name in content.nrows}
    return {name: rows - counted[name] for name, rows in content.nrows.items() if rows > counted[name]}


def adopt_rows(content: hdf5.StoreFile) -> bool:
    """Count such rows as the sole writer's. Returns whether there are any."""
    uncounted = uncounted_rows(content)
    rows = content.writers.setdefault(layout.MAIN_WRITER, {"seq": 0, "rows": {}})["rows"] if uncounted else {}
    for name, more in uncounted.items():
        rows[name] = rows.get(name, 0) + more
    return bool(uncounted)


@dataclass(slots=True)
class _Pending:
    """A table as one journal tells it: its columns, and rows that are not in the store file.

    Of a journal that is replayed by columns, `chosen` says which of its records these rows are.
    """

    name: str
    columns: list[Column]
    fresh: bool
    rows: list[list[Any]] = field(default_factory=list)
    chosen: list[Array] = field(default_factory=list)
    part: Part | None = None

    @property
    def nrows(self) -> int:
        """How many rows."""
        return len(self.rows) + sum(len(some) for some in self.chosen)


class _Replay:
    """Applies journals to what the store file holds."""

    def __init__(
        self,
        snapshot: Snapshot,
        wanted: frozenset[str] | None,
        *,
        rows: bool,
        own: JournalWriter | None,
    ) -> None:
        self._snapshot = snapshot
        self._own = own
        self._content = snapshot.content
        self._wanted = wanted
        self._rows = rows

    def run(self) -> None:
        """Apply all of them, in order."""
        if not self._content.writers and self._content.nrows:
            rows = own_rows(self._content, layout.MAIN_WRITER)
            self._content.writers[layout.MAIN_WRITER] = {"seq": 0, "rows": rows}
        by_writer: dict[str, list[journal.Journal]] = {}
        for log in self._snapshot.journals:
            self._snapshot.damage += [f"journal {log.path.name}: {sentence}" for sentence in log.damage]
            by_writer.setdefault(log.writer, []).append(log)
        for name, logs in by_writer.items():
            self._run_writer(self._content.writers.setdefault(name, {"seq": 0, "rows": {}}), logs)

    def _run_writer(self, state: dict[str, Any], logs: list[journal.Journal]) -> None:
        """Apply what belongs to the run of a writer's journals, and note what does not."""
        writer = lineage.select(self._content.run_id, state, logs, self._own.salts if self._own else ())
        self._snapshot.foreign += writer.foreign
        journals = state.setdefault("journals", [])
        journals[:0] = [[log.salt, state["seq"]] for log in writer.folded]
        for log, stop in writer.applied:
            if stop < log.end_seq:
                self._apply_records(log, [record for record in log.records if record[1] < stop], state)
            elif log.rows is None or not self._apply_rows(log, log.rows, state):
                self._apply_records(log, log.records, state)
            if journals and journals[-1][0] == log.salt:
                journals.pop()
            journals.append([log.salt, state["seq"]])

    def _apply_rows(self, log: journal.Journal, rows: columnar.Rows, state: dict[str, Any]) -> bool:
        """Apply a journal by columns, if it is as its writer wrote it. Of any other it changes nothing."""
        try:
            pending, rewinds = _replayed(rows, state)
            for number, table in pending.items():
                if rows.width(number) > len(table.columns):
                    return False
                if self._is_wanted(table.name):
                    table.part = rows.part(number, table.columns, np.concatenate([_NONE, *table.chosen]))
        except (LookupError, TypeError, ValueError, OverflowError, DamagedError):
            return False
        settled = dict(state["rows"])
        for name, keep in rewinds:
            state["rows"][name] = keep
            if keep < settled.get(name, 0):
                _cut(self._content, name, log.writer, keep, gone=settled[name] - keep)
                settled[name] = keep
        self._settle(log, state, pending, settled, max(state["seq"], int(rows.seq[-1]) + 1))
        return True

    def _apply_records(self, log: journal.Journal, records: list[list[Any]], state: dict[str, Any]) -> None:
        """Apply a journal record by record, and say what is wrong with it."""
        pending: dict[int, _Pending] = {}
        settled = dict(state["rows"])  # how many of its rows stand in `content` already
        expected = state["seq"]
        lost = 0
        cut_off: Counter[str] = Counter()
        for record in records:
            try:
                kind, seq = record[0], record[1]
                if seq != expected and seq > expected:
                    lost += seq - expected
                fresh = seq >= expected
                if kind == journal.ROW:
                    if fresh:
                        name, number = pending[record[2]].name, record[3]
                        if len(record) - 4 > len(pending[record[2]].columns):
                            cut_off[name] += 1
                            expected = seq + 1
                            continue
                        if number < settled.get(name, 0):  # it was written after a rewind that is lost
                            _cut(self._content, name, log.writer, number, gone=settled[name] - number)
                            settled[name] = number
                        self._row(pending, state["rows"], record)
                elif kind in _DECLARATIONS:
                    _DECLARATIONS[kind](pending, record, fresh=fresh)
                elif kind == journal.REWIND and fresh:
                    name, keep = record[2], int(record[3])
                    _drop_pending(pending, name, keep)
                    if keep < settled.get(name, 0):
                        _cut(self._content, name, log.writer, keep, gone=settled[name] - keep)
                        settled[name] = keep
                    state["rows"][name] = keep
                if fresh:
                    expected = seq + 1
                if kind not in (journal.ROW, journal.REWIND, *_DECLARATIONS):
                    self._damaged(log, f"a record of kind {kind}, which this cox does not know")
            except (LookupError, TypeError, ValueError, OverflowError) as error:
                self._damaged(log, f"a record makes no sense: {error}")
        if lost:
            self._damaged(log, f"{lost} records are lost")
        for name, rows in cut_off.items():
            self._damaged(
                log,
                f"table {name!r}: the declaration of a column is lost, and with it the {rows} rows after it",
            )
        self._settle(log, state, pending, settled, expected)

    def _settle(
        self,
        log: journal.Journal,
        state: dict[str, Any],
        pending: dict[int, _Pending],
        settled: dict[str, int],
        seq: int,
    ) -> None:
        """Put the rows of a journal behind the others, and note what is in `content` now."""
        state["seq"] = seq
        # counted anew, for lost rows were counted too: whoever opens the run next counts what there is
        state["rows"].update({name: settled.get(name, 0) for name in state["rows"]})
        for table in pending.values():
            # a declaration that was folded may be of a table that was begun anew since
            if table.nrows or (table.fresh and table.name in self._content.tables):
                self._merge(table, log)
            state["rows"][table.name] = state["rows"].get(table.name, 0) + table.nrows

    def _is_wanted(self, name: str) -> bool:
        return self._rows and (self._wanted is None or name in self._wanted)

    def _damaged(self, log: journal.Journal, sentence: str) -> None:
        self._snapshot.damage.append(f"journal {log.path.name}: {sentence}")

    def _row(self, pending: dict[int, _Pending], rows: dict[str, int], record: list[Any]) -> None:
        table, number = pending[record[2]], record[3]
        expected = rows.get(table.name, 0)
        if number != expected and number > expected:
            which = f"row {expected}" if number == expected + 1 else f"rows {expected} to {number - 1}"
            self._snapshot.damage.append(f"table {table.name!r}: {which} of the journal cannot be read")
        elif number < expected:  # a row that was written and not acknowledged, and then this in its place
            _drop_pending(pending, table.name, number)
        rows[table.name] = number + 1
        table.rows.append(record)

    def _merge(self, table: _Pending, log: journal.Journal) -> None:
        """Put a journal's rows behind those of the table so far."""
        name, content = table.name, self._content
        whole = content.tables.get(name)
        if whole is None:
            whole = content.tables[name] = TableData(name, Schema(_rank_last(table.columns, log.writer)))
        content.nrows[name] = content.nrows.get(name, 0) + table.nrows
        merged = merge_schemas(whole.schema, _rank_last(table.columns, log.writer))
        if self._is_wanted(name):
            part = table.part or self._part(table, log)
            if _of_other_kind(whole.schema, merged):
                whole.parts = [widened(old, whole.schema, merged) for old in whole.parts]
            self._snapshot.payloads += _payloads(part, table.columns)
            if part.nrows:
                part = widened(part, Schema(table.columns), merged)
                self._keep_ranks_apart(whole, part, log.writer)
        whole.schema = merged

    def _keep_ranks_apart(self, whole: TableData, part: Part, writer: str) -> None:
        """Put a part behind the others. Beside rows of ranks the sole writer's have no number in `rank`.

        What it has stored there, as a column of its own, would be taken for a rank's in `store.h5`.
        """
        ranked = _has_ranks(self._content, whole.name)
        if writer == layout.MAIN_WRITER:
            whole.parts.append(_without_rank(part) if ranked else part)
            return
        if not ranked:  # so all that was there is the sole writer's
            whole.parts = [_without_rank(old) for old in whole.parts]
        whole.parts.append(part)

    def _part(self, table: _Pending, log: journal.Journal) -> Part:
        width = len(table.columns)
        rows = [record[4 : 4 + width] for record in table.rows]
        try:
            return part_from_rows(rows, table.columns)
        except (DamagedError, OverflowError) as error:
            self._damaged(log, f"table {table.name!r}: {error}")
            good = [row for row in rows if _fits(row, table.columns)]
            self._content.nrows[table.name] -= len(rows) - len(good)
            return part_from_rows(good, table.columns)


def _replayed(
    rows: columnar.Rows, state: dict[str, Any]
) -> tuple[dict[int, _Pending], list[tuple[str, int]]]:
    """The tables of a journal that is as its writer wrote it, and its rewinds.

    Raises:
        ValueError: It is not, and so do TypeError and LookupError say.
    """
    count, fresh = len(rows.seq), state["seq"] - int(rows.seq[0])
    if fresh < 0 or (np.diff(rows.seq) != 1).any():
        raise ValueError("records are lost")
    pending: dict[int, _Pending] = {}
    rewinds: list[tuple[str, int]] = []
    nrows: dict[str, int] = dict(state["rows"])
    start = min(fresh, count)
    for at, record in [*rows.others.items(), (count, [journal.ROW])]:
        some = rows.table[start:at]
        for number in np.unique(some[np.diff(some, prepend=-1) != 0]):  # few, where tables do not take turns
            if number >= 0:
                table = pending[int(number)]
                chosen = start + np.flatnonzero(some == number)
                first = nrows.get(table.name, 0)
                nrows[table.name] = first + len(chosen)
                if (rows.number[chosen] != np.arange(first, first + len(chosen))).any():
                    raise ValueError("rows are lost")
                table.chosen.append(chosen)
        if record[0] in _DECLARATIONS:
            _DECLARATIONS[record[0]](pending, record, fresh=at >= fresh)
        elif record[0] == journal.REWIND and at >= fresh:
            name, keep = record[2], record[3]
            if type(name) is not str or type(keep) is not int or not 0 <= keep <= nrows.get(name, 0):
                raise ValueError("a rewind of rows that are lost")
            for table in pending.values():
                if table.name == name:
                    table.chosen = [some[rows.number[some] < keep] for some in table.chosen]
            nrows[name] = keep
            rewinds.append((name, keep))
        elif record[0] not in (journal.ROW, journal.REWIND):
            raise ValueError("a record of another kind")
        start = max(start, min(at + 1, count))
    return pending, rewinds


def _payloads(part: Part, columns: list[Column]) -> list[str]:
    """The names of the files of a part's objects."""
    kept = [column for column in columns if column.kind in FILE_KINDS and column.name in part.values]
    return [
        name
        for column in kept
        for name in values_of(part, column)[~mask_of(part, column.name)]
        if layout.is_file_name(name)
    ]


def _fits(row: list[Any], columns: list[Column]) -> bool:
    try:
        part_from_rows([row], columns)
    except (DamagedError, OverflowError):
        return False
    return True


def _declare(pending: dict[int, _Pending], record: list[Any], *, fresh: bool) -> None:
    _, _, table_id, name, columns = record
    if table_id not in pending:  # written twice
        schema = Schema.from_json(columns)
        pending[table_id] = _Pending(layout.check_table_name(name), list(schema), fresh)


def _rank_last(columns: list[Column], writer: str) -> list[Column]:
    """The columns as they are shown: of a rank's rows, those added later stand before `rank`."""
    if writer == layout.MAIN_WRITER:
        return columns
    return [
        *(column for column in columns if column != _RANK),
        *(column for column in columns if column == _RANK),
    ]


def _add_column(pending: dict[int, _Pending], record: list[Any], *, fresh: bool) -> None:
    """One column more: rows of the table before this record are shorter by its cell."""
    _, _, table_id, *column = record
    table, (added,) = pending[table_id], Schema.from_json([column])
    if all(known.name != added.name for known in reversed(table.columns)):  # written twice
        table.columns.append(added)
        table.fresh |= fresh


#: The records that say what a table's rows are made of.
_DECLARATIONS = {journal.TABLE: _declare, journal.COLUMN: _add_column}


def _drop_pending(pending: dict[int, _Pending], name: str, keep: int) -> None:
    for table in pending.values():
        if table.name == name:
            table.rows = [record for record in table.rows if record[3] < keep]


def _without_rank(part: Part) -> Part:
    """The part with the column `rank` missing."""
    if layout.RANK_COLUMN not in part.values:
        return part  # the very same: it need not be written anew
    values, missing = dict(part.values), dict(part.missing)
    values.pop(layout.RANK_COLUMN, None)
    missing.pop(layout.RANK_COLUMN, None)
    return Part(part.nrows, values, missing)


def _cut(content: hdf5.StoreFile, name: str, writer: str, keep: int, *, gone: int) -> None:
    """Drop a writer's rows of a table but the first `keep`, which are `gone` fewer than there were."""
    table = content.tables.get(name)
    if table is None:
        return
    content.nrows[name] -= gone
    ranked = writer != layout.MAIN_WRITER or _has_ranks(content, name)  # also where no row of it is left
    own_in_parts = _own_in(table, writer, ranked=ranked)
    there = sum(int(own.sum()) for own in own_in_parts)
    # of a damaged file rows may be lost, nobody knows which: better one more goes than one comes back
    left, parts = max(0, min(keep, there - gone)), []
    for part, own in zip(table.parts, own_in_parts, strict=True):
        parts.append(part.take(~own | (np.cumsum(own) <= left)))
        left -= min(left, int(own.sum()))
    table.parts = [part for part in parts if part.nrows]


def _has_ranks(content: hdf5.StoreFile, table: str) -> bool:
    """Whether a table has rows of ranks."""
    states = content.writers.items()
    return any(name != layout.MAIN_WRITER and state["rows"].get(table, 0) > 0 for name, state in states)


def _own_in(table: TableData, writer: str, *, ranked: bool) -> list[Any]:
    """For each part of a table, which of its rows a writer wrote. If `ranked`, ranks have rows of it."""
    # a table without them may have a column of that very name and type all the same
    ranked = ranked and table.schema.get(layout.RANK_COLUMN) == _RANK
    return [_rows_of(part, writer, ranked=ranked) for part in table.parts]


def _rows_of(part: Part, writer: str, *, ranked: bool) -> Any:
    """Which of a part's rows a writer wrote: a boolean array of shape (nrows,)."""
    rank = layout.rank_of(writer)
    if not ranked or layout.RANK_COLUMN not in part.values:
        return np.full(part.nrows, rank is None)
    missing = mask_of(part, layout.RANK_COLUMN)
    return missing if rank is None else ~missing & (part.values[layout.RANK_COLUMN] == rank)


def merge_schemas(old: Schema, columns: Iterable[Column]) -> Schema:
    """The columns of both, the writers' `rank` last.

    Writers that disagree about a column's type get the wider one: numbers as float, else text.
    """
    columns = list(columns)
    merged = {column.name: column for column in old}
    for column in columns:
        known = merged.get(column.name, column)
        kind = known.kind
        if known.kind != column.kind:
            numbers = {"int", "float", "bool"}
            kind = "float" if {known.kind, column.kind} <= numbers else "str"
        merged[column.name] = Column(column.name, kind, known.nullable or column.nullable)
    # not last where it is declared: then it is a column of the user's own
    stays = any(column.name == layout.RANK_COLUMN for column in columns[:-1])
    if merged.get(layout.RANK_COLUMN) == _RANK and not stays:
        merged[layout.RANK_COLUMN] = merged.pop(layout.RANK_COLUMN)
    made = Schema(merged.values())
    return old if made == old else made


def _of_other_kind(before: Schema, after: Schema) -> list[tuple[Column, Column]]:
    """The columns of both that are of another kind in `after`."""
    pairs = ((known, after.get(known.name)) for known in before)
    return [(known, column) for known, column in pairs if column is not None and column.kind != known.kind]


def widened(part: Part, before: Schema, after: Schema) -> Part:
    """The part with its values in the kinds of `after`, where they are other than those of `before`."""
    changed: dict[str, Array] = {}
    for known, column in _of_other_kind(before, after):
        if column.name not in part.values:
            continue
        values = values_of(part, known)
        if column.kind == "str":
            made = np.empty(part.nrows, dtype=object)
            made[:] = [str(value) for value in values.tolist()]
            changed[column.name] = made
        else:
            changed[column.name] = values.astype(np.float64)
    return Part(part.nrows, part.values | changed, part.missing) if changed else part
