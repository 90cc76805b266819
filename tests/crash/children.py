"""What the child processes of this folder's tests do. Called by name, through the zygote."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import socket
import time
from pathlib import Path
from typing import Any

import cox
from cox.errors import DamagedError, RunInUseError, RunNotFoundError
from cox.integrity.repair import repair
from cox.integrity.verify import verify
from cox.storage import claims, layout, snapshot, writer
from cox.testing import faults, model


class Counter:
    """A number in a file that several processes map: it outlives whoever wrote it last.

    Args:
        path: The file, made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(8)
            self._map = mmap.mmap(file.fileno(), 8)
        self._cells = memoryview(self._map).cast("Q")

    @property
    def value(self) -> int:
        """The number."""
        return int(self._cells[0])

    @value.setter
    def value(self, value: int) -> None:
        self._cells[0] = value  # eight aligned bytes: nobody sees half of them


def log(folder: str, exp_id: str, seed: int, length: int, done: int, acks: str, fold_at: int) -> None:
    """Log from operation `done` to the last one, and say of each when it is acknowledged; then close."""
    writer.FOLD_AT = fold_at
    os.fsync = os.fdatasync = lambda fd: None  # for speed: what a process wrote survives it without
    counter = Counter(Path(acks))
    ops = model.script(seed, length)
    session = model.Session(Path(folder), exp_id, ops, done)
    for op in ops[done:]:
        session.apply(op)
        counter.value = op.number + 1
    session.store.close()


def log_and_die(
    folder: str, exp_id: str, seed: int, length: int, done: int, acks: str, fold_at: int, call: int, how: str
) -> None:
    """As `log`, but die at one of the calls that change the file system, as `faults.Kill` has it."""
    with faults.intercepted(faults.Kill(call, how)):
        log(folder, exp_id, seed, length, done, acks, fold_at)


# --- Damage


def read_in_little_memory(run: str, megabytes: int) -> None:
    """Read, check and repair a run with so much memory on top of what is in use. It may be damaged."""
    with Path("/proc/self/statm").open() as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (megabytes << 20),) * 2)
    damaged = False
    try:
        snapshot.read(layout.RunLayout(Path(run)))
    except DamagedError as error:
        damaged = True
        assert not isinstance(error.__cause__, MemoryError), "it was tried"
    report = verify(run)
    assert report.findings or not damaged
    assert not [finding for finding in report.findings if "memory" in finding.problem]
    assert repair(run).after.ok


def repair_and_die(run: str, call: int, how: str) -> None:
    """Repair a run, and die at a call, as in `log_and_die`."""
    os.fsync = os.fdatasync = lambda fd: None
    with faults.intercepted(faults.Kill(call, how)):
        repair(run)


# --- Writers and readers side by side


def row(step: int) -> dict[str, object]:
    """The row that must be found in place `step`."""
    return {"step": step, "half": step / 2, "text": f"row {step} " + "é" * (step % 23)}


def fold_often(bytes_: int) -> None:
    """Fold whenever a journal has so many bytes, however much was folded before; and do not wait for disks."""  # noqa: E501
    os.fsync = os.fdatasync = lambda fd: None
    writer.FOLD_AT = bytes_
    really = writer.RunWriter.fold_if_it_helps

    def fold(self: writer.RunWriter) -> None:
        really(self)
        self.fold_at = bytes_

    writer.RunWriter.fold_if_it_helps = fold  # type: ignore[method-assign]


def write_rows(folder: str, seconds: float, acks: str, end: str, readings: list[str]) -> None:
    """Write one row after the other for a while, and say how many are acknowledged, and when it ends.

    On a slow machine it goes on until there are a hundred rows and everybody has read them three times.
    """
    fold_often(16_000)
    counter, readers = Counter(Path(acks)), [Counter(Path(path)) for path in readings]
    store = cox.Store(folder, "run")
    table = store.add_table("t", {"step": int, "half": float, "text": str})
    deadline = time.monotonic() + seconds
    step = 0
    while time.monotonic() < deadline or step <= 100 or any(reader.value < 3 for reader in readers):
        table.append_row(row(step))
        step += 1
        counter.value = step
    store.close()
    Counter(Path(end)).value = 1


def on_host(host: str, function: str, *args: Any) -> None:
    """Call another function of this module as if on a host of that name."""
    socket.gethostname = lambda: host
    globals()[function](*args)


def read_rows_from_afar(folder: str, end: str, readings: str) -> None:
    """Read the run over and over on another host: what is seen is what there was, some time ago."""
    ended, done = Counter(Path(end)), Counter(Path(readings))
    seen, last = 0, False
    while not last:
        last = bool(ended.value)
        if last:
            time.sleep(1)  # as long as a client believes what it knew
        try:
            with cox.Store(folder, "run", mode="r") as store:
                frame = store["t"].df if "t" in store else None
        except RunNotFoundError:
            continue
        if frame is None:
            continue
        assert frame["step"].tolist() == list(range(len(frame)))
        assert frame["text"].tolist() == [str(row(step)["text"]) for step in range(len(frame))]
        assert len(frame) >= seen, "rows that were there are gone"
        seen = len(frame)
        done.value = seen


