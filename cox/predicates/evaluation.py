"""Walks the tree of a condition."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from cox.predicates.operators import ARITHMETIC, ORDER, Operator
from cox.predicates.reading import choices_in, is_constant, is_none, refusal, source_of
from cox.predicates.scalars import MismatchError, Scalars


class Evaluation:
    """Walks a tree, and leaves what an operator does to the values: `Scalars` or `Columns`."""

    def __init__(self, text: str, values: Scalars) -> None:
        self.text = text
        self.values = values

    def condition(self, node: ast.expr) -> Any:
        """What comes of a tree that stands for a condition."""
        return self._apply((node,), self.values.truth, self._value(node))

    def _value(self, node: ast.expr) -> Any:
        values = self.values
        match node:
            case ast.Name(id=name):
                return values.load(name)
            case _ if is_constant(node):
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
                    ARITHMETIC[type(op)], left, self._value(left), right, self._value(right)
                )
        raise AssertionError(ast.dump(node))  # pragma: no cover - the reader lets nothing else through

    def _comparisons(self, node: ast.Compare) -> Iterator[Any]:
        """Each of a chain, one after the other: many columns at a time would not fit into memory."""
        left, value = node.left, self._value(node.left)
        for op, right in zip(node.ops, node.comparators, strict=True):
            choices = choices_in(right)
            other = None if choices is not None else self._value(right)
            negated = isinstance(op, (ast.NotEq, ast.NotIn, ast.IsNot))
            if choices is not None:
                made = self.values.among(value, [ast.literal_eval(choice) for choice in choices])
            elif is_none(left) or is_none(right):
                made = self.values.missing(value if is_none(right) else other)
            elif isinstance(op, (ast.In, ast.NotIn)):
                made = self._apply((left, right), self.values.contains, value, other)
            else:
                compare = functools.partial(self.values.compare, ORDER.get(type(op), operator.eq))
                made = self._apply((left, right), compare, value, other)
            yield self.values.negate(made) if negated else made
            left, value = right, other

    def _arithmetic(self, op: Operator, left: ast.expr, value: Any, right: ast.expr, other: Any) -> Any:
        return self._apply((left, right), functools.partial(self.values.arithmetic, op), value, other)

    def _power(self, node: ast.BinOp, base: Any, exponent: int) -> Any:
        made = base
        for _ in range(abs(exponent) - 1):
            made = self._arithmetic(operator.mul, node.left, made, node.left, base)
        return made if exponent > 0 else self._arithmetic(operator.truediv, node.right, 1, node.left, made)

    def _apply(self, nodes: tuple[ast.expr, ...], operation: Callable[..., Any], *operands: Any) -> Any:
        try:
            return operation(*operands)
        except MismatchError as error:
            types = ", ".join(
                f"{source_of(self.text, node)} is {type(cell).__name__}"
                for node, cell in zip(nodes, error.cells, strict=True)
            )
            raise refusal(self.text, nodes[0].col_offset, f"{types}: {error}") from None
