"""Runs made by an enemy: to run code, to read or write elsewhere, to eat memory or time. None gets its way.

What pickles can do is in tests/unit/test_safe_pickle.py and objects/test_codec.py, what names can do to a
terminal or a shell in tests/cli. Here are whole files: HDF5 and journals. Each is read in a process with
little memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest

import cox
from cox.errors import CoxError, CoxWarning
from cox.storage import journal, layout

SECRET = b"what another file holds, and nobody may see"

READ = """
    import resource, sys, warnings
    import h5py, numpy, pandas
    import cox
    from cox.errors import CoxError, CoxWarning

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 400_000_000,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (150, 150))
    warnings.simplefilter("always")
    shown = []

    def attempt(what):
        with warnings.catch_warnings(record=True) as told:
            try:
                shown.append(str(what()))
            except CoxError as error:
                shown.append(f"{type(error).__name__}: {error}")
        shown.extend(f"{type(w.message).__name__}: {w.message}" for w in told)
        bad = [w for w in told if not issubclass(w.category, CoxWarning)]
        assert not bad, bad

    def everything(store):
        for name in list(store.tables):
            attempt(lambda: store[name].df.to_string())
            attempt(lambda: store[name].nrows)

    def opened():
        with cox.Store(sys.argv[1], "run", mode="r") as store:
            everything(store)
            return list(store.tables)

    attempt(opened)
    with cox.CollectionReader(sys.argv[1]) as reader:
        attempt(lambda: reader.tables)
        for name in ("t", "good"):
            attempt(lambda: reader.df(name, skip_errors=True).to_string())
    print("\\n".join(shown).replace("\\x00", "?")[:20000])
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A file outside of the run that the reader may read, and the enemy wants."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET * 100)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["t/table"] = np.frombuffer(SECRET * 100, dtype=np.uint8)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "runs"
    with cox.Store(made, "run") as store:
        store.add_table("t", {"step": int, "text": str}).append_row({"step": 1, "text": "x"})
    return made


def read(start: Callable[..., Any], folder: Path) -> str:
    """All that reading shows, in a process that may not take much."""
    program = start(READ, folder)
    lines = program.rest()
    assert program.process.returncode == 0, f"{program.process.returncode}: {program.errors[-3000:]}"
    return "\n".join(lines)


# --- HDF5


def external_link(file: h5py.File, elsewhere: Path) -> None:
    del file["t"]
    file["t"] = h5py.ExternalLink(os.fspath(elsewhere.with_suffix(".h5")), "/t")


def external_link_to_the_rows(file: h5py.File, elsewhere: Path) -> None:
    del file["t/table"]
    file["t/table"] = h5py.ExternalLink(os.fspath(elsewhere.with_suffix(".h5")), "/t/table")


def _like_the_rows(file: h5py.File) -> tuple[Any, dict[str, Any]]:
    table = file["t/table"]
    dtype, attributes = table.dtype, dict(table.attrs)
    del file["t/table"]
    return dtype, attributes


def external_storage(file: h5py.File, elsewhere: Path) -> None:
    dtype, attributes = _like_the_rows(file)
    rows = len(SECRET) * 100 // dtype.itemsize
    made = file.create_dataset(
        "t/table", (rows,), dtype, external=[(os.fspath(elsewhere), 0, rows * dtype.itemsize)]
    )
    made.attrs.update(attributes)


def virtual_dataset(file: h5py.File, elsewhere: Path) -> None:
    dtype, attributes = _like_the_rows(file)
    layout_ = h5py.VirtualLayout(shape=(1,), dtype=dtype)
    layout_[0:1] = h5py.VirtualSource(os.fspath(elsewhere.with_suffix(".h5")), "t/table", (1,), dtype)
    made = file.create_virtual_dataset("t/table", layout_)
    made.attrs.update(attributes)


def soft_link_out(file: h5py.File, elsewhere: Path) -> None:
    del file["t"]
    file["t"] = h5py.SoftLink("../../../../etc")


def group_in_itself(file: h5py.File, elsewhere: Path) -> None:
    del file.attrs["COX_RUN"]  # so that the tables are looked for
    file["t/t"] = file["t"]
    file["t/up"] = file["/"]


