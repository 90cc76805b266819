"""What a run says of the processes that wrote it: looking leaves no trace, and no session is lost."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.cli import main
from cox.storage import layout, sessions
from cox.storage.sessions import History, Session
from cox.storage.status import Status, status_of
from tests.conftest import Program

FORMAT_1 = Path(__file__).parents[1] / "compat" / "golden" / "own" / "v1"

TRAIN = """
    import os, sys
    from cox.store import Store

    folder, rank, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Store(folder, "run", rank=None if rank < 0 else rank) as store:
        table = store.add_table("t", {"x": int})
        if "silent" not in how:
            table.append_row({"x": 1})
        print("up")
        if "waits" in how:
            sys.stdin.readline()
        if "raises" in how:
            raise RuntimeError(f"error of rank {rank}")
        if "dies" in how:
            os.kill(os.getpid(), 9)
"""


def status(folder: Path) -> Status:
    return status_of(layout.RunLayout(folder / "run"))


@pytest.fixture
def train(out: Path, start: Callable[..., Program]) -> Callable[..., Program]:
    """Train a run in a process of its own, to its end unless it waits."""

    def run(how: str = "ends", *, rank: int = -1) -> Program:
        program = start(TRAIN, out, rank, how)
        program.line()
        if "waits" not in how:
            program.rest()
        return program

    return run


def told(folder: Path) -> tuple[Any, ...]:
    """All that a run says of itself."""
    found = status(folder)
    said = json.loads((folder / "run" / ".cox" / "run.json").read_text())
    return found, said


# --- Looking


@pytest.mark.parametrize("how", ["ends", "raises", "dies"])
def test_who_opens_a_run_and_only_reads_changes_nothing_of_what_it_says(
    out: Path, train: Callable[..., Program], how: str
) -> None:
    train(how)
    before = told(out)
    for _ in range(2):
        with cox.Store(out, "run") as store:
            store.add_table("t", {"x": int})
            assert len(store["t"].df) == 1
            assert status(out).state == "running", "while it is open for writing"
            assert status(out).pid == os.getpid()
    assert told(out) == before


@pytest.mark.parametrize("how", ["finished", "failed", "running"])
def test_who_looks_at_a_run_of_format_1(out: Path, how: str) -> None:
    run = out / "run"
    shutil.copytree(FORMAT_1 / "killed", run)
    path = run / ".cox" / "run.json"
    said = {"format": 1, "state": how, "created": 1e9, "started": 1e9 + 5, "command": ["train.py"]}
    said |= {} if how == "running" else {"ended": 1e9 + 60}
    path.write_text(json.dumps(said | ({"error": "nan"} if how == "failed" else {})))
    for file in run.rglob("*"):
        os.utime(file, (1e9 + 60, 1e9 + 60))
    state = "crashed" if how == "running" else how
    for _ in range(2):
        assert (status(out).state, status(out).duration, status(out).started) == (state, 60, 1e9)
        cox.Store(out, "run").close()
    with cox.Store(out, "run") as store:
        store.add_table("new", {"x": int}).append_row({"x": 1})
    assert [one.how for one in status(out).history.sessions] == [state, "finished"]
    assert status(out).started == 1e9
    assert status(out).duration == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store["t"].append_row({"x": 2}),
        lambda store: store.rewind("t", nrows=0),
        lambda store: store["t"].add_column("y", int),
        lambda store: store.tensorboard.add_scalar("a", 1.0, 0),
        lambda store: store.add_table("u", {"x": int}).append_row({"x": 2}),
    ],
    ids=["row", "rewind", "column", "point", "table"],
)
def test_the_first_thing_that_is_written_begins_a_session(
    out: Path, train: Callable[..., Program], write: Callable[[cox.Store], object]
) -> None:
    train("raises")
    with cox.Store(out, "run") as store:
        write(store)
        write_said = json.loads((out / "run" / ".cox" / "run.json").read_text())
        assert (write_said["state"], write_said["pid"]) == ("running", os.getpid())
    assert [one.how for one in status(out).history.sessions] == ["failed", "finished"]
    assert status(out).error is None


def test_mode_w_is_a_session(out: Path, train: Callable[..., Program]) -> None:
    train("raises")
    cox.Store(out, "run", mode="w").close()
    assert status(out).state == "finished"


def test_a_new_run_runs_from_its_making(out: Path, train: Callable[..., Program]) -> None:
    program = train("silent waits dies")
    assert status(out).state == "running"
    assert json.loads((out / "run" / ".cox" / "run.json").read_text())["state"] == "running"
    program.tell()
    program.rest()
    assert status(out).state == "crashed"


def test_a_resumed_training_runs_before_its_first_row(out: Path, train: Callable[..., Program]) -> None:
    train("raises")
    program = train("silent waits")
    found = status(out)
    assert (found.state, found.pid, found.error) == ("running", program.pid, None)
    program.tell()
    program.rest()
    assert status(out).state == "failed", "nothing was written"


# --- Sessions


def test_sessions_are_kept_with_how_each_ended(
    out: Path, train: Callable[..., Program], capsys: pytest.CaptureFixture[str]
) -> None:
    before = time.time()
    for how in ("dies", "raises", "ends"):
        train(how)
    found = status(out)
    assert [one.how for one in found.history.sessions] == ["crashed", "failed", "finished"]
    assert [one.error for one in found.history.sessions] == [None, "RuntimeError: error of rank -1", None]
    for one in found.history.sessions:
        assert one.started is not None
        assert one.ended is not None
        assert before <= one.started <= one.ended <= time.time()
        assert one.command[1:] == (
            str(out),
            "-1",
            {"crashed": "dies", "failed": "raises"}.get(one.how, "ends"),
        )
    lengths = [one.ended - one.started for one in found.history.sessions]  # type: ignore[operator]
    assert found.duration == pytest.approx(sum(lengths))
    assert found.duration < time.time() - before
    with pytest.raises(SystemExit) as end:
        main(["show", str(out / "run")])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "3 sessions" in printed
    assert [printed.count(how) for how in ("crashed", "failed")] == [1, 1]
    with pytest.raises(SystemExit):
        main(["show", str(out / "run"), "--json"])
    (first, *_) = json.loads(capsys.readouterr().out)["sessions"]
    assert (first["how"], first["rank"]) == ("crashed", None)
    frame = cox.CollectionReader(out).runs()
    assert frame.loc["run", "duration"].total_seconds() == pytest.approx(found.duration, abs=1e-3)


def test_the_list_of_sessions_is_bounded(out: Path) -> None:
    with cox.Store(out, "run") as store:
        store.add_table("t", {"x": int})
    run = layout.RunLayout(out / "run")
    run_id = json.loads(run.run_file.read_text())["id"]
    for _ in range(2 * sessions.KEPT + 20):
        recorder = sessions.Recorder(run, "main", run_id)
        recorder.begin()
        recorder.end(None, not_stored=0)
    history = sessions.read(run)
    assert history.count == 2 * sessions.KEPT + 21
    assert len(history.sessions) == 2 * sessions.KEPT
    assert history.seconds > 0


# --- Ranks


def test_the_state_of_a_run_is_that_of_all_its_ranks(out: Path, train: Callable[..., Program]) -> None:
    others = [train("waits", rank=0), train("waits raises", rank=2)]
    train("raises", rank=1)
    assert status(out).state == "running"
    for program in others[::-1]:
        program.tell()
        program.rest()
    found = status(out)
    assert (found.state, found.error) == ("failed", "RuntimeError: error of rank 1"), "the first in time"
    said = json.loads((out / "run" / ".cox" / "run.json").read_text())
    assert (said["state"], said["error"]) == ("failed", "RuntimeError: error of rank 1")
    assert {one.writer: one.error is not None for one in found.history.sessions} == {
        "rank-0": False,
        "rank-1": True,
        "rank-2": True,
    }


def test_a_rank_that_was_killed_is_not_hidden_by_one_that_ended_well(
    out: Path, train: Callable[..., Program]
) -> None:
    other = train("waits", rank=0)
    train("dies", rank=1)
    other.tell()
    other.rest()
    assert status(out).state == "crashed"
    assert json.loads((out / "run" / ".cox" / "run.json").read_text())["state"] == "crashed"
    for rank in (0, 1):
        train("ends", rank=rank)
    assert status(out).state == "finished", "both went on with it"


def test_a_rank_that_fails_before_its_first_row_has_failed(out: Path, train: Callable[..., Program]) -> None:
    for _ in range(2):
        other = train("waits", rank=0)
        train("silent raises", rank=1)
        other.tell()
        other.rest()
        assert status(out).state == "failed"


def test_ranks_that_are_gone_for_good_do_not_count(out: Path, train: Callable[..., Program]) -> None:
    others = [train("waits dies", rank=rank) for rank in range(3)]
    for program in others:
        program.tell()
        program.rest()
    assert status(out).state == "crashed"
    train("ends", rank=0)
    assert status(out).state == "finished"
    train("raises")
    assert (status(out).state, status(out).history.count) == ("failed", 5)


def test_ranks_that_end_at_once_lose_nothing(out: Path, train: Callable[..., Program]) -> None:
    programs = [train("waits raises" if rank == 3 else "waits", rank=rank) for rank in range(6)]
    for program in programs:
        program.tell()
    for program in programs:
        program.rest()
    found = status(out)
    assert (found.state, found.history.count) == ("failed", 6)
    said = json.loads((out / "run" / ".cox" / "run.json").read_text())
    assert (said["state"], said["error"]) == ("failed", "RuntimeError: error of rank 3")


def test_who_tells_last_has_seen_all_sessions(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank begins while another one writes down what all of them say."""
    run = layout.RunLayout(out / "run")
    first = cox.Store(out, "run", rank=0)
    plain = sessions.runinfo.write
    others: list[cox.Store] = []

    def write(*args: Any) -> None:
        if not others:
            others.append(cox.Store(out, "run", rank=1))
            others[0].add_table("t", {"x": int}).append_row({"x": 1})  # which tells it first
        plain(*args)

    first.fail("first")
    monkeypatch.setattr(sessions.runinfo, "write", write)
    first.close()
    assert json.loads(run.run_file.read_text())["state"] == "running"
    others[0].close()
    assert json.loads(run.run_file.read_text())["state"] == "failed"


