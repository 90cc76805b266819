"""What a terminal shows: numbers whole, runs told apart, lines no wider than it is."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.collection.naming import resolve, shortening
from cox.display.fitting import fit
from cox.display.grid import DECORATION, PINNED, Column, Grid
from cox.display.text import cut, width
from cox.errors import RunNameError, RunNotFoundError
from tests.cli.conftest import Call
from tests.conftest import ROOT

WIDTHS = (40, 60, 80, 120, 200)
LONG = "imagenet_resnet50_bs256_lr0.1_wd1e-4_augmix_seed{}"


@pytest.fixture
def seeds(out: Path) -> Path:
    """Runs whose names differ at their end only."""
    for seed in range(3):
        with cox.Store(out, LONG.format(seed)) as store:
            store.add_table("metadata", {"seed": int, "note": str})
            store["metadata"].append_row({"seed": seed, "note": "a long text, 日本語, " * 5 + str(seed)})
            store.add_table("results", {"step": int, "validation_top1": float, "loss": float})
            store["results"].append_row({"step": 12340 + seed, "validation_top1": 0.5432, "loss": 0.98765})
    return out


def on_a_terminal(*arguments: object, columns: int = 80, term: str = "xterm") -> str:
    """What a terminal of some width gets of a command, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "cox.cli", *map(str, arguments)]
    with subprocess.Popen(command, stdout=slave, stderr=slave, env={**environment, "TERM": term}):
        os.close(slave)
        data = b""
        try:
            while piece := os.read(master, 9999):
                data += piece
        except OSError:  # Linux: the other side is closed
            pass
    os.close(master)
    return re.sub(r"\x1b\[[0-9;]*m", "", data.decode())


def test_a_dumb_terminal_shows_the_same(seeds: Path) -> None:
    names = "id,state,step,loss,validation_top1"
    shown = [
        on_a_terminal("ls", seeds, "--columns", names, columns=140, term=term) for term in ("xterm", "dumb")
    ]
    assert shown[0] == shown[1]
    assert "12342" in shown[1]


@pytest.mark.parametrize("columns", WIDTHS)
def test_what_ls_shows_of_a_name_is_one_that_show_takes(
    seeds: Path, call: Call, screen: Callable[[int, int], None], columns: int
) -> None:
    screen(columns, 40)
    lines = call("ls", seeds).stdout.splitlines()
    assert max(map(width, lines)) <= columns
    ids = [line.split()[0] for line in lines[2:]]
    assert len(set(ids)) == 3
    for i, shown in enumerate(ids):
        assert call("show", seeds / shown, "--json").stdout.startswith(f'{{\n "id": "{LONG.format(2 - i)}"')
    whole = call("ls", seeds, "--full-ids").stdout.splitlines()
    assert [line.split()[0] for line in whole[2:]] == [LONG.format(2 - i) for i in range(3)] or columns < 50


def test_metrics_stay_where_times_go(seeds: Path, call: Call, screen: Callable[[int, int], None]) -> None:
    screen(80, 40)
    done = call("ls", seeds)
    assert done.stdout.splitlines()[2].split()[-2:] == ["0.5432", "0.9877"]
    assert "started, duration" in done.stderr
    screen(200, 40)
    assert {"started", "duration", "12342"} <= set(call("ls", seeds).stdout.split())


def test_the_column_that_sorts_stays(seeds: Path, call: Call, screen: Callable[[int, int], None]) -> None:
    screen(50, 40)
    assert call("ls", seeds, "--sort", "step").stdout.splitlines()[-1].split()[-1] == "12342"


@pytest.mark.parametrize("columns", WIDTHS)
def test_diff_shows_the_change(
    seeds: Path, call: Call, screen: Callable[[int, int], None], columns: int
) -> None:
    screen(columns, 40)
    lines = call("diff", seeds / LONG.format(0), seeds / LONG.format(2)).stdout.splitlines()
    assert max(map(width, lines)) <= columns
    assert lines[0].split()[-1] == "change"
    headings = lines[0].split()[-3:-1]
    assert headings[0] != headings[1]
    step = next(line for line in lines if "step" in line or "ste…" in line or "12340" in line)
    assert step.split()[-3:] == ["12340", "12342", "2"]