def write_synced(folder: str, acks: str) -> None:
    """Write rows that are to survive the host until killed."""
    counter = Counter(Path(acks))
    table = cox.Store(folder, "run", sync="row").add_table("t", {"step": int})
    for step in range(1_000_000):
        table.append_row({"step": step})
        counter.value = step + 1


def read_rows(folder: str, acks: str, end: str, readings: str) -> None:
    """Read the run over and over until its writer is done; each time it must be whole."""
    acknowledged, ended, done = Counter(Path(acks)), Counter(Path(end)), Counter(Path(readings))
    while not acknowledged.value:
        time.sleep(0.001)
    last = False
    try:
        while not last:
            last = bool(ended.value)
            _read_whole(folder, acknowledged.value)
            done.value += 1
    except BaseException:
        done.value += 3  # or the writer would wait for it
        raise


def _read_whole(folder: str, least: int) -> None:
    """Read the run, which must have at least so many rows, and each of them once."""
    with cox.Store(folder, "run", mode="r") as store:
        frame = store["t"].df
    seen = len(frame)
    assert seen >= least, f"{least} rows were acknowledged, {seen} are seen"
    assert frame["step"].tolist() == list(range(seen))
    assert frame["half"].tolist() == [step / 2 for step in range(seen)]
    assert frame["text"].tolist() == [str(row(step)["text"]) for step in range(seen)]


def write_as_rank(folder: str, rank: int, rows: int, acks: str, go: str) -> None:
    """Wait for the start, join a run as one of several, write so many rows; then leave."""
    fold_often(4_000)
    counter, started = Counter(Path(acks)), Counter(Path(go))
    while not started.value:
        pass
    with cox.Store(folder, "run", rank=rank) as store:
        table = store.add_table("t", {"step": int, "text": str})
        first = table.nrows
        for step in range(first, first + rows):
            table.append_row({"step": step, "text": f"{rank}/{step}"})
            if step % 7 == 3:
                table.append_row({"step": -1, "text": "to be dropped"})
                store.rewind("t", step + 1, purge_tensorboard=False)
            counter.value = step + 1


def open_as_rank(folder: str, rank: int, go: str, ready: str) -> None:
    """Wait for the start, join a run, write a row, and wait to be killed."""
    counter, started = Counter(Path(ready)), Counter(Path(go))
    while not started.value:
        pass
    store = cox.Store(folder, "run", rank=rank)
    table = store.add_table("t", {"step": int})
    table.append_row({"step": table.nrows})
    counter.value = table.nrows
    while True:
        time.sleep(60)


def make_a_run(folder: str, number: int, go: str) -> None:
    """Wait for the start, and log to a run of its own in a folder that nobody has made yet."""
    started = Counter(Path(go))
    while not started.value:
        time.sleep(0.0001)
    with cox.Store(folder) as store:
        table = store.add_table("t", {"number": int, "step": int})
        for step in range(20):
            table.append_row({"number": number, "step": step})


def open_as_sole_writer(folder: str, exp_id: str, go: str, said: str, stop: str, locks: bool) -> None:
    """Wait for the start and open a run. 1: it is mine, and has a row. 2: refused, and told by whom."""
    if not locks:
        without_locks()
    claims._NAMELESS_FOR = 60.0  # who got it may lose its turn before it has written its name
    counter, started = Counter(Path(said)), Counter(Path(go))
    while not started.value:
        pass
    try:
        store = cox.Store(folder, exp_id)
    except RunInUseError as error:
        assert socket.gethostname() in str(error)
        counter.value = 2
        return
    store.add_table("t", {"step": int}).append_row({"step": 0})
    counter.value = 1
    while not Counter(Path(stop)).value:
        time.sleep(0.001)
    store["t"].append_row({"step": 1})
    store.close()


def hold(folder: str, exp_id: str, said: str, locks: bool) -> None:
    """Open a run as its sole writer, write a row and wait to be killed."""
    if not locks:
        without_locks()
    store = cox.Store(folder, exp_id)
    store.add_table("t", {"step": int}).append_row({"step": store["t"].nrows if "t" in store else 0})
    Counter(Path(said)).value = 1
    while True:
        time.sleep(60)


def be_refused(folder: str, exp_id: str, pid: int, locks: bool) -> None:
    """Try to open a run that another process writes."""
    if not locks:
        without_locks()
    try:
        cox.Store(folder, exp_id)
    except RunInUseError as error:
        assert f"process {pid} on host {socket.gethostname()}" in str(error), error
        assert "rank=" in str(error)
        assert "mode='r'" in str(error)
    else:
        raise AssertionError("two writers")


def without_locks() -> None:
    """Be on a file system that has none."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = flock
