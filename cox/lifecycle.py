"""One thread for each process: it touches the claims of open stores, and closes them at the end.

The end is when the main thread is done, before the interpreter begins to take itself apart: an `atexit`
function would be too late to load an HDF5 library, and multiprocessing's children never run theirs.
Forked children get rid of their parent's stores.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Protocol

from cox import ending
from cox.storage import claims, writer


class Closable(Protocol):
    """What the keeper looks after."""

    def close(self) -> None:
        """Finish whatever is open."""

    def heartbeat(self) -> None:
        """Say that its process lives."""

    def fail(self, error: str) -> None:
        """Have the run end as failed."""


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
        if _keeper is None or not _keeper.is_alive():
            # not a daemon: the interpreter waits for it, so that closing is not cut short
            _keeper = threading.Thread(target=_keep, name="cox-keeper", daemon=False)
            _keeper.start()


def unregister(store: Closable) -> None:
    """Look after a store no more."""
    with _lock:
        _open.discard(store)


def _all_open() -> list[Closable]:
    with _lock:
        return list(_open)


def _beat() -> None:
    for store in _all_open():  # a function of its own: no variable keeps a store alive until the next beat
        store.heartbeat()


def _keep() -> None:
    main = threading.main_thread()
    while main.is_alive():
        main.join(timeout=claims.HEARTBEAT)
        _beat()
    for thread in threading.enumerate():  # other threads may still be logging
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    error = ending.error_of_program()
    for store in _all_open():
        try:
            if error is not None:
                store.fail(error)
            store.close()
        except Exception:  # noqa: BLE001 - one store's trouble must not keep the others open
            _log.exception("a store could not be closed cleanly at the end of the program")


def _after_fork_in_child() -> None:
    global _open, _keeper, _lock
    _lock = threading.RLock()
    _open = weakref.WeakSet()
    _keeper = None
    writer.forget_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
