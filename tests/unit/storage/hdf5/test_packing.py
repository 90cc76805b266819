"""Chunks that cox packs by itself are what HDF5's filters would have made of them."""

from __future__ import annotations

import importlib
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cox.storage.hdf5 import packing


def stored_by_hdf5(data: bytes) -> int:
    """The checksum that HDF5 puts behind a chunk of these bytes."""
    with h5py.File("chunk", "w", driver="core", backing_store=False) as file:
        array = np.frombuffer(data, dtype=np.uint8)
        dataset = file.create_dataset("d", data=array, chunks=(len(array),), fletcher32=True)
        _, chunk = dataset.id.read_direct_chunk((0,))
    return int.from_bytes(chunk[-4:], "little")


@given(st.binary(min_size=1, max_size=3000))
def test_the_checksum_is_hdf5s(data: bytes) -> None:
    assert packing.fletcher32(data) == stored_by_hdf5(data)


@pytest.mark.parametrize(
    "data",
    [bytes(2), bytes(5000), b"\xff" * 2, b"\xff" * 100_001, b"\xff\xff" * 200_000, bytes(range(256)) * 3000],
    ids=["zero", "zeros", "ones", "odd", "large", "mixed"],
)
def test_the_checksum_is_hdf5s_at_the_edges(data: bytes) -> None:
    assert packing.fletcher32(data) == stored_by_hdf5(data)


@pytest.mark.slow
def test_the_checksum_of_a_large_chunk_is_hdf5s() -> None:
    """One long text makes a chunk as long: its sums are beyond 64 bits."""
    data = np.random.default_rng(1).integers(200, 256, 70 << 20, dtype=np.uint8).tobytes()
    assert packing.fletcher32(data) == stored_by_hdf5(data)


def test_hdf5_reads_a_packed_chunk_and_checks_it(tmp_path: Path) -> None:
    dtype = np.dtype([("a", "<i8"), ("b", "S3"), ("c", "?")])
    rows = np.array([(i, str(i).encode(), i % 2) for i in range(500)], dtype=dtype)
    path = tmp_path / "file.h5"
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((500,))
    packing.declare_filters(how)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((500,))
        made = h5py.h5d.create(file.id, b"d", h5py.h5t.py_create(dtype), space, dcpl=how)
        packed = packing.pack(rows)
        made.write_direct_chunk((0,), packed)
    with h5py.File(path) as file:
        assert (file["d"][:] == rows).all()
    data = bytearray(path.read_bytes())
    data[data.index(packed) + len(packed) // 2] ^= 1
    path.write_bytes(data)
    with h5py.File(path) as file, pytest.raises(OSError, match="checksum|filter"):
        file["d"][:]


def test_without_isal_zlib_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(1000)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "isal", None)
        importlib.reload(packing)
        packed = packing.pack(rows)
    importlib.reload(packing)
    for chunk in (packed, packing.pack(rows)):
        shuffled = np.frombuffer(zlib.decompress(chunk[:-4]), dtype=np.uint8).reshape(8, 1000)
        assert (np.ascontiguousarray(shuffled.T).view(np.int64).ravel() == rows).all()
