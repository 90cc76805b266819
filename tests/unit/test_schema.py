from __future__ import annotations

import decimal
import math
from typing import Any, Optional, Union

import numpy as np
import pytest

from cox.errors import RowError, SchemaError
from cox.schema import (
    INT_MAX,
    INT_MIN,
    KINDS,
    OBJECT,
    PICKLE,
    PYTORCH_STATE,
    Column,
    Schema,
    as_count,
    as_number,
    convert,
    describe_difference,
    infer,
    type_name,
)
from cox.tensorboard.curves import whole_step

FLOAT, INT, TEXT, TRUTH = (Column("x", kind) for kind in ("float", "int", "str", "bool"))


def declare(given: Any) -> Column:
    return Column.declare("x", given, table="t")


class WithItem:
    """What an array or a tensor is to cox: something with `.item()`."""

    def __init__(self, element: Any) -> None:
        self.element = element

    def item(self) -> Any:
        return self.element


class WithItems:
    """`item` here is a value, not a method."""

    item = 5

    def __float__(self) -> float:
        return 0.5


# --- declare


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_type_that_declares_it(kind: str) -> None:
    column = declare(KINDS[kind].given)
    assert (column.name, column.kind, column.nullable) == ("x", kind, False)
    assert column.type == KINDS[kind].given


@pytest.mark.parametrize("kind", ["float", "int", "str", "bool"])
def test_optional_types_are_nullable(kind: str) -> None:
    plain = KINDS[kind].given
    for given in (plain | None, None | plain, Optional[plain], Union[plain, None], Union[None, plain]):  # noqa: UP007, UP045
        column = declare(given)
        assert (column.kind, column.nullable) == (kind, True)
        assert column.type == plain | None


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (np.float64, "float"),
        (np.float16, "float"),
        (np.int32, "int"),
        (np.uint64, "int"),
        (np.intp, "int"),
        (np.bool_, "bool"),
        (np.str_, "str"),
        (np.float32 | None, "float"),
    ],
)
def test_numpys_scalar_types_are_column_types(given: Any, kind: str) -> None:
    assert declare(given).kind == kind


@pytest.mark.parametrize(
    "given",
    [
        None,
        type(None),
        list,
        dict,
        object,
        complex,
        bytes,
        np.complex64,
        np.datetime64,
        np.ndarray,
        np.bytes_,
        "float",
        "object",
        "",
        5,
        [],
        float | int,
        Union[int, str, None],  # noqa: UP007
        type("float64", (), {}),
    ],
)
def test_other_types_are_refused_with_those_there_are(given: Any) -> None:
    with pytest.raises(
        SchemaError, match=r"table 't', column 'x': .*use one of float, int, str, bool.*OBJECT"
    ):
        declare(given)


@pytest.mark.parametrize("name", [5, None, b"x", ("x",), 1.0])
def test_names_are_strings(name: Any) -> None:
    with pytest.raises(SchemaError, match="table 't'.*string"):
        Column.declare(name, float, table="t")


def test_names_are_valid_unicode() -> None:
    with pytest.raises(SchemaError, match="unicode"):
        Column.declare("\ud800", float, table="t")
    assert Column.declare("", float, table="t").name == ""


# --- Schema


def test_a_schema_keeps_its_order_and_tells_its_types() -> None:
    given = {"b": float, "a": int | None, "o": OBJECT, "p": PICKLE, "s": PYTORCH_STATE}
    schema = Schema.declare(given, table="t")
    assert schema.names() == ("b", "a", "o", "p", "s")
    assert schema.to_user() == given
    assert list(schema.to_user()) == list(given)
    assert len(schema) == 5
    assert "a" in schema
    assert "z" not in schema
    assert schema.get("z") is None
    assert [column.exact_type for column in schema] == [float, int, str, str, str]
    with pytest.raises(SchemaError, match="at least one column"):
        Schema.declare({}, table="t")


def test_json_round_trips() -> None:
    schema = Schema.declare({"a": int | None, "é\n": OBJECT, "": bool}, table="t")
    assert Schema.from_json(schema.to_json()) == schema
    assert hash(Schema.from_json(schema.to_json())) == hash(schema)


