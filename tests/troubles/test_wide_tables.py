"""Tables of many columns, declared at once or one by one, with names of any length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cox.errors import DamageWarning
from cox.readers import CollectionReader
from cox.storage import layout, snapshot
from cox.store import Store


def add_one_by_one(store: Store, count: int, name: str = "metric/{:04}") -> None:
    table = store.add_table("t", {"step": int})
    for i in range(count):
        table.add_column(name.format(i), float)
        table.append_row({"step": i, name.format(i): float(i)})


def expected(count: int, name: str = "metric/{:04}") -> pd.DataFrame:
    cells = np.full((count, count), np.nan)
    np.fill_diagonal(cells, np.arange(count))
    frame = pd.DataFrame(cells, columns=[name.format(i) for i in range(count)]).astype("Float64")
    frame.insert(0, "step", np.arange(count))
    return frame


def journals(out: Path) -> list[Path]:
    return list((out / "run" / ".cox" / "journal").glob("*.log"))


def calls(function: Callable[[], Any]) -> int:
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("rank", [None, 3])
def test_columns_added_one_by_one_are_read_live_folded_and_continued(out: Path, rank: int | None) -> None:
    with Store(out, "run", rank=rank) as store:
        add_one_by_one(store, 150)
        pd.testing.assert_frame_equal(store["t"].df.drop(columns="rank", errors="ignore"), expected(150))
    with Store(out, "run", rank=rank) as store:
        table = store["t"]
        table.add_column("late", str)
        table.append_row({"step": 150, "late": "a"})
    with CollectionReader(out) as reader:
        frame = reader.df("t").drop(columns=["rank", "exp_id"], errors="ignore")
        if rank is not None:
            assert set(reader.df("t")["rank"]) == {rank}
    pd.testing.assert_frame_equal(frame.iloc[:150].drop(columns="late"), expected(150))
    assert frame["late"].tolist()[-1] == "a"


@pytest.mark.parametrize("rank", [None, 0])
def test_adding_a_column_costs_what_the_column_says(out: Path, rank: int | None) -> None:
    sizes = {}
    for count in (50, 200):
        with Store(out, f"run{count}", rank=rank) as store:
            table = store.add_table("t", {"step": int})
            table.append_row({"step": 0})
            for i in range(count):
                table.add_column(f"metric/{i:04}", float)
            (journal,) = (out / f"run{count}" / ".cox" / "journal").glob("*.log")
            sizes[count] = journal.stat().st_size
    assert sizes[200] < 5 * sizes[50]


def test_reading_and_closing_take_time_with_the_cells_and_not_with_their_cube(out: Path) -> None:
    counts: dict[int, list[int]] = {}
    for count in (50, 200):
        store = Store(out, f"run{count}")
        add_one_by_one(store, count)
        store["t"].df  # noqa: B018 - what is imported and compiled once does not count
        counts[count] = [calls(lambda: store["t"].df), calls(store.close)]  # noqa: B023
    for few, many in zip(counts[50], counts[200], strict=True):
        assert many < 16 * few


def test_three_thousand_columns(out: Path) -> None:
    names = [f"layer_{i}" for i in range(3000)]
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int, **dict.fromkeys(names, float)})
        for step in range(3):
            table.append_row({"step": step, **{name: step + i for i, name in enumerate(names)}})
    with CollectionReader(out) as reader:
        frame = reader.df("t", columns=["step", "layer_2999"])
    assert frame["layer_2999"].tolist() == [2999.0, 3000.0, 3001.0]
    assert pd.read_hdf(out / "run" / "store.h5", "t").shape == (3, 3001)


@pytest.mark.parametrize(("count", "length"), [(399, 200), (300, 1000), (20, 5000), (2, 70_000)])
def test_long_names_are_folded_by_blocks(out: Path, count: int, length: int) -> None:
    name = "m" * length + "{:04}"
    with Store(out, "run") as store:
        add_one_by_one(store, count, name)
    assert not journals(out)
    with Store(out, "run", mode="r") as store:
        pd.testing.assert_frame_equal(store["t"].df, expected(count, name))
    shape = pd.read_hdf(out / "run" / "store.h5", "t").shape
    assert shape == (count, count + 1)


def test_a_run_whose_rows_cannot_be_folded_can_be_opened_and_continued(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cox.storage.hdf5 import writing

    def refuse(*args: Any) -> None:
        raise ValueError("object header message is too large")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_create_dataset", refuse)
        for step in range(2):
            with Store(out, "run") as store:
                store.add_table("t", {"step": int}).append_row({"step": step})
    assert "object header message is too large" in caplog.text
    with Store(out, "run") as store:
        assert store["t"].df["step"].tolist() == [0, 1]


@pytest.mark.parametrize("which", [0, 1, "both"])
def test_the_record_of_a_column_survives_damage_to_one_of_its_copies(out: Path, which: Any) -> None:
    store = Store(out, "run")
    table = store.add_table("t", {"step": int})
    table.append_row({"step": 0})
    table.add_column("added", float)
    table.append_row({"step": 1, "added": 0.5})
    (path,) = journals(out)
    data = bytearray(path.read_bytes())
    places = [i for i in range(len(data)) if data.startswith(b"added", i)]
    assert len(places) == 2
    for place in places if which == "both" else [places[which]]:
        data[place] ^= 1
    other = layout.RunLayout(out / "copy")
    other.journal_dir.mkdir(parents=True)
    (other.journal_dir / path.name).write_bytes(data)
    store.close()
    copy = snapshot.read(other)
    assert copy.damage
    with pytest.warns(DamageWarning), Store(out, "copy", mode="r") as read:
        frame = read["t"].df
    if which == "both":  # without its cell, the row would be another one
        assert list(frame) == ["step"]
        assert frame["step"].tolist() == [0]
        assert any("the declaration of a column is lost" in sentence for sentence in copy.damage)
    else:
        assert frame["step"].tolist() == [0, 1]
        assert frame["added"].isna().tolist() == [True, False]


def test_a_column_added_by_a_signal_handler_in_the_middle_of_another_is_not_mixed_up(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int})
        table.append_row({"step": 0})
        log = table._state.writer.journal  # type: ignore[union-attr]
        append = log.append_column

        def interrupted(*args: Any) -> int:
            size = append(*args)
            monkeypatch.undo()
            table.add_column("b", str)
            table.append_row({"step": 1, "b": "handler"})
            return size

        monkeypatch.setattr(log, "append_column", interrupted)
        table.add_column("a", float)
        table.append_row({"step": 2, "a": 0.5, "b": "main"})
    with Store(out, "run", mode="r") as store:
        frame = store["t"].df
    assert frame["a"].isna().tolist() == [True, True, False]
    assert frame["b"].tolist()[1:] == ["handler", "main"]
