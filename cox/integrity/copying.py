"""Copy runs to another place, also while they are written.

cp, tar and rsync list a directory first and read its files later. Of a run that is folded in between they
get the old store file, and not the journal whose rows went into the new one. Here all journals are opened
before the store file is, as by a reader: so the copy has every row that was acknowledged before it began.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cox.errors import CopyError, DamagedError, RunInUseError, RunNotFoundError, StorageError
from cox.storage import claims, fs, layout, newest, runinfo, snapshot
from cox.storage.scan import is_run

#: What a copy does not have: who writes the original is nobody's business there, and rows go by themselves.
_LEFT_OUT = frozenset(
    {layout.FOLD_LOCK, layout.FOLD_LOCK.replace(".lock", layout.HELD_SUFFIX), layout.COPY_FILE}
)
_PIECE = 1 << 20


@dataclass(slots=True)
class Copy:
    """What was copied of a run.

    Attributes:
        run: The run.
        dest: Its copy.
        files: How many files were copied; others were there already.
        bytes: How many bytes they have.
        left_out: What is neither a file, a directory nor a link, by its path in the run.
    """

    run: Path
    dest: Path
    files: int = 0
    bytes: int = 0
    left_out: list[str] = field(default_factory=list)


def copy_run(run: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Copy:
    """Copy a run into a folder, or bring its copy there up to date. A process may be writing the run.

    Every row that was acknowledged before is in the copy. What was copied already is not copied again, so
    that a copy that was cut off is finished by the next call. Each file is read again and compared.

    Args:
        run: The run's directory.
        folder: The folder, made if it is missing. The copy has the name of the run.

    Raises:
        RunNotFoundError: There is no such run.
        CopyError: Another run, or a directory, has the name, or the copy was written since.
        RunInUseError: A process is writing the copy, or copying to the same place.
        StorageError: The file system refused something.

    Example:
        >>> copy_run("runs/7753a944", "/backup/runs")
    """
    source = layout.RunLayout(Path(os.path.abspath(run)))  # noqa: PTH100 - resolve() would follow links
    target = layout.RunLayout(Path(os.path.abspath(folder)) / source.root.name)  # noqa: PTH100
    if not is_run(source.root):
        raise RunNotFoundError(f"{source.root} is not a run: it has no {layout.STORE_FILE}")
    if target.root.resolve().is_relative_to(source.root.resolve()):
        raise CopyError(f"{target.root} lies in the run that is to be copied: choose another folder")
    try:
        _begin(source, target)
        with _locked(target):
            _check_rows(source, target)
            return _Copying(source, target).copy
    except OSError as error:
        if isinstance(error, (StorageError, RunInUseError, RunNotFoundError)):
            raise
        path = Path(error.filename or target.root)
        reading = path.is_relative_to(source.root)
        raise fs.refused(error, f"cannot copy run {source.root}", path, reading=reading) from error


def _begin(source: layout.RunLayout, target: layout.RunLayout) -> None:
    """Make the directory of a copy, or make sure that it is one of this run."""
    known = runinfo.run_id(source)
    about = {"id": known, "source": os.fspath(source.root)}
    if target.root.is_symlink() or target.meta_dir.is_symlink():
        raise CopyError(f"{target.root} is a link, or has links where cox keeps what it knows")
    if any(not path.is_dir() and not _is_unfinished(path) for path in target.root.rglob("*")):
        before = _read_about(target)
        there = runinfo.run_id(target) or before.get("id")
        if known != there or (known is None and before != about):
            raise CopyError(
                f"{target.root} is not a copy of {source.root}: "
                + ("it is another run" if is_run(target.root) else "it is not a run")
                + "; choose another folder, or rename it"
            )
    fs.make_directories(target.meta_dir, durable=True)
    if _read_about(target) != about:
        fs.replace_bytes(target.copy_file, json.dumps(about, indent=1).encode())


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(layout.TEMPORARY_PREFIX)


def _read_about(run: layout.RunLayout) -> dict[str, object]:
    try:
        about = json.loads(fs.read_bytes(run.copy_file))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


@contextlib.contextmanager
def _locked(target: layout.RunLayout) -> Iterator[None]:
    """Be the only one who writes the copy."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(claims.exclusive(target.fold_lock, patience=0))
        except BlockingIOError as error:
            message = f"{target.root} is being copied to, or folded, by another process: wait for it"
            raise RunInUseError(errno.EBUSY, message, os.fspath(target.root)) from error
        for path in sorted(target.claims_dir.glob("*.json")):
            held.enter_context(claims.borrowed(path))
        yield


def _check_rows(source: layout.RunLayout, target: layout.RunLayout) -> None:
    """Refuse to take rows from a copy that the original does not have."""
    try:
        there, here = (snapshot.read(run, rows=False).content.writers for run in (target, source))
    except (RunNotFoundError, DamagedError):
        return  # a copy that was cut off, or is damaged: it is made whole
    for writer, state in there.items():
        if state["seq"] > here.get(writer, {"seq": 0})["seq"]:
            raise CopyError(
                f"{target.root} has rows that {source.root} does not have: it was written since it was "
                "copied; choose another folder, or copy it back"
            )