@pytest.mark.parametrize(
    "broken", [5, [5], ["ab"], [["a", "float"]], [["a", "float", False, 1]], None, [None]]
)
def test_json_that_is_no_schema_is_refused(broken: Any) -> None:
    with pytest.raises(SchemaError, match="no list of"):
        Schema.from_json(broken)


def test_json_of_a_newer_kind_is_refused_by_name() -> None:
    with pytest.raises(SchemaError, match="'quaternion'.*float"):
        Schema.from_json([["a", "quaternion", False]])


def test_with_column_is_a_new_schema() -> None:
    schema = Schema.declare({"a": int}, table="t")
    larger = schema.with_column(declare(float | None))
    assert larger.to_user() == {"a": int, "x": float | None}
    assert schema.to_user() == {"a": int}
    assert larger != schema


def test_equality_minds_order_kind_and_nullability() -> None:
    def made(**columns: Any) -> Schema:
        return Schema.declare(columns, table="t")

    assert made(a=int, b=float) == made(a=int, b=float)
    assert made(a=int, b=float) != made(b=float, a=int)
    assert made(a=int) != made(a=float)
    assert made(a=int) != made(a=int | None)
    assert made(a=int) != {"a": int}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": int}, {"a": int}, ""),
        ({"a": int, "b": int}, {"b": int, "a": int}, ""),
        ({"a": int}, {"b": int}, "lacks ['a']; adds ['b']"),
        ({"a": int}, {"a": float}, "has 'a' as float, was int"),
        ({"a": OBJECT}, {"a": PICKLE}, "has 'a' as PICKLE, was OBJECT"),
        ({"a": int}, {"a": int | None}, "has 'a' as int | None, was int"),
    ],
)
def test_a_difference_is_a_sentence(old: Any, new: Any, said: str) -> None:
    assert describe_difference(Schema.declare(old, table="t"), Schema.declare(new, table="t")) == said


@pytest.mark.parametrize(
    ("given", "name"),
    [(float, "float"), (OBJECT, "OBJECT"), (PYTORCH_STATE, "PYTORCH_STATE"), (int | None, "int | None")],
)
def test_type_names_are_those_a_user_writes(given: Any, name: str) -> None:
    assert type_name(given) == name


# --- infer


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, int),
        (1.0, float),
        ("", str),
        (True, bool),
        (np.float32(1), float),
        (np.int8(1), int),
        (np.uint64(1), int),
        (np.bool_(1), bool),
        (np.str_("x"), str),
        (np.array(1.5), float),
        (np.array(1), int),
        (np.array(True), bool),
        (np.array("x"), str),
        (np.array([1.5]), OBJECT),
        (None, OBJECT),
        ([], OBJECT),
        (1j, OBJECT),
        (b"", OBJECT),
        (np.complex64(1), OBJECT),
        (np.datetime64("2020"), OBJECT),
        (np.array(None), OBJECT),
        (decimal.Decimal(1), OBJECT),
        (WithItem(1.0), OBJECT),
    ],
)
def test_infer(value: Any, expected: Any) -> None:
    assert infer({"x": value}) == {"x": expected}


def test_infer_refuses_an_alternative_that_is_none() -> None:
    for wrong in ("object", float, None, ""):
        with pytest.raises(SchemaError, match="OBJECT, PICKLE or PYTORCH_STATE"):
            infer({"x": 1}, wrong)


# --- convert: the table

