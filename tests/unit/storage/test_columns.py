from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cox.errors import DamagedError
from cox.schema import Column, Schema
from cox.storage.columns import Part, TableData, decode_text, dtype_of, mask_of, part_from_rows, values_of

COLUMNS = [
    Column("f", "float"),
    Column("i", "int"),
    Column("s", "str"),
    Column("b", "bool"),
    Column("n", "int", nullable=True),
    Column("o", "object", nullable=True),
]
F, I, S, B, N, O = COLUMNS  # noqa: E741
ROWS = [(0.5, 2**63 - 1, "é\0", True, None, "x"), (math.nan, -(2**63), "", False, 7, None)]


def table(*parts: Part) -> TableData:
    return TableData("t", Schema(COLUMNS), list(parts))


def test_dtypes() -> None:
    assert [dtype_of(column.kind) for column in COLUMNS] == [
        np.float64, np.int64, object, np.bool_, np.int64, object,
    ]  # fmt: skip


def test_rows_become_columns() -> None:
    part = part_from_rows(ROWS, COLUMNS)
    assert part.nrows == 2
    assert list(part.values) == [column.name for column in COLUMNS]
    assert part.values["f"].dtype == np.float64
    assert part.values["i"].tolist() == [2**63 - 1, -(2**63)]
    assert part.values["s"].tolist() == ["é\0", ""]
    assert part.values["b"].dtype == np.bool_
    assert sorted(part.missing) == ["n", "o"]
    assert part.missing["n"].tolist() == [True, False]
    assert part.values["n"].tolist()[1] == 7
    assert mask_of(part, "o").tolist() == [False, True]
    assert mask_of(part, "f").tolist() == [False, False]
    assert mask_of(part, "no such column").tolist() == [True, True]


def test_no_rows_are_a_part_too() -> None:
    part = part_from_rows([], COLUMNS)
    assert part.nrows == 0
    values, missing = table(part).column(F)
    assert (len(values), missing) == (0, None)


def test_shorter_rows_are_from_before_a_column_was_added() -> None:
    part = part_from_rows([(1.0,), (2.0, 5)], [F, N])
    assert part.values["n"].tolist()[1] == 5
    assert part.missing["n"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (F, 1),
        (F, True),
        (F, "1.0"),
        (F, [1.0]),
        (I, 1.0),
        (I, True),
        (I, "1"),
        (S, 1),
        (S, b"x"),
        (B, 1),
        (B, "x"),
        (O, 5),
    ],
)
def test_a_cell_of_another_type_is_damage(column: Column, cell: Any) -> None:
    good = {"float": 1.0, "int": 1, "str": "x", "bool": True, "object": "x"}[column.kind]
    with pytest.raises(DamagedError, match=repr(column.name)):
        part_from_rows([(good,), (cell,)], [column])


def test_an_int_beyond_int64_is_damage() -> None:
    for beyond in (2**63, -(2**63) - 1):
        with pytest.raises((DamagedError, OverflowError)):
            part_from_rows([(beyond,)], [I])


def test_parts_are_joined_and_missing_columns_are_missing() -> None:
    one, other = part_from_rows(ROWS, COLUMNS), part_from_rows([(1.5,)], [F])
    data = table(one, other)
    assert data.nrows == 3
    values, missing = data.column(I)
    assert values.tolist()[:2] == [2**63 - 1, -(2**63)]
    assert missing is not None
    assert missing.tolist() == [False, False, True]
    assert data.has_missing(I)
    assert not data.has_missing(F)
    values, missing = data.column(F)
    assert (values.tolist()[2], missing) == (1.5, None)
    texts, missing = data.column(S)
    assert texts.tolist() == ["é\0", "", ""]
    assert texts.dtype == object


def test_a_table_without_parts_has_empty_columns() -> None:
    for column in COLUMNS:
        values, missing = table().column(column)
        assert (len(values), values.dtype, missing) == (0, dtype_of(column.kind), None)
    assert table().nrows == 0
    assert not table().has_missing(F)


def test_take_keeps_masks_beside_their_values() -> None:
    part = part_from_rows(ROWS * 3, COLUMNS)
    some = part.take(slice(1, 4))
    assert some.nrows == 3
    assert some.missing["n"].tolist() == [False, True, False]
    some = part.take(np.array([True, False, False, False, False, True]))
    assert some.nrows == 2
    assert some.values["i"].tolist() == [2**63 - 1, -(2**63)]
    assert some.missing["n"].tolist() == [True, False]
    assert part.take(slice(0, 0)).nrows == 0
    assert part.take(slice(2, None)).nrows == 4


def test_fixed_width_text_is_decoded_where_it_is_asked_for() -> None:
    stored = np.array(["é漢".encode(), b"", b"a\0b"])
    part = Part(3, {"s": stored})
    assert values_of(part, S).tolist() == ["é漢", "", "a\0b"]
    joined, _ = table(part, Part(1, {"s": np.array(["x"], dtype=object)})).column(S)
    assert joined.tolist() == ["é漢", "", "a\0b", "x"]
    with pytest.raises(DamagedError, match="UTF-8"):
        decode_text(np.array([b"\xff"]))
