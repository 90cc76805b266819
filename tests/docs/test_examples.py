"""The example programs, as one would call them."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cox import CollectionReader, Store
from cox.errors import RunNotFoundError, TableNotFoundError
from cox.tensorboard_view import main
from tests.conftest import PATIENCE, ROOT
from tests.viewer import Viewer

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an example, with warnings as errors. It ends with its test."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: object) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", ROOT / "examples" / name, *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "200"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,  # so that what it starts can be ended with it
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)


def finish(process: subprocess.Popen[str], *, status: int = 0) -> str:
    """What it printed, once it has ended as it should: without a word on stderr."""
    printed, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == status, f"{printed}\n{errors}"
    if status == 0:
        assert errors == ""
        return printed
    return errors


def test_c28_example_logging(start: Start, out: Path) -> None:
    printed = finish(start("logging_example.py", out))
    with CollectionReader(out) as reader:
        results = reader.df("result").merge(reader.df("metadata"), on="exp_id")
    assert len(results) == 9
    assert len(set(zip(results["step_size"], results["tolerance"], results["initial_x"], strict=True))) == 9
    assert set(results["out_dir"]) == {str(out)}
    close = results[results["step_size"] == 0.01]
    assert close["final_x"].tolist() == pytest.approx([2.03] * 3)
    assert len(printed.splitlines()) == 10


def test_c28_example_tensorboard(start: Start, tmp_path: Path) -> None:
    printed = finish(start("tensorboard_example.py", "lines"))
    with CollectionReader(tmp_path / "lines") as reader:
        lines = reader.df("line_graphs").merge(reader.df("metadata"), on="exp_id")
    assert len(lines) == 500
    assert set(lines["slope"]) == set(range(5))
    assert (lines["mx^2"] * lines["slope"] == lines["mx"] ** 2).all()

    python, m, module, *arguments = shlex.split(printed.splitlines()[-1])
    assert (python, m, module) == ("python", "-m", "cox.tensorboard_view")
    slopes = lines.drop_duplicates("exp_id").set_index("exp_id")["slope"]
    expected = sorted(f"slope-{slope}-{exp_id}" for exp_id, slope in slopes.items() if 1 <= slope <= 3)
    with Viewer(tmp_path, *arguments, "--port", "0") as viewer:
        assert viewer.runs(3) == expected
        for name in expected:
            steps = [step for step, _ in viewer.scalars(name, "line_graphs/mx", 100)]
            assert steps == list(range(100))


def logged(out: Path, exp_id: str) -> int:
    """How many epochs a run has logged by now."""
    try:
        return Store(out, exp_id, mode="r")["epochs"].nrows
    except (RunNotFoundError, TableNotFoundError):
        return 0


@pytest.mark.slow
def test_c28_example_digits_goes_on_after_sigkill(start: Start, out: Path) -> None:
    """Killed and resumed, a run has logged what one in one piece has, to the last bit."""
    options = ["--out", out, "--lr", 0.1, "--width", 16, "--epochs", 60, "--seed", 3]
    killed, whole = (start("digits.py", *options, "--exp-id", name) for name in ("killed", "whole"))
    deadline = time.monotonic() + PATIENCE
    while logged(out, "killed") < 7:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.kill()
    assert killed.wait(PATIENCE) == -signal.SIGKILL
    before = Store(out, "killed", mode="r")["epochs"].df
    assert 7 <= len(before) < 60

    finish(whole)
    other = start("digits.py", *options, "--exp-id", "whole", "--width", 8)
    finish(start("digits.py", *options, "--exp-id", "killed"))
    assert "is a run with {'lr': 0.1, 'width': 16, 'seed': 3}, not {'lr': 0.1, 'width': 8" in finish(
        other, status=1
    )
    with CollectionReader(out) as reader:
        one, two = reader.stores["killed"], reader.stores["whole"]
        assert list(one["epochs"].df["epoch"]) == list(range(60))
        for table, ours in [("epochs", "seconds"), ("best", "weights"), ("result", None), ("metadata", None)]:
            same = [store[table].df.drop(columns=ours or []) for store in (one, two)]
            assert_frame_equal(*same, check_exact=True)
        first = one["sessions"].df["first_epoch"].tolist()
        # a checkpoint comes behind the row of its epoch, and the kill may have come between the two
        assert first in [[0, epochs // 5 * 5] for epochs in (len(before), len(before) - 1)]
        # the rows before the checkpoint are those of the killed process, the later ones are not
        assert_frame_equal(one["epochs"].df[: first[1]], before[: first[1]], check_exact=True)
        assert weights(one) == weights(two)
        assert points(one) == points(two)


def weights(store: Store) -> dict[str, list[float]]:
    state = store["best"].get_state_dict(store["best"].df["weights"].iloc[-1])
    return {name: tensor.tolist() for name, tensor in state.items()}


def points(store: Store) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    events = EventAccumulator(store.tb_dir)
    events.Reload()
    return {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_c28_example_demo(start: Start, out: Path) -> None:
    importlib.import_module("matplotlib.font_manager")  # where that takes long, it is told on stderr
    folder = out / "demo"
    # so many that it is caught half-way, also where this machine is slow to look
    options = ["--out", folder, "--lr", 0.03, "--width", 32, "--epochs", 200]
    printed = finish(start("demo.py", *options))
    assert "Killed lr-0.03-width-32" in printed
    assert "killed, resumed at " in printed
    assert "Every run has epochs 0 to 199, each of them once." in printed
    assert "exactly as logged" in printed
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert len(CollectionReader(folder).df("epochs")) == 200

    words = shlex.split(printed.splitlines()[-1])
    params = main.make_context("cox-tensorboard", words[words.index("--logdir") :]).params
    assert (params["folder"], params["format_str"]) == (str(folder), "seed-{seed}")


@pytest.mark.parametrize("epochs", [[0, 1, 1, 2], [0, 2], [0, 1], [1, 0, 2], []])
def test_c28_example_demo_notices_an_epoch_that_is_missing(epochs: list[int]) -> None:
    from examples.demo import DemoError, Job, check_epochs

    jobs = [Job(0.1, 8), Job(0.1, 16)]
    good = [(0, jobs[0].exp_id), (1, jobs[0].exp_id), (2, jobs[0].exp_id)]
    rows = [*good, *((epoch, jobs[1].exp_id) for epoch in epochs)]
    frame = pd.DataFrame(rows, columns=["epoch", "exp_id"])
    check_epochs(frame, jobs[:1], epochs=3)
    with pytest.raises(DemoError, match=r"lr-0.1-width-16 should have epochs 0 to 2, and has \["):
        check_epochs(frame, jobs, epochs=3)
