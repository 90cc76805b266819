"""Metadata that lies under right checksums: one broken run costs only itself, and loses no row in silence."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cox
from cox.errors import CoxError, CoxWarning, DamagedError
from cox.integrity.repair import repair
from cox.integrity.verify import verify
from cox.storage import journal, layout

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "12"))
ROW = {"step": 777, "maybe": 1.5, "text": "new", "count": None, "thing": [1]}

#: What stands in the place of something else.
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, -1, 2, 7, 2**31, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
    + [0.5, 1e300, "", "t", "main", "rank-1", "../x", "é", "x" * 300, "int", "float", "str", "\0", "table_x"]
    + [[], [1], [[]], ["a", "b"], [["step", "int", False]], {}, {"t": 1}, {"seq": 3, "rows": {}}]
)


def log(store: cox.Store, rows: int) -> None:
    schema = {
        "step": int,
        "maybe": float | None,
        "text": str | None,
        "count": int | None,
        "thing": cox.OBJECT,
    }
    table = store.add_table("t", schema)
    for step in range(rows):
        whole = {"step": step, "maybe": 0.5, "text": "é\0", "count": 2**60 + step, "thing": {"a": 1}}
        table.append_row(whole if step % 2 else {"step": step, "thing": None})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with folded rows and a journal of newer ones, and a neighbour."""
    folder = tmp_path_factory.mktemp("runs")
    with cox.Store(folder, "good") as store:
        log(store, 3)
    with cox.Store(folder, "bad") as store:
        log(store, 5)
    with cox.Store(folder, "bad") as store:
        log(store, 3)
        shutil.copytree(folder / "bad", folder / "live")
    shutil.rmtree(folder / "bad")
    (folder / "live").rename(folder / "bad")
    return folder


@contextlib.contextmanager
def copy_of(runs: Path) -> Iterator[layout.RunLayout]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "runs")
        shutil.copytree(runs, folder)
        yield layout.RunLayout(folder / "bad")


def check(run: layout.RunLayout) -> None:
    """Read and write a run in every way. What is acknowledged is read, and nothing raw comes out."""
    folder = run.root.parent
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CoxWarning)
        with contextlib.suppress(CoxError), cox.Store(folder, "bad", mode="r") as store:
            str(store)
        with contextlib.suppress(CoxError):
            verify(run.root)
        check_neighbour(folder)
        check_writing(run)
        check_neighbour(folder)
        with contextlib.suppress(CoxError):
            repair(run.root)
        check_writing(run)


def check_neighbour(folder: Path) -> None:
    with cox.CollectionReader(folder, skip_errs=True, log_warnings=False) as reader:
        frame = reader.df("t")
        assert (frame["exp_id"] == "good").sum() == 3
        reader.runs()


def check_writing(run: layout.RunLayout) -> None:
    folder = run.root.parent
    for name, row in (("t", ROW), ("other", {"x": 777})):
        try:
            with cox.Store(folder, "bad") as store:
                if name not in store:
                    store.add_table(name, {"x": int} if name == "other" else {"step": int})
                    row = {"x": 777} if name == "other" else {"step": 777}
                store[name].append_row(row)
                live = read_column(folder, name, next(iter(row)))
        except CoxError:
            continue
        assert 777 in live
        assert 777 in read_column(folder, name, next(iter(row)))


def read_column(folder: Path, name: str, column: str) -> list[Any]:
    with cox.Store(folder, "bad", mode="r") as store:
        values: list[Any] = store[name].df[column].tolist()
    return values


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested lists and dicts."""
    yield place
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from places_in(value[key], (*place, key))


def mutated(data: st.DataObject, value: Any) -> Any:
    """The value with one to three places replaced, removed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from([*places_in(value)]))
        if not place:
            continue
        *parents, last = place
        inner = value
        for key in parents:
            inner = inner[key]
        act = data.draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        if act == "replace":
            inner[last] = data.draw(ODD)
        elif act == "remove":
            del inner[last]
        elif isinstance(inner, list):
            inner.insert(last, copy.deepcopy(inner[last]))
        else:
            inner["another"] = copy.deepcopy(inner[last])
    return value


