"""Which runs a folder has, and whether a run is still as it was. Asks for names and times, opens no file."""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from cox.storage import layout

#: Of a file: inode, size in bytes, time of its last change and of its last change of status in ns.
Marks = tuple[int, int, int, int]
_NO_FILE: Marks = (0, -1, 0, 0)
_INODE_BITS = 2**63 - 1


class State(NamedTuple):
    """What changes when the rows of a run do. Equal to any tuple of the same values.

    Attributes:
        inode: Of its store file …
        size: … in bytes, -1 without one …
        changed: … last change of its content, in ns …
        touched: … and of anything about it, in ns.
        journal_dir: When a journal was last made or removed, or a copying program set the time of that
            back, in ns; 0 without a directory of journals.
        journals: Name and marks of each journal.
    """

    inode: int
    size: int
    changed: int
    touched: int
    journal_dir: int
    journals: tuple[tuple[str, Marks], ...]

    @property
    def newest(self) -> int:
        """When anything of it last changed, in ns by the clock of the file system."""
        return max(self.changed, self.touched, self.journal_dir, *(max(at[2:]) for _, at in self.journals), 0)

    @property
    def written(self) -> int:
        """When rows of it were last written, in ns; 0 if it has none."""
        return max(self.changed, *(marks[2] for _, marks in self.journals), 0)


def find_runs(folder: Path, *, nested: bool = False) -> Iterator[layout.RunLayout]:
    """The runs of a folder, sorted by name; see `run_names`."""
    for name in run_names(os.fspath(folder), nested=nested):
        yield layout.RunLayout(folder / name)


def run_names(folder: str, *, nested: bool = False) -> list[str]:
    """The paths of a folder's runs in it, sorted: directories with a store file, a journal or a `run.json`.

    Copies that `snapshot_copy` left beside their run are not runs.

    Args:
        folder: The folder.
        nested: Whether to look into directories that are no runs, too, however deep, and through links. Each
            directory is looked into once, under its own name rather than that of a link.
    """
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    pending, links = [("", False)], list[str]()
    while pending or links:
        prefix, by_link = pending.pop() if pending else (links.pop(0), True)
        try:
            status = os.stat(f"{folder}/{prefix}")  # noqa: PTH116 - a Path costs as much again
            if (place := (status.st_dev, status.st_ino)) in seen:  # a link that leads back, or there again
                continue
            seen.add(place)
            runs, others = _contents(f"{folder}/{prefix}")
        except OSError as error:
            # removed in this moment; or behind a link, where nobody said that there are runs
            if prefix and (by_link or isinstance(error, FileNotFoundError)):
                continue
            raise
        names += [f"{prefix}{name}" for name in runs]
        for name, is_link in others.items() if nested else ():
            if is_link:
                links.append(f"{prefix}{name}/")
            else:
                pending.append((f"{prefix}{name}/", by_link))
    return sorted(names, key=lambda name: name.split("/"))


def _contents(folder: str) -> tuple[list[str], dict[str, bool]]:
    """The runs that lie in a folder; and its other directories, each with whether it is a link."""
    with os.scandir(folder) as entries:
        directories = {entry.name: entry.is_symlink() for entry in entries if _is_directory(entry)}
    directories.pop(layout.CACHE_DIR, None)
    runs, others = [], {}
    for name in sorted(directories):
        root = f"{folder}/{name}"
        if not is_run(root):
            if not name.startswith("."):
                others[name] = directories[name]
        elif not (name.endswith(layout.SNAPSHOT_SUFFIX) and _is_copy(root, name, directories)):
            runs.append(name)
    return runs, others


def is_run(root: str | os.PathLike[str]) -> bool:
    """Whether a directory is a run, or what is left of one."""
    root = os.fspath(root)
    return (
        _exists(f"{root}/{layout.STORE_FILE}")
        or _exists(f"{root}/{layout.JOURNALS}")
        or _exists(f"{root}/{layout.RUN_INFO}")
    )


def state_of(root: str, known: State | None = None) -> State:
    """The state of a run at this moment.

    Args:
        root: The run's directory.
        known: An earlier state, if any: it saves looking for journals where none came since.

    Raises:
        OSError: The file system refused to look.
    """
    try:
        store = _marks(os.stat(f"{root}/{layout.STORE_FILE}"))  # noqa: PTH116 - a Path costs as much again
    except FileNotFoundError:
        store = _NO_FILE
    try:
        found = os.stat(f"{root}/{layout.JOURNALS}")  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return State(*store, 0, ())
    journal_dir = max(found.st_mtime_ns, found.st_ctime_ns)
    if known is not None and not known[5] and known[4] == journal_dir:
        return State(*store, journal_dir, ())
    return State(*store, journal_dir, _journals_in(f"{root}/{layout.JOURNALS}"))


def _journals_in(directory: str) -> tuple[tuple[str, Marks], ...]:
    with os.scandir(directory) as entries:
        found = [entry for entry in entries if layout.parse_journal_name(entry.name)]
    marks = []
    for entry in found:
        try:
            marks.append((entry.name, _marks(os.stat(entry.path))))  # noqa: PTH116
        except FileNotFoundError:  # folded in this moment
            continue
    return tuple(sorted(marks))


def _marks(found: os.stat_result) -> Marks:
    inode = found.st_ino & _INODE_BITS  # some file systems number by hashes: it is kept as a signed one
    return inode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _exists(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # what may not be looked into is named when it is read
    return True


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # what a link may not be followed to is named when it is read
        return error.errno != errno.ELOOP


def _is_copy(root: str, name: str, names: Container[str]) -> bool:
    """Whether a directory is what `snapshot_copy` left beside a run."""
    return (
        name.removesuffix(layout.SNAPSHOT_SUFFIX) in names
        and not _exists(f"{root}/{layout.META_DIR}")
        and not _exists(f"{root}/{layout.TENSORBOARD_DIR}")
    )
