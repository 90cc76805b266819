"""A folder's cache that is damaged, unwritable, hostile or shared: it costs time, never an answer.

Whatever stands in `.cox-cache`, the frame is that of a reader without a cache. Whoever may write there may
write the runs as well, so that rows with a right checksum are believed; all else is checked before its use.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
import msgspec
import pandas as pd
import pytest

import cox
from cox.collection import cache
from cox.collection.cache import Cache, files, index
from cox.storage import fs, layout
from cox.testing import faults
from tests.caching import assert_same, count_reads, df, kept_at_once, make, segments_of, settle
from tests.crash.children import Counter
from tests.crash.zygote import Zygote

SEED = int(os.environ.get("COX_SEED", "1")) or random.SystemRandom().randrange(1 << 32)
#: How often more than by default: bytes that are damaged in full, random indexes.
FLIPS = int(os.environ.get("COX_FLIPS", "400")) / 400
SECONDS = float(os.environ.get("COX_SECONDS", "1.5"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_at_once(monkeypatch)


ROWS = [
    {"x": 2**60, "f": 0.5, "s": "é", "b": True, "long": "z" * 30},
    {"x": -1, "s": "", "b": False, "long": "\0"},
    {"x": 3, "f": float("nan"), "s": "ab\0c", "b": True, "long": ""},
]
SCHEMA: dict[str, Any] = {"x": int, "f": float | None, "s": str, "b": bool, "long": str}
NAMES = ["a", "b", "c"]


def three_runs(folder: Path) -> Path:
    """Three runs and their cache."""
    for name in NAMES:
        make(folder, name, *ROWS, **SCHEMA)
    settle(folder)
    assert len(df(folder)) == 9
    assert Cache(folder).with_rows("t") == set(NAMES)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        kept_at_once(patch)
        made = three_runs(tmp_path_factory.mktemp("shared") / "runs")
    shutil.copytree(made / layout.CACHE_DIR, made.parent / "cache")
    return made


@pytest.fixture
def folder(shared: Path) -> Path:
    """Runs that no test changes, and their cache, for a test to do with it what it likes."""
    # where a test before could have none beside the runs, it has one in the user's own place
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    directory = shared / layout.CACHE_DIR
    if directory.is_dir() and not directory.is_symlink():
        shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)
    shutil.copytree(shared.parent / "cache", directory)
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Runs of a test's own."""
    return three_runs(tmp_path / "runs")


def index_of(folder: Path) -> Path:
    return folder / layout.CACHE_DIR / files.INDEX_FILE


def blocks_of(folder: Path) -> list[dict[str, list[Any]]] | None:
    """All rows that the cache gives, in a form to be compared."""
    found = Cache(folder)
    if set(found.states) != set(NAMES) or found.with_rows("t") != set(NAMES):
        return None
    made = found.blocks("t", NAMES, None)
    return made and [
        {
            name: values.tobytes() if values.dtype != object else values.tolist()
            for name, values in some.items()
        }
        for block in made
        for some in (block.part.values, block.part.missing)
    ]


# --- Damage


def damages(data: bytes, choose: random.Random) -> dict[str, bytes]:
    """The file, once with each byte damaged, once cut off at each, and with pages of zeros."""
    made = {}
    for at in range(len(data)):
        made[f"bit of byte {at}"] = data[:at] + bytes([data[at] ^ 1 << choose.randrange(8)]) + data[at + 1 :]
        made[f"first {at} bytes"] = data[:at]
    for size in (16, 64, 256, len(data)):
        for start in range(0, len(data), size):
            made[f"{size} zeros at {start}"] = (
                data[:start] + bytes(len(data[start : start + size])) + data[start + size :]
            )
    return {how: broken for how, broken in made.items() if broken != data}


