"""A network file system in miniature: `python -m tests.crash.nfs SERVER MOUNT none|local`, through FUSE.

SERVER is a directory that stands for the server, and each mount of it for a client on a host of its own. As
with NFS, a client

* believes lists of names, the lack of a name, sizes and times for a while (`BELIEVED`), whatever others do;
  it asks anew when it opens a file that it knows of, or a directory, and about a directory in which it
  changed something;
* keeps what is written to itself until the file is synced or closed, or some time has passed (`KEPT`);
* loses that if it dies: kill this process;
* reads no further in a file that another client removed or replaced (ESTALE), and gives a file that it
  removes itself while it is open another name until it is closed (libfuse's own silly rename);
* has no locks at all ('none'), or locks that reach no further than itself ('local').
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mfusepy

#: Seconds that names and attributes are believed.
BELIEVED = 0.3
#: Seconds after which written bytes go to the server by themselves, with the next call.
KEPT = 0.5

_ATTRIBUTES = ("st_gid", "st_ino", "st_mode", "st_nlink", "st_size", "st_uid")
_TIMES = ("st_atime", "st_ctime", "st_mtime")


@dataclass
class Unsent:
    """What a client has written to one file, and the server has not got."""

    fd: int
    since: float = field(default_factory=time.monotonic)
    writes: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The file must be at least this long."""
        return max(offset + len(data) for offset, data in self.writes)


