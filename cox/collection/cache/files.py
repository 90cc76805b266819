"""The files of a cache: how they are named, and how they are opened. It may be anybody who put them there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from cox.collection.cache import places
from cox.storage import fs, layout

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
    """A file of this user's to be read.

    Raises:
        OSError: There is none, or something else, or it cannot be read.
        ValueError: It is another user's.
    """
    fd = fs.open_own(path)
    if not places.is_own(os.fstat(fd)):
        os.close(fd)
        raise ValueError(f"{path} belongs to another user")
    return os.fdopen(fd, "rb")
