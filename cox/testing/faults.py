"""Every call that changes the file system, one after the other, in the hands of a test.

`cox.storage.fs` is the door for all of them but two: a row goes through `os.pwrite` directly, and HDF5
writes the store file by itself. Both are intercepted too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from cox.storage import fs, hdf5

#: What of `fs` changes something by itself, rather than through another one of these.
FUNCTIONS = ("sync_data", "sync_file", "sync_directory", "make_directories", "unlink", "rename")
#: The same, for what only a repair does.
REPAIRS = ("link",)


class Handler(Protocol):
    """What a test does with a call."""

    def __call__(self, number: int, name: str, do: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        """Stand in for one call.

        Args:
            number: How many calls there were before it.
            name: What is called: 'pwrite', 'write store.h5', 'rename', …
            do: Really does it; its result is to be returned.
            half: Does a part of it, where there is such a thing.
        """


@contextlib.contextmanager
def intercepted(handler: Handler) -> Iterator[list[str]]:
    """Hand every call to `handler` while the block runs. Yields the names of those so far.

    Calls of other threads (TensorBoard's, the keeper's) pass by uncounted.
    """
    names: list[str] = []
    thread = threading.get_ident()

    def hand(name: str, do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        if threading.get_ident() != thread:
            return do()
        names.append(name)
        return handler(len(names) - 1, name, do, half)

    def pwrite(fd: int, data: bytes, offset: int) -> Any:
        return hand(
            "pwrite",
            lambda: real_pwrite(fd, data, offset),
            lambda: real_pwrite(fd, data[: len(data) // 2], offset),
        )

    def write(path: Path, *args: Any, **options: Any) -> Any:
        return hand(
            "write store.h5",
            lambda: real_write(path, *args, **options),
            lambda: path.write_bytes(b"\x89HDF\r\n\x1a\n half a file"),
        )

    def named(name: str) -> Callable[..., Any]:
        real = getattr(fs, name)
        return lambda *args, **options: hand(name, lambda: real(*args, **options))

    @contextlib.contextmanager
    def new_file(path: Path, **options: Any) -> Iterator[Any]:
        hand("new_file", lambda: None, lambda: path.write_bytes(b"half"))
        with real_new_file(path, **options) as file:
            yield file

    real_pwrite, real_write, real_new_file = os.pwrite, hdf5.write, fs.new_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(hdf5, "write", write)
        patch.setattr(fs, "new_file", new_file)
        for name in (*FUNCTIONS, *REPAIRS):
            patch.setattr(fs, name, named(name))
        yield names


def count(run: Callable[[], Any]) -> list[str]:
    """The names of all calls that `run` makes."""
    with intercepted(lambda number, name, do, half: do()) as names:
        run()
        return list(names)
