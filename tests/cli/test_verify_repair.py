"""`cox verify` and `cox repair`, as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cox
from cox.cli import main
from cox.storage import layout
from tests.conftest import ROOT


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


@pytest.fixture
def runs(out: Path) -> Path:
    """Three runs that are fine."""
    for name in ("a", "b", "c"):
        with cox.Store(out, name) as store:
            table = store.add_table("t", {"step": int, "thing": cox.PICKLE, "other": cox.OBJECT})
            for step in range(4):
                table.append_row({"step": step, "thing": [step], "other": {step}})
    return out


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_whole_runs_are_counted_and_not_listed(runs: Path) -> None:
    before = files(runs)
    done = call("verify", runs)
    assert (done.exit_code, done.output) == (0, "3 runs, none damaged\n")
    assert files(runs) == before
    assert call("verify", runs / "a").output == f"{runs / 'a'}: ok\n"
    listed = call("verify", runs, "--verbose").output.splitlines()
    assert listed == [*(f"{runs / name}: ok" for name in "abc"), "3 runs, none damaged"]


def test_a_damaged_run_has_a_line_and_its_findings(runs: Path) -> None:
    (runs / "b" / "store.h5").write_bytes(b"no HDF5")
    payload = sorted((runs / "c" / layout.OBJECTS_DIR).iterdir())[0]
    payload.write_bytes(payload.read_bytes()[:-2])
    done = call("verify", runs)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == f"{runs / 'b'}: 1 finding"
    assert lines[1].startswith("  store.h5: nothing of it can be read: ")
    assert lines[2] == f"{runs / 'c'}: 1 finding"
    assert lines[3].startswith(f"  {layout.OBJECTS_DIR}/{payload.name}: table 't', column 'thing', row ")
    assert lines[4:] == ["3 runs, 2 damaged"]


def test_several_paths_runs_and_folders(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "alone")
    assert call("verify", runs, tmp_path / "alone").output == "4 runs, none damaged\n"


def test_json_is_an_object_a_line(runs: Path) -> None:
    (runs / "b" / "store.h5").unlink()
    done = call("verify", "--json", runs)
    assert done.exit_code == 1
    told = [json.loads(line) for line in done.output.splitlines()]
    assert [(run["run"], run["ok"]) for run in told] == [
        (str(runs / name), name != "b") for name in ("a", "b", "c")
    ]
    (finding,) = told[1]["findings"]
    assert (finding["what"], finding["file"]) == ("gone", "store.h5")
    assert "missing" in finding["problem"]


def test_what_a_kill_leaves_is_noted_and_no_damage(runs: Path) -> None:
    store = cox.Store(runs, "d")
    store.add_table("t", {"step": int}).append_row({"step": 1})
    shutil.copytree(runs / "d", runs / "killed")
    store.close()
    (journal,) = (runs / "killed").rglob("*.log")
    journal.write_bytes(journal.read_bytes()[:-1])
    (runs / "killed" / f"{layout.TEMPORARY_PREFIX}1").write_bytes(b"half")
    (runs / "killed" / layout.OBJECTS_DIR / "nobody").write_bytes(b"x")
    (journal.parent / f"main-00000000{layout.DAMAGED_SUFFIX}").write_bytes(b"x")
    (runs / "killed" / layout.META_DIR / f"{layout.DAMAGED_PREFIX}then").mkdir()
    done = call("verify", runs / "killed")
    assert done.exit_code == 0
    notes = done.output.splitlines()
    assert notes[0].endswith(": ok")
    wanted = (journal.name, layout.TEMPORARY_PREFIX, "no row names", "names a process")
    for note in (*wanted, layout.DAMAGED_SUFFIX, f"{layout.DAMAGED_PREFIX}then"):
        assert any("note: " in line and note in line for line in notes), note


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_a_path_that_is_not_there_is_an_error_of_usage(out: Path, command: str) -> None:
    assert call(command, out / "nowhere").exit_code == 2
    done = call(command, out)
    assert done.exit_code == 2
    assert "is no run, and there is none in it" in done.output
    assert call(command).exit_code == 2


def test_repair_says_what_it_did(runs: Path) -> None:
    (runs / "b" / "store.h5").write_bytes(b"no HDF5")
    untouched = {**files(runs / "a"), **files(runs / "c")}
    dry = call("repair", "--dry-run", runs)
    assert dry.exit_code == 1
    assert dry.output.splitlines()[0] == f"{runs / 'b'}: would be repaired"
    assert "  no rows kept" in dry.output.splitlines()
    assert (runs / "b" / "store.h5").read_bytes() == b"no HDF5"
    done = call("repair", runs)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    (originals,) = (runs / "b" / layout.META_DIR).glob(f"{layout.DAMAGED_PREFIX}*")
    assert lines[0] == f"{runs / 'b'}: repaired; the originals are in {originals}"
    assert "nothing of it can be read" in lines[1]
    assert lines[-1] == "3 runs: 1 damaged, none still so"
    assert (originals / "store.h5").read_bytes() == b"no HDF5"
    assert {**files(runs / "a"), **files(runs / "c")} == untouched
    assert call("verify", runs).exit_code == 0
    assert call("repair", runs / "b").output == f"{runs / 'b'}: ok, untouched\n"


def test_repair_tells_how_many_rows_are_kept(runs: Path) -> None:
    with cox.Store(runs, "b") as store:
        store["t"].append_row({"step": 4, "thing": 4, "other": 4})
        shutil.copytree(runs / "b", runs / "d")
    (journal,) = (runs / "d").rglob("*.log")
    data = bytearray(journal.read_bytes())
    data[-3] ^= 1
    journal.write_bytes(data)
    output = call("repair", runs / "d").output
    assert "  table 't': 4 rows kept\n" in output
    assert "1 records are lost" in output or "are damaged" in output


def test_what_cannot_be_repaired_is_status_1(runs: Path) -> None:
    sorted((runs / "c" / layout.OBJECTS_DIR).iterdir())[0].unlink()
    done = call("repair", runs)
    assert done.exit_code == 1
    assert done.output.splitlines()[0] == f"{runs / 'c'}: cannot be repaired"
    assert done.output.splitlines()[-1] == "3 runs: 1 damaged, 1 still so"
    assert done.output.count("missing") == 1


def test_a_run_that_is_written_is_refused_and_the_others_repaired(runs: Path) -> None:
    (runs / "a" / "store.h5").write_bytes(b"no HDF5")
    with cox.Store(runs, "b") as store:
        store["t"].append_row({"step": 4, "thing": 4, "other": 4})
        (journal,) = (runs / "b").rglob("*.log")
        with journal.open("ab") as file:
            file.write(b"garbage" * 9)
        done = call("repair", runs)
    assert done.exit_code == 1
    assert f"{runs / 'a'}: repaired" in done.output
    assert f"{runs / 'b'}: not repaired: " in done.output
    assert "is being written by process" in done.output


def test_no_name_drives_the_terminal(runs: Path) -> None:
    evil = "evil\x9b2J\a"  # not an escape sequence that click itself takes out
    (runs / "c").rename(runs / evil)
    (runs / evil / "store.h5").write_bytes(b"no HDF5")
    for command in ("verify", "repair"):
        output = call(command, runs).output
        assert "evil?2J?: " in output
        assert not {"\x9b", "\a"} & set(output)


def test_a_long_list_of_findings_is_cut_short(out: Path) -> None:
    with cox.Store(out, "run") as store:
        table = store.add_table("t", {"thing": cox.PICKLE})
        for step in range(50):
            table.append_row({"thing": step})
    shutil.rmtree(out / "run" / layout.OBJECTS_DIR)
    lines = call("verify", out / "run").output.splitlines()
    assert len(lines) < 30
    assert "and 30 more" in lines[-1]
    (told,) = call("verify", "--json", out / "run").output.splitlines()
    assert len(json.loads(told)["findings"]) == 50


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f"cox {name} " in text, name
        assert command.help
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{name} {option.name}"
