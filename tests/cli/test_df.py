"""`cox df` and `cox sql`, as typed: every format, a screen, files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import cox
from cox.cli import tables
from cox.cli.options import FORMATS
from tests.cli.conftest import Call, log_run


@pytest.fixture
def texts(out: Path) -> Path:
    """A run whose cells try every format."""
    with cox.Store(out, "r") as store:
        table = store.add_table("t_1", {"a_b": str, "x": float, "n": int | None, "o": cox.OBJECT})
        table.append_row({"a_b": "50% | a_b & c", "x": float("nan"), "n": None, "o": [1]})
        table.append_row({"a_b": 'say "hi",\n\x1b[31m', "x": 0.1, "n": 3, "o": None})
    return out


def test_csv_in_a_pipe(sweep: Path, call: Call) -> None:
    lines = call("df", "results", sweep).stdout.splitlines()
    assert lines[0] == "step,loss,acc,exp_id"
    assert lines[1] == "0,1.0,0.5,a0"
    assert len(lines) == 1 + 4 * 5


def test_conditions_columns_head_tail(sweep: Path, call: Call) -> None:
    chosen = call(
        "df",
        "results",
        sweep,
        "--where",
        "step >= 3",
        "--params",
        "lr > 0.2 and seed == 1",
        "--columns",
        "step",
    )
    assert chosen.stdout == "step,exp_id\n3,b1\n4,b1\n"
    assert call("df", "results", sweep, "--columns", "step", "--head", 1).stdout == "step,exp_id\n0,a0\n"
    assert call("df", "results", sweep, "--columns", "step", "--tail", 1).stdout == "step,exp_id\n4,b1\n"
    assert call("df", "results", sweep, "--columns", "step", "--tail", 0).stdout == "step,exp_id\n"
    assert "choose one" in call("df", "results", sweep, "--head", 1, "--tail", 1, status=2).stderr


def test_data_is_left_as_it_is(texts: Path, call: Call) -> None:
    done = call("df", "t_1", texts)
    assert done.stdout == ('a_b,x,n,o,exp_id\n50% | a_b & c,nan,,[1],r\n"say ""hi"",\n\x1b[31m",0.1,3,,r\n')
    rows = json.loads(call("df", "t_1", texts, "--json").stdout)
    assert rows[0] == {"a_b": "50% | a_b & c", "x": None, "n": None, "o": [1], "exp_id": "r"}
    assert rows[1]["a_b"] == 'say "hi",\n\x1b[31m'
    lines = call("df", "t_1", texts, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_a_missing_text_is_empty_and_null(out: Path, call: Call) -> None:
    with cox.Store(out, "r") as store:
        table = store.add_table("t", {"s": str | None, "x": float | None})
        table.append_row({"s": None, "x": None})
        table.append_row({"s": "nan", "x": float("nan")})
    assert call("df", "t", out).stdout == "s,x,exp_id\n,,r\nnan,nan,r\n"
    assert json.loads(call("df", "t", out, "--json").stdout)[0] == {"s": None, "x": None, "exp_id": "r"}


def test_markdown_escapes(texts: Path, call: Call) -> None:
    lines = call("df", "t_1", texts, "--format", "md").stdout.splitlines()
    assert lines[0] == r"| exp\_id | a\_b | x | n | o |" or lines[0] == r"| a\_b | x | n | o | exp\_id |"
    assert lines[1] == "| :--- | ---: | ---: | :--- | :--- |"
    assert lines[2] == r"| 50% \| a\_b \& c | nan |  | \[1\] | r |"
    assert lines[3] == '| say "hi",??\\[31m | 0.1 | 3 |  | r |'


def test_latex_escapes(texts: Path, call: Call) -> None:
    lines = call("df", "t_1", texts, "--format", "latex").stdout.splitlines()
    assert lines[1] == r"\begin{tabular}{lrrll}"
    assert lines[3] == r"a\_b & x & n & o & exp\_id \\"
    assert lines[5] == r"50\% \textbar{} a\_b \& c & nan &  & [1] & r \\"
    assert lines[-1] == r"\end{tabular}"


def test_a_table_in_a_pipe_is_plain_text(sweep: Path, call: Call) -> None:
    lines = call("df", "results", sweep, "--format", "table", "--head", 2).stdout.splitlines()
    assert lines == [
        "exp_id  step      loss       acc",
        "a0         0         1       0.5",
        "a0         1  0.909091  0.545455",
    ]


def test_a_screen_shows_both_ends(sweep: Path, call: Call, screen: Callable[[int, int], None]) -> None:
    screen(80, 14)
    done = call("df", "results", sweep)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["exp_id", "step", "loss", "acc"]
    assert lines[2].split()[:2] == ["a0", "0"]
    assert set(lines[6].split()) == {"…"}
    assert lines[-1].split()[:2] == ["b1", "4"]
    assert len(lines) == 2 + 8
    assert "20 rows" in done.stderr
    assert not call("df", "results", sweep, "--tail", 3).stderr
    screen(24, 40)
    narrow = call("df", "results", sweep)
    assert all(len(line) <= 24 for line in narrow.stdout.splitlines())
    assert narrow.stderr == "1 column does not fit: acc\n"


def test_wide_text_is_cut_before_columns_go(out: Path, call: Call, screen: Any) -> None:
    with cox.Store(out, "r") as store:
        store.add_table("t", {"text": str, "x": int}).append_row({"text": "long " * 40, "x": 7})
    done = call("df", "t", out)
    assert (max(map(len, done.stdout.splitlines())) <= 80, done.stderr) == (True, "")
    assert "…" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" 7")


def test_a_screen_is_not_driven_by_what_it_shows(texts: Path, call: Call, screen: Any) -> None:
    for how in ("table", "csv", "md", "latex", "json", "jsonl"):
        shown = call("df", "t_1", texts, "--format", how, color=True).stdout
        assert "\x1b[31m" not in shown, how


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_files_by_suffix(sweep: Path, call: Call, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"saved{suffix}"
    done = call("df", "results", sweep, "-o", path)
    assert (done.stdout, done.stderr) == ("", f"20 rows in {path}\n")
    if suffix in (".parquet", ".pq"):
        frame = pd.read_parquet(path)
        pd.testing.assert_frame_equal(
            frame, cox.CollectionReader(sweep).df("results").reset_index(drop=True), check_dtype=False
        )
    elif suffix != ".txt":
        printed = call("df", "results", sweep, "--format", tables.SUFFIXES[suffix]).stdout
        assert path.read_text(encoding="utf-8") == printed
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]  # nothing is left beside it


def test_what_cannot_be_saved(sweep: Path, call: Call, tmp_path: Path) -> None:
    assert "name a file with -o" in call("df", "results", sweep, "--format", "parquet", status=2).stderr
    assert "ends in one of" in call("df", "results", sweep, "-o", tmp_path / "x.docx", status=2).stderr
    assert "choose one" in call("df", "results", sweep, "--json", "--format", "csv", status=2).stderr
    done = call("df", "results", sweep, "-o", tmp_path / "no" / "x.csv", status=2)
    assert "there is no directory" in done.stderr
    assert set(tables.SUFFIXES.values()) == set(FORMATS)


def test_unknown_names_are_told_with_the_known_ones(sweep: Path, call: Call) -> None:
    missing = call("df", "result", sweep, status=1).stderr
    assert missing.startswith("Error: no run in ")
    assert missing.endswith("there are ['metadata', 'results']; did you mean 'results'?\n")
    assert "did you mean 'loss'?" in call("df", "results", sweep, "--columns", "los", status=1).stderr
    assert "did you mean 'loss'?" in call("df", "results", sweep, "--where", "los > 1", status=1).stderr
    assert "no run has a parameter 'x'" in call("df", "results", sweep, "--params", "x > 1", status=1).stderr


def test_no_runs(out: Path, call: Call) -> None:
    assert (
        call("df", "t", out, status=1).stderr == f"Error: there is no run in {out}; --nested looks deeper\n"
    )


def test_one_run_will_do_as_a_folder(sweep: Path, call: Call) -> None:
    assert set(call("df", "results", sweep / "a0", "--columns", "step").stdout.split()[1:]) == {
        f"{step},a0" for step in range(5)
    }


def test_runs_that_cannot_be_read_are_warned_about_in_a_line(sweep: Path, call: Call) -> None:
    (sweep / "a1" / "store.h5").write_bytes(b"no HDF5")
    done = call("df", "results", sweep)
    assert "a1" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: run a1 is left out: ")


def test_many_warnings_are_counted(out: Path, call: Call) -> None:
    for number in range(15):
        run = log_run(out, f"r{number:02d}", 0.1, 0, rows=1)
        if number:
            (run / "store.h5").write_bytes(b"no HDF5")
    lines = call("df", "results", out).stderr.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "warning: 4 more like these"


def test_a_broken_pipe_is_no_error(out: Path) -> None:
    log_run(out, "r", 0.1, 0, rows=20_000)
    command = [sys.executable, "-W", "error", "-m", "cox.cli", "df", "results", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"step,loss,acc,exp_id\n"
        process.stdout.close()
        assert process.stderr.read() == b""


def test_sql(sweep: Path, call: Call) -> None:
    pytest.importorskip("duckdb")
    query = "select lr, max(step) as last from results join metadata using (exp_id) group by lr order by lr"
    assert call("sql", query, sweep).stdout == "lr,last\n0.1,4\n0.5,4\n"
    assert json.loads(call("sql", query, sweep, "--json").stdout)[0] == {"lr": 0.1, "last": 4}
    (run,) = json.loads(call("sql", "select * from runs where exp_id = 'a0'", sweep, "--json").stdout)
    assert run["state"] == "finished"
    assert run["started"].startswith("20")
    assert "T" in run["started"]
    assert call("sql", "select * from nothing", sweep, status=1).stderr.startswith("Error: ")
