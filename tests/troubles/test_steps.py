"""Which column counts the steps of a table: one answer for plots, for TensorBoard, and for rewinding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cox
from cox.errors import RewindError
from cox.readers import CollectionReader
from cox.tensorboard.view.from_tables import TableEvents
from cox.tensorboard.view.selection import Selection

#: The columns of a table beside `loss`, and which of them counts.
COLUMNS: dict[str, tuple[dict[str, list[Any]], str]] = {
    "step": ({"step": [0, 2, 4, 6]}, "step"),
    "global_step": ({"global_step": [0, 2, 4, 6]}, "global_step"),
    "iteration": ({"iteration": [0, 2, 4, 6]}, "iteration"),
    "epoch": ({"epoch": [0, 2, 4, 6]}, "epoch"),
    "whole floats": ({"epoch": [0.0, 2.0, 4.0, 6.0]}, "epoch"),
    "the likeliest": ({"epoch": [1, 3, 5, 7], "step": [0, 2, 4, 6]}, "step"),
    "one begins again": ({"step": [0, 2, 0, 2], "global_step": [0, 2, 4, 6]}, "global_step"),
    "one is text": ({"step": ["a", "b", "c", "d"], "iteration": [0, 2, 4, 6]}, "iteration"),
}


def log(folder: Path, columns: dict[str, list[Any]]) -> cox.Store:
    store = cox.Store(folder, "run")
    store.log_params({"lr": 0.1})
    table = store.add_table("t", {**{name: type(cells[0]) for name, cells in columns.items()}, "loss": float})
    for row, cells in enumerate(zip(*columns.values(), strict=True)):
        table.append_row({**dict(zip(columns, cells, strict=True)), "loss": float(row)})
    return store


@pytest.mark.parametrize("case", COLUMNS)
def test_a_plot(out: Path, case: str) -> None:
    pytest.importorskip("matplotlib")
    columns, counting = COLUMNS[case]
    log(out, columns).close()
    with CollectionReader(out) as reader:
        axes = reader.plot("t", y="loss")
    assert axes.get_xlabel() == counting
    assert list(axes.lines[0].get_xdata()) == columns[counting]


@pytest.mark.parametrize("case", COLUMNS)
def test_tensorboard(out: Path, case: str) -> None:
    columns, counting = COLUMNS[case]
    log(out, columns).close()
    with TableEvents(["t"]) as events:
        folder = events.targets(Selection(out).first())["run"]
        points = EventAccumulator(str(folder)).Reload().Scalars("t/loss")
    assert [point.step for point in points] == columns[counting]


@pytest.mark.parametrize("case", COLUMNS)
def test_a_rewind(out: Path, case: str) -> None:
    columns, _ = COLUMNS[case]
    with log(out, columns) as store:
        store.rewind("t", step=3)
        assert store["t"].df["loss"].tolist() == [0, 1]


def test_a_rewind_by_a_column_that_does_not_grow_with_every_row(out: Path) -> None:
    """Training and validation log a row each: the first of the names is as good as any other."""
    with log(out, {"step": [0, 0, 1, 1, 2, 2], "epoch": [0, 0, 0, 0, 1, 1]}) as store:
        store.rewind("t", step=1)
        assert store["t"].df["loss"].tolist() == [0, 1]


def test_a_rewind_by_the_column_that_is_named(out: Path) -> None:
    with log(out, {"step": [0, 2, 4, 6], "epoch": [0, 1, 2, 3]}) as store:
        store.rewind("t", step=3, column="epoch")
        assert store["t"].df["loss"].tolist() == [0, 1, 2]


def test_the_columns_that_would_do_are_named(out: Path) -> None:
    with log(out, {"name": ["a"], "batch": [0]}) as store:
        table = store["t"]
        for column, sentence in {
            None: r"no column step, global_step, iteration, epoch counts steps; give column=",
            "name": r"column 'name' \(str\) cannot count steps",
            "btch": r"has no column 'btch'; there are \['name', 'batch', 'loss'\]; did you mean 'batch'\?",
        }.items():
            with pytest.raises(
                RewindError, match=rf"{sentence}; of columns that can there are \['batch', 'lo"
            ):
                table.rewind(step=1, column=column)
        assert len(table.df) == 1