class Client(mfusepy.Operations):  # type: ignore[misc]
    """Hands calls on to the server's directory, as one NFS client would. For one thread."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._unsent: dict[int, Unsent] = {}
        self._believed: dict[str, tuple[float, Any]] = {}
        self.use_ns = True

    def _at(self, path: str) -> str:
        return self._server + path

    def _send(self, inode: int) -> None:
        unsent = self._unsent.pop(inode, None)
        if unsent is not None:
            for offset, data in unsent.writes:
                os.pwrite(unsent.fd, data, offset)
            os.close(unsent.fd)
            for what in [what for what, (_, found) in self._believed.items() if _is_of(found, inode)]:
                del self._believed[what]

    def _known(self, what: str, ask: Callable[[], Any]) -> Any:
        """What the server said of something, a while ago perhaps."""
        until, found = self._believed.get(what, (0.0, None))
        if time.monotonic() > until:
            try:
                found = ask()
            except FileNotFoundError as error:
                found = error
            self._believed[what] = time.monotonic() + BELIEVED, found
        if isinstance(found, FileNotFoundError):
            raise found
        return found

    def _forget(self, *paths: str) -> None:
        """What a client changes makes the server say that the directory is another one than it was."""
        folders = {os.path.dirname(path) for path in paths}
        for what in [what for what in self._believed if what in paths or os.path.dirname(what) in folders]:
            del self._believed[what]

    def _send_what_is_old(self) -> None:
        for inode, unsent in list(self._unsent.items()):
            if time.monotonic() - unsent.since > KEPT:
                self._send(inode)

    def _inode(self, fd: int) -> int:
        found = os.fstat(fd)
        if not found.st_nlink:
            self._believed.clear()
            raise mfusepy.FuseOSError(errno.ESTALE)
        return found.st_ino

    # --- Files

    def create(self, path: str, mode: int, file: Any) -> int:
        self._forget(path)
        file.fh = os.open(self._at(path), os.O_RDWR | os.O_CREAT | file.flags & os.O_EXCL, mode)
        return 0

    def open(self, path: str, file: Any) -> int:
        self._forget(path)
        writes = file.flags & os.O_ACCMODE != os.O_RDONLY
        file.fh = os.open(self._at(path), (os.O_RDWR if writes else os.O_RDONLY) | file.flags & os.O_TRUNC)
        self._forget(f"{os.fstat(file.fh).st_ino}")
        return 0

    def read(self, path: str, size: int, offset: int, file: Any) -> bytes:
        fh = file.fh
        unsent = self._unsent.get(self._inode(fh))
        if unsent is None:
            return os.pread(fh, size, offset)
        whole = bytearray(max(os.fstat(fh).st_size, unsent.end))
        known = os.pread(fh, len(whole), 0)
        whole[: len(known)] = known
        for start, data in unsent.writes:
            whole[start : start + len(data)] = data
        return bytes(whole[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, file: Any) -> int:
        fh = file.fh
        inode = self._inode(fh)
        self._forget(path, f"{inode}")
        if inode not in self._unsent:
            self._unsent[inode] = Unsent(os.dup(fh))
        self._unsent[inode].writes.append((offset, data))
        self._send_what_is_old()
        return len(data)

    def truncate(self, path: str, length: int, file: Any = None) -> None:
        self._forget(path)
        where: Any = self._at(path) if file is None else file.fh
        self._send(os.stat(where).st_ino)
        os.truncate(where, length)

    def flush(self, path: str, file: Any) -> int:
        self._send(os.fstat(file.fh).st_ino)
        return 0

    def fsync(self, path: str, datasync: int, file: Any) -> int:
        return self.flush(path, file)

    def release(self, path: str, file: Any) -> int:
        self.flush(path, file)
        os.close(file.fh)
        return 0

    # --- Names and attributes

    def getattr(self, path: str, file: Any = None) -> dict[str, Any]:
        self._send_what_is_old()
        if file is None:
            found = self._known(path, lambda: os.lstat(self._at(path)))
        else:
            found = self._known(f"{self._inode(file.fh)}", lambda: os.fstat(file.fh))
        made = {name: getattr(found, name) for name in _ATTRIBUTES}
        made.update({name: getattr(found, f"{name}_ns") for name in _TIMES})
        unsent = self._unsent.get(found.st_ino)
        if unsent is not None:
            made["st_size"] = max(found.st_size, unsent.end)
            made["st_mtime"] = time.time_ns()
        return made

    def opendir(self, path: str) -> int:
        self._forget(path.rstrip("/") + "/*")
        return 0

    def readdir(self, path: str, file: Any) -> list[str]:
        return [".", "..", *self._known(path.rstrip("/") + "/*", lambda: os.listdir(self._at(path)))]

    def access(self, path: str, amode: int) -> int:
        return 0

    def mkdir(self, path: str, mode: int) -> None:
        self._forget(path)
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: str) -> None:
        self._forget(path)
        os.rmdir(self._at(path))

    def unlink(self, path: str) -> None:
        self._forget(path)
        os.unlink(self._at(path))

    def rename(self, old: str, new: str) -> None:
        self._forget(old, new)
        os.rename(self._at(old), self._at(new))

    def link(self, target: str, source: str) -> None:
        self._forget(target, source)
        os.link(self._at(source), self._at(target))

    def chmod(self, path: str, mode: int) -> None:
        self._forget(path)
        os.chmod(self._at(path), mode)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._forget(path)
        os.utime(self._at(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._server)
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}

    def flock(self, path: str, file: Any, op: int) -> int:
        raise mfusepy.FuseOSError(errno.ENOLCK)


def _is_of(found: Any, inode: int) -> bool:
    return isinstance(found, os.stat_result) and found.st_ino == inode


class ClientWithLocks(Client):
    """Leaves locks to the kernel, which keeps them on this host."""

    flock = mfusepy.Operations.flock  # one that is not there


def main(server: str, mount: str, locks: str) -> None:
    """Serve until the mount is taken down."""
    kind = {"none": Client, "local": ClientWithLocks}[locks]
    not_the_kernel = {f"{what}_timeout": 0 for what in ("attr", "entry", "negative")}
    mfusepy.FUSE(
        kind(str(Path(server).resolve())),
        mount,
        foreground=True,
        nothreads=True,
        raw_fi=True,
        **not_the_kernel,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
