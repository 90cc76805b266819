"""What the child processes of the cache's tests do. Called by name, through the zygote."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

import cox
from cox.collection import cache
from cox.collection.cache import saving
from cox.errors import TableNotFoundError
from cox.testing import faults
from tests import caching
from tests.crash.children import Counter, fold_often, row


def expect(folder: str, seconds: int, megabytes: int) -> None:
    """Read a folder whose cache may be anything, in so much time and memory; it makes no difference."""
    saving._SETTLED = 0
    expected = caching.df(folder, cache=False)
    signal.alarm(seconds)  # kills
    if megabytes:
        with Path("/proc/self/statm").open() as file:
            in_use = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (megabytes << 20),) * 2)
    for _ in range(2):
        pd.testing.assert_frame_equal(caching.df(folder), expected)


def read(folder: str) -> None:
    """Read a folder, and keep what was read."""
    saving._SETTLED = 0
    caching.df(folder)


def read_and_die(folder: str, call: int, how: str) -> None:
    """The same, but die at a call to the file system, as in `log_and_die`."""
    with faults.intercepted(faults.Kill(call, how)):
        read(folder)


# --- Side by side


def write_runs(folder: str, number: int, seconds: float, acks: str) -> None:
    """Write one run after the other, each to its end and then on, and say how many rows are acknowledged."""
    fold_often(3_000)
    choose = random.Random(number)
    counter = Counter(Path(acks))
    deadline = time.monotonic() + seconds
    step = 0
    while time.monotonic() < deadline:
        with cox.Store(folder, f"run-{number}") as store:
            table = store.add_table("t", {"step": int, "half": float, "text": str})
            for _ in range(choose.choice([1, 5, 60])):
                table.append_row(row(step))
                step += 1
                counter.value = step
        time.sleep(choose.choice([0.0, 0.05]))


def read_over_and_over(folder: str, number: int, seconds: float, acks: list[str], readings: str) -> None:
    """Read all runs over and over, with a cache that forgets, joins and sweeps more than any other."""
    saving._SETTLED = 30_000_000
    saving._MOST_PIECES = 1
    saving._ORPHAN_AFTER = 0.3
    choose = random.Random(number)
    counters, done = [Counter(Path(path)) for path in acks], Counter(Path(readings))
    deadline = time.monotonic() + seconds
    seen: dict[str, int] = {}
    while time.monotonic() < deadline or done.value <= 3:  # the machine may be slow
        before = [counter.value for counter in counters]
        options: dict[str, Any] = choose.choice(
            [{}, {}, {"columns": ["text", "step"]}, {"where": "step >= 0"}]
        )
        try:
            frame = caching.df(folder, **options)
        except TableNotFoundError:
            assert not any(before)
            continue
        for name, own in frame.groupby("exp_id", sort=False):
            n = len(own)
            assert n >= seen.get(str(name), 0), "rows that were there are gone"
            seen[str(name)] = n
            assert own.index.tolist() == list(range(n))
            assert own["step"].tolist() == list(range(n))
            assert own["text"].tolist() == [str(row(step)["text"]) for step in range(n)]
        for at, count in enumerate(before):
            assert seen.get(f"run-{at}", 0) >= count, f"run {at}: {count} rows were acknowledged"
        done.value += 1


def clear_over_and_over(folder: str, seconds: float) -> None:
    """Clear the cache, again and again; and ask how large it is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        cache.size(Path(folder))
        cache.clear(Path(folder))
        time.sleep(0.02)


def say_what_is_opened(folder: str, found: str) -> None:
    """Read a folder, and write down every file that is opened meanwhile, by whatever."""
    import sys

    saving._SETTLED = 0
    opened: list[str] = []
    really = os.fspath(folder)
    warnings.simplefilter("ignore")
    caching.df(Path(folder).parent / "warm up")  # imports

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)):
            path = os.fsdecode(args[0])
            if path.startswith(really):
                opened.append(path)

    sys.addaudithook(hook)
    from cox.storage import hdf5

    read_store = hdf5.read

    def read_hdf5(path: Path, **options: Any) -> Any:
        opened.append(os.fspath(path))
        return read_store(path, **options)

    hdf5.read = read_hdf5
    caching.df(folder)
    Path(found).write_text("\n".join(opened))
