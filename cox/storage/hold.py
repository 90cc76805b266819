"""A writer's hold on its run: the claim, the journal and the session of one process, while it has them.

Here is how it takes hold of a run, notices that this was moved or removed, gives it up and takes it again.
What the run has, tables and rows, is not known here: see `writer`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from cox.errors import ClosedError, CoxError, ForkError
from cox.storage import claims, empty, fs, layout, leftovers, place, runinfo, sessions
from cox.storage.journal.writing import JournalWriter

_log = logging.getLogger("cox")


class Hold(ABC):
    """A hold on a run. Others are kept from writing it as this writer.

    Args:
        run: Where the run lies; its directory is there.
        rank: This process's rank, where several write the run.
        sync: Whether every row survives the machine, not just the process.
        made: Whether its directory was made for it just now, so that nobody can have left anything there.

    Raises:
        RunInUseError: Another process writes this run.
        StorageError: The file system refused something.
        FormatVersionError: A newer cox wrote the run.

    Attributes:
        run: Where the run lies by now.
        run_id: The id of the run, see `runinfo.run_id`.
        name: The writer's name, see `layout.writer_name`.
        lock: Held by whoever writes.
        journal: What rows are written to.
        reopens: Whether it was closed by the end of the program only, and what comes later opens it again.
    """

    def __init__(self, run: layout.RunLayout, rank: int | None, *, sync: bool, made: bool) -> None:
        self.run = run
        self.rank = rank
        self.sync = sync
        self.name = layout.writer_name(rank)
        self.lock = threading.RLock()
        self.reopens = False
        self._gone: Exception | None = None
        self._left: object = None  # what the run was like when it was closed
        self._folding = False
        self._error: str | None = None
        self._not_stored = 0
        self._said: str | None = None  # by a look that found the run gone
        with explained(run.root, "cannot open the run for writing"):
            fs.refuse_links(*run.directories, run.events_dir(rank))
            for directory in (run.save_dir, run.tensorboard_dir, run.objects_dir, run.claims_dir):
                fs.make_directories(directory)
            runinfo.read(run)  # a newer format is refused before anything is touched
            signs = sessions.signs_of_life(run)
            self._claim = claims.Claim(run.claim_file(self.name), f"run {run.root}")
        try:
            with explained(run.root, "cannot open the run for writing"):
                self.run_id = runinfo.make_run_id(run)
                self.journal = JournalWriter(run, self.name, 0, run_id=self.run_id, sync=sync)
                fs.create_once(run.store_file, empty.contents())
                sessions.settle(run, self.name, signs)
                is_new = empty.is_empty(run.store_file) and not leftovers.journals(run)
                self.journal.next_seq = 0 if is_new and made else self._recover()
                self._store = fs.identity(run.store_file)
                self._session = sessions.Recorder(run, self.name, self.run_id)
                if self._counts_from_the_start(is_new=is_new):
                    self._session.begin()
        except BaseException:
            self._claim.release()
            raise

    @abstractmethod
    def count_rows(self) -> int:
        """How many rows this writer has in the run."""

    @abstractmethod
    def _recover(self) -> int:
        """Go on with what is in the run. Returns the next record's sequence number."""

    @abstractmethod
    def _go_on_beside_others(self) -> None:
        """Learn what others have made of the run since this writer left it.

        Raises:
            ClosedError: Another process has written in this writer's place.
        """

    def refusal(self, error: OSError, doing: str) -> Exception:
        """The error to raise for a refused write: this writer or its run is gone, or what the disk said."""
        if self._gone is not None:
            return self._gone
        try:
            self.check_place()
        except CoxError as gone:
            return gone
        return fs.refused(error, doing, self.journal.path or self.run.journal_dir)

    @property
    def is_usable(self) -> bool:
        """Whether more can be written."""
        return self._gone is None or self.reopens

    @property
    def is_displaced(self) -> bool:
        """Whether the run is not where it was opened, or may not be. Takes no lock."""
        return self._gone is None and not self._in_place()

    @property
    def forked(self) -> bool:
        """Whether this is the copy of a parent process's writer."""
        return isinstance(self._gone, ForkError)

    def heartbeat(self) -> None:
        """Say that this writer lives, and have other hosts see its rows."""
        self._claim.heartbeat()
        self.journal.show_to_other_hosts()

    def look(self) -> None:
        """Notice whether the run is still in its place. From any thread; rows pay nothing for it."""
        if self._gone is not None or self._in_place():
            return
        self.journal.generation += 1  # the next row goes the general way, which looks as well
        if self.lock.acquire(blocking=False):  # otherwise a row is being written, and the next one looks
            try:
                if self._gone is None:
                    self.check_place()
            except CoxError as error:
                if self._said is None:
                    self._said = str(error)
                    _log.warning("%s", error.strerror if isinstance(error, OSError) else error)
            finally:
                self.lock.release()

    def check_place(self) -> None:
        """Make sure that readers of the run will find what is written next. The caller holds the lock.

        A run that was moved is followed, what was removed of it is written anew, and a journal that another
        program has written into is not gone on with.

        Raises:
            RunGoneError: It is not there any more.
            RunInUseError: Another process has taken it over.
            StorageError: The file system refused something.
        """
        if self._in_place():
            return
        if self._is_ours():
            place.wait_until_settled(self.run.root)
        if not self._is_ours():
            files = self.journal.fd, self._claim.fd
            moved = place.run_of(files)
            if moved is None or moved.root == self.run.root:
                raise place.gone(self.run.root, files, self.count_rows())
            self._follow(moved)
        if not self.journal.is_whole():
            self._leave_journal()
        if not self._in_place():
            with explained(self.run.root, "cannot write anew what was removed of the run"):
                self._restore()

    def is_at(self, root: Path) -> bool:
        """Whether this writer writes the run that lies at a path."""
        with self.lock:
            try:
                if self._gone is None:
                    self.check_place()
            except CoxError:
                return False
            return self.run.root == root

    def _in_place(self) -> bool:
        return self._claim.in_place() and self.journal.in_place() and self.journal.is_whole()

    def _is_ours(self) -> bool:
        """Whether the directory at the run's path is this run, whatever was removed of it."""
        if self._claim.in_place() or fs.identity(self.run.store_file) == self._store is not None:
            return True
        return self.run.root.exists() and runinfo.run_id(self.run) == self.run_id

    def _follow(self, run: layout.RunLayout) -> None:
        before, self.run = self.run.root, run
        _log.warning("run %s was moved to %s while it was written: it goes on there", before, run.root)
        self.journal.follow(run)
        self._claim.path = run.claim_file(self.name)
        self._session.run = run
        with contextlib.suppress(OSError, CoxError):  # then who looks for the old name does not find it
            runinfo.mark_moved(run, before)

    def _leave_journal(self) -> None:
        """Have the next row begin a journal: where another program has written, nobody may find it."""
        name = self.journal.path.name if self.journal.path else "of a row before"
        self.journal.close()
        _log.warning(
            "run %s: another program has emptied the journal %s, or put an older one in its place: rows that "
            "it held are lost; the next ones go into a new journal",
            self.run.root,
            name,
        )

    def _restore(self) -> None:
        """Make what was removed of the run again: rows are still in the open journal."""
        for directory in (self.run.objects_dir, self.run.claims_dir):
            fs.make_directories(directory, inside=self.run.root)
        if not self._claim.in_place():
            claim, self._claim = self._claim, claims.Claim(self._claim.path, f"run {self.run.root}")
            claim.abandon()
        if not self.journal.in_place():
            self.journal.write_anew()
        self._session.write_anew()
        _log.warning(
            "run %s: files of it were removed while it was written; its rows were written anew",
            self.run.root,
        )

    def fail(self, error: str) -> None:
        """Have the run end as failed."""
        self._error = self._error or error

    def begin_session(self) -> None:
        """Have the run say that this process writes it: for the first thing that it writes."""
        if not self._session.is_open:
            try:
                self._session.begin()
            except OSError as error:  # the row comes first; it is tried again at the end
                _log.warning("run %s: cannot write down its session: %s", self.run.root, error)

    def _end_session(self) -> None:
        try:
            self._session.end(self._error, not_stored=self._not_stored)
        except OSError as error:
            _log.warning("run %s: cannot write down how its session ended: %s", self.run.root, error)

    def _counts_from_the_start(self, *, is_new: bool) -> bool:
        """Whether this process counts as one that writes the run, even before it has written anything.

        Args:
            is_new: Whether the run has no rows.
        """
        history = sessions.read(self.run)
        joins = self.rank is not None and any(s.how == sessions.RUNNING for s in history.sessions)
        return joins or (is_new and not history.count)

    def count_lost(self, rows: int) -> None:
        """Have the run say that so many rows were not stored."""
        self._not_stored += rows

    def close(self) -> None:
        """Fold, unless others still write this run, and give up the claim. What goes wrong is logged."""
        self._close(reopens=False)

    def end(self) -> None:
        """Close at the end of the program. A row that comes later all the same opens the run again."""
        self._close(reopens=True)

    def _close(self, *, reopens: bool) -> None:
        finalizing = sys.is_finalizing()  # after the atexit functions: nothing can be imported any more
        if not self.lock.acquire(blocking=not finalizing):
            return  # a daemon thread was stopped while it held the lock
        try:
            self.reopens = reopens and (self._gone is None or self.reopens)
            if self._gone is not None:
                return
            self._gone = ClosedError(f"the store of run {self.run.root} is closed: open it again to go on")
            try:
                self.check_place()
            except CoxError as error:
                self.reopens = False
                _log.warning("%s", error.strerror if isinstance(error, OSError) else error)
                self.journal.close()
                self._claim.release()
                return
            self.journal.close()
            if not self._fold_and_leave(folds=not finalizing) and not finalizing:
                self._keep()
            self._left = self._state()
        finally:
            self.lock.release()

    def _fold_and_leave(self, *, folds: bool) -> bool:
        """Fold, say that the run ended, and give up the claim. Returns whether all journals are folded."""
        try:
            self._end_session()  # before the claim is given up, to which its file belongs
            # the lock before the claim: whoever takes the claim then leaves our unfinished files alone,
            # and of several that leave at once the last one sees nobody else and folds
            patience = 0 if self._folding or not folds else claims.PATIENCE  # from a handler, in mid-fold
            with claims.exclusive(self.run.fold_lock, patience=patience):
                self._claim.release()
                if folds and leftovers.journals(self.run) and not leftovers.others_live(self.run, self.name):
                    from cox.storage import fold

                    fold.fold_locked(self.run)
                return not leftovers.journals(self.run)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows are safe in the journal
            _log.warning("run %s: its journal could not be folded and stays: %s", self.run.root, error)
            return False
        finally:
            self._claim.release()

    def _keep(self) -> None:
        from cox.storage import fold

        try:
            fold.keep(self.run, self.name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows are in the journal
            _log.warning("run %s: its rows may not survive a loss of power: %s", self.run.root, error)

    def _state(self) -> object:
        """What tells whether anybody else wrote the run since."""
        return fs.identity(self.run.store_file), leftovers.journals(self.run)

    def check_usable(self) -> None:
        """Refuse to write for a store that was closed, or is a parent process's."""
        if self._gone is not None:
            if not self.reopens:
                raise self._gone
            self._reopen()

    def _reopen(self) -> None:
        """Go on after the end of the program closed the run: an `atexit` function logs, or a finalizer."""
        with explained(self.run.root, "cannot open the run again"):
            self._claim = claims.Claim(self.run.claim_file(self.name), f"run {self.run.root}")
            try:
                if self._state() != self._left:
                    self._go_on_beside_others()
            except BaseException:
                self._claim.release()
                raise
        self._gone, self.reopens = None, False

    def abandon(self) -> None:
        """Let go of everything and touch nothing: for the copy in a forked child."""
        self.lock = threading.RLock()
        self._gone = ForkError(
            f"run {self.run.root} is written by the parent process: a forked child opens a store of its own, "
            "with rank= if it is to write to the same run"
        )
        self.journal.abandon()
        self._claim.abandon()


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Raise what the file system refuses as a StorageError that says what was being done."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CoxError):
            raise
        raise fs.refused(error, doing, error.filename or path) from error
