"""How a run is: derived from what is there at this moment, for a killed process says nothing more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cox.collection.scan import state_of
from cox.errors import IrregularFileError
from cox.storage import claims, fs, layout, runinfo

RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"
CRASHED = "crashed"
UNKNOWN = "unknown"
#: running: a living process writes it. finished, failed: it was closed, after an error or not. crashed: its
#: process is gone without a word. unknown: upstream's, which say nothing.
STATES = (RUNNING, FINISHED, FAILED, CRASHED, UNKNOWN)

#: No number of a run, and no second since 1970 that pandas can show: whoever says more says nothing.
_BEYOND = 2.0**33


@dataclass(frozen=True, slots=True)
class Status:
    """How a run is.

    Attributes:
        state: One of `STATES`.
        started: When it was begun first, in seconds since 1970; None if nobody knows.
        duration: Seconds from then until it ended, or until its last sign of life.
        host: Where it was written last.
        pid: By which process.
        error: What it failed of.
        not_stored: How many rows it had to give up, under `on_error='warn'`.
    """

    state: str
    started: float | None = None
    duration: float | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None
    not_stored: int = 0


def status_of(run: layout.RunLayout) -> Status:
    """How a run is.

    Raises:
        FormatVersionError: A newer cox wrote it.
    """
    fs.refuse_links(run.meta_dir, run.claims_dir)
    info = runinfo.read(run)
    said = info.get("state")
    held = any(_is_held(path) for path in _claims(run))
    if said == RUNNING and not held:
        held = _is_held(run.fold_lock)  # it is closing: the claim is given up first
        info = runinfo.read(run)  # or it ended meanwhile
        said = info.get("state")
    if held:
        state = RUNNING
    elif said in (FINISHED, FAILED):
        state = said
    else:
        state = CRASHED if said == RUNNING else UNKNOWN
    started = _number(info.get("created"), _number(info.get("started")))
    host, pid, error = info.get("host"), info.get("pid"), info.get("error")
    return Status(
        state,
        started,
        None if started is None else max(0.0, _ended(run, info, state) - started),
        host if isinstance(host, str) else None,
        pid if isinstance(pid, int) else None,
        error if isinstance(error, str) and state == FAILED else None,
        int(_number(info.get("not_stored"), 0.0) or 0),
    )


def _ended(run: layout.RunLayout, info: dict[str, Any], state: str) -> float:
    if state == RUNNING:
        return time.time()
    ended = _number(info.get("ended"))
    if state in (FINISHED, FAILED) and ended is not None:
        return ended
    try:
        return state_of(os.fspath(run.root)).written / 1e9
    except OSError:
        return 0.0


def _claims(run: layout.RunLayout) -> Iterator[Path]:
    """The claims that say something: one that was given up is empty."""
    try:
        with os.scandir(run.claims_dir) as entries:
            yield from [
                Path(entry)
                for entry in entries
                if entry.name.endswith(".json") and entry.stat(follow_symlinks=False).st_size
            ]
    except (FileNotFoundError, NotADirectoryError):
        return


def _is_held(claim: Path) -> bool:
    try:
        return claims.is_held(claim)
    except IrregularFileError:
        return False
    except OSError:  # another host's, in a directory where the clock cannot be asked
        try:
            return time.time() - claim.stat().st_mtime < claims.STALE_AFTER
        except OSError:
            return False


def _number(value: Any, otherwise: float | None = None) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < _BEYOND:
        return otherwise
    return float(value)
