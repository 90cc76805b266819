"""Groups that another program copied inside of store.h5 are kept, and never taken for the table they copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import pytest

import cox
from cox.integrity.repair import repair
from cox.integrity.verify import verify


def log(folder: Path, start: int, stop: int) -> None:
    with cox.Store(folder, "x") as store:
        table = store.add_table("results", {"step": int})
        for step in range(start, stop):
            table.append_row({"step": step})


def as_upstream(file: h5py.File) -> None:
    """Leave of a run what upstream cox writes."""
    del file.attrs["COX_RUN"]
    shutil.rmtree(Path(file.filename).parent / ".cox")


def tables(folder: Path) -> dict[str, list[int]]:
    with cox.Store(folder, "x", mode="r") as store:
        return {name: store[name].df["step"].tolist() for name in store}


@pytest.mark.parametrize("of_upstream", [False, True])
@pytest.mark.parametrize("copy", ["results_backup", "backups/of/results", "a_results", "results/before"])
def test_a_copied_group_is_kept_and_is_not_the_table(tmp_path: Path, copy: str, of_upstream: bool) -> None:
    log(tmp_path, 0, 5)
    path = tmp_path / "x/store.h5"
    with h5py.File(path, "r+", locking=False) as file:
        file.copy("results", "temporary")
        file.move("temporary", copy)
        if of_upstream:
            as_upstream(file)
    assert tables(tmp_path) == {"results": [*range(5)]}
    for stop in (9, 10):
        log(tmp_path, stop - 1, stop)
        assert tables(tmp_path) == {"results": [*range(5), *range(8, stop)]}
        with h5py.File(path, "r", locking=False) as file:
            assert file[f"{copy}/table"].shape == (5,)
    assert verify(tmp_path / "x").ok


def test_a_group_that_upstream_named_otherwise_is_still_a_table(tmp_path: Path) -> None:
    log(tmp_path, 0, 5)
    with h5py.File(tmp_path / "x/store.h5", "r+", locking=False) as file:
        file.move("results", "of_another_name")
        as_upstream(file)
    assert tables(tmp_path) == {"results": [*range(5)]}


def test_copies_without_an_original_are_tables_of_their_own(tmp_path: Path) -> None:
    log(tmp_path, 0, 5)
    with h5py.File(tmp_path / "x/store.h5", "r+", locking=False) as file:
        file.copy("results", "one")
        file.move("results", "two")
        as_upstream(file)
    assert tables(tmp_path) == {"one": [*range(5)], "two": [*range(5)]}


def test_a_repair_keeps_what_was_copied(tmp_path: Path) -> None:
    log(tmp_path, 0, 5)
    path = tmp_path / "x/store.h5"
    with h5py.File(path, "r+", locking=False) as file:
        file.copy("results", "results_backup")
        place = file["results/table"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 1
    path.write_bytes(data)
    done = repair(tmp_path / "x")
    assert done.lost == {"results": 5}
    with h5py.File(path, "r", locking=False) as file:
        assert file["results_backup/table"].shape == (5,)
    assert not tables(tmp_path)
