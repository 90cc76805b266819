"""`cox compare`, `diff`, `plot`, `export` and `cache`, as typed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.cli.commands.compare import with_interval
from tests.caching import kept_at_once, settle
from tests.cli.conftest import Call, log_run

pytest.importorskip("scipy")


def test_compare_has_all_numbers_in_a_pipe(sweep: Path, call: Call) -> None:
    done = call("compare", "results", "loss", sweep, "--by", "lr", "--over", "seed", "--reduce", "min")
    assert not done.stderr
    first, second = csv.DictReader(io.StringIO(done.stdout))
    assert list(first) == ["lr", "n", "n_nan", "mean", "std", "low", "high", "iqm", "min", "max", "runs"]
    assert (first["lr"], first["n"], first["runs"]) == ("0.1", "2", "a0 a1")
    assert float(second["mean"]) == pytest.approx(1 / 3 + 0.005)


def test_compare_shows_a_mean_and_its_interval(sweep: Path, call: Call, screen: Any) -> None:
    lines = call("compare", "results", "acc", sweep, "--by", "lr", "--over", "seed").stdout.splitlines()
    assert lines[0].split() == ["lr", "n", "acc", "iqm", "min", "max"]
    assert lines[2].split() == ["0.1", "2", "0.640", "±", "0.032", "0.6404", "0.6379", "0.6429"]
    done = call("compare", "results", "acc", sweep, "--by", "lr", "--over", "seed", "--format", "latex")
    assert r"0.640 $\pm$ 0.032" in done.stdout


@pytest.mark.parametrize(
    ("three", "symmetric", "shown"),
    [
        ((0.91234, 0.90123, 0.92345), True, "0.912 ± 0.011"),
        ((1234.5, 1000.0, 1469.0), True, "1234 ± 234"),
        ((0.5, 0.5, 0.5), True, "0.5 ± 0"),
        ((0.5, float("nan"), float("nan")), True, "0.5"),
        ((float("nan"),) * 3, True, "nan"),
        ((0.5, 0.41, 0.52), False, "0.500 [0.410, 0.520]"),
    ],
)
def test_two_digits_of_the_half_width(three: Any, symmetric: bool, shown: str) -> None:
    assert with_interval(*three, symmetric=symmetric) == shown


def test_compare_tells_what_is_not_in_it(sweep: Path, call: Call) -> None:
    log_run(sweep, "again", 0.1, 0)
    with cox.Store(sweep, "diverged") as store:
        store.add_table("metadata", {"lr": float, "seed": int, "arch": str, "size": int})
        store["metadata"].append_row({"lr": 0.1, "seed": 5, "arch": "resnet", "size": 32})
        store.add_table("results", {"step": int, "loss": float, "acc": float})
        store["results"].append_row({"step": 0, "loss": float("nan"), "acc": 0.5})
    done = call("compare", "results", "loss", sweep, "--by", "lr", "--over", "seed")
    assert done.stderr.splitlines() == [
        "note: with NaN among the values: diverged",
        "note: with the same parameters, such as a repeated seed: a0 = again",
    ]
    document = json.loads(
        call("compare", "results", "loss", sweep, "--by", "lr", "--over", "seed", "--json").stdout
    )
    assert (document["nan"], document["repeated"]) == (["diverged"], [["a0", "again"]])
    assert document["groups"][0]["n_nan"] == 1
    assert document["groups"][0]["runs"] == ["a0", "a1", "again"]


def test_compare_does_not_mix(sweep: Path, call: Call) -> None:
    wrong = call("compare", "results", "loss", sweep, "--over", "seed", status=1).stderr
    assert wrong.startswith("Error: ")
    assert "lr" in wrong
    call("compare", "results", "loss", sweep, "--over", "seed", "--mixed")
    assert "'los'" in call("compare", "results", "los", sweep, status=1).stderr


def test_diff(sweep: Path, call: Call) -> None:
    done = call("diff", sweep / "a0", sweep / "b0")
    rows = {(row["section"], row["name"]): row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert rows["parameters", "lr"]["a0"] == "0.1"
    assert rows["parameters", "lr"]["b0"] == "0.5"
    assert ("parameters", "seed") not in rows
    document = json.loads(call("diff", sweep / "a0", sweep / "b0", "--json").stdout)
    assert (document["first"], document["second"]) == ("a0", "b0")
    lr = document["differences"][0]
    assert lr == {"section": "parameters", "name": "lr", "first": 0.1, "second": 0.5, "change": 0.4}


def test_diff_of_two_folders(sweep: Path, tmp_path: Path, call: Call) -> None:
    other = tmp_path / "other"
    other.mkdir()
    log_run(other, "a0", 0.9, 0)
    log_run(other, "b0", 0.9, 0)
    log_run(other, "c0", 0.9, 0)
    for first, second, name in (("a0", "a0", "other/a0"), ("a0", "b0", "other/b0"), ("a0", "c0", "c0")):
        document = json.loads(call("diff", sweep / first, other / second, "--json").stdout)
        assert document["second"] == name
        assert document["differences"][0]["second"] == 0.9


def test_plot(sweep: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("seaborn")
    monkeypatch.chdir(tmp_path)
    assert (
        call("plot", "results", "loss", sweep, "--hue", "lr", "--over", "seed").stdout == "results-loss.png\n"
    )
    assert (tmp_path / "results-loss.png").read_bytes().startswith(b"\x89PNG")
    target = tmp_path / "x.pdf"
    done = call("plot", "results", "loss", sweep, "-x", "acc", "--log", "y", "-o", target, "--json")
    assert json.loads(done.stdout) == {"path": str(target)}
    assert target.read_bytes().startswith(b"%PDF")


def test_a_table_without_steps_is_plotted_by_row(sweep: Path, call: Call, tmp_path: Path) -> None:
    pytest.importorskip("seaborn")
    target = tmp_path / "x.svg"
    call("plot", "metadata", "lr", sweep, "-o", target)
    assert "<!-- row -->" in target.read_text()
    call("plot", "results", "loss", sweep, "-x", "row", "-o", target)
    assert "<!-- row -->" in target.read_text()
    call("plot", "results", "loss,acc", sweep, "--bins", 2, "--smooth", 0.5, "-o", target)
    assert all(f"<!-- {label} -->" in target.read_text() for label in ("step", "loss", "acc"))
    assert "did you mean 'results'?" in call("plot", "result", "lr", sweep, status=1).stderr


def test_errors_name_the_options_that_are_typed(sweep: Path, call: Call) -> None:
    pytest.importorskip("seaborn")
    mixed = call("compare", "results", "loss", sweep, "--over", "seed", status=1).stderr
    assert all(option in mixed for option in ("--by", "--over", "--mixed"))
    none = call("plot", "results", "loss", sweep, "--params", "lr < 0", status=1).stderr
    assert "passes --params 'lr < 0'; the values there are: lr: 0.1 (2 runs), 0.5 (2 runs)" in none
    both = call("compare", "results", "loss", sweep, "--by", "lr", "--over", "lr", status=1).stderr
    assert "in --by and in --over" in both
    for text in (mixed, none, both):
        assert not set(text) & {"=…"} and "=True" not in text and "exp_filter" not in text
    with pytest.raises(cox.errors.CompareError, match=r"by=….*over=….*mixed=True"):
        cox.CollectionReader(sweep).compare("results", "loss", over="seed")


def test_runs_that_differ_are_not_said_to_have_the_same_parameters(sweep: Path, call: Call) -> None:
    log_run(sweep, "c0", 0.1, 0, arch="vgg")
    done = call("compare", "results", "loss", sweep, "--by", "lr", "--over", "seed", "--mixed")
    assert not done.stderr


def test_export(sweep: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    dest = tmp_path / "exported"
    lines = call("export", sweep, dest, "--table", "results").stdout.splitlines()
    assert lines == [f"{dest / 'results'}: 4 runs written"]
    monkeypatch.chdir(sweep)
    again = json.loads(call("export", dest, "--json").stdout)
    assert again == {"dest": str(dest), "tables": {"metadata": 4, "results": 0}}
    assert "[PATH] DEST" in call("export", status=2).stderr
    assert "no directory of runs" in call("export", tmp_path / "no", dest, status=2).stderr


def test_cache(sweep: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("cache", sweep).stdout == f"{sweep}: no cache\n"
    kept_at_once(monkeypatch)
    settle(sweep)
    cox.CollectionReader(sweep, cache=True).df("results")
    document = json.loads(call("cache", sweep, "--json").stdout)
    assert (document["runs"], document["cleared"]) == (4, False)
    assert call("cache", sweep).stdout.startswith(f"{sweep}: 4 runs, ")
    assert call("cache", sweep, "--clear").stdout.endswith(", removed\n")
    assert not (sweep / ".cox-cache").exists()
