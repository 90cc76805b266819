"""SPEC C8, C9 and C11 to C13: what becomes of a row's values, and how a row becomes one."""

from __future__ import annotations

import decimal
import enum
import fractions
import math
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cox.errors import LossyConversionWarning, RowError, SchemaError
from cox.readers import CollectionReader
from cox.store import OBJECT, PICKLE, Store
from tests.spec.frames import cells, exactly, listing

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
#: What stands for a missing text in the HDF5 file; as a text of its own it has to come back all the same.
MISSING = "\x15cox:missing"

floats = st.one_of(
    st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 2.0**63]),
)
ints = st.one_of(
    st.integers(INT_MIN, INT_MAX),
    st.sampled_from([INT_MIN, INT_MAX, INT_MIN + 1, 2**53, 2**53 + 1, -(2**53) - 1, 0, -1]),
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        ["", "nan", "NaN", "None", "\0", "a\0", "\0a", "a\0\0", MISSING, " ", "\n", "é漢🎲", "x" * 3000]
    ),
)
COLUMNS = {"float": (float, floats), "int": (int, ints), "str": (str, texts), "bool": (bool, st.booleans())}
#: One strategy for each column: the four types, and each of them again as one that may be missing.
SCHEMA: dict[str, Any] = {}
VALUES: dict[str, st.SearchStrategy[Any]] = {}
for _name, (_type, _values) in COLUMNS.items():
    SCHEMA[_name], VALUES[_name] = _type, _values
    SCHEMA[f"{_name}?"], VALUES[f"{_name}?"] = _type | None, st.none() | _values

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: exactly(row[name] for row in rows) for name in SCHEMA}


def read(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {name: exactly(cells(frame[name])) for name in frame if name != "exp_id"}


def stored(folder: Path, kind: Any, values: list[Any]) -> list[Any]:
    """What a column gives back: the same by every way of reading, open and closed."""
    with Store(folder, "run") as store:
        table = store.add_table("t", {"x": kind})
        for value in values:
            table.append_row({"x": value})
        live = cells(table.df["x"])
    with Store(folder, "run", mode="r") as store:
        closed = cells(store["t"].df["x"])
    assert exactly(live) == exactly(closed)
    return closed


# --- C8


@MANY
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=6), st.integers(0, 6))
@example(
    [
        dict.fromkeys(SCHEMA, None) | {"float": -0.0, "int": INT_MAX, "str": "nan", "bool": False},
        {
            "float": math.nan,
            "float?": math.nan,
            "int": INT_MIN,
            "int?": INT_MAX,
            "str": "a\0",
            "str?": MISSING,
            "bool": True,
            "bool?": False,
        },
    ],
    1,
)
def test_c08_what_was_stored_reads_back_equal(rows: list[dict[str, Any]], first: int) -> None:
    expected = columns_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder, "run") as store:
            table = store.add_table("t", SCHEMA)
            for row in rows[:first]:
                table.append_row(row)
            store.close()  # some of the rows folded, some in the journal
            with Store(folder, "run") as store:
                table = store.add_table("t", SCHEMA)
                for row in rows[first:]:
                    table.append_row(row)
                assert read(table.df) == expected
                with Store(folder, "run", mode="r") as reader:
                    assert read(reader["t"].df) == expected
                with CollectionReader(folder) as collection:
                    assert read(collection.df("t")) == expected
        with Store(folder, "run", mode="r") as reader:
            assert read(reader["t"].df) == expected
        with CollectionReader(folder) as collection:
            assert read(collection.df("t")) == expected
        _check_with_pandas(pd.read_hdf(Path(folder, "run", "store.h5"), "t"), rows)


