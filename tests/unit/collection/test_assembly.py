"""From blocks of rows to one frame: conditions, missing cells, the numbers of rows, objects run by run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox
from cox import predicates
from cox.collection.assembly import Collected, counted, object_columns, refuse_unknown
from cox.collection.blocks import Block
from cox.errors import ColumnNotFoundError, DamagedError, PredicateError, UntrustedObjectError
from cox.schema import Schema
from cox.storage.columns import Part
from tests.caching import assert_same, df, kept_at_once, make, settle

XS = Schema.declare({"x": int | None, "s": str}, table="t")
X = Schema.declare({"x": float}, table="t")


def block(schema: Schema, names: str, lengths: list[int], *, missing: Any = (), **values: Any) -> Block:
    part = Part(sum(lengths), {name: np.array(cells) for name, cells in values.items()})
    if len(missing):
        part.missing["x"] = np.array(missing, dtype=np.bool_)
    return Block(schema, part, list(names), np.array(lengths))


@pytest.fixture
def two() -> Collected:
    """Four runs in two blocks, of different columns."""
    texts = np.array(["p", "q", "p", "q", "p"], dtype=object)
    first = block(XS, "ab", [2, 3], x=[1, 2, 3, 4, 5], s=texts, missing=[0, 0, 0, 1, 0])
    second = block(X, "cd", [1, 2], x=[0.5, 2.5, 9.0])
    return Collected("t", WHOLE, [first, second])


WHOLE = Schema.declare({"x": float | None, "s": str}, table="t")


def where(found: Collected, condition: str) -> pd.DataFrame:
    return found.where(predicates.parse(condition), WHOLE).frame({}, append_exp_id=True)


def test_all_of_it(two: Collected) -> None:
    frame = two.frame({}, append_exp_id=True)
    assert frame["exp_id"].tolist() == [*"aabbbcdd"]
    assert frame.index.tolist() == [0, 1, 0, 1, 2, 0, 0, 1]
    assert frame["x"].isna().tolist() == [False] * 3 + [True] + [False] * 4
    assert frame["s"].isna().tolist() == [False] * 5 + [True] * 3
    assert list(two.frame({}, append_exp_id=False)) == ["x", "s"]


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("x >= 2", [("a", 1), ("b", 0), ("b", 2), ("d", 0), ("d", 1)]),
        ("x == 5", [("b", 2)]),
        ("x > 100", []),
        ("s == 'p'", [("a", 0), ("b", 0), ("b", 2)]),
        ("exp_id == 'd'", [("d", 0), ("d", 1)]),
        ("exp_id != 'b' and x > 0.5", [("a", 0), ("a", 1), ("d", 0), ("d", 1)]),
        ("x < 1 or s == 'q'", [("a", 1), ("b", 1), ("c", 0)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_fit_keep_their_numbers(
    two: Collected, condition: str, rows: list[tuple[str, int]]
) -> None:
    frame = where(two, condition)
    assert list(zip(frame["exp_id"], frame.index, strict=True)) == rows
    assert list(frame) == ["x", "s", "exp_id"]
    pd.testing.assert_series_equal(frame.dtypes, two.frame({}, append_exp_id=True).dtypes)


def test_a_condition_upon_a_condition_keeps_the_first_numbers(two: Collected) -> None:
    once = two.where(predicates.parse("x >= 2"), WHOLE)
    found, _ = once.decoded(
        lambda *_: 0, ["x"], frozenset(), lambda name, read: None if name == "b" else read()
    )
    assert found.index(found.lengths).tolist() == [1, 0, 1]
    assert found.names == ["a", "d"]


def test_blocks_of_runs_without_a_row_left(two: Collected) -> None:
    found = two.where(predicates.parse("exp_id == 'c'"), WHOLE)
    assert found.names == ["c"]
    assert [one.names for one in found.blocks] == [[], ["c"]]
    assert found.lengths.tolist() == [1]


def test_unknown_columns_are_told_with_the_nearest(two: Collected) -> None:
    with pytest.raises(
        ColumnNotFoundError, match=r"where='exp_idd == 1': no column 'exp_idd'.*'exp_id'.*exp_id"
    ) as told:
        where(two, "exp_idd == 1")
    assert "['x', 's', 'exp_id']" in str(told.value)
    assert isinstance(told.value, KeyError)
    refuse_unknown([], [], "nothing")


def test_conditions_on_objects_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "a", {"o": [1]}, o=cox.OBJECT)
    with pytest.raises(PredicateError, match="column 'o' holds objects"):
        df(tmp_path, where="o == 1")


def test_counted() -> None:
    assert counted(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
    assert counted(np.array([], dtype=np.int64)).tolist() == []


def test_nothing_at_all() -> None:
    found = Collected("t", XS, [])
    assert found.lengths.tolist() == []
    frame = found.frame({}, append_exp_id=True)
    assert (list(frame), len(frame)) == (["x", "s", "exp_id"], 0)


def test_which_columns_hold_objects() -> None:
    plain = Schema.declare({"o": str, "p": cox.PICKLE, "q": cox.PYTORCH_STATE, "x": int}, table="t")
    mixed = Schema.declare({"o": cox.OBJECT}, table="t")
    assert object_columns([plain], frozenset()) == ["p"]
    assert object_columns([plain, mixed], frozenset()) == ["o", "p"]
    assert object_columns([plain, mixed], frozenset({"p", "o"})) == ["o"], "some have it as text"
    assert object_columns([mixed], frozenset({"o"})) == []


# --- Through a reader, with a cache and without


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kept_at_once(monkeypatch)
    for name, shift in (("a", 0), ("b", 10)):
        rows = [{"x": x + shift, "n": None if x % 2 else x / 2, "s": f"{x}"} for x in range(4)]
        make(tmp_path, name, *rows, x=int, n=float | None, s=str | None)
    make(tmp_path, "c", {"x": 0.5}, x=float)
    settle(tmp_path)
    df(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"where": "x > 1"}, [("a", 2), ("a", 3), *(("b", x) for x in range(4))]),
        ({"where": "x > 1", "columns": ["s"]}, [("a", 2), ("a", 3), *(("b", x) for x in range(4))]),
        ({"where": "n >= 0"}, [("a", 0), ("a", 2), ("b", 0), ("b", 2)]),
        ({"where": "s == '3'", "columns": ["n", "x"]}, [("a", 3), ("b", 3)]),
        ({"where": "x < 1", "columns": []}, [("a", 0), ("c", 0)]),
        ({"where": "exp_id == 'b' and x == 11", "append_exp_id": False}, [("b", 1)]),
    ],
    ids=["number", "another column", "missing", "two columns", "no column", "run"],
)
def test_where_and_columns(runs: Path, options: dict[str, Any], rows: list[tuple[str, int]]) -> None:
    frame = assert_same(runs, **options)
    assert frame.index.tolist() == [number for _, number in rows]
    if "append_exp_id" not in options:
        assert frame["exp_id"].tolist() == [name for name, _ in rows]
    if "columns" in options:
        assert list(frame) == [*options["columns"], "exp_id"]


def test_columns_in_any_order_as_one_name_and_unknown(runs: Path) -> None:
    whole = df(runs)
    pd.testing.assert_frame_equal(assert_same(runs, columns=["s", "x"]), whole[["s", "x", "exp_id"]])
    assert list(assert_same(runs, columns="n")) == ["n", "exp_id"]
    with pytest.raises(
        ColumnNotFoundError, match=r"table 't' has no column 'sx'; there are \['x', 'n', 's'\]"
    ):
        df(runs, columns=["x", "sx"])
    with pytest.raises(ColumnNotFoundError, match="no column 'y'"):
        df(runs, where="y > 1", columns=["x"])


def test_objects_are_decoded_from_the_cache_as_far_as_their_run_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_at_once(monkeypatch)
    for name in "ab":
        make(tmp_path, name, {"o": [1], "p": {"k": name}}, {"o": None, "p": name}, o=cox.OBJECT, p=cox.PICKLE)
    settle(tmp_path)
    df(tmp_path)
    found = assert_same(tmp_path)
    assert found["p"].tolist() == [{"k": "a"}, "a", {"k": "b"}, "b"]
    assert found["o"].tolist() == [[1], None, [1], None]
    for path in (tmp_path / "a" / ".table_objects").iterdir():
        path.write_bytes(b"changed")
    with pytest.raises((DamagedError, UntrustedObjectError), match="run .*a"):
        df(tmp_path)
    with pytest.warns(cox.errors.CollectionWarning, match="run a is left out"):
        assert df(tmp_path, skip_errors=True)["exp_id"].tolist() == ["b", "b"]
    assert len(df(tmp_path, columns=["o"])) == 4, "what is not asked for is not decoded"
