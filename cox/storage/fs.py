"""The one door to the file system for everything that changes it, and for all files of a run.

Each way to change a file that cox uses is a function here, so that a test can count them, make them
fail, or stop the process between two of them. Nothing here knows what the bytes mean.

A run may be a stranger's: a pipe that nobody writes to, a link to an endless device or to the user's own
files may stand wherever cox has a file. So files of a run are opened by `open_own` and nothing else, and the
directories in which it writes pass `refuse_links`. The run itself, and what is above it, may be links.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cox.errors import DamagedError, IrregularFileError, StorageError
from cox.storage import layout

#: Neither os.fdopen nor the builtin: a finalizer at the end of the program has not got them any more.
_open = io.open
#: How many times in a row a file may be replaced while it is read.
REPLACED_TIMES = 20

#: What every file of a run is opened with: nothing is waited for, and no link is followed.
_OWN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
#: What `open` says of a link, a socket or a pipe without a reader, and a directory.
_IRREGULAR = frozenset({errno.ELOOP, getattr(errno, "EMLINK", 0), errno.ENXIO, errno.EISDIR})
#: Files above this size, in bytes, that fill less than this part of it on the disk, are holes.
_HOLES_FROM, _HOLES = 64 * 1024 * 1024, 1000
#: Of renameat2, which Linux has.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "your quota is used up: free some space and try again",
    errno.EROFS: "the file system is read-only: choose another directory, or open with mode='r'",
    errno.EACCES: "you may not write there: choose another directory, or open with mode='r'",
    errno.EPERM: "you may not write there: choose another directory, or open with mode='r'",
    errno.EMFILE: "too many open files: close stores that are done, or raise `ulimit -n`",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a file stands where the directory should be",
}


#: Of what was to be read.
_READING_REMEDIES = {
    **_REMEDIES,
    **dict.fromkeys((errno.EACCES, errno.EPERM), "you may not read it: its owner can permit it, with chmod"),
}


def refused(
    error: OSError, doing: str, path: str | os.PathLike[str], *, reading: bool = False
) -> StorageError:
    """The error for a user, made of what the operating system said.

    Args:
        error: What the system call raised.
        doing: What was being done, for the sentence: 'cannot write a row'.
        path: The file or directory it was done to.
        reading: Whether it was to be read, and not to be written.
    """
    said = os.strerror(error.errno) if error.errno else str(error)
    remedy = (_READING_REMEDIES if reading else _REMEDIES).get(error.errno or 0)
    message = f"{doing}: {said}" + (f" ({remedy})" if remedy else "")
    return StorageError(error.errno, message, os.fspath(path))


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`.

    A short write is how a full disk first shows: the rest is tried once more, to learn the reason.
    """
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


#: Cut a file off. A plain system call, so that no signal handler comes between it and its arguments.
truncate = os.ftruncate


def sync_data(fd: int) -> None:
    """Have a file's bytes survive the machine."""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)


def sync_directory(path: Path) -> None:
    """Have the names in a directory survive the machine."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(fd)


def sync_directories(path: Path, top: Path) -> None:
    """Have the names in a directory survive the machine, and its own name, and so on up to those in `top`."""
    for directory in (path, *path.parents):
        sync_directory(directory)
        if directory == top:
            break


def sync_file(path: Path) -> None:
    """Have a finished file's bytes survive the machine."""
    fd = open_own(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path, *, durable: bool = False, inside: Path | None = None) -> None:
    """Make a directory and its parents, where they are missing.

    Args:
        path: The directory.
        durable: Whether those that this call makes are to survive the machine.
        inside: One of the parents that is not to be made: a run that somebody removed stays so.

    Raises:
        FileNotFoundError: `inside` is not there.
    """
    if inside is not None:
        for directory in reversed([path, *path.parents[: len(path.relative_to(inside).parts) - 1]]):
            directory.mkdir(exist_ok=True)
        return
    missing = [one for one in (path, *path.parents) if not one.exists()] if durable else []
    path.mkdir(parents=True, exist_ok=True)
    if missing:
        sync_directories(path.parent, missing[-1].parent)


