"""Who may write a run: one claim file for each writer.

A claim is held by an advisory lock for as long as its process lives, so that a killed process gives
it up by dying. Where the file system has no locks, or another host holds the claim, the file itself
says who holds it (host, pid, when that process started), and its modification time is the heartbeat.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cox.errors import RunInUseError
from cox.storage import fs, layout

#: How often a live claim is touched, and how long one of another host stays believed, in seconds.
HEARTBEAT = 15.0
STALE_AFTER = 90.0

#: How long to wait for a lock that somebody holds for a moment, in seconds.
PATIENCE = 60.0
#: How many times to look again at a claim that is held without a name, 50 ms apart.
_BORROWED_FOR = 100

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class Claim:
    """The right of this process to write as one writer of a run, until it is released.

    Args:
        path: The claim file; its directory is there.
        what: What is being claimed, for the error.

    Raises:
        RunInUseError: A living process holds it. Names its pid and host.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            self._take(what)
        except BaseException:
            os.close(self._fd)
            raise

    def heartbeat(self) -> None:
        """Say that the holder lives."""
        with contextlib.suppress(OSError):  # a heartbeat missed is not worth stopping a run for
            os.utime(self._fd)

    def release(self) -> None:
        """Give the claim up."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # an empty claim and a dead holder's mean the same
                os.ftruncate(self._fd, 0)
            self.abandon()

    def abandon(self) -> None:
        """Let go of the file and nothing else: for a forked child, whose parent holds the claim."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self, what: str) -> None:
        locked, holder = _try_lock(self._fd), _holder(self._fd)
        for _ in range(_BORROWED_FOR):
            if locked is not False or holder:
                break
            time.sleep(0.05)  # nobody's name is on it: a fold of another writer borrows it for a moment
            locked, holder = _try_lock(self._fd), _holder(self._fd)
        if locked is False or (holder and _lives(holder, self.path, locked=locked is True)):
            who = (
                f"process {holder.get('pid', '?')} on host {holder.get('host', '?')}"
                if holder
                else "a process that is just starting"
            )
            raise RunInUseError(
                errno.EBUSY,
                f"{what} is being written by {who}: wait for it, stop it, open with mode='r' to read, or "
                "pass rank= to write as one of several",
                os.fspath(self.path),
            )
        os.ftruncate(self._fd, 0)
        fs.write_at(self._fd, json.dumps(_self()).encode(), 0)


def _try_lock(fd: int) -> bool | None:
    """Whether the lock was got; None where there are no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _holder(fd: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(fd, 4096, 0) or b"{}")
    except ValueError:  # cut short by its writer's death
        return {}
    return holder if isinstance(holder, dict) else {}


def _lives(holder: dict[str, Any], path: Path, *, locked: bool) -> bool:
    """Whether the process that a claim names is alive, as far as can be told from here."""
    if holder.get("host") == socket.gethostname():
        if locked:
            return False  # its process would hold the lock
        pid = holder.get("pid")
        started = _start_of(pid) if isinstance(pid, int) else None
        return started is not None and started == holder.get("started")
    # A lock may reach no further than its host. The clock to compare with is the file system's own.
    return _now_at(path.parent) - path.stat().st_mtime < STALE_AFTER


def _now_at(directory: Path) -> float:
    """The time by the clock of a directory's file system."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix=layout.TEMPORARY_PREFIX) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _start_of(pid: int) -> str | None:
    """Something that tells a process from a later one of the same pid; None if there is no such process."""
    try:
        # the fields after the command's name, which may hold anything, even parentheses
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"


def is_held(path: Path) -> bool:
    """Whether a living process holds a claim."""
    try:
        with borrowed(path):
            return False
    except RunInUseError:
        return True


@contextlib.contextmanager
def borrowed(path: Path) -> Iterator[None]:
    """Keep a claim that nobody holds from being taken while the block runs.

    Raises:
        RunInUseError: Somebody holds it.
    """
    try:
        fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        yield
        return
    try:
        locked, holder = _try_lock(fd), _holder(fd)
        if locked is False or (holder and _lives(holder, path, locked=locked is True)):
            raise RunInUseError(errno.EBUSY, "the claim is held", os.fspath(path))
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive(path: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a lock on a file while the block runs.

    Args:
        path: The file. Where there are no locks, a second file beside it stands for one.
        patience: How long to wait for it, in seconds.

    Raises:
        BlockingIOError: Somebody else held it for longer than that.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    mark = path.with_suffix(".held")
    try:
        deadline = time.monotonic() + patience
        while True:
            locked = _try_lock(fd)
            if locked or (locked is None and _make_mark(mark)):
                break
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EAGAIN, "another process is at it", os.fspath(path))
            time.sleep(0.02)
        try:
            yield
        finally:
            if locked is None:
                fs.unlink(mark)
    finally:
        os.close(fd)


def _make_mark(mark: Path) -> bool:
    """Make the file that stands for a lock, unless a living process has it."""
    if fs.create_once(mark, json.dumps(_self()).encode()):
        return True
    with contextlib.suppress(OSError, ValueError):  # it may go at any moment
        holder = json.loads(mark.read_bytes())
        if not _lives(holder, mark, locked=False):
            fs.unlink(mark)
    return False


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid())}