def _check_with_pandas(frame: pd.DataFrame, rows: list[dict[str, Any]]) -> None:
    """pandas has what it can hold: text without a NUL at its end, missing numbers as nan."""
    assert list(frame) == list(SCHEMA)
    assert list(frame.index) == list(range(len(rows)))
    for name in ("float", "int", "bool"):
        assert exactly(frame[name].tolist()) == exactly(row[name] for row in rows)
    for row, text in zip(rows, frame["str"], strict=True):
        assert text == row["str"].rstrip("\0")
    for row, text in zip(rows, frame["str?"], strict=True):
        if row["str?"] is None:
            assert pd.isna(text)
        else:
            assert text == row["str?"].rstrip("\0")
    for name in ("float?", "int?", "bool?"):
        for row, value in zip(rows, frame[name], strict=True):
            absent = row[name] is None or row[name] != row[name]
            assert (
                math.isnan(value)
                if absent
                else value == (row[name] if type(value) is int else float(row[name]))
            )


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (float, 1, 1.0),
        (float, True, 1.0),
        (float, "1e-3", 0.001),
        (float, " nan ", math.nan),
        (float, "-inf", -math.inf),
        (float, 2**53, 2.0**53),
        (float, np.float32(0.1), float(np.float32(0.1))),
        (float, np.float16(0.1), float(np.float16(0.1))),
        (float, np.array(0.25), 0.25),
        (float, np.array([0.25]), 0.25),
        (float, np.array([[[3]]]), 3.0),
        (float, np.int64(-3), -3.0),
        (float, np.bool_(True), 1.0),
        (float, fractions.Fraction(1, 4), 0.25),
        (float, decimal.Decimal("0.5"), 0.5),
        (int, True, 1),
        (int, 2.0, 2),
        (int, -0.0, 0),
        (int, "12", 12),
        (int, " -7\n", -7),
        (int, b"12", 12),
        (int, np.int8(-3), -3),
        (int, np.uint64(2**63 - 1), INT_MAX),
        (int, np.float64(4.0), 4),
        (int, np.array([5]), 5),
        (int, np.array(5, dtype=np.uint8), 5),
        (int, enum.IntEnum("Level", {"HIGH": 3})["HIGH"], 3),
        (str, None, "None"),
        (str, 1.5, "1.5"),
        (str, True, "True"),
        (str, [1, "a"], "[1, 'a']"),
        (str, {"a": 1}, "{'a': 1}"),
        (str, Path("a") / "b", "a/b"),
        (str, np.str_("é"), "é"),
        (str, np.array("x"), "x"),
        (str, np.float32(0.5), "0.5"),
        (str, b"x", "b'x'"),
        (str, ValueError("why"), "why"),
        (bool, 1, True),
        (bool, 0, False),
        (bool, 1.0, True),
        (bool, 0.0, False),
        (bool, np.bool_(False), False),
        (bool, np.array([True]), True),
        (bool, np.int64(0), False),
    ],
)
def test_c08_converts_as_python_does(out: Path, kind: type, given: Any, expected: Any) -> None:
    assert exactly(stored(out, kind, [given])) == exactly([expected])


