"""`cox-tensorboard` beside a job: it waits for runs, shows those without metadata, and ends when killed."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cox import tensorboard_view
from cox.errors import CollectionWarning, ViewError
from cox.store import Store
from cox.tensorboard.view.from_tables import TableEvents
from cox.tensorboard.view.selection import Selection
from cox.tensorboard_view import links, logdir
from tests.viewer import Viewer

RELOAD = ("--port", "0", "--", "--reload_interval", "1")


def log_points(out: Path, exp_id: str, params: dict[str, Any] | None = None) -> None:
    with Store(out, exp_id) as store:
        if params is not None:
            store.add_table_like_example("metadata", params).append_row(params)
        store.add_table("t", {"x": float})
        store.log_table_and_tb("t", {"x": 1.0})
        store["t"].flush_row()


# --- Its process


def test_the_server_ends_when_cox_tensorboard_is_killed(out: Path, tmp_path: Path) -> None:
    log_points(out, "a", {"lr": 0.1})
    with Viewer(tmp_path, "--logdir", out, *RELOAD) as view:
        view.runs(1)
        assert view.server_processes()
        view.process.kill()
        view.end()
        deadline = time.monotonic() + 60
        while view.server_processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert view.server_processes() == []


@pytest.fixture
def few_files() -> Iterator[int]:
    """Have programs that are started here begin with a low limit of open files; gives the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads limits from /proc")