def deep_groups(file: h5py.File, elsewhere: Path) -> None:
    del file.attrs["COX_RUN"]
    group = file["t"]
    for _ in range(3000):
        group = group.create_group("d")


def endless_rows(file: h5py.File, elsewhere: Path) -> None:
    dtype, attributes = _like_the_rows(file)
    made = file.create_dataset("t/table", (10**13,), dtype, chunks=(1000,), compression="gzip")
    made.attrs.update(attributes)


def endless_rows_of_upstream(file: h5py.File, elsewhere: Path) -> None:
    endless_rows(file, elsewhere)
    del file.attrs["COX_RUN"]


def wide_text(file: h5py.File, elsewhere: Path) -> None:
    _, attributes = _like_the_rows(file)
    dtype = np.dtype([("index", "i8"), ("step", "i8"), ("text", "S1000000000")])
    made = file.create_dataset("t/table", (1,), dtype, chunks=(1,), maxshape=(None,))
    made.attrs.update(attributes)


def compression_bomb(file: h5py.File, elsewhere: Path) -> None:
    dtype, attributes = _like_the_rows(file)
    made = file.create_dataset(
        "t/table", (4_000_000_000 // dtype.itemsize,), dtype, chunks=(1_000_000,), compression="gzip"
    )
    made.attrs.update(attributes)
    made[:1_000_000] = np.zeros(1_000_000, dtype)


def unknown_filter(file: h5py.File, elsewhere: Path) -> None:
    dtype, attributes = _like_the_rows(file)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1,))
    properties.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple((1,), (h5py.h5s.UNLIMITED,))
    h5py.h5d.create(file.id, b"t/table", h5py.h5t.py_create(dtype, logical=True), space, properties)
    file["t/table"].attrs.update(attributes)


def hostile_attributes(file: h5py.File, elsewhere: Path) -> None:
    """Where pandas unpickles: the names and kinds of columns, and upstream's COX_DATA."""
    del file.attrs["COX_RUN"]

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {elsewhere.with_suffix('.touched')}",)

    bomb = np.bytes_(pickle.dumps(Bomb(), 0))
    for name in ("COX_DATA", "info", "non_index_axes", "values_cols", "data_columns", "nan_rep", "levels"):
        file["t"].attrs[name] = bomb
    for name in list(file["t/table"].attrs):
        if name.endswith(("_kind", "_meta", "_dtype")):
            file["t/table"].attrs[name] = bomb


def run_attribute_of_nonsense(file: h5py.File, elsewhere: Path) -> None:
    about = json.loads(bytes(file.attrs["COX_RUN"]))
    about["tables"]["t"]["nrows"] = 10**18
    about["tables"]["../../../secret"] = about["tables"]["t"]
    about["writers"] = {"rank-99999999999999999999": {"seq": -1, "rows": {"t": -5}}}
    file.attrs["COX_RUN"] = np.bytes_(json.dumps(about))


def deep_run_attribute(file: h5py.File, elsewhere: Path) -> None:
    file.attrs["COX_RUN"] = np.bytes_("[" * 60_000)


HDF5 = [value for value in list(globals().values()) if "elsewhere" in getattr(value, "__annotations__", {})]


@pytest.mark.parametrize("make", HDF5, ids=lambda make: make.__name__)
def test_a_hostile_store_h5_gets_nothing(
    make: Callable[[h5py.File, Path], None], folder: Path, elsewhere: Path, start: Callable[..., Any]
) -> None:
    path = folder / "run" / layout.STORE_FILE
    with h5py.File(path, "r+", locking=False) as file:
        make(file, elsewhere)
    before = sorted(os.listdir(elsewhere.parent))
    shown = read(start, folder)
    assert SECRET[:20].decode() not in shown
    assert "another" not in shown
    assert sorted(name for name in os.listdir(elsewhere.parent) if not name.startswith("program")) == before


# --- Journals


def record(salt: int, payload: Any) -> bytes:
    raw = payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload)
    return journal.MARK + struct.pack("<II", len(raw), zlib.crc32(raw, salt)) + raw


def columns() -> Any:
    return cox.schema.Schema.declare({"step": int}, table="t").to_json()


