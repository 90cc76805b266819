"""Many runs as one frame: cold, warm, one run changed, many being written; and how the time grows."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import collect
from benchmarks.append import make_rows
from benchmarks.measure import Contestant, take_turns
from benchmarks.processes import until_word
from benchmarks.report import Report, Target, digits, ratio, seconds, size
from cox import CollectionReader, Store


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many runs of how many rows, how often they are read, how many are live, how many made of links."""

    shapes: Sequence[tuple[int, int]]
    rounds: int
    live: int
    huge: int


SIZES = {
    "full": Sizes(
        shapes=((100, 100), (1000, 100), (10_000, 100), (100, 100_000)), rounds=3, live=100, huge=100_000
    ),
    "quick": Sizes(shapes=((100, 100), (1000, 100)), rounds=3, live=20, huge=0),
    "tiny": Sizes(shapes=((40, 5),), rounds=1, live=2, huge=90),
}
#: From so many runs on, and so many bytes of a frame, all promises count; before, what is fixed counts more.
_MANY, _LARGE = 10_000, 50_000_000
_ROW = next(make_rows(1))
#: So long a cache does not believe that a file is done; and a bit.
_SETTLED = 2.2
_COLD, _WARM, _CHANGED, _LIVE = (
    "cox, cold",
    "cox, warm",
    "cox, warm, one run changed",
    "cox, warm, {} runs being written",
)
_H5PY, _PARQUET, _UPSTREAM = (
    "h5py, every dataset",
    "one Parquet file, pyarrow to pandas",
    "pandas HDFStore for each run",
)


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure each shape, then how the time grows."""
    medians: dict[str, dict[int, float]] = {}
    for runs, rows in sizes.shapes:
        place = folder / f"{runs}x{rows}"
        collect.make_runs(place, collect.Sizes(runs=runs, rows=rows, rounds=0, processes=0))
        contestants = _read(place, sizes)
        yield _report(contestants, place, runs, rows)
        for one in contestants:
            if rows == sizes.shapes[0][1]:
                medians.setdefault(one.name, {})[runs] = one.median
        shutil.rmtree(place)
    if len(sizes.shapes) > 1:
        yield _growth(medians)
    if sizes.huge:
        yield _huge(folder / "huge", sizes.huge)


# --- One shape


def _read(place: Path, sizes: Sizes) -> list[Contestant]:
    folder, parquet = str(place), str(place.with_suffix(".parquet"))
    time.sleep(_SETTLED)
    with_cox(folder).to_parquet(parquet)
    _forget(place)
    some = sorted(path.name for path in place.glob("run-*"))[: sizes.live]
    contestants = [
        Contestant(_H5PY, collect.with_h5py, prepare=lambda _: [folder]),
        Contestant(_PARQUET, with_parquet, prepare=lambda _: [parquet]),
        Contestant(_COLD, with_cox, prepare=lambda _: _cold(place)),
        Contestant(_WARM, with_cox, prepare=lambda _: [folder]),
        Contestant(
            _CHANGED,
            with_cox,
            prepare=lambda _: _with_rows(place, some[:1]),
            settle=lambda: _warm(place),
        ),
    ]
    _warm(place)
    take_turns(contestants, sizes.rounds)
    upstream = Contestant(_UPSTREAM, collect.with_hdfstore, prepare=lambda _: [folder])
    take_turns([upstream], 1, warm_up=0)
    with ExitStack() as stack:
        stores = [stack.enter_context(Store(place, name)) for name in some]
        live = Contestant(_LIVE.format(len(some)), with_cox, prepare=lambda _: _logged(folder, stores))
        take_turns([live], sizes.rounds)
    return [*contestants, live, upstream]


def with_cox(folder: str) -> Any:
    """Read as cox does, cache and all."""
    return CollectionReader(folder, log_warnings=False).df("results")


def with_parquet(path: str) -> Any:
    """The same rows, as one file."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pandas()


def _forget(place: Path) -> None:
    shutil.rmtree(place / ".cox-cache", ignore_errors=True)


def _cold(place: Path) -> list[str]:
    _forget(place)
    return [str(place)]


def _warm(place: Path) -> None:
    """Leave a cache that knows all of it, what changed just now too."""
    time.sleep(_SETTLED)
    CollectionReader(place, cache=True, log_warnings=False).df("results")


def _with_rows(place: Path, names: Sequence[str]) -> list[str]:
    for name in names:
        with Store(place, name) as store:
            store["results"].append_row(_ROW)
    return [str(place)]


def _logged(folder: str, stores: Sequence[Store]) -> list[str]:
    for store in stores:
        store["results"].append_row(_ROW)
    return [folder]


