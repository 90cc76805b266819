"""The benchmarks run, and their tables come out. No time is asserted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import SUBJECTS
from benchmarks.measure import Contestant, take_turns
from benchmarks.report import Report, Target, seconds, size

CHECKOUT = Path(__file__).parents[1]


def run_benchmarks(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"COLUMNS": "200", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subject_prints_tables_and_leaves_nothing_behind(subject: str, tmp_path: Path) -> None:
    said = run_benchmarks(subject, "--tiny", "--markdown", "--dir", str(tmp_path))
    assert said.startswith("Python 3.")
    tables = re.findall(r"^\*\*(.+)\*\*\n\n(\|.+\|\n)(\|(?: ---:? \|)+\n)((?:\|.+\|\n)+)", said, re.M)
    assert tables, said
    for _, head, _, body in tables:
        for row in body.splitlines():
            assert row.count("|") == head.count("|"), row
            assert re.search(r"\d", row), row
    assert not list(tmp_path.iterdir())


def test_terminal_shows_tables_and_targets(tmp_path: Path) -> None:
    said = run_benchmarks("objects", "--tiny", "--dir", str(tmp_path))
    assert "A numpy array of 0.01 MB in a PICKLE cell" in said
    assert "pickle.dump, protocol 5" in said
    assert "(target ≤ 1.5×: " in said


def test_contestants_take_turns_and_are_compared_round_by_round() -> None:
    order: list[str] = []
    first = Contestant("first", lambda _: order.append("first"), calls=2)
    second = Contestant("second", lambda _: order.append("second"), every=2)
    take_turns([first, second], rounds=4, warm_up=0)
    assert sorted(first.rounds) == [0, 1, 2, 3]
    assert sorted(second.rounds) == [0, 2]
    assert order.count("first") == 8
    first.rounds = {0: np.array([1.0, 1.0]), 1: np.array([9.0, 9.0]), 2: np.array([2.0, 2.0])}
    second.rounds = {0: np.array([3.0]), 2: np.array([6.0])}
    assert second.times_slower_than(first) == 3
    assert second.median == 4.5


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        (Target("x", 4.0, 4), True),
        (Target("x", 4.1, 4), False),
        (Target("x", 300, 300, at_least=True), True),
        (Target("x", 299, 300, at_least=True), False),
    ],
)
def test_a_missed_target_is_said_to_be_missed(target: Target, holds: bool) -> None:
    assert target.holds is holds
    assert ("MISSED" in str(target)) is not holds


def test_markdown_escapes_what_would_end_a_cell() -> None:
    made = Report("Title", ["", "a|b"], rows=[["x", "1"]]).markdown()
    assert "| a\\|b |" in made


def test_numbers_are_shown_with_units() -> None:
    assert [seconds(x) for x in (2.5, 0.0171, 3.42e-6, 5e-8)] == ["2.50 s", "17.1 ms", "3.42 µs", "50 ns"]
    assert [size(x) for x in (51.0, 2400.0, 2.4e6)] == ["51.0 B", "2.40 kB", "2.40 MB"]
