"""How journals get into `store.h5`: read everything, write a new file, rename it, drop the journals.

A kill between the rename and the removal repeats nothing: the new file says up to which record of
each writer it holds, and readers skip those. A failure leaves the old file and all journals.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING

from cox.errors import IrregularFileError, RunInUseError
from cox.storage import claims, curvefiles, fs, hdf5, journal, layout, newest, ownership, snapshot

if TYPE_CHECKING:
    from cox.storage.journal.writing import JournalWriter

_log = logging.getLogger("cox")


def fold(
    run: layout.RunLayout,
    *,
    own: JournalWriter | None = None,
    durable: bool = True,
    patience: float = claims.PATIENCE,
    adopt: bool = False,
) -> snapshot.Snapshot:
    """Fold all journals of a run into its store file.

    Args:
        run: Where it lies.
        own: The journal of the writer that calls this. All files of its that are folded go, but for the one
            that it appends to. Journals of other writers go only if their writers are gone.
        durable: Whether the new file is to survive the machine before the journals go.
        patience: How long to wait for another fold of this run, in seconds.
        adopt: Whether rows that another program appended to the store file are the sole writer's from now on.
            Nobody writes meanwhile: that writer's rows are numbered anew.

    Returns:
        What the store file holds now.

    Raises:
        OSError: The new file could not be written; the run is as it was.
    """
    with claims.exclusive(run.fold_lock, patience=patience):
        return fold_locked(run, own=own, durable=durable, adopt=adopt)


def fold_locked(
    run: layout.RunLayout,
    *,
    own: JournalWriter | None = None,
    durable: bool = True,
    adopt: bool = False,
) -> snapshot.Snapshot:
    """As `fold`, for who holds the fold's lock already."""
    now = snapshot.read(run, own=own)
    adopted = adopt and ownership.adopt_rows(now.content)
    _put(run, now, own, durable=durable, changed=adopted or now.store_is_foreign)
    return now


def _put(
    run: layout.RunLayout,
    now: snapshot.Snapshot,
    own: JournalWriter | None,
    *,
    durable: bool,
    changed: bool,
) -> None:
    """Have the store file hold what was read, and drop the journals that are in it.

    Args:
        run: The run.
        now: What was read of it.
        own: The journal of the writer that folds.
        durable: As for `fold`.
        changed: Whether it is other than what was read.
    """
    for sentence in now.problems:
        _log.warning("run %s: %s", run.root, sentence)
    if now.damage:
        _keep_damaged(run, now.journals)
    _log_torn(run, now.journals, own)
    if changed or any(log.damage or not log.is_empty for log in now.journals):
        if durable:
            _sync_payloads(run, now.payloads)
        now.content.folded_bytes += sum(log.size for log in now.journals)
        _settle(now.content)
        old = run.store_file
        if now.store_is_foreign:
            fs.keep_aside(old, run.meta_dir / f"{old.name}{layout.FOREIGN_SUFFIX}")
        fs.replace_file(old, lambda path: hdf5.write(path, now.content, old=old), durable=durable)
    _remove_all(run, now, own)
    _forget_missing(run, now, own)


def rewind_others(
    run: layout.RunLayout,
    table: str,
    column: str,
    step: float,
    *,
    own: JournalWriter,
    spared: Container[str],
    patience: float = claims.PATIENCE,
) -> bool:
    """Drop the rows of a table from a step on that were written by others who are not at it now.

    All of them go at once, with the new store file. A writer that comes back counts on from what is left.

    Args:
        run: The run.
        table: The table.
        column: Its column that counts steps, of numbers.
        step: The first step to be dropped.
        own: The journal of the writer that calls this.
        spared: The writers whose rows stay, besides those that are at it; `own` is one.
        patience: How long to wait for a fold of this run, in seconds.

    Returns:
        Whether there were any.

    Raises:
        OSError: The new file could not be written; the run is as it was.
    """
    with claims.exclusive(run.fold_lock, patience=patience), _kept_away(run, own) as live:
        now = snapshot.read(run, own=own)
        gone = [name for name in now.writers if name not in live and name not in spared]
        if layout.MAIN_WRITER in gone:
            ownership.adopt_rows(now.content)
        rewound = [now.rewind(table, name, now.rows_before(table, name, column, step)) for name in gone]
        if any(rewound):
            _put(run, now, own, durable=True, changed=True)
        return any(rewound)


@contextlib.contextmanager
def _kept_away(run: layout.RunLayout, own: JournalWriter) -> Iterator[set[str]]:
    """Keep writers that are not at it from coming back while the block runs; gives the others that are."""
    with contextlib.ExitStack() as stack:
        live = set()
        for path in run.claims_dir.glob("*.json"):
            try:
                if path.stem != own.writer:
                    stack.enter_context(claims.borrowed(path))
            except RunInUseError:
                live.add(path.stem)
        yield live


