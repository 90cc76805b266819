"""Write golden runs with columns of times: `python -m tests.compat.golden.make_times own/times`.

What it wrote is never made anew. `folded` is closed, `killed` is what a SIGKILL left: all of its rows are in
the journal. Each has a table of times without a zone, one of times with one, and one of both.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import cox
from tests.compat.golden import runs

SCHEMA: dict[str, Any] = {"step": int, "at": dt.datetime, "done": dt.datetime | None}
NAIVE = [
    dt.datetime(2026, 1, 2, 3, 4, 5, 6),
    dt.datetime(1, 1, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
]
ZONED = [time.replace(tzinfo=dt.timezone.utc) for time in NAIVE]
TABLES = {
    "naive": NAIVE,
    "zoned": ZONED,
    "both": [NAIVE[0], ZONED[0], NAIVE[1], ZONED[1]],
    "near": [NAIVE[0], NAIVE[3]],  # these two pandas has as times in the file, those before as text
    "near and zoned": [ZONED[0], ZONED[3]],
}


def fill(folder: Path, exp_id: str) -> None:
    """Make one of the runs; 'killed' kills this process."""
    store = cox.Store(folder, exp_id)
    for name, times in TABLES.items():
        table = store.add_table(name, SCHEMA)
        for step, time in enumerate(times):
            table.append_row({"step": step, "at": time, "done": time if step % 2 else None})
    store.log_params({"begun": ZONED[0], "day": NAIVE[0]})
    if exp_id == "killed":
        os.kill(os.getpid(), 9)
    store.close()


def described(folder: Path, exp_id: str) -> dict[str, Any]:
    """All rows, as JSON has them: times in ISO 8601, None where a cell is missing."""
    with cox.CollectionReader(folder, exp_filter=lambda name: name == exp_id) as reader:
        tables = {name: reader.df(name, append_exp_id=False) for name in sorted(reader.tables)}
    return {
        name: [[_cell(value) for value in frame[column]] for column in frame]
        for name, frame in tables.items()
    }


def _cell(value: Any) -> Any:
    if value is None or value != value:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else int(value)


if __name__ == "__main__":
    runs.main(__file__, ("folded", "killed"), fill, described)