def of(writer: str, started: float, ended: float | None, how: str = "finished") -> Session:
    return Session(writer, started, ended, how, error=how if how == "failed" else None)


@pytest.mark.parametrize(
    ("one_after_the_other", "outcome"),
    [
        ([], None),
        ([of("main", 0, 9, "failed"), of("main", 10, 20)], "finished"),
        ([of("rank-1", 0, 1, "failed"), of("rank-0", 2, 9)], "failed"),
        ([of("rank-0", 0, 9, "failed"), of("rank-1", 1, 9), of("rank-1", 10, 20)], "finished"),
        ([of("rank-0", 0, 9, "crashed"), of("main", 10, 20)], "finished"),
        ([of("main", 0, 9, "crashed"), of("rank-0", 10, 20), of("rank-1", 11, 12)], "finished"),
        ([of("rank-0", 0, 9, "crashed"), of("rank-1", 5, 12, "failed")], "failed"),
        ([of("rank-0", 0, 9, "crashed"), of("rank-1", 5, None, "running")], "running"),
    ],
)
def test_which_sessions_make_up_the_last_attempt(
    one_after_the_other: list[Session], outcome: str | None
) -> None:
    assert History(tuple(one_after_the_other)).outcome()[0] == outcome


def test_time_in_which_several_ranks_lived_counts_once() -> None:
    history = History((of("rank-0", 0, 10), of("rank-1", 5, 12), of("rank-0", 20, 21)), seconds=100)
    assert history.lasting(99) == 113
    assert History((of("main", 7, None, "running"),)).lasting(9) == 2
    assert History(()).lasting(9) is None
