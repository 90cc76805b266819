"""h5py at the end of a program.

libhdf5 ends after Python, and would call h5py's converters then: a crash. So h5py takes them back by an
`atexit` function, after which it cannot handle text any more; and where it is imported later than that, it
never takes them back. But a program may still log, read or close a run in an `atexit` function of its own. So
from there on the converters are registered only while cox uses them.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from h5py import _conv

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.RLock()
_users = 0
#: Whether h5py has taken its converters back, or will not do so by itself.
_ended = False


def usable(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function that uses h5py callable at any time, also after h5py's own end."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _ended:
            return function(*args, **kwargs)
        _begin_use()
        try:
            return function(*args, **kwargs)
        finally:
            _end_use()

    return call


def _begin_use() -> None:
    global _users
    with _lock:
        _users += 1
        _conv.register_converters()


def _end_use() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _conv.unregister_converters()


def _end() -> None:
    global _ended
    _ended = True


if threading.main_thread().is_alive():
    atexit.register(_end)  # called right before h5py's own, which was registered right before
else:  # the end has begun: h5py's own may never be called
    _conv.unregister_converters()
    _end()
