"""The store file of a run that has no folded rows yet: the same bytes in every run.

They lie beside this module, so that a run starts without loading an HDF5 library, and a file that holds
them is known to be empty without one. `python -m cox.storage.empty` makes them anew.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from cox.storage import fs

TEMPLATE = Path(__file__).with_name("empty.h5")


@lru_cache(maxsize=1)
def contents() -> bytes:
    """The bytes of an empty store file."""
    return TEMPLATE.read_bytes()


def is_empty(path: str | os.PathLike[str]) -> bool:
    """Whether a store file is one without tables.

    Raises:
        FileNotFoundError: There is none.
    """
    return os.lstat(path).st_size == len(contents()) and fs.read_bytes(path) == contents()


def main() -> None:
    """Make the template anew."""
    from cox.storage import hdf5

    fs.replace_file(TEMPLATE, lambda path: hdf5.write(path, hdf5.StoreFile()), durable=False)


if __name__ == "__main__":
    main()
