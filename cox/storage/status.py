"""How a run is: derived from what is there at this moment, for a killed process says nothing more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cox.storage import claims, fs, layout, runinfo, sessions
from cox.storage.sessions import CRASHED, FAILED, FINISHED, RUNNING

__all__ = ["CRASHED", "FAILED", "FINISHED", "RUNNING", "STATES", "UNKNOWN", "Status", "status_of"]

UNKNOWN = "unknown"
#: running: a living process writes it. finished, failed: it was closed, after an error or not. crashed: its
#: process is gone without a word. unknown: upstream's, which say nothing.
STATES = (RUNNING, FINISHED, FAILED, CRASHED, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Status:
    """How a run is.

    Attributes:
        state: One of `STATES`.
        started: When it was begun first, in seconds since 1970; None if nobody knows.
        duration: For how many seconds a process of it lived: the sum of its sessions.
        host: Where it was written last.
        pid: By which process.
        error: What it failed of; of several ranks, what failed first.
        not_stored: How many rows it had to give up, under `on_error='warn'`.
        history: Its sessions.
    """

    state: str
    started: float | None = None
    duration: float | None = None
    host: str | None = None
    pid: int | None = None
    error: str | None = None
    not_stored: int = 0
    history: sessions.History = sessions.NONE


def status_of(run: layout.RunLayout) -> Status:
    """How a run is.

    Raises:
        FormatVersionError: A newer cox wrote it.
    """
    fs.refuse_links(run.meta_dir, run.claims_dir)
    info = runinfo.read(run)
    held = [path for path in _claims(run) if claims.is_believed(path)]
    history = sessions.read(run)
    how, error = history.outcome()
    last = max(history.last_attempt(), key=lambda session: session.started or 0.0, default=None)
    host, pid = (last.host, last.pid) if last is not None else (None, None)
    if held and how != RUNNING:  # it was opened, and has not written yet; or it is closing
        holder = claims.holder_of(held[0])
        host, pid = _text(holder.get("host")) or host, _whole(holder.get("pid")) or pid
    started = sessions.number(info.get("created"))
    if started is None and history.sessions:
        started = history.sessions[0].started
    return Status(
        RUNNING if held else how or UNKNOWN,
        started=started,
        duration=history.lasting(time.time()),
        host=host,
        pid=pid,
        error=error if not held else None,
        not_stored=history.not_stored,
        history=history,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


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
