"""The writers that are open in this process: one for each run and rank, shared by all who open that.

Opening, closing and forking go through here.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

from cox.storage import layout
from cox.storage.writer import RunWriter

_open: weakref.WeakValueDictionary[tuple[Path, int | None], RunWriter] = weakref.WeakValueDictionary()
_open_lock = threading.RLock()


def open_writer(run: layout.RunLayout, rank: int | None, *, sync: bool, made: bool = False) -> RunWriter:
    """The writer of a run, shared by all who open it in this process. Each calls `release` once.

    For the arguments see `RunWriter`.
    """
    with _open_lock:
        writer = _writer_at(run.root, rank)
        if writer is not None and writer.users > 0 and writer.is_usable:
            writer.users += 1
            if sync:
                writer.sync_from_now_on()
            return writer
        if writer is not None:
            writer.close()  # or another thread is at it: its lock is waited for
        writer = _open[run.root, rank] = RunWriter(run, rank, sync=sync, made=made)
        writer.users = 1
        return writer


def _writer_at(root: Path, rank: int | None) -> RunWriter | None:
    """The open writer of the run that lies at a path by now, whatever lay there when it was opened."""
    first = _open.get((root, rank))
    others = [writer for writer in _open.values() if writer is not first and writer.rank == rank]
    if first is not None and not first.is_displaced and first.run.root == root:
        return first  # without its lock: who holds that may wait for ours, to close a store
    for writer in [first, *others] if first is not None else others:
        if (writer is first or writer.is_displaced) and writer.is_at(root):
            _open[root, rank] = writer
            return writer
    return None


def release(writer: RunWriter) -> None:
    """Give a writer back; the last one closes it."""
    with _open_lock:
        writer.users -= 1
        last = writer.users <= 0
    if last:
        writer.close()  # outside the lock: opening and closing other runs goes on
        with _open_lock:
            for key in [key for key, other in _open.items() if other is writer]:
                del _open[key]


def forget_all() -> None:
    """In a forked child: abandon every writer of the parent."""
    global _open_lock
    _open_lock = threading.RLock()
    for writer in list(_open.values()):
        writer.abandon()
    _open.clear()
