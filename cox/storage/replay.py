"""Journals applied to what a store file holds.

That is done in two ways, which stand next to each other here. A journal that is as its writer wrote it is
applied by columns, as `columnar` reads it: `_apply_rows`, with `_tables_by_columns`. Any other is applied
record by record, which says what is wrong with it: `_apply_records`. The way by columns takes none where the
two could differ. They agree on the tables, with every row, column and missing value; on what is counted of
each writer; on what is damaged; and on all of that where only some tables are asked for, or no rows.
`tests/property/test_bulk.py` holds them to it, over journals that Hypothesis makes, and breaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cox.errors import DamagedError
from cox.schema import Column, Schema
from cox.storage import journal, layout, lineage
from cox.storage.columns import (
    Array,
    Part,
    TableData,
    mask_of,
    of_other_kind,
    part_from_rows,
    values_of,
    widened,
)
from cox.storage.hdf5.content import StoreFile
from cox.storage.ownership import cut_rows, has_ranks, own_rows, without_rank
from cox.storage.schemas import merge_schemas, rank_last

if TYPE_CHECKING:
    from cox.storage.journal import columnar
    from cox.storage.journal.writing import JournalWriter

_NONE = np.empty(0, dtype=np.int64)


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


class Replay:
    """Applies journals to what a store file holds, and changes that.

    Args:
        content: What the store file holds.
        journals: What is to be applied, as far as it belongs to the run.
        tables: The rows of these tables only; None for all.
        rows: Whether rows are read at all.
        own: The journal of the writer that asks, if one does, see `snapshot.read`.

    Attributes:
        foreign: The journals that belong to another life of the run.
        damage: A sentence for each thing that could not be read.
        payloads: Names of the files of objects in rows that come from a journal.
    """

    def __init__(
        self,
        content: StoreFile,
        journals: list[journal.Journal],
        *,
        tables: Iterable[str] | None,
        rows: bool,
        own: JournalWriter | None,
    ) -> None:
        self._content = content
        self._journals = journals
        self._wanted = None if tables is None else frozenset(tables)
        self._rows = rows
        self._own = own
        self.foreign: list[lineage.Foreign] = []
        self.damage: list[str] = []
        self.payloads: list[str] = []

    def run(self) -> None:
        """Apply all of them, in order."""
        if not self._content.writers and self._content.nrows:
            rows = own_rows(self._content, layout.MAIN_WRITER)
            self._content.writers[layout.MAIN_WRITER] = {"seq": 0, "rows": rows}
        by_writer: dict[str, list[journal.Journal]] = {}
        for log in self._journals:
            self.damage += [f"journal {log.path.name}: {sentence}" for sentence in log.damage]
            by_writer.setdefault(log.writer, []).append(log)
        for name, logs in by_writer.items():
            self._run_writer(self._content.writers.setdefault(name, {"seq": 0, "rows": {}}), logs)

    def _run_writer(self, state: dict[str, Any], logs: list[journal.Journal]) -> None:
        """Apply what belongs to the run of a writer's journals, and note what does not."""
        writer = lineage.select(self._content.run_id, state, logs, self._own.salts if self._own else ())
        self.foreign += writer.foreign
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
            pending, rewinds = _tables_by_columns(rows, state)
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
                cut_rows(self._content, name, log.writer, keep, gone=settled[name] - keep)
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
                            cut_rows(self._content, name, log.writer, number, gone=settled[name] - number)
                            settled[name] = number
                        self._row(pending, state["rows"], record)
                elif kind in _DECLARATIONS:
                    _DECLARATIONS[kind](pending, record, fresh=fresh)
                elif kind == journal.REWIND and fresh:
                    name, keep = record[2], int(record[3])
                    _drop_pending(pending, name, keep)
                    if keep < settled.get(name, 0):
                        cut_rows(self._content, name, log.writer, keep, gone=settled[name] - keep)
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
        self.damage.append(f"journal {log.path.name}: {sentence}")

    def _row(self, pending: dict[int, _Pending], rows: dict[str, int], record: list[Any]) -> None:
        table, number = pending[record[2]], record[3]
        expected = rows.get(table.name, 0)
        if number != expected and number > expected:
            which = f"row {expected}" if number == expected + 1 else f"rows {expected} to {number - 1}"
            self.damage.append(f"table {table.name!r}: {which} of the journal cannot be read")
        elif number < expected:  # a row that was written and not acknowledged, and then this in its place
            _drop_pending(pending, table.name, number)
        rows[table.name] = number + 1
        table.rows.append(record)

    def _merge(self, table: _Pending, log: journal.Journal) -> None:
        """Put a journal's rows behind those of the table so far."""
        name, content = table.name, self._content
        whole = content.tables.get(name)
        if whole is None:
            whole = content.tables[name] = TableData(name, Schema(rank_last(table.columns, log.writer)))
        content.nrows[name] = content.nrows.get(name, 0) + table.nrows
        merged = merge_schemas(whole.schema, rank_last(table.columns, log.writer))
        if self._is_wanted(name):
            part = table.part or self._part(table, log)
            if of_other_kind(whole.schema, merged):
                whole.parts = [widened(old, whole.schema, merged) for old in whole.parts]
            self.payloads += _payloads(part, table.columns)
            if part.nrows:
                part = widened(part, Schema(table.columns), merged)
                self._keep_ranks_apart(whole, part, log.writer)
        whole.schema = merged

    def _keep_ranks_apart(self, whole: TableData, part: Part, writer: str) -> None:
        """Put a part behind the others. Beside rows of ranks the sole writer's have no number in `rank`.

        What it has stored there, as a column of its own, would be taken for a rank's in `store.h5`.
        """
        ranked = has_ranks(self._content, whole.name)
        if writer == layout.MAIN_WRITER:
            whole.parts.append(without_rank(part) if ranked else part)
            return
        if not ranked:  # so all that was there is the sole writer's
            whole.parts = [without_rank(old) for old in whole.parts]
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


def _tables_by_columns(
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
    kept = [column for column in columns if column.traits.in_file and column.name in part.values]
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
