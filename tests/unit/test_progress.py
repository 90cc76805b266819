"""A bar for what takes longer than a second, where somebody is looking; and nothing of it otherwise."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from cox import progress


class Bar:
    """What is called of tqdm."""

    made: list[Bar]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.updates = 0
        self.closed = 0
        Bar.made.append(self)

    def update(self) -> None:
        self.updates += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that go by as a test says."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    Bar.made = []
    monkeypatch.setattr(progress, "_bar", lambda: Bar)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    return now


def look(monkeypatch: pytest.MonkeyPatch, *, tty: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty, raising=False)


def test_a_bar_after_a_second_tells_how_many_there_were(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(monkeypatch, tty=True)
    items = progress.shown(range(10), 10, "reading")
    for at in range(4):
        assert next(items) == at
        clock[0] += 0.3
    assert Bar.made == []
    assert list(items) == [4, 5, 6, 7, 8, 9]
    (bar,) = Bar.made
    assert bar.options == {"total": 10, "initial": 4, "desc": "reading", "unit": "run", "leave": False}
    assert (bar.updates, bar.closed) == (6, 1)


def test_no_bar_for_what_is_quick(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, tty=True)
    for _ in progress.shown(range(10), 10, "reading"):
        clock[0] += 0.1
    assert Bar.made == []


def test_no_bar_where_nobody_looks(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, tty=False)
    for _ in progress.shown(range(3), 3, "reading"):
        clock[0] += 10
    assert Bar.made == []


def test_the_bar_goes_when_reading_fails_or_is_given_up(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(monkeypatch, tty=True)
    items = progress.shown(range(3), 3, "reading")
    next(items)
    clock[0] += 2
    next(items)
    items.close()
    assert [bar.closed for bar in Bar.made] == [1]


def test_in_a_notebook_somebody_looks(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, tty=False)
    for shell, looks in (
        (types.SimpleNamespace(kernel=1), True),
        (types.SimpleNamespace(), False),
        (None, False),
    ):
        ipython = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        Bar.made = []
        for _ in progress.shown(range(3), 3, "reading"):
            clock[0] += 10
        assert bool(Bar.made) == looks


def test_which_bar_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm

    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert progress._bar() is tqdm.tqdm
