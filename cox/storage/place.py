"""Where a run is by now that a writer has open: at its path, moved, or gone.

Whoever removes or renames a run's directory does not ask its writer, which could go on writing into files
that nobody finds. Its open files tell: a path still leads to them, or the system knows their new one, or they
have none any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from cox.errors import RunGoneError
from cox.storage import fs, layout

#: A removal that is going on removes something within a moment; it is waited for so long. In seconds.
_A_MOMENT, _PATIENCE = 0.3, 5.0
#: So many directories of a run are looked at.
_MOST_DIRECTORIES = 1000


def run_of(fds: Iterable[int]) -> layout.RunLayout | None:
    """The run in which open files lie now: claims, journals. None if it is gone, or cannot be told."""
    for fd in fds:
        path = fs.path_of(fd) if fd >= 0 else None
        if path is not None and len(path.parts) > 3 and path.parts[-3] == layout.META_DIR:
            return layout.RunLayout(path.parents[2])
    return None


def wait_until_settled(root: Path) -> None:
    """Wait while somebody is removing a run: what is written in between would be in the way, and remain."""
    deadline = time.monotonic() + _PATIENCE
    before = _directories(root)
    while time.monotonic() < deadline:
        time.sleep(_A_MOMENT)
        now = _directories(root)
        if now == before:
            return
        before = now


def _directories(root: Path) -> list[tuple[str, int]]:
    """The directories of a run, and when a name in each was last made or removed."""
    states = []
    for directory, _, _ in islice(os.walk(root), _MOST_DIRECTORIES):
        with contextlib.suppress(OSError):
            states.append((directory, os.stat(directory).st_mtime_ns))  # noqa: PTH116
    return states


def gone(root: Path, fds: Iterable[int], rows: int) -> RunGoneError:
    """The error for a run that is not at its path any more, and that cannot be followed.

    Args:
        root: Its path.
        fds: Files of it that are open.
        rows: How many rows this process has logged to it.
    """
    counted = f"{rows:,} row{'' if rows == 1 else 's'} of this process"
    if all(fs.is_removed(fd) for fd in fds if fd >= 0):
        what, lost = "was removed", f"{counted} went with it"
    else:
        what, lost = "was moved to a place that cannot be told from here", f"{counted} are in it"
    there = ", and something else is at its path now" if root.exists() else ""
    message = (
        f"run {root} {what} while it was written{there}: {lost}, and no more can be stored; to go on "
        f"logging, close this store and begin another run, with Store({os.fspath(root.parent)!r}, …)"
    )
    return RunGoneError(errno.ENOENT, message, os.fspath(root))
