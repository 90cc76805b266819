"""What holds for every line of the library: it says what it is for, and prints nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "cox").rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body, "the module says what it is for"
    without = [name for name, node in public(tree) if not ast.get_docstring(node)]
    assert not without


def public(
    tree: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in tree.body:
        if isinstance(
            node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ) and not node.name.startswith("_"):
            if not any(
                ast.unparse(decorator).endswith((".setter", "overload")) for decorator in node.decorator_list
            ):
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_prints_nothing(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "breakpoint"), f"line {node.lineno}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_validation_is_no_assert_and_nothing_goes_to_a_shell(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Assert):
            assert "S101" in lines[node.lineno - 1], f"line {node.lineno}: -O removes it"
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert ast.unparse(node.value) == "False", f"line {node.value.lineno}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("os.system", "os.popen"), f"line {node.lineno}"


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "cox" / "py.typed").is_file()


UNIT = ROOT / "tests" / "unit"


@pytest.mark.parametrize(
    "path", sorted(UNIT.rglob("test_*.py")), ids=lambda path: str(path.relative_to(UNIT))
)
def test_a_unit_test_stands_where_its_module_or_package_does(path: Path) -> None:
    place = ROOT / "cox" / path.relative_to(UNIT).parent / path.stem.removeprefix("test_")
    assert place.is_dir() or place.with_suffix(".py").is_file()