JOURNALS: dict[str, Callable[[], list[Any]]] = {
    "a name that leads out": lambda: [[1, 1, 0, "../../../secret", columns()], [0, 2, 0, 0, 1]],
    "an absolute name": lambda: [[1, 1, 0, "/etc/passwd", columns()], [0, 2, 0, 0, 1]],
    "a name of cox": lambda: [[1, 1, 0, "_cox", columns()], [0, 2, 0, 0, 1]],
    "an array of four billion": lambda: [b"\xdd\xff\xff\xff\xff\x00"],
    "a text of four gigabytes": lambda: [b"\x94\x00\x01\x00\xdb\xff\xff\xff\xff"],
    "arrays in arrays": lambda: [b"\x91" * 1_000_000],
    "maps in maps": lambda: [b"\x81\x00" * 100_000],
    "a million columns": lambda: [
        [1, 1, 0, "wide", [_named(columns()[0], f"c{at}") for at in range(100_000)]],
        [0, 2, 0, 0, 1],
    ],
    "huge numbers": lambda: [[1, 2**63, 2**64 - 1, "t", columns()], [0, 2**64 - 1, 2**64 - 1, 2**64 - 1, 1]],
    "a row far ahead": lambda: [[1, 1, 0, "t2", columns()], [0, 2, 0, 2**62, 1]],
    "a rewind to nowhere": lambda: [[2, 1, "t", -(2**62)], [2, 2, "t", 2**62], [2, 3, "nothing", 1]],
    "unknown kinds": lambda: [[77, 1], [-1, 2], [3.5, 3], ["0", 4], [None, None]],
}


def _named(column: Any, name: str) -> Any:
    if isinstance(column, dict):
        return {**column, "name": name}
    return [name, *column[1:]]


@pytest.mark.parametrize("name", JOURNALS)
def test_a_hostile_journal_gets_nothing(
    name: str, folder: Path, elsewhere: Path, start: Callable[..., Any]
) -> None:
    run = layout.RunLayout(folder / "run")
    path = run.journal_file("main", 7)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(journal.HEADER_1 + b"".join(record(7, payload) for payload in JOURNALS[name]()))
    before = sorted(os.listdir(elsewhere.parent)), elsewhere.read_bytes()
    shown = read(start, folder)
    assert "another" not in shown
    # and it is folded, or left, without harm
    with contextlib.suppress(CoxError), warnings.catch_warnings():
        warnings.simplefilter("ignore", CoxWarning)
        with cox.Store(folder, "run") as store:
            store["t"].append_row({"step": 2, "text": "y"})
    names = sorted(n for n in os.listdir(elsewhere.parent) if not n.startswith("program"))
    assert (names, elsewhere.read_bytes()) == before


# --- Payloads and other files of a run


@pytest.mark.parametrize("uid", ["../../secret", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", "link"])
def test_a_cell_names_files_of_its_run_only(folder: Path, elsewhere: Path, uid: str) -> None:
    with cox.Store(folder, "run") as store:
        store.add_table("p", {"thing": cox.PICKLE}).append_row({"thing": 1})
        (Path(store.path) / layout.OBJECTS_DIR / "link").symlink_to(elsewhere)
    with cox.Store(folder, "run", mode="r", allow_pickle=True) as store, pytest.raises(CoxError):
        store["p"].get_pickle(uid)


@pytest.mark.parametrize("file", ["run.json", "trusted.json", "claims/main.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"null",
        b'{"pid": {}, "host": []}',
        b'{"format": "x"}',
        b"1e999",
    ],
    ids=["nothing", "torn", "deep", "no text", "null", "other types", "no number", "infinite"],
)
def test_files_about_a_run_may_hold_anything(folder: Path, file: str, content: bytes) -> None:
    path = folder / "run" / ".cox" / file
    path.write_bytes(content)
    with cox.Store(folder, "run", mode="r") as store:
        assert len(store["t"].df) == 1
    with cox.CollectionReader(folder) as reader:
        assert len(reader.df("t")) == 1
    os.utime(path, (0, 0))
    with cox.Store(folder, "run") as store:
        store["t"].append_row({"step": 2, "text": "y"})
    with cox.Store(folder, "run", mode="r") as store:
        assert store["t"].df["step"].tolist() == [1, 2]
