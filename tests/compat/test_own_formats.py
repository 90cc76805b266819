"""Runs in every format that cox ever wrote: read as they were, left as they are, and gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

import cox
from cox.storage import journal
from tests.compat.golden import make_own, make_times

GOLDEN = Path(__file__).with_name("golden")
RUNS = sorted(path.parent for path in GOLDEN.glob("own/v*/*/expected.json"))


def test_there_are_golden_runs_of_every_version() -> None:
    versions, runs = [f"v{number}" for number in range(1, journal.VERSION + 1)], ["closed", "killed", "ranks"]
    assert [f"{run.parent.name}/{run.name}" for run in RUNS] == [
        f"{v}/{run}" for v in versions for run in runs
    ]
    for version in versions:
        journals = list((GOLDEN / "own" / version / "killed" / ".cox" / "journal").glob("*.log"))
        assert journals, "what was killed has a journal"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_golden_run_reads_as_it_was_written(run: Path) -> None:
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in run.rglob("*") if path.is_file()}
    expected = json.loads((run / "expected.json").read_text())
    assert make_own.described(run.parent, run.name) == expected
    with cox.CollectionReader(run.parent, exp_filter=lambda name: name == run.name) as reader:
        assert reader.tables == set(expected)
        assert len(reader.df("types")) == len(expected["types"]["rows"])
    assert before == {path: hashlib.sha256(path.read_bytes()).digest() for path in before}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_a_golden_run_can_be_gone_on_with(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / run.name)
    expected = json.loads((run / "expected.json").read_text())
    for claim in (tmp_path / run.name / ".cox" / "claims").iterdir():
        os.utime(claim, (0, 0))  # of a host that is gone; the checkout made it look alive
    rank = 1 if run.name == "ranks" else None
    with cox.Store(tmp_path, run.name, rank=rank) as store:
        store["types"].append_row({**make_own.row(99), "late": "x"} if rank is None else make_own.row(99))
    after = make_own.described(tmp_path, run.name)
    assert after["types"]["rows"][:-1] == expected["types"]["rows"]
    assert after["types"]["rows"][-1][0] == 99
    assert after["L1 ball/things"] == expected["L1 ball/things"]
    frame = pd.read_hdf(tmp_path / run.name / "store.h5", "types")
    assert frame["step"].tolist() == [row[0] for row in after["types"]["rows"]]


@pytest.mark.parametrize("name", ["folded", "killed"])
def test_golden_times_read_as_they_were_written_and_are_gone_on_with(name: str, tmp_path: Path) -> None:
    run = GOLDEN / "own" / "times" / name
    expected = json.loads((run / "expected.json").read_text())
    assert make_times.described(run.parent, name) == expected
    shutil.copytree(run, tmp_path / name)
    for claim in (tmp_path / name / ".cox" / "claims").iterdir():
        os.utime(claim, (0, 0))
    with cox.Store(tmp_path, name) as store:
        for table in make_times.TABLES:
            store[table].append_row({"step": 9, "at": make_times.ZONED[0]})
    after = make_times.described(tmp_path, name)
    for table in make_times.TABLES:
        steps, at, done = after[table]
        assert [steps[:-1], at[:-1], done[:-1]] == expected[table]
        assert (steps[-1], at[-1], done[-1]) == (9, "2026-01-02T03:04:05.000006+00:00", None)
    frame = pd.read_hdf(tmp_path / name / "store.h5", "near and zoned")
    assert str(frame["at"].dtype) == "datetime64[ns, UTC]"
    assert frame["at"].tolist() == [*make_times.TABLES["near and zoned"], make_times.ZONED[0]]
