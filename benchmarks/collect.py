"""All rows of a thousand runs as one frame, against a bare h5py loop over the same files."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.append import SCHEMA, make_rows
from benchmarks.measure import Contestant, take_turns
from benchmarks.processes import until_word
from benchmarks.report import Report, Target, ratio, seconds, size
from cox import CollectionReader, Store


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many runs of how many rows are read, how often in a process, and by how many processes."""

    runs: int
    rows: int
    rounds: int
    processes: int


SIZES = {
    "full": Sizes(runs=1000, rows=100, rounds=15, processes=7),
    "quick": Sizes(runs=200, rows=100, rounds=5, processes=2),
    "tiny": Sizes(runs=3, rows=5, rounds=1, processes=1),
}

Read = Callable[[str], Any]


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure reading in one process, then in fresh ones."""
    make_runs(folder / "runs", sizes)
    yield _in_process(sizes, folder / "runs")
    yield _cold(sizes, folder / "runs")


def make_runs(folder: Path, sizes: Sizes) -> None:
    """Make runs. The first are logged, the others are copies: their files are as many and as large."""
    logged = min(sizes.runs, 50)
    for number in range(logged):
        with Store(folder, f"run-{number:05d}") as store:
            table = store.add_table("results", SCHEMA)
            for row in make_rows(sizes.rows, start=number):
                table.append_row(row)
    for number in range(logged, sizes.runs):
        shutil.copytree(folder / f"run-{number % logged:05d}", folder / f"run-{number:05d}")


# --- The ways to read


def with_cox(folder: str) -> Any:
    """Read as cox does."""
    return CollectionReader(folder).df("results")


def with_h5py(folder: str) -> Any:
    """Read every dataset, and nothing else: the floor."""
    import h5py

    rows = []
    for run_folder in sorted(Path(folder).glob("run-*")):
        with h5py.File(run_folder / "store.h5", "r") as file:
            rows.append(file["results/table"][()])
    return rows


def with_h5py_to_frame(folder: str) -> Any:
    """The floor, and one frame out of it, as equal to that of cox as a dozen lines can make it."""
    import numpy as np
    import pandas as pd

    names = [path.name for path in sorted(Path(folder).glob("run-*"))]
    rows = with_h5py(folder)
    columns: dict[str, Any] = {name: np.concatenate([part[name] for part in rows]) for name in SCHEMA}
    columns["phase"] = [text.decode() for text in columns["phase"].tolist()]
    columns["exp_id"] = np.repeat(names, [len(part) for part in rows])
    return pd.DataFrame(columns)


def with_hdfstore(folder: str) -> Any:
    """Read as upstream does: pandas.HDFStore for each run."""
    import pandas as pd

    frames = []
    for run_folder in sorted(Path(folder).glob("run-*")):
        with pd.HDFStore(str(run_folder / "store.h5"), mode="r") as store:
            frame = store["results"]
        frame["exp_id"] = run_folder.name
        frames.append(frame)
    return pd.concat(frames)


WAYS: dict[str, Read] = {
    "h5py, every dataset": with_h5py,
    "h5py, and one frame": with_h5py_to_frame,
    "cox CollectionReader.df": with_cox,
    "pandas HDFStore for each run": with_hdfstore,
}
_FLOOR, _, _COX, _ = WAYS
#: pandas takes part in so few rounds only.
_SLOW = 4


# --- In one process


def _in_process(sizes: Sizes, folder: Path) -> Report:
    contestants = [
        Contestant(name, read, prepare=lambda _: [str(folder)], settle=lambda: _forget(folder))
        for name, read in WAYS.items()
    ]
    contestants[-1].every = _SLOW
    _forget(folder)
    take_turns(contestants, sizes.rounds)
    floor, cox = contestants[0], contestants[2]
    report = Report(
        f"{sizes.runs:,} runs of {sizes.rows} rows as one frame, in one process",
        ["", "median", "for each run", "against h5py", "against cox"],
        targets=[Target(f"{_COX} against {_FLOOR}", cox.times_slower_than(floor), 2)],
        notes=["The files are in the page cache; what cox cached of them is deleted before each reading."],
    )
    for one in contestants:
        report.rows.append(
            [
                one.name,
                seconds(one.median),
                seconds(one.median / sizes.runs),
                ratio(one.times_slower_than(floor)),
                ratio(one.times_slower_than(cox)),
            ]
        )
    return report


def _forget(folder: Path) -> None:
    shutil.rmtree(folder / ".cox-cache", ignore_errors=True)


# --- In fresh processes

_PROGRAM = """
import json, sys, time, tracemalloc
import h5py, numpy, pandas
from benchmarks import collect
read, trace = collect.WAYS[sys.argv[2]], sys.argv[3] == 'traced'
if trace:
    tracemalloc.start()
start = time.perf_counter()
found = read(sys.argv[1])
taken = time.perf_counter() - start
peak = tracemalloc.get_traced_memory()[1] if trace else 0
frame = int(found.memory_usage(deep=True).sum()) if trace and hasattr(found, 'memory_usage') else 0
print(json.dumps({'reading': taken, 'peak': peak, 'frame': frame}), flush=True)
"""


def _cold(sizes: Sizes, folder: Path) -> Report:
    taken: dict[str, list[float]] = {name: [] for name in WAYS}

    def ask(name: str, how: str) -> dict[str, float]:
        _, word = until_word(_PROGRAM, str(folder), name, how)
        answer: dict[str, float] = json.loads(word)
        return answer

    def read(name: str, _: int) -> None:
        taken[name].append(ask(name, "timed")["reading"])

    contestants = [
        Contestant(name, functools.partial(read, name), settle=lambda: _forget(folder)) for name in WAYS
    ]
    contestants[-1].every = _SLOW
    take_turns(contestants, sizes.processes, warm_up=0)
    # by round, for not every way takes part in each
    reading = {one.name: dict(zip(one.rounds, taken[one.name], strict=True)) for one in contestants}
    memory = {name: ask(name, "traced") for name in WAYS}
    _forget(folder)
    report = Report(
        "The same in a fresh process",
        ["", "the process", "its reading", "against h5py", "peak memory", "the frame"],
        notes=[
            "Every process imports h5py, numpy and pandas before its reading begins.",
            "Peak memory: what reading allocates, by tracemalloc, in a process of its own.",
        ],
    )
    for one in contestants:
        frame = memory[one.name]["frame"]
        report.rows.append(
            [
                one.name,
                seconds(one.median),
                seconds(_middle(list(reading[one.name].values()))),
                ratio(_middle_ratio(reading[one.name], reading[_FLOOR])),
                size(memory[one.name]["peak"]),
                size(frame) if frame else "–",
            ]
        )
    report.targets = [
        Target(f"{_COX} against {_FLOOR}, reading", _middle_ratio(reading[_COX], reading[_FLOOR]), 2),
        Target("peak memory of cox against its frame", memory[_COX]["peak"] / memory[_COX]["frame"], 3),
    ]
    return report


def _middle_ratio(mine: dict[int, float], theirs: dict[int, float]) -> float:
    return _middle([mine[number] / theirs[number] for number in mine.keys() & theirs.keys()])


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
