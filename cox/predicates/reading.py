"""Reads a condition into a tree of `ast` in which nothing is that is not allowed."""

from __future__ import annotations

import ast
import re
import warnings
from typing import NoReturn

from cox.errors import PredicateError
from cox.predicates.operators import ARITHMETIC, ORDER

MAX_LENGTH = 10_000
MAX_DEPTH = 100  # far below the interpreter's own limit, which a caller may have nearly used up
MAX_EXPONENT = 64

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


class Reader:
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
        """Raise the error that points at a place."""
        raise refusal(self.text, place, reason)

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
            raise refusal(self.text, min(place, len(self.text)), f"{reason}; {_ALLOWED}") from error
        except (RecursionError, MemoryError) as error:
            raise refusal(self.text, 0, "this is nested too deeply; write it flatter") from error
        except ValueError as error:  # a lone surrogate, or a NUL in older versions
            raise refusal(self.text, 0, f"this is no text that can be read ({error})") from error
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
                    node.col_offset, f"{source_of(self.text, node)} is no condition by itself; {_ALLOWED}"
                )
            case ast.Constant() if is_constant(node):
                pass
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                self._check_number(operand, depth)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                self._check_number(left, depth)
                exponent = ast.literal_eval(right) if is_constant(right) else None
                if type(exponent) is not int or not 1 <= abs(exponent) <= MAX_EXPONENT:
                    self.refuse(
                        right.col_offset,
                        f"an exponent is a whole number from 1 to {MAX_EXPONENT}, or minus that",
                    )
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                self._check_number(left, depth)
                self._check_number(right, depth)
            case _:
                self.refuse(node.col_offset, f"{source_of(self.text, node)} has no place here; {_ALLOWED}")

    def _check_number(self, node: ast.expr, depth: int) -> None:
        if isinstance(node, ast.Constant) and type(node.value) not in (int, float):
            self.refuse(node.col_offset, "arithmetic is for numbers only")
        self._check(node, depth + 1)

    def _check_comparison(self, node: ast.Compare, depth: int) -> None:
        left = node.left
        self._check(left, depth + 1)
        for op, right in zip(node.ops, node.comparators, strict=True):
            if choices_in(left) is not None:  # x in (1, 2) < 3
                self.refuse(
                    left.col_offset, "a list is no value; write what follows as a comparison of its own"
                )
            choices = choices_in(right) if isinstance(op, (ast.In, ast.NotIn)) else None
            if isinstance(op, (ast.Is, ast.IsNot)) and not is_none(right):
                self.refuse(right.col_offset, "only None comes after is and is not; use == or !=")
            if type(op) in ORDER and (is_none(left) or is_none(right)):
                self.refuse(left.col_offset, "None has no order; ask for missing cells with is None")
            if isinstance(op, (ast.In, ast.NotIn)) and choices is None:
                text_left = isinstance(left, ast.Constant) and isinstance(left.value, str)
                if not (text_left and isinstance(right, ast.Name)):
                    place = right if text_left else left
                    self.refuse(
                        place.col_offset, "write x in (1, 2), with constants, or 'text' in x, with a name"
                    )
            for choice in choices or ():
                if not is_constant(choice):
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


def refusal(text: str, place: int, reason: str) -> PredicateError:
    """The error that points at a place in the text."""
    line = "".join(character if character.isprintable() else " " for character in text)
    start = max(0, place - 100)
    before, after = ("…" if start else "") + line[start:place], line[place : place + 100]
    more = "…" if len(line) > place + 100 else ""
    return PredicateError(
        f"in this condition:\n    {before}{after}{more}\n    {' ' * len(before)}^\n{reason}"
    )


def source_of(text: str, node: ast.expr) -> str:
    """A part of the text, as a message shows it."""
    source = " ".join(text[node.col_offset : node.end_col_offset].split())
    return source if len(source) <= 100 else source[:100] + "…"


def is_none(node: ast.expr) -> bool:
    """Whether a node is the constant None."""
    return isinstance(node, ast.Constant) and node.value is None


def is_constant(node: ast.expr) -> bool:
    """Whether `ast.literal_eval` may have it. A minus is part of its number, which may be beyond 64 bits."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, type(None)))


def choices_in(node: ast.expr) -> list[ast.expr] | None:
    """What stands in brackets behind `in`; None if nothing does."""
    return node.elts if isinstance(node, (ast.List, ast.Tuple, ast.Set)) else None
