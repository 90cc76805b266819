"""A run that is followed by looking at it, without a terminal and without waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

import cox
from cox.errors import ColumnNotFoundError, RunNotFoundError
from cox.storage.following import Ended, Event, Follower, NewRows, Rewound, Waiting
from cox.storage.layout import RunLayout


def rows(events: list[Event]) -> list[tuple[object, ...]]:
    return [row for event in events if isinstance(event, NewRows) for row in event.rows]


def test_rows_rewinds_and_the_end(out: Path) -> None:
    with cox.Store(out, "run") as store:
        follower = Follower(RunLayout(out / "run"), "t")
        assert follower.look() == [Waiting([])]
        store.add_table("u", {"x": int}).append_row({"x": 1})
        assert follower.look() == []
        table = store.add_table("t", {"x": int, "y": float | None})
        for x in range(3):
            table.append_row({"x": x})
        assert follower.look() == [NewRows(None, ["x", "y"], [(0, None), (1, None), (2, None)])]
        assert follower.look() == []
        store.rewind("t", nrows=1)
        table.append_row({"x": 7, "y": 0.5})
        assert follower.look() == [Rewound(None, 1), NewRows(None, ["x", "y"], [(7, 0.5)])]
    assert rows(follower.look()) == []
    (end,) = [event for event in follower.events(pause=0) if isinstance(event, Ended)]
    assert (end.status.state, end.lacking) == ("finished", None)


def test_the_last_rows_of_each_rank_of_some_columns(out: Path) -> None:
    with cox.Store(out, "run", rank=0) as zero, cox.Store(out, "run", rank=1) as one:
        for store in (zero, one):
            store.add_table("t", {"x": int, "y": int})
            for x in range(3):
                store["t"].append_row({"x": x, "y": x})
        follower = Follower(RunLayout(out / "run"), lambda now: next(iter(now.tables)), most=1, columns=["x"])
        assert follower.look() == [NewRows(0, ["x"], [(2,)]), NewRows(1, ["x"], [(2,)])]


def test_a_table_that_never_came(out: Path) -> None:
    cox.Store(out, "run").close()
    (end,) = Follower(RunLayout(out / "run"), "t").events()
    assert isinstance(end, Ended)
    assert end.lacking is not None
    assert list(end.lacking.tables) == []


def test_what_is_not_there(out: Path) -> None:
    with pytest.raises(RunNotFoundError):
        Follower(RunLayout(out / "run"), "t").look()
    with cox.Store(out, "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    with pytest.raises(ColumnNotFoundError, match="there are"):
        Follower(RunLayout(out / "run"), "t", columns=["y"]).look()