@pytest.mark.parametrize("which", ["index", "segment"])
def test_a_file_damaged_anywhere_is_no_file(folder: Path, tmp_path: Path, which: str) -> None:
    path = index_of(folder) if which == "index" else segments_of(folder)[0]
    choose = random.Random(SEED)
    data, whole, expected = path.read_bytes(), blocks_of(folder), df(folder, cache=False)
    saved = shutil.copytree(path.parent, tmp_path / "saved")
    assert whole is not None
    broken = damages(data, choose)
    assert len(broken) > 2 * len(data)
    for how, content in broken.items():
        path.write_bytes(content)
        assert blocks_of(folder) in (None, whole), f"seed {SEED}: {how}"
        assert blocks_of(folder) is None or which == "segment", f"seed {SEED}: {how}"
    for how in choose.sample(sorted(broken), int(10 * FLIPS)):
        shutil.rmtree(path.parent)
        shutil.copytree(saved, path.parent)
        path.write_bytes(broken[how])
        pd.testing.assert_frame_equal(df(folder), expected)
        assert blocks_of(folder) == whole, f"seed {SEED}: {how}: the next reader finds it in order"


def test_a_byte_more_is_no_harm(folder: Path) -> None:
    for path in (index_of(folder), *segments_of(folder)):
        path.write_bytes(path.read_bytes() + b"\0")
        assert_same(folder)


def test_swapped_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs"
    for at, key in enumerate("tuv"):
        make(folder, "a", {"x": at}, table=key, x=int)
    settle(folder)
    for key in "tuv":
        df(folder, key)
    paths = segments_of(folder)
    assert len({path.stat().st_size for path in paths}) == 1
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(data)
    for at, key in enumerate("tuv"):
        assert assert_same(folder, key)["x"].tolist() == [at]
    reads = count_reads(monkeypatch)
    assert [df(folder, key)["x"].tolist() for key in "tuv"] == [[0], [1], [2]]
    assert reads == []


def test_a_lost_segment_and_a_lost_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for lost in (segments_of(folder)[0], index_of(folder)):
        lost.unlink()
        assert_same(folder, columns=["s"])
        reads = count_reads(monkeypatch)
        assert_same(folder)
        assert len(reads) == 3, "those without a cache"


def test_an_old_index_is_an_old_answer_to_no_question(own: Path) -> None:
    """As a backup brings it back."""
    saved = shutil.copytree(own / layout.CACHE_DIR, own.parent / "saved")
    make(own, "b", {"x": 9, "s": "new", "b": True, "long": ""}, **SCHEMA)
    settle(own)
    assert len(df(own)) == 10
    shutil.rmtree(own / layout.CACHE_DIR)
    shutil.copytree(saved, own / layout.CACHE_DIR)
    assert len(assert_same(own)) == 10


# --- Somebody hostile


def stored_of(path: Path) -> Any:
    return msgspec.msgpack.decode(path.read_bytes()[index._START :], type=index._Stored)


def write_index(path: Path, data: bytes) -> None:
    path.write_bytes(index._MAGIC + index._checksum(data) + data)


def rewrite(folder: Path, change: Callable[[Any], None]) -> None:
    """Change what the index says, and have it be as valid as it can be."""
    stored = stored_of(index_of(folder))
    change(stored)
    write_index(index_of(folder), msgspec.msgpack.encode(stored))


def of_segment(**values: Any) -> Callable[[Any], None]:
    return lambda stored: [setattr(stored.segments[0], name, value) for name, value in values.items()]  # type: ignore[return-value]


def of_blobs(**values: Any) -> Callable[[Any], None]:
    def change(stored: Any) -> None:
        for blob in stored.segments[0].blobs:
            for name, value in values.items():
                setattr(blob, name, value)

    return change


def of_stored(**values: Any) -> Callable[[Any], None]:
    return lambda stored: [setattr(stored, name, value) for name, value in values.items()]  # type: ignore[return-value]


def numbers(*values: int) -> bytes:
    return index.as_bytes(list(values))


