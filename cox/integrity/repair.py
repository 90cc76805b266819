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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cox.errors import CoxError, RunInUseError
from cox.integrity.verify import Report, verify
from cox.storage import claims, curvefiles, fs, hdf5, layout, newest, salvage
from cox.tensorboard import tfrecords

#: How long to wait for a fold of this run, in seconds.
_PATIENCE = 5.0
#: Findings that a new store file mends.
_IN_TABLES = {"rows", "foreign"}


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
    path = Path(path).expanduser()
    before = verify(path)
    done = Repair(before, before)
    if not before.repairable:
        return done
    whats = {finding.what for finding in before.findings}
    run = layout.RunLayout(path)
    if dry_run:
        if whats & _IN_TABLES:
            _read_rows(run, done)
        return done
    try:
        with held(run):
            originals = Originals(run)
            if whats & _IN_TABLES:
                _repair_rows(run, done, originals)
            for finding in before.findings:
                if finding.what == "state":
                    originals.take(run.root / finding.file)
            if "tensorboard" in whats:
                _repair_events(run, originals)
            done.originals = originals.directory
    except OSError as error:
        if isinstance(error, CoxError):
            raise
        raise fs.refused(error, "cannot repair the run", error.filename or run.root) from error
    done.after = verify(path)
    return done


@contextlib.contextmanager
def held(run: layout.RunLayout) -> Iterator[None]:
    """Be the only one who writes a run while the block runs.

    Raises:
        RunInUseError: Another process is.
    """
    with contextlib.ExitStack() as stack:
        fs.refuse_links(*run.directories)
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


class Originals:
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


def _repair_rows(run: layout.RunLayout, done: Repair, originals: Originals) -> None:
    left = _read_rows(run, done)
    if not left.damage and not left.now.problems:
        return  # what is wrong is in the text of cells that upstream wrote, and would be there again
    content, journals = left.now.content, left.now.journals
    content.folded_bytes += sum(log.size for log in journals)
    old = originals.keep(run.store_file) if run.store_file.exists() else None
    fs.replace_file(run.store_file, lambda path: hdf5.write(path, content, old=old), durable=True)
    for path in [*(mark.path(run) for mark in newest.read(run)), *(log.path for log in journals)]:
        originals.take(path)


def _repair_events(run: layout.RunLayout, originals: Originals) -> None:
    """Have the events that are whole stand in a file without gaps."""
    for path in run.tensorboard_dir.rglob(f"{layout.TEMPORARY_PREFIX}*"):
        fs.unlink(path)  # of a repair that was killed: no writer looks for it here
    for path in curvefiles.event_files(run.tensorboard_dir, deep=True):
        data = fs.read_bytes(path)
        records = tfrecords.scan(data)
        if records.bad:
            originals.keep(path)
            whole = b"".join(data[start:stop] for start, stop in records.good)
            fs.replace_bytes(path, whole, durable=True)
