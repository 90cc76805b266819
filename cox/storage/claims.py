"""Who may write a run: one claim file for each writer.

A claim is held by an exclusive advisory lock for as long as its process lives, so that a killed process
gives it up by dying. Whoever only looks, or keeps others from taking it, has a shared lock: that is never
taken for the holder's. Where the file system has no locks, or another host holds the claim, the file
itself says who holds it (host, pid, when that process started), and its modification time is the heartbeat.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cox.errors import IrregularFileError, RunInUseError
from cox.storage import fs, layout

#: How often a live claim is touched, and how long one of another host stays believed, in seconds.
HEARTBEAT = 15.0
STALE_AFTER = 90.0

#: How long to wait for a lock that somebody holds for a moment, in seconds.
PATIENCE = 60.0
#: How long a claim that nobody holds is waited for while others look at it or borrow it, in seconds.
_BORROWED_FOR = 10.0
#: How long the name of a holder that is just starting is waited for, in seconds.
_NAMELESS_FOR = 0.5

#: A longer claim, nobody writes.
_MOST_BYTES = 4096

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
        self._fd = fs.open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            self._take(what)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def fd(self) -> int:
        """The claim file, open; -1 once it was given up."""
        return self._fd

    def in_place(self) -> bool:
        """Whether the file that is held is the one that others look at."""
        return fs.leads_to(self.path, self._fd)

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

    def _replace(self) -> None:
        """Put a file of our own, locked, in the place of one that has another name somewhere else."""
        beside = fs.temporary_beside(self.path)
        fs.write_new(beside, b"")
        fd = fs.open_own(beside, os.O_RDWR)
        try:
            try_lock(fd)
            fs.rename(beside, self.path)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd

    def _take(self, what: str) -> None:
        locked = _lock_unless_held(self._fd)
        if locked is None:
            holder = _take_by_name(self.path)
            if not holder:
                os.close(self._fd)  # of the file that was there before
                self._fd = fs.open_own(self.path, os.O_RDWR)
                return
        else:
            holder = _holder(self._fd)
        if locked is False:
            deadline = time.monotonic() + _NAMELESS_FOR
            while not holder and time.monotonic() < deadline:
                time.sleep(0.005)
                holder = _holder(self._fd)
        if not locked or _lives(holder, self.path, locked=True):
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
        if os.fstat(self._fd).st_nlink > 1:
            self._replace()
        os.ftruncate(self._fd, 0)
        fs.write_at(self._fd, json.dumps(_self()).encode(), 0)
        fs.show_to_other_hosts(self._fd)


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Whether the lock was got; None where there are no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _lock_unless_held(fd: int) -> bool | None:
    """Take the exclusive lock; waits for those who only look, and not for a holder. As `try_lock`."""
    deadline = time.monotonic() + _BORROWED_FOR
    while True:
        locked = try_lock(fd)
        if locked is not False or time.monotonic() > deadline:
            return locked
        if not try_lock(fd, fcntl.LOCK_SH):
            return False  # somebody has it exclusively
        fcntl.flock(fd, fcntl.LOCK_UN)
        time.sleep(random.uniform(0.001, 0.02))  # uneven, for our own look is in the way of others


def _take_by_name(path: Path, *, locked: bool = False) -> dict[str, Any]:
    """Become the holder where there are no locks. Returns the living one that is in the way, if any.

    Args:
        path: The claim.
        locked: Whether a lock keeps all others of this host away.

    Of all who find the same dead claim, one gets to make the file that is named after its content, the
    heir; that one replaces the claim, if it is still the same. A dead heir has an heir in turn.
    """
    own = json.dumps(_self()).encode()
    while True:
        if not path.exists() and fs.create_once(path, own, durable=False):
            return {}  # by the word of the file system itself, whatever is believed on this host
        found = said = _content(path)
        at, heirs = path, list[Path]()
        while not _lives(_parsed(said), at, locked=locked):
            digest = hashlib.sha256(said).hexdigest()[:16]
            at = path.with_name(f"{layout.TEMPORARY_PREFIX}{path.stem}-{digest}")
            heirs.append(at)
            if not fs.create_once(at, own, durable=False):
                said = _content(at)
                continue
            if _content(path) != found:  # somebody was faster, and removed the heir of then
                fs.unlink(at)
                break
            fs.replace_bytes(path, own)
            for heir in heirs:
                fs.unlink(heir)
            return {}
        else:
            return _parsed(said)


def _content(path: Path) -> bytes:
    try:
        return fs.read_bytes(path, most=_MOST_BYTES)
    except FileNotFoundError:
        return b""


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(content or b"{}")
    except (ValueError, RecursionError):  # cut short by its writer's death
        return {}
    return holder if isinstance(holder, dict) else {}


def _holder(fd: int) -> dict[str, Any]:
    return _parsed(os.pread(fd, _MOST_BYTES, 0))


def _lives(holder: dict[str, Any], path: Path, *, locked: bool) -> bool:
    """Whether the process that a claim names is alive, as far as can be told from here."""
    if not holder:
        return False
    if holder.get("host") == socket.gethostname():
        if locked:
            return False  # its process would hold the lock
        pid = holder.get("pid")
        started = _start_of(pid) if isinstance(pid, int) else None
        return started is not None and started == holder.get("started")
    # A lock may reach no further than its host. The clock to compare with is the file system's own.
    try:
        return _now_at(path.parent) - path.lstat().st_mtime < STALE_AFTER
    except FileNotFoundError:  # given up meanwhile
        return False


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


def is_believed(path: Path) -> bool:
    """Whether a living process holds a claim, as far as can be told by somebody who may only read."""
    try:
        return is_held(path)
    except IrregularFileError:
        return False
    except OSError:  # another host's, in a directory where the clock cannot be asked
        try:
            return time.time() - path.stat().st_mtime < STALE_AFTER
        except OSError:
            return False


def holder_of(path: Path) -> dict[str, Any]:
    """What a claim says of its holder: `pid` and `host`; empty if it was given up."""
    return _parsed(_content(path))


@contextlib.contextmanager
def borrowed(path: Path) -> Iterator[None]:
    """Keep a claim that nobody holds from being taken while the block runs. Others may borrow it too.

    Raises:
        RunInUseError: Somebody holds it. Names its pid and host.
    """
    try:
        fd = fs.open_own(path)
    except FileNotFoundError:
        yield
        return
    try:
        locked, holder = try_lock(fd, fcntl.LOCK_SH), _holder(fd)
        if locked is False or _lives(holder, path, locked=locked is True):
            who = f"process {holder.get('pid', '?')} on host {holder.get('host', '?')}"
            raise RunInUseError(errno.EBUSY, f"{who} writes as {path.stem}", os.fspath(path))
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive(path: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a lock on a file while the block runs.

    Args:
        path: The file. A second one beside it stands for the lock with other hosts, for a lock may reach no
            further than its host, and where there are none.
        patience: How long to wait for it, in seconds.

    Raises:
        BlockingIOError: Somebody else held it for longer than that.
    """
    fd = fs.open_own(path, os.O_RDWR | os.O_CREAT)
    mark = path.with_suffix(layout.HELD_SUFFIX)
    try:
        deadline = time.monotonic() + patience
        while True:
            locked = try_lock(fd)
            if locked is not False and not _take_by_name(mark, locked=locked is True):
                break
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EAGAIN, "another process is at it", os.fspath(path))
            time.sleep(0.02)
        try:
            yield
        finally:
            fs.unlink(mark)
    finally:
        os.close(fd)


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": _start_of(os.getpid())}