def make_directory(path: Path) -> bool:
    """Make a directory. Returns whether it was this call that made it."""
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def names_in(directory: str | os.PathLike[str]) -> list[str]:
    """The names in a directory; none if it is not there. A `Path` for each would cost as much again."""
    try:
        return os.listdir(directory)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a file of a run: a regular file of that very name. Never waits.

    Returns:
        A descriptor.

    Raises:
        IrregularFileError: A link, a pipe, a directory or a device has that name.
        OSError: The file system refused.
    """
    return open_and_look(path, flags)[0]


def open_and_look(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
    """As `open_own`; returns what the system says of the file, too."""
    try:
        fd = os.open(path, flags | _OWN_FLAGS, 0o666)
    except OSError as error:
        if error.errno in _IRREGULAR and (problem := irregularity(path)):
            raise IrregularFileError(problem) from None
        raise
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        os.close(fd)
        raise IrregularFileError(irregularity(path) or f"{os.fspath(path)} is not a regular file")
    return fd, about


def irregularity(path: str | os.PathLike[str]) -> str:
    """A sentence on what has a name in the place of a regular file; '' for a regular file, or none."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISLNK(mode):
        return _of_link(path, "the file itself")
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a directory", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return f"{os.fspath(path)} is {kind} and not a regular file: remove it"


def refuse_links(*directories: str | os.PathLike[str]) -> None:
    """Refuse directories of a run that are links: what cox writes there would go elsewhere.

    Raises:
        IrregularFileError: One is a link. Names it, and says what to do.
    """
    for directory in directories:
        if os.path.islink(directory):  # noqa: PTH114 - a Path costs as much again
            raise IrregularFileError(_of_link(directory, "the directory itself"))


def _of_link(path: str | os.PathLike[str], instead: str) -> str:
    try:
        target = f" to {os.readlink(path)}"  # noqa: PTH115
    except OSError:
        target = ""
    return (
        f"{os.fspath(path)} is a link{target}: cox follows no links inside of a run, which may be a "
        f"stranger's; put {instead} in its place, or link the whole run"
    )


def read_bytes(path: str | os.PathLike[str], *, most: int | None = None) -> bytes:
    """All bytes that a file of a run has at this moment, and no more, even if it grows meanwhile.

    One that another host replaced or removed meanwhile is opened anew: on a network file system there is no
    reading on in a file that has lost its name.

    Args:
        path: The file.
        most: How many bytes such a file may have.

    Raises:
        IrregularFileError: It is a link, a pipe, a directory or a device.
        DamagedError: It claims to have more bytes than it can have.
        OSError: The file system refused.
    """
    for _ in range(REPLACED_TIMES):
        try:
            return _read_whole(path, most)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return _read_whole(path, most)


def _read_whole(path: str | os.PathLike[str], most: int | None) -> bytes:
    fd, about = open_and_look(path)
    try:
        size = about.st_size
        if most is not None and size > most:
            raise DamagedError(f"{path} has {size} bytes, and such a file has at most {most}")
        if size > _HOLES_FROM and size > _HOLES * 512 * about.st_blocks:
            raise DamagedError(
                f"{path} claims to have {size} bytes, of which {512 * about.st_blocks} are there"
            )
        data = os.read(fd, size)
        while len(data) < size and (more := os.read(fd, size - len(data))):  # of a very long one
            data += more
    finally:
        os.close(fd)
    return data


def open_regular(path: Path) -> BinaryIO:
    """As `open_own`, as a file to read."""
    return _open(open_own(path), "rb")


def show_to_other_hosts(fd: int) -> None:
    """Have other hosts that open the file see what was written to it so far.

    A client of a network file system sends it when a descriptor is closed, whichever it is; elsewhere this
    does nothing.
    """
    os.close(os.dup(fd))


def look_again(directory: Path) -> None:
    """Have a client of a network file system ask which names there are, instead of believing what it knew.

    Opening a directory does that, as opening a file does for its bytes (close-to-open consistency).
    """
    with contextlib.suppress(OSError):  # whoever wants something in it will learn that
        list(directory.iterdir())


