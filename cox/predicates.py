r"""Conditions on rows and on runs: `step > 10 and loss < 0.5`, `'res' in arch`, `` `f(x)` is None ``.

A condition is a Python expression of names, constants, arithmetic, comparisons and `and`, `or`, `not`. It
is read with `ast`, held against a list of what is allowed, and evaluated here; nothing of it is ever run.
Reads no file. numpy and pandas are imported by `Predicate.mask` alone.

Names that are no Python names are written in backticks. What a condition means:

- **Missing cells** make a comparison unknown, as in SQL: `not` of unknown is unknown, `unknown or True` is
  True, `unknown and False` is False, and what is unknown in the end does not hold. `x is None`, `x == None`
  and `x in (1, None)` ask for missing cells. A nan that is a value is not missing: `nan != 1` holds.
- **Text and numbers** are never equal and have no order: `<` between them is an error. A bool compares as
  0 or 1, and is no number to calculate with.
- **Integers** are exact, also against floats. A result beyond 64 bits becomes a float.
- **Dividing by zero** gives an unknown value.
- **Powers** have a whole constant as exponent and are products, so that they round alike everywhere.
- Nothing is skipped: `a or b` also finds what is wrong in `b`.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from cox.errors import PredicateError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MAX_LENGTH = 10_000
MAX_DEPTH = 100  # far below the interpreter's own limit, which a caller may have nearly used up
MAX_EXPONENT = 64

_Operator = Callable[[Any, Any], Any]

_ARITHMETIC: dict[type[ast.operator], _Operator] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: dict[type[ast.cmpop], _Operator] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_DIVISIONS = (operator.truediv, operator.floordiv, operator.mod)
_INT64 = range(-(2**63), 2**63)
_EXACT = 2**53  # up to here, every int is a float

_SLIPS = {"&&": "and", "&": "and", "||": "or", "|": "or", "!": "not"}
_SLIPS |= {"=": "==", "=<": "<=", "=>": ">=", "<>": "!="}
_STRAY = {"'": "this quote is never closed", '"': "this quote is never closed"}
_STRAY |= {"`": "this backtick is never closed", "#": "a condition has no comments"}
_STRAY |= {"'''": "text stands in single quotes", '"""': "text stands in single quotes"}
# Text and backticked names first: what is inside of them is neither a slip nor a space.
_TOKEN = re.compile(
    r"""'''|\"\"\"|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`[^`]*`"""
    r"""|&&?|\|\|?|<>|(?<![=!<>:])=(?:[<>]|(?!=))|!(?!=)|['"`#]|\s"""
)
_ALLOWED = (
    "a condition is made of names, numbers, 'text', True, False, None, + - * / // % **, < <= == != >= >, "
    "in, is None, and, or, not; other names stand in backticks, like `f(x)`"
)


