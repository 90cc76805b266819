"""What a column takes: missing cells as pandas shows them, and the row that a table was made like."""

from __future__ import annotations

import argparse
import dataclasses
import os
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cox.errors import ClosedError, LossyConversionWarning, PendingRowWarning, RowError, SchemaError
from cox.readers import CollectionReader
from cox.store import OBJECT, PICKLE, Store, _clean_dict, schema_from_dict
from cox.utils import Parameters

KINDS = {"i": int, "s": str, "f": float, "b": bool}


@pytest.mark.parametrize("name", KINDS)
def test_what_df_shows_as_missing_is_taken_back_as_missing(out: Path, name: str) -> None:
    with Store(out, "run") as store:
        store.add_table("a", {name: KINDS[name] | None}).append_row({})
        shown = store["a"].df[name].iloc[0]
        copy = store.add_table("copy", {name: KINDS[name] | None})
        for value in (shown, pd.NA, pd.NaT, None):
            copy.append_row({name: value})
        assert copy.df[name].isna().all()


@pytest.mark.parametrize("nan", [float("nan"), np.float32("nan"), np.float64("nan")])
@pytest.mark.parametrize("name", ["i", "s", "b"])
def test_a_nan_is_a_missing_int_text_or_truth_value(out: Path, name: str, nan: Any) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {name: KINDS[name] | None})
        table.append_row({name: nan})
        assert table.df[name].isna().tolist() == [True]


def test_a_nan_stays_a_measurement_in_a_column_of_floats(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"f": float | None})
        table.append_row({"f": float("nan")})
        table.append_row({"f": None})
        cells = table.df["f"]
        assert cells.isna().tolist() == [False, True]
        assert np.isnan(cells.iloc[0])


def test_a_frame_is_copied_row_by_row(out: Path) -> None:
    schema = {name: kind | None for name, kind in KINDS.items()}
    with Store(out, "run") as store:
        table = store.add_table("t", schema)
        table.append_row({})
        table.append_row({"i": 2**60 + 1, "s": "nan", "f": float("inf"), "b": False})
        copy = store.add_table("copy", schema)
        for _, row in table.df.iterrows():
            copy.append_row(row)
        pd.testing.assert_frame_equal(copy.df, table.df)


@pytest.mark.parametrize("value", [None, pd.NA, float("nan")])
def test_the_refusal_of_a_missing_value_names_the_remedy(out: Path, value: Any) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"i": int})
        with pytest.raises(RowError, match=r"declare the column as int \| None"):
            table.append_row({"i": value})
        with pytest.raises(RowError, match=r"lacks \['i'\].*`int \| None`"):
            table.append_row({})


@pytest.mark.parametrize("value", [pd.NA, float("nan")])
def test_missing_text_where_there_has_to_be_one_is_warned_about(out: Path, value: Any) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"s": str})
        with pytest.warns(LossyConversionWarning, match=r"column 's'"):
            table.append_row({"s": value})
        assert table.df["s"].tolist() == [str(value)]


EXAMPLES: dict[str, Any] = {
    "a large seed": 2**200 + 1,
    "a hash": np.uint64(2**64 - 1),
    "an object array": np.array(2**70, dtype=object),
    "below int64": -(2**63) - 1,
    "a path that is not UTF-8": os.fsdecode(b"/data/caf\xe9"),
    "numpy text that is not UTF-8": np.str_("\ud800"),
    "a time in ns": np.datetime64("2026-01-02T03:04:05", "ns"),
    "a time in s": np.datetime64("2026-01-02T03:04:05", "s"),
    "a span in ns": np.timedelta64(5, "ns"),
    "a complex number": np.complex128(1j),
    "bytes": b"\xff",
    "the largest int": 2**63 - 1,
    "the smallest int": np.int64(-(2**63)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_row_fits_the_table_made_of_it(out: Path, name: str) -> None:
    value = EXAMPLES[name]
    with Store(out, "run") as store:
        store.add_table_like_example("t", {"v": value}).append_row({"v": value})
    back = CollectionReader(out).df("t")["v"].iloc[0]
    assert back == value
    if not isinstance(value, (np.integer, np.str_)):  # numpy's become plain ones
        assert type(back) is type(value) or isinstance(value, (int, np.ndarray))


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    layers: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    "example",
    [
        {"lr": 0.1, "layers": (1, 2)},
        argparse.Namespace(lr=0.1, layers=(1, 2)),
        types.SimpleNamespace(lr=0.1, layers=(1, 2)),
        Config(),
        Parameters({"lr": 0.1, "layers": (1, 2)}),
        pd.Series({"lr": 0.1, "layers": (1, 2)}),
    ],
    ids=lambda example: type(example).__name__,
)
def test_parameters_in_any_dress_make_a_table_and_its_row(out: Path, example: Any) -> None:
    assert schema_from_dict(example) == {"lr": float, "layers": OBJECT}
    with Store(out, "run") as store:
        table = store.add_table_like_example("metadata", example)
        table.append_row(example)
        assert table.df["lr"].tolist() == [0.1]
    assert CollectionReader(out).df("metadata")["layers"].tolist() == [(1, 2)]


@pytest.mark.parametrize("example", [Config, 3, "text", [("lr", 0.1)], None])
def test_what_has_no_names_and_values_is_no_example(out: Path, example: Any) -> None:
    with Store(out, "run") as store:
        with pytest.raises(SchemaError, match="a Namespace or a dataclass"):
            store.add_table_like_example("metadata", example)
        table = store.add_table("t", {"x": int})
        with pytest.raises(RowError, match="a row is a mapping"):
            table.append_row(example)


def test_a_row_that_fails_leaves_no_half_of_itself(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "y": int, "p": PICKLE})
        objects = out / "run" / ".table_objects"
        table.update_row({"y": 5, "p": [0]})
        (kept,) = objects.iterdir()
        with pytest.raises(RowError, match=r"lacks \['x'\]"):
            table.append_row({"y": 6, "p": [1]})
        with pytest.raises(RowError, match="'no'"):
            table.append_row({"p": [2], "x": "no"})
        assert list(objects.iterdir()) == [kept]
        table.append_row({"x": 1})
        assert table.df[["x", "y"]].to_dict("records") == [{"x": 1, "y": 5}]
        assert table.get_pickle(table.df["p"][0]) == [0]


