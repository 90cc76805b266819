"""Store files that are whole for HDF5, and that none of our programs wrote: other types, filters and places.

`MUTATIONS` are the ways to change one, by name; `read_everything` is what every one of them must survive.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

import cox
from cox.errors import CoxError, CoxWarning
from cox.integrity.repair import repair
from cox.integrity.verify import verify
from cox.storage import fold, fs, layout, snapshot
from cox.storage.hdf5.packing import fletcher32
from cox.storage.journal import HEADER_1, MARK

Mutation = Callable[[h5py.File], None]


def make_run(folder: Path) -> layout.RunLayout:
    """A closed run with a bit of everything, and a group of the user's own."""
    with cox.Store(folder, "run") as store:
        table = store.add_table("t", {"step": int, "loss": float, "text": str, "maybe": float | None})
        other = store.add_table("odd", {"f(x)": float, "thing": cox.OBJECT})
        for step in range(5):
            table.append_row({"step": step, "loss": step / 3, "text": "é" * step})
            other.append_row({"f(x)": 1.0, "thing": {"a": [1, None]}})
    run = layout.RunLayout(Path(store.path))
    with h5py.File(run.store_file, "r+", locking=False) as file:
        file["own/notes"] = [1, 2, 3]
    return run


def read_everything(folder: Path) -> None:
    """Read, check, continue and repair the run of `make_run`. Lets nothing out but what is not of cox."""
    run = layout.RunLayout(folder / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CoxWarning)
        with contextlib.suppress(CoxError):
            for table in snapshot.read(run).tables.values():
                for column in table.schema:
                    with contextlib.suppress(CoxError):
                        table.column(column)
        with contextlib.suppress(CoxError):
            verify(run.root)
        with contextlib.suppress(CoxError):
            journal = run.journal_file("main", 7)
            payloads: list[list[Any]] = [[1, 90, 0, "new", [["x", "int", False]]], [0, 91, 0, 0, 5]]
            fs.make_directories(journal.parent)
            journal.write_bytes(HEADER_1 + b"".join(_record(payload, 7) for payload in payloads))
            fold.fold(run, durable=False)
        with contextlib.suppress(CoxError):
            repair(run.root)


def _record(payload: list[Any], salt: int) -> bytes:
    raw = msgspec.msgpack.encode(payload)
    return MARK + struct.pack("<II", len(raw), zlib.crc32(raw, salt)) + raw


# --- Attributes: (the object's path, the attribute's name), and values of the wrong kind

_ATTRIBUTES = [
    ("/", "COX_RUN"),
    ("/", "COX_RUN_CRC32"),
    ("t", "COX_DATA"),
    ("t", "values_cols"),
    ("t", "non_index_axes"),
    ("t", "nan_rep"),
    ("t/table", "step_kind"),
]


def _values(old: bytes) -> dict[str, Callable[[Any, str], None]]:
    vlen, text = h5py.vlen_dtype(np.int64), h5py.string_dtype()

    def put(value: Any, **options: Any) -> Callable[[Any, str], None]:
        return lambda owner, name: owner.attrs.create(name, value, **options)

    return {
        "array of texts": put(np.array([old] * 2000)),
        "matrix of texts": put(np.array([[old] * 7] * 7)),
        "texts without one": put(np.array([], dtype=f"S{max(1, len(old))}")),
        "array of one text": put(np.array([old])),
        "text of variable length": put(old.decode("latin-1").replace("\0", " "), dtype=text),
        "texts of variable length": put(np.array(["a", "b" * 9000], dtype=object), dtype=text),
        "lists of variable length": put(np.array([np.arange(9), np.arange(5000)], dtype=object), dtype=vlen),
        "compound": put(np.array((1, b"x"), dtype=[("a", "i8"), ("b", "S9")])),
        "null": lambda owner, name: owner.attrs.create(name, h5py.Empty(f"S{max(1, len(old))}")),
        "number": put(7),
        "numbers": put(np.arange(5000)),
        "wide number": put(np.longdouble(7)),
        "big-endian numbers": put(np.arange(5000, dtype=">i8")),
        "truth": put(True),
        "reference": lambda owner, name: owner.attrs.create(name, owner.file.ref, dtype=h5py.ref_dtype),
        "opaque": put(np.void(old or b"x")),
        "array of opaque": put(np.array([np.void(old or b"x")] * 50)),
        "short text": put(np.bytes_(b"{")),
        "long text": put(np.bytes_(b"[" * 1_000_000)),
        "not unicode": put(np.bytes_(b"\xff\xfe{" * 99)),
    }


