"""C16: a flushed row survives the process's death at any moment.

A child logs, and says of each operation when it returned; it is killed, and the run must be as it was
after the last operation that returned, or after the one that was under way. Then another child goes on.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import time
from pathlib import Path

import h5py
import pandas as pd
import pytest
import tables

from cox.storage import layout
from cox.testing import invariants, model
from tests.compat import comparison
from tests.crash.children import Counter
from tests.crash.zygote import PATIENCE, Child, Zygote

KILLS = int(os.environ.get("COX_KILLS", "100"))
#: The same moments can hardly be had twice, but the same operations can.
SEED = int(os.environ.get("COX_SEED", "1")) or random.SystemRandom().randrange(1 << 32)
#: So small that a run is folded many times; real ones begin to at megabytes.
FOLD_AT = 1500
LENGTH = 60


class Victim:
    """A run that is written by one child after the other.

    Args:
        zygote: Starts them.
        folder: Where the run and the count of acknowledged operations go.
        seed: Which operations.
        length: How many.
    """

    def __init__(self, zygote: Zygote, folder: Path, seed: int, length: int = LENGTH) -> None:
        self.folder = folder
        self.run = layout.RunLayout(folder / "run")
        self.acks = Counter(folder / "acks")
        self.done = 0
        self.history = model.states(model.script(seed, length))
        self._zygote = zygote
        self._args = (str(folder), "run", seed, length)

    def start(self) -> Child:
        """Have a child go on where the run stands."""
        self.acks.value = self.done
        args = (*self._args, self.done, str(self.folder / "acks"), FOLD_AT)
        return self._zygote.start("tests.crash.children:log", *args)

    def start_dying(self, call: int, how: str) -> Child:
        """The same with a child that kills itself at a call to the file system."""
        self.acks.value = self.done
        args = (*self._args, self.done, str(self.folder / "acks"), FOLD_AT, call, how)
        return self._zygote.start("tests.crash.children:log_and_die", *args)

    def check(self, *, thoroughly: bool = True) -> None:
        """Nothing acknowledged is lost, changed or there twice; learns how far the run is."""
        acknowledged = self.acks.value
        if not self.run.store_file.exists() and acknowledged == 0:
            return  # it was killed while it made the directory
        assert self.run.store_file.exists()
        found = invariants.observe(self.folder, "run")
        allowed = self.history[acknowledged : acknowledged + 2]
        assert found in allowed, f"seed {SEED}, after {acknowledged} operations"
        self.done = acknowledged + allowed.index(found)
        comparison.assert_readers_agree(self.run.root)
        if thoroughly:
            invariants.check_readers_agree(self.run.root, found)
            assert_is_a_store_file(self.run.store_file, self.history[: self.done + 1])

    def finish(self) -> None:
        """Go on to the end, undisturbed: all is there, and nothing else."""
        self.start().join()
        assert self.acks.value == len(self.history) - 1
        self.check(thoroughly=False)
        assert invariants.leftovers(self.run.root) == []
        assert_is_a_store_file(self.run.store_file, self.history[-1:])


def steps(rows: model.Rows) -> list[float | None]:
    """Which rows these are: every row has a step of its own."""
    return [None if row["step"] is None else float(row["step"]) for row in rows]


def assert_is_a_store_file(path: Path, history: list[model.State]) -> None:
    """h5py, PyTables and pandas open the file, and it is as the run was at one time."""
    with h5py.File(path, "r") as opened:
        opened.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
    with tables.open_file(str(path)) as opened:
        for node in opened.walk_nodes(classname="Table"):
            node.read()
    found = {}
    with pd.HDFStore(path, "r") as opened:
        for key in opened.keys():
            frame = opened[key]
            step = frame["step"].astype(object).where(frame["step"].notna(), None).tolist()
            found[key.lstrip("/")] = (tuple(frame), steps([{"step": value} for value in step]))
    assert any(
        found == {name: (columns, steps(rows)) for name, (columns, rows) in state.items()}
        for state in history
    ), f"seed {SEED}: {path} holds {found}, which the run never was"


def has_ended(child: Child) -> bool:
    fd = os.pidfd_open(child.pid)
    try:
        return bool(select.select([fd], [], [], 0)[0])
    finally:
        os.close(fd)


def wait_for(victim: Victim, child: Child, acknowledged: int) -> None:
    """Wait until so many operations are acknowledged, or the child has ended."""
    deadline = time.monotonic() + PATIENCE
    while victim.acks.value < acknowledged and not has_ended(child):
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@pytest.mark.slow
def test_c16_sigkill_at_random_moments(zygote: Zygote, tmp_path: Path) -> None:
    choose = random.Random(SEED)
    kills = number = 0
    while kills < KILLS:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        victim = Victim(zygote, folder, SEED + number)
        for _ in range(8):
            child = victim.start()
            if choose.random() < 0.4:  # while it opens the run, and cleans up after the last kill
                time.sleep(choose.uniform(0, 0.025))
            else:
                wait_for(victim, child, victim.done + choose.randint(1, 20))
                time.sleep(choose.uniform(0, 0.003))
            child.kill()
            kills += child.was_killed()
            victim.check()
        victim.finish()
        shutil.rmtree(folder)
        number += 1


#: A session with one of everything, short enough to be killed at each of its calls.
SHORT = 20
KINDS = {"table", "row", "update", "column", "rewind", "fold", "reopen"}


def a_bit_of_everything() -> int:
    """The first seed whose short session has every kind of operation, and objects."""
    for seed in range(1_000_000):
        ops = model.script(seed, SHORT)
        if {op.kind for op in ops} == KINDS and {op.table for op in ops} >= {"results", "objects"}:
            return seed
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("how", ["after", "within"])
def test_c16_sigkill_at_every_call_that_changes_the_file_system(
    zygote: Zygote, tmp_path: Path, how: str
) -> None:
    seed = a_bit_of_everything()
    for call in range(10_000):
        folder = tmp_path / f"{call}"
        folder.mkdir()
        victim = Victim(zygote, folder, seed, SHORT)
        if not victim.start_dying(call, how).was_killed():
            break
        victim.check(thoroughly=False)
        # and once more while what is left is recovered
        victim.start_dying(3 + call % 12, how).was_killed()
        victim.check(thoroughly=False)
        victim.finish()
        shutil.rmtree(folder)
    assert call > 30
