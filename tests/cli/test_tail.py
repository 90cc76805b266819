"""`cox tail`, as typed; following runs that other processes write."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from tests.cli.conftest import Call
from tests.viewer import no_signal_ignored

COX = """
    import cox.cli.commands.tail
    from cox.cli import main
    cox.cli.commands.tail.PAUSE = 0.01
    main()
"""
#: Does what it is told, line by line.
WRITER = """
    import sys, cox
    store = cox.Store(sys.argv[1], "r")
    print("ready")
    old = None
    for line in sys.stdin:
        exec(line)
        print("done")
    for one in (store, old):
        if one is not None:
            one.close()
"""
Start = Callable[..., Any]


@pytest.fixture
def writer(start: Start, out: Path) -> Callable[[str], None]:
    program = start(WRITER, out)
    assert program.line() == "ready"

    def tell(line: str) -> None:
        program.tell(line)
        assert program.line() == "done"

    tell.program = program  # type: ignore[attr-defined]
    return tell


def test_the_last_rows(sweep: Path, call: Call) -> None:
    done = call("tail", sweep / "a0", "-n", 2, "--columns", "step,loss")
    assert done.stdout == f"step,loss\n3,{1 / 1.3}\n4,{1 / 1.4}\n"
    assert json.loads(call("tail", sweep / "a0", "results", "--json", "-n", 1).stdout)[0]["step"] == 4
    assert call("tail", sweep / "a0", "metadata").stdout == "lr,seed,arch,size\n0.1,0,resnet,32\n"


def test_what_is_not_there(sweep: Path, call: Call) -> None:
    assert "did you mean 'results'?" in call("tail", sweep / "a0", "result", status=1).stderr
    assert "did you mean 'loss'?" in call("tail", sweep / "a0", "--columns", "los", status=1).stderr
    cox.Store(sweep, "empty").close()
    assert "has no table; -f waits for one" in call("tail", sweep / "empty", status=1).stderr
    with cox.Store(sweep, "two") as store:
        for name in ("x", "y"):
            store.add_table(name, {"n": int}).append_row({"n": 1})
    assert "has the tables 'x', 'y': name one" in call("tail", sweep / "two", status=2).stderr


def test_following_a_run_that_has_ended(sweep: Path, call: Call) -> None:
    done = call("tail", sweep / "a0", "-f", "-n", 1, "--columns", "step")
    assert (done.stdout, done.stderr) == ("step\n4\n", "run a0 finished\n")
    with pytest.raises(ValueError, match="bad"), cox.Store(sweep, "c") as store:
        store.add_table("t", {"n": int}).append_row({"n": 1})
        raise ValueError("bad")
    done = call("tail", sweep / "c", "-f", status=1)
    assert (done.stdout, done.stderr) == ("n\n1\n", "run c failed: ValueError: bad\n")


def test_following_from_before_the_first_row_to_the_end(start: Start, out: Path, writer: Any) -> None:
    follower = start(COX, "tail", out / "r", "-f")
    writer("t = store.add_table('t', {'step': int, 'loss': float})")
    writer("t.append_row({'step': 0, 'loss': 1.0})")
    assert [follower.line(), follower.line()] == ["step,loss", "0,1.0"]
    writer("t.append_row({'step': 1, 'loss': 0.5})")
    assert follower.line() == "1,0.5"
    writer("t.add_column('acc', float); t.append_row({'step': 2, 'loss': 0.4, 'acc': 0.9})")
    assert [follower.line(), follower.line()] == ["step,loss,acc", "2,0.4,0.9"]
    writer.program.finish()
    assert follower.finish() == []
    assert follower.errors.splitlines()[-1] == "run r finished"


def test_following_through_rewinds(start: Start, out: Path, writer: Any) -> None:
    writer("t = store.add_table('t', {'step': int, 'x': float}); nan = float('nan')")
    writer("[t.append_row({'step': n, 'x': nan}) for n in range(4)]")
    follower = start(COX, "tail", out / "r", "-f", "--columns", "step")
    assert [follower.line() for _ in range(5)] == ["step", "0", "1", "2", "3"]
    writer("store.rewind('t', nrows=2)")
    writer("t.append_row({'step': 20, 'x': nan})")
    assert follower.line() == "20"
    # dropped and written again between two looks: there are more rows than before, and others
    writer("store.rewind('t', nrows=1); [t.append_row({'step': 100 + n, 'x': nan}) for n in range(5)]")
    assert [follower.line() for _ in range(5)] == ["100", "101", "102", "103", "104"]
    writer.program.finish()
    follower.finish()
    told = [line for line in follower.errors.splitlines() if line.startswith("rewound")]
    assert told == ["rewound to row 2", "rewound to row 1"]


def test_following_a_run_that_is_begun_anew(start: Start, out: Path, writer: Any) -> None:
    writer("t = store.add_table('t', {'step': int}); t.append_row({'step': 7})")
    follower = start(COX, "tail", out / "r", "t", "-f")
    assert [follower.line(), follower.line()] == ["step", "7"]
    writer("old = store; store = cox.Store(sys.argv[1], 'r', mode='w')")
    writer("t = store.add_table('t', {'step': int}); t.append_row({'step': 8})")
    assert follower.line() == "8"
    writer.program.finish()
    assert follower.finish() == []
    assert follower.errors == "rewound to row 0\nrun r finished\n"


def test_following_a_run_whose_process_is_killed(start: Start, out: Path, writer: Any) -> None:
    writer("t = store.add_table('t', {'step': int})")
    writer("t.append_row({'step': 0})")
    follower = start(COX, "tail", out / "r", "-f", "--json")
    assert json.loads(follower.line()) == {"step": 0}
    writer.program.kill()
    assert follower.finish(status=1) == []
    assert follower.errors == "run r crashed\n"


def test_following_a_run_of_which_nobody_says_how_it_is(sweep: Path, call: Call) -> None:
    for path in (sweep / "a0" / ".cox").glob("*.json"):  # run.json, and its sessions
        path.unlink()
    done = call("tail", sweep / "a0", "-f", "-n", 1, "--columns", "step")
    assert (done.stdout, done.stderr) == ("step\n4\n", "nobody says whether run a0 goes on\n")


def test_interrupting_is_quiet(start: Start, out: Path, writer: Any) -> None:
    writer("t = store.add_table('t', {'step': int})")
    writer("t.append_row({'step': 0})")
    with no_signal_ignored():
        follower = start(COX, "tail", out / "r", "-f")
    assert [follower.line(), follower.line()] == ["step", "0"]
    follower.process.send_signal(signal.SIGINT)
    assert follower.finish(status=130) == []
    assert follower.errors == ""


def test_rows_of_several_writers_are_no_rewinds(start: Start, out: Path) -> None:
    with cox.Store(out, "r", rank=0) as zero, cox.Store(out, "r", rank=1) as one:
        for store in (zero, one):
            store.add_table("t", {"x": int})
        zero["t"].append_row({"x": 1})
        one["t"].append_row({"x": 10})
        with no_signal_ignored():
            follower = start(COX, "tail", out / "r", "t", "-f")
        assert [follower.line() for _ in range(3)] == ["x,rank", "1,0", "10,1"]
        zero["t"].append_row({"x": 2})
        assert follower.line() == "2,0"
        one["t"].append_row({"x": 11})
        assert follower.line() == "11,1"
        follower.process.send_signal(signal.SIGINT)
        assert follower.finish(status=130) == []
        assert follower.errors == ""


def test_a_screen_has_aligned_columns(sweep: Path, call: Call, screen: Any) -> None:
    done = call("tail", sweep / "a0", "-f", "-n", 2)
    assert done.stdout.splitlines() == [
        "    step      loss       acc",
        "       3  0.769231  0.615385",
        "       4  0.714286  0.642857",
    ]
