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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cox.errors import PredicateError
from cox.predicates.evaluation import Evaluation
from cox.predicates.reading import MAX_DEPTH, MAX_EXPONENT, MAX_LENGTH, Reader
from cox.predicates.scalars import Scalars

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["MAX_DEPTH", "MAX_EXPONENT", "MAX_LENGTH", "Predicate", "parse"]


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
        from cox.predicates.columns import Columns

        columns = Columns(column, nrows)
        holds = columns.spread(Evaluation(self.text, columns).condition(self._tree))
        made: np.ndarray[Any, np.dtype[np.bool_]] = holds.values & ~holds.missing
        return made

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds for one set of values.

        Args:
            values: Names to plain values. None, and a name that is not there, is missing.

        Raises:
            PredicateError: The condition does not fit the type of a value: `arch < 5` of text.
        """
        return Evaluation(self.text, Scalars(values.get)).condition(self._tree) is True


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
    reader = Reader(text)
    return Predicate(text, frozenset(reader.names), reader.tree)
