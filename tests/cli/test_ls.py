"""`cox ls`, as typed."""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.storage import layout, snapshot
from tests.cli.conftest import Call, log_run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def ids(text: str) -> list[str]:
    return [row["id"] for row in rows(text)]


def test_a_line_for_each_run_the_newest_first(sweep: Path, call: Call) -> None:
    done = call("ls", sweep)
    assert ids(done.stdout) == ["b1", "b0", "a1", "a0"]
    assert not done.stderr
    first = rows(done.stdout)[0]
    assert list(first) == [
        "id", "state", "started", "duration", "lr", "seed", "arch", "size",
        "results.step", "results.loss", "results.acc",
    ]  # fmt: skip
    assert (first["state"], first["lr"], first["results.step"]) == ("finished", "0.5", "4")
    assert float(first["results.loss"]) == 1 / 3 + 0.01
    assert ids(call("ls", sweep, "--reverse").stdout) == ["a0", "a1", "b0", "b1"]


def test_json_is_one_document(sweep: Path, call: Call) -> None:
    document = json.loads(call("ls", sweep, "--json", "-n", 1).stdout)
    assert (document["path"], document["total"], len(document["runs"])) == (str(sweep), 4, 1)
    (run,) = document["runs"]
    assert run["params"] == {"lr": 0.5, "seed": 1, "arch": "resnet", "size": 32}
    assert run["last"]["results"]["step"] == 4
    assert run["started"].endswith("+00:00")
    assert (run["id"], run["state"], run["error"]) == ("b1", "finished", None)


def test_nan_is_null_in_json(out: Path, call: Call) -> None:
    with cox.Store(out, "a") as store:
        store.add_table("t", {"x": float, "y": float}).append_row({"x": float("nan"), "y": float("inf")})
    (run,) = json.loads(call("ls", out, "--json").stdout)["runs"]
    assert run["last"]["t"] == {"x": None, "y": "inf"}


def test_the_screen_has_what_tells_runs_apart(
    sweep: Path, call: Call, screen: Callable[[int, int], None]
) -> None:
    lines = call("ls", sweep).stdout.splitlines()
    assert lines[0].split() == ["id", "state", "started", "duration", "lr", "seed", "step", "loss", "acc"]
    assert lines[2].split()[:2] == ["b1", "finished"]
    assert "size" not in lines[0]  # it is the same everywhere
    assert all(len(line) <= 80 for line in lines)
    screen(50, 24)
    done = call("ls", sweep)
    assert all(len(line) <= 50 for line in done.stdout.splitlines())
    assert "columns do not fit: " in done.stderr
    assert done.stderr.endswith("4 runs\n")


