"""The operators of a condition, and the numbers that they are exact for."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

Operator = Callable[[Any, Any], Any]

ARITHMETIC: dict[type[ast.operator], Operator] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
ORDER: dict[type[ast.cmpop], Operator] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
DIVISIONS = (operator.truediv, operator.floordiv, operator.mod)
INT64 = range(-(2**63), 2**63)
