"""Whether runs are whole: every file is read, every checksum is looked at, and nothing is changed.

What a reader of the run would be warned of is a finding, and so are objects and event files that are not
as they were written. What a kill leaves behind (a row that was half-way there, files that no row names) is
no damage: it is noted. No lock is taken, and no object is rebuilt, so that strangers' runs can be looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cox.errors import DamagedError, FormatVersionError, RunNotFoundError
from cox.objects import payloads
from cox.schema import Column
from cox.storage import curvefiles, fs, layout, runinfo, salvage, time_cells
from cox.storage.columns import Array, TableData
from cox.storage.scan import find_runs, is_run
from cox.tensorboard import tfrecords

What = Literal["rows", "foreign", "state", "tensorboard", "object", "gone", "format", "refused", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a run that its owner should know.

    Attributes:
        what: What it is about: 'rows', 'foreign' for a file that belongs to another life of the run, 'state'
            (`run.json`), 'tensorboard' or 'object'; 'gone' if nothing is there that could hold rows; 'format'
            for a run of a newer cox, 'refused' for a file that the system does not give out; 'note' for what
            is no damage.
        file: The file or directory, relative to the run.
        problem: The finding, as a sentence.
    """

    what: What
    file: str
    problem: str


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        run: The run's directory.
        findings: Damage.
        notes: What is no damage.
    """

    run: Path
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the run is whole."""
        return not self.findings

    @property
    def repairable(self) -> bool:
        """Whether `cox.integrity.repair` can do something about it."""
        found = {finding.what for finding in self.findings}
        return bool(found & {"rows", "foreign", "state", "tensorboard"}) and not found & {"format", "refused"}


def runs_at(path: Path) -> list[layout.RunLayout]:
    """The run at a path, or the runs of the folder at it.

    Raises:
        RunNotFoundError: It is neither.
    """
    run = layout.RunLayout(path)
    runs = [run] if is_run(run.root) else list(find_runs(path))
    if not runs:
        raise RunNotFoundError(f"{path} is no run, and there is none in it")
    return runs


def verify(path: str | os.PathLike[str]) -> Report:
    """Read all of a run and tell what is damaged. Changes nothing.

    Args:
        path: The run's directory. A process may be writing it.

    Raises:
        RunNotFoundError: It is no run.

    Example:
        >>> verify("runs/7753a944").ok
        True
    """
    run = layout.RunLayout(Path(path).expanduser())
    if not is_run(run.root):
        raise RunNotFoundError(f"{run.root} is no run: it has no {layout.STORE_FILE}")
    return _Examination(run).report


