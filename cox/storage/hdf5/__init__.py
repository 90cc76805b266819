"""`store.h5`: written so that pandas opens it without cox, read through h5py without pandas.

pandas and PyTables unpickle HDF5 attributes by themselves, so that listing a stranger's file runs its
code. Here attributes are read raw and go through `cox.safe_pickle`. What is written is the layout of
`HDFStore.append(…, data_columns=True)`, attribute by attribute, plus `COX_DATA` for upstream cox, and
one root attribute, COX_RUN, with all that cox itself needs to read the file back (docs/FORMAT.md).

A file is only ever made new; nothing here changes one in place. What is left of a damaged one, `salvage`
reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cox.storage.hdf5 import library, reading
from cox.storage.hdf5.content import RUN_ATTRIBUTE, SIDECAR_GROUP, UPSTREAM_ATTRIBUTE, VERSION, StoreFile

if TYPE_CHECKING:
    from cox.storage.hdf5.salvaging import Salvage

read = library.usable(reading.read)


# whoever only reads loads neither of these


@library.usable
def salvage(path: Path) -> Salvage:
    """Read what is left of a store file, see `salvaging.salvage`."""
    from cox.storage.hdf5 import salvaging

    return salvaging.salvage(path)


@library.usable
def write(path: Path, content: StoreFile, *, old: Path | None = None) -> None:
    """Write a new store file, see `writing.write`."""
    from cox.storage.hdf5 import writing

    writing.write(path, content, old=old)


__all__ = [
    "RUN_ATTRIBUTE",
    "SIDECAR_GROUP",
    "UPSTREAM_ATTRIBUTE",
    "VERSION",
    "Salvage",
    "StoreFile",
    "read",
    "salvage",
    "write",
]
