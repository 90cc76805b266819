"""What an earlier writer left of a run, journals and unfinished files, and whether others still write it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cox.errors import CoxError
from cox.storage import claims, fs, layout

if TYPE_CHECKING:
    from cox.storage.journal.writing import JournalWriter
    from cox.storage.snapshot import Snapshot

_log = logging.getLogger("cox")


def journals(run: layout.RunLayout) -> list[str]:
    """The names of the journals of a run, in alphabetical order."""
    return sorted(name for name in fs.names_in(run.journal_dir) if name.endswith(layout.JOURNAL_SUFFIX))


def others_live(run: layout.RunLayout, writer: str) -> bool:
    """Whether another writer than this one is at a run."""
    own = run.claim_file(writer)
    return any(path != own and claims.is_held(path) for path in run.claims_dir.glob("*.json"))


def sweep(run: layout.RunLayout, writer: str) -> None:
    """Remove the unfinished files of a writer that was killed."""
    places = (run.root, run.meta_dir, run.journal_dir, run.objects_dir)
    try:
        with claims.exclusive(run.fold_lock, patience=0):
            unfinished = [
                place / name
                for place in places
                for name in fs.names_in(place)
                if name.startswith(layout.TEMPORARY_PREFIX)
            ]
            # asked after they were found: who came since has none of them
            for path in [] if not unfinished or others_live(run, writer) else unfinished:
                fs.unlink(path)
    except BlockingIOError:
        return  # somebody folds, and they may be theirs


def fold_left(run: layout.RunLayout, own: JournalWriter, *, adopt: bool) -> Snapshot | None:
    """Fold what an earlier writer left behind, if nobody else is at the run.

    Args:
        run: The run.
        own: The journal of the writer that is about to go on.
        adopt: Whether it takes over rows that no writer has written.

    Returns:
        What was read of the run, unless that is another now.
    """
    from cox.storage import fold, snapshot

    now = None if journals(run) else snapshot.read(run, rows=False)
    folds = now is None or bool(now.missing) or (adopt and bool(now.uncounted_rows()))
    if not folds or others_live(run, own.writer):
        return now
    try:
        fold.fold(run, own=own, adopt=adopt)
    except (OSError, RuntimeError, ValueError, LookupError, MemoryError) as error:
        if isinstance(error, CoxError) and not isinstance(error, OSError):
            raise  # what cannot be read; else the rows are safe where they are, and the run goes on
        _log.warning("run %s: cannot fold the journal yet: %s", run.root, error)
    return None
