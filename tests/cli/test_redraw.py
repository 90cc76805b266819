"""`cox repair --tensorboard`: points that are gone are made again out of the table."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cox.cli import main
from cox.errors import PendingRowWarning, RunNotFoundError
from cox.integrity.redraw import redraw
from cox.storage import fs
from cox.store import Store
from cox.tensorboard import summaries, tfrecords
from tests.viewer import Viewer


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


def in_order(run: Path, tag: str) -> list[tuple[int, float]]:
    """The points of a curve as they stand in the files, one behind the other."""
    found = []
    for path in sorted((run / "tensorboard").rglob("*tfevents*")):
        data = path.read_bytes()
        for start, stop in tfrecords.scan(data).good:
            event = summaries.read(tfrecords.content(data, start, stop))
            found += [(event.step, value) for own, value in event.scalars if own == tag]
    return found


def three_sessions(out: Path) -> None:
    """A run of three event files, with four rows in each."""
    for session in range(3):
        with Store(out, "run") as store:
            store.add_table("t", {"x": float})
            for row in range(4 * session, 4 * session + 4):
                store.log_table_and_tb("t", {"x": row})
                store["t"].flush_row()


def test_a_gap_is_not_filled_from_behind(out: Path) -> None:
    # TensorBoard's fast loader would forget what came from there on
    for session in range(3):
        with Store(out, "run") as store:
            store.add_table("t", {"x": float, "y": float | None})
            for row in range(4 * session, 4 * session + 4):
                store.log_table_and_tb("t", {"x": row, "y": row if row % 2 else None})
                store["t"].flush_row()
                store.writer.add_scalar("own", row, row)
    run = out / "run"
    whole = {tag: in_order(run, tag) for tag in ("t/x", "t/y", "own")}
    gone = sorted((run / "tensorboard").iterdir())[1]
    gone.unlink()
    kept = in_order(run, "own")
    assert "6 points missing\n  t/x: 4\n  t/y: 2\n" in call(run)
    assert in_order(run, "t/x") == whole["t/x"]
    assert in_order(run, "t/y") == whole["t/y"]
    assert in_order(run, "own") == kept
    assert "no points missing" in call(run)
    originals = sorted(run.glob(".cox/damaged-*/tensorboard/*"))
    assert len(originals) == 1, "what was taken out of a file is still there"


@pytest.mark.parametrize("call_number", range(1, 12))
def test_a_redrawing_that_is_cut_off_is_finished_by_the_next(
    out: Path, monkeypatch: pytest.MonkeyPatch, call_number: int
) -> None:
    three_sessions(out)
    run = out / "run"
    whole = in_order(run, "t/x")
    sorted((run / "tensorboard").iterdir())[1].unlink()
    calls = count(1)

    def stops(really: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == call_number:
                raise KeyboardInterrupt
            return really(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("write_new", "sync_file", "link", "sync_directory", "rename"):
            patch.setattr(f"cox.storage.fs.{name}", stops(getattr(fs, name)))
        with contextlib.suppress(KeyboardInterrupt):
            redraw(run)
    there = dict(in_order(run, "t/x"))
    assert {step: value for step, value in whole if step < 4 or step > 7}.items() <= there.items()
    redraw(run)
    assert in_order(run, "t/x") == whole
    assert redraw(run) == {}
    assert not list((run / "tensorboard").glob(".tmp-*"))


@pytest.mark.parametrize(
    "values",
    [[(step, 10.0 - step) for step in range(1, 9)], [(step, 100.0 + step) for step in range(0, 9, 4)]],
    ids=["from 1 on", "every fourth"],
)
def test_a_curve_with_other_values_than_the_rows_is_left_alone(
    out: Path, values: list[tuple[int, float]]
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float})
        for row in range(9):
            table.append_row({"x": float(row)})
        for step, value in values:
            store.writer.add_scalar("t/x", value, step)
    assert redraw(out / "run") == {}
    assert in_order(out / "run", "t/x") == values


def test_times_of_points_that_were_there_stay(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float, "y": float})
        for row in range(4):
            table.append_row({"x": float(row), "y": float(row)})
        for row in (0, 1, 3):
            store.writer.add_scalar("t/x", float(row), row, walltime=1e9 + row)
        for row in range(3):
            store.writer.add_scalar("t/y", float(row), row, walltime=1e9 + row)
    assert redraw(out / "run") == {"t/x": 1, "t/y": 1}
    found = EventAccumulator(os.fspath(out / "run" / "tensorboard")).Reload()
    assert [point.wall_time - 1e9 for point in found.Scalars("t/x")] == [0, 1, 1, 3]
    assert [point.wall_time - 1e9 for point in found.Scalars("t/y")] == [0, 1, 2, 2]


def test_files_of_a_clock_that_was_ahead_come_first_all_the_same(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float})
        for row in range(4):
            store.log_table_and_tb("t", {"x": row})
            table.flush_row()
    (path,) = (out / "run" / "tensorboard").iterdir()
    os.truncate(path, path.stat().st_size - 1)
    path.rename(path.with_name("events.out.tfevents.9999999999.0.ahead"))
    redraw(out / "run")
    assert in_order(out / "run", "t/x") == [(row, float(row)) for row in range(4)]


def test_a_record_that_is_no_event_is_skipped(run: Path) -> None:
    last = max((run / "tensorboard").iterdir())
    os.truncate(last, last.stat().st_size - 1)
    with last.open("r+b") as file:
        whole = tfrecords.scan(file.read()).good[-1][1]
        file.truncate(whole)
        file.seek(whole)
        file.write(tfrecords.record(b"\xff\xff no protobuf"))
    assert redraw(run) == {"t/x": 1}
    assert in_order(run, "t/x")[-1] == (3, 9.0)
    with Store(run.parent, "run") as store:
        store.rewind("t", 1)


def test_a_sole_writers_rows_and_those_of_rank_0_are_one_curve(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": float})
        for row in range(3):
            store.log_table_and_tb("t", {"x": row})
            store["t"].flush_row()
    with Store(out, "run", rank=0) as store:
        for row in range(3, 5):
            store["t"].append_row({"x": float(row)})
    for path in (out / "run" / "tensorboard").iterdir():
        path.unlink()
    assert redraw(out / "run") == {"t/x": 5}
    assert in_order(out / "run", "t/x") == [(row, float(row)) for row in range(5)]


def test_a_run_with_pictures_only_is_not_drawn_from_nothing(out: Path) -> None:
    with Store(out, "run") as store:
        store.writer.add_histogram("h", [1.0, 2.0], 0)
        store.add_table("t", {"x": float}).append_row({"x": 1.0})
    assert redraw(out / "run") == {}


def test_the_fast_loader_shows_a_curve_with_a_gap_whole_again(out: Path, tmp_path: Path) -> None:
    three_sessions(out)
    sorted((out / "run" / "tensorboard").iterdir())[1].unlink()
    call(out / "run")
    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
    with Viewer(tmp_path, "--logdir", out, "--port", "0") as view:
        assert view.scalars("run", "t/x", 12) == [(row, float(row)) for row in range(12)]


def test_a_column_rank_of_the_users_counts_no_ranks(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": float, "rank": int})
        for row in range(4):
            store.log_table_and_tb("t", {"x": row, "rank": 7 - row})
            store["t"].flush_row()
    for path in (out / "run" / "tensorboard").iterdir():
        path.unlink()
    call(out / "run")
    assert curve(out / "run", "t/x") == [(row, float(row)) for row in range(4)]
    assert curve(out / "run", "t/rank") == [(row, 7.0 - row) for row in range(4)]


def test_a_point_of_a_row_that_was_never_flushed_makes_no_stranger_of_a_curve(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": float})
        for row in range(3):
            store.log_table_and_tb("t", {"x": row})
            store["t"].flush_row()
    with pytest.warns(PendingRowWarning), Store(out, "run") as store:
        store.log_table_and_tb("t", {"x": 3.0})
    min((out / "run" / "tensorboard").iterdir()).unlink()
    assert "3 points missing" in call(out / "run")
    assert in_order(out / "run", "t/x") == [(row, float(row)) for row in range(4)]


def test_without_any_point_the_parameters_are_sent_too(run: Path) -> None:
    for path in (run / "tensorboard").iterdir():
        path.unlink()
    call(run)
    found = EventAccumulator(os.fspath(run / "tensorboard")).Reload().PluginTagToContent("hparams")
    assert b"lr" in found["_hparams_/session_start_info"]


def test_each_rank_gets_its_own_points_back(out: Path) -> None:
    for rank in (0, 1):
        with Store(out, "run", rank=rank) as store:
            store.add_table("t", {"x": float})
            for row in range(3):
                store.log_table_and_tb("t", {"x": 10.0 * rank + row})
                store["t"].flush_row()
    whole = in_order(out / "run", "t/x")
    for path in (out / "run" / "tensorboard").rglob("*tfevents*"):
        os.truncate(path, path.stat().st_size - 1)
    assert "2 points missing" in call(out / "run")
    assert sorted(in_order(out / "run", "t/x")) == sorted(whole)
    assert "no points missing" in call(out / "run")


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
