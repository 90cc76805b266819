from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cox.errors import ColumnNotFoundError, PredicateError
from cox.predicates import MAX_DEPTH, MAX_LENGTH, parse

BIG = 2**53 + 1
NAN = math.nan
ROW: dict[str, Any] = {
    "i": 3,
    "f": 0.5,
    "b": True,
    "s": "resnet",
    "big": BIG,
    "nan": NAN,
    "none": None,
    "zero": 0,
    "list": [1],
    "f(x)": 1,
    "a b": "x",
    "": 7,
    "lr.é/y": 2,
    "class": 4,
    "ﬁ": 6,
}


def mask(text: str, **columns: Any) -> list[bool]:
    frame = {
        name: column if isinstance(column, pd.Series) else pd.Series(column)
        for name, column in columns.items()
    }
    made = parse(text).mask(frame.__getitem__, len(next(iter(frame.values()))))
    assert made.dtype == np.bool_
    return list(made)


def one_row(value: Any) -> pd.Series[Any]:
    """The column that holds a value as cox would."""
    if value is None:
        return pd.Series([None], dtype="Int64")
    return pd.Series([value]) if not isinstance(value, list) else pd.Series([value], dtype=object)


# --- what holds

HOLDS = [
    ("i > 2 and f < 1", True),
    ("i > 3 or f < 0.5", False),
    ("not i > 3", True),
    ("0.1 <= f < 1", True),
    ("0.1 <= f < 0.5", False),
    ("1 < i in (2, 3)", True),
    ("i in [1, 2]", False),
    ("i not in {1, -2}", True),
    ("i in ()", False),
    ("none not in ()", True),
    ("s in ('vit', 'resnet')", True),
    ("s in ('vit', 1)", False),
    ("'res' in s", True),
    ("'vit' in s", False),
    ("'vit' not in s", True),
    ("'.' in s", False),  # no regular expression
    ("b", True),
    ("not b", False),
    ("b and True", True),
    ("b == 1", True),
    ("i + 1 == 4", True),
    ("i - -1 == 4", True),
    ("-i < +f", True),
    ("i / 2 == 1.5", True),
    ("-i // 2 == -2", True),
    ("-i % 2 == 1", True),
    ("i ** 2 == 9", True),
    ("f ** -2 == 4", True),
    ("10 ** -3 == 0.001", True),
    ("(i > 2) == b", True),
    ("1 < 2", True),
    ("s < 'resnett'", True),
    ("s == 'resnet\\0'", False),
    # integers are exact
    ("big == 9007199254740993", True),
    ("big == 9007199254740992", False),
    ("big > 9007199254740992.0", True),
    ("big == 9007199254740992.0", False),
    ("big < 2 ** 64", True),
    ("big > -340282366920938463463374607431768211455", True),
    ("big < 99999999999999999999999", True),
    ("big * 2 == 18014398509481986", True),
    ("big * big > 8e31", True),  # beyond 64 bits: a float, and no wrapping around
    ("i ** 64 > 3e30", True),
    ("big / 1 == 9007199254740992", True),
    # nan is a value
    ("nan != 1", True),
    ("nan == nan", False),
    ("nan < 1", False),
    ("not nan < 1", True),
    ("nan is None", False),
    # missing cells
    ("none == 1", False),
    ("none != 1", False),
    ("not none > 1", False),
    ("not (none > 1 and i > 5)", True),
    ("none > 1 or i == 3", True),
    ("none > 1 and i == 3", False),
    ("none + 1 > 0", False),
    ("none is None", True),
    ("none == None", True),
    ("None != none", False),
    ("i is not None", True),
    ("none in (1, None)", True),
    ("none in (1, 2)", False),
    ("none not in (1, 2)", False),
    ("i not in (1, None)", True),
    ("'a' in none", False),
    ("none", False),
    ("not none", False),
    ("(none > 1) is None", True),
    # a division by zero is unknown
    ("i / zero > 0", False),
    ("not i / zero > 0", False),
    ("i % zero is None", True),
    ("i // zero is None", True),
    ("zero ** -1 is None", True),
    ("1 / 0 is None", True),
    # text and numbers
    ("s == 1", False),
    ("s != 1", True),
    ("list == 1", False),
    ("list != 'a'", True),
    ("list is not None", True),
    # odd names
    ("`f(x)` > 0", True),
    ("`a b` == 'x'", True),
    ("'`a b`' == `a b`", False),
    ("`` == 7", True),
    ("`lr.é/y` == 2 and `class`==4", True),
    ("ﬁ == 6", True),  # Python itself would read fi
    (" \n i > 2\n and\tf < 1 ", True),
    ("i\xa0> 2", True),
    ("s != '\\d'", True),  # an escape that Python warns of
]