def identity(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from another one that has taken its name since; None if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def leads_to(path: Path, fd: int) -> bool:
    """Whether a path leads to an open file. Where the file system does not say, it is believed to."""
    try:
        found, opened = path.stat(), os.fstat(fd)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def is_removed(fd: int) -> bool:
    """Whether an open file has lost its last name."""
    try:
        return os.fstat(fd).st_nlink == 0
    except OSError as error:
        return error.errno == errno.ESTALE


def path_of(fd: int) -> Path | None:
    """Where an open file lies now, under whatever name; None if that cannot be told, or it was removed."""
    try:
        path = Path(f"/proc/self/fd/{fd}").readlink()
    except OSError:
        return None
    return path if leads_to(path, fd) else None


def unlink(path: Path) -> None:
    """Remove a file; a file that is gone already is fine."""
    path.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Give a file its final name, in the place of whatever had it."""
    source.replace(target)


def exchange(fresh: Path, path: Path) -> None:
    """Exchange two directories at once; where there is nothing at `path`, `fresh` gets that name.

    A file system without such a call sees the old directory go before the new one comes.
    """
    if not path.exists():
        fresh.replace(path)
    elif not _exchange_at_once(fresh, path):
        aside = temporary_beside(fresh)
        path.replace(aside)
        fresh.replace(path)
        aside.replace(fresh)


def _exchange_at_once(one: Path, other: Path) -> bool:
    """Exchange two names by one system call. Returns whether there is such a call here."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))


def temporary_beside(path: Path) -> Path:
    """A new name in the same directory, recognisable as unfinished."""
    return path.with_name(f"{layout.TEMPORARY_PREFIX}{uuid.uuid4().hex}")


def replace_file(path: Path, write: Callable[[Path], object], *, durable: bool) -> None:
    """Replace a file whole: written beside, synced, renamed, directory and its parent synced.

    Args:
        path: The file to make or replace.
        write: Makes the new file under the name it is given.
        durable: Whether the new file is to survive the machine once this returns.

    A reader sees the old file or the new one, and a failure leaves the old one and nothing else.
    """
    beside = temporary_beside(path)
    try:
        write(beside)
        if durable:
            sync_file(beside)
        rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unlink(beside)
        raise
    if durable:
        # an fsync says nothing of the directory's own name, which may be as new as the file
        sync_directories(path.parent, path.parent.parent)


def replace_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace a file by these bytes, whole."""
    replace_file(path, lambda beside: write_new(beside, data), durable=durable)


def create_once(path: Path, data: bytes, *, durable: bool = True) -> bool:
    """Make a file with these bytes unless it is there; several processes may try at once.

    Args:
        path: The file.
        data: Its bytes.
        durable: Whether, if a loss of power keeps the name, it keeps the bytes too.

    Returns:
        Whether it was this call that made it.
    """
    beside = temporary_beside(path)
    write_new(beside, data)
    if durable:
        sync_file(beside)
    return link_or_leave(beside, path)


def link_or_leave(finished: Path, path: Path) -> bool:
    """Give a finished file its name unless that is taken; the unfinished name goes either way.

    Returns:
        Whether the name was free.
    """
    try:
        path.hardlink_to(finished)  # fails if the name is taken, and never shows an unfinished file
    except FileExistsError:
        return False
    except OSError:
        if path.exists():
            return False
        rename(finished, path)  # a file system without hard links
    finally:
        with contextlib.suppress(OSError):  # then the next writer sweeps it up
            unlink(finished)
    return True


def link(source: Path, target: Path) -> None:
    """Give a file a second name, so that it stays when its first one is replaced.

    Where the file system has no hard links, that is a copy.
    """
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        replace_file(target, lambda beside: shutil.copy2(source, beside), durable=True)


def keep_aside(source: Path, target: Path) -> Path:
    """Give a file a second name, with a number if there are other files of that name. Returns the name."""
    data, number, path = read_bytes(source), 1, target
    while path.exists():
        if read_bytes(path) == data:
            return path
        number += 1
        path = target.with_name(f"{target.name}-{number}")
    link(source, path)
    sync_directory(path.parent)
    return path


@contextlib.contextmanager
def new_file(path: Path, *, others_write: bool = True) -> Iterator[BinaryIO]:
    """Write a new file, and read it again; a failure removes what there is of it.

    Args:
        path: The file.
        others_write: Whether those whom the umask lets write may write into the file. Without it, the bytes
            that are read from the open file are those that were written to it.
    """
    mode = 0o666 if others_write else 0o644
    file = _open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w+b")
    try:
        with file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            unlink(path)
        raise


def write_new(path: Path, data: bytes) -> None:
    """Make a file with these bytes under a name that is free; a failure removes what there is of it."""
    with new_file(path) as file:
        file.write(data)
