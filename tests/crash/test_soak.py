"""Logging and reading on and on: nothing piles up. `COX_SOAK=3600 scripts/test tests/crash/test_soak.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

#: How long, in seconds.
SECONDS = float(os.environ.get("COX_SOAK", "4"))

PROGRAM = """
    import gc, os, shutil, sys, threading, time
    import cox
    from cox.storage import writer

    out, seconds = sys.argv[1], float(sys.argv[2])
    writer.FOLD_AT = 20_000

    def round_(number):
        folder = os.path.join(out, f"folder-{number % 3}")
        shutil.rmtree(folder, ignore_errors=True)
        for run in ("a", "b"):
            for session in range(2):
                store = cox.Store(folder, run, rank=session if run == "b" else None)
                table = store.add_table("t", {"step": int, "loss": float, "text": str, "thing": cox.PICKLE})
                many = store.add_table("many", {"x": float, "word": str})
                for step in range(30):
                    table.append_row({"step": step, "loss": step / 7, "text": "é" * step, "thing": [step]})
                    store.log_table_and_tb("many", {"x": step})
                    many.update_row({"word": "x" * 50})
                    many.flush_row()
                    for _ in range(10):
                        many.append_row({"x": step, "word": "y" * 50})
                table.rewind(20)
                many.add_column(f"late {session}", int)
                many.append_row({"x": 1, "word": ""})
                with cox.Store(folder, run, mode="r") as reader:
                    assert len(reader["t"].df) == (20 * (session + 1) if run == "b" else 20)
                    assert reader["t"].get_pickle(reader["t"].df["thing"][3]) == [3]
                try:
                    store.add_table("t", {"other": int})
                except cox.errors.SchemaError:
                    pass
                store.close()
        with cox.CollectionReader(folder) as reader:
            assert len(reader.df("many", union_schemas=True)) == 4 * (30 * 11 + 1)

    def held():
        gc.collect()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return len(os.listdir("/proc/self/fd")), threading.active_count(), resident

    for number in range(4):  # everything is imported, and every pool has its size
        round_(number)
    first, number, end = held(), 0, time.monotonic() + seconds
    while time.monotonic() < end or number < 3:
        round_(number)
        number += 1
    print(*first)
    print(*held())
    print(number)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts by /proc, which only Linux has")
def test_descriptors_threads_and_memory_stay_flat(
    start: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.PATIENCE", SECONDS + 300)
    lines = start(PROGRAM, tmp_path, SECONDS).finish()  # type: ignore[attr-defined]
    before, after = ([int(number) for number in line.split()] for line in lines[:2])
    assert after[:2] == before[:2], "descriptors and threads"
    assert after[2] <= before[2] * 1.15 + 8e6, (
        f"resident bytes, after {lines[2]} rounds: {before[2]:,}, {after[2]:,}"
    )
