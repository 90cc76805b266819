"""A line for each run: parameters, filters by them, last rows, and what became of each metric."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cox
from cox.collection import overview
from cox.collection.blocks import Block
from cox.errors import ColumnNotFoundError, CompareError, PredicateError, TableNotFoundError
from cox.schema import Schema
from cox.storage.columns import Part
from cox.utils import Parameters
from tests.caching import count_reads, kept_at_once, make, settle
from tests.spec.frames import cells


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_at_once(monkeypatch)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that no test changes."""
    return make_sweep(tmp_path_factory.mktemp("sweep"))


def make_sweep(tmp_path: Path) -> Path:
    """Four runs; the last has no parameters, and `c` one of its own."""
    given = {
        "a": {"lr": 0.1, "arch": "vgg", "layers": 3},
        "b": {"lr": 0.2, "arch": "resnet", "layers": 5},
        "c": {"lr": 0.1, "arch": "resnet", "wd": 1e-4},
    }
    types = {"lr": float, "arch": str, "layers": int, "wd": float}
    for name, params in given.items():
        make(
            tmp_path,
            name,
            params,
            {**params, "lr": 99.0},
            table="metadata",
            **{key: types[key] for key in params},
        )
    for at, name in enumerate("abcd"):
        rows = [{"step": step, "loss": 1.0 / (step + at + 1), "note": f"{name}{step}"} for step in range(3)]
        make(tmp_path, name, *rows, table="results", step=int, loss=float, note=str)
    settle(tmp_path)
    return tmp_path


