"""`CollectionReader`, where folders, names and filters meet."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox
from cox.errors import CollectionWarning, FormatVersionError, PredicateError
from cox.readers import CollectionReader
from cox.storage import layout
from cox.storage.status import Status, status_of


def make(folder: Path, name: str, x: int = 1, **params: Any) -> None:
    with cox.Store(folder, name) as store:
        if params:
            store.add_table_like_example("metadata", params).append_row(params)
        store.add_table("t", {"x": int}).append_row({"x": x})


def test_runs_of_one_name_in_many_folders_are_all_there(tmp_path: Path) -> None:
    for number, folder in enumerate("abc"):
        make(tmp_path / folder / "runs", "x", number)
    reader = CollectionReader([tmp_path / folder / "runs" for folder in "abc"])
    assert reader.exp_ids == ["x", "runs/x", "c/runs/x"]
    assert reader.df("t")[["x", "exp_id"]].values.tolist() == [[0, "x"], [1, "runs/x"], [2, "c/runs/x"]]
    make(tmp_path / "w" / "first", "deep/er".replace("/", "-"), 7)
    make(tmp_path / "w", "first-deep", 8)
    nested = CollectionReader([tmp_path / "w" / "first", tmp_path / "w"], nested=True)
    assert sorted(nested.df("t")["x"]) == [7, 7, 8]


def test_a_folder_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    make(tmp_path, "a")
    assert CollectionReader([tmp_path, f"{tmp_path}/", tmp_path / "."]).exp_ids == ["a"]


def test_filters_get_the_names_that_runs_have(tmp_path: Path) -> None:
    for folder in "ab":
        make(tmp_path / folder, "x")
    folders = [tmp_path / "a", tmp_path / "b"]
    assert CollectionReader(folders, exp_filter="b/x".__eq__).exp_ids == ["b/x"]
    assert CollectionReader(folders).df("t", exp_filter="b/x".__eq__)["exp_id"].tolist() == ["b/x"]


def test_the_name_of_the_run_wins_over_a_column_exp_id(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "p") as store:
        store.add_table("metadata", {"exp_id": str, "lr": float}).append_row({"exp_id": "own", "lr": 1.0})
        store.add_table("t", {"x": int, "exp_id": str}).append_row({"x": 1, "exp_id": "own"})
    reader = CollectionReader(tmp_path, log_warnings=False)
    assert reader.df("t", where="exp_id == 'p'")["exp_id"].tolist() == ["p"]
    assert len(reader.df("t", params="exp_id == 'p'")) == 1
    assert len(reader.df("t", params={"exp_id": "p"})) == 1


def test_parameters_that_are_called_as_a_state_is(tmp_path: Path) -> None:
    make(tmp_path, "a", state="cold", started=3, lr=0.5)
    reader = CollectionReader(tmp_path)
    found = reader.runs()
    assert found.columns.is_unique
    assert found.loc["a", ["state", "params.state", "params.started", "lr"]].tolist() == [
        "finished",
        "cold",
        3,
        0.5,
    ]
    assert "cold" in reader._repr_html_()


def test_filters_that_no_run_passes_say_what_there_is(tmp_path: Path) -> None:
    make(tmp_path, "a", lr=0.5)
    make(tmp_path, "b", lr=0.1)
    reader = CollectionReader(tmp_path)
    with pytest.raises(PredicateError, match=r"none of 2 runs passes params='lr == 9'.*lr: 0\.5, 0\.1"):
        reader.df("t", params="lr == 9")
    with pytest.raises(PredicateError, match="none of 2 runs passes exp_filter"):
        reader.compare("t", "x", exp_filter=lambda name: False)


@pytest.mark.parametrize(
    ("params", "runs"),
    [
        ({"layers": [64, 64]}, "a"),
        ({"layers": [[64, 64], [32]]}, "ab"),
        ({"seed": np.array([1, 2])}, "ab"),
        ({"seed": pd.Series([2])}, "b"),
        ({"seed": range(2)}, "a"),
        ({"seed": {2, 3}}, "b"),
    ],
    ids=["list", "lists", "array", "series", "range", "set"],
)
def test_params_take_whatever_holds_values(tmp_path: Path, params: dict[str, Any], runs: str) -> None:
    make(tmp_path, "a", layers=[64, 64], seed=1)
    make(tmp_path, "b", layers=[32], seed=2)
    assert CollectionReader(tmp_path).df("t", params=params)["exp_id"].tolist() == list(runs)


def test_params_that_end_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "a", seed=1)
    with pytest.raises(PredicateError, match="give a list"):
        CollectionReader(tmp_path).df("t", params={"seed": (seed for seed in (1, 2))})


def test_a_run_that_is_deleted_meanwhile_is_left_out(tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path, name)
    reader = CollectionReader(tmp_path)
    shutil.rmtree(tmp_path / "b")
    with pytest.warns(CollectionWarning, match="run b is left out"):
        assert reader.df("t")["exp_id"].tolist() == ["a", "c"]
    with pytest.warns(CollectionWarning, match="run b is left out"):
        assert reader.runs(rows=False).index.tolist() == ["a", "c"]


def test_a_run_whose_state_cannot_be_told_is_left_out_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        make(tmp_path, name)

    def told(run: layout.RunLayout) -> Status:
        if run.root.name == "a":
            raise FormatVersionError("newer")
        return status_of(run)

    monkeypatch.setattr("cox.storage.status.status_of", told)
    with pytest.raises(FormatVersionError):
        CollectionReader(tmp_path).runs(rows=False)
    with pytest.warns(CollectionWarning, match="newer"):
        assert CollectionReader(tmp_path, skip_errs=True).runs(rows=False).index.tolist() == ["b"]


def test_the_rank_is_no_metric(tmp_path: Path) -> None:
    for rank in range(2):
        with cox.Store(tmp_path, "run", rank=rank) as store:
            store.add_table("t", {"x": int}).append_row({"x": rank})
    assert CollectionReader(tmp_path).wide(reduce="max").columns.tolist() == ["t.x.max"]
