"""What the tests of commands share: a folder of small runs, a call, and a terminal that is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cox
from cox.cli import main, terminal

Call = Callable[..., Result]


def log_run(
    folder: Path, name: str | None, lr: float, seed: int, *, arch: str = "resnet", rows: int = 5
) -> Path:
    """A run with parameters, and a table `results` whose loss depends on them."""
    with cox.Store(folder, name) as store:
        store.add_table("metadata", {"lr": float, "seed": int, "arch": str, "size": int})
        store["metadata"].append_row({"lr": lr, "seed": seed, "arch": arch, "size": 32})
        store.add_table("results", {"step": int, "loss": float, "acc": float})
        for step in range(rows):
            loss = 1 / (1 + step * lr) + seed / 100
            store["results"].append_row({"step": step, "loss": loss, "acc": 1 - loss / 2})
        return Path(store.path)


@pytest.fixture
def sweep(out: Path) -> Path:
    """Four runs: two learning rates, two seeds."""
    for lr, letter in ((0.1, "a"), (0.5, "b")):
        for seed in (0, 1):
            log_run(out, f"{letter}{seed}", lr, seed)
    return out


@pytest.fixture
def call() -> Call:
    """Call the command, which must not fail by a traceback."""

    def invoke(*arguments: object, status: int = 0, color: bool = False) -> Result:
        done = CliRunner().invoke(
            main, [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments], color=color
        )
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        assert done.exit_code == status, done.output
        return done

    return invoke


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Have commands believe that they print to a terminal: `screen(80, 24)` sets its size."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)

    def resize(columns: int, lines: int) -> None:
        monkeypatch.setattr(terminal, "size", lambda: os.terminal_size((columns, lines)))

    resize(80, 24)
    return resize