def test_the_server_may_open_as_many_files_as_the_system_allows(
    out: Path, tmp_path: Path, few_files: int
) -> None:
    log_points(out, "a", {"lr": 0.1})
    with Viewer(tmp_path, "--logdir", out, *RELOAD) as view:
        view.runs(1)
        pids = view.server_processes()
        assert len(pids) == 2  # tensorboard and its data server
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
            (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
            assert int(line.split()[3]) == few_files


# --- Runs that are still to come


@pytest.mark.parametrize("is_there", [True, False], ids=["an empty folder", "no folder"])
def test_it_waits_for_the_first_run(out: Path, tmp_path: Path, is_there: bool) -> None:
    folder = out if is_there else out / "later" / "runs"
    with Viewer(tmp_path, "--logdir", folder, *RELOAD) as view:
        view.url()
        assert f"Showing the runs of {folder} as they come: there are none to show yet" in view.said
        assert ("not there yet" in view.said) is not is_there
        log_points(folder, "first")
        assert view.runs(1) == ["first"]
        assert view.complained.count("Warning") == 0


def test_it_waits_for_the_first_metadata(out: Path) -> None:
    log_points(out, "early")
    selection = Selection(out, "lr-{lr}")
    with pytest.warns(CollectionWarning, match="for want of a row in the table 'metadata': early"):
        assert selection.first(wait=True) == []
    log_points(out, "late", {"lr": 0.1})
    assert [one.name for one in selection.refreshed()] == ["lr-0.1-late"]


def test_links_of_nothing_are_still_an_error(out: Path) -> None:
    for folder in (out, out / "missing"):
        with pytest.raises(ViewError, match=r"has no runs|no directory of runs"):
            links(folder)


def test_a_table_of_metadata_that_no_run_has_is_an_error_although_it_waits(out: Path) -> None:
    log_points(out, "a", {"lr": 0.1})
    with pytest.raises(ViewError, match="no run in .* has a row in a table 'setup'"):
        Selection(out, "x", metadata_table="setup").first(wait=True)


@pytest.mark.parametrize("name", ["file", "run"])
def test_a_file_and_a_run_are_not_waited_in(out: Path, name: str) -> None:
    log_points(out, "run")
    (out / "file").touch()
    with pytest.raises(ViewError, match=r"no directory of runs|give the folder it is in"):
        Selection(out / name).first(wait=True)


def test_a_notebook_gets_its_directory_before_the_first_run(out: Path) -> None:
    directory = Path(logdir(out / "later"))
    assert list(directory.iterdir()) == []
    log_points(out / "later", "first")
    assert logdir(out / "later") == str(directory)
    assert [path.name for path in directory.iterdir()] == ["first"]


def test_tables_that_a_run_may_still_get_are_waited_for(out: Path) -> None:
    with Store(out, "a") as store, TableEvents(["t"]) as drawn:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
        shown = Selection(out, needs_events=False).first(wait=True)
        drawn.targets(shown)
        with pytest.warns(CollectionWarning, match=r"no run has a table 't' yet; there are \['metadata'\]"):
            drawn.check(shown)
        drawn.check([])


# --- Runs without metadata


def test_runs_without_metadata_are_shown_under_their_names(out: Path) -> None:
    log_points(out, "bare")
    assert list(links(out)) == ["bare"]
    for lr in (0.1, 0.2):
        log_points(out, f"lr{lr}", {"lr": lr, "arch": "same"})
    assert list(links(out)) == ["bare", "lr=0.1-lr0.1", "lr=0.2-lr0.2"]


@pytest.mark.parametrize("asked", [{"format_str": "{lr}"}, {"filters": [("lr", "0")]}, {"where": "lr > 0"}])
def test_runs_without_a_parameter_that_is_asked_for_are_left_out(out: Path, asked: dict[str, Any]) -> None:
    log_points(out, "bare")
    log_points(out, "one", {"lr": 0.1})
    with pytest.warns(CollectionWarning, match="left out, for want of a row in the table 'metadata': bare"):
        assert len(links(out, **asked)) == 1


def test_a_run_without_metadata_has_its_tables_drawn(out: Path) -> None:
    log_points(out, "bare")
    with TableEvents(["t"]) as drawn:
        (folder,) = drawn.targets(Selection(out, needs_events=False).first(wait=True)).values()
        assert list(folder.iterdir())


# --- Rows of tables, drawn


def drawn_points(folder: Path, tag: str) -> list[tuple[float, int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(point.wall_time, point.step, point.value) for point in events.Scalars(tag)]


def test_rows_without_a_time_are_drawn_between_the_start_and_the_end_of_their_run(out: Path) -> None:
    before = time.time()
    store = Store(out, "run")
    table = store.add_table("t", {"x": float})
    for x in range(5):
        table.append_row({"x": x})
    with TableEvents(["t"]) as drawn:
        shown = Selection(out, needs_events=False).first()
        (folder,) = drawn.targets(shown).values()
        first = drawn_points(folder, "t/x")
        for x in range(5, 8):
            table.append_row({"x": x})
        store.close()
        drawn.targets(shown)
        points = drawn_points(folder, "t/x")
    assert points[:5] == first
    assert [value for _, _, value in points] == list(range(8))
    times = [when for when, _, _ in points]
    assert before <= times[0]
    assert times == sorted(times)
    ended = json.loads((out / "run/.cox/run.json").read_text())["ended"]
    assert times[-1] == pytest.approx(ended, abs=0.01)


def test_a_column_of_times_wins(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"time": float, "x": float})
        for x in range(3):
            table.append_row({"time": 1.6e9 + x, "x": x})
    with TableEvents(["t"]) as drawn:
        (folder,) = drawn.targets(Selection(out, needs_events=False).first()).values()
        assert [when for when, _, _ in drawn_points(folder, "t/x")] == [1.6e9, 1.6e9 + 1, 1.6e9 + 2]


@pytest.mark.parametrize(
    "lie", [{"created": "yesterday", "ended": None}, {"created": 1e300, "ended": -5}, []]
)
def test_times_that_a_run_tells_wrongly_are_those_of_its_files(out: Path, lie: Any) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": float}).append_row({"x": 1.0})
    path = out / "run/.cox/run.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | lie if isinstance(lie, dict) else lie))
    with TableEvents(["t"]) as drawn:
        (folder,) = drawn.targets(Selection(out, needs_events=False).first()).values()
        (point,) = drawn_points(folder, "t/x")
    assert point[0] == pytest.approx((out / "run/store.h5").stat().st_mtime, abs=0.01)


def test_a_bar_or_a_word_says_that_rows_are_drawn(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float})
        for x in range(2000):
            table.append_row({"x": x})
    monkeypatch.setattr("cox.progress._PATIENCE", 0.0)
    monkeypatch.setattr("cox.progress._somebody_looks", lambda: True)
    with TableEvents(["t"]) as drawn:
        drawn.targets(Selection(out, needs_events=False).first())
    assert "row/s" in capsys.readouterr().err
    monkeypatch.setattr(tensorboard_view, "serve", lambda *_, **__: 0)
    result = CliRunner().invoke(tensorboard_view.main, ["--logdir", str(out), "--from-tables", "t"])
    assert result.stdout.startswith("Drawing the rows of t\nShowing 1 runs of ")


# --- Runs deeper down


def test_runs_deeper_down_are_shown_when_asked_for(out: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        log_points(out / name, "same", {"lr": lr})
    with pytest.raises(ViewError, match="has no runs"):
        links(out)
    assert links(out, nested=True) == {
        f"lr={lr}-{name}_same": out / name / "same/tensorboard" for name, lr in (("a", 0.1), ("b", 0.2))
    }
    with TableEvents(["t"]) as drawn:
        folders = drawn.targets(Selection(out, needs_events=False, nested=True).first())
        assert len(set(folders.values())) == 2
