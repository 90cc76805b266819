"""The store by itself: what several of them share, and what it lets go of."""

from __future__ import annotations

import errno
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import cox
from cox import lifecycle
from cox.errors import StorageError, StorageWarning
from cox.storage import claims, fs


def test_a_second_store_of_a_run_makes_it_sync_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(fs, "sync_data", synced.append)
    with cox.Store(tmp_path, "run") as first:
        rows = first.add_table("t", {"step": int})
        rows.append_row({"step": 0})
        assert synced == []
        with cox.Store(tmp_path, "run", sync="row") as second:
            assert len(synced) == 1, "what was logged before"
            for step in range(1, 5):
                second["t"].append_row({"step": step})
            rows.append_row({"step": 5})
            assert len(synced) == 6


def test_a_tensorboard_that_cannot_be_closed_does_not_keep_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cox.Store(tmp_path, "run")
    store.add_table("t", {"step": int}).append_row({"step": 0})
    store.writer.add_scalar("x", 1.0, 0)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fs, "sync_data", full)
        with pytest.raises(StorageError, match="cannot sync the events for TensorBoard: No space left"):
            store.close()
    assert list((tmp_path / "run" / ".cox" / "journal").iterdir()) == []
    assert not claims.is_held(tmp_path / "run" / ".cox" / "claims" / "main.json")


def test_on_error_warn_drops_points_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cox.Store(tmp_path, "run", on_error="warn") as store:
        really = os.pwrite

        def full(fd: int, data: bytes, offset: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.warns(StorageWarning, match="No space left"):
            store.writer.add_scalar("x", 1.0, 0)
        monkeypatch.setattr(os, "pwrite", really)
        store.writer.add_scalar("x", 1.0, 1)


def test_a_store_that_nobody_has_any_more_is_closed_whoever_kept_it_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cox.Store(tmp_path, "run")
    store.add_table("t", {"step": int}).append_row({"step": 0})
    beaten = threading.Event()

    def keep() -> None:
        lifecycle._beat()
        beaten.set()
        done.wait(20)

    done = threading.Event()
    keeper = threading.Thread(target=keep)
    keeper.start()
    beaten.wait(20)
    del store
    gc.collect()
    assert not claims.is_held(tmp_path / "run" / ".cox" / "claims" / "main.json")
    done.set()
    keeper.join()


def test_a_long_cell_outlives_the_fold(tmp_path: Path) -> None:
    """Its chunk is larger than any other."""
    value = np.random.default_rng(0).integers(0, 256, 6 << 20, dtype=np.uint8)
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"thing": cox.OBJECT}).append_row({"thing": value})
    with cox.Store(tmp_path, "run", mode="r") as store:
        (cell,) = store["t"].df["thing"]
        assert (store["t"].get_object(cell) == value).all()