@pytest.mark.parametrize(("text", "expected"), HOLDS, ids=[text for text, _ in HOLDS])
def test_what_holds_of_a_run_and_of_a_row(text: str, expected: bool) -> None:
    predicate = parse(text)
    assert predicate.holds(ROW) is expected
    rows = predicate.mask(lambda name: one_row(ROW[name]), 1)
    assert (rows.dtype, rows.tolist()) == (np.bool_, [expected])


def test_a_predicate_tells_its_text_and_names_and_can_be_pickled() -> None:
    predicate = parse("`f(x)` > 0 and x in (1, 2) or 'a' in s")
    assert predicate.names == {"f(x)", "x", "s"}
    assert predicate == parse(predicate.text)
    assert predicate != parse("x > 0")
    assert pickle.loads(pickle.dumps(predicate)).holds({"f(x)": 1, "x": 2})


def test_a_name_that_a_run_lacks_is_missing() -> None:
    assert not parse("x != 1").holds({})
    assert parse("x is None").holds({})
    assert parse("x == 2").holds({"x": np.int64(2)})


def test_a_column_is_asked_for_once_and_its_error_passes_through() -> None:
    asked = []

    def column(name: str) -> pd.Series[Any]:
        asked.append(name)
        if name == "y":
            raise ColumnNotFoundError("no column 'y'")
        return pd.Series([1, 2])

    assert parse("x > 1 and x < 5").mask(column, 2).tolist() == [False, True]
    assert asked == ["x"]
    with pytest.raises(ColumnNotFoundError, match="no column 'y'"):
        parse("y > 1").mask(column, 2)


# --- columns

MISSING_FLOAT = pd.Series(pd.arrays.FloatingArray(np.array([NAN, 1.0, 2.0]), np.array([False, False, True])))


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("x != 1", pd.Series([NAN, 1.0, 2.0]), [1, 0, 1]),
        ("x != 1", MISSING_FLOAT, [1, 0, 0]),
        ("x is None", MISSING_FLOAT, [0, 0, 1]),
        ("x > 1", pd.Series([1, None, BIG], dtype="Int64"), [0, 0, 1]),
        (f"x == {BIG}", pd.Series([BIG - 1, None, BIG], dtype="Int64"), [0, 0, 1]),
        ("not x", pd.Series([True, None, False], dtype="boolean"), [0, 0, 1]),
        ("x != 'a'", pd.Series(["a", None, "b"]), [0, 0, 1]),
        ("x != 'a'", pd.Series(["a", None, "b"], dtype=object), [0, 0, 1]),
        ("x < 'b'", pd.Series(["a", None, "b"], dtype=object), [1, 0, 0]),
        ("x != 'a'", pd.Series(["a", None, "b"], dtype="string"), [0, 0, 1]),
        ("x != 'a'", pd.Series(["a", None, "b"], dtype="category"), [0, 0, 1]),
        ("'a' in x", pd.Series(["ba", None, "b"], dtype=object), [1, 0, 0]),
        ("x in ('a', None)", pd.Series(["a", None, "b"], dtype=object), [1, 1, 0]),
        ("x not in ('a', 'c')", pd.Series(["a", None, "b"]), [0, 0, 1]),
        ("x != 1", pd.Series([1, "a", None], dtype=object), [0, 1, 0]),
        ("x + 1 > 1", pd.Series([1, None, None], dtype=object), [1, 0, 0]),
        ("x > 0", pd.Series([2**64 - 1, 0, 1], dtype="uint64"), [1, 0, 1]),
        ("x == 2 ** 63", pd.Series([2**63, 2**63 + 1, 1], dtype="uint64"), [1, 0, 0]),
        ("x * 2 == 254", pd.Series([127, -1, 1], dtype="int8"), [1, 0, 0]),
        ("x == 0.1", pd.Series([0.1, 0.1, 0.1], dtype="float32"), [0, 0, 0]),
        ("x < 1", pd.Series([None, None, None], dtype=object), [0, 0, 0]),
        ("x == 1", pd.Series([1, 2, 1], index=[5, 5, 0]), [1, 0, 1]),
        ("x == 'a'", pd.Series(["a", "b", "a"], index=[5, 5, 0]), [1, 0, 1]),
    ],
    ids=lambda value: getattr(value, "dtype", None) and str(value.dtype),
)
def test_columns_of_every_dtype(text: str, column: pd.Series[Any], expected: list[int]) -> None:
    assert mask(text, x=column) == [bool(cell) for cell in expected]