def test_c08_tensors(out: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is optional")
    weight = torch.tensor(0.5, requires_grad=True)
    given = [
        weight,
        weight * 2,
        torch.tensor([[0.25]]),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor(3),
        torch.tensor(math.nan),
    ]
    expected = [0.5, 1.0, 0.25, 0.10009765625, 3.0, math.nan]
    assert exactly(stored(out / "float", float, given)) == exactly(expected)
    assert stored(
        out / "int", int, [torch.tensor(3), torch.tensor([4.0]), torch.tensor(True), torch.tensor(INT_MAX)]
    ) == [3, 4, 1, INT_MAX]
    assert stored(out / "bool", bool, [torch.tensor(True), torch.tensor([0]), torch.tensor(1.0)]) == [
        True,
        False,
        True,
    ]
    assert stored(out / "str", str, [torch.tensor(1.0)]) == ["tensor(1.)"]
    with Store(out, "run") as store, pytest.raises(RowError, match="table 't', column 'x'"):
        store.add_table("t", {"x": float}).append_row({"x": torch.tensor([1.0, 2.0])})


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (int, 2.7, 2),
        (int, -0.5, 0),
        (int, np.float32(2.5), 2),
        (int, decimal.Decimal("2.5"), 2),
        (float, 2**53 + 1, 2.0**53),
        (float, INT_MAX, 2.0**63),
        (float, decimal.Decimal("0.1"), 0.1),
        (float, fractions.Fraction(1, 3), 1 / 3),
        (bool, "no", True),
        (bool, "", False),
        (bool, 2, True),
        (bool, 0.5, True),
        (bool, math.nan, True),
        (bool, None, False),
        (bool, [], False),
        (bool, "False", True),
    ],
)
def test_c08_what_loses_something_warns_once_for_each_column(
    out: Path, kind: type, given: Any, expected: Any
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("loss table", {"x": kind, "y": kind})
        rows = [{"x": given, "y": other} for other in (kind(), given, given)]
        with pytest.warns(LossyConversionWarning) as warned:
            list(map(table.append_row, rows))
        texts = [str(warning.message) for warning in warned]
        assert len(texts) == 2
        for text, column in zip(texts, "xy", strict=True):
            assert f"table 'loss table', column '{column}'" in text
            assert repr(given) in text
            assert repr(expected) in text
        assert exactly(table.df["x"].tolist()) == exactly([expected] * 3)


def test_c08_a_warning_points_to_the_line_that_gave_the_value(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"a": int, "b": int, "c": int})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table.update_row({"a": 1.5})
            table.append_row({"b": 2.5, "c": 1})
            store.log_table_and_tb("t", {"c": 2.5})
            table.update_row({"a": 1, "b": 1})
            table.flush_row()
        assert [warning.filename for warning in caught] == [__file__] * 3
        first = caught[0].lineno
        assert [warning.lineno - first for warning in caught] == [0, 1, 2]


