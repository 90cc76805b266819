from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cox.errors import RunNameError, SchemaError
from cox.storage import layout
from cox.storage.layout import RunLayout, check_run_name, check_table_name, is_plain_field, parse_journal_name

FOLDER = Path("/data/out dir")


@pytest.mark.parametrize(
    "name", ["a", "exp1", "a b", "é", "$HOME", "-x", ".a", "...", "a\nb", "0", "~", "C:", "x" * 255]
)
def test_run_names(name: str) -> None:
    assert check_run_name(name, FOLDER) == name
    assert check_run_name(os.fspath(FOLDER / name), FOLDER) == name
    assert check_run_name(FOLDER / name, FOLDER) == name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a/",
        "/",
        "//",
        "../a",
        "a\\b",
        "\\",
        "a\0",
        "\0",
        ".cox-cache",
        "/data/out dir",
        "/data/out dir/",
        "/data/out dir/..",
        "/data/out dir/a/b",
        "/data/a",
        "/data/out dir/../a",
        "/data/out dir2/a",
        "/data/out dir/.cox-cache",
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(RunNameError, match="one directory name") as refused:
        check_run_name(name, FOLDER)
    assert os.fspath(FOLDER) in str(refused.value)


@pytest.mark.parametrize("name", [5, None, b"a", ["a"]])
def test_names_that_are_no_text(name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        check_run_name(name, FOLDER)


@pytest.mark.parametrize(
    "name",
    ["t", "L1 ball", "5_rewards", "lambda", "a/b", "a/b/c", "é漢", "x" * 1000, "a.b", "_x", "_private"],
)
def test_table_names(name: str) -> None:
    assert check_table_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        ".",
        "..",
        "a/.",
        "../a",
        "_c_x",
        "_f_",
        "_g_x",
        "_v_x",
        "_i_table",
        "_p_x",
        "a/_i_x",
        "a/table",
        "_cox",
        "_cox/0",
        "a\0b",
        "\ud800",
        5,
        None,
        b"x",
        ("a",),
    ],
)
def test_table_names_that_pandas_or_hdf5_could_not_keep(name: Any) -> None:
    with pytest.raises(SchemaError, match="table|unicode"):
        check_table_name(name)


@pytest.mark.parametrize(
    "name", ["x", "5_rewards", "lambda", "norm(w_t)", "FW gap", "é漢", " ", "a.b", "_x", "values"]
)
def test_columns_that_are_fields(name: str) -> None:
    assert is_plain_field(name)


@pytest.mark.parametrize(
    "name", ["", ".", "index", "table", "a/b", "a\0b", "_v_x", "_i_x", "values_block_0", "values_block_x"]
)
def test_columns_that_live_in_blocks(name: str) -> None:
    assert not is_plain_field(name)


def test_every_path_of_a_run_is_inside_it() -> None:
    run = RunLayout(FOLDER / "run")
    inside = [
        run.store_file,
        run.save_dir,
        run.tensorboard_dir,
        run.objects_dir,
        run.meta_dir,
        run.journal_dir,
        run.claims_dir,
        run.run_file,
        run.trust_file,
        run.fold_lock,
        run.claim_file("main"),
        run.journal_file("rank-3", 0xAB),
    ]
    assert all(path.is_relative_to(run.root) for path in inside)
    assert len(set(inside)) == len(inside)
    assert run.store_file == FOLDER / "run" / "store.h5"
    assert run.objects_dir == FOLDER / "run" / ".table_objects"
    assert run.snapshot_dir == FOLDER / "run_snapshot"
    visible = {path.relative_to(run.root).parts[0] for path in inside}
    assert {name for name in visible if not name.startswith(".")} == {"store.h5", "save", "tensorboard"}


@pytest.mark.parametrize("rank", [None, 0, 7, 12345])
def test_writers_and_their_journals_are_named_both_ways(rank: int | None) -> None:
    writer = layout.writer_name(rank)
    assert layout.rank_of(writer) == rank
    for salt in (0, 0xAB, 2**32 - 1):
        path = RunLayout(FOLDER / "run").journal_file(writer, salt)
        assert parse_journal_name(path.name) == (writer, salt)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "main.log",
        "main-xyz.log",
        "main-0000000.log",
        "main-00000000.damaged",
        ".tmp-main-00000000.log",
        "rank--1-00000000.log",
        "rank-a-00000000.log",
        "main-00000000.log.bak",
        "main-0000000G.log",
        "other-00000000.log",
        "main-00000000.log\n",
    ],
)
def test_other_files_are_no_journals(name: str) -> None:
    assert parse_journal_name(name) is None
