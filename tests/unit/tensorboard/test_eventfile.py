"""The event file: whole after a kill, untouched by a forked child, and never torn by a full disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cox.errors import ForkError, StorageError
from cox.tensorboard import eventfile
from cox.tensorboard.eventfile import RunSummaryWriter

if TYPE_CHECKING:
    from tests.conftest import Program


def points(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_point_is_on_the_disk_when_it_was_added(tmp_path: Path) -> None:
    writer = RunSummaryWriter(str(tmp_path))
    for step in range(20):
        writer.add_scalar("x", step * 0.5, step)
        assert points(tmp_path)["x"][-1] == (step, step * 0.5)
    writer.close()


def test_a_killed_process_leaves_every_point(tmp_path: Path, start: Callable[..., Program]) -> None:
    program = start(
        """
        import sys, time
        import cox

        store = cox.Store(sys.argv[1], "run")
        store.add_table("t", {"x": float})
        for x in range(500):
            store.log_table_and_tb("t", {"x": x})
            store["t"].flush_row()
        print("logged")
        time.sleep(600)
        """,
        tmp_path,
    )
    assert program.line() == "logged"
    program.kill()
    assert points(tmp_path / "run" / "tensorboard") == {"t/x": [(x, x) for x in range(500)]}


def test_threads_that_log_at_once_lose_and_tear_nothing(tmp_path: Path) -> None:
    writer = RunSummaryWriter(str(tmp_path))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda tag: [writer.add_scalar(tag, x, x) for x in range(1000)], "abcd"))
    finally:
        sys.setswitchinterval(before)
    writer.close()
    assert points(tmp_path) == {tag: [(x, x) for x in range(1000)] for tag in "abcd"}


def test_two_writers_of_one_second_have_a_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventfile.time, "time", lambda: 1e9)
    writers = [RunSummaryWriter(str(tmp_path)) for _ in range(3)]
    for step, writer in enumerate(writers):
        writer.add_scalar("x", step, step)
        writer.close()
        writer.close()
    assert len(os.listdir(tmp_path)) == 3
    assert points(tmp_path) == {"x": [(0, 0), (1, 1), (2, 2)]}


def test_what_comes_after_the_close_begins_a_new_file(tmp_path: Path) -> None:
    writer = RunSummaryWriter(str(tmp_path))
    writer.add_scalar("x", 1, 1)
    writer.close()
    writer.add_scalar("x", 2, 2)
    writer.close()
    assert points(tmp_path) == {"x": [(1, 1), (2, 2)]}


def test_purging_forgets_what_came_from_that_step_on(tmp_path: Path) -> None:
    first = RunSummaryWriter(str(tmp_path))
    for step in range(6):
        first.add_scalar("x", step, step)
    first.close()
    second = RunSummaryWriter(str(tmp_path), purges={tmp_path: 3})
    second.add_scalar("x", 30, 3)
    second.close()
    assert points(tmp_path) == {"x": [(0, 0), (1, 1), (2, 2), (3, 30)]}


def test_a_write_that_fails_half_way_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunSummaryWriter(str(tmp_path))
    writer.add_scalar("x", 0, 0)

    really = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        really(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="event for TensorBoard: No space left .* free some space"):
            writer.add_image("long", np.zeros((3, 40, 40)), 1)
    writer.add_scalar("x", 1, 1)
    file = writer.file_writer.event_writer
    assert file.path.stat().st_size == file._size, "a reader that finds what is no record reads no further"
    writer.add_scalar("x", 2, 2)
    writer.close()
    assert points(tmp_path)["x"] == [(0, 0), (1, 1), (2, 2)]


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot make an event file .*a part of the path is a file"):
        RunSummaryWriter(str(tmp_path / "file" / "tensorboard"))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing else is done in the child
def test_a_forked_child_cannot_write_and_may_close(tmp_path: Path) -> None:
    writer = RunSummaryWriter(str(tmp_path))
    writer.add_scalar("x", 0, 0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            writer.add_scalar("x", 1, 1)
        except ForkError:
            writer.flush()
            writer.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    writer.add_scalar("x", 2, 2)
    writer.close()
    assert points(tmp_path) == {"x": [(0, 0), (2, 2)]}


def test_an_event_that_a_signal_handler_logs_in_the_middle_of_another_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunSummaryWriter(str(tmp_path))
    really = os.pwrite
    for step, before in enumerate((True, False)):

        def interrupted(fd: int, data: bytes, offset: int, step: int = step, before: bool = before) -> int:
            monkeypatch.setattr(os, "pwrite", really)
            done = 0 if before else really(fd, data, offset)
            writer.add_scalar("handler", 1, step)
            return done

        monkeypatch.setattr(os, "pwrite", interrupted)
        writer.add_scalar("a tag that is longer than the handler's", 0, step)
    writer.close()
    found = points(tmp_path)
    assert found["handler"] == [(0, 1), (1, 1)]
    assert len(found) == 2
    assert all(len(steps) == 2 for steps in found.values())
