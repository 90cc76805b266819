"""`run.json`: what a run says of itself. For people and for listing runs; no row depends on it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import msgspec

from cox.errors import DamagedError, FormatVersionError
from cox.storage import claims, empty, fs, journal, layout

VERSION = 2
#: A longer `run.json`, no run has.
MOST_BYTES = 16 * 1024 * 1024
_is_run_id = re.compile("[0-9a-f]{32}").fullmatch


def read(run: layout.RunLayout) -> dict[str, Any]:
    """What the run says of itself; empty where it says nothing that can be read.

    Raises:
        FormatVersionError: A newer cox wrote the run.
    """
    try:
        info = _loads(fs.read_bytes(run.inside(layout.RUN_INFO), most=MOST_BYTES))
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


def _loads(text: bytes) -> Any:
    """What JSON says. The fast way does not take all that `json` writes: half a surrogate pair, say."""
    try:
        return msgspec.json.decode(text)
    except ValueError:
        return json.loads(text)


def run_id(run: layout.RunLayout) -> str | None:
    """The id of a run: 32 hex digits, chosen at random when the run was made; a copy has the same.

    Where `run.json` is lost, the store file has it, and so has each journal. A run made by upstream cox,
    or in format 1, has none until it is written again.

    Raises:
        FormatVersionError: A newer cox wrote the run.
    """
    return id_of(read(run)) or _id_in_files(run)


def make_run_id(run: layout.RunLayout) -> str:
    """The id of a run that is to be written; makes one if it has none. Several processes may try at once."""
    known = id_of(read(run))
    if known is None:
        known = _id_in_files(run) or uuid.uuid4().hex
        about = {"format": VERSION, "id": known}
        if not fs.create_once(run.run_file, json.dumps(about).encode(), durable=False):
            known = _add_id(run, known)
    return known


def _add_id(run: layout.RunLayout, fresh: str) -> str:
    """The id in a `run.json` that is there; `fresh`, which is put into it, if it has none."""
    with claims.exclusive(run.fold_lock):
        fs.look_again(run.meta_dir)
        info = read(run)
        known = id_of(info)
        if known is None:
            known = fresh
            write(run, {**info, "format": VERSION, "id": known})
    return known


def id_of(info: dict[str, Any]) -> str | None:
    """The id in what a run says of itself."""
    known = info.get("id")
    return known if isinstance(known, str) and _is_run_id(known) else None


def _id_in_files(run: layout.RunLayout) -> str | None:
    """The id in the store file, or else in a journal."""
    try:
        if not empty.is_empty(run.store_file):
            from cox.storage import hdf5

            known = hdf5.read(run.store_file, rows=False).run_id
            if known is not None:
                return known
    except (FileNotFoundError, DamagedError):
        pass  # the journals have it, too
    headers = (log.header for log in journal.read_journals(run.journal_dir))
    return next((header.run for header in headers if header is not None), None)


def mark_moved(run: layout.RunLayout, before: Path) -> None:
    """Say that the run had another path until it was moved while it was written."""
    info = read(run)
    info["moved_from"] = os.fspath(before)
    write(run, info)


def moved_from(before: layout.RunLayout) -> layout.RunLayout | None:
    """The run of the same folder that had a path until it was moved while it was written, if there is one."""
    wanted = os.fspath(before.root)
    with contextlib.suppress(OSError):
        for root in before.root.parent.iterdir():
            run = layout.RunLayout(root)
            with contextlib.suppress(FormatVersionError):
                if read(run).get("moved_from") == wanted:
                    return run
    return None


def write(run: layout.RunLayout, info: dict[str, Any]) -> None:
    """Have the run say this of itself."""
    fs.replace_bytes(run.run_file, json.dumps(info, indent=1).encode())