@pytest.mark.parametrize("left", ["str", "object", "string"])
@pytest.mark.parametrize("right", ["str", "object", "string"])
def test_text_columns_of_different_dtypes_compare(left: str, right: str) -> None:
    one = pd.Series(["a", None, "c"]).astype(object).where([True, False, True], None)
    other = pd.Series(["a", "b", "d"], index=[2, 1, 0])
    columns = {"x": one if left == "str" else one.astype(left), "y": other.astype(right)}
    assert mask("x == y", **columns) == [True, False, False]
    assert mask("x < y", **columns) == [False, False, True]


def test_constants_alone_fill_the_mask() -> None:
    assert parse("True").mask(pytest.fail, 2).tolist() == [True, True]
    assert parse("1 > 2 or 1 / 0 > 1").mask(pytest.fail, 2).tolist() == [False, False]


def test_no_rows() -> None:
    for text in ("x > 1", "x ** 3 > 2.5", "x", "x < 'a'", "'a' in x", "x in ('a', 1)", "x in ()"):
        for dtype in ("int64", "Float64", "object"):
            assert parse(text).mask(lambda _, dtype=dtype: pd.Series([], dtype=dtype), 0).shape == (0,)


def test_the_mask_is_the_callers_own() -> None:
    column = pd.Series([True, False])
    parse("x").mask(lambda _: column, 2)[:] = True
    assert column.tolist() == [True, False]


# --- what is refused

REFUSED = [
    ("lr = 0.1", 3, "use == in the place of ="),
    ("a && b", 2, "use and"),
    ("a & b", 2, "use and"),
    ("a || b", 2, "use or"),
    ("a | b", 2, "use or"),
    ("!a", 0, "use not"),
    ("a <> 1", 2, "use !="),
    ("a =< 1", 2, "use <="),
    ("a => 1", 2, "use >="),
    ("é == 'ü' and `ß` = 1", 17, "use =="),
    ("a == 'x", 5, "quote is never closed"),
    ('a == "x', 5, "quote is never closed"),
    ("`a > 1", 0, "backtick is never closed"),
    ("(a > 1", 0, "never closed"),
    ("`é` == 1 and (a > 1", 13, "never closed"),
    ("'ü' == a and é b", 15, "names, numbers"),
    ("a <", 3, "names, numbers"),
    ("", 0, "empty"),
    (" \n", 0, "empty"),
    ("a > 1 # b", 6, "no comments"),
    ("a == '''b'''", 5, "single quotes"),
    ("'é' == `é` and f(x)", 15, r"f\(x\) is no condition by itself.*names, numbers"),
    ("`é` == 1 and 1 < f(x)", 17, r"f\(x\) has no place here.*backticks"),
    ("  a.b > 1", 2, r"a\.b has no place here.*backticks"),
    ("a[0] > 1", 0, "no place here"),
    ("(lambda: 1) > 1", 1, "no place here"),
    ("[x for x in y] > 1", 0, "no place here"),
    ("f'{x}' > 'a'", 0, "no place here"),
    ("(x := 1) > 0", 1, "no place here"),
    ("(1 if x else 2) > 1", 1, "no place here"),
    ("b'a' == x", 0, "no place here"),
    ("x < 1j", 4, "no place here"),
    ("x < ...", 4, "no place here"),
    ("(1, 2) == x", 0, "no place here"),
    ("x << 2 > 1", 0, "no place here"),
    ("~x > 1", 0, "no place here"),
    ("x and lr + 1", 6, r"lr \+ 1 is no condition by itself"),
    ("1", 0, "no condition by itself"),
    ("'a' or x", 0, "no condition by itself"),
    ("not None", 4, "no condition by itself"),
    ("'a' * 1000 == x", 0, "numbers only"),
    ("x + 'a' == 'b'", 4, "numbers only"),
    ("-True == x", 1, "numbers only"),
    ("x ** 65 > 1", 5, "from 1 to 64"),
    ("x ** 0 > 1", 5, "from 1 to 64"),
    ("x ** y > 1", 5, "from 1 to 64"),
    ("x ** 0.5 > 1", 5, "from 1 to 64"),
    ("x is 5", 5, "only None"),
    ("x is not True", 9, "only None"),
    ("x < None", 0, "None has no order"),
    ("x in y", 0, "with constants"),
    ("'a' in 'abc'", 7, "with a name"),
    ("x in (1, y)", 9, "is a constant"),
    ("x in (1, 2) < 3", 5, "a list is no value"),
    ("x in (1, 2) is None", 5, "a list is no value"),
    ("x in (1)", 0, "with constants"),
    ("x in (1, (2, 3))", 9, "is a constant"),
    ("`a``b` > 1", 0, "runs together"),
    ("not`x`", 0, "runs together"),
    ("x > 1\0", 5, "NUL"),
    ("x == '\ud800'", 0, "no text"),
]


