"""SPEC C20, C21 and C23: many runs as one frame, while they are being written, and when some are broken."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pandas as pd
import pytest

from cox.errors import (
    CollectionWarning,
    CoxError,
    CoxWarning,
    DamagedError,
    FormatVersionError,
    TableNotFoundError,
)
from cox.readers import CollectionReader
from cox.store import OBJECT, PICKLE, Store
from tests.spec.frames import cells


def make(folder: Path, name: str, schema: dict[str, Any], *rows: dict[str, Any], table: str = "t") -> None:
    with Store(folder, name) as store:
        made = store.add_table(table, schema)
        for row in rows:
            made.append_row(row)


@contextmanager
def warned(match: str) -> Iterator[None]:
    """One warning of a collection, at the line that asked for it."""
    with pytest.warns(CollectionWarning, match=match) as caught:
        yield
    assert [warning.filename for warning in caught] == [__file__] * len(caught)


# --- C20


def test_c20_runs_come_in_sorted_order(out: Path) -> None:
    names = ["b", "a", "é", "10", "9", "B", "a b"]
    for at, name in enumerate(names):
        make(out, name, {"x": int}, {"x": at}, {"x": at})
    with CollectionReader(out) as reader:
        frame = reader.df("t")
        assert list(dict.fromkeys(frame["exp_id"])) == sorted(names) == list(reader.stores)
        assert len(reader) == 7
        assert list(frame.index) == [0, 1] * 7
        assert dict(zip(frame["exp_id"], frame["x"], strict=True)) == {
            name: at for at, name in enumerate(names)
        }


def test_c20_what_is_no_run_is_passed_over(out: Path) -> None:
    make(out, "run", {"x": int}, {"x": 1})
    (out / "notes.txt").write_text("x")
    (out / "no store in it").mkdir()
    (out / "no store in it" / "model.pt").write_text("x")
    (out / ".hidden").mkdir()
    (out / "broken link").symlink_to(out / "nowhere")
    with CollectionReader(out) as reader:
        assert list(reader.stores) == ["run"]
        assert reader.df("t")["exp_id"].tolist() == ["run"]


def test_c20_a_run_reached_through_a_link_is_a_run(out: Path, tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "real", {"x": int}, {"x": 1})
    (out / "linked").symlink_to(tmp_path / "elsewhere" / "real")
    with CollectionReader(os.fspath(out)) as reader:
        assert reader.df("t")["exp_id"].tolist() == ["linked"]


def test_c20_a_missing_folder_raises_and_an_empty_one_does_not(out: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CollectionReader(out / "nowhere")
    with CollectionReader(out) as reader:
        assert (len(reader), reader.tables, reader.schemas, reader.stores, str(reader)) == (
            0,
            set(),
            {},
            {},
            "",
        )
        with pytest.raises(TableNotFoundError, match="'t'.*0 runs"):
            reader.df("t")


def test_c20_exp_filter_leaves_runs_unopened(out: Path) -> None:
    for name in ("lr-1", "lr-2", "wd-1"):
        make(out, name, {"x": int}, {"x": 1})
    (out / "lr-2" / "store.h5").write_bytes(b"broken")
    asked = []

    def keep(name: str) -> bool:
        asked.append(name)
        return name.endswith("1")

    with CollectionReader(out, exp_filter=keep) as reader:
        assert reader.df("t")["exp_id"].tolist() == ["lr-1", "wd-1"]
        assert list(reader.stores) == ["lr-1", "wd-1"]
    assert asked == ["lr-1", "lr-2", "wd-1"]


WRITER = """
    import sys
    from cox.store import OBJECT, Store

    store = Store(sys.argv[1], "live")
    table = store.add_table("t", {"x": int, "s": str, "o": OBJECT})
    other = store.add_table("declared only", {"x": int})
    for line in sys.stdin:
        if line == "close\\n": break
        for _ in range(int(line)):
            table.append_row({"x": table.nrows, "s": "é" * (table.nrows % 9), "o": [table.nrows]})
        print(table.nrows)
    store.close()
    print("closed")
