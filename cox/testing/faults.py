"""Faults: every call with which cox changes the file system, one after the other, in the hands of a test.

`cox.storage.fs` is the door for all of them but two: a row goes through `os.pwrite` directly, and HDF5
writes the store file by itself. Both are intercepted too. What a plug-in writes through `cox.storage.fs`
counts as well; what it writes by other ways is not seen.

Example:
    A disk that is full at each call in turn:

    >>> def session(folder):
    ...     with cox.Store(folder, "run") as store:
    ...         store.add_table("t", {"x": int}).append_row({"x": 1})
    >>> for number, name in enumerate(faults.calls_of(lambda: session(first))):
    ...     with faults.intercepted(faults.Failure.at(number, errno.ENOSPC)):
    ...         with contextlib.suppress(StorageError):
    ...             session(folders / str(number))
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest import mock

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

    Args:
        handler: A `Failure`, a `Kill`, or a function of one's own.

    Example:
        >>> with faults.intercepted(faults.Failure.at(3, errno.EIO)) as names:
        ...     store["results"].append_row({"loss": 0.5})
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
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(os, "pwrite", pwrite))
        stack.enter_context(mock.patch.object(hdf5, "write", write))
        stack.enter_context(mock.patch.object(fs, "new_file", new_file))
        for name in (*FUNCTIONS, *REPAIRS):
            stack.enter_context(mock.patch.object(fs, name, named(name)))
        yield names


def calls_of(run: Callable[[], Any]) -> list[str]:
    """Return the names of all calls that `run` makes.

    Example:
        >>> faults.calls_of(lambda: store["results"].append_row({"loss": 0.5}))
        ['pwrite']
    """
    with intercepted(lambda number, name, do, half: do()) as names:
        run()
        return list(names)


class Failure:
    """A handler: a disk that fails the calls that it is told to.

    Args:
        fails: Which: called with a call's number and name.
        code: With which error, as in `errno`.
        how: 'before' doing anything, or when 'half' of it is done.

    Attributes:
        failed: The names of the calls that failed.
    """

    def __init__(
        self, fails: Callable[[int, str], bool], code: int, how: Literal["before", "half"] = "before"
    ) -> None:
        self.fails, self.code, self.how = fails, code, how
        self.failed: list[str] = []
        self._short = False

    @classmethod
    def at(cls, call: int, code: int, how: Literal["before", "half"] = "before") -> Failure:
        """Fail at one call alone.

        Args:
            call: Its number, from 0.
            code: With which error, as in `errno`.
            how: 'before' doing anything, or when 'half' of it is done.
        """
        return cls(lambda number, _: number == call, code, how)

    def __call__(self, number: int, name: str, do: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        """Do the call, or raise."""
        if not self._short and not self.fails(number, name):
            return do()
        self.failed.append(name)
        if self.how == "half" and half is not None and not self._short:
            done = half()
            if name == "pwrite":  # a short write is not an error; the next call tells what is wrong
                self._short = True
                return done
        self._short = False
        raise OSError(self.code, os.strerror(self.code))


class Kill:
    """A handler: ends this process by SIGKILL at one of its calls. For a child process of a test.

    Args:
        call: The call's number, from 0, among all of them, or among those that can be half done. If there
            are fewer, nothing happens.
        how: 'after' the call, or 'within' it.

    Example:
        >>> def child(folder, number):
        ...     with faults.intercepted(faults.Kill(number, "within")):
        ...         session(folder)
    """

    def __init__(self, call: int, how: Literal["after", "within"] = "after") -> None:
        self._left, self._within = call, how == "within"

    def __call__(self, number: int, name: str, do: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        """Do the call, or die."""
        if self._within and half is None:
            return do()
        self._left -= 1
        if self._left >= 0:
            return do()
        (half if self._within and half is not None else do)()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")
