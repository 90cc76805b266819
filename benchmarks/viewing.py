"""From the start of `cox-tensorboard` to all runs being shown, against `tensorboard` on the same files."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Contestant, take_turns
from benchmarks.report import Report, ratio, seconds
from cox import Store

#: Seconds after which a server is given up.
_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many runs are shown, of how many points each, and how often."""

    runs: Sequence[int]
    points: int
    rounds: int


SIZES = {
    "full": Sizes(runs=(10, 100, 1000), points=100, rounds=3),
    "quick": Sizes(runs=(10, 100), points=20, rounds=1),
    "tiny": Sizes(runs=(2,), points=2, rounds=1),
}


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure each number of runs."""
    report = Report(
        "From the start to all runs in /data/runs",
        ["runs", "tensorboard", "cox-tensorboard", "against it"],
        notes=[
            f"{sizes.points} points a run; both with the fast data loader.",
            "tensorboard shows them under their own names and has no filters.",
        ],
    )
    for runs in sizes.runs:
        place = folder / str(runs)
        _make(place, runs, sizes.points)
        plain = [sys.executable, "-m", "tensorboard.main", "--logdir", str(place), "--port", "0"]
        ours = [sys.executable, "-m", "cox.tensorboard_view", "--logdir", str(place)]
        ours += ["--format-str", "lr-{lr}", "--filter-param", "lr", "0", "--port", "0"]
        contestants = [
            Contestant("tensorboard", lambda command, runs=runs: shown(command, runs), prepare=_once(plain)),
            Contestant(
                "cox-tensorboard", lambda command, runs=runs: shown(command, runs), prepare=_once(ours)
            ),
        ]
        take_turns(contestants, sizes.rounds, warm_up=0)
        floor, cox = contestants
        times = ratio(cox.times_slower_than(floor))
        report.rows.append([f"{runs:,}", seconds(floor.median), seconds(cox.median), times])
    yield report


def shown(command: Sequence[str], runs: int) -> None:
    """Start a server, wait until it shows so many runs, and end it."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            address = next(
                found[1] for line in server.stderr if (found := re.search(r"at (http://\S+:\d+)/", line))
            )
            deadline = time.monotonic() + _PATIENCE
            while _count(address) < runs:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{_count(address)} of {runs} runs after {_PATIENCE:g} s")
                time.sleep(0.02)
        finally:
            server.send_signal(signal.SIGTERM)
            server.stderr.read()


def _count(address: str) -> int:
    try:
        with urllib.request.urlopen(f"{address}/data/runs", timeout=30) as answer:
            return len(json.load(answer))
    except (urllib.error.URLError, ConnectionError):
        return 0


def _once(command: list[str]) -> Callable[[int], list[list[str]]]:
    return lambda _: [command]


def _make(place: Path, runs: int, points: int) -> None:
    """Make runs. The first are logged, the others are copies under other names."""
    logged = min(runs, 10)
    for number in range(logged):
        with Store(place, f"run-{number:05}") as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": number / 100})
            table = store.add_table("results", {"loss": float})
            for step in range(points):
                store.log_table_and_tb("results", {"loss": 1 / (step + 1)})
                table.flush_row()
    for number in range(logged, runs):
        shutil.copytree(place / f"run-{number % logged:05}", place / f"run-{number:05}")