"""


def test_c20_a_run_being_written_by_another_process_is_readable(out: Path, start: Callable[..., Any]) -> None:
    make(out, "done", {"x": int, "s": str, "o": OBJECT}, {"x": 0, "s": "", "o": [0]})
    writer = start(WRITER, out)
    with CollectionReader(out) as early:
        assert early.df("t")["exp_id"].tolist() == ["done"]
    writer.tell("1")
    assert writer.line() == "1"
    with CollectionReader(out) as reader:
        expected = 1
        for more in (0, 1, 2, 100, 1000, 1):
            writer.tell(str(more))
            expected += more
            assert writer.line() == str(expected)
            frame = reader.df("t", exp_filter=lambda name: name == "live")
            assert frame["x"].tolist() == list(range(expected))
            assert frame["s"].tolist() == ["é" * (x % 9) for x in range(expected)]
            assert frame["o"].tolist() == [[x] for x in range(expected)]
            assert reader.stores["live"]["t"].nrows == expected
            assert reader.tables == {"t"}
        writer.tell("close")
        assert writer.line() == "closed"
        assert len(reader.df("t")) == expected + 1
    writer.finish()


def test_c20_readers_do_not_wait_and_do_not_keep_the_writer_waiting(
    out: Path, start: Callable[..., Any]
) -> None:
    """A writer that folds all the time, and readers that look all the time: nobody misses a row."""
    writer = start(
        """
        import sys
        import cox.storage.writer
        from cox.store import Store

        cox.storage.writer.FOLD_AT = 500
        store = Store(sys.argv[1], "live")
        table = store.add_table("t", {"x": int, "s": str})
        for x in range(1500):
            table.append_row({"x": x, "s": "é" * (x % 30)})
            print(x)
        """,
        out,
    )
    acknowledged = int(writer.line())
    looks = 0
    with CollectionReader(out) as reader, Store(out, "live", mode="r") as store:
        while acknowledged < 1499:
            for frame in (reader.df("t"), store["t"].df):
                assert frame["x"].tolist() == list(range(len(frame)))
                assert len(frame) > acknowledged
                assert frame["s"].tolist() == ["é" * (x % 30) for x in frame["x"]]
            looks += 1
            for _ in range(min(40, 1499 - acknowledged)):
                acknowledged = int(writer.line())
    writer.finish()
    assert looks > 10


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _newer(path: Path) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        described = json.loads(bytes(file.attrs["COX_RUN"]))
        file.attrs["COX_RUN"] = np.bytes_(json.dumps({**described, "version": 99}))


def _newer_run(path: Path) -> None:
    (path.parent / ".cox" / "run.json").write_text('{"format": 99}')


def _attribute(path: Path) -> None:
    """As upstream's files are, with a pickle that makes an unpickler stumble in a way of its own."""
    pd.DataFrame({"x": [1]}).to_hdf(path, key="t", format="table", mode="w")
    with h5py.File(path, "r+", locking=False) as file:
        file["t"].attrs["COX_DATA"] = np.bytes_(b"K\x01K\x02a.")


BREAKAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("this is no HDF5 file\n" * 1000),
    "truncated": _truncate,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "directory": _directory,
    "newer": _newer,
    "newer run": _newer_run,
    "attribute": _attribute,
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_c20_a_broken_run_is_named_and_skipped_under_skip_errs(out: Path, breakage: str) -> None:
    for name in ("a good", "b broken", "c good"):
        make(out, name, {"x": int}, {"x": 1})
    BREAKAGES[breakage](out / "b broken" / "store.h5")
    kind = FormatVersionError if "newer" in breakage else DamagedError
    with CollectionReader(out) as reader:
        for ask in (
            lambda: reader.df("t"),
            lambda: reader.tables,
            lambda: reader.schemas,
            lambda: reader.stores,
        ):
            with pytest.raises(kind, match="b broken"):
                ask()
        with warned("b broken"):
            assert reader.df("t", skip_errors=True)["exp_id"].tolist() == ["a good", "c good"]
        assert len(reader.df("t", exp_filter=lambda name: "good" in name)) == 2
    with CollectionReader(out, skip_errs=True) as reader:
        with warned("b broken"):
            assert reader.df("t")["exp_id"].tolist() == ["a good", "c good"]
        with warned("b broken"):
            assert reader.tables == {"t"}
        with warned("b broken"):
            assert list(reader.stores) == ["a good", "c good"]
    with pytest.raises(CoxError, match="b broken"):
        Store(out, "b broken", mode="r")


