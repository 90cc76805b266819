"""`cox show`, as typed, and how commands find a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cox
from tests.cli.conftest import Call


def test_all_there_is_to_know(sweep: Path, call: Call) -> None:
    (sweep / "a0" / "save" / "model.pt").write_bytes(b"12345")
    text = call("show", sweep / "a0").stdout
    for line in (
        "a0",
        "  state       finished",
        f"  path        {sweep / 'a0'}",
        "  lr    0.1",
        "table results, 5 rows",
        "  step: int, loss: float, acc: float",
        "save/, 1 file, 5 B",
    ):
        assert line in text.splitlines()
    assert "\x1b" not in text
    assert "│" not in text


def test_json(sweep: Path, call: Call) -> None:
    (sweep / "a0" / "save" / "model.pt").write_bytes(b"12345")
    document = json.loads(call("show", sweep / "a0", "--json").stdout)
    assert document["params"]["lr"] == 0.1
    assert document["tables"]["results"] == {
        "rows": 5,
        "columns": {"step": "int", "loss": "float", "acc": "float"},
    }
    assert document["last"]["results"]["step"] == 4
    assert document["save"] == [{"name": "model.pt", "bytes": 5}]
    assert document["tensorboard"] == []


def test_a_failed_run_says_why_and_drives_no_terminal(out: Path, call: Call, screen: Any) -> None:
    with pytest.raises(ValueError, match="bad"), cox.Store(out, "r") as store:
        store.add_table("t", {"s": str, "o": cox.OBJECT}).append_row({"s": "\x1b[2J", "o": {1}})
        raise ValueError("bad \x1b[31m")
    done = call("show", out / "r", color=True)
    assert "ValueError: bad ?[31m" in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert "<object>" in done.stdout  # objects are not rebuilt for a look


def test_the_beginning_of_a_name_is_enough(sweep: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    cox.Store(sweep, "longer-name").close()
    assert call("show", f"{sweep}/long").stdout.startswith("longer-name\n")
    monkeypatch.chdir(sweep)
    assert call("show", "long").stdout.startswith("longer-name\n")
    monkeypatch.chdir(sweep / "a0")
    assert call("show", ".").stdout.startswith("a0\n")


def test_a_run_that_is_not_there(sweep: Path, call: Call, out: Path) -> None:
    assert call("show", f"{sweep}/a", status=1).stderr == f"Error: 2 runs begin with {sweep}/a: a0, a1\n"
    cox.Store(sweep, "baseline").close()
    typo = call("show", f"{sweep}/basline", status=1).stderr
    assert typo.startswith(f"Error: there is no run {sweep}/basline; there are [")
    assert typo.endswith("; did you mean baseline?\n")
    assert "there are [a0, a1, b0, b1" in call("show", f"{sweep}/zzz", status=1).stderr
    assert "is not a directory" in call("show", f"{sweep}/no/zzz", status=1).stderr
    assert "name one of the runs" in call("show", sweep, status=1).stderr