@pytest.mark.parametrize(("text", "place", "reason"), REFUSED, ids=[ascii(text) for text, *_ in REFUSED])
def test_what_is_no_condition_is_refused_where_it_stands(text: str, place: int, reason: str) -> None:
    with pytest.raises(PredicateError, match=reason) as caught:
        parse(text)
    _, shown, caret, _ = str(caught.value).split("\n")
    assert caret == " " * (4 + place) + "^"
    assert shown == "    " + "".join(c if c.isprintable() else " " for c in text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "x" + ")" * 5000,
        "-" * 9000 + "x > 1",
        "not " * 2000 + "x",
        "+".join(["1"] * 4000) + " > 1",
        "(" * 150 + "x" + ")" * 150 + ">" + "x+(" * 150 + "x" + ")" * 150,
        "x > " + "9" * 5000,
        "x" * (MAX_LENGTH + 1),
        "'" * 9001,
        "[" * 5000,
        "lambda:" * 1400,
        "x" + " if x else x" * 800,
        "f'{" * 3000,
    ],
    ids=lambda text: text[:8],
)
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(PredicateError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1000


def test_hostile_texts_are_refused_in_a_thread_too() -> None:
    caught: list[Exception] = []

    def run() -> None:
        with pytest.raises(PredicateError) as error:
            parse("-" * 9000 + "x > 1")
        caught.append(error.value)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_nesting_as_deep_as_allowed_is_evaluated_in_linear_time() -> None:
    text = "x"
    for _ in range(MAX_DEPTH - 1):
        text = f"0 <= {text} + 1 < 9" if text == "x" else f"False <= ({text}) <= True"
    assert parse(text).holds({"x": 1})
    assert mask(text, x=[1, 10]) == [True, True]
    with pytest.raises(PredicateError, match="flatter"):
        parse("not " * (MAX_DEPTH + 1) + "x")


def test_long_flat_conditions_are_fine() -> None:
    text = " or ".join(f"x == {number}" for number in range(700))
    assert mask(text, x=[699, 700]) == [True, False]
    assert parse(f"x in {tuple(range(1500))}").holds({"x": 1499})


def test_results_do_not_grow_without_bound() -> None:
    text = "((x ** 64) ** 64) ** 64 > 1e300"
    assert parse(text).holds({"x": 3})
    assert mask(text, x=[3, 1]) == [True, False]
    assert parse("x + 0.5 > 1 and x / 2 > 1").holds({"x": 10**400})


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(PredicateError, match="a condition is text.*not 5"):
        parse(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("i > 1 and s < 5", 10, "s is str, 5 is int: these have no order"),
        ("0 < f < s", 4, "f is float, s is str: these have no order"),
        ("list < 5", 0, "list is list, 5 is int: these have no order"),
        ("list == list", 0, "list is list, list is list: these cannot be compared"),
        ("s", 0, "s is str: only a bool is a condition by itself"),
        ("b and i", 6, "i is int: only a bool"),
        ("not f", 4, "f is float: only a bool"),
        ("`a b` + 1 > 2", 0, "`a b` is str, 1 is int: arithmetic is for numbers only"),
        ("1 + b > 2", 0, "1 is int, b is bool: arithmetic is for numbers only"),
        ("-s > 2", 1, "s is str.*: arithmetic is for numbers only"),
        ("s ** 2 > 2", 0, "s is str, s is str: arithmetic is for numbers only"),
        ("'1' in i", 0, "'1' is str, i is int: only text contains text"),
        ("b or s < 1", 5, "no order"),  # nothing is skipped
    ],
)
def test_conditions_that_do_not_fit_a_type_are_refused(text: str, place: int, reason: str) -> None:
    predicate = parse(text)
    ways = [lambda: predicate.holds(ROW), lambda: predicate.mask(lambda name: one_row(ROW[name]), 1)]
    for way in ways:
        with pytest.raises(PredicateError, match=reason) as caught:
            way()
        assert str(caught.value).split("\n")[2] == " " * (4 + place) + "^"