def test_c20_an_object_that_cannot_be_read_breaks_its_run_only(out: Path) -> None:
    for name in ("a", "b", "c"):
        make(out, name, {"p": PICKLE, "x": int}, {"p": [name], "x": 1}, {"p": [name], "x": 2})
    next((out / "b" / ".table_objects").iterdir()).write_bytes(b"no pickle")
    with CollectionReader(out) as reader:
        with pytest.raises(DamagedError, match="column 'p' of table 't' in run .*b"):
            reader.df("t")
        with warned("run b is left out"):
            frame = reader.df("t", skip_errors=True)
        assert frame["p"].tolist() == [["a"], ["a"], ["c"], ["c"]]
        assert frame["exp_id"].tolist() == ["a", "a", "c", "c"]
        assert frame["x"].tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "record",
    [
        5,
        None,
        "text",
        b"x",
        {},
        [],
        [0],
        [0, "1"],
        [None, 0],
        [0, -1, 0, 0],
        [9, 0],
        [1, 0, 0, "t", 5],
        [2, 0, "t", None],
    ],
    ids=repr,
)
def test_c20_a_journal_that_makes_no_sense_breaks_its_run_only(out: Path, record: Any) -> None:
    """Whole and with the right checksum: somebody made it so."""
    for name in ("a", "b", "c"):
        make(out, name, {"x": int}, {"x": 1})
    directory = out / "b" / ".cox" / "journal"
    directory.mkdir(exist_ok=True)
    journal_of(directory, msgspec.msgpack.encode(record), b"\xc1 no msgpack")
    with CollectionReader(out, skip_errs=True) as reader, pytest.warns(CoxWarning, match="b"):
        frame = reader.df("t")
    assert {"a", "c"} <= set(frame["exp_id"])
    with pytest.warns(CoxWarning, match="b"), CollectionReader(out) as reader:
        assert reader.df("t")["exp_id"].tolist() == ["a", "b", "c"]  # what store.h5 has of it is whole


def journal_of(directory: Path, *payloads: bytes) -> None:
    data = b"COXLOG" + struct.pack("<H", 1)
    for payload in payloads:
        data += struct.pack("<2sII", b"\xc0\xc5", len(payload), zlib.crc32(payload, 0)) + payload
    (directory / "main-00000000.log").write_bytes(data)