# value, column, result, whether something was lost
TABLE: list[tuple[Any, Column, Any, bool]] = [
    # to float
    (1, FLOAT, 1.0, False),
    (True, FLOAT, 1.0, False),
    (-0.0, FLOAT, -0.0, False),
    (math.nan, FLOAT, math.nan, False),
    (2**53, FLOAT, 2.0**53, False),
    (2**53 + 1, FLOAT, 2.0**53, True),
    (2**1000, FLOAT, 2.0**1000, False),
    (3**1000 // 3**400, FLOAT, float(3**600), True),
    ("nan", FLOAT, math.nan, False),
    ("0.1", FLOAT, 0.1, False),
    ("1_000", FLOAT, 1000.0, False),
    (np.float32(0.1), FLOAT, float(np.float32(0.1)), False),
    (np.longdouble("0.1"), FLOAT, 0.1, np.longdouble("0.1") != 0.1),
    (decimal.Decimal("0.5"), FLOAT, 0.5, False),
    (decimal.Decimal("0.1"), FLOAT, 0.1, True),
    (np.array([[7]]), FLOAT, 7.0, False),
    (WithItem(0.5), FLOAT, 0.5, False),
    (WithItems(), FLOAT, 0.5, None),
    # to int
    (INT_MIN, INT, INT_MIN, False),
    (INT_MAX, INT, INT_MAX, False),
    (True, INT, 1, False),
    (2.0, INT, 2, False),
    (-0.0, INT, 0, False),
    (2.7, INT, 2, True),
    (-2.7, INT, -2, True),
    (5e-324, INT, 0, True),
    ("12", INT, 12, False),
    (" 12 ", INT, 12, False),
    (np.uint64(INT_MAX), INT, INT_MAX, False),
    (np.float32(2.5), INT, 2, True),
    (np.bool_(True), INT, 1, False),
    (decimal.Decimal("2.0"), INT, 2, False),
    # to bool
    (1, TRUTH, True, False),
    (0, TRUTH, False, False),
    (0.0, TRUTH, False, False),
    (-0.0, TRUTH, False, False),
    (2, TRUTH, True, True),
    ("no", TRUTH, True, True),
    ("", TRUTH, False, True),
    (None, TRUTH, False, True),
    ([], TRUTH, False, True),
    ([0], TRUTH, True, True),
    (math.nan, TRUTH, True, True),
    (np.bool_(False), TRUTH, False, False),
    (np.array([2]), TRUTH, True, True),
    # to str: whatever it is, its text
    ("x", TEXT, "x", False),
    (1.0, TEXT, "1.0", False),
    (None, TEXT, "None", False),
    ([1], TEXT, "[1]", False),
    (np.float32(0.5), TEXT, "0.5", False),
    ("\0", TEXT, "\0", False),
]


@pytest.mark.parametrize(
    ("value", "column", "expected", "lossy"), TABLE, ids=lambda value: type(value).__name__
)
def test_convert(value: Any, column: Column, expected: Any, lossy: bool | None) -> None:
    made = convert(value, column, table="t")
    assert type(made.value) is column.exact_type
    assert made.value == expected or made.value != made.value and expected != expected
    assert math.copysign(1, made.value) == math.copysign(1, expected) if column is FLOAT else True
    if lossy is not None:
        assert made.lossy is bool(lossy)


@pytest.mark.parametrize(
    ("value", "column"),
    [
        *(
            (value, INT)
            for value in (
                INT_MAX + 1,
                INT_MIN - 1,
                2**70,
                1e19,
                math.inf,
                math.nan,
                None,
                "x",
                "1.5",
                "",
                [],
                1j,
            )
        ),
        *(
            (value, FLOAT)
            for value in (None, "x", "", [], {}, 10**400, 1j, object(), np.array([1, 2]), np.array([]))
        ),
        *((value, TRUTH) for value in (np.array([1, 0]), np.array([]))),
        *((value, TEXT) for value in ("\ud800", "a\udfffb")),
    ],
)
def test_what_cannot_be_converted_is_refused(value: Any, column: Column) -> None:
    with pytest.raises(RowError, match=r"table 'losses', column 'x': .* is not "):
        convert(value, column, table="losses")


def test_none_is_a_value_of_nullable_columns_only() -> None:
    for kind in ("float", "int", "str", "bool"):
        assert convert(None, Column("x", kind, nullable=True), table="t") == (None, False)


def test_a_subclass_of_str_is_stored_as_a_str() -> None:
    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            return self

    made = convert(Loud("x"), TEXT, table="t").value
    assert type(made) is str
    assert made == "x"


@pytest.mark.parametrize("value", [2**53 + 1, np.int64(2**53 + 1), np.array([2**53 + 1]), 3.0, np.float32(3)])
def test_a_number_of_any_library_is_taken_exactly(value: Any) -> None:
    whole = int(np.asarray(value).item())
    assert as_number(value) == as_count(value) == whole_step(value) == whole


@pytest.mark.parametrize("value", [True, np.True_, "3", b"3", math.nan, math.inf, None, [3], np.ones(2), 0.5])
def test_what_is_not_a_whole_number_is_no_count_and_no_step(value: Any) -> None:
    assert as_count(value) is None
    with pytest.raises(RowError, match="not a whole number of 64 bits"):
        whole_step(value)