class _Copying:
    """One copying of one run."""

    def __init__(self, source: layout.RunLayout, target: layout.RunLayout) -> None:
        self._source, self._target = source, target
        self.copy = Copy(source.root, target.root)
        self._directories = {target.root}
        for unfinished in target.root.rglob(f"{layout.TEMPORARY_PREFIX}*"):  # of a copy that was cut off
            if not unfinished.is_dir():
                fs.unlink(unfinished)
        for _ in range(fs.REPLACED_TIMES):
            try:
                with contextlib.ExitStack() as opened:
                    self._copy_all(opened)
                break
            except OSError as error:  # on a network file system, what another host removed cannot be read on
                if error.errno != errno.ESTALE:
                    raise
        for directory in self._directories:
            fs.sync_directory(directory)

    def _copy_all(self, opened: contextlib.ExitStack) -> None:
        source, target = self._source, self._target
        names = fs.names_in(source.journal_dir)
        logs, marks = self._open_journals(names, opened), newest.among(names)
        with contextlib.suppress(FileNotFoundError):  # the journals have all rows
            store = opened.enter_context(source.store_file.open("rb"))
            if not self._is_there(os.fstat(store.fileno()), target.store_file):
                staged = self._stage(store, target.store_file)
                opened.callback(fs.unlink, staged)
                moves = [(staged, target.store_file)]
            else:
                moves = []
        if logs or marks:
            fs.make_directories(target.journal_dir, inside=target.root)
            self._directories |= {target.meta_dir, target.journal_dir}
        for name, log in logs.items():
            path = target.journal_dir / name
            staged = self._stage(log, path)
            opened.callback(fs.unlink, staged)
            moves.append((staged, path))
        # the files of objects after the rows that name them: they were there before
        self._copy_directory(source.root, target.root)
        for staged, path in moves:  # the store file first: it holds the rows of journals that are gone
            fs.rename(staged, path)
        for path in target.journal_dir.glob(f"*{layout.JOURNAL_SUFFIX}"):
            if path.name not in logs:
                fs.unlink(path)
        for mark in marks:
            newest.write(target, mark)
        with contextlib.suppress(FileNotFoundError):  # of upstream
            self._copy_file(source.run_file, target.run_file)  # last: what is not whole is not a run yet

    def _open_journals(self, names: list[str], opened: contextlib.ExitStack) -> dict[str, BinaryIO]:
        logs: dict[str, BinaryIO] = {}
        for name in names:
            if layout.parse_journal_name(name) is not None:
                with contextlib.suppress(FileNotFoundError):  # it was folded: the store file has its rows
                    path = self._source.journal_dir / name
                    logs[name] = opened.enter_context(path.open("rb"))
        return logs

    def _copy_directory(self, source: Path, target: Path) -> None:
        """Copy what is in a directory, but the rows."""
        with os.scandir(source) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            path, place = Path(entry.path), target / entry.name
            if self._is_left_out(path, entry.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                if entry.is_symlink():
                    self._copy_link(path, place)
                elif entry.is_dir(follow_symlinks=False):
                    if place.is_symlink():
                        raise CopyError(f"{place} is a link, and a directory in {source}: remove the link")
                    fs.make_directory(place)
                    self._directories.add(place)
                    self._copy_directory(path, place)
                elif entry.is_file(follow_symlinks=False):
                    self._copy_file(path, place)
                else:
                    self.copy.left_out.append(os.fspath(path.relative_to(self._source.root)))

    def _is_left_out(self, path: Path, name: str) -> bool:
        if name.startswith(layout.TEMPORARY_PREFIX) or path in (
            self._source.store_file,
            self._source.run_file,
            self._source.claims_dir,
        ):
            return True
        if path.parent == self._source.journal_dir:
            return (layout.parse_journal_name(name) or layout.parse_newest_name(name)) is not None
        return path.parent == self._source.meta_dir and name in _LEFT_OUT

    def _copy_link(self, path: Path, place: Path) -> None:
        wanted = path.readlink()
        if not (place.is_symlink() and place.readlink() == wanted):
            fs.replace_file(place, lambda beside: beside.symlink_to(wanted), durable=False)
            self.copy.files += 1

    def _copy_file(self, path: Path, place: Path) -> None:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode) and not self._is_there(about, place):
                staged = self._stage(file, place)
                fs.rename(staged, place)

    def _is_there(self, about: os.stat_result, place: Path) -> bool:
        """Whether a file was copied before, as it is now: what is copied gets the times of the original."""
        try:
            there = place.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(there.st_mode) and (there.st_size, there.st_mtime_ns) == (
            about.st_size,
            about.st_mtime_ns,
        )

    def _stage(self, file: BinaryIO, place: Path) -> Path:
        """Copy a file to a temporary name, and read it again."""
        about = os.fstat(file.fileno())
        staged = fs.temporary_beside(place)
        try:
            with fs.new_file(staged) as out:
                read = _copy_bytes(file, out)
                out.flush()
                os.fsync(out.fileno())
            _check(staged, *read)
            os.utime(staged, ns=(about.st_atime_ns, about.st_mtime_ns))
            staged.chmod(stat.S_IMODE(about.st_mode))
        except BaseException:
            fs.unlink(staged)
            raise
        self.copy.files += 1
        self.copy.bytes += read[0]
        return staged


def _copy_bytes(file: BinaryIO, out: BinaryIO) -> tuple[int, int]:
    """Copy what a file has by now. Returns how many bytes, and their CRC-32."""
    size = checksum = 0
    while piece := file.read(_PIECE):
        out.write(piece)
        size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return size, checksum


def _check(path: Path, size: int, checksum: int) -> None:
    """Read a file again, from the disk if that can be had, and compare."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        there, found = 0, 0
        while piece := file.read(_PIECE):
            there, found = there + len(piece), zlib.crc32(piece, found)
    if (there, found) != (size, checksum):
        raise StorageError(errno.EIO, "what was written is not what is read again: the disk fails", str(path))
