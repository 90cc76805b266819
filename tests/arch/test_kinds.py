"""Each kind of column stands in one table, and in one of each format, and is compared nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cox import frames
from cox.collection import shapes
from cox.collection.cache import segments
from cox.schema import KINDS

ROOT = Path(__file__).resolve().parents[2] / "cox"
#: Modules with kinds of their own, which are not those of columns in a run.
OTHERS = ("predicates/", "storage/journal/columnar.py")

ALL = set(KINDS)
NUMBERS = {name for name, kind in KINDS.items() if kind.is_number}


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        (shapes.OF_KIND, ALL),
        (segments.NUMBERS, NUMBERS),
        (frames.NULLABLE, NUMBERS),
    ],
    ids=["shapes.OF_KIND", "segments.NUMBERS", "frames.NULLABLE"],
)
def test_the_table_of_each_format_has_every_kind_that_it_is_about(
    table: Mapping[str, Any], kinds: set[str]
) -> None:
    assert set(table) == kinds


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_consistent(name: str) -> None:
    kind = KINDS[name]
    assert kind.name == name
    assert type(kind.filler) is kind.cell
    dtype = np.dtype(kind.dtype)
    assert np.full(1, kind.filler, dtype=dtype).tolist() == [kind.filler]
    assert dtype.hasobject == (kind.cell is str)
    assert kind.is_number or not (kind.is_measure or kind.has_nan or kind.most)
    assert kind.is_object or not (kind.in_file or kind.is_rebuilt)
    assert kind.in_file or not kind.by_torch
    assert kind.is_object == (kind.convert is None)


def test_no_module_compares_kinds_by_their_names() -> None:
    assert list(comparisons(ast.parse("column.kind in ('int', 'x') or 'str' != known.kind"))) == [1, 1]
    for path in sorted(ROOT.rglob("*.py")):
        if not str(path.relative_to(ROOT)).startswith(OTHERS):
            lines = list(comparisons(ast.parse(path.read_text(encoding="utf-8"))))
            assert not lines, (
                f"{path}: lines {lines}: ask `column.traits`, or a table by kinds that is tested here"
            )


def comparisons(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
            names = {part.value for part in parts if isinstance(part, ast.Constant)}
            if any(map(_is_kind, parts)) and names & ALL:
                yield node.lineno


def _is_kind(part: ast.AST) -> bool:
    return (isinstance(part, ast.Attribute) and part.attr == "kind") or (
        isinstance(part, ast.Name) and part.id == "kind"
    )