@pytest.mark.parametrize("cache", [False, True], ids=["files", "cache"])
@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"lr": 0.1}, "ac"),
        ({"lr": [0.1, 0.2]}, "abc"),
        ({"lr": (0.2, 5)}, "b"),
        ({"layers": range(4)}, "a"),
        ({"arch": {"resnet", "vgg"}}, "abc"),
        ({"lr": 0.1, "arch": "resnet"}, "c"),
        ({"wd": None}, "abd"),
        ({"exp_id": ["a", "d"]}, "ad"),
        ({}, "abcd"),
        ("lr < 0.15", "ac"),
        ("lr < 0.15 and arch == 'resnet'", "c"),
        ("layers >= 3", "ab"),
        ("exp_id == 'd'", "d"),
        ("wd > 0", "c"),
        (lambda params: params.get("layers", 0) > 3, "b"),
        (lambda params: not params, "d"),
        (lambda params: params.clear() or True, "abcd"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_runs_by_their_parameters(sweep: Path, cache: bool, params: Any, names: str) -> None:
    for _ in range(2):
        with cox.CollectionReader(sweep, cache=cache) as reader:
            frame = reader.df("results", params=params)
            assert frame["exp_id"].tolist() == [name for name in names for _ in range(3)]
            assert reader.runs(params=params, rows=False).index.tolist() == [*names]


def test_only_their_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(tmp_path)
    with cox.CollectionReader(sweep, cache=True) as reader:
        reader.params()
        reads = count_reads(monkeypatch)
        reader.df("results", params={"lr": 0.2})
    assert reads == ["b"]


def test_unknown_parameters_are_told_with_the_nearest(sweep: Path) -> None:
    with cox.CollectionReader(sweep) as reader:
        for params in ({"layerz": 3}, "layerz > 3"):
            with pytest.raises(
                ColumnNotFoundError, match="no run has a parameter 'layerz'.*'layers'"
            ) as told:
                reader.df("results", params=params)
            for known in ("lr", "arch", "layers", "wd", "exp_id"):
                assert repr(known) in str(told.value)
        with pytest.raises(PredicateError):
            reader.df("results", params="lr <")
        with pytest.raises(TableNotFoundError):
            reader.df("result", params={"lr": 0.1})
    with (
        cox.CollectionReader(sweep, metadata="nowhere") as reader,
        pytest.raises(ColumnNotFoundError, match="no run has a row in its table 'nowhere'"),
    ):
        reader.df("results", params={"lr": 0.1})


def test_params_are_the_first_row(sweep: Path) -> None:
    for _ in range(2):
        frame = cox.CollectionReader(sweep, cache=True).params()
        assert frame.index.tolist() == [*"abcd"]
        assert frame.index.name == "exp_id"
        assert cells(frame["lr"])[:3] == [0.1, 0.2, 0.1]
        assert math.isnan(frame["lr"]["d"])
        assert [frame["layers"][name] for name in "ab"] == [3, 5]
        assert frame["arch"].isna().tolist() == [False] * 3 + [True]


def test_the_inner_parameters_of_one_column(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "a") as store:
        store.add_table("metadata", {"params": cox.OBJECT, "host": str}).append_row(
            {"params": Parameters({"lr": 0.1, "inner": {"x": [1]}}).as_dict(), "host": "h"}
        )
    with cox.Store(tmp_path, "b") as store:
        store.add_table("metadata", {"params": cox.OBJECT}).append_row({"params": [1, 2]})
    frame = cox.CollectionReader(tmp_path).params()
    assert frame["lr"].tolist()[0] == 0.1
    assert frame["inner"]["a"] == {"x": [1]}
    assert frame["params"]["b"] == [1, 2]


def test_parameters_that_cannot_be_decoded_are_shown_as_such(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "a") as store:
        store.add_table("metadata", {"model": cox.PICKLE, "lr": float}).append_row({"model": [1], "lr": 0.1})
    for path in (tmp_path / "a" / ".table_objects").iterdir():
        path.write_bytes(b"no pickle")
    frame = cox.CollectionReader(tmp_path).params()
    assert frame["model"]["a"].startswith("<")
    assert frame["lr"]["a"] == 0.1


def test_runs_show_the_last_row_of_each_table(sweep: Path) -> None:
    for cache in (False, True, True):
        frame = cox.CollectionReader(sweep, cache=cache).runs()
        assert list(frame)[:4] == ["state", "started", "duration", "host"]
        assert frame["state"].tolist() == ["finished"] * 4
        assert frame["results.step"].tolist() == [2] * 4
        assert frame["results.note"].tolist() == ["a2", "b2", "c2", "d2"]
        assert frame["results.loss"].tolist() == [1 / 3, 1 / 4, 1 / 5, 1 / 6]
        assert str(frame["started"].dt.tz) == "UTC"
        assert (frame["duration"].dt.total_seconds() >= 0).all()
        assert "results.step" not in cox.CollectionReader(sweep, cache=cache).runs(rows=False)
    assert cox.CollectionReader(sweep).runs(exp_filter=lambda name: name > "b").index.tolist() == ["c", "d"]


def test_wide_has_what_became_of_each_metric(sweep: Path) -> None:
    for cache in (False, True, True):
        reader = cox.CollectionReader(sweep, cache=cache)
        frame = reader.wide()
        assert (
            frame["results.loss.last"].tolist()
            == frame["results.loss.min"].tolist()
            == [1 / 3, 1 / 4, 1 / 5, 1 / 6]
        )
        assert frame["results.loss.max"].tolist() == [1.0, 1 / 2, 1 / 3, 1 / 4]
        assert "results.note.last" not in frame
        assert frame["lr"].tolist()[:3] == [0.1, 0.2, 0.1]
    assert [name for name in reader.wide("results", "max") if "." in name] == [
        "results.step.max",
        "results.loss.max",
    ]
    assert reader.wide(params={"lr": 0.2}).index.tolist() == ["b"]
    with pytest.raises(CompareError, match="'mean'.*'last', 'min', 'max'"):
        reader.wide(reduce=["mean"])
    with pytest.raises(TableNotFoundError, match="result.*results"):
        reader.wide(["result"])


def test_a_folder_without_runs(tmp_path: Path) -> None:
    reader = cox.CollectionReader(tmp_path)
    assert reader.params().shape == (0, 0)
    assert list(reader.runs()) == ["state", "started", "duration", "host"]
    assert reader.wide().shape == (0, 0)


# --- By blocks


SCHEMA = Schema.declare({"x": float | None, "n": int | None, "s": str | None, "o": cox.OBJECT}, table="t")


def blocks() -> list[Block]:
    """Two blocks: runs of two, one and three rows, and one of a single row."""
    part = Part(
        6,
        {
            "x": np.array([math.nan, 2.0, 7.0, 5.0, -1.0, math.nan]),
            "n": np.array([2**60 + 1, 2, 3, 4, 5, 6]),
            "s": np.array(["a", "b", "c", "d", "e", "f"], dtype=object),
            "o": np.array(["{}"] * 6, dtype=object),
        },
        {
            "x": np.array([0, 0, 1, 0, 0, 0], dtype=np.bool_),
            "n": np.array([0, 1, 0, 0, 0, 1], dtype=np.bool_),
        },
    )
    return [
        Block(SCHEMA, part, ["p", "q", "r"], np.array([2, 1, 3])),
        Block(SCHEMA, part.take(slice(0, 1)), ["z"], np.array([1])),
    ]


def test_reductions_pass_over_missing_cells_and_nan() -> None:
    found = {name: {} for name in [*"pqrz", "none"]}
    frame = overview.wide(found, {"t": blocks()})
    assert cells_of(frame["t.x.last"]) == [2.0, None, -1.0, None, None]
    assert cells_of(frame["t.x.min"]) == [2.0, None, -1.0, None, None]
    assert cells_of(frame["t.x.max"]) == [2.0, None, 5.0, None, None]
    assert cells_of(frame["t.n.last"]) == [2.0**60, 3.0, 5.0, 2.0**60, None]
    assert [name for name in frame if name.startswith(("t.s", "t.o"))] == []


def test_last_rows_are_last_though_cells_of_them_are_missing() -> None:
    frame = overview.values_frame(overview.lasts(blocks(), [*"pqrz", "none"]))
    assert frame["s"].tolist()[:4] == ["b", "c", "f", "a"]
    assert frame["n"].isna().tolist() == [True, False, True, False, True]
    assert "o" not in frame


def test_parameters_are_of_the_first_row() -> None:
    found = overview.parameters(blocks(), [*"pqrz", "none"], lambda name, column, cell: f"{name}:{cell}")
    assert found["none"] == {}
    assert [found[name]["s"] for name in "pqrz"] == ["p:a", "q:c", "r:d", "z:a"]
    assert [found[name]["x"] for name in "qr"] == [None, "r:5.0"]


def cells_of(column: Any) -> list[float | None]:
    return [None if math.isnan(value) else value for value in column.tolist()]


def test_values_that_compare_by_element_or_not_at_all() -> None:
    found: dict[str, dict[str, Any]] = {
        "a": {"x": np.array([1, 2])},
        "b": {"x": math.nan},
        "c": {"x": [1, 2]},
    }
    assert overview.filtered(found, {"x": [[1, 2]]}, "metadata") == ["a", "c"]
    assert overview.filtered(found, {"x": math.nan}, "metadata") == []