def test_diff_shows_where_long_texts_differ(seeds: Path, call: Call, screen: Any) -> None:
    shown = call("diff", seeds / LONG.format(0), seeds / LONG.format(2)).stdout
    (note,) = (line for line in shown.splitlines() if " note " in line)
    assert re.search(r"0 +\S*.*2$", note)


@pytest.mark.parametrize("columns", WIDTHS)
def test_df_and_tail_cut_no_number(
    seeds: Path, call: Call, screen: Callable[[int, int], None], columns: int
) -> None:
    screen(columns, 40)
    for command in (("df", "results", seeds), ("tail", seeds / LONG.format(0), "results")):
        lines = call(*command).stdout.splitlines()
        assert max(map(width, lines)) <= columns
        assert all("…" not in word for line in lines[2:] for word in line.split() if word[0].isdigit())


def test_compare_keeps_the_mean_and_its_interval(
    sweep: Path, call: Call, screen: Callable[[int, int], None]
) -> None:
    for columns in (30, 40, 80):
        screen(columns, 40)
        lines = call("compare", "results", "acc", sweep, "--by", "lr", "--over", "seed").stdout.splitlines()
        assert "0.640 ± 0.032" in lines[2]
        assert max(map(width, lines)) <= columns


def test_the_format_that_is_asked_for_is_printed_in_a_pipe(sweep: Path, call: Call) -> None:
    lines = call("ls", sweep, "--format", "table", "--columns", "lr,acc").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["id", "lr", "acc"], ["b1", "0.5", "0.8283"]]
    assert call("ls", sweep, "--format", "md").stdout.startswith("| id | state |")
    assert len(call("ls", sweep, "--format", "jsonl").stdout.splitlines()) == 4
    lines = call("tail", sweep / "a0", "results", "-n", 1, "--format", "table").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["step", "4"]


def test_uuids_are_as_short_as_they_can_be() -> None:
    names = ["3f2a9c41-0000-4000-8000-000000000000", "3f2a9c41-1000-4000-8000-000000000000", "a name"]
    short = shortening(names)
    assert list(map(short, names)) == ["3f2a9c41-0", "3f2a9c41-1", "a name"]
    assert shortening(names[1:])(names[1]) == "3f2a9c41"
    assert shortening(["group/" + names[0]])("group/" + names[0]) == "group/3f2a9c41"
    for name in names:
        assert resolve(short(name), names, "it") == name


def test_what_a_part_of_a_name_means() -> None:
    names = ["run_a_1", "run_b_1", "run_b_2", "group/deep"]
    assert resolve("run_a", names, "it") == "run_a_1"
    assert resolve("run_…_2", names, "it") == "run_b_2"
    assert resolve("deep", names, "it") == "group/deep"
    with pytest.raises(RunNameError, match="2 runs begin with it: run_a_1, run_b_1"):
        resolve("run_…_1", names, "it")
    for nothing in ("", "run_c", "run_b_1…1"):
        with pytest.raises(RunNotFoundError, match="there is no run it"):
            resolve(nothing, names, "it")


def test_a_name_is_cut_only_so_far_that_it_is_still_that_of_one_run() -> None:
    names = [f"experiment_with_a_long_name_{letter}_or_a_longer_name_seed0" for letter in "AB"]
    column = Column("id", names[:1], among=names, rank=PINNED)
    (cell,) = fit(Grid([column, Column("x", [1])]), 54).cells[0]
    assert resolve(cell, names, "it") == names[0]  # the cut leaves in what tells the two apart
    other = Column("note", ["a text of some thirty characters"])
    (cell,) = fit(Grid([column, Column("x", [1]), other]), 58).cells[0]
    assert resolve(cell, names, "it") == names[0]  # the note gives way
    names = [f"experiment_{letter}_with_a_long_name_or_a_longer_name_seed0" for letter in "AB"]
    column = Column("id", names[:1], among=names, rank=PINNED)
    (cell,) = fit(Grid([column, Column("x", [1])]), 40).cells[0]
    assert "…" in cell
    assert resolve(cell, names, "it") == names[0]


