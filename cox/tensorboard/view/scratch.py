"""Temporary directories that go with the process that made them, also if it was killed.

A directory is locked as long as it is in use. Whoever makes one removes those that nobody holds any more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cox.storage import claims

if TYPE_CHECKING:
    from typing_extensions import Self

#: Seconds that a directory without a lock is left alone: its maker may be about to lock it.
_FRESH = 60.0
#: What their names end with, so that nobody else's is taken for one.
_SUFFIX = ".scratch"


class Scratch:
    """A temporary directory. It is there from the beginning, and gone after the block.

    Args:
        prefix: What its name begins with; such that nobody holds are removed.

    Attributes:
        path: Where it is.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, prefix: str) -> None:
        _sweep(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX))
        self._fd = _lock(self.path)

    @property
    def fds(self) -> tuple[int, ...]:
        """What a program needs to inherit so that the directory stays as long as it runs."""
        return () if self._fd is None else (self._fd,)

    def renew(self) -> None:
        """Make it again if it is gone: systems clean up their temporary files."""
        if not self.path.exists():
            self.path.mkdir(0o700)
            self._let_go()
            self._fd = _lock(self.path)

    def remove(self) -> None:
        """Remove it and what is in it. Of links it removes the links. Harmless a second time."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _let_go(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _sweep(prefix: str) -> None:
    before = time.time() - _FRESH
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}????????{_SUFFIX}"):
        try:
            status = path.lstat()
            if status.st_uid == os.getuid() and status.st_mtime < before and (fd := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)
        except OSError:
            continue  # somebody else removed it, or it is no directory


def _lock(path: Path) -> int | None:
    """Hold a directory; None if another process does, or where there are no locks."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if claims.try_lock(fd):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None
