"""`cox repair --tensorboard`: points that are gone are made again out of the table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cox.cli import main
from cox.errors import RunNotFoundError
from cox.repair import redraw
from cox.store import Store


def curve(run: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(os.fspath(run / "tensorboard"))
    accumulator.Reload()
    if tag not in accumulator.Tags()["scalars"]:
        return []
    return sorted((point.step, point.value) for point in accumulator.Scalars(tag))


@pytest.fixture
def run(out: Path) -> Path:
    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        table = store.add_table("t", {"x": float, "quiet": int, "note": str})
        for step in range(5):
            store.log_table_and_tb("t", {"x": step / 4})
            table.update_row({"quiet": step, "note": "a"})
            table.flush_row()
        store.rewind("t", 3)
        store.log_table_and_tb("t", {"x": 9.0})
        table.update_row({"quiet": 9, "note": "a"})
        table.flush_row()
    return out / "run"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["repair", "--tensorboard", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_there_is_left_alone(run: Path) -> None:
    before = sorted((run / "tensorboard").iterdir())
    assert "no points missing" in call(run)
    assert sorted((run / "tensorboard").iterdir()) == before


def test_points_that_were_cut_off_come_back(run: Path) -> None:
    whole = curve(run, "t/x")
    last = max((run / "tensorboard").iterdir())
    os.truncate(last, last.stat().st_size - 1)
    assert curve(run, "t/x") == whole[:-1]
    assert "1 point missing\n  t/x: 1\n" in call(run)
    assert curve(run, "t/x") == whole
    assert curve(run, "t/quiet") == []  # nobody ever sent it


def test_without_any_point_all_numbers_are_sent(run: Path) -> None:
    for path in (run / "tensorboard").iterdir():
        path.unlink()
    assert "no points missing" in call(run.parent)  # a run that never used TensorBoard stays so
    assert list((run / "tensorboard").iterdir()) == []
    told = json.loads(call(run, "--json"))
    assert told == {"run": str(run), "points": {"t/x": 4, "t/quiet": 4}}
    assert curve(run, "t/x") == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 9.0)]
    assert curve(run, "metadata/lr") == []


def test_a_run_that_is_written_is_left_alone(run: Path) -> None:
    with Store(run.parent, "run"):
        result = CliRunner().invoke(main, ["repair", "--tensorboard", str(run)])
    assert result.exit_code == 1
    assert "not repaired" in result.output


def test_a_curve_of_somebody_elses_is_left_alone(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float})
        for row in range(4):
            store.writer.add_scalar("t/x", 1.0, 1000 * row)  # by hand, under the same tag
            table.append_row({"x": 2.0})
    assert "no points missing" in call(out / "run")
    assert curve(out / "run", "t/x") == [(1000 * row, 1.0) for row in range(4)]


def test_a_dry_run_tells_and_writes_nothing(run: Path) -> None:
    last = max((run / "tensorboard").iterdir())
    os.truncate(last, last.stat().st_size - 1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert "1 point would be sent\n  t/x: 1\n" in call(run, "--dry-run")
    assert json.loads(call(run, "--dry-run", "--json")) == {
        "run": str(run),
        "points": {"t/x": 1},
        "dry_run": True,
    }
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_is_no_run_is_not_made_one(out: Path) -> None:
    out.mkdir(exist_ok=True)
    with pytest.raises(RunNotFoundError, match="is no run"):
        redraw(out / "nope")
    with pytest.raises(RunNotFoundError, match="is no run"):
        redraw(out)
    assert list(out.iterdir()) == []