def empty_run(run: layout.RunLayout, *, own: JournalWriter) -> bool:
    """Have a run hold no rows, and no curves, but those of other writers who are at it.

    The new store file says that whatever there is in the journals is in it.

    Returns:
        Whether it holds none at all.
    """
    with claims.exclusive(run.fold_lock), _kept_away(run, own) as live:
        now = snapshot.read(run, rows=bool(live), own=own)
        content = now.content
        now.drop_rows(name for name in content.writers if name not in live)
        if live:
            _settle(content)
        else:
            content = hdf5.StoreFile(writers=content.writers, run_id=now.run_id)
        fs.replace_file(run.store_file, lambda path: hdf5.write(path, content), durable=True)
        _remove_all(run, now, own)
        _remove_events(run, live)
        return not live


def _remove_events(run: layout.RunLayout, live: Container[str]) -> None:
    """Remove what writers that are not at it have sent to TensorBoard, and nothing else that is there."""
    if run.tensorboard_dir.is_symlink():  # to a place that others may have made
        return
    places = {run.tensorboard_dir: {layout.MAIN_WRITER, layout.writer_name(0)}}
    for path in run.tensorboard_dir.glob("rank-*"):
        places[path] = {path.name}
    for place, writers in places.items():
        if not place.is_symlink() and not any(writer in live for writer in writers):
            curvefiles.remove(place)


def _settle(content: hdf5.StoreFile) -> None:
    """Drop tables that were rewound to nothing: they are as if they had never been flushed."""
    for name in [name for name, table in content.tables.items() if not table.nrows]:
        del content.tables[name]
        content.nrows.pop(name, None)


def _remove_all(run: layout.RunLayout, now: snapshot.Snapshot, own: JournalWriter | None) -> None:
    """Remove the journals that are in the store file, and keep aside those that do not belong there."""
    foreign = {other.path for other in now.foreign}
    for log in now.journals:
        away = _keep_aside if log.path in foreign else _unlink_as_read
        try:
            if own is None or log.writer != own.writer:
                with contextlib.suppress(RunInUseError), claims.borrowed(run.claim_file(log.writer)):
                    away(run, log)  # nobody may append to it
            elif log.path != own.path:  # a signal handler may have begun it just now
                away(run, log)
        except FileNotFoundError:
            pass  # another fold was faster
        except OSError as error:  # harmless: the store file says that it holds these rows
            _log.warning("run %s: cannot remove the folded journal %s: %s", run.root, log.path.name, error)


def _forget_missing(run: layout.RunLayout, now: snapshot.Snapshot, own: JournalWriter | None) -> None:
    """Say no more of journals that are lost: it was said, and the run goes on without their rows."""
    for mark in now.missing:
        with contextlib.suppress(OSError):  # or its writer is at it, and knows better
            if own is not None and mark.writer == own.writer:
                if own.path is None or own.path.name != mark.journal:
                    newest.forget(run, mark.journal)
            else:
                with claims.borrowed(run.claim_file(mark.writer)):
                    newest.forget(run, mark.journal)


def _keep_aside(run: layout.RunLayout, log: journal.Journal) -> None:
    kept = fs.keep_aside(log.path, log.path.with_suffix(layout.FOREIGN_SUFFIX))
    newest.forget(run, log.path.name)
    fs.unlink(log.path)
    _log.warning("the journal %s of another life of the run is kept as %s", log.path, kept.name)


def _unlink_as_read(run: layout.RunLayout, log: journal.Journal) -> None:
    """Remove a journal that nobody appends to, unless something was appended since it was read."""
    if log.path.lstat().st_size == log.size:
        if log.is_empty:
            newest.forget(run, log.path.name)
        fs.unlink(log.path)


def _sync_payloads(run: layout.RunLayout, names: list[str]) -> None:
    """Have the files that rows name survive the machine before the rows do."""
    for name in names:
        path = run.objects_dir / name
        if path.is_file() and not path.is_symlink():  # what else it may be was not written by cox
            fs.sync_file(path)
    if names:
        fs.sync_directory(run.objects_dir)


def keep(run: layout.RunLayout, writer: str) -> None:
    """Have a writer's journals survive the machine where they are, with the files that their rows name."""
    for path in run.journal_dir.glob(f"{writer}-*{layout.JOURNAL_SUFFIX}"):
        fs.sync_file(path)
    now = snapshot.read(run, rows=False)
    holders = [table.name for table in now.tables.values() if any(c.traits.in_file for c in table.schema)]
    if holders:
        _sync_payloads(run, snapshot.read(run, tables=holders).payloads)
    fs.sync_directories(run.journal_dir, run.root.parent)


def _keep_damaged(run: layout.RunLayout, logs: list[journal.Journal]) -> None:
    """Keep a copy of each damaged journal: what cannot be read today may be salvaged by hand."""
    for log in logs:
        if log.damage:
            kept = log.path.with_suffix(layout.DAMAGED_SUFFIX)
            try:
                fs.replace_bytes(kept, fs.read_bytes(log.path))
            except FileNotFoundError:
                continue
            except IrregularFileError:
                fs.rename(log.path, kept)
            _log.warning("run %s: the damaged journal is kept as %s", run.root, kept.name)


def _log_torn(run: layout.RunLayout, logs: list[journal.Journal], own: JournalWriter | None) -> None:
    for log in logs:
        if log.torn and (
            (own and log.writer == own.writer) or not claims.is_held(run.claim_file(log.writer))
        ):
            _log.warning(
                "run %s: dropped %d bytes of a row that was being written when its process ended",
                run.root,
                log.torn,
            )
