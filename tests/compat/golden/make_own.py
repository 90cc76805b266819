"""Write golden runs in the format of today: `python -m tests.compat.golden.make_own own/v2`.

Run once for each format version, when it is new; what it wrote is never made anew. The runs hold what the
format can hold: `closed` is folded and closed, `killed` is what a SIGKILL left (a store file, and a journal
with every kind of record), `ranks` was written by three.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

import cox
from tests.compat.golden import runs

SCHEMA: dict[str, Any] = {
    "step": int,
    "loss": float,
    "text": str,
    "ok": bool,
    "maybe": float | None,
    "count": int | None,
    "flag": bool | None,
    "word": str | None,
    "f(x)": float,
    "a/b": str,
}
FLOATS = [0.1, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308]
TEXTS = ["", "nan", "é漢🙂", "a\0b", "two\nlines", "x" * 300]
INTS = [0, -1, 127, 128, -129, 65536, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63)]


def row(step: int) -> dict[str, Any]:
    """The row of a step: every value of the lists above comes up, and every column misses some."""
    full = {
        "step": step,
        "loss": FLOATS[step % len(FLOATS)],
        "text": TEXTS[step % len(TEXTS)],
        "ok": step % 2 == 0,
        "maybe": step / 3,
        "count": INTS[step % len(INTS)],
        "flag": step % 3 == 0,
        "word": TEXTS[-step % len(TEXTS)],
        "f(x)": -step / 7,
        "a/b": f"row {step}",
    }
    missing = ["maybe", "count", "flag", "word"][step % 5 : step % 5 + 1]
    return {name: value for name, value in full.items() if name not in missing}


def log(folder: Path, exp_id: str, steps: range, **options: Any) -> cox.Store:
    """Log these steps into the tables of a run, which stays open."""
    store = cox.Store(folder, exp_id, **options)
    table = store.add_table("types", SCHEMA)
    things = store.add_table("L1 ball/things", {"object": cox.OBJECT, "file": cox.PICKLE})
    for step in steps:
        table.append_row(row(step))
        if step % 10 == 0:
            things.append_row({"object": {"step": step}, "file": [step, "é", None, 0.5]})
    return store


def fill(folder: Path, exp_id: str) -> None:
    """Make one of the runs; 'killed' kills this process."""
    if exp_id == "ranks":
        for rank in (0, 1, 2):
            log(folder, exp_id, range(10 * rank, 10 * rank + 7), rank=rank).close()
        return
    log(folder, exp_id, range(40)).close()
    store = log(folder, exp_id, range(40, 60))
    store["types"].add_column("late", str)
    store["types"].append_row({**row(60), "late": "here"})
    store.rewind("types", 35, purge_tensorboard=False)  # reaches into what is folded
    for step in range(35, 45):
        store["types"].append_row({**row(step), "late": f"again {step}"})
    store.add_table("never_flushed", {"x": int}).update_row({"x": 1})
    if exp_id == "killed":
        os.kill(os.getpid(), 9)
    store["never_flushed"]._drop_working_row()
    store.close()


def described(folder: Path, exp_id: str) -> dict[str, Any]:
    """All that a run holds, as JSON has it: floats in hex, None where a cell is missing."""
    with cox.Store(folder, exp_id, mode="r") as store:
        return {
            name: {
                "schema": {column: str(given) for column, given in table.schema.items()},
                "rows": [[_cell(table, *cell) for cell in _cells(table, at)] for at in range(table.nrows)],
            }
            for name, table in store.tables.items()
        }


def _cells(table: cox.Table, at: int) -> list[tuple[str, Any]]:
    return list(table.df.iloc[at].items())


def _cell(table: cox.Table, column: str, value: Any) -> Any:
    given = table.schema[column]
    if given in (cox.OBJECT, cox.PICKLE):
        return (table.get_object if given == cox.OBJECT else table.get_pickle)(value)
    if pd.isna(value) and given is not float:
        return None
    value = getattr(value, "item", lambda: value)()
    return value.hex() if isinstance(value, float) else value


if __name__ == "__main__":
    runs.main(__file__, ("closed", "killed", "ranks"), fill, described)
