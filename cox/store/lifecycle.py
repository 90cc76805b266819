"""One thread for each process looks after its open stores, and the end of the program ends them.

The thread says every 15 seconds that their process lives, and looks twice a second whether their runs are
still where they were. When the main thread is done, and every other that the interpreter waits for, it ends
them: a forked child of multiprocessing has no later moment. The program's own `atexit` functions come after
that. A row that they log opens its run again, and the `atexit` function of this module, which is called after
those that were registered since cox was imported, ends it again. Forked children get rid of their parent's
stores.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from typing import Protocol

from cox.storage import claims, open_writers
from cox.store import ending


class Closable(Protocol):
    """What the keeper looks after."""

    def end(self, *, last: bool) -> None:
        """Finish whatever is open. A later use opens it again.

        Args:
            last: Whether it is not called again.
        """

    def heartbeat(self) -> None:
        """Say that its process lives."""

    def look(self) -> None:
        """Notice whether it is still where it was."""

    def fail(self, error: str) -> None:
        """Have the run end as failed."""


#: How often it is looked whether runs are still where they were, in seconds.
LOOK = 0.5

_log = logging.getLogger("cox")
_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_keeper: threading.Thread | None = None
_lock = threading.RLock()


def register(store: Closable) -> None:
    """Have a store looked after until `unregister`."""
    global _keeper
    with _lock:
        ending.watch()
        _open.add(store)
        if (_keeper is None or not _keeper.is_alive()) and not _too_late():
            # not a daemon: the interpreter waits for it, so that closing is not cut short
            _keeper = threading.Thread(target=_keep, name="cox-keeper", daemon=False)
            with contextlib.suppress(RuntimeError):  # a daemon thread's store, and no thread begins any more
                _keeper.start()


def unregister(store: Closable) -> None:
    """Look after a store no more."""
    with _lock:
        _open.discard(store)


def _too_late() -> bool:
    """Whether this is an `atexit` function, or comes after them: nobody waits for a thread any more."""
    main = threading.main_thread()
    return threading.current_thread() is main and not main.is_alive()


def _all_open() -> list[Closable]:
    with _lock:
        return list(_open)


def _beat() -> None:
    for store in _all_open():  # a function of its own: no variable keeps a store alive until the next beat
        store.heartbeat()


def _look() -> None:
    for store in _all_open():
        store.look()


def _keep() -> None:
    beat = time.monotonic()
    while (thread := _thread_at_work()) is not None:
        thread.join(timeout=LOOK)
        _look()
        if time.monotonic() - beat >= claims.HEARTBEAT:
            beat = time.monotonic()
            _beat()
    _end_all(last=not _atexit_functions_come())


def _thread_at_work() -> threading.Thread | None:
    """A thread that the interpreter waits for, and that may still log; None if all are done."""
    own = threading.current_thread()
    return next((t for t in threading.enumerate() if t is not own and not t.daemon and t.is_alive()), None)


def _atexit_functions_come() -> bool:
    """Whether this process will call its `atexit` functions: a forked child of multiprocessing never does."""
    processes = sys.modules.get("multiprocessing.process")
    child = processes is not None and processes.parent_process() is not None
    return not child or "--multiprocessing-fork" in sys.orig_argv  # which a spawned one is started with


def _end_all(*, last: bool) -> None:
    error = ending.error_of_program()
    for store in _all_open():
        try:
            if error is not None:
                store.fail(error)
            store.end(last=last)
        except Exception:  # noqa: BLE001 - one store's trouble must not keep the others open
            _log.exception("a store could not be closed cleanly at the end of the program")


# registered when cox is imported: what the program registers after that is called before
atexit.register(_end_all, last=True)


def _after_fork_in_child() -> None:
    global _open, _keeper, _lock
    _lock = threading.RLock()
    _open = weakref.WeakSet()
    _keeper = None
    open_writers.forget_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
