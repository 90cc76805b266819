"""The store by itself: what several of them share, and what it lets go of."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cox
from cox.errors import RowError, RunNameError, SchemaError, StorageError, StorageWarning
from cox.storage import claims, fs
from cox.store import lifecycle


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
    assert list((tmp_path / "run" / ".cox" / "journal").glob("*.log")) == []
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
        done.wait(60)

    done = threading.Event()
    keeper = threading.Thread(target=keep)
    keeper.start()
    beaten.wait(20)
    del store
    gc.collect()
    deadline = time.monotonic() + 20  # this process's own keeper may have it in hand at this very moment
    while held := claims.is_held(tmp_path / "run" / ".cox" / "claims" / "main.json"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not held
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


def test_what_is_no_row_no_schema_and_no_name_is_refused_by_name(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"step": int, "text": str})
        for wrong in (None, [1, 2], 5):
            with pytest.raises(RowError, match="a row is a mapping of column names to values"):
                table.append_row(wrong)  # type: ignore[arg-type]
        table.append_row(pd.Series({"step": 1, "text": "of a Series"}))  # type: ignore[arg-type]
        for wrong in (["a"], "a", None):
            with pytest.raises(SchemaError, match="a schema maps column names to types"):
                store.add_table("u", wrong)  # type: ignore[arg-type]
        assert table.df["text"].tolist() == ["of a Series"]
    with pytest.raises(RunNameError, match="exp_id=5"):
        cox.Store(tmp_path, 5)  # type: ignore[arg-type]


def test_an_object_column_takes_what_would_be_inferred_as_a_number(tmp_path: Path) -> None:
    """Upstream inferred OBJECT for numbers of numpy; a script that goes on infers float now."""
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"lr": cox.OBJECT}).append_row({"lr": 0.5})
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", cox.store.schema_from_dict(d={"lr": np.float32(0.1)}))
        table.append_row({"lr": np.float64(0.25)})
        assert [table.get_object(cell) for cell in table.df["lr"]] == [0.5, 0.25]
        with pytest.raises(SchemaError, match="as"):
            store.add_table("t", {"lr": cox.PICKLE})
        assert table.get_object(None) is None
        assert table.get_object("") is None


def test_a_kept_table_keeps_its_store_open(tmp_path: Path) -> None:
    table = cox.Store(tmp_path, "run").add_table("t", {"x": int})
    gc.collect()
    table.append_row({"x": 1})
    assert table.df["x"].tolist() == [1]
    del table
    gc.collect()
    assert not list(tmp_path.glob("run/.cox/journal/*.log")), "and lets go of it"
