"""Writes down what a session does to a directory: the trace that a loss of power is tried on.

The functions of `os` and `Path.open` are replaced while it runs. That it misses nothing is checked at the
end: the trace, replayed whole, has to give what the directory really holds, byte for byte.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cox.storage import fs
from tests.crash.powerloss.trace import ROOT, Data, Event, Mark, Names, Size, Sync, Trace, Tree


class Recorder:
    """Writes down what happens to a directory while `recording` runs, and checks that nothing escaped it.

    Args:
        root: The directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trace = Trace(Tree.of(root))
        self._tree = self.trace.initial.copy()
        self._inodes: dict[tuple[int, int], int] = {}
        self._know(root, ROOT)

    def _know(self, path: Path, inode: int) -> None:
        self._inodes[_key(path.stat())] = inode
        for name, child in self._tree.directories.get(inode, {}).items():
            self._know(path / name, child)

    def mark(self, what: Any) -> None:
        """Note something between what was done before and what is done after."""
        self.trace.events.append(Mark(what))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the block runs. Syncs are noted, and not waited for."""
        with pytest.MonkeyPatch.context() as patch:
            _patch(self, patch)
            yield
        left = Tree.of(self.root).contents()
        replayed = self._tree.contents()
        different = sorted(
            name for name in left.keys() | replayed.keys() if left.get(name, 0) != replayed.get(name, 0)
        )
        assert not different, f"something was done to these that the trace does not have: {different}"

    # --- What the patched functions call, after they did what they were asked to

    def did(self, event: Event) -> None:
        self._tree.apply(event)
        self.trace.events.append(event)

    def place(self, path: Any, dir_fd: int | None = None) -> tuple[int, str] | None:
        """A path's directory and name, if that directory is one of those recorded."""
        if isinstance(path, int):
            return None
        folder, name = os.path.split(os.fspath(path))
        try:
            inode = self._inode_of(os.stat(folder or ".", dir_fd=None if folder.startswith("/") else dir_fd))
        except OSError:
            return None
        return None if inode is None or inode not in self._tree.directories else (inode, name)

    def named(self, path: Any, dir_fd: int | None = None) -> int | None:
        """What a path names, if it is recorded."""
        place = self.place(path, dir_fd)
        return None if place is None else self._tree.directories[place[0]].get(place[1])

    def open_file(self, fd: int) -> int | None:
        """What a descriptor stands for, if it is recorded."""
        return self._inode_of(os.fstat(fd))

    def made(self, what: str, path: Any, dir_fd: int | None, *, directory: bool) -> None:
        """A new file or directory stands at a path."""
        place = self.place(path, dir_fd)
        if place is None:
            return
        inode = max(*self._tree.directories, *self._tree.files, ROOT) + 1
        for tree in (self._tree, self.trace.initial):  # there from the beginning, without a name
            if directory:
                tree.directories[inode] = {}
            else:
                tree.files[inode] = bytearray()
        self._inodes[_key(os.stat(path, dir_fd=dir_fd))] = inode
        self.did(Names(what, ((*place, inode),)))

    def wrote(self, what: str, inode: int | None, offset: int, data: bytes) -> None:
        if inode is not None and data:
            self.did(Data(what, inode, offset, data))

    def forget(self, real: tuple[int, int], inode: int | None) -> None:
        """Forget a real inode that has no name any more: its number may be used again."""
        if inode is not None and not any(
            inode in names.values() for names in self._tree.directories.values()
        ):
            self._inodes.pop(real, None)

    def _inode_of(self, status: os.stat_result) -> int | None:
        return self._inodes.get(_key(status))

    def label(self, inode: int | None) -> str:
        """A name for messages."""
        for directory, names in self._tree.directories.items():
            for name, child in names.items():
                if child == inode:
                    return f"{self.label(directory)}/{name}".lstrip("/")
        return "" if inode == ROOT else "a file without a name"


