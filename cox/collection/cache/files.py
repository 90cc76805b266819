"""The files of a cache: how they are named, and how they are opened. It may be anybody who put them there."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from cox.storage import layout

#: Not to be taken for a file of anything else: it is replaced wherever a link of the cache's name leads.
INDEX_FILE = "index.coxcache"
SEGMENT_SUFFIX = ".rows"

_OWN = re.compile(
    rf"{re.escape(INDEX_FILE)}|[0-9a-f]{{32}}{re.escape(SEGMENT_SUFFIX)}"
    rf"|{re.escape(layout.TEMPORARY_PREFIX)}[0-9a-f]{{32}}"
)


def is_own(name: str) -> bool:
    """Whether a file is named as those of a cache are: nothing else is removed."""
    return _OWN.fullmatch(name) is not None


def opened(path: Path) -> BinaryIO:
    """A file to be read; no pipe, on which one would wait, and no link to a device that never ends.

    Raises:
        OSError: There is none, or it cannot be read.
        ValueError: It is something else.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError(f"{path} is no file")
    return os.fdopen(fd, "rb")