class Stubborn:
    """A value whose every method fails, as in a library that is being taken apart."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.error

    def fail(self, *_: object) -> Any:
        raise self.error

    __float__ = __int__ = __index__ = __bool__ = __str__ = __repr__ = fail


@pytest.mark.parametrize(
    ("kind", "given", "allowed"),
    [
        (int, 2**63, str(INT_MAX)),
        (int, 2**70, str(INT_MIN)),
        (int, -(2**63) - 1, str(INT_MIN)),
        pytest.param(int, 10**5000, "int", id="int-huge"),
        (int, np.uint64(2**63), str(INT_MAX)),
        (int, None, "an int from"),
        (int, "x", "an int from"),
        (int, "2.5", "an int from"),
        (int, "", "an int from"),
        (int, math.nan, "an int from"),
        (int, math.inf, "an int from"),
        (int, 1e300, "an int from"),
        (int, [1], "an int from"),
        (int, np.array([1, 2]), "an int from"),
        (int, 1j, "an int from"),
        (float, None, "a number"),
        (float, "x", "a number"),
        (float, "", "a number"),
        (float, [], "a number"),
        (float, np.array([]), "a number"),
        (float, np.array([1.0, 2.0]), "a number"),
        (float, 10**400, "a number"),
        (float, 1j, "a number"),
        (float, np.datetime64("2020-01-01"), "a number"),
        (bool, np.array([True, False]), "a truth value"),
        (str, "\ud800", "text"),
        (int, Stubborn(AttributeError("no")), "an int from"),
        (float, Stubborn(ZeroDivisionError("no")), "a number"),
        (bool, Stubborn(KeyError("no")), "a truth value"),
        (str, Stubborn(RuntimeError("no")), "text"),
    ],
)
def test_c08_what_cannot_be_converted_is_refused_and_the_row_stays_usable(
    out: Path, kind: type, given: Any, allowed: str
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("loss table", {"before": int, "x": kind, "p": PICKLE})
        table.update_row({"before": 1})
        with pytest.raises(RowError, match="table 'loss table', column 'x'") as refused:
            table.update_row({"before": 2, "p": [1], "x": given})
        assert isinstance(refused.value, ValueError)
        assert allowed in str(refused.value)
        assert len(str(refused.value)) < 2000
        with pytest.raises(RowError, match="column 'x'"):
            table.append_row({"x": given, "p": [1]})
        assert table.nrows == 0
        assert listing(out / "run" / ".table_objects") == []
        table.update_row({"x": kind(), "p": [2]})
        table.flush_row()
        assert table.df["before"].tolist() == [1]  # the refused update changed nothing of the row
        assert exactly(table.df["x"].tolist()) == exactly([kind()])


def test_c08_the_error_shows_the_value_but_not_a_book_of_it(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float})
        with pytest.raises(RowError, match="'seven'"):
            table.append_row({"x": "seven"})
        with pytest.raises(RowError) as refused:
            table.append_row({"x": "y" * 10**6})
        assert len(str(refused.value)) < 2000


def test_c08_every_dtype_of_numpy_as_a_column_type(out: Path) -> None:
    schema = {"f": np.float32, "i": np.int64, "u": np.uint8, "b": np.bool_, "s": np.str_}
    with Store(out, "run") as store:
        table = store.add_table("t", schema)
        assert table.schema == {"f": float, "i": int, "u": int, "b": bool, "s": str}
        table.append_row({"f": 0.1, "i": 1, "u": 300, "b": True, "s": "x"})
        assert table.df.iloc[0].tolist() == [0.1, 1, 300, True, "x"]


# --- C8n


@pytest.mark.parametrize(
    "optional",
    [lambda kind: kind | None, lambda kind: Optional[kind], lambda kind: None | kind],  # noqa: UP045
    ids=["type | None", "Optional[type]", "None | type"],
)
def test_c08n_nullable_columns_keep_none_exactly(out: Path, optional: Callable[[type], Any]) -> None:
    values = {
        float: [None, math.nan, 0.0, -0.0, 1.5, None, math.inf],
        int: [None, INT_MAX, INT_MIN, 2**53 + 1, 0, None, -1],
        str: [None, "", "nan", "None", MISSING, None, "a\0"],
        bool: [None, True, False, False, True, None, False],
    }
    schema = {kind.__name__: optional(kind) for kind in values}
    with Store(out, "run") as store:
        table = store.add_table("t", schema)
        assert table.schema == {kind.__name__: kind | None for kind in values}
        for row in range(7):
            table.append_row({kind.__name__: listed[row] for kind, listed in values.items()})
        frames = [table.df]
    for _ in range(2):  # folded once, and once more together with a further row
        with Store(out, "run") as store:
            frames.append(store["t"].df[:7])
            assert store["t"].schema == schema or store["t"].schema == {k.__name__: k | None for k in values}
            store["t"].append_row({})
    with CollectionReader(out) as reader:
        frames.append(reader.df("t")[:7])
    for frame in frames:
        for kind, listed in values.items():
            column = frame[kind.__name__]
            assert exactly(cells(column)) == exactly(listed)
            if kind is not float:
                assert column.isna().tolist() == [value is None for value in listed]


def test_c08n_a_row_may_be_flushed_without_them(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "f": float | None, "s": str | None})
        table.append_row({"x": 1})
        table.update_row({"x": 2, "f": 0.5})
        table.update_row({"f": None})  # said, and taken back
        table.flush_row()
        table.append_row({"x": 3, "s": "a", "f": 1})
        with pytest.raises(RowError, match=r"lacks \['x'\]"):
            table.flush_row()
        assert cells(table.df["f"]) == [None, None, 1.0]
        assert cells(table.df["s"]) == [None, None, "a"]
        with pytest.raises(RowError, match="column 'f'"):
            table.append_row({"x": 4, "f": "x"})
    with Store(out, "all") as store:
        table = store.add_table("t", {"f": float | None})
        table.append_row({})
        table.flush_row()
        assert cells(table.df["f"]) == [None, None]


def test_c08n_numbers_without_a_missing_cell_are_numbers_to_pandas(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"i": int | None, "b": bool | None, "s": str | None})
        table.append_row({"i": INT_MAX, "b": True, "s": "x"})
    frame = pd.read_hdf(out / "run" / "store.h5", "t")
    assert frame["i"].tolist() == [INT_MAX]
    assert frame["b"].tolist() == [True]
    assert frame["s"].tolist() == ["x"]


# --- C8e

ADDED = {
    "f": (float, 0.5),
    "i": (int, 7),
    "s": (str, "x"),
    "b": (bool, True),
    "o": (OBJECT, [1]),
    "p": (PICKLE, {"a": 1}),
}


@pytest.mark.parametrize("moment", ["fresh", "reopened", "folded"])
@pytest.mark.parametrize("rank", [None, 3])
def test_c08e_a_column_added_later_is_missing_before(
    out: Path, moment: str, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(out, "run", rank=rank)
    table = store.add_table("t", {"x": int})
    table.append_row({"x": 1})
    if moment == "reopened":
        store.close()
        store = Store(out, "run", rank=rank)
        table = store["t"]
    elif moment == "folded":
        monkeypatch.setattr("cox.storage.writer.FOLD_AT", 1)
        table._state.writer.fold_at = 1
        table.append_row({"x": 1})
        table.append_row({"x": 1})
    before = table.nrows
    with Store(out, "run", mode="r") as reader, store:
        for name, (kind, _) in ADDED.items():
            table.add_column(name, kind)
        for frame in (table.df, reader["t"].df):  # before any row has them
            assert [name for name in frame if name != "rank"] == ["x", *ADDED]
            assert all(cells(frame[name]) == [None] * before for name in ADDED)
        assert list(reader["t"].schema) == list(table.schema)
        table.append_row({"x": 2, **{name: value for name, (_, value) in ADDED.items()}})
        table.append_row({"x": 3})  # later rows may leave them out
        for frame in (table.df, reader["t"].df):
            _check_added(frame, before, rank)
    with Store(out, "run", rank=rank) as again:
        _check_added(again["t"].df, before, rank)
        again["t"].append_row({"x": 4, "i": 9})
        assert cells(again["t"].df["i"]) == [*[None] * before, 7, None, 9]
        again.add_table("t", {"x": int})  # the script as it was before the column was thought of
        with pytest.raises(SchemaError, match="'i'"):
            again["t"].add_column("i", float)
    with CollectionReader(out) as reader:
        frame = reader.df("t")
        assert cells(frame["i"]) == [*[None] * before, 7, None, 9]
        assert cells(frame["s"]) == [*[None] * before, "x", None, None]
        assert cells(frame["o"]) == [*[None] * before, [1], None, None]
        assert cells(frame["p"]) == [*[None] * before, {"a": 1}, None, None]
        if rank is not None:
            assert frame["rank"].tolist() == [rank] * len(frame)


def _check_added(frame: pd.DataFrame, before: int, rank: int | None) -> None:
    assert frame["x"].tolist() == [*[1] * before, 2, 3]
    for name in ("f", "i", "s", "b"):
        assert cells(frame[name]) == [*[None] * before, ADDED[name][1], None]
    if rank is not None:
        assert frame["rank"].tolist() == [rank] * len(frame)


def test_c08e_adding_it_without_another_row_is_kept(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    with Store(out, "run") as store:
        store["t"].add_column("y", float)
        store["t"].add_column("y", float)  # harmless
    for mode in ("r", "a"):
        with Store(out, "run", mode=mode) as store:
            assert store["t"].schema == {"x": int, "y": float | None}
            assert cells(store["t"].df["y"]) == [None]


def test_c08e_before_the_first_row_it_belongs_to_the_declaration(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int})
        table.add_column("y", str)
        assert list(table.df) == ["x", "y"]
        table.append_row({"x": 1, "y": "a"})
        table.append_row({"x": 2})
        assert cells(table.df["y"]) == ["a", None]


@pytest.mark.parametrize(("name", "kind"), [("y", list), (5, int), ("\ud800", int)])
def test_c08e_a_column_that_cannot_be_is_refused(out: Path, name: Any, kind: Any) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int})
        table.append_row({"x": 1})
        with pytest.raises(SchemaError, match="table 't'"):
            table.add_column(name, kind)
        table.append_row({"x": 2})
        assert list(table.df) == ["x"]


def test_c08e_another_process_sees_it_live(out: Path, start: Callable[..., Any]) -> None:
    writer = start(
        """
        import sys
        from cox.store import Store

        table = Store(sys.argv[1], "run").add_table("t", {"x": int})
        table.append_row({"x": 1})
        print("declared")
        sys.stdin.readline()
        table.add_column("y", float)
        table.append_row({"x": 2, "y": 0.5})
        print("added")
        sys.stdin.readline()
        """,
        out,
    )
    assert writer.line() == "declared"
    with Store(out, "run", mode="r") as reader, CollectionReader(out) as collection:
        assert list(reader["t"].df) == ["x"]
        writer.tell()
        assert writer.line() == "added"
        assert cells(reader["t"].df["y"]) == [None, 0.5]
        assert reader["t"].schema == {"x": int, "y": float | None}
        assert cells(collection.df("t")["y"]) == [None, 0.5]
    writer.tell()
    writer.finish()


# --- C9


def test_c09_long_strings(out: Path) -> None:
    listed = [
        "x",
        "x" * 100_000,
        "é漢",
        "",
        "\0",
        "a\0b\0",
        "🎲" * 1000,
        "e\u0301",
        "\u202e",
        " \t\r\n",
        "x" * 10,
    ]
    with Store(out, "run") as store:
        table = store.add_table("t", {"s": str, "o": OBJECT, "p": OBJECT})
        for text in listed:
            table.append_row({"s": text, "o": text, "p": [text]})
        assert table.df["s"].tolist() == listed
    with Store(out, "run") as store:  # folded; another row, wider than all before it
        assert store["t"].df["s"].tolist() == listed
        store["t"].append_row({"s": "y" * 200_000, "o": "z" * 200_000, "p": 1})
        listed.append("y" * 200_000)
    with Store(out, "run", mode="r") as store:
        frame = store["t"].df
        assert frame["s"].tolist() == listed
        assert [store["t"].get_object(cell) for cell in frame["o"]] == [*listed[:-1], "z" * 200_000]
    with CollectionReader(out) as reader:
        assert reader.df("t")["p"].tolist()[:2] == [["x"], ["x" * 100_000]]
    from_pandas = pd.read_hdf(out / "run" / "store.h5", "t")["s"].tolist()
    assert from_pandas == [text.rstrip("\0") for text in listed]


def test_c09_object_columns_of_any_size_in_any_order(out: Path) -> None:
    objects = [list(range(1000)), 1, "", {"a": "x" * 50_000}, None]
    with Store(out, "run") as store:
        table = store.add_table("t", {"o": OBJECT})
        for value in objects:
            table.append_row({"o": value})
        assert [table.get_object(cell) for cell in table.df["o"]] == objects
    with CollectionReader(out) as reader:
        assert reader.df("t")["o"].tolist() == objects


# --- C11


def test_c11_nothing_is_visible_before_the_flush(out: Path) -> None:
    with Store(out, "run") as store, Store(out, "run", mode="r") as reader:
        table = store.add_table("t", {"x": int, "y": float, "s": str})
        table.update_row({"x": 1, "y": 0.5})
        table.update_row({"s": "a", "y": 1.5})
        assert table.nrows == len(table.df) == 0
        assert list(reader.keys) == []
        table.flush_row()
        assert table.df.to_dict("records") == [{"x": 1, "y": 1.5, "s": "a"}]
        assert reader["t"].df.to_dict("records") == [{"x": 1, "y": 1.5, "s": "a"}]
        table.update_row({"x": 2})
        assert table.nrows == len(reader["t"].df) == 1
        table.update_row({"y": 2.5, "s": "b"})
        table.flush_row()
        assert table.df["x"].tolist() == [1, 2]


def test_c11_an_unknown_column_is_named_with_those_there_are(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "p": PICKLE})
        table.update_row({"x": 1})
        for call in (table.update_row, table.append_row):
            with pytest.raises(RowError, match=r"'t'.*'los'.*\['x', 'p'\]") as refused:
                call({"x": 2, "p": [1], "los": 1.0})
            assert isinstance(refused.value, ValueError)
        assert listing(out / "run" / ".table_objects") == []
        table.update_row({"p": 1})
        table.flush_row()
        assert table.df["x"].tolist() == [1]


# --- C12


def test_c12_missing_columns_are_named_and_the_row_can_be_completed(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "y": float, "s": str, "n": int | None})
        with pytest.raises(RowError, match=r"\['x', 'y', 's'\]") as refused:
            table.flush_row()
        assert isinstance(refused.value, ValueError)
        table.update_row({"y": 0.5})
        with pytest.raises(RowError, match=r"'t'.*\['x', 's'\]"):
            table.flush_row()
        with pytest.raises(RowError, match=r"\['s'\]"):
            table.append_row({"x": 1})
        assert table.nrows == 0
        table.update_row({"x": 1, "s": "a"})  # the x of the row that failed is not kept, y is
        table.flush_row()
        assert table.df[["x", "y", "s"]].to_dict("records") == [{"x": 1, "y": 0.5, "s": "a"}]
        with pytest.raises(RowError, match=r"\['x', 'y', 's'\]"):  # a new row begins empty
            table.flush_row()


# --- C13


def test_c13_append_is_update_and_flush(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "y": int})
        table.update_row({"y": 5})
        table.append_row({"x": 1})
        table.append_row({"y": 7, "x": 2})  # in any order
        row = {"x": 3, "y": 9}
        assert table.append_row(row) is None
        assert row == {"x": 3, "y": 9}
        assert table.df.to_dict("list") == {"x": [1, 2, 3], "y": [5, 7, 9]}


def test_c13_the_index_runs_from_zero(out: Path) -> None:
    for session in range(3):
        with Store(out, "run") as store:
            table = store.add_table("t", {"x": int})
            for at in range(4):
                table.append_row({"x": 4 * session + at})
            assert list(table.df.index) == table.df["x"].tolist() == list(range(4 * session + 4))
    assert list(pd.read_hdf(out / "run" / "store.h5", "t").index) == list(range(12))


@pytest.mark.parametrize("data", [{"x": 1, "y": 2, "z": 3}, {"x": 1}, {"y": 2, "z": 3}, {}])
def test_c13_the_fast_way_refuses_what_the_slow_one_does(out: Path, data: dict[str, int]) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int, "y": int})
        table.append_row({"x": 1, "y": 2})  # from here on, rows have a fast way
        with pytest.raises(RowError):
            table.append_row(data)
        table._drop_working_row()  # `x` stands there, waiting for `y`
        assert table.nrows == len(table.df) == 1


def test_c13_the_fast_way_converts_as_the_slow_one(out: Path) -> None:
    first = {"i": 1, "f": 1.0, "s": "a", "b": True}
    with Store(out, "run") as store:
        table = store.add_table("t", {"i": int, "f": float, "s": str, "b": bool})
        for row in (
            first,
            {"i": True, "f": 2, "s": None, "b": 1},
            {"f": np.float64(3), "b": np.bool_(0), "i": "3", "s": np.str_("c")},
            first,
        ):
            table.append_row(row)
        for row in (
            {**first, "i": 2**63},
            {**first, "i": -(2**63) - 1},
            {**first, "s": "\ud800"},
            {**first, "f": None},
        ):
            with pytest.raises(RowError):
                table.append_row(row)
            table._drop_working_row()
        expected = {
            "i": [1, 1, 3, 1],
            "f": [1.0, 2.0, 3.0, 1.0],
            "s": ["a", "None", "c", "a"],
            "b": [True, True, False, True],
        }
        assert {name: exactly(table.df[name].tolist()) for name in expected} == {
            name: exactly(values) for name, values in expected.items()
        }
