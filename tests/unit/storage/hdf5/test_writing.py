"""Writing store.h5 anew: rows that lie in the old file as they will in the new one are copied compressed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cox
from cox.storage import layout, snapshot
from cox.storage.hdf5 import writing

OLD = 9000  # more than fit into a chunk
SCHEMA = {"step": int, "loss": float | None, "text": str | None}


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were copied, for each table that could have some."""
    seen: list[int] = []
    original = writing._copy_chunks

    def copy_chunks(*args: Any) -> int:
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(writing, "_copy_chunks", copy_chunks)
    return seen


def row(step: int) -> dict[str, Any]:
    return {"step": step, "loss": None if step % 4 == 0 else step / 3, "text": [None, "é", "bc"][step % 3]}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows as cox reads them; pandas, which reads the file without cox, must see as many."""
    table = snapshot.read(layout.RunLayout(folder / "run")).tables["t"]
    cells = {}
    for column in table.schema:
        values, missing = table.column(column)
        gone = [False] * len(values) if missing is None else missing.tolist()
        cells[column.name] = [None if m else v for v, m in zip(values.tolist(), gone, strict=True)]
    frame = pd.read_hdf(folder / "run" / "store.h5", "t")
    assert frame.index.tolist() == list(range(table.nrows))
    assert frame["step"].tolist() == cells["step"]
    return [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]


def fold_twice(folder: Path, between: Callable[[cox.Store], object]) -> None:
    with cox.Store(folder, "run") as store:
        table = store.add_table("t", SCHEMA)
        for step in range(OLD):
            table.append_row(row(step))
    with cox.Store(folder, "run") as store:
        between(store)


def go_on(store: cox.Store) -> None:
    for step in range(OLD, OLD + 50):
        store["t"].append_row(row(step))


def test_full_chunks_are_copied_and_new_rows_stand_behind_them(tmp_path: Path, copied: list[int]) -> None:
    fold_twice(tmp_path, go_on)
    assert copied[0] > OLD / 2
    assert rows_of(tmp_path) == [row(step) for step in range(OLD + 50)]


def test_many_folds_copy_what_was_copied(tmp_path: Path, copied: list[int]) -> None:
    fold_twice(tmp_path, go_on)
    for nrows in (OLD + 7000, OLD + 7005):
        with cox.Store(tmp_path, "run") as store:
            for step in range(store["t"].nrows, nrows):
                store["t"].append_row(row(step))
    assert copied[0] == copied[1] < copied[2]
    assert rows_of(tmp_path) == [row(step) for step in range(OLD + 7005)]


def longer_text(store: cox.Store) -> list[dict[str, Any]]:
    store["t"].append_row(row(OLD) | {"text": "x" * 50})
    return [*map(row, range(OLD)), row(OLD) | {"text": "x" * 50}]


def text_that_stands_for_missing(store: cox.Store) -> list[dict[str, Any]]:
    store["t"].append_row(row(OLD) | {"text": writing.MISSING_TEXT})
    return [*map(row, range(OLD)), row(OLD) | {"text": writing.MISSING_TEXT}]


def a_column_more(store: cox.Store) -> list[dict[str, Any]]:
    store["t"].add_column("late", bool)
    store["t"].append_row(row(OLD) | {"late": True})
    return [*(row(step) | {"late": None} for step in range(OLD)), row(OLD) | {"late": True}]


def a_rewind_into_the_file(store: cox.Store) -> list[dict[str, Any]]:
    store.rewind("t", OLD - 10, purge_tensorboard=False)
    store["t"].append_row(row(1))
    return [*map(row, range(OLD - 10)), row(1)]


def a_rewind_to_nothing(store: cox.Store) -> list[dict[str, Any]]:
    store.rewind("t", 0, purge_tensorboard=False)
    for step in range(OLD):
        store["t"].append_row(row(step + 7))
    return [row(step + 7) for step in range(OLD)]


@pytest.mark.parametrize(
    "change",
    [longer_text, text_that_stands_for_missing, a_column_more, a_rewind_into_the_file, a_rewind_to_nothing],
)
def test_rows_that_lie_otherwise_are_written_anew(
    tmp_path: Path, copied: list[int], change: Callable[[cox.Store], list[dict[str, Any]]]
) -> None:
    want: list[dict[str, Any]] = []
    fold_twice(tmp_path, lambda store: want.extend(change(store)))
    assert not any(copied)
    assert rows_of(tmp_path) == want


def test_rows_of_another_program_get_their_numbers(tmp_path: Path, copied: list[int]) -> None:
    """pandas appends frames with an index of their own; in a file of cox the index counts the rows."""
    fold_twice(tmp_path, lambda store: None)
    more = pd.DataFrame([row(step) | {"loss": 0.5, "text": "b"} for step in range(OLD)])
    more.to_hdf(tmp_path / "run" / "store.h5", key="t", append=True, data_columns=True, index=False)
    with cox.Store(tmp_path, "run") as store:
        assert not any(copied)  # they were written anew when the run was opened
        store["t"].append_row(row(0))
    assert len(rows_of(tmp_path)) == 2 * OLD + 1
    index = pd.read_hdf(tmp_path / "run" / "store.h5", "t").index
    assert index.tolist() == list(range(2 * OLD + 1))
