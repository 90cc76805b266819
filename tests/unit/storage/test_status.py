"""How a run is: with real processes, that end by themselves, by an error, or are killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.errors import FormatVersionError
from cox.storage import claims, layout
from cox.storage.status import status_of
from tests.caching import make
from tests.conftest import Program

GOLDEN = Path(__file__).parents[2] / "compat" / "golden" / "stores"


def status(folder: Path, name: str) -> Any:
    return status_of(layout.RunLayout(folder / name))


def say(run: Path, **what: Any) -> None:
    """Change what the run says of itself, and its session."""
    path = run / ".cox" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | what))
    path = run / ".cox" / "sessions-main.json"
    said = json.loads(path.read_text())
    said["sessions"][-1] |= what
    path.write_text(json.dumps(said))


def say_of_format_1(run: Path, **what: Any) -> None:
    path = run / ".cox" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | what))


WRITER = """
    import sys
    import cox

    ranks = [int(rank) for rank in sys.argv[3:]] or [None]
    stores = [cox.Store(sys.argv[1], sys.argv[2], rank=rank) for rank in ranks]
    for store in stores:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    print("written")
    for line in sys.stdin:
        what = line.strip()
        if what == "close one":
            stores.pop().close()
            print("closed")
        if what == "fail":
            with stores.pop():
                raise ValueError("diverged")
        if what == "end":
            for store in stores:
                store.close()
            break
"""


def test_running_then_finished(out: Path, start: Callable[..., Program]) -> None:
    before = time.time()
    program = start(WRITER, out, "run")
    program.line()
    found = status(out, "run")
    assert (found.state, found.pid, found.host, found.error) == (
        "running",
        program.pid,
        socket.gethostname(),
        None,
    )
    assert before <= found.started <= time.time()
    assert 0 <= found.duration <= time.time() - found.started
    program.tell("end")
    program.finish()
    found = status(out, "run")
    assert found.state == "finished"
    assert found.duration < time.time() - before
    again = status(out, "run")
    assert again == found, "and no longer with every moment"


def test_killed_is_crashed_at_its_last_sign_of_life(out: Path, start: Callable[..., Program]) -> None:
    program = start(WRITER, out, "run")
    program.line()
    (journal,) = (out / "run" / ".cox" / "journal").glob("*.log")
    program.kill()
    found = status(out, "run")
    assert (found.state, found.error) == ("crashed", None)
    assert found.duration == pytest.approx(max(0.0, journal.stat().st_mtime - found.started), abs=0.05)
    with cox.Store(out, "run") as store:
        store["t"].append_row({"x": 2})
    assert status(out, "run").state == "finished", "somebody went on with it, to its end"
    assert status(out, "run").started == found.started


def test_an_error_is_failed_and_says_of_what(out: Path, start: Callable[..., Program]) -> None:
    program = start(WRITER, out, "run")
    program.line()
    program.tell("fail")
    program.finish(status=1)
    found = status(out, "run")
    assert found.state == "failed"
    assert "diverged" in found.error
    with cox.Store(out, "run"):
        assert status(out, "run").state == "running"
        assert status(out, "run").error is None
    assert status(out, "run").error == found.error, "nothing was written"
    with cox.Store(out, "run") as store:
        store["t"].append_row({"x": 2})
    assert (status(out, "run").state, status(out, "run").error) == ("finished", None)


def test_it_runs_while_any_rank_does(out: Path, start: Callable[..., Program]) -> None:
    program = start(WRITER, out, "run", 0, 1)
    program.line()
    assert status(out, "run").state == "running"
    program.tell("close one")
    program.line()
    assert status(out, "run").state == "running"
    program.tell("end")
    program.finish()
    assert status(out, "run").state == "finished"


def test_ranks_that_are_killed_are_crashed(out: Path, start: Callable[..., Program]) -> None:
    program = start(WRITER, out, "run", 0, 1)
    program.line()
    program.kill()
    assert status(out, "run").state == "crashed"


def test_upstreams_say_nothing(out: Path) -> None:
    shutil.copytree(next(GOLDEN.glob("*/continued")), out / "run")
    found = status(out, "run")
    assert (found.state, found.started, found.duration, found.host, found.pid) == ("unknown", *[None] * 4)


def test_a_claim_of_another_host_is_believed_while_it_is_touched(out: Path) -> None:
    run = make(out, "run")
    say(run, how="running")
    claim = run / ".cox" / "claims" / "main.json"
    claim.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 1}))
    assert status(out, "run").state == "running"
    long_ago = time.time() - claims.STALE_AFTER - 60
    os.utime(claim, (long_ago, long_ago))
    assert status(out, "run").state == "crashed"


def test_a_claim_that_was_given_up_or_of_a_dead_process_is_none(out: Path) -> None:
    run = make(out, "run")
    directory = run / ".cox" / "claims"
    (directory / "rank-0.json").write_text("")
    (directory / "rank-1.json").write_text(
        json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "started": 1})
    )
    (directory / "notes.txt").write_text("x")
    assert status(out, "run").state == "finished"


def test_claims_where_the_clock_cannot_be_asked(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another user, on another host."""
    run = make(out, "run")
    claim = run / ".cox" / "claims" / "main.json"
    claim.write_text("{}")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "no")

    monkeypatch.setattr(claims, "is_held", refuse)
    assert status(out, "run").state == "running"
    os.utime(claim, (1, 1))
    assert status(out, "run").state == "finished"


def test_rows_that_were_given_up_are_counted(out: Path) -> None:
    run = make(out, "run")
    assert status(out, "run").not_stored == 0
    say(run, not_stored=7)
    assert status(out, "run").not_stored == 7


@pytest.mark.parametrize(
    "value",
    [1e300, -1.0, 10**400, float("inf"), float("nan"), True, "now", None, [], 1.7e12],
    ids=["1e300", "negative", "digits", "inf", "nan", "true", "text", "null", "list", "milliseconds"],
)
def test_a_run_file_that_says_nonsense(out: Path, value: Any) -> None:
    """It is for people, and people may change it; the other runs are shown all the same."""
    run = make(out, "run")
    make(out, "other")
    say(run, created=value, started=value, ended=value, not_stored=value, host=value, pid=value, error=value)
    found = status(out, "run")
    assert found.state == "finished"
    assert found.started is None
    assert found.duration is None
    assert found.not_stored == 0
    frame = cox.CollectionReader(out).runs()
    assert frame["state"].tolist() == ["finished"] * 2
    assert frame["started"].isna().tolist() == [False, True]
    say(run, created=0, started=0)
    assert cox.CollectionReader(out).runs()["duration"].notna().all()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '"x"', "[" * 100_000], ids=["empty", "list", "torn", "text", "deep"]
)
def test_a_run_file_that_is_none(out: Path, content: str) -> None:
    run = make(out, "run")
    for name in ("run.json", "sessions-main.json"):
        (run / ".cox" / name).write_text(content)
    assert status(out, "run").state == "unknown"


def test_a_newer_format_is_refused(out: Path) -> None:
    run = make(out, "run")
    say(run, format=99)
    with pytest.raises(FormatVersionError, match="format 99"):
        status(out, "run")


def test_a_state_of_some_other_program(out: Path) -> None:
    run = make(out, "run")
    (run / ".cox" / "sessions-main.json").unlink()
    say_of_format_1(run, state="sleeping")
    assert status(out, "run").state == "unknown"