LIES: dict[str, Callable[[Any], None]] = {
    **{
        f"file {name!r}": of_segment(file=name)
        for name in (
            "../../a/store.h5",
            "../x.rows",
            "/etc/passwd",
            "/dev/zero.rows",
            "..",
            "",
            "x\0.rows",
            "a/b.rows",
        )
    },
    "other files": of_segment(file=files.INDEX_FILE),
    "no such file": of_segment(file=f"{'0' * 4000}.rows"),
    "lengths negative": of_segment(lengths=numbers(-1, 3, 3)),
    "lengths huge": of_segment(lengths=numbers(2**62, 3, 3)),
    "lengths that overflow": of_segment(lengths=numbers(2**63 - 1, 2**63 - 1, 11)),
    "lengths other": of_segment(lengths=numbers(1, 1, 7)),
    "lengths of more runs": of_segment(lengths=numbers(3, 3, 3, 3)),
    "lengths torn": of_segment(lengths=b"123"),
    "ids unknown": of_segment(ids=numbers(7, 8, 9)),
    "ids negative": of_segment(ids=numbers(-1, 0, 1)),
    "ids twice": of_segment(ids=numbers(1, 1, 1)),
    "another table": of_segment(table="u"),
    "columns of no kind": of_segment(columns=[("x", "complex", False)]),
    "columns none": of_segment(columns=[]),
    "columns of other kinds": of_segment(columns=[(name, "str", False) for name in SCHEMA]),
    "columns of other names": of_segment(columns=[("y", "int", False)]),
    "blobs none": of_segment(blobs=[]),
    "offsets negative": of_blobs(offset=-1),
    "offsets beyond 63 bits": of_blobs(offset=2**64 - 1),
    "offsets beyond the file": of_blobs(offset=2**62),
    "sizes negative": of_blobs(size=-1),
    "sizes huge": of_blobs(size=2**62),
    "sizes beyond the file": of_blobs(size=2**35),
    "sizes none": of_blobs(size=0),
    "checksums beyond": of_blobs(checksum=2**64 - 1),
    **{
        f"values {what!r}": of_blobs(what=what)
        for what in (
            "|O",
            "<M8[ns]",
            "|V8",
            "|S0",
            "|S00",
            "|S٣",
            "|S²",
            "|S999",
            "|S-1",
            ">i8",
            "<f2",
            "",
            "x",
            "missing",
            "texts",
        )
    },
    "column names": of_blobs(column="nobody's"),
    "names twice": of_stored(names=["a", "a", "b"]),
    "names elsewhere": of_stored(names=["../a", "/etc", "x" * 10_000]),
    "names with a NUL": of_stored(names=["a\0", "b", "c"]),
    "names missing": of_stored(names=["a"]),
    "numbers beyond": of_stored(next_id=2**40),
    "numbers far beyond": of_stored(next_id=2**64 - 1),
    "numbers negative": of_stored(next_id=-1),
    "no heads": of_stored(heads=[]),
    "heads of no kind": of_stored(heads=[[("t", [("x", "complex", False)])]]),
    "heads of other kinds": of_stored(heads=[[("t", [(name, "str", False) for name in SCHEMA])]]),
    "heads twice": of_stored(heads=[[("t", [("x", "int", False)])] * 2]),
    "head beyond": of_stored(head=numbers(0, 0, 99)),
    "head negative": of_stored(head=numbers(0, 0, -1)),
    "rows missing": of_stored(nrows=numbers(3, 3)),
    "rows huge": of_stored(nrows=numbers(2**63 - 1, 3, 3)),
    "marks torn": of_stored(marks=b"1"),
    "marks missing": of_stored(marks=numbers(1, 2, 3, 4, 5)),
    "journals of nobody": of_stored(journals={"z": [("main-00000001.log", (1, 2, 3, 4))]}),
    "segments thousands": lambda stored: stored.segments.extend(stored.segments * 5000),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies(folder: Path, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says of rows may be believed; nothing else comes of it, and it is put right."""
    expected = df(folder, cache=False)
    rewrite(folder, LIES[lie])
    df(folder, "t", exp_filter=lambda name: name == "b")
    found = df(folder)
    pd.testing.assert_frame_equal(found.head(0), expected.head(0))
    if lie not in BELIEVED:
        pd.testing.assert_frame_equal(found, expected)
        df(folder)
        reads = count_reads(monkeypatch)
        pd.testing.assert_frame_equal(df(folder), expected)
        assert reads == [], "the next reader finds it in order"


#: Here the rows of a run are said to be others, with all that belongs to it.
BELIEVED = {"blobs none", "column names"}


def rewrite_rows(folder: Path, column: str, what: str | None, data: Callable[[bytes], bytes]) -> None:
    """Have other bytes be the values of a column, with a right checksum."""
    (path,) = segments_of(folder)
    content = path.read_bytes()

    def change(stored: Any) -> None:
        made = b""
        for blob in stored.segments[0].blobs:
            own = content[blob.offset : blob.offset + blob.size]
            if blob.column == column and (blob.what == "missing") == (what == "missing"):
                own, blob.what = data(own), what or blob.what
            blob.offset, blob.size, blob.checksum = len(made), len(own), crc32c.crc32c(own)
            made += own
        path.write_bytes(made)

    rewrite(folder, change)


TEXTS = msgspec.msgpack.encode


@pytest.mark.parametrize(
    ("column", "what", "data"),
    [
        ("b", None, lambda old: b"\x07" * len(old)),
        ("b", None, lambda old: b"\xff" * len(old)),
        ("b", "<i8", lambda old: bytes(72)),
        ("x", "<f8", lambda old: old),
        ("x", "|S8", lambda old: old),
        ("x", "texts", lambda old: TEXTS(["1"] * 9)),
        ("x", None, lambda old: old[:-8]),
        ("x", None, lambda old: old[:-1]),
        ("f", "<i8", lambda old: old),
        ("f", "|b1", lambda old: bytes(9)),
        ("f", "missing", lambda old: b""),
        ("f", "missing", lambda old: old * 9),
        ("s", "<i8", lambda old: bytes(72)),
        ("s", "|S1", lambda old: b"\xff" * 9),
        ("s", "|S1", lambda old: "é".encode() * 4 + b"a"),
        ("s", "|S3", lambda old: b"\xed\xa0\x80" * 9),
        ("s", "texts", lambda old: TEXTS(list(range(9)))),
        ("s", "texts", lambda old: TEXTS(["a"] * 8)),
        ("s", "texts", lambda old: TEXTS([None] * 9)),
        ("s", "texts", lambda old: b"\x99" + b"\xa1\xff" * 9),
        ("s", "texts", lambda old: b"\xdd\xff\xff\xff\xff"),
        ("s", "texts", lambda old: b"\x91" * 200_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_are_no_rows(
    folder: Path, column: str, what: str | None, data: Callable[[bytes], bytes]
) -> None:
    """With all checksums right. numpy counts wrong, and writes beyond its memory, of a bool that is 7."""
    rewrite_rows(folder, column, what, data)
    assert blocks_of(folder) is None
    for options in ({}, {"where": "b"}, {"columns": [column]}):
        assert_same(folder, **options)


def test_rows_that_could_be_rows_are_believed(folder: Path) -> None:
    """Whoever can write this can write the runs."""
    rewrite_rows(folder, "x", None, lambda old: old[::-1])
    assert df(folder)["x"].tolist() != df(folder, cache=False)["x"].tolist()


@pytest.mark.parametrize(
    "extra", [b"\x91" * 500_000, b"\x81" * 500_000, b"\xc1"], ids=["lists", "maps", "none"]
)
def test_an_index_with_more_behind_it(folder: Path, extra: bytes) -> None:
    data = index_of(folder).read_bytes()[index._START :]
    assert data[0] == 0x9A
    write_index(index_of(folder), b"\x9b" + data[1:] + extra)
    assert_same(folder)


def test_indexes_that_are_right_by_form_only(folder: Path, tmp_path: Path) -> None:
    """Of all types that it should be, and of values that nobody would write."""
    choose = random.Random(SEED)
    expected, before = df(folder, cache=False), stored_of(index_of(folder))
    directory = folder / layout.CACHE_DIR
    saved = shutil.copytree(directory, tmp_path / "saved")
    for number in range(int(60 * FLIPS)):
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(before), type=index._Stored)
        for _ in range(choose.randrange(1, 4)):
            distort(stored, choose)
        shutil.rmtree(directory)
        shutil.copytree(saved, directory)
        write_index(index_of(folder), msgspec.msgpack.encode(stored))
        try:
            found = df(folder)
        except cox.errors.TableNotFoundError:  # as it says
            continue
        assert set(found) <= set(expected), f"seed {SEED}, index {number}"
        assert set(found["exp_id"]) <= set(NAMES)


def distort(stored: Any, choose: random.Random) -> None:
    def some_numbers(old: bytes) -> bytes:
        made = bytearray(old)
        if len(made) >= 8 and choose.random() < 0.8:
            at = choose.randrange(len(made) // 8) * 8
            made[at : at + 8] = choose.choice(
                [0, 1, 2, 3, -1, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1]
            ).to_bytes(8, "little", signed=True)
        else:
            made = made[: choose.randrange(len(made) + 1)]
        return bytes(made)

    what = choose.choice(["bytes", "bytes", "blob", "text", "number"])
    segment = choose.choice(stored.segments) if stored.segments else None
    if what == "bytes":
        owner = choose.choice([stored, segment or stored])
        name = choose.choice(["ids", "lengths"] if owner is segment else ["ids", "marks", "head", "nrows"])
        setattr(owner, name, some_numbers(getattr(owner, name)))
    elif what == "blob" and segment is not None and segment.blobs:
        blob = choose.choice(segment.blobs)
        name = choose.choice(["offset", "size", "checksum"])
        setattr(blob, name, choose.choice([0, 1, -1, 72, 2**31, 2**63 - 1, 2**64 - 1]))
        if choose.random() < 0.2:
            segment.blobs.remove(blob)
    elif what == "text":
        owner = segment or stored
        if choose.random() < 0.5 and owner is segment:
            name = choose.choice(["file", "table"])
            setattr(owner, name, choose.choice(["", "t", "..", "x.rows", "\0", "é" * 300]))
        else:
            stored.heads = choose.choice([[], stored.heads * 2, [[]], [[("t", [])]]])
    else:
        stored.next_id = choose.choice([0, 1, -1, 2**40, 2**64 - 1])


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_link_to(target: str) -> Callable[[Path], None]:
    def make_link(path: Path) -> None:
        path.symlink_to(target)

    make_link.__name__ = f"link {target}"
    return make_link


def as_directory(path: Path) -> None:
    path.mkdir()


def as_hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("which", ["index", "segment", "directory"])
@pytest.mark.parametrize(
    "place",
    [as_fifo, as_link_to("/dev/zero"), as_link_to("itself"), as_directory, as_hole],
    ids=lambda place: place.__name__.removeprefix("as_"),
)
def test_no_file_in_the_place_of_a_file(
    folder: Path, zygote: Zygote, which: str, place: Callable[[Path], None]
) -> None:
    """A reader neither waits for it nor reads it to an end that never comes."""
    directory = folder / layout.CACHE_DIR
    path = {"index": index_of(folder), "segment": segments_of(folder)[0], "directory": directory}[which]
    if path == directory:
        shutil.rmtree(path)
    else:
        path.unlink()
    if place.__name__ == "link itself":
        path.symlink_to(path)
    else:
        place(path)
    zygote.run("tests.crash.cache_children:expect", str(folder), 120, 400)
    if place.__name__ != "link itself":
        cache.size(folder)


def test_sizes_that_only_a_hole_has(folder: Path, zygote: Zygote) -> None:
    """A file without content, of a size that no memory has, and an index that knows all of it."""
    (path,) = segments_of(folder)
    rows = 2**39

    def change(stored: Any) -> None:
        segment = stored.segments[0]
        stored.nrows = numbers(rows, 3, 3)
        segment.lengths = numbers(rows, 3, 3)
        segment.blobs = [index.Blob("b", "|b1", 0, rows + 6, 0)]

    rewrite(folder, change)
    with path.open("r+b") as file:
        file.truncate(rows + 6)
    zygote.run("tests.crash.cache_children:expect", str(folder), 120, 400)


def test_many_columns_in_the_same_place_take_no_more_than_the_file(folder: Path, zygote: Zygote) -> None:
    (path,) = segments_of(folder)
    data = bytes(8 << 20)
    path.write_bytes(data)
    checksum = crc32c.crc32c(data)

    def change(stored: Any) -> None:
        blobs = [index.Blob(f"x{at}", "|S1", 0, len(data), checksum) for at in range(200)]
        stored.segments[0].blobs = [*blobs, index.Blob("y", "|S1", 0, -199 * len(data), 0)]

    rewrite(folder, change)
    zygote.run("tests.crash.cache_children:expect", str(folder), 120, 400)


# --- A disk that fails


@pytest.mark.parametrize("how", ["file in the way", "link to nowhere"])
def test_a_folder_without_a_place_for_a_cache(tmp_path: Path, how: str) -> None:
    make(tmp_path, "a")
    settle(tmp_path)
    path = tmp_path / layout.CACHE_DIR
    path.write_bytes(b"") if how == "file in the way" else path.symlink_to("nowhere")
    assert_same(tmp_path)
    assert not path.is_dir()


def changed(folder: Path) -> Path:
    """Make a run, and one longer: something to be saved beside what is. Returns a copy of the cache."""
    saved = shutil.copytree(folder / layout.CACHE_DIR, folder.parent / "saved")
    make(folder, "b", {"x": 9, "s": "new", "b": True, "long": ""}, **SCHEMA)
    make(folder, "d", *ROWS, **SCHEMA)
    settle(folder)
    return saved


def back_to(folder: Path, saved: Path | None) -> None:
    directory = folder / layout.CACHE_DIR
    shutil.rmtree(directory, ignore_errors=True)
    if saved is not None:
        shutil.copytree(saved, directory, copy_function=shutil.copy2)


def known_files(folder: Path) -> set[str]:
    return {segment.file for segment in Cache(folder).index.segments} | {files.INDEX_FILE}


def files_of(folder: Path) -> set[str]:
    directory = folder / layout.CACHE_DIR
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


@pytest.mark.parametrize("first", [True, False], ids=["first save", "second save"])
@pytest.mark.parametrize("how", ["before", "half"])
@pytest.mark.parametrize("ever", [False, True], ids=["once", "from then on"])
def test_a_full_disk_at_any_call(
    own: Path, first: bool, how: str, ever: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = None if first else changed(own)
    expected = df(own, cache=False)
    back_to(own, saved)
    calls = faults.calls_of(lambda: df(own))
    assert len(calls) >= 4
    assert "new_file" in calls
    assert "rename" in calls
    for call, name in enumerate(calls):
        back_to(own, saved)

        def fail(number: int, name: str, do: Any, half: Any, call: int = call) -> Any:
            if number != call and not (ever and number > call and name != "unlink"):
                return do()
            if half is not None and how == "half":
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with faults.intercepted(fail):
            pd.testing.assert_frame_equal(df(own), expected)
        if name != "unlink" and how == "before":
            assert files_of(own) <= known_files(own), f"call {call}, {name}: what is full gets no fuller"
        pd.testing.assert_frame_equal(df(own), expected)
        reads = count_reads(monkeypatch)
        pd.testing.assert_frame_equal(df(own), expected)
        assert reads == [], f"call {call}, {name}: it is saved again"


@pytest.mark.parametrize("written", [0, 1, 50, 3000])
def test_a_disk_that_gets_full_while_rows_are_written(
    folder: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file gets so many bytes, and then no more."""
    back_to(folder, None)
    really = fs._open

    class Full:
        def __init__(self, file: Any) -> None:
            self._file, self._left = file, written

        def write(self, data: bytes) -> int:
            done = int(self._file.write(data[: self._left]))
            self._left -= done
            if done < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return done

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *about: object) -> None:
            self._file.close()

    def opening(fd: int, mode: str) -> Any:
        file = really(fd, mode)
        return Full(file) if mode == "w+b" else file

    with monkeypatch.context() as patch:
        patch.setattr(fs, "_open", opening)
        assert_same(folder)
        if written < 3000:
            assert files_of(folder) == set()
    assert_same(folder)
    assert set(NAMES) == Cache(folder).with_rows("t")


def test_a_disk_that_may_be_read_only(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written, and what is there is of use. The refusal is simulated: this may be root."""
    changed(own)

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("new_file", "unlink", "rename"):
        monkeypatch.setattr(fs, name, refuse)
    before = files_of(own)
    for _ in range(2):
        reads = count_reads(monkeypatch)
        assert len(df(own)) == 13
        assert set(reads) == {"b", "d"}
        monkeypatch.setattr(Path, "mkdir", refuse)
    assert files_of(own) == before


@pytest.mark.parametrize("first", [True, False], ids=["first save", "second save"])
@pytest.mark.parametrize("how", ["after", "within"])
def test_a_reader_killed_at_any_call(
    own: Path, zygote: Zygote, first: bool, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = None if first else changed(own)
    expected = df(own, cache=False)
    call = 0
    while True:
        back_to(own, saved)
        child = zygote.start("tests.crash.cache_children:read_and_die", str(own), call, how)
        if not child.was_killed():
            break
        pd.testing.assert_frame_equal(df(own), expected)
        for path in (own / layout.CACHE_DIR).iterdir():
            os.utime(path, (1, 1))  # long ago
        make(own, "e")
        settle(own)
        df(own, exp_filter=lambda name: name == "e")
        assert files_of(own) == known_files(own), f"call {call}: what was left is gone"
        shutil.rmtree(own / "e")
        reads = count_reads(monkeypatch)
        pd.testing.assert_frame_equal(df(own), expected)
        assert reads == []
        call += 1
    assert call >= (2 if how == "within" else 4)


# --- Side by side


@pytest.mark.parametrize(
    ("writers", "readers", "clears"),
    [(2, 2, False), (2, 8, True)],
    ids=["two readers", "eight and a clearer"],
)
def test_readers_and_writers_side_by_side(
    tmp_path: Path, zygote: Zygote, writers: int, readers: int, clears: bool
) -> None:
    """No reader sees an error, a row that is none, or fewer rows than were acknowledged before it looked."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for number in range(writers, writers + 3):  # at rest
        with cox.Store(folder, f"run-{number}") as store:
            store.add_table("t", {"step": int, "half": float, "text": str}).append_row(
                {"step": 0, "half": 0.0, "text": "row 0 "}
            )
    acks = [str(tmp_path / f"acks-{number}") for number in range(writers)]
    readings = [tmp_path / f"readings-{number}" for number in range(readers)]
    counters = [Counter(path) for path in readings]
    module = "tests.crash.cache_children"
    children = [
        zygote.start(f"{module}:write_runs", str(folder), number, SECONDS, acks[number])
        for number in range(writers)
    ]
    children += [
        zygote.start(f"{module}:read_over_and_over", str(folder), number, SECONDS, acks, str(path))
        for number, path in enumerate(readings)
    ]
    if clears:
        children.append(zygote.start(f"{module}:clear_over_and_over", str(folder), SECONDS))
    for child in children:
        child.join()
    assert all(counter.value > 3 for counter in counters)
    settle(folder)
    found = assert_same(folder)
    assert found["exp_id"].nunique() == writers + 3


# --- What is touched


def test_a_second_reading_opens_what_changed_and_the_cache(tmp_path: Path, zygote: Zygote) -> None:
    folder = tmp_path / "runs"
    make(tmp_path / "warm up", "a")
    make(folder, "run-000")
    for number in range(1, 200):
        shutil.copytree(folder / "run-000", folder / f"run-{number:03}")
    settle(folder)

    def opened() -> set[str]:
        zygote.run("tests.crash.cache_children:say_what_is_opened", str(folder), str(tmp_path / "opened"))
        return {line.removeprefix(f"{folder}/") for line in (tmp_path / "opened").read_text().splitlines()}

    first = opened()
    assert {f"run-{number:03}/store.h5" for number in range(200)} <= first
    own = {path for path in opened() if not path.startswith(layout.CACHE_DIR)}
    assert own == set(), "nothing changed"
    (segment,) = (f"{layout.CACHE_DIR}/{path.name}" for path in segments_of(folder))
    make(folder, "run-123", {"x": 1, "s": "new"})
    settle(folder)
    after = opened()
    own = {path for path in after if not path.startswith(layout.CACHE_DIR)}
    assert {path.split("/")[0] for path in own} == {"run-123"}
    assert "run-123/store.h5" in own
    assert {path for path in after if path.endswith(".rows")} >= {segment}
    assert {path for path in opened() if not path.startswith(layout.CACHE_DIR)} == set()
