"""Python's face, as a new user tries it: what is printed, shown in a notebook, iterated, and raised."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import cox
from cox.errors import CollectionWarning, RunNameError, RunNotFoundError
from cox.readers import CollectionReader
from tests.conftest import ROOT

UUIDS = [f"3f2a9c41-{i}000-4000-8000-000000000000" for i in range(4)]


@pytest.fixture
def runs(out: Path) -> Path:
    """Two learning rates with two seeds each, named by UUIDs that begin alike."""
    for i, name in enumerate(UUIDS):
        with cox.Store(out, name) as store:
            store.add_table("metadata", {"lr": float, "seed": int, "arch": str})
            store["metadata"].append_row({"lr": 0.1 if i < 2 else 0.5, "seed": i % 2, "arch": "vgg"})
            store.add_table("results", {"step": int, "loss": float})
            for step in range(3):
                store["results"].append_row({"step": step, "loss": 1 / (1 + step) + i / 100})
    return out


def test_a_comparison_prints_mean_and_interval_in_eighty_columns(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    frame = CollectionReader(runs).compare("results", "loss", by="lr", over="seed")
    lines = str(frame).splitlines()
    assert lines[0] == "loss: mean over seed, and its 95 % interval from low to high"
    assert lines[1].split() == ["lr", "n", "mean", "low", "high", "std", "iqm", "min", "max"]
    assert lines[3].split()[:5] == ["0.1", "2", "0.338", "0.275", "0.402"]
    assert max(map(len, lines)) <= 80
    assert frame.runs().tolist() == [tuple(UUIDS[:2]), tuple(UUIDS[2:])]
    assert frame.attrs["runs"] == frame.runs().tolist()
    assert "low</th>" in frame._repr_html_()


def test_what_is_made_of_a_comparison_is_a_frame(runs: Path) -> None:
    frame = CollectionReader(runs).compare("results", "loss", by="lr", over="seed")
    assert type(frame[["lr", "mean"]]) is pd.DataFrame
    assert "0.338333" in str(frame.sort_values("mean"))
    del frame["std"]  # changed in place, it is shown as any other frame
    assert "0.338333" in str(frame)
    assert "0.338333" in frame._repr_html_()


def test_a_difference_prints_the_change(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = str(CollectionReader(runs).diff("3f2a9c41-0", "3f2a9c41-3")).splitlines()
    assert lines[1].split()[-1] == "change"
    assert next(line for line in lines if " lr " in line).split() == ["parameters", "lr", "0.1", "0.5", "0.4"]
    assert max(map(len, lines)) <= 80


def test_a_notebook_shows_what_ls_shows(runs: Path) -> None:
    shown = CollectionReader(runs)._repr_html_()
    text = re.sub(r"<[^>]*>", " ", shown).split()
    assert text[:2] == ["4", "runs"]
    headings = ["id", "state", "started", "duration", "lr", "seed", "step", "loss"]
    start = text.index("id")
    assert text[start : start + 8] == headings
    assert "arch" not in text  # it is the same everywhere
    assert {"3f2a9c41-0", "3f2a9c41-3", "finished", "0.3633"} <= set(text)


def test_a_reader_is_indexed_and_iterated(runs: Path) -> None:
    with CollectionReader(runs) as reader:
        pd.testing.assert_frame_equal(reader["results"], reader.df("results"))
        assert [run.exp_id for run in reader] == UUIDS == list(reader.stores)
        assert [run.params["lr"] for run in reader] == [0.1, 0.1, 0.5, 0.5]
        assert all(len(run["results"].df) == 3 for run in reader)
        assert all(run is reader.stores[run.exp_id] for run in reader)
        assert (len(reader), UUIDS[0] in reader, "3f2a" in reader) == (4, True, False)
        assert len(repr(reader)) < 80 + len(str(runs))


def test_a_run_by_the_beginning_of_its_name(runs: Path) -> None:
    with CollectionReader(runs) as reader:
        assert reader.run("3f2a9c41-2").exp_id == UUIDS[2]
        with pytest.raises(RunNameError, match="4 runs begin with '3f2a'"):
            reader.run("3f2a")
        with pytest.raises(RunNotFoundError, match=r"there is no run 'x' in .*there are \[3f2a9c41-0"):
            reader.run("x")


def test_a_run_that_cannot_be_read_is_left_out_of_what_a_notebook_shows(runs: Path) -> None:
    (runs / UUIDS[0] / "store.h5").write_bytes(b"no HDF5")
    with pytest.warns(CollectionWarning, match="is left out"):
        assert CollectionReader(runs)._repr_html_().count("finished") == 3


def test_a_traceback_in_ipython_shows_the_program_and_the_error(runs: Path) -> None:
    pytest.importorskip("IPython")
    code = (
        f"from cox.readers import CollectionReader; CollectionReader({str(runs)!r}).compare('results', 'los')"
    )
    shell = (
        "from IPython.core.interactiveshell import InteractiveShell as Shell\n"
        f"Shell.instance(colors='NoColor').run_cell({code!r})"
    )
    done = subprocess.run([sys.executable, "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert any("did you mean 'loss'?" in line for line in lines)
    assert not any("/cox/collection/" in line for line in lines)
    assert len(lines) <= 12