class _Examination:
    """One reading of one run."""

    def __init__(self, run: layout.RunLayout) -> None:
        self._run = run
        self.report = Report(run.root)
        self._guarded(self._state)
        self._guarded(self._rows)
        self._guarded(self._events)
        self._guarded(self._leftovers)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Take a step; a file that the system does not give out ends that step alone."""
        try:
            step()
        except FormatVersionError as error:
            self._find("format", self._run.meta_dir, str(error))
        except OSError as error:
            self._find("refused", self._run.root, f"cannot be read: {error}")
        except MemoryError:
            self._find("refused", self._run.root, "there is not enough memory to read it")

    def _state(self) -> None:
        runinfo.read(self._run)
        for path in [self._run.run_file, *sorted(self._run.meta_dir.glob(layout.SESSIONS))]:
            try:
                said = json.loads(fs.read_bytes(path, most=runinfo.MOST_BYTES))
            except FileNotFoundError:
                continue  # upstream's, or a copy of the tables
            except (ValueError, RecursionError, DamagedError) as error:
                said = error
            if not isinstance(said, dict):
                self._find("state", path, f"is no JSON object: {said}")

    def _rows(self) -> None:
        try:
            left = salvage.read(self._run)
        except RunNotFoundError:
            self._find("gone", self._run.store_file, "is missing, and so is any journal")
            return
        for sentence in left.damage:
            self._find("rows", self._run.store_file, sentence)
        for foreign in left.now.foreign:
            self._find("foreign", self._run.root / foreign.path, foreign.problem)
        for sentence in left.now.damage:
            self._find("rows", self._run.journal_dir, sentence)
        for log in left.now.journals:
            if log.torn:
                self._note(log.path, f"ends in {log.torn} bytes of a row that is, or was, being written")
        named: set[str] = set()
        for table in left.now.tables.values():
            for column in table.schema:
                self._column(table, column, named)
        self._orphans(named)

    def _column(self, table: TableData, column: Column, named: set[str]) -> None:
        try:
            values, missing = table.column(column)
        except DamagedError as error:  # only in a file of upstream's, which has no checksums
            self._find("rows", self._run.store_file, f"table {table.name!r}, column {column.name!r}: {error}")
            return
        if column.traits.is_time and (flaw := _flaw_of_times(values, missing)):
            self._find("rows", self._run.store_file, f"table {table.name!r}, column {column.name!r}: {flaw}")
        if not column.traits.is_object:
            return
        for row, cell in enumerate(values.tolist()):
            if missing is not None and missing[row]:
                continue
            where = f"table {table.name!r}, column {column.name!r}, row {row}"
            if column.traits.in_cell:
                if flaw := payloads.flaw_of_cell(cell):
                    self._find("object", self._run.store_file, f"{where}: {flaw}")
            elif cell not in named:
                named.add(cell)
                path = self._run.objects_dir / Path(cell).name
                if flaw := payloads.flaw_of_file(path, column.kind):
                    self._find("object", path, f"{where}: {flaw}")

    def _orphans(self, named: set[str]) -> None:
        orphans = [path.name for path in _files(self._run.objects_dir) if path.name not in named]
        if orphans:
            self._note(self._run.objects_dir, f"{len(orphans)} files that no row names, as {orphans[0]}")

    def _events(self) -> None:
        for path in curvefiles.event_files(self._run.tensorboard_dir, deep=True):
            records = tfrecords.scan(fs.read_bytes(path))
            for start, stop in records.bad:
                problem = f"{stop - start} bytes at {start} are damaged: TensorBoard shows nothing after them"
                self._find("tensorboard", path, problem)
            if records.torn:
                self._note(path, f"ends in {records.torn} bytes of an event that is, or was, being written")

    def _leftovers(self) -> None:
        run = self._run
        for directory in (run.root, run.meta_dir, run.objects_dir, run.claims_dir):
            for path in sorted(directory.glob(f"{layout.TEMPORARY_PREFIX}*")):
                self._note(path, "is not finished, or was left behind by a kill")
        for path in sorted(run.journal_dir.glob(f"*{layout.DAMAGED_SUFFIX}")):
            self._note(path, "is a damaged journal, of which all that can be read is in the tables")
        for path in sorted(run.meta_dir.rglob(f"*{layout.FOREIGN_SUFFIX}*")):
            self._note(path, "belongs to another life of the run, and was kept aside")
        for path in sorted(run.meta_dir.glob(f"{layout.DAMAGED_PREFIX}*")):
            self._note(path, "holds what an earlier repair replaced")
        for path in sorted(run.claims_dir.glob("*.json")):
            if path.lstat().st_size:
                holder = fs.read_bytes(path).decode(errors="replace")[:200]
                self._note(path, f"names a process that writes, or was killed while it did: {holder}")

    def _find(self, what: What, path: Path, problem: str) -> None:
        found = Finding(what, os.path.relpath(path, self._run.root), problem)
        if found not in self.report.findings:  # a newer format is met with at every step
            self.report.findings.append(found)

    def _note(self, path: Path, problem: str) -> None:
        self.report.notes.append(Finding("note", os.path.relpath(path, self._run.root), problem))


def _files(directory: Path) -> Iterator[Path]:
    """The finished files in a directory."""
    for path in sorted(directory.glob("*")):
        if path.is_file() and not path.name.startswith(layout.TEMPORARY_PREFIX):
            yield path


def _flaw_of_times(values: Array, missing: Array | None) -> str:
    """What is wrong with the cells of a column of times; '' for nothing."""
    try:
        time_cells.decode(values, missing)
    except ValueError as error:
        return str(error)
    return ""
