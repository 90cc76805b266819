"""SPEC C1 to C7, C14 and C15: a run, its directory, its tables, its end."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox.store
from cox.errors import (
    ClosedError,
    PendingRowWarning,
    ReadOnlyError,
    RunExistsError,
    RunNameError,
    RunNotFoundError,
    SchemaError,
    StorageError,
    TableNotFoundError,
)
from cox.store import OBJECT, PICKLE, PYTORCH_STATE, Store
from tests.spec.frames import listing

LISTED = ["save", "store.h5", "tensorboard"]


def listed(directory: str | Path) -> list[str]:
    return [name for name in listing(directory) if not name.startswith(".")]


def everything_below(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file and directory with what would tell that it was written to."""
    return {
        os.fspath(path.relative_to(directory)): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in [directory, *directory.rglob("*")]
    }


# --- C1


def test_c01_makes_a_directory_named_by_a_uuid_and_logs_where(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="cox"), Store(out) as store:
        assert uuid.UUID(store.exp_id).version == 4
        assert listing(out) == [store.exp_id]
        assert store.path == os.fspath(out / store.exp_id)
        assert any(store.path in record.getMessage() for record in caplog.records)


def test_c01_every_path_is_absolute_and_a_str(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store("o") as store:
        assert listing("o") == [store.exp_id]
        for path in (store.path, store.save_dir, store.tb_dir):
            assert type(path) is str
            assert Path(path).is_absolute()
            assert Path(path).is_dir()
        monkeypatch.chdir("/")  # the run stays where it is, wherever the program goes
        store.add_table("t", {"x": int}).append_row({"x": 1})
        assert len(store["t"].df) == 1
    assert store.path.startswith(os.fspath(tmp_path))


def test_c01_the_folder_may_be_missing_and_nested(tmp_path: Path) -> None:
    with Store(tmp_path / "a" / "b" / "c", "run") as store:
        assert listed(store.path) == LISTED


def test_c01_reading_a_missing_run_raises_and_creates_nothing(out: Path) -> None:
    Store(out, "there").close()
    before = everything_below(out)
    with pytest.raises(RunNotFoundError, match="gone") as refused:
        Store(out, "gone", mode="r")
    assert isinstance(refused.value, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        Store(out / "no folder", "gone", mode="r")
    with pytest.raises(ValueError, match="exp_id"):
        Store(out, mode="r")
    assert everything_below(out) == before


def test_c01_an_unwritable_place_is_a_clear_error(out: Path) -> None:
    (out / "file").write_text("not a directory")
    with pytest.raises(StorageError, match="file") as refused:
        Store(out / "file", "run")
    assert isinstance(refused.value, OSError)
    with pytest.raises(StorageError, match="file"):
        Store(out, "file")
    assert (out / "file").read_text() == "not a directory"
    with pytest.raises(StorageError, match="too long"):
        Store(out, "n" * 300)
    assert listing(out) == ["file"]


# --- C2


def test_c02_lists_exactly_save_store_and_tensorboard(out: Path) -> None:
    store = Store(out)
    assert listed(store.path) == LISTED
    assert Path(store.save_dir).is_dir()
    assert Path(store.tb_dir).is_dir()
    assert Path(store.path, "store.h5").is_file()
    store.close()
    assert listed(store.path) == LISTED


def test_c02_the_list_is_the_same_after_work(out: Path) -> None:
    store = Store(out)
    table = store.add_table("t", {"x": int, "p": PICKLE, "o": OBJECT})
    table.append_row({"x": 1, "p": {"a": 1}, "o": [1]})
    assert listed(store.path) == LISTED
    store.close()
    assert listed(store.path) == LISTED
    assert listed(store.save_dir) == []


def test_c02_the_fresh_store_file_opens_in_pandas(out: Path) -> None:
    with Store(out) as store, pd.HDFStore(Path(store.path, "store.h5"), mode="r") as file:
        assert file.keys() == []


# --- C3


def test_c03_a_name_or_an_absolute_path_directly_inside_names_the_run(out: Path) -> None:
    for given in ("exp1", "a b", "é漢", "it's $HOME", "5", ".hidden", "x" * 255, "a\nb", "-rf", "a:b"):
        with Store(out, given) as store:
            assert store.exp_id == given
            assert store.path == os.fspath(out / given)
    for given in (out / "exp2", os.fspath(out / "exp3"), f"{out}/exp4/", f"{out}/./exp5"):
        with Store(out, given) as store:
            assert store.path == os.path.normpath(given)
            assert store.exp_id == Path(store.path).name
    assert "exp4" in listing(out)


def test_c03_a_relative_folder_knows_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store("out", os.fspath(tmp_path / "out" / "exp")) as store:
        assert store.exp_id == "exp"


@pytest.mark.parametrize("mode", ["a", "w", "r"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a/",
        "/",
        "../a",
        "./a",
        "a\\b",
        "a\0b",
        "/etc",
        "{out}",
        "{out}/..",
        "{out}/a/b",
        "{out}/../a",
    ],
)
def test_c03_anything_else_is_refused_and_creates_nothing(out: Path, name: str, mode: str) -> None:
    with pytest.raises(RunNameError, match="exp_id") as refused:
        Store(out, name.format(out=out), mode=mode)
    assert isinstance(refused.value, ValueError)
    assert listing(out) == []
    assert listing(out.parent) == [out.name]


# --- C4


def test_c04_reopening_finds_the_rows(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("result", {"x": int, "y": float})
        store["result"].append_row({"x": 1, "y": 0.5})
        store["result"].append_row({"x": 2, "y": 1.5})
    for mode in ("r", "a"):
        with Store(out, "run", mode=mode) as again:
            frame = again["result"].df
            assert frame.to_dict("list") == {"x": [1, 2], "y": [0.5, 1.5]}
            assert list(frame.index) == [0, 1]


def test_c04_reopening_to_go_on_continues_the_rows(out: Path) -> None:
    for session in range(3):
        with Store(out, "run") as store:
            table = store.add_table("t", {"session": int})
            assert table.nrows == 2 * session
            table.append_row({"session": session})
            table.append_row({"session": session})
    with Store(out, "run", mode="r") as store:
        assert store["t"].df["session"].tolist() == [0, 0, 1, 1, 2, 2]
        assert list(store["t"].df.index) == list(range(6))


def test_c04_a_table_without_a_flushed_row_is_no_part_of_the_run(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("done", {"x": int}).append_row({"x": 1})
        declared = store.add_table("finished", {"accuracy": float, "note": str, "epoch": int | None})
        assert "finished" in store.keys
        assert "finished" in store.tables
        assert len(declared.df) == 0
        assert list(declared.df) == ["accuracy", "note", "epoch"]
        assert declared.nrows == 0
        with Store(out, "run", mode="r") as reader:  # beside the one that declared it
            assert list(reader.keys) == ["done"]
        with Store(out, "run") as same_process:
            assert list(same_process.keys) == ["done"]
            assert "finished" not in same_process.tables
    for mode in ("r", "a"):
        with Store(out, "run", mode=mode) as again:
            assert list(again.tables) == ["done"]
            assert list(again.keys) == ["done"]
            assert "finished" not in again
            with pytest.raises(KeyError, match="finished"):
                again["finished"]
    with Store(out, "run") as again:  # under another schema, even: it never became part of the run
        again.add_table("finished", {"other": str}).append_row({"other": "x"})
    with Store(out, "run", mode="r") as again:
        assert list(again.keys) == ["done", "finished"]


def test_c04_a_pending_row_does_not_make_a_table_part_of_the_run(out: Path) -> None:
    store = Store(out, "run")
    store.add_table("finished", {"x": int}).update_row({"x": 1})
    with pytest.warns(PendingRowWarning, match="finished"):
        store.close()
    with Store(out, "run", mode="r") as again:
        assert list(again.tables) == []


# --- C5


def test_c05_new_refuses_an_existing_run_and_leaves_it_alone(out: Path) -> None:
    with Store(out, "run", new=True) as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    before = everything_below(out)
    with pytest.raises(RunExistsError, match="run") as refused:
        Store(out, "run", new=True)
    assert isinstance(refused.value, ValueError)
    assert everything_below(out) == before
    with Store(out, new=True) as store:
        assert uuid.UUID(store.exp_id)


def test_c05_mode_a_makes_and_goes_on(out: Path) -> None:
    with Store(out, "run", mode="a") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    with Store(out, "run", mode="a") as store:
        store["t"].append_row({"x": 2})
        assert store["t"].df["x"].tolist() == [1, 2]


def test_c05_mode_r_reads_and_writes_nothing(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": int, "p": PICKLE, "o": OBJECT}).append_row(
            {"x": 1, "p": Point, "o": Point()}
        )
        (Path(store.save_dir) / "model.txt").write_text("x")
    before = everything_below(out)
    reader = Store(out, "run", mode="r")
    table = reader["t"]
    frame = table.df
    assert table.get_pickle(frame["p"][0]) is not None
    assert table.get_object(frame["o"][0]) is not None
    assert (str(reader), repr(reader), table.nrows, list(reader.keys)) is not None
    for refused in (
        lambda: table.update_row({"x": 2}),
        lambda: table.append_row({"x": 2}),
        lambda: table.flush_row(),
        lambda: table.add_column("y", int),
        lambda: reader.add_table("u", {"x": int}),
        lambda: reader.tensorboard,
        lambda: reader.writer,
        lambda: reader.rewind("t", 0),
    ):
        with pytest.raises(ReadOnlyError, match="mode='a'") as error:
            refused()
        assert isinstance(error.value, ValueError)
    reader.close()
    assert everything_below(out) == before


def test_c05_mode_w_begins_the_tables_anew(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": int, "p": PICKLE}).append_row({"x": 1, "p": [1]})
        (Path(store.save_dir) / "model.txt").write_text("x")
    with Store(out, "run", mode="w") as store:
        assert list(store.tables) == []
        with Store(out, "run", mode="r") as reader:
            assert list(reader.tables) == []
        store.add_table("t", {"other": str}).append_row({"other": "y"})
        assert (Path(store.save_dir) / "model.txt").exists()
    with Store(out, "run", mode="r") as reader:
        assert reader["t"].df.to_dict("list") == {"other": ["y"]}
    with Store(out, "fresh", mode="w") as store:
        assert listed(store.path) == LISTED


def test_c05_mode_w_makes_an_older_store_of_the_process_unusable_with_a_clear_error(out: Path) -> None:
    with Store(out, "run") as old:
        table = old.add_table("t", {"x": int})
        table.append_row({"x": 1})
        with Store(out, "run", mode="w") as new:
            with pytest.raises((ValueError, KeyError), match="'t'"):
                table.append_row({"x": 2})
            with pytest.raises((ValueError, KeyError), match="'t'"):
                len(table.df)
            new.add_table("t", {"x": int}).append_row({"x": 3})
            assert new["t"].df["x"].tolist() == [3]


@pytest.mark.parametrize("mode", ["x", "r+", "", "A", None])
def test_c05_another_mode_is_refused(out: Path, mode: Any) -> None:
    with pytest.raises(ValueError, match="mode="):
        Store(out, "run", mode=mode)
    assert listing(out) == []


# --- C6


def test_c06_adding_a_table_again_returns_the_same_one(out: Path) -> None:
    schema = {"x": int, "y": float, "o": OBJECT, "n": str | None}
    with Store(out, "run") as store:
        table = store.add_table("t", schema)
        table.append_row({"x": 1, "y": 1.0, "o": None, "n": "a"})
        assert store.add_table("t", dict(schema)) is table
        assert table.nrows == 1
    with Store(out, "run") as store:
        assert store.add_table("t", schema) is store["t"]
        assert store["t"].schema == schema
        assert list(store["t"].schema) == list(schema)
        store["t"].append_row({"x": 2, "y": 2.0, "o": None})
        assert store["t"].df["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"x": int}, "lacks.*'y'"),
        ({"x": int, "y": float, "z": str}, "adds.*'z'"),
        ({"x": int, "y": str}, "'y' as str, was float"),
        ({"x": int, "y": float | None}, "'y'.*None.*was float"),
        ({"x": int, "Y": float}, "lacks.*'y'.*adds.*'Y'"),
        ({"x": OBJECT, "y": float}, "'x' as OBJECT, was int"),
    ],
)
@pytest.mark.parametrize("reopened", [False, True])
def test_c06_another_schema_is_an_error_that_names_the_difference(
    out: Path, other: dict[str, Any], named: str, reopened: bool
) -> None:
    store = Store(out, "run")
    store.add_table("t", {"x": int, "y": float}).append_row({"x": 1, "y": 1.0})
    if reopened:
        store.close()
        store = Store(out, "run")
    with store:
        with pytest.raises(SchemaError, match=f"table 't'.*{named}") as refused:
            store.add_table("t", other)
        assert isinstance(refused.value, ValueError)
        store["t"].append_row({"x": 2, "y": 2.0})  # the table is as it was
        assert store["t"].df["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "a//b", "_i_x", "a\0b", "\ud800", 5, None, "_cox", ".", ".."]
)
def test_c06_a_table_name_that_cannot_be_one_is_refused(out: Path, name: Any) -> None:
    with Store(out, "run") as store:
        with pytest.raises(SchemaError):
            store.add_table(name, {"x": int})
        assert list(store.tables) == []
        store.add_table("fine", {"x": int}).append_row({"x": 1})


@pytest.mark.parametrize(
    "given", [list, complex, "float", None, 1, float | int, dict, np.complex64, int | str | None]
)
def test_c06_a_type_that_no_column_has_is_refused_with_those_there_are(out: Path, given: Any) -> None:
    with Store(out, "run") as store:
        with pytest.raises(SchemaError, match="column 'bad'.*float, int, str, bool.*OBJECT"):
            store.add_table("t", {"fine": int, "bad": given})
        with pytest.raises(SchemaError, match="at least one"):
            store.add_table("t", {})
        with pytest.raises(SchemaError, match="string"):
            store.add_table("t", {1: int})  # type: ignore[dict-item]
        assert "t" not in store.tables


def test_c06_odd_names_and_many_columns(out: Path) -> None:
    names = [
        "5_rewards",
        "lambda",
        "norm(w_t)",
        "FW gap",
        "L1 ball",
        "a/b",
        "mx^2",
        "index",
        "table",
        "",
        " ",
        "é漢",
        "values_block_0",
        "values_block_1",
        "_v_x",
        "_f_",
        "a\0b",
        ".",
        "class",
        "x" * 300,
        "it's",
        'a"b',
        "\n",
    ]
    schema = {name: (float, int, str, bool)[at % 4] for at, name in enumerate(names)}
    wide = {f"c{at}": (float, int, str, bool)[at % 4] for at in range(1500)}
    with Store(out, "run") as store:
        for table, columns in (
            ("L1 ball", schema),
            ("lambda", schema),
            ("5_t", schema),
            ("a/b", schema),
            ("wide", wide),
        ):
            store.add_table(table, columns).append_row({name: kind(1) for name, kind in columns.items()})
        live = {name: table.df for name, table in store.tables.items()}
    with Store(out, "run", mode="r") as store:
        for name, table in store.tables.items():
            assert list(table.df) == list(table.schema) == list(live[name])
            assert table.df.equals(live[name])
            assert pd.read_hdf(Path(store.path, "store.h5"), name).equals(table.df)
        assert list(store.keys) == ["L1 ball", "lambda", "5_t", "a/b", "wide"]


# --- C7


def test_c07_types_come_from_the_example(out: Path) -> None:
    example = {
        "f": 0.5,
        "i": 1,
        "s": "x",
        "b": True,
        "f32": np.float32(1.5),
        "f16": np.float16(1.5),
        "f64": np.float64(1.5),
        "i64": np.int64(3),
        "u8": np.uint8(3),
        "nb": np.bool_(True),
        "ns": np.str_("t"),
        "a0": np.array(1.25),
        "a0i": np.array(7),
        "a0b": np.array(False),
        "o": [1, 2],
        "none": None,
        "a1": np.array([1.0]),
    }
    with Store(out, "run") as store:
        table = store.add_table_like_example("t", example)
        assert table.schema == {
            "f": float,
            "i": int,
            "s": str,
            "b": bool,
            "f32": float,
            "f16": float,
            "f64": float,
            "i64": int,
            "u8": int,
            "nb": bool,
            "ns": str,
            "a0": float,
            "a0i": int,
            "a0b": bool,
            "o": OBJECT,
            "none": OBJECT,
            "a1": OBJECT,
        }
        before = dict(example)
        table.append_row(example)
        assert list(example.items())[:-1] == list(before.items())[:-1]
        row = table.df.iloc[0]
        assert [row[name] for name in ("f", "i", "s", "b", "f32", "u8", "ns", "a0", "a0i")] == [
            0.5,
            1,
            "x",
            True,
            1.5,
            3,
            "t",
            1.25,
            7,
        ]
        assert table.get_object(row["o"]) == [1, 2]
        assert table.get_object(row["none"]) is None


@pytest.mark.parametrize("alternative", [OBJECT, PICKLE, PYTORCH_STATE])
def test_c07_the_alternative_is_for_all_the_rest(out: Path, alternative: str) -> None:
    with Store(out, "run") as store:
        table = store.add_table_like_example("t", {"x": 1, "o": {"a": 1}, "p": [2]}, alternative=alternative)
        assert table.schema == {"x": int, "o": alternative, "p": alternative}
        assert store.add_table_like_example("u", {"x": 1, "o": {}}, alternative).schema["o"] == alternative


def test_c07_another_alternative_is_refused(out: Path) -> None:
    with Store(out, "run") as store, pytest.raises(SchemaError, match="alternative.*OBJECT"):
        store.add_table_like_example("t", {"o": {}}, alternative="float")


def test_c07_torch_scalars(out: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is optional")
    example = {
        "f": torch.tensor(0.5, requires_grad=True),
        "h": torch.tensor(0.5, dtype=torch.bfloat16),
        "i": torch.tensor(3),
        "b": torch.tensor(True),
        "v": torch.tensor([1.0]),
    }
    with Store(out, "run") as store:
        table = store.add_table_like_example("t", example)
        assert table.schema == {"f": float, "h": float, "i": int, "b": bool, "v": OBJECT}
        table.append_row(example)
        assert table.df[["f", "h", "i", "b"]].iloc[0].tolist() == [0.5, 0.5, 3, True]


# --- C14


def test_c14_access_by_item_and_by_name(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": int})
        assert store["t"] is store.get_table("t") is store.tables["t"] is table
        for ask in (store.__getitem__, store.get_table):
            with pytest.raises(TableNotFoundError, match=r"'u'.*\['t'\]") as missing:
                ask("u")
            assert isinstance(missing.value, KeyError)
            assert str(missing.value).startswith("run ")  # a sentence, not the repr that KeyError makes


def test_c14_tables_and_keys_are_live(out: Path) -> None:
    with Store(out, "run") as store:
        keys, tables = store.keys, store.tables
        assert list(keys) == []
        store.add_table("a", {"x": int})
        store.add_table("b", {"x": int})
        assert list(keys) == list(tables) == ["a", "b"]
        assert "a" in keys
        assert store
        assert len(store["a"]) == 0
        assert store["a"]


def test_c14_df_schema_and_nrows(out: Path) -> None:
    schema = {"x": int, "s": str, "maybe": float | None, "o": OBJECT}
    with Store(out, "run") as store:
        table = store.add_table("t", schema)
        for at in range(7):
            assert table.nrows == len(table) == len(table.df) == at
            table.append_row({"x": at, "s": str(at), "maybe": None, "o": at})
        assert table.schema == schema
        assert list(table.df) == list(schema)
        frame = table.df
        frame["x"] = 0  # the caller's own copy
        frame.loc[0, "s"] = "changed"
        table.schema["x"] = str
        assert table.df["x"].tolist() == list(range(7))
        assert table.df["s"][0] == "0"
        assert table.schema == schema
    assert table.df["x"].tolist() == list(range(7))  # also once it is closed
    assert table.nrows == 7


def test_c14_str_shows_every_table(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("first one", {"x": int}).append_row({"x": 12345})
        long = store.add_table("long", {"y": int})
        for at in range(100):
            long.append_row({"y": at})
        store.add_table("empty", {"z": int})
        text = str(store)
        for expected in ("-- Table: first one --", "12345", "-- Table: long --", "-- Table: empty --", "96"):
            assert expected in text
        assert len(text.splitlines()) < 30
        assert "first one" in repr(store)
        assert "100 rows" in repr(long)
    with Store(out, "run", mode="r") as reader:
        assert "12345" in str(reader)


def test_c14_a_reader_sees_tables_and_rows_as_they_come(out: Path) -> None:
    with Store(out, "run") as store, Store(out, "run", mode="r") as reader:
        assert list(reader.keys) == []
        table = store.add_table("t", {"x": int})
        for at in range(3):
            table.append_row({"x": at})
            assert list(reader.keys) == ["t"]
            assert reader["t"].nrows == at + 1
            assert reader["t"].df["x"].tolist() == list(range(at + 1))


# --- C15


def test_c15_close_folds_everything_and_is_harmless_twice(out: Path) -> None:
    store = Store(out, "run")
    table = store.add_table("t", {"x": int})
    table.append_row({"x": 1})
    store.close()
    store.close()
    path = Path(store.path, "store.h5")
    assert pd.read_hdf(path, "t")["x"].tolist() == [1]
    journal = Path(store.path, ".cox", "journal")
    assert not list(journal.glob("*.log"))
    for use in (
        lambda: table.append_row({"x": 2}),
        lambda: table.update_row({"x": 2}),
        lambda: store.add_table("u", {"x": int}),
        lambda: store.tensorboard,
    ):
        with pytest.raises(ClosedError, match="closed") as refused:
            use()
        assert isinstance(refused.value, ValueError)
    assert pd.read_hdf(path, "t")["x"].tolist() == [1]


def test_c15_the_context_manager_closes_and_keeps_the_error(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    with pytest.raises(ClosedError):
        store.add_table("u", {"x": int})
    with pytest.raises(ZeroDivisionError):
        _fail(out)
    assert pd.read_hdf(out / "failed" / "store.h5", "t")["x"].tolist() == [1]
    state = json.loads((out / "failed" / ".cox" / "run.json").read_text())
    assert state["state"] == "failed"
    assert "lr was 0" in state["error"]
    assert json.loads((out / "run" / ".cox" / "run.json").read_text())["state"] == "finished"


def _fail(out: Path) -> None:
    with Store(out, "failed") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
        raise ZeroDivisionError("lr was 0")


def test_c15_pending_rows_are_warned_about_by_name_and_the_rest_is_closed(out: Path) -> None:
    store = Store(out, "run")
    for name in ("loss table", "accuracy"):
        table = store.add_table(name, {"x": int, "y": int, "p": PICKLE})
        table.append_row({"x": 1, "y": 1, "p": 1})
        table.update_row({"x": 2, "p": [2]})
    with pytest.warns(PendingRowWarning) as warned:
        store.close()
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == 2
    for text, name in zip(texts, ("loss table", "accuracy"), strict=True):
        assert name in text
        assert "'x'" in text
        assert store.path in text
    assert {warning.filename for warning in warned} == {__file__}
    with Store(out, "run", mode="r") as again:
        assert again["loss table"].df["x"].tolist() == [1]
        cells = {table.df["p"][0] for table in again.tables.values()}
        assert set(listing(Path(again.path, ".table_objects"))) == cells


def test_c15_a_pending_row_does_not_keep_the_store_open_where_warnings_are_errors(out: Path) -> None:
    store = Store(out, "run")
    table = store.add_table("t", {"x": int})
    table.append_row({"x": 1})
    table.update_row({"x": 2})
    with pytest.raises(PendingRowWarning, match="'t'"):  # as an error: that is how these tests run
        store.close()
    assert pd.read_hdf(out / "run" / "store.h5", "t")["x"].tolist() == [1]
    assert (out / "run" / ".cox" / "claims" / "main.json").read_bytes() == b""


NEVER_CLOSED = """
    import sys
    import cox.store

    store = cox.store.Store(sys.argv[1], "run")
    other = cox.store.Store(sys.argv[1], "other")
    for each in (store, other):
        each.add_table("t", {"x": int, "s": str})
        for x in range(100):
            each["t"].append_row({"x": x, "s": "é" * x})
    end = sys.argv[2]
    if end == "exit": sys.exit(3)
    if end == "raise": raise RuntimeError("out of memory")
    if end == "pending": store["t"].update_row({"x": 5})
"""


@pytest.mark.parametrize(("end", "status"), [("return", 0), ("exit", 3), ("raise", 1), ("pending", 0)])
def test_c15_closes_by_itself_when_the_program_ends(
    out: Path, start: Callable[..., Any], end: str, status: int
) -> None:
    program = start(NEVER_CLOSED, out, end)
    program.finish(status=status)
    for name in ("run", "other"):
        frame = pd.read_hdf(out / name / "store.h5", "t")
        assert frame["x"].tolist() == list(range(100))
        assert frame["s"].tolist() == ["é" * x for x in range(100)]
        assert not list((out / name / ".cox" / "journal").glob("*.log"))
        assert listed(out / name) == LISTED
        state = json.loads((out / name / ".cox" / "run.json").read_text())
        assert state["state"] == ("failed" if status else "finished")
        assert ("out of memory" in state.get("error", "")) == (end == "raise")
    if end == "pending":
        assert "'t'" in program.errors
        assert "never flushed" in program.errors
    elif end != "raise":
        assert program.errors == ""


def test_c15_closes_by_itself_in_a_child_of_multiprocessing(out: Path, run: Callable[..., list[str]]) -> None:
    run(
        """
        import multiprocessing, sys
        from cox.store import Store

        def work(folder, name):
            Store(folder, name).add_table("t", {"x": int}).append_row({"x": 1})

        if __name__ == "__main__":
            for method in ("spawn", "fork"):
                child = multiprocessing.get_context(method).Process(target=work, args=(sys.argv[1], method))
                child.start()
                child.join()
                assert child.exitcode == 0, child.exitcode
        """,
        out,
    )
    for method in ("spawn", "fork"):
        assert pd.read_hdf(out / method / "store.h5", "t")["x"].tolist() == [1]


def test_c15_stores_that_are_dropped_are_closed_without_ado(out: Path, run: Callable[..., list[str]]) -> None:
    """The collector may come by at any instruction, in the middle of opening the next store too."""
    printed = run(
        """
        import faulthandler, gc, glob, os, sys
        from cox.store import Store

        faulthandler.dump_traceback_later(200, exit=True)
        gc.set_threshold(5)
        for at in range(40):
            table = Store(sys.argv[1], f"run{at:02}").add_table("t", {"x": int})
            table.append_row({"x": at})
            del table
        gc.collect()
        left = [glob.glob(f"{sys.argv[1]}/{name}/.cox/journal/*.log") for name in os.listdir(sys.argv[1])]
        print(sum(not logs for logs in left))
        faulthandler.cancel_dump_traceback_later()
        """,
        out,
    )
    assert printed == ["40"]
    assert [pd.read_hdf(out / f"run{at:02}" / "store.h5", "t")["x"].tolist() for at in (0, 39)] == [[0], [39]]


class Point:
    """Something that only code can rebuild."""


def test_the_names_of_the_module_are_upstreams() -> None:
    assert cox.store.OBJECT == Store.OBJECT == "__object__"
    assert cox.store.PICKLE == Store.PICKLE == "__pickle__"
    assert cox.store.PYTORCH_STATE == Store.PYTORCH_STATE == "__pytorch_state__"