def test_texts_that_differ_at_their_end_are_cut_there_last() -> None:
    paths = [f"/mnt/cluster/datasets/imagenet/shards/{i}" for i in range(3)]
    column = Column("data", paths, tells=True)
    assert len(set(fit(Grid([column, Column("x", [1.0] * 3)]), 24).cells[0])) == 3


def test_numbers_that_six_digits_make_alike_are_shown_whole() -> None:
    assert Column("lr", [0.12345678, 0.12345679], tells=True).texts() == ["0.12345678", "0.12345679"]
    assert Column("lr", [0.1, 1 / 3], tells=True).texts() == ["0.1", "0.333333"]


def test_headings_that_would_be_cut_alike_show_where_they_differ() -> None:
    names = ["validation_top1_accuracy_of_the_average", "validation_top5_accuracy_of_the_average"]
    headings = fit(Grid([Column(name, [0.5]) for name in names]), 40).headings
    assert ["top1" in headings[0] or "p1" in headings[0], "5" in headings[1]] == [True, True]


@pytest.mark.parametrize("columns", range(3, 90))
def test_no_line_is_too_wide(columns: int) -> None:
    grid = Grid(
        [
            Column("id", ["実験" * 9 + "a", "実験" * 9 + "b"], among=["other"], rank=PINNED),
            Column("started", ["now", "yesterday"], rank=DECORATION, whole=True),
            Column("text", ["word " * 30, None]),
            Column("a_long_heading_of_a_number", [1.5, 123456]),
        ]
    )
    fitted = fit(grid, columns)
    assert max(map(width, fitted.lines(rule="─"))) <= columns
    shown = [column.name for column in fitted.columns]
    assert "a_long_heading_of_a_number" in shown or columns < 48
    assert "started" not in shown or len(shown) == 4
    assert sorted(fitted.hidden) == sorted({c.heading for c in grid.columns} - set(shown))


def test_numbers_are_never_cut() -> None:
    numbers = [123456789012345678901234567890 + i for i in range(2)]
    mixed = Column("m", [0.123456 + 123456789, 12345678901234567890, "words and more words, and yet more"])
    for columns in range(34, 60, 5):
        assert fit(Grid([Column("x", numbers), Column("text", ["word " * 9] * 2)]), columns).cells[0] == list(
            map(str, numbers)
        )
        grid = Grid([Column("x", [1, 2, 3]), mixed, Column("text", ["word " * 9] * 3)])
        assert fit(grid, columns).cells[1][1] == "12345678901234567890"


def test_cutting_counts_wide_characters() -> None:
    assert cut("日本語日本語", 5) == "日本…"
    assert cut("日本語日本語", 6, "both") == "日…本語" or width(cut("日本語日本語", 6, "both")) <= 6
    assert cut("abcdef", 4, "end") == "…def"
    assert [cut("abc", columns) for columns in (0, 1, 2, 3)] == ["", "…", "a…", "abc"]


# --- Outputs that are closed or full


COMMANDS = (
    "--help",
    "ls --help",
    "ls .",
    "ls . --json",
    "df results",
    "show a0",
    "tail a0 results",
    "diff a0 b0",
    "verify .",
    "cache .",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_that_are_closed_or_full_end_quietly(sweep: Path, command: str) -> None:
    # whoever sets PYTHONUNBUFFERED has nothing left in a buffer that the interpreter could complain of
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

    def shell(redirection: str) -> tuple[int, str]:
        line = f"set -o pipefail; {{ {sys.executable} -m cox.cli {command} {redirection}; }}"
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=sweep,
            env={**env, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    notes = "3 differences, 9 the same\n" if command.startswith("diff") else ""  # which stderr still gets
    assert shell(">&-") == (0, notes)
    assert shell(">/dev/full") == (1, "Error: cannot write the output: No space left on device\n")
    assert shell("| head -0") in ((141, ""), (0, ""))  # it may have ended before the pipe was closed
    assert shell("2>&- >/dev/null") == (0, "")
