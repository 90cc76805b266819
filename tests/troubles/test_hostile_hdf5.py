"""A store file of a stranger's never ends the process, whatever HDF5 itself would make of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import cox
from cox.errors import DamagedError
from cox.integrity.verify import verify
from tests import structure

#: Reads each of the folders in a fork of its own, and prints how that ended: 0, or what was not of cox.
CHILD = """
import os, resource, sys, traceback
from pathlib import Path
import h5py, numpy, pandas
from tests import structure

for folder in sys.stdin.read().split("\\n"):
    sys.stdout.flush()
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            structure.read_everything(Path(folder))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(folder, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def make(folder: Path, names: list[str], template: Path) -> list[Path]:
    folders = []
    for number, name in enumerate(names):
        runs = folder / str(number)
        shutil.copytree(template, runs)
        with h5py.File(runs / "run" / "store.h5", "r+", locking=False) as file:
            structure.MUTATIONS[name](file)
        folders.append(runs)
    return folders


@pytest.mark.parametrize("part", range(4))
def test_no_structure_of_a_store_file_ends_the_process(part: int, tmp_path: Path) -> None:
    structure.make_run(tmp_path / "template")
    names = list(structure.MUTATIONS)[part::4]
    codes = read_apart(make(tmp_path, names, tmp_path / "template"))
    assert not {name: code for name, code in zip(names, codes, strict=True) if code}


def test_an_attribute_that_is_an_array_ends_no_process(tmp_path: Path) -> None:
    structure.make_run(tmp_path / "template")
    assert read_apart(make(tmp_path, ["/ COX_RUN: array of texts"], tmp_path / "template")) == [0]


def read_apart(folders: list[Path]) -> list[int]:
    """How reading each of the folders ended."""
    program = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(map(str, folders)),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    print(program.stderr[-6000:])
    return [int(line.rpartition(" ")[2]) for line in program.stdout.splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return structure.make_run(tmp_path / "runs").root


def test_an_attribute_that_is_an_array_is_damage(run: Path) -> None:
    with h5py.File(run / "store.h5", "r+", locking=False) as file:
        structure.MUTATIONS["/ COX_RUN: array of texts"](file)
    with pytest.raises(DamagedError, match="COX_RUN is not one text"):
        cox.Store(run.parent, "run", mode="r")
    assert not verify(run).ok


def test_a_chunk_that_is_too_short_is_damage(run: Path) -> None:
    with h5py.File(run / "store.h5", "r+", locking=False) as file:
        structure.MUTATIONS["a huge chunk that is short"](file)
    with cox.Store(run.parent, "run", mode="r") as store, pytest.raises(DamagedError, match="unpacks to"):
        store["t"].df  # noqa: B018


def test_a_filter_that_no_table_has_is_refused_by_its_number(run: Path) -> None:
    with h5py.File(run / "store.h5", "r+", locking=False) as file:
        structure.MUTATIONS["filter 32001"](file)
    with cox.Store(run.parent, "run", mode="r") as store, pytest.raises(DamagedError, match="filter 32001"):
        store["t"].df  # noqa: B018


def test_what_a_user_put_into_the_file_stays_unless_it_reaches_out_of_it(run: Path) -> None:
    with h5py.File(run / "store.h5", "r+", locking=False) as file:
        structure.MUTATIONS["the user's own: texts"](file)
    with cox.Store(run.parent, "run") as store:
        store.add_table("new", {"x": int}).append_row({"x": 1})
    with h5py.File(run / "store.h5", "r", locking=False) as file:
        assert list(file["own/x"].asstr()[:]) == ["a", "b" * 5000]
        structure_of = json.loads(bytes(file.attrs["COX_RUN"]))
    assert "new" in structure_of["tables"]