def _attribute(path: str, name: str, kind: str, *, upstream: bool, file: h5py.File) -> None:
    owner = file[path]
    old = owner.attrs.get(name, b"x")
    put = _values(bytes(old) if isinstance(old, (bytes, np.bytes_)) else b"x")[kind]
    if name in owner.attrs:
        del owner.attrs[name]
    put(owner, name)
    if name == "COX_RUN_CRC32":  # which only a long one needs
        about = json.loads(bytes(file.attrs["COX_RUN"]))
        file.attrs["COX_RUN"] = np.bytes_(json.dumps({**about, "padding": " " * 40_000}))
    if upstream and "COX_RUN" in file.attrs:
        del file.attrs["COX_RUN"]


# --- Datasets


def _replace(file: h5py.File, path: str, **options: Any) -> Any:
    """Make a dataset anew, with the old one's type unless another is given, and its attributes."""
    old = file[path]
    attributes = {name: old.attrs.get_id(name) for name in old.attrs}
    values = {name: old.attrs[name] for name in attributes}
    settings: dict[str, Any] = {"shape": old.shape, "dtype": old.dtype} | options
    del file[path]
    made = file.create_dataset(path, **settings)
    for name, value in values.items():
        with contextlib.suppress(Exception):
            made.attrs[name] = value
    return made


def _chunk(packed: bytes, file: h5py.File, *, path: str = "t/table", mask: int = 0, rows: int = 0) -> None:
    old = file[path]
    options: dict[str, Any] = {"shape": (rows,)} if rows else {}
    size = max(rows, old.shape[0], 1)
    made = _replace(file, path, chunks=(size,), compression="gzip", shuffle=True, fletcher32=True, **options)
    made.id.write_direct_chunk((0,), packed, mask)


def _packed(size: int) -> bytes:
    packed = zlib.compress(os.urandom(min(size, 100_000)) + b"\0" * max(0, size - 100_000))
    return packed + struct.pack("<I", fletcher32(packed))


def _other_type(dtype: Any, path: str, file: h5py.File) -> None:
    _replace(file, path, dtype=dtype, chunks=(5,), shape=(5,))


def _fields_of(base: Any, file: h5py.File) -> None:
    names = file["t/table"].dtype.names
    _other_type(np.dtype([(name, base) for name in names]), "t/table", file)


def _contiguous(path: str, file: h5py.File) -> None:
    data = file[path][:]
    _replace(file, path, data=data, shape=None)


def _compact(file: h5py.File) -> None:
    old = file["t/table"]
    dtype, shape = old.id.get_type(), old.shape
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.COMPACT)
    del file["t/table"]
    h5py.h5d.create(file.id, b"t/table", dtype, h5py.h5s.create_simple(shape), how)


def _filter(number: int, values: tuple[int, ...], file: h5py.File) -> None:
    old = file["t/table"]
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((5,))
    how.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
    kind, attributes = old.id.get_type(), dict(old.attrs)
    del file["t/table"]
    made = h5py.h5d.create(
        file.id, b"t/table", kind, h5py.h5s.create_simple((5,), (h5py.h5s.UNLIMITED,)), how
    )
    made.write_direct_chunk((0,), os.urandom(1000))
    file["t/table"].attrs.update(attributes)


def _in_place_of(path: str, put: Callable[[h5py.File, str], None], file: h5py.File) -> None:
    del file[path]
    put(file, path)


def _own(put: Callable[[Any], None], file: h5py.File) -> None:
    put(file["own"])


def _deep(depth: int, group: Any) -> None:
    for _ in range(depth):
        group = group.create_group("d")


