"""What holds for all commands: help, completion, errors, what they import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from cox.cli import SECTIONS, main
from tests.cli.conftest import Call
from tests.conftest import ROOT

NAMES = [name for section in SECTIONS.values() for name in section]
CONTEXT = click.Context(main)


def test_help_has_a_line_for_each_command(call: Call) -> None:
    text = call("--help").stdout
    for section, commands in SECTIONS.items():
        assert f"\n{section}:\n" in text
        for name, line in commands.items():
            assert f"  {name} " in text
            assert line in text
    assert call("-h").stdout == text


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(call: Call, name: str) -> None:
    text = call(name, "--help").stdout
    assert text.startswith(f"Usage: cox {name} ")
    if name not in ("verify", "repair", "trust", "tensorboard", "completion"):
        assert f"cox {name} " in text.split("Example", 1)[1]
    if name not in ("tensorboard", "completion"):
        assert "--json" in text


def test_every_module_of_a_command_is_listed() -> None:
    folder = Path(sys.modules["cox.cli"].__path__[0], "commands")
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(NAMES) - {"tensorboard"}


def test_unknown_commands(call: Call) -> None:
    assert re.search(
        r"there is no command 'sho'; there are \[.*\]; did you mean 'show'\?", call("sho", status=2).stderr
    )


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"numpy", "pandas", "rich", "h5py", "tensorboard", "matplotlib"}),
        (["ls", "--help"], {"numpy", "pandas", "rich", "h5py", "matplotlib"}),
        (["ls"], {"pandas", "matplotlib", "tensorboard"}),
        (["tail", "a0", "-f"], {"pandas", "matplotlib", "tensorboard"}),
    ],
)
def test_commands_import_no_more_than_they_need(sweep: Path, arguments: list[str], heavy: set[str]) -> None:
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from cox.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=sweep,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not loaded & heavy


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(call: Call, shell: str) -> None:
    assert "_COX_COMPLETE" in call("completion", shell).stdout


@pytest.mark.parametrize(
    ("arguments", "begun", "expected"),
    [
        ([], "co", ["compare", "copy", "completion"]),
        (["show"], "a", ["a0", "a1"]),
        (["show"], "./b", ["./b0", "./b1"]),
        (["df"], "", ["metadata", "results"]),
        (["df"], "re", ["results"]),
        (["tail", "a0"], "m", ["metadata"]),
        (["show"], "nowhere/x", []),
    ],
)
def test_completion_knows_runs_and_tables(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], begun: str, expected: list[str]
) -> None:
    monkeypatch.chdir(sweep)
    found = ShellComplete(main, {}, "cox", "_COX_COMPLETE").get_completions(arguments, begun)
    assert [item.value for item in found] == expected


def test_tensorboard_is_cox_tensorboard(sweep: Path, call: Call) -> None:
    from cox.tensorboard_view import main as genuine

    assert main.get_command(CONTEXT, "tensorboard") is genuine
    assert (
        "no directory of runs"
        in call("tensorboard", "--logdir", sweep / "a0/store.h5", "--format-str", "x", status=2).stderr
    )


def test_repair_as_json(sweep: Path, call: Call) -> None:
    lines = [json.loads(line) for line in call("repair", sweep, "--json").stdout.splitlines()]
    assert [line["repaired"] for line in lines] == [False] * 4
    (sweep / "a0" / "store.h5").write_bytes(b"no HDF5")
    (line,) = map(json.loads, call("repair", sweep / "a0", "--json", status=0).stdout.splitlines())
    assert (line["run"], line["repaired"], line["before"]["ok"]) == (str(sweep / "a0"), True, False)
    assert line["after"]["ok"] is True


def test_an_encoding_that_lacks_characters(sweep: Path) -> None:
    command = "compare results loss --by lr --over seed --format table"
    done = subprocess.run(
        [sys.executable, "-m", "cox.cli", *command.split()],
        cwd=sweep,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "PYTHONIOENCODING": "iso8859-5"},
        capture_output=True,
        check=True,
    )
    assert b" \\xb1 " in done.stdout