def test_the_state_has_a_colour_unless_refused(
    sweep: Path, call: Call, screen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[32mfinished" in call("ls", sweep, color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in call("ls", sweep, color=True).stdout
    assert "\x1b" not in call("ls", sweep).stdout


def test_a_screenful_and_how_to_see_more(sweep: Path, call: Call, screen: Callable[[int, int], None]) -> None:
    screen(80, 7)
    done = call("ls", sweep)
    assert len(done.stdout.splitlines()) == 2 + 2
    assert done.stderr == "2 of 4 runs; -n 4 or --all for more\n"


def test_only_the_runs_that_are_shown_are_read(
    sweep: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = set()
    genuine = snapshot.read

    def reading(run: layout.RunLayout, **options: Any) -> Any:
        read.add(run.root.name)
        return genuine(run, **options)

    monkeypatch.setattr(snapshot, "read", reading)
    done = call("ls", sweep, "-n", 1)
    assert (ids(done.stdout), read) == (["b1"], {"b1"})
    assert done.stderr == "1 of 4 runs; -n 4 or --all for more\n"


def test_conditions_states_and_sorting(sweep: Path, call: Call) -> None:
    assert ids(call("ls", sweep, "--where", "lr < 0.2").stdout) == ["a1", "a0"]
    assert ids(call("ls", sweep, "--where", "lr < 0.2 and seed == 1").stdout) == ["a1"]
    assert ids(call("ls", sweep, "--sort", "loss").stdout) == ["b0", "b1", "a0", "a1"]
    assert ids(call("ls", sweep, "--sort", "results.loss", "--reverse").stdout) == ["a1", "a0", "b1", "b0"]
    assert ids(call("ls", sweep, "--sort", "id", "-n", 2).stdout) == ["a0", "a1"]
    assert ids(call("ls", sweep, "--sort", "started").stdout) == ["a0", "a1", "b0", "b1"]
    with pytest.raises(ValueError, match="diverged"), cox.Store(sweep, "c") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
        raise ValueError("diverged")
    assert ids(call("ls", sweep, "--state", "failed").stdout) == ["c"]
    assert ids(call("ls", sweep, "--state", "failed", "--state", "finished").stdout)[0] == "c"
    assert ids(call("ls", sweep, "--sort", "loss").stdout)[-1] == "c"  # it has none
    done = call("ls", sweep, "--state", "crashed")
    assert (done.stdout, done.stderr) == ("", f"none of the 5 runs in {sweep} fits\n")


def test_a_running_run_is_running(sweep: Path, call: Call) -> None:
    with cox.Store(sweep, "live") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
        assert rows(call("ls", sweep, "--state", "running").stdout)[0]["t.x"] == "1"


def test_columns(sweep: Path, call: Call) -> None:
    done = call("ls", sweep, "--columns", "acc,lr", "-n", 1)
    assert done.stdout.splitlines()[0] == "id,results.acc,lr"
    wrong = call("ls", sweep, "--columns", "los", status=1)
    assert wrong.stderr.startswith("Error: there is no column 'los'; there are ['id', 'state',")
    assert wrong.stderr.endswith("did you mean 'loss'?\n") or "loss" in wrong.stderr
    assert "no column" in call("ls", sweep, "--sort", "nothing", status=1).stderr


def test_a_parameter_called_like_a_fact_or_with_a_dot(out: Path, call: Call, screen: Any) -> None:
    for name in ("a", "b"):
        with cox.Store(out, name) as store:
            table = store.add_table("metadata", {"state": str, "optim.lr": float})
            table.append_row({"state": f"state of {name}", "optim.lr": 0.1 if name == "a" else 0.2})
    lines = call("ls", out).stdout.splitlines()
    assert lines[0].split() == ["id", "state", "started", "duration", "params.state", "optim.lr"]
    assert "state of b" in lines[2]


def test_metrics_of_the_same_name_have_their_table(out: Path, call: Call, screen: Any) -> None:
    with cox.Store(out, "a") as store:
        for table in ("train", "test"):
            store.add_table(table, {"acc": float, table: int}).append_row({"acc": 0.5, table: 1})
    assert call("ls", out).stdout.split()[4:8] == ["train.acc", "train", "test.acc", "test"]
    assert "several columns 'acc': train.acc, test.acc" in call("ls", out, "--sort", "acc", status=1).stderr


def test_a_run_of_a_newer_format_is_left_out(sweep: Path, call: Call) -> None:
    path = sweep / "a1" / ".cox" / "run.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    for options in ([], ["--state", "finished"], ["--where", "lr > 0"], ["--sort", "loss"]):
        done = call("ls", sweep, *options)
        assert sorted(ids(done.stdout)) == ["a0", "b0", "b1"]
        assert done.stderr.startswith("warning: run a1 is left out: ")


def test_uuids_are_short_on_the_screen_only(out: Path, call: Call, screen: Any) -> None:
    name = log_run(out, None, 0.1, 0).name
    assert call("ls", out).stdout.splitlines()[2].split()[0] == name[:8]
    assert call("ls", out, "--full-ids").stdout.splitlines()[2].split()[0] == name
    twin = str(uuid.UUID(name[:8] + uuid.uuid4().hex[8:]))
    log_run(out, twin, 0.1, 0)
    shown = {line.split()[0] for line in call("ls", out).stdout.splitlines()[2:]}
    assert all(len(text) > 8 for text in shown)  # the beginning is not enough to find them


def test_uuids_are_whole_in_a_pipe(out: Path, call: Call) -> None:
    name = log_run(out, None, 0.1, 0).name
    assert ids(call("ls", out).stdout) == [name]


def test_what_a_run_says_cannot_drive_the_terminal(out: Path, call: Call, screen: Any) -> None:
    log_run(out, "evil\x1b[2J", 0.1, 0, arch="\x1b]0;pwned\x07")
    done = call("ls", out, color=True)
    assert "evil?[2J" in done.stdout
    assert "\x1b[2J" not in done.output
    assert "\x07" not in done.output


def test_a_run_that_cannot_be_read_is_left_out(sweep: Path, call: Call) -> None:
    (sweep / "a1" / "store.h5").write_bytes(b"no HDF5")
    done = call("ls", sweep)
    assert ids(done.stdout) == ["b1", "b0", "a0"]
    lines = done.stderr.splitlines()
    assert lines[0].startswith("warning: run a1 is left out: ")
    assert len(lines) == 1


def test_nested_and_none(out: Path, call: Call) -> None:
    done = call("ls", out)
    assert (done.stdout, done.stderr) == ("", f"no runs in {out}; --nested looks deeper\n")
    assert json.loads(call("ls", out, "--json").stdout) == {"path": str(out), "total": 0, "runs": []}
    (out / "group").mkdir()
    log_run(out / "group", "a", 0.1, 0)
    assert ids(call("ls", out, "--nested").stdout) == [os.path.join("group", "a")]  # noqa: PTH118
    assert ids(call("ls", out / "group" / "a").stdout) == ["a"]


def test_usage(sweep: Path, call: Call) -> None:
    assert "choose one of them" in call("ls", sweep, "-n", 3, "--all", status=2).stderr
    assert "does not exist" in call("ls", sweep / "nothing", status=2).stderr
    wrong = call("ls", sweep, "--where", "lr <", status=1)
    assert wrong.stderr.startswith("Error: in this condition:\n    lr <\n")
    assert "no run has a parameter 'x'" in call("ls", sweep, "--where", "x == 1", status=1).stderr


def test_all_goes_through_a_pager_if_it_is_long(
    sweep: Path, call: Call, screen: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import click

    paged: list[str] = []
    monkeypatch.setattr(click, "echo_via_pager", paged.append)
    screen(80, 7)
    done = call("ls", sweep, "--all")
    assert (len(paged), done.stdout) == (1, "")
    assert len(paged[0].splitlines()) == 2 + 4
    screen(80, 24)
    assert call("ls", sweep, "--all").stdout