def test_c20_an_unreadable_directory_is_a_broken_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run of another user's may be. The refusal is simulated: root may read everything."""
    for name in ("a", "b", "c"):
        make(out, name, {"x": int}, {"x": 1})

    def refuse(original: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(f"{out}/b/"):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return original(path, *args, **kwargs)

        return refusing

    for name in ("stat", "lstat", "listdir", "scandir", "open"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    monkeypatch.setattr("io.open", refuse(open))
    with CollectionReader(out, skip_errs=True) as reader, warned("b"):
        assert reader.df("t")["exp_id"].tolist() == ["a", "c"]


def test_c20_modes(out: Path) -> None:
    make(out, "run", {"x": int}, {"x": 1})
    with CollectionReader(out, mode="a") as reader:
        reader.stores["run"]["t"].append_row({"x": 2})
        assert reader.df("t")["x"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="mode='w'"):
        CollectionReader(out, mode="w")
    with pytest.raises(ValueError, match="mode='x'"):
        CollectionReader(out, mode="x")


def test_c20_reading_changes_nothing_in_the_runs(out: Path) -> None:
    make(out, "run", {"x": int, "p": PICKLE}, {"x": 1, "p": [1]})
    before = {path: path.stat().st_mtime_ns for path in [out / "run", *(out / "run").rglob("*")]}
    with CollectionReader(out) as reader:
        reader.df("t")
        assert reader.stores["run"]["t"].df is not None
    assert {path: path.stat().st_mtime_ns for path in [out / "run", *(out / "run").rglob("*")]} == before


# --- C21


def test_c21_one_frame_with_the_columns_as_stored_and_exp_id_last(out: Path) -> None:
    schema = {"z": int, "a": float, "o": OBJECT, "m": str, "b": bool}
    make(
        out,
        "one",
        schema,
        {"z": 1, "a": 0.5, "o": [1], "m": "x", "b": True},
        {"z": 2, "a": math.nan, "o": {}, "m": "", "b": False},
    )
    make(out, "two", schema, {"z": 3, "a": -0.0, "o": None, "m": "y" * 300, "b": True})
    with CollectionReader(out) as reader:
        frame = reader.df("t")
        assert list(frame) == [*schema, "exp_id"]
        assert list(frame.index) == [0, 1, 0]
        assert frame["exp_id"].tolist() == ["one", "one", "two"]
        assert frame["z"].tolist() == [1, 2, 3]
        assert frame["z"].dtype == np.int64
        assert frame["a"].dtype == np.float64
        assert frame["b"].dtype == np.bool_
        assert frame["o"].tolist() == [[1], {}, None]
        assert frame["m"].tolist() == ["x", "", "y" * 300]
        assert list(reader.df("t", append_exp_id=False)) == list(schema)
        frame["z"] = 0  # the caller's own
        assert reader.df("t")["z"].tolist() == [1, 2, 3]


def test_c21_keep_serialized(out: Path) -> None:
    make(out, "run", {"o": OBJECT, "p": PICKLE, "q": OBJECT}, {"o": [1], "p": [2], "q": [3]})
    with CollectionReader(out) as reader:
        raw = Store(out, "run", mode="r")["t"].df.iloc[0]
        for kept in (["o", "p"], ("o", "p"), {"o", "p"}):
            row = reader.df("t", keep_serialized=kept).iloc[0]
            assert (row["o"], row["p"], row["q"]) == (raw["o"], raw["p"], [3])
        assert reader.df("t", keep_serialized="o").iloc[0]["p"] == [2]
        assert reader.df("t", keep_serialized=["no column"])["o"].tolist() == [[1]]


@pytest.fixture
def mixed(out: Path) -> Path:
    """Runs of one table as it changed over the months."""
    make(out, "a", {"lr": float, "seed": int, "o": OBJECT}, {"lr": 0.1, "seed": 1, "o": [1]})
    make(
        out,
        "b",
        {"lr": float, "seed": int, "arch": str, "o": PICKLE},
        {"lr": 0.2, "seed": 2, "arch": "vgg", "o": [2]},
    )
    make(
        out,
        "c",
        {"lr": int, "seed": int, "o": str},
        {"lr": 1, "seed": 3, "o": "[3]"},
        {"lr": 2, "seed": 4, "o": "[4]"},
    )
    make(out, "d", {"other": int}, {"other": 1}, table="u")
    return out


def test_c21_union_schemas_unions(mixed: Path) -> None:
    with CollectionReader(mixed, log_warnings=False) as reader:
        frame = reader.df("t", union_schemas=True)
    assert list(frame)[-1] == "exp_id"
    assert set(frame) == {"lr", "seed", "o", "arch", "exp_id"}
    assert frame["exp_id"].tolist() == ["a", "b", "c", "c"]
    assert list(frame.index) == [0, 0, 0, 1]
    assert frame["lr"].tolist() == [0.1, 0.2, 1.0, 2.0]
    assert frame["seed"].tolist() == [1, 2, 3, 4]
    assert cells(frame["arch"]) == [None, "vgg", None, None]
    assert frame["o"].tolist() == [[1], [2], "[3]", "[4]"]  # each run's own way of storing it


def test_c21_runs_that_disagree_are_warned_about_and_keep_their_rows(mixed: Path) -> None:
    with CollectionReader(mixed) as reader:
        with pytest.warns(CollectionWarning) as caught:
            frame = reader.df("t")
        texts = [str(warning.message) for warning in caught]
        for told in ("arch", "'lr' as int, was float", "no table 't'"):
            assert any(told in text for text in texts), texts
        assert frame["exp_id"].tolist() == ["a", "b", "c", "c"]
        assert frame["lr"].tolist() == [0.1, 0.2, 1.0, 2.0]
        assert frame["o"].tolist() == [[1], [2], "[3]", "[4]"]
    with (
        CollectionReader(mixed, log_warnings=False) as reader,
        warnings.catch_warnings(record=True) as caught_now,
    ):
        warnings.simplefilter("always")
        reader.df("t")
        assert not [w for w in caught_now if issubclass(w.category, CollectionWarning)]


def test_c21_runs_without_the_table_are_left_out(mixed: Path) -> None:
    with CollectionReader(mixed) as reader:
        with pytest.warns(CollectionWarning, match="3 runs have no table 'u'.*a, b, c"):
            assert reader.df("u")["exp_id"].tolist() == ["d"]
        assert reader.df("u", exp_filter=lambda name: name == "d")["other"].tolist() == [1]


def test_c21_a_table_nowhere_found_is_a_key_error_that_lists_the_known_ones(mixed: Path) -> None:
    with CollectionReader(mixed) as reader:
        for key in ("T", "results", ""):
            with pytest.raises(TableNotFoundError, match=r"\['t', 'u'\]") as missing:
                reader.df(key)
            assert isinstance(missing.value, KeyError)
            assert repr(key) in str(missing.value)
        with pytest.raises(TableNotFoundError):
            reader.df("u", exp_filter=lambda name: name == "a")


def test_c21_exp_filter_of_one_frame(mixed: Path) -> None:
    with CollectionReader(mixed) as reader:
        assert reader.df("t", exp_filter=lambda name: name == "c")["seed"].tolist() == [3, 4]
        assert reader.df("t", exp_filter=lambda name: name == "a")["seed"].tolist() == [1]


def test_c21_missing_values_of_different_kinds(out: Path) -> None:
    make(
        out,
        "a",
        {"f": float, "i": int, "s": str, "b": bool, "n": int | None},
        {"f": 1.0, "i": 2**63 - 1, "s": "nan", "b": True},
    )
    make(out, "b", {"x": int, "n": int | None}, {"x": 1, "n": 5})
    with CollectionReader(out, log_warnings=False) as reader:
        frame = reader.df("t", union_schemas=True)
    assert cells(frame["i"]) == [2**63 - 1, None]
    assert cells(frame["s"]) == ["nan", None]
    assert cells(frame["b"]) == [True, None]
    assert cells(frame["n"]) == [None, 5]
    assert cells(frame["x"]) == [None, 1]
    assert frame["f"].dtype == np.float64  # as pandas.concat has it
    assert frame["f"].isna().tolist() == [False, True]


def test_c21_equals_the_concatenation_of_the_runs(out: Path) -> None:
    schema = {"x": int, "y": float, "s": str}
    for name in ("a", "b", "c"):
        make(out, name, schema, *({"x": x, "y": x / 7, "s": name * x} for x in range(20)))
    with CollectionReader(out) as reader:
        expected = pd.concat([store["t"].df.assign(exp_id=name) for name, store in reader.stores.items()])
        pd.testing.assert_frame_equal(reader.df("t"), expected)
        from_pandas = pd.concat(
            [pd.read_hdf(out / name / "store.h5", "t").assign(exp_id=name) for name in "abc"]
        )
        pd.testing.assert_frame_equal(reader.df("t"), from_pandas)


# --- C23


def test_c23_tables_schemas_stores_and_str(mixed: Path) -> None:
    with CollectionReader(mixed, log_warnings=False) as reader:
        assert reader.tables == {"t", "u"}
        assert set(reader.schemas) == {"t", "u"}
        assert set(reader.schemas["t"]) == {"lr", "seed", "arch", "o"}
        assert reader.schemas["u"] == {"other": int}
        assert list(reader.stores) == ["a", "b", "c", "d"]
        assert reader.stores is reader.stores
        store = reader.stores["a"]
        assert isinstance(store, Store)
        assert store.path == os.fspath(mixed / "a")
        assert store["t"].df["lr"].tolist() == [0.1]
        with pytest.raises(ValueError, match="mode='r'"):
            store["t"].append_row({"lr": 1.0, "seed": 1, "o": 1})
        text = str(reader)
        for told in ("-- Table: t --", "'lr'", "-- Table: u --", "'other'"):
            assert told in text
        assert "4 runs" in repr(reader)
        assert reader.directory == mixed


def test_c23_the_same_schema_everywhere_is_that_schema(out: Path) -> None:
    schema = {"x": int, "n": float | None, "o": OBJECT}
    for name in ("a", "b"):
        make(out, name, schema, {"x": 1, "o": 1})
    with CollectionReader(out) as reader:  # and no warning
        assert reader.schemas == {"t": schema}


def test_c23_close_is_harmless_twice_and_no_resource_warning_is_left(
    mixed: Path, run: Callable[..., list[str]]
) -> None:
    reader = CollectionReader(mixed, log_warnings=False)
    assert len(reader.stores) == 4
    reader.close()
    reader.close()
    shutil.rmtree(mixed / "d")
    printed = run(  # with -W error, as all of these programs
        """
        import sys
        from cox.readers import CollectionReader

        kept = CollectionReader(sys.argv[1], log_warnings=False)
        print(len(kept.df("t")), len(kept.stores))
        CollectionReader(sys.argv[1], log_warnings=False).stores["a"]["t"].df
        dropped = CollectionReader(sys.argv[1], log_warnings=False)
        dropped.stores
        del dropped
        """,
        mixed,
    )
    assert printed == ["4 3"]


def test_c23_a_reader_leaves_no_file_open(mixed: Path) -> None:
    def opened() -> list[str]:
        return [os.fspath(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]

    with CollectionReader(mixed, log_warnings=False) as reader:
        reader.df("t")
        assert len(reader.stores) == 4
        assert not [path for path in opened() if path.startswith(os.fspath(mixed))]