def test_a_long_text_is_shown_around_the_place() -> None:
    with pytest.raises(PredicateError) as caught:
        parse("x > 1 and " * 300 + "y = 2" + " and x > 1" * 300)
    _, shown, caret, _ = str(caught.value).split("\n")
    assert shown[len(caret) - 1] == "="
    assert len(shown) < 250


def test_reading_conditions_imports_neither_numpy_nor_pandas() -> None:
    program = (
        "import sys; from cox.predicates import parse; assert parse('x > 1').holds({'x': 2});"
        "assert not {'numpy', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- a mask says of each row what holds() says

INTS = st.one_of(st.integers(-3, 3), st.sampled_from([BIG, BIG - 1, -BIG, 2**63 - 1, -(2**63), 10**9]))
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -2.0, 2.0**53, 2.0**63, NAN, math.inf, -math.inf, 1e308]),
    st.floats(),
)
TEXTS = st.text("ab\0é𝄞.", max_size=3)
CELLS: dict[str, tuple[st.SearchStrategy[Any], str | None]] = {
    "i": (INTS, "int64"),
    "f": (FLOATS, "float64"),
    "b": (st.booleans(), "bool"),
    "s": (TEXTS, None),
    "o": (st.none() | TEXTS, "object"),
    "ni": (st.none() | INTS, "Int64"),
    "nf": (st.none() | FLOATS, "Float64"),
    "nb": (st.none() | st.booleans(), "boolean"),
    "ns": (st.none() | TEXTS, None),
    "any": (st.one_of(st.none(), INTS, st.booleans(), TEXTS, st.sampled_from([0.5, 1.0])), "object"),
}


def column_of(cells: list[Any], dtype: str | None) -> pd.Series[Any]:
    if dtype != "Float64":
        return pd.Series(cells, dtype=dtype)
    values = np.array([0.0 if cell is None else cell for cell in cells], dtype=float)
    return pd.Series(pd.arrays.FloatingArray(values, np.array([cell is None for cell in cells], dtype=bool)))


def literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "0.25" if value != value else "1e999" if value > 0 else "-1e999"
    return repr(value)


numbers = st.one_of(INTS, FLOATS, st.just(2**70)).map(literal)
number = st.recursive(
    st.sampled_from(["i", "f", "ni", "nf", "any"]) | numbers,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner),
        st.builds("(-{})".format, inner),
        st.builds("(({}) ** {})".format, inner, st.sampled_from([1, 2, 5, -1, -3])),
    ),
    max_leaves=4,
)
words = st.sampled_from(["s", "o", "ns", "any"])
constants = st.one_of(INTS.map(literal), TEXTS.map(repr), st.sampled_from(["None", "True", "0.5"]))
anything = st.one_of(number, words, TEXTS.map(repr), st.sampled_from(["b", "nb", "True"]))
order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
comparison = st.one_of(
    st.builds("{} {} {}".format, number, order, number),
    st.builds("{} {} {} {} {}".format, number, order, number, order, number),
    st.builds("{} {} {}".format, words, order, words | TEXTS.map(repr)),
    st.builds("{} {} {}".format, anything, st.sampled_from(["==", "!="]), anything),
    st.builds("{} {} {}".format, anything, order, anything),
    st.builds("{} {} None".format, anything, st.sampled_from(["is", "is not", "==", "!="])),
    st.builds("{!r} {} {}".format, TEXTS, st.sampled_from(["in", "not in"]), words),
    st.builds(
        "{} {} [{}]".format,
        anything,
        st.sampled_from(["in", "not in"]),
        st.lists(constants, max_size=3).map(", ".join),
    ),
)
condition = st.recursive(
    comparison | st.sampled_from(["b", "nb", "True", "False"]),
    lambda inner: st.one_of(
        st.builds("(({}) {} ({}))".format, inner, st.sampled_from(["and", "or", "==", "!="]), inner),
        st.builds("(not {})".format, inner),
        st.builds("(({}) is None)".format, inner),
    ),
    max_leaves=4,
)


@given(
    text=condition,
    rows=st.lists(
        st.fixed_dictionaries({name: cells for name, (cells, _) in CELLS.items()}), min_size=1, max_size=4
    ),
)
def test_a_mask_says_of_each_row_what_holds_says(text: str, rows: list[dict[str, Any]]) -> None:
    predicate = parse(text)
    frame = {name: column_of([row[name] for row in rows], dtype) for name, (_, dtype) in CELLS.items()}
    try:
        expected = [predicate.holds(row) for row in rows]
    except PredicateError:
        with pytest.raises(PredicateError):
            predicate.mask(frame.__getitem__, len(rows))
    else:
        assert predicate.mask(frame.__getitem__, len(rows)).tolist() == expected