@dataclass(frozen=True)
class Predicate:
    """A condition that was read, and can be asked of rows or of a run. Made by `parse`.

    Attributes:
        text: The condition as it was written.
        names: The columns, or parameters, that it mentions.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr = field(repr=False, compare=False)

    def mask(
        self, column: Callable[[str], pd.Series[Any]], nrows: int
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For which rows the condition holds.

        Args:
            column: Gives the column of that name, `nrows` long; its index plays no part. It is asked once
                for each name, and its own error for an unknown one passes through.
            nrows: How many rows there are.

        Returns:
            An array of bool, shape (nrows,); the caller's own.

        Raises:
            PredicateError: The condition does not fit the type of a cell: `arch < 5` of text.
        """
        columns = _Columns(column, nrows)
        holds = columns.spread(_Evaluation(self.text, columns).condition(self._tree))
        made: np.ndarray[Any, np.dtype[np.bool_]] = holds.values & ~holds.missing
        return made

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds for one set of values.

        Args:
            values: Names to plain values. None, and a name that is not there, is missing.

        Raises:
            PredicateError: The condition does not fit the type of a value: `arch < 5` of text.
        """
        return _Evaluation(self.text, _Scalars(values.get)).condition(self._tree) is True


def parse(text: str) -> Predicate:
    """Read a condition.

    Args:
        text: Like `"lr < 0.1 and arch in ('resnet', 'vit')"`; at most 10,000 characters.

    Raises:
        PredicateError: It is no condition. Shows where, why, and what is allowed.

    Example:
        >>> parse("lr < 0.1 and `batch size` == 32").holds({"lr": 0.01, "batch size": 32})
        True
    """
    if not isinstance(text, str):
        raise PredicateError(f"a condition is text, like 'step > 10', and not {text!r}")
    reader = _Reader(text)
    return Predicate(text, frozenset(reader.names), reader.tree)


def _refusal(text: str, place: int, reason: str) -> PredicateError:
    """The error that points at a place in the text."""
    line = "".join(character if character.isprintable() else " " for character in text)
    start = max(0, place - 100)
    before, after = ("…" if start else "") + line[start:place], line[place : place + 100]
    more = "…" if len(line) > place + 100 else ""
    return PredicateError(
        f"in this condition:\n    {before}{after}{more}\n    {' ' * len(before)}^\n{reason}"
    )


class _Reader:
    """Reads a text into a checked tree, whose nodes have the names and the places of the text.

    A backticked name is parsed as underscores of the same length, so that every place stays where it is.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        if len(text) > MAX_LENGTH:
            self.refuse(0, f"this has {len(text)} characters; a condition has at most {MAX_LENGTH}")
        if not text.strip():
            self.refuse(0, "this is empty; write a condition, like step > 10 and loss < 0.5")
        if "\0" in text:
            self.refuse(text.index("\0"), "there is a NUL in the text")
        code = _TOKEN.sub(self._plain_token, text)
        self._indent = len(code) - len(code.lstrip())
        self.tree = self._parsed(code.lstrip())
        self._check(self.tree, 0, condition=True)

    def refuse(self, place: int, reason: str) -> NoReturn:
        raise _refusal(self.text, place, reason)

    def _plain_token(self, found: re.Match[str]) -> str:
        token = found[0]
        if token in _SLIPS:
            self.refuse(found.start(), f"use {_SLIPS[token]} in the place of {token}")
        if token in _STRAY:
            self.refuse(found.start(), f"{_STRAY[token]}; {_ALLOWED}")
        if token[0] == "`":
            return "_" * len(token)
        return " " if token.isspace() else token

    def _parsed(self, code: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes like '\d', which Python reads as they stand
                tree = ast.parse(code, mode="eval").body
        except SyntaxError as error:
            # the end of the text is told as 0, or as nothing
            place = self._indent + error.offset - 1 if error.offset else len(self.text)
            # what Python guesses is about programs: "Perhaps you forgot a comma?"
            reason = error.msg.partition(". Perhaps")[0]
            raise _refusal(self.text, min(place, len(self.text)), f"{reason}; {_ALLOWED}") from error
        except (RecursionError, MemoryError) as error:
            raise _refusal(self.text, 0, "this is nested too deeply; write it flatter") from error
        except ValueError as error:  # a lone surrogate, or a NUL in older versions
            raise _refusal(self.text, 0, f"this is no text that can be read ({error})") from error
        raw = code.encode()
        for node in ast.walk(tree):
            if isinstance(node, ast.expr):  # from bytes of the code to characters of the text
                node.col_offset = self._indent + len(raw[: node.col_offset].decode())
                node.end_col_offset = self._indent + len(raw[: node.end_col_offset].decode())
        return tree

    def _check(self, node: ast.expr, depth: int, *, condition: bool = False) -> None:
        """Refuse what is not allowed, and what no types could make right."""
        if depth > MAX_DEPTH:
            self.refuse(node.col_offset, "this is nested too deeply; write it flatter")
        match node:
            case ast.Name():
                node.id = self._name(node)
                self.names.add(node.id)
            case ast.BoolOp(values=operands):
                for operand in operands:
                    self._check(operand, depth + 1, condition=True)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand, depth + 1, condition=True)
            case ast.Compare():
                self._check_comparison(node, depth)
            case _ if condition and not (isinstance(node, ast.Constant) and isinstance(node.value, bool)):
                self.refuse(
                    node.col_offset, f"{_source(self.text, node)} is no condition by itself; {_ALLOWED}"
                )
            case ast.Constant() if _is_constant(node):
                pass
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self._check_number(operand, depth)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                self._check_number(left, depth)
                exponent = ast.literal_eval(right) if _is_constant(right) else None
                if type(exponent) is not int or not 1 <= abs(exponent) <= MAX_EXPONENT:
                    self.refuse(
                        right.col_offset,
                        f"an exponent is a whole number from 1 to {MAX_EXPONENT}, or minus that",
                    )
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                self._check_number(left, depth)
                self._check_number(right, depth)
            case _:
                self.refuse(node.col_offset, f"{_source(self.text, node)} has no place here; {_ALLOWED}")

    def _check_number(self, node: ast.expr, depth: int) -> None:
        if isinstance(node, ast.Constant) and type(node.value) not in (int, float):
            self.refuse(node.col_offset, "arithmetic is for numbers only")
        self._check(node, depth + 1)

    def _check_comparison(self, node: ast.Compare, depth: int) -> None:
        left = node.left
        self._check(left, depth + 1)
        for op, right in zip(node.ops, node.comparators, strict=True):
            if _choices(left) is not None:  # x in (1, 2) < 3
                self.refuse(
                    left.col_offset, "a list is no value; write what follows as a comparison of its own"
                )
            choices = _choices(right) if isinstance(op, (ast.In, ast.NotIn)) else None
            if isinstance(op, (ast.Is, ast.IsNot)) and not _is_none(right):
                self.refuse(right.col_offset, "only None comes after is and is not; use == or !=")
            if type(op) in _ORDER and (_is_none(left) or _is_none(right)):
                self.refuse(left.col_offset, "None has no order; ask for missing cells with is None")
            if isinstance(op, (ast.In, ast.NotIn)) and choices is None:
                text_left = isinstance(left, ast.Constant) and isinstance(left.value, str)
                if not (text_left and isinstance(right, ast.Name)):
                    place = right if text_left else left
                    self.refuse(
                        place.col_offset, "write x in (1, 2), with constants, or 'text' in x, with a name"
                    )
            for choice in choices or ():
                if not _is_constant(choice):
                    self.refuse(choice.col_offset, "what stands in the list after in is a constant")
            if choices is None:
                self._check(right, depth + 1)
            left = right

    def _name(self, node: ast.Name) -> str:
        """The name as it is written: Python would normalise it, and never saw a backticked one."""
        source = self.text[node.col_offset : node.end_col_offset]
        if "`" not in source:
            return source
        if source.find("`", 1) != len(source) - 1 or source[0] != "`":
            self.refuse(node.col_offset, f"{source} runs together; put spaces around a name in backticks")
        return source[1:-1]


