"""What the tests of a folder's cache share: runs in a few lines, and time that passes quickly."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cox
from cox.collection import reading
from cox.collection.cache import saving
from cox.storage import layout, scan, snapshot

#: Longer than a kernel takes to move the clock of its files on, in ns.
TICK = 12_000_000


def make(folder: Path, name: str, *rows: dict[str, Any], table: str = "t", **schema: Any) -> Path:
    """A run with one table; by default of whole numbers and texts."""
    with cox.Store(folder, name) as store:
        made = store.add_table(table, schema or {"x": int, "s": str})
        for row in rows or [{"x": x, "s": f"{name} {x}"} for x in range(3)]:
            made.append_row(row)
    return folder / name


def settle(folder: Path, *, nested: bool = False) -> None:
    """Wait until the clock of the file system is past everything that was written to the runs of a folder."""
    roots = [f"{folder}/{name}" for name in scan.run_names(str(folder), nested=nested)]
    newest = max((scan.state_of(root).newest for root in roots), default=0)
    while True:
        with tempfile.NamedTemporaryFile(dir=folder.parent) as probe:
            if Path(probe.name).stat().st_mtime_ns > newest + TICK:
                return
        time.sleep(0.002)


def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs be kept without two seconds of rest.

    In one process the rule stays what it is: what is changed once a reading has ended gets a later time than
    all that this reading kept.
    """
    monkeypatch.setattr(saving, "_SETTLED", 0)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that collections read from their files from now on."""
    seen: list[str] = []
    really = reading._Reading._snapshot

    def read(self: Any, name: str) -> snapshot.Snapshot:
        seen.append(name)
        return really(self, name)

    monkeypatch.setattr(reading._Reading, "_snapshot", read)
    return seen


def df(folder: Any, key: str = "t", *, cache: bool | None = True, **options: Any) -> pd.DataFrame:
    """One table, by a new reader, whose warnings about runs that differ are of no interest here."""
    nested = options.pop("nested", False)
    with cox.CollectionReader(folder, log_warnings=False, cache=cache, nested=nested) as reader:
        return reader.df(key, **options)


def assert_same(folder: Any, key: str = "t", **options: Any) -> pd.DataFrame:
    """With the cache and without it, the frame is the same to the last dtype. Returns it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = df(folder, key, cache=False, **options)
        found = df(folder, key, **options)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    return found


def segments_of(folder: Path) -> list[Path]:
    return sorted((folder / layout.CACHE_DIR).glob("*.rows"))
