"""`run.json`: what a run says of itself. For people and for listing runs; no row depends on it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

from cox import __version__
from cox.errors import FormatVersionError
from cox.storage import fs, layout

VERSION = 1


def read(run: layout.RunLayout) -> dict[str, Any]:
    """What the run says of itself; empty where it says nothing that can be read.

    Raises:
        FormatVersionError: A newer cox wrote the run.
    """
    try:
        info = json.loads(fs.read_bytes(run.run_file))
    except (OSError, ValueError, RecursionError):
        return {}  # made by upstream cox, or cut short: what matters is in the tables
    if not isinstance(info, dict):
        return {}
    version = info.get("format", 0)
    if isinstance(version, int) and version > VERSION:
        raise FormatVersionError(
            f"{run.root} is a run of format {version}; this cox reads up to {VERSION}: upgrade cox"
        )
    return info


def mark_running(run: layout.RunLayout) -> None:
    """Say that a process of this host writes the run."""
    before = read(run)
    _write(
        run,
        {
            "format": VERSION,
            "state": "running",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "created": before.get("created", time.time()),
            "started": time.time(),
            "platform": "-".join(os.uname()[::2]),  # of the module platform the same costs 14 ms
            "python": sys.version.partition(" ")[0],
            "cox": __version__,
            "command": sys.argv,
        },
    )


def mark_ended(run: layout.RunLayout, error: str | None, *, not_stored: int = 0) -> None:
    """Say that the run ended: by itself, or by an error; and how many rows it had to give up."""
    info = read(run)
    if not_stored:
        info["not_stored"] = int(info.get("not_stored", 0)) + not_stored
    info.update(state="failed" if error else "finished", ended=time.time())
    if error:
        info["error"] = error
    _write(run, info)


def _write(run: layout.RunLayout, info: dict[str, Any]) -> None:
    fs.replace_bytes(run.run_file, json.dumps(info, indent=1).encode())