def _source(text: str, node: ast.expr) -> str:
    """A part of the text, as a message shows it."""
    source = " ".join(text[node.col_offset : node.end_col_offset].split())
    return source if len(source) <= 100 else source[:100] + "…"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_constant(node: ast.expr) -> bool:
    """Whether `ast.literal_eval` may have it. A minus is part of its number, which may be beyond 64 bits."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, type(None)))


def _choices(node: ast.expr) -> list[ast.expr] | None:
    return node.elts if isinstance(node, (ast.List, ast.Tuple, ast.Set)) else None


class _Evaluation:
    """Walks a tree, and leaves what an operator does to the values: `_Scalars` or `_Columns`."""

    def __init__(self, text: str, values: _Scalars) -> None:
        self.text = text
        self.values = values

    def condition(self, node: ast.expr) -> Any:
        return self._apply((node,), self.values.truth, self._value(node))

    def _value(self, node: ast.expr) -> Any:
        values = self.values
        match node:
            case ast.Name(id=name):
                return values.load(name)
            case _ if _is_constant(node):
                return ast.literal_eval(node)
            case ast.BoolOp(op=ast.And(), values=operands):
                return values.all(self.condition(operand) for operand in operands)
            case ast.BoolOp(values=operands):
                return values.any(self.condition(operand) for operand in operands)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return values.negate(self.condition(operand))
            case ast.Compare():
                return values.all(self._comparisons(node))
            case ast.UnaryOp(op=op, operand=operand):
                sign = -1 if isinstance(op, ast.USub) else 1
                return self._arithmetic(operator.mul, operand, self._value(operand), node, sign)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self._power(node, self._value(left), ast.literal_eval(right))
            case ast.BinOp(left=left, op=op, right=right):
                return self._arithmetic(
                    _ARITHMETIC[type(op)], left, self._value(left), right, self._value(right)
                )
        raise AssertionError(ast.dump(node))  # pragma: no cover - the reader lets nothing else through

    def _comparisons(self, node: ast.Compare) -> Iterator[Any]:
        """Each of a chain, one after the other: many columns at a time would not fit into memory."""
        left, value = node.left, self._value(node.left)
        for op, right in zip(node.ops, node.comparators, strict=True):
            choices = _choices(right)
            other = None if choices is not None else self._value(right)
            negated = isinstance(op, (ast.NotEq, ast.NotIn, ast.IsNot))
            if choices is not None:
                made = self.values.among(value, [ast.literal_eval(choice) for choice in choices])
            elif _is_none(left) or _is_none(right):
                made = self.values.missing(value if _is_none(right) else other)
            elif isinstance(op, (ast.In, ast.NotIn)):
                made = self._apply((left, right), self.values.contains, value, other)
            else:
                compare = functools.partial(self.values.compare, _ORDER.get(type(op), operator.eq))
                made = self._apply((left, right), compare, value, other)
            yield self.values.negate(made) if negated else made
            left, value = right, other

    def _arithmetic(self, op: _Operator, left: ast.expr, value: Any, right: ast.expr, other: Any) -> Any:
        return self._apply((left, right), functools.partial(self.values.arithmetic, op), value, other)

    def _power(self, node: ast.BinOp, base: Any, exponent: int) -> Any:
        made = base
        for _ in range(abs(exponent) - 1):
            made = self._arithmetic(operator.mul, node.left, made, node.left, base)
        return made if exponent > 0 else self._arithmetic(operator.truediv, node.right, 1, node.left, made)

    def _apply(self, nodes: tuple[ast.expr, ...], operation: Callable[..., Any], *operands: Any) -> Any:
        try:
            return operation(*operands)
        except _MismatchError as error:
            types = ", ".join(
                f"{_source(self.text, node)} is {type(cell).__name__}"
                for node, cell in zip(nodes, error.cells, strict=True)
            )
            raise _refusal(self.text, nodes[0].col_offset, f"{types}: {error}") from None


class _MismatchError(Exception):
    """An operator met cells that it is not for."""

    def __init__(self, reason: str, *cells: Any) -> None:
        super().__init__(reason)
        self.cells = cells


class _Scalars:
    """The operators on plain values. A value is None where it is missing or unknown."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get

    def load(self, name: str) -> Any:
        return _plain(self._get(name))

    def truth(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        raise _MismatchError("only a bool is a condition by itself; compare it with something", value)

    def missing(self, value: Any) -> Any:
        return value is None

    def negate(self, value: Any) -> Any:
        return None if value is None else not value

    def all(self, values: Iterable[Any]) -> Any:
        met = set(values)
        return False if False in met else None if None in met else True

    def any(self, values: Iterable[Any]) -> Any:
        return self.negate(self.all(map(self.negate, values)))

    def among(self, value: Any, choices: list[Any]) -> Any:
        return self.any(
            self.missing(value) if choice is None else self.compare(operator.eq, value, choice)
            for choice in choices
        )

    def contains(self, part: str, whole: Any) -> Any:
        if whole is None or isinstance(whole, str):
            return None if whole is None else part in whole
        raise _MismatchError("only text contains text", part, whole)

    def compare(self, op: _Operator, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return None
        kinds = _is_number(left), _is_number(right), isinstance(left, str), isinstance(right, str)
        if kinds in ((True, True, False, False), (False, False, True, True)):
            return op(left, right)
        if op is operator.eq and any(kinds):
            return False
        raise _MismatchError("these have no order" if any(kinds) else "these cannot be compared", left, right)

    def arithmetic(self, op: _Operator, left: Any, right: Any) -> Any:
        if left is None or right is None:
            return None
        for cell in (left, right):
            if not _is_number(cell) or isinstance(cell, bool):
                raise _MismatchError("arithmetic is for numbers only", left, right)
        try:
            made = op(left, right)
        except ZeroDivisionError:
            return None
        except OverflowError:  # an int beyond every float
            return self.arithmetic(op, _to_float(left), _to_float(right))
        return made if isinstance(made, float) or made in _INT64 else _to_float(made)


def _plain(value: Any) -> Any:
    """Numpy's scalars as Python's own."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


@dataclass(frozen=True, eq=False)
class _Column:
    """A value for each row. Of a missing one, what stands in `values` means nothing.

    `values` is an array of that dtype for bool, int (64 bits) and float, a Series for text, and else an
    array of objects.
    """

    kind: str
    values: Any
    missing: Any


class _Columns(_Scalars):
    """The operators on columns, or on a column and a plain value.

    What numpy or pandas would not do exactly as Python does goes cell by cell through `_Scalars`.
    """

    def __init__(self, column: Callable[[str], pd.Series[Any]], nrows: int) -> None:
        super().__init__(functools.cache(lambda name: _as_column(column(name))))
        self._nrows = nrows

    def load(self, name: str) -> Any:
        return self._get(name)

    def spread(self, value: Any) -> _Column:
        """A condition as a column."""
        import numpy as np

        if isinstance(value, _Column):
            return value
        return _Column("bool", np.full(self._nrows, value is True), np.full(self._nrows, value is None))

    def truth(self, value: Any) -> Any:
        if not isinstance(value, _Column) or value.kind == "bool":
            return value if isinstance(value, _Column) else super().truth(value)
        return self._by_cell("bool", super().truth, value)

    def missing(self, value: Any) -> Any:
        if not isinstance(value, _Column):
            return super().missing(value)
        return self._known(value.missing)

    def negate(self, value: Any) -> Any:
        if not isinstance(value, _Column):
            return super().negate(value)
        return _Column("bool", ~value.values, value.missing)

    def all(self, values: Iterable[Any]) -> Any:
        import numpy as np

        true, false = np.ones(self._nrows, dtype=bool), np.zeros(self._nrows, dtype=bool)
        for column in map(self.spread, values):
            known = ~column.missing
            true, false = true & column.values & known, false | (known & ~column.values)
        return _Column("bool", true, ~(true | false))

    def among(self, value: Any, choices: list[Any]) -> Any:
        if not isinstance(value, _Column) or value.kind != "text" or not choices:
            return super().among(value, choices)
        found = value.values.isin([choice for choice in choices if isinstance(choice, str)])
        made = _Column("bool", found.to_numpy(dtype=bool), value.missing)
        return self.any([made, self.missing(value)]) if None in choices else made

    def contains(self, part: str, whole: Any) -> Any:
        if whole.kind != "text":
            return self._by_cell("bool", super().contains, part, whole)
        found = whole.values.str.contains(part, regex=False)
        return _Column("bool", found.to_numpy(dtype=bool, na_value=False), whole.missing)

    def compare(self, op: _Operator, left: Any, right: Any) -> Any:
        if left is None or right is None or not (isinstance(left, _Column) or isinstance(right, _Column)):
            return super().compare(op, left, right)
        kinds = {_kind(left), _kind(right)}
        missing = _missing(left) | _missing(right)
        if kinds == {"text"}:
            made = op(_values(left), _values(right)).to_numpy(dtype=bool, na_value=False)
        elif kinds <= {"bool", "int", "float"} and (kinds != {"int", "float"} or _exact(left, right)):
            made = op(_values(left), _values(right))
        elif op is operator.eq and "object" not in kinds:
            made = missing & False
        else:
            return self._by_cell("bool", functools.partial(super().compare, op), left, right)
        return _Column("bool", made, missing)

    def arithmetic(self, op: _Operator, left: Any, right: Any) -> Any:
        import numpy as np

        if left is None or right is None or not (isinstance(left, _Column) or isinstance(right, _Column)):
            return super().arithmetic(op, left, right)
        kinds = {_kind(left), _kind(right)}
        ints = kinds == {"int"} and op not in _DIVISIONS
        if not kinds <= {"int", "float"} or not (
            _stays_int(op, left, right) if ints else _exact(left, right)
        ):
            return self._by_cell("object", functools.partial(super().arithmetic, op), left, right)
        missing, divisor = _missing(left) | _missing(right), _values(right)
        if op in _DIVISIONS:
            missing = missing | (divisor == 0)
            divisor = np.where(divisor == 0, 1, divisor)
        with np.errstate(all="ignore"):
            made = op(_values(left), divisor)
        return _Column("int" if made.dtype.kind == "i" else "float", made, missing)

    def _known(self, values: Any) -> _Column:
        import numpy as np

        return _Column("bool", values, np.zeros(self._nrows, dtype=bool))

    def _by_cell(self, kind: str, operation: Callable[..., Any], *operands: Any) -> _Column:
        """Apply an operator of `_Scalars` to the cells of all rows that have them."""
        import numpy as np

        missing = functools.reduce(operator.or_, map(_missing, operands)) | np.zeros(self._nrows, dtype=bool)
        cells = [
            np.asarray(operand.values, dtype=object)[~missing]
            if isinstance(operand, _Column)
            else np.array(operand, dtype=object)  # numpy's own text would lose a NUL at the end
            for operand in operands
        ]
        with np.errstate(all="ignore"):
            made = np.frompyfunc(operation, len(cells), 1)(*cells)
        values = np.zeros(self._nrows, dtype=object)
        values[~missing] = made
        missing[~missing] = made == None  # noqa: E711 - of each cell
        return _Column(kind, values.astype(bool) if kind == "bool" else values, missing)


def _as_column(series: pd.Series[Any]) -> _Column:
    import numpy as np
    import pandas as pd

    dtype: Any = series.dtype
    letter = "O" if isinstance(dtype, pd.StringDtype) else dtype.kind
    kind = {"b": "bool", "i": "int", "u": "int", "f": "float"}.get(letter, "object")
    if letter == "u" and dtype.itemsize == 8:  # may be beyond int64
        kind = "object"
    if kind != "object":
        plain = {"bool": np.bool_, "int": np.int64, "float": np.float64}[kind]
        if isinstance(dtype, np.dtype):  # where nan is a value
            return _Column(
                kind, series.to_numpy().astype(plain, copy=False), np.zeros(len(series), dtype=bool)
            )
        return _Column(kind, series.to_numpy(dtype=plain, na_value=plain(0)), series.isna().to_numpy())
    missing = series.isna().to_numpy()
    if isinstance(dtype, pd.StringDtype):
        return _Column("text", series.reset_index(drop=True), missing)
    cells = series.to_numpy(dtype=object)
    if pd.api.types.infer_dtype(cells, skipna=True) == "string":
        return _Column("text", pd.Series(np.where(missing, "", cells), dtype=object), missing)
    return _Column("object", np.frompyfunc(_plain, 1, 1)(cells), missing)


def _kind(operand: Any) -> str:
    if isinstance(operand, _Column):
        return operand.kind
    if isinstance(operand, int) and operand not in _INT64:
        return "object"
    return "text" if isinstance(operand, str) else type(operand).__name__


def _values(operand: Any) -> Any:
    return operand.values if isinstance(operand, _Column) else operand


def _missing(operand: Any) -> Any:
    return operand.missing if isinstance(operand, _Column) else operand is None


def _bounds(operand: Any) -> tuple[int, int]:
    if not isinstance(operand, _Column):
        return operand, operand
    return (int(operand.values.min()), int(operand.values.max())) if len(operand.values) else (0, 0)


def _exact(*operands: Any) -> bool:
    """Whether every int is also a float, so that it is no matter which of them numpy takes."""
    return all(
        -_EXACT <= bound <= _EXACT
        for operand in operands
        if _kind(operand) == "int"
        for bound in _bounds(operand)
    )


def _stays_int(op: _Operator, left: Any, right: Any) -> bool:
    """Whether all that comes out are ints of 64 bits; the corners of a range are the ends of its results."""
    corners = (op(one, other) for one in _bounds(left) for other in _bounds(right))
    return all(corner in _INT64 for corner in corners)