def _patch(recorder: Recorder, patch: pytest.MonkeyPatch) -> None:
    """Have the functions that change a file system tell the recorder, each after it succeeded."""
    real: dict[str, Any] = {name: getattr(os, name) for name in _CALLS}

    def replaced(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def put(function: Callable[..., Any]) -> Callable[..., Any]:
            patch.setattr(os, name, function)
            accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 has copies of its own
            if accessor is not None and hasattr(accessor, name):
                patch.setattr(accessor, name, staticmethod(function))
            return function

        return put

    @replaced("open")
    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        before = recorder.named(path, dir_fd)
        fd = int(real["open"](path, flags, mode, dir_fd=dir_fd))
        if flags & os.O_CREAT and before is None:
            recorder.made(f"create {_name(path)}", path, dir_fd, directory=False)
        elif flags & os.O_TRUNC and before is not None:
            recorder.did(Size(_name(path), before, 0))
        return fd

    @replaced("pwrite")
    def pwrite(fd: int, data: Any, offset: int) -> int:
        done = int(real["pwrite"](fd, data, offset))
        inode = recorder.open_file(fd)
        recorder.wrote(recorder.label(inode), inode, offset, bytes(data[:done]))
        return done

    @replaced("write")
    def write(fd: int, data: Any) -> int:
        done = int(real["write"](fd, data))
        inode = recorder.open_file(fd)
        if inode is not None:
            at = os.lseek(fd, 0, os.SEEK_CUR) - done
            recorder.wrote(recorder.label(inode), inode, at, bytes(data[:done]))
        return done

    @replaced("ftruncate")
    def ftruncate(fd: int, size: int) -> None:
        real["ftruncate"](fd, size)
        inode = recorder.open_file(fd)
        if inode is not None:
            recorder.did(Size(recorder.label(inode), inode, size))

    def sync(fd: Any) -> None:
        inode = recorder.open_file(fd if isinstance(fd, int) else fd.fileno())
        if inode is not None:
            recorder.did(Sync(recorder.label(inode) or "the folder", inode))

    replaced("fsync")(sync)
    if "fdatasync" in real:
        replaced("fdatasync")(sync)

    @replaced("mkdir")
    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real["mkdir"](path, mode, dir_fd=dir_fd)
        recorder.made(f"mkdir {_name(path)}", path, dir_fd, directory=True)

    @replaced("link")
    def link(source: Any, target: Any, **options: Any) -> None:
        real["link"](source, target, **options)
        inode, place = recorder.named(source), recorder.place(target)
        if place is not None and inode is not None:
            recorder.did(Names(f"link {_name(source)} to {_name(target)}", ((*place, inode),)))

    def renamed(name: str) -> None:
        @replaced(name)
        def rename(source: Any, target: Any, **options: Any) -> None:
            there, gone = _real_inode(target), recorder.named(target)
            inode, old, new = recorder.named(source), recorder.place(source), recorder.place(target)
            real[name](source, target, **options)
            changes = [(*place, named) for place, named in ((old, None), (new, inode)) if place is not None]
            if changes:
                recorder.did(Names(f"rename {_name(source)} to {_name(target)}", tuple(changes)))
            recorder.forget(there, gone)

    def removed(name: str) -> None:
        @replaced(name)
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            there, gone = _real_inode(path, dir_fd), recorder.named(path, dir_fd)
            place = recorder.place(path, dir_fd)
            real[name](path, dir_fd=dir_fd)
            if place is not None:
                recorder.did(Names(f"remove {_name(path)}", ((*place, None),)))
            recorder.forget(there, gone)

    renamed("rename")
    renamed("replace")
    removed("unlink")
    removed("remove")
    removed("rmdir")

    real_open = Path.open

    def open_path(path: Path, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        if recorder.place(path) is None or not set(mode) & set("wxa+"):
            return real_open(path, mode, buffering, *args, **options)
        raw = _File(recorder, path, mode.replace("b", "").replace("t", ""))
        made = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return made if "b" in mode else io.TextIOWrapper(made, *args, **options)

    patch.setattr(Path, "open", open_path)
    real_fdopen = fs._open

    def open_descriptor(fd: int, mode: str) -> Any:
        if recorder.open_file(fd) is None or not set(mode) & set("wxa+"):
            return real_fdopen(fd, mode)
        return io.BufferedRandom(_File(recorder, fd, mode.replace("b", "")))

    patch.setattr(fs, "_open", open_descriptor)


_CALLS = [
    name
    for name in (
        *("open", "pwrite", "write", "ftruncate", "fsync", "fdatasync", "mkdir", "link"),
        *("rename", "replace", "unlink", "remove", "rmdir"),
    )
    if hasattr(os, name)
]


class _File(io.FileIO):
    """A file whose writes are recorded: those of Python's own file objects do not go through `os`."""

    def __init__(self, recorder: Recorder, path: Path | int, mode: str) -> None:
        before = recorder.named(path)
        super().__init__(path, mode)
        self._recorder = recorder
        if isinstance(path, int):  # that it was made has been recorded
            self._inode = recorder.open_file(path)
            return
        if before is None:
            recorder.made(f"create {path.name}", path, None, directory=False)
        elif "w" in mode:
            recorder.did(Size(path.name, before, 0))
        self._inode = recorder.named(path)

    def write(self, data: Any) -> int:
        done = super().write(data)
        written = bytes(memoryview(data).cast("B")[:done])
        self._recorder.wrote(self._label(), self._inode, self.tell() - done, written)
        return done

    def truncate(self, size: int | None = None) -> int:
        made = super().truncate(size)
        if self._inode is not None:
            self._recorder.did(Size(self._label(), self._inode, made))
        return made

    def _label(self) -> str:
        return self._recorder.label(self._inode) if isinstance(self.name, int) else Path(str(self.name)).name


def _name(path: Any) -> str:
    return Path(path).name


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _real_inode(path: Any, dir_fd: int | None = None) -> tuple[int, int]:
    try:
        return _key(os.stat(path, dir_fd=dir_fd, follow_symlinks=False))
    except OSError:
        return -1, -1
