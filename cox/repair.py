"""Salvaging a damaged run: what can be read goes into new files, and what was there before is kept.

The new `store.h5` takes the old one's place whole, as in a fold, and only then do the journals go that are
in it; the old file has a second name by then. So a kill at any moment leaves the run as it was, or as it is
to be, and every byte of the originals in either case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cox import events, tfrecords
from cox.collection.scan import is_run
from cox.errors import CoxError, RunInUseError, RunNotFoundError
from cox.eventfile import EventFile
from cox.metadata import METADATA
from cox.storage import claims, fs, hdf5, layout, salvage, snapshot
from cox.storage.columns import Array, TableData
from cox.verify import Report, event_files, verify

#: How long to wait for a fold of this run, in seconds.
_PATIENCE = 5.0


@dataclass(slots=True)
class Repair:
    """What `repair` did, or would do.

    Attributes:
        before: What was found.
        after: What is left to find; what was found, if nothing was done.
        kept: How many rows each table has now, if its rows had to be salvaged.
        lost: How many rows of a table in `store.h5` are lost, where any are; of what is lost of a journal
            nobody knows how many it was.
        originals: The directory of what was replaced; None if nothing was.
    """

    before: Report
    after: Report
    kept: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    originals: Path | None = None


def repair(path: str | os.PathLike[str], *, dry_run: bool = False) -> Repair:
    """Salvage what can be read of a damaged run. One that is whole is left untouched.

    Objects that are damaged stay as they are, and so do the rows that name them.

    Args:
        path: The run's directory.
        dry_run: Whether only to tell what would be kept and lost.

    Raises:
        RunNotFoundError: It is no run.
        RunInUseError: A process is writing it.
        StorageError: The file system refused something; the run is as it was, or repaired in part.
    """
    before = verify(path)
    done = Repair(before, before)
    if not before.repairable:
        return done
    whats = {finding.what for finding in before.findings}
    run = layout.RunLayout(Path(path))
    if dry_run:
        if "rows" in whats:
            _read_rows(run, done)
        return done
    try:
        with _held(run):
            originals = _Originals(run)
            if "rows" in whats:
                _repair_rows(run, done, originals)
            if "state" in whats:
                originals.take(run.run_file)
            if "tensorboard" in whats:
                _repair_events(run, originals)
            done.originals = originals.directory
    except OSError as error:
        if isinstance(error, CoxError):
            raise
        raise fs.refused(error, "cannot repair the run", error.filename or run.root) from error
    done.after = verify(path)
    return done


def redraw(
    path: str | os.PathLike[str], *, from_nothing: bool = True, dry_run: bool = False
) -> dict[str, int]:
    """Send the rows of a run to TensorBoard again, as far as their points are not there any more.

    Columns that `log_table_and_tb` has sent are known by the points that are left. A point's step is its
    row's number: a curve that has a point elsewhere is somebody else's, and is left alone.

    Args:
        path: The run's directory.
        from_nothing: Whether to send the numbers of all tables but the metadata, if the run has no point of
            any kind.
        dry_run: Whether only to tell what would be sent. Nothing is written then.

    Returns:
        How many points were missing of each tag; tags that lacked none are left out.

    Raises:
        RunNotFoundError: It is no run.
        RunInUseError: A process is writing it.
        DamagedError: Its rows cannot be read.
        StorageError: The file system refused something.
    """
    run = layout.RunLayout(Path(os.path.abspath(path)))  # noqa: PTH100 - keep links as they are
    if not is_run(run.root):
        raise RunNotFoundError(f"{run.root} is no run: it has no {layout.STORE_FILE}")
    with contextlib.nullcontext() if dry_run else _held(run):
        there = _points_in(run)
        if not there and not from_nothing:
            return {}
        last: dict[str, int] = {}
        first: dict[str, int] = {}
        for tag, step in there:
            last[tag], first[tag] = max(step, last.get(tag, step)), min(step, first.get(tag, step))
        missing: dict[int, dict[str, float]] = {}
        lacking: Counter[str] = Counter()
        for table in snapshot.read(run).tables.values():
            steps = _steps_of(table)
            nrows = int(steps.max()) + 1 if len(steps) else 0
            for tag, step, value in _points_of(table, steps):
                is_ours = tag in last and first[tag] >= 0 and last[tag] < nrows
                wanted = is_ours if there else table.name != METADATA
                if wanted and (tag, step) not in there:
                    missing.setdefault(step, {})[tag] = value
                    lacking[tag] += 1
        if missing and not dry_run:
            file = EventFile(os.fspath(run.tensorboard_dir))
            for step in sorted(missing):
                file.add_event(events.of_scalars(missing[step], step, time.time()))
            file.close()
    return dict(lacking)


def _points_in(run: layout.RunLayout) -> set[tuple[str, int]]:
    """The tags and steps of the scalars in a run's event files that count."""
    there: set[tuple[str, int]] = set()
    for path in sorted(event_files(run)):
        data = path.read_bytes()
        for start, stop in tfrecords.scan(data).good:
            points, purged_from = events.scalars_in(tfrecords.content(data, start, stop))
            if purged_from is not None:
                there = {(tag, step) for tag, step in there if step < purged_from}
            there.update(points)
    return there


