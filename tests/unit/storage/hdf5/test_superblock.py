"""The checksum of the first bytes of an HDF5 file is that of HDF5, and a wrong one is put right."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cox.storage.hdf5 import superblock, writing
from cox.storage.hdf5.content import StoreFile


def test_the_hash_is_the_one_that_was_published() -> None:
    assert superblock.lookup3(b"Four score and seven years ago") == 0x17770551


def image_of(text: str) -> bytes:
    with h5py.File("file", "w", driver="core", backing_store=False, libver="v110") as file:
        file.attrs["text"] = text
        file.flush()
        return superblock.sealed(file.id.get_file_image())


@given(
    st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=300),
    st.binary(min_size=4, max_size=4),
)
def test_a_wrong_checksum_is_put_right(text: str, checksum: bytes) -> None:
    """HDF5 before 2.0 leaves that of a file which is open for writing."""
    image = image_of(text)
    changed = image[:44] + checksum + image[48:]
    assert superblock.sealed(changed) == image
    with h5py.File(h5py.h5f.open_file_image(superblock.sealed(changed))) as file:
        assert file.attrs["text"] == text


def test_of_a_file_that_was_closed_nothing_changes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w", libver="v110") as file:
        file["d"] = [1]
    image = (tmp_path / "file.h5").read_bytes()
    assert superblock.sealed(image) is image


def test_store_files_are_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superblock, "sealed", lambda image: b"sealed")
    writing.write(tmp_path / "store.h5", StoreFile())
    assert (tmp_path / "store.h5").read_bytes() == b"sealed"
