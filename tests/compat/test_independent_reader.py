"""The format is what docs/FORMAT.md says: a reader made of that page alone reads what cox reads."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from pathlib import Path

import pytest

import cox
from cox.storage import writer
from cox.testing import model
from tests.compat import independent_reader
from tests.compat.comparison import assert_readers_agree, exact

GOLDEN = Path(__file__).with_name("golden")
RUNS = sorted(path.parent for path in GOLDEN.glob("own/*/*/store.h5"))


def test_it_is_short_and_uses_nothing_of_cox() -> None:
    text = Path(independent_reader.__file__).read_text()
    assert len(text.splitlines()) <= 150
    nodes = list(ast.walk(ast.parse(text)))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) if node.module}
    assert modules - sys.stdlib_module_names <= {"h5py", "msgspec", "numpy"}


def test_it_is_a_program(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        store.add_table("results", {"loss": float}).append_row({"loss": 0.5})
    program = [sys.executable, independent_reader.__file__, str(tmp_path / "run")]
    shown = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    assert shown == "('results', {'loss': ('float', False)}, [('main', 0, {'loss': 0.5})])\n"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_it_reads_golden_runs_of_every_version(run: Path) -> None:
    assert assert_readers_agree(run)


@pytest.mark.parametrize("seed", range(12))
def test_it_reads_whatever_a_session_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(writer, "FOLD_AT", 3000)
    session = model.Session(tmp_path, "run", ops := model.script(seed, 60))
    for i, op in enumerate(ops):
        session.apply(op)
        if i % 7 == 0:
            assert_readers_agree(tmp_path / "run")
    session.store.close()
    assert_readers_agree(tmp_path / "run")


def test_it_tells_nan_and_texts_with_nul_from_what_is_missing(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"x": float | None, "s": str | None, "i": int | None})
        table.append_row({"x": float("nan"), "s": "a\0b", "i": 2**53 + 1})
        table.append_row({"s": "\x15cox:missing"})
        table.append_row({"x": 0.5, "s": "ends in \0"})
    _, rows = assert_readers_agree(tmp_path / "run")["t"]
    assert rows == [
        ("nan", (str, "a\0b"), (int, 2**53 + 1)),
        (None, (str, "\x15cox:missing"), None),
        (exact(0.5), (str, "ends in \0"), None),
    ]


def test_it_reads_writers_that_disagree_about_a_column(tmp_path: Path) -> None:
    """Each may declare a column before it knows of the other's."""
    first, second = (cox.Store(tmp_path, "run", rank=rank) for rank in (0, 1))
    table, other = first.add_table("t", {"x": int, "y": bool}), second.add_table("t", {"y": str, "x": float})
    table.append_row({"x": 1, "y": True})
    other.append_row({"x": 0.5, "y": "text"})
    for close in (lambda: None, first.close, second.close):
        close()
        columns, rows = assert_readers_agree(tmp_path / "run")["t"]
        assert columns == {"x": ("float", False), "y": ("str", False), "rank": ("int", True)}
        assert rows[0] == (exact(1.0), (str, "True"), (int, 0))


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_what_damage_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Cut off at any byte, and with bits flipped anywhere: neither reader sees more than the other."""
    monkeypatch.setattr(writer, "FOLD_AT", 1 << 30)
    choose, session = random.Random(seed), model.Session(tmp_path, "run", ops := model.script(seed, 40))
    for op in ops:
        if op.kind not in ("fold", "reopen"):  # so that all stands in one journal
            session.apply(op)
    (path,) = (tmp_path / "run" / ".cox" / "journal").glob("*.log")
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(choose.randint(0, 3)):
            damaged[choose.randrange(8, len(whole))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged[: choose.choice([len(whole), choose.randrange(8, len(whole))])])
        assert_readers_agree(tmp_path / "run")
    path.write_bytes(whole)
    session.store.close()


def test_it_reads_a_run_whose_run_file_and_header_are_lost(tmp_path: Path) -> None:
    """Then nothing but the store file says which run it is."""
    store = cox.Store(tmp_path, "run")
    table = store.add_table("t", {"n": int})
    for n in range(3):
        table.append_row({"n": n})
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    table.append_row({"n": 3})
    (path,) = (tmp_path / "run" / ".cox" / "journal").glob("*.log")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    (tmp_path / "run" / ".cox" / "run.json").unlink()
    _, rows = assert_readers_agree(tmp_path / "run")["t"]
    assert rows == [((int, n),) for n in range(4)]
    store._writer.abandon()  # type: ignore[union-attr]