def examples(number: int = EXAMPLES) -> Callable[[Any], Any]:
    return settings(
        max_examples=number, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


@examples(2 * EXAMPLES)
@given(data=st.data())
def test_what_store_h5_says_of_itself(runs: Path, data: st.DataObject) -> None:
    with copy_of(runs) as run:
        with h5py.File(run.store_file, "r+", locking=False) as file:
            said = json.loads(bytes(file.attrs["COX_RUN"]))
            file.attrs["COX_RUN"] = np.bytes_(json.dumps(mutated(data, said)))
        check(run)


@examples(2 * EXAMPLES)
@given(data=st.data())
def test_records_with_the_right_checksum(runs: Path, data: st.DataObject) -> None:
    with copy_of(runs) as run:
        (path,) = run.journal_dir.glob("*.log")
        (log,) = journal.read_journals(run.journal_dir)
        assert log.header is not None
        header = msgspec.to_builtins(log.header)
        header["after"] = [list(pair) for pair in header["after"]]
        header, records = mutated(data, [header, log.records])[:2] or [header, log.records]
        raw = b"COXLOG\x02\0"
        for payload in [header, *(records if isinstance(records, list) else [records])]:
            packed = msgspec.msgpack.encode(payload)
            raw += journal.MARK + len(packed).to_bytes(4, "little")
            raw += zlib.crc32(packed, log.salt).to_bytes(4, "little") + packed
        path.write_bytes(raw)
        check(run)


@examples(EXAMPLES)
@given(data=st.data())
def test_run_file_and_claim(runs: Path, data: st.DataObject) -> None:
    with copy_of(runs) as run:
        claim = {"pid": 2**22, "host": "elsewhere", "started": 5}
        run.run_file.write_text(json.dumps(mutated(data, json.loads(run.run_file.read_text()))))
        run.claim_file("main").write_text(json.dumps(mutated(data, claim)))
        os.utime(run.claim_file("main"), (0, 0))
        check(run)


ATTRIBUTES: list[Any] = [
    b"",
    b"x",
    b"I1\n.",
    b"(lp0\n.",
    b"\x80\x04N.",
    b"cos\nsystem\n.",
    0,
    -1,
    2**63 - 1,
    1.5,
    np.zeros(3),
    np.array([b"a", b"b"]),
    np.void(b"abc"),
]


@examples(EXAMPLES)
@given(data=st.data(), of_upstream=st.booleans())
def test_attributes_for_pandas(runs: Path, data: st.DataObject, of_upstream: bool) -> None:
    with copy_of(runs) as run:
        with h5py.File(run.store_file, "r+", locking=False) as file:
            if of_upstream:
                del file.attrs["COX_RUN"]
            owner = file[data.draw(st.sampled_from(["/", "t", "t/table"]))]
            name = data.draw(st.sampled_from([*owner.attrs]))
            if data.draw(st.booleans()):
                del owner.attrs[name]
            else:
                owner.attrs[name] = data.draw(st.sampled_from(ATTRIBUTES))
        check(run)


SIDECARS: list[Any] = [
    np.zeros(0, np.uint8),
    np.full(1, 255, np.uint8),
    np.full(100, 255, np.uint8),
    np.zeros(3, np.int64),
    np.zeros((2, 2), np.uint8),
    np.array([b"ab"]),
    *(
        np.frombuffer(msgspec.msgpack.encode(cells), np.uint8)
        for cells in (
            [],
            [[0]],
            [[-1, 5]],
            [[99, 5]],
            [["a", 5]],
            [[0, "b"]],
            [[0, None]],
            [[0, 2**64 - 1]],
            5,
        )
    ),
]


@examples(EXAMPLES)
@given(data=st.data())
def test_lists_of_cells(runs: Path, data: st.DataObject) -> None:
    with copy_of(runs) as run:
        with h5py.File(run.store_file, "r+", locking=False) as file:
            group = file["_cox/0"]
            name = data.draw(st.sampled_from([*group]))
            del group[name]
            if data.draw(st.booleans()):
                array = data.draw(st.sampled_from(SIDECARS))
                group.create_dataset(name, data=array, chunks=True if array.size else None)
        check(run)


def test_a_run_whose_name_is_not_utf_8_is_read_like_any_other(runs: Path) -> None:
    with copy_of(runs) as run:
        folder, name = run.root.parent, os.fsdecode(b"na\xefve")
        run.root.rename(folder / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):  # with the cache, and without
                reader = cox.CollectionReader(folder)
                assert sorted(set(reader.df("t")["exp_id"])) == ["good", r"na\xefve"]
                assert sorted(reader.runs().index) == ["good", r"na\xefve"]
        with cox.Store(folder, name) as store:
            store["t"].append_row(ROW)
        assert verify(folder / name).ok


def test_the_error_names_the_run_and_what_is_wrong(runs: Path) -> None:
    with copy_of(runs) as run:
        with h5py.File(run.store_file, "r+", locking=False) as file:
            said = json.loads(bytes(file.attrs["COX_RUN"]))
            said["writers"]["main"]["seq"] = "many"
            file.attrs["COX_RUN"] = np.bytes_(json.dumps(said))
        with pytest.raises(DamagedError, match=r"bad/store\.h5 .* Expected `int`, got `str` .*seq"):
            cox.Store(run.root.parent, "bad", mode="r")
