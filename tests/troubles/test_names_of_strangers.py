"""Names that come from a stranger's run lead nowhere: not out of a directory, and not into another table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import cox
from cox.errors import CollectionWarning, DamagedError
from cox.integrity.verify import verify

#: What no table may be called, wherever the name comes from.
NAMES = ["../../escaped", "..", "a/../b", "/absolute", "a//b", "", "_cox", "a\0b", "\udc80"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "b" / "runs"
    for name in ("good", "bad"):
        with cox.Store(folder, name) as store:
            store.add_table("t", {"x": int}).append_row({"x": 1})
    return folder


def rename(folder: Path, name: str) -> None:
    def change(about: dict[str, Any]) -> None:
        about["tables"][name] = about["tables"].pop("t")

    change_run(folder, change)


def change_run(folder: Path, change: Any) -> None:
    with h5py.File(folder / "bad" / "store.h5", "r+", locking=False) as file:
        about = json.loads(bytes(file.attrs["COX_RUN"]))
        change(about)
        file.attrs["COX_RUN"] = np.bytes_(json.dumps(about))


@pytest.mark.parametrize("name", NAMES)
def test_a_table_name_that_leads_elsewhere_is_damage(runs: Path, name: str) -> None:
    rename(runs, name)
    with pytest.raises(DamagedError, match="cannot be the name of a table|invalid utf-16"):
        cox.Store(runs, "bad", mode="r")
    assert not verify(runs / "bad").ok
    with pytest.warns(CollectionWarning, match="run bad is left out"):
        assert cox.CollectionReader(runs, skip_errs=True).df("t")["exp_id"].tolist() == ["good"]


@pytest.mark.parametrize("name", ["../../escaped", "/absolute"])
def test_an_export_stays_in_its_destination(runs: Path, name: str, tmp_path: Path) -> None:
    rename(runs, name)
    with h5py.File(runs / "bad" / "store.h5", "r+", locking=False) as file:
        file.move("t", name)
    with pytest.warns(CollectionWarning, match="run bad is left out"):
        cox.CollectionReader(runs, skip_errs=True).to_parquet(tmp_path / "a" / "dest")
    outside = [
        path for path in tmp_path.rglob("*.parquet") if not path.is_relative_to(tmp_path / "a" / "dest")
    ]
    assert not outside


@pytest.mark.parametrize("name", ["../../main", "rank-", "rank--1", "rank-" + "9" * 5000, "other", ""])
def test_a_writer_name_that_is_none_is_damage(runs: Path, name: str) -> None:
    change_run(runs, lambda about: about["writers"].update({name: {"seq": 0, "rows": {}}}))
    with pytest.raises(DamagedError, match="cannot be the name of a writer"):
        cox.Store(runs, "bad", mode="r")
    assert not verify(runs / "bad").ok


def test_a_table_of_upstreams_may_lead_nowhere_either(runs: Path) -> None:
    import pickle

    with h5py.File(runs / "bad" / "store.h5", "r+", locking=False) as file:
        del file.attrs["COX_RUN"]
        about = {"schema": {"x": int}, "name": "../../escaped"}
        file["t"].attrs["COX_DATA"] = np.bytes_(pickle.dumps(about, 0))
    with pytest.raises(DamagedError, match="cannot be the name of a table|invalid utf-16"):
        cox.Store(runs, "bad", mode="r")