def _report(contestants: Sequence[Contestant], place: Path, runs: int, rows: int) -> Report:
    by_name = {one.name: one for one in contestants}
    floor, parquet, warm = by_name[_H5PY], by_name[_PARQUET], by_name[_WARM]
    memory = _memory(str(place))
    report = Report(
        f"{runs:,} runs of {rows:,} rows as one frame",
        ["", "median", "for each run", "against h5py", "against Parquet"],
        targets=[
            Target(f"cold against {_H5PY}", by_name[_COLD].times_slower_than(floor), 2),
            Target("warm against one Parquet file", warm.times_slower_than(parquet), 5),
        ],
        notes=[
            f"The frame takes {size(memory['frame'])}; its last column is `exp_id`.",
            "All files are in the page cache. Cold: without what cox keeps of the runs; it writes that.",
            "Peak memory: what reading allocates beyond the imports, resident, in a process of its own.",
        ],
    )
    if runs >= _MANY:
        changed = by_name[_CHANGED].times_slower_than(warm)
        report.targets.append(Target("one run changed against warm", changed, 1.1))
    if memory["frame"] > _LARGE:
        for how in ("cold", "warm"):
            peak = memory[how] / memory["frame"]
            report.targets.append(Target(f"peak memory, {how}, against the frame", peak, 3))
    for one in contestants:
        both = [one.median / floor.median, one.median / parquet.median]
        report.rows.append([one.name, seconds(one.median), seconds(one.median / runs), *map(ratio, both)])
    return report


_PROGRAM = """
import json, resource, shutil, sys
import h5py, numpy, pandas, pyarrow.parquet
from benchmarks import collection
from cox.collection import reading
import cox.frames
if sys.argv[2] == 'cold':
    shutil.rmtree(sys.argv[1] + '/.cox-cache', ignore_errors=True)
open('/proc/self/clear_refs', 'w').write('5')
def resident(what):
    lines = open('/proc/self/status').read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])
before = resident('VmRSS')
frame = collection.with_cox(sys.argv[1])
peak = resident('VmHWM') - before
print(json.dumps({'peak': peak, 'frame': int(frame.memory_usage(deep=True).sum())}), flush=True)
"""


def _memory(folder: str) -> dict[str, float]:
    """Bytes that reading takes at its peak, cold and warm, and bytes of the frame."""
    found = {}
    time.sleep(_SETTLED)
    for how in ("cold", "warm"):
        answer = json.loads(until_word(_PROGRAM, folder, how)[1])
        found[how], found["frame"] = answer["peak"], answer["frame"]
    return found


# --- Growth


def _growth(medians: dict[str, dict[int, float]]) -> Report:
    report = Report(
        "How the time grows with the number of runs",
        ["", *(f"{runs:,} runs" for runs in next(iter(medians.values()))), "exponent"],
        notes=["The exponent of the last step: 1 is a time for each run."],
    )
    for name, found in medians.items():
        (few, before), (many, after) = sorted(found.items())[-2:]
        exponent = math.log(after / before) / math.log(many / few)
        report.rows.append([name, *map(seconds, found.values()), digits(exponent)])
    return report


def _huge(place: Path, runs: int) -> Report:
    """A directory of more runs than most have: each a directory of its own with links to one store file."""
    collect.make_runs(place.with_name("one"), collect.Sizes(runs=1, rows=10, rounds=0, processes=0))
    source = place.with_name("one") / "run-00000" / "store.h5"
    place.mkdir()
    for number in range(runs):
        made = place / f"run-{number:06d}"
        (made / ".cox" / "journal").mkdir(parents=True)
        if number % 10_000 == 0:  # a file has only so many links
            shutil.copy(source, place.with_name(f"store-{number}.h5"))
        os.link(place.with_name(f"store-{number // 10_000 * 10_000}.h5"), made / "store.h5")
    time.sleep(_SETTLED)
    steps: dict[str, float] = {}
    start = time.perf_counter()
    reader = CollectionReader(place)
    steps["finding them"] = time.perf_counter() - start
    for what in ("cold", "warm"):
        start = time.perf_counter()
        frame = reader.df("results")
        steps[f"{what}: {len(frame):,} rows"] = time.perf_counter() - start
    from cox.collection import cache

    index = (place / ".cox-cache" / cache.INDEX_FILE).stat().st_size
    report = Report(
        f"{runs:,} runs of 10 rows",
        ["", "seconds", "for each run"],
        notes=[f"The cache takes {size(cache.size(place)[2])}, its index {size(index)}."],
    )
    for what, taken in steps.items():
        report.rows.append([what, seconds(taken), seconds(taken / runs)])
    return report