def _external(group: Any) -> None:
    group.create_dataset("x", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def _virtual(group: Any) -> None:
    made = h5py.VirtualLayout((1,), "i8")
    made[0:1] = h5py.VirtualSource("elsewhere.h5", "x", (1,), "i8")
    group.create_virtual_dataset("x", made)


def _texts(group: Any) -> None:
    group.create_dataset("x", data=["a", "b" * 5000], dtype=h5py.string_dtype())


def _many_texts(group: Any) -> None:
    group.create_dataset("x", (10**12,), h5py.string_dtype(), chunks=(1000,), compression="gzip")


def _references(group: Any) -> None:
    made = group.create_dataset("x", (2,), h5py.ref_dtype)
    made[0] = group.ref


def _cycle(group: Any) -> None:
    group["again"] = group
    group["up"] = group.file["/"]


def _all() -> Iterator[tuple[str, Mutation]]:
    for path, name in _ATTRIBUTES:
        for kind in _values(b"x"):
            for upstream in (False, True) if name not in ("COX_RUN", "COX_RUN_CRC32") else (False,):
                label = f"{path} {name}: {kind}{', upstream' if upstream else ''}"
                yield label, partial(_by_keyword, _attribute, path, name, kind, upstream=upstream)
    fields = [("index", "i8"), ("step", "i8"), ("loss", "f8"), ("text", "S8"), ("maybe", "f8")]
    types: dict[str, Any] = {
        "texts of variable length": h5py.string_dtype(),
        "lists": h5py.vlen_dtype(np.int64),
        "references": h5py.ref_dtype,
        "opaque": np.dtype("V40"),
        "numbers": np.dtype("i8"),
        "long doubles": np.dtype([(name, np.longdouble) for name, _ in fields]),
        "a field of texts": np.dtype([*fields[:3], ("text", h5py.string_dtype()), fields[4]]),
        "a field of lists": np.dtype([*fields[:3], ("text", h5py.vlen_dtype(np.uint8)), fields[4]]),
        "a field of references": np.dtype([*fields[:4], ("maybe", h5py.ref_dtype)]),
        "fields in a field": np.dtype([*fields[:4], ("maybe", [("a", "i8"), ("b", "S3")])]),
        "a field of a matrix": np.dtype([*fields[:4], ("maybe", "f8", (3, 4))]),
        "a field of a million": np.dtype([*fields[:4], ("maybe", "f8", (1_000_000,))]),
        "an opaque field": np.dtype([*fields[:4], ("maybe", "V9")]),
        "other names": np.dtype([(f"x{name}", kind) for name, kind in fields]),
        "fewer fields": np.dtype(fields[:2]),
        "complex": np.dtype([(name, "c16") for name, _ in fields]),
        "halves": np.dtype([(name, "f2") for name, _ in fields]),
        "big-endian": np.dtype([(name, f">{kind}" if kind[0] != "S" else kind) for name, kind in fields]),
        "numbers as texts": np.dtype([(name, "S9") for name, _ in fields]),
        "texts as numbers": np.dtype([(name, "i8") for name, _ in fields]),
    }
    for name, dtype in types.items():
        yield f"rows: {name}", partial(_other_type, dtype, "t/table")
        yield f"missing cells: {name}", partial(_other_type, dtype, "_cox/0/missing_3")
    for name, packed in {
        "short": _packed(10),
        "three bytes": b"abc",
        "long": _packed(10_000_000),
        "not deflate": os.urandom(500),
    }.items():
        if name == "long" and h5py.version.hdf5_version_tuple < (2,):
            continue  # HDF5 refuses to write it
        yield f"a chunk: {name}", partial(_chunk, packed)
        yield f"a chunk of missing cells: {name}", partial(_chunk, packed, path="_cox/0/missing_3")
        yield f"a chunk without filters: {name}", partial(_chunk, packed, mask=7)
        yield f"a chunk without a checksum: {name}", partial(_chunk, packed, mask=4)
    yield "a huge chunk that is short", partial(_chunk, _packed(100_000), rows=5_000_000)
    yield "a chunk that is not there", partial(_replace, path="t/table", chunks=(5,))
    yield "no rows", partial(_replace, path="t/table", chunks=(5,), shape=(0,), maxshape=(None,))
    yield "one value", partial(_replace, path="t/table", shape=())
    yield "a matrix of rows", partial(_replace, path="t/table", shape=(5, 5), chunks=(1, 5))
    yield "nothing at all", partial(_replace, path="t/table", shape=None, data=h5py.Empty("i8"))
    yield "rows in one piece", partial(_contiguous, "t/table")
    yield "missing cells in one piece", partial(_contiguous, "_cox/0/missing_3")
    yield "compact rows", _compact
    yield "lzf", partial(_replace, path="t/table", compression="lzf", chunks=(5,))
    for number in (5, 305, 307, 32000, 32001, 65535):
        yield f"filter {number}", partial(_filter, number, (1, 2, 3, 4, 5, 6, 7, 8))
    for path in ("t", "t/table", "_cox", "_cox/0", "_cox/0/missing_3", "own"):
        yield f"a group for {path}", partial(_in_place_of, path, lambda file, at: file.create_group(at))
        yield f"a type for {path}", partial(_in_place_of, path, _put(np.dtype("i8")))
        yield f"a loop for {path}", partial(_in_place_of, path, _put_loop)
        yield f"the root for {path}", partial(_in_place_of, path, lambda file, at: _put_root(file, at))
    own: dict[str, Callable[[Any], None]] = {
        "deep": partial(_deep, 3000),
        "external": _external,
        "virtual": _virtual,
        "texts": _texts,
        "many texts": _many_texts,
        "references": _references,
        "cycle": _cycle,
        "lzf": lambda group: group.create_dataset("x", data=np.arange(99), compression="lzf"),
    }
    for name, put in own.items():
        yield f"the user's own: {name}", partial(_own, put)


def _by_keyword(change: Callable[..., None], *arguments: Any, upstream: bool, **named: Any) -> None:
    *rest, file = arguments
    change(*rest, upstream=upstream, file=file, **named)


def _put(value: Any) -> Callable[[h5py.File, str], None]:
    return lambda file, path: file.__setitem__(path, value)


def _put_loop(file: h5py.File, path: str) -> None:
    file[path] = h5py.SoftLink(f"/{path}")


def _put_root(file: h5py.File, path: str) -> None:
    file[path] = file["/"]


MUTATIONS: dict[str, Mutation] = dict(_all())