def test_a_row_that_replaces_a_cell_of_the_working_row_leaves_no_file_of_it(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "p": PICKLE})
        table.update_row({"p": [0]})
        table.append_row({"x": 1, "p": [1]})
        assert len(list((out / "run" / ".table_objects").iterdir())) == 1
        with pytest.raises(RowError, match=r"lacks \['x', 'p'\]"):  # the next one begins empty
            table.flush_row()


def test_a_table_without_rows_can_be_declared_anew(out: Path) -> None:
    with Store(out, "run") as store:
        old = store.add_table("t", {"x": int})
        old.update_row({"x": 1})
        with pytest.warns(PendingRowWarning, match=r"'t'.*\['x'\]"):
            new = store.add_table("t", {"x": float, "y": str})
        new.append_row({"x": 0.5, "y": "a"})
        with pytest.raises(ClosedError, match="what add_table returned last"):
            old.flush_row()
        with pytest.raises(SchemaError, match="another schema"):
            store.add_table("t", {"x": int})
        assert store["t"].df.to_dict("records") == [{"x": 0.5, "y": "a"}]


def test_a_table_whose_rows_were_all_rewound_can_be_declared_anew(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
        store.rewind("t", nrows=0)
        store.add_table("t", {"x": str}).append_row({"x": "a"})
    with Store(out, "run", mode="r") as store:
        assert store["t"].df["x"].tolist() == ["a"]


def test_upstreams_clean_dict_takes_numbers_out_of_arrays() -> None:
    row = {"i": np.array(3), "f": np.array(2.5), "b": np.array(True), "o": np.array(4), "s": "a"}
    schema = {"i": int, "f": float, "b": bool, "o": OBJECT, "s": str}
    cleaned = _clean_dict(row, schema)
    assert {name: type(value) for name, value in cleaned.items()} == {
        "i": int,
        "f": float,
        "b": bool,
        "o": np.ndarray,
        "s": str,
    }
    with pytest.raises(KeyError):
        _clean_dict({"unknown": 1}, schema)


def append_with_pandas(path: Path, steps: list[int]) -> None:
    with pd.HDFStore(str(path), "a") as file:
        begin = file.get_storer("t").nrows
        index = range(begin, begin + len(steps))
        file.append("t", pd.DataFrame({"step": steps}, index=index), data_columns=True, index=False)


def test_nrows_counts_rows_that_another_program_appended(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int})
        for step in range(3):
            table.append_row({"step": step})
    append_with_pandas(out / "run" / "store.h5", [3, 4])
    with Store(out, "run", mode="r") as store:
        assert store["t"].nrows == 5
    with Store(out, "run") as store:
        table = store["t"]
        assert table.nrows == len(table.df) == 5
        table.append_row({"step": 5})
        assert table.nrows == 6
        assert table.df["step"].tolist() == [0, 1, 2, 3, 4, 5]
        store.rewind("t", step=4)
        assert table.nrows == 4
        assert table.df["step"].tolist() == [0, 1, 2, 3]
    append_with_pandas(out / "run" / "store.h5", [4])
    store = Store(out, "run")
    store["t"].append_row({"step": 5})
    store.rewind("t", nrows=5)
    store._writer.abandon()  # type: ignore[union-attr] # as dead as a process can be in here
    with Store(out, "run", mode="r") as store:
        assert store["t"].df["step"].tolist() == [0, 1, 2, 3, 4]