def _steps_of(table: TableData) -> Array:
    """The number of each row. The rows of several ranks are counted for each rank."""
    rank = table.schema.get(layout.RANK_COLUMN)
    ranks = np.zeros(table.nrows) if rank is None else table.column(rank)[0]
    steps = np.zeros(table.nrows, dtype=np.int64)
    for one in np.unique(ranks):
        steps[ranks == one] = np.arange(int((ranks == one).sum()))
    return steps


def _points_of(table: TableData, steps: Array) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each number in a table."""
    rank = table.schema.get(layout.RANK_COLUMN)
    for column in table.schema:
        if column.kind not in ("int", "float", "bool") or column is rank:
            continue
        values, missing = table.column(column)
        for row in np.flatnonzero(~missing) if missing is not None else range(table.nrows):
            yield f"{table.name}/{column.name}", int(steps[row]), float(values[row])


@contextlib.contextmanager
def _held(run: layout.RunLayout) -> Iterator[None]:
    """Be the only one who writes a run while the block runs.

    Raises:
        RunInUseError: Another process is.
    """
    with contextlib.ExitStack() as stack:
        fs.make_directories(run.claims_dir)
        writers = {path.stem for path in run.claims_dir.glob("*.json")} | {layout.MAIN_WRITER}
        for writer in sorted(writers):
            claim = claims.Claim(run.claim_file(writer), f"run {run.root}")
            stack.callback(claim.release)
        try:
            stack.enter_context(claims.exclusive(run.fold_lock, patience=_PATIENCE))
        except BlockingIOError as error:
            raise RunInUseError(errno.EBUSY, "another process folds the run", os.fspath(run.root)) from error
        yield


class _Originals:
    """Where the originals of a run go. The directory is made for the first of them."""

    def __init__(self, run: layout.RunLayout) -> None:
        self._run = run
        self.directory: Path | None = None

    def keep(self, path: Path) -> Path:
        """Give a file that is to be replaced a second name, which is returned."""
        target = self._place_of(path)
        fs.link(path, target)
        fs.sync_directory(target.parent)
        return target

    def take(self, path: Path) -> None:
        """Move a file away."""
        target = self._place_of(path)
        fs.rename(path, target)
        fs.sync_directory(target.parent)

    def _place_of(self, path: Path) -> Path:
        if self.directory is None:
            self.directory = self._make()
        target = self.directory / path.relative_to(self._run.root)
        fs.make_directories(target.parent, durable=True)
        return target

    def _make(self) -> Path:
        name = layout.DAMAGED_PREFIX + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        made, number = self._run.meta_dir / name, 1
        while not fs.make_directory(made):
            number += 1
            made = made.with_name(f"{name}-{number}")
        fs.sync_directory(made.parent)
        return made


def _read_rows(run: layout.RunLayout, done: Repair) -> salvage.Remains:
    left = salvage.read(run)
    done.kept = {name: table.nrows for name, table in left.now.tables.items()}
    done.kept |= {name: done.kept.get(name, 0) for name in left.lost}
    done.lost = left.lost
    return left


def _repair_rows(run: layout.RunLayout, done: Repair, originals: _Originals) -> None:
    left = _read_rows(run, done)
    if not left.damage and not left.now.damage:
        return  # what is wrong is in the text of cells that upstream wrote, and would be there again
    content, journals = left.now.content, left.now.journals
    content.folded_bytes += sum(log.size for log in journals)
    old = originals.keep(run.store_file) if run.store_file.exists() else None
    fs.replace_file(run.store_file, lambda path: hdf5.write(path, content, old=old), durable=True)
    for log in journals:
        originals.take(log.path)


def _repair_events(run: layout.RunLayout, originals: _Originals) -> None:
    """Have the events that are whole stand in a file without gaps."""
    for path in run.tensorboard_dir.rglob(f"{layout.TEMPORARY_PREFIX}*"):
        fs.unlink(path)  # of a repair that was killed: no writer looks for it here
    for path in event_files(run):
        data = path.read_bytes()
        records = tfrecords.scan(data)
        if records.bad:
            originals.keep(path)
            whole = b"".join(data[start:stop] for start, stop in records.good)
            fs.replace_bytes(path, whole, durable=True)
