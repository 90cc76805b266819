"""Where the cache of a folder is: beside its runs or, where others might change it, in the user's own place.

What is in a cache is believed. So it must be this user's, in a directory that nobody else may write to: a
folder that several people share may have a `.cox-cache` that one of them made up, or that is a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from cox.storage import layout

_WRITABLE_BY_OTHERS = 0o022


def of_reading(folder: Path) -> Path | None:
    """The directory with what is known of a folder; None if there is none that can be believed."""
    return next((place for place in (_beside(folder), _private(folder)) if place and is_safe(place)), None)


def of_saving(folder: Path) -> Path | None:
    """The directory to keep in what was read of a folder, made if it is missing; None if there can be none.

    Raises:
        OSError: It cannot be made.
    """
    beside, private = _beside(folder), _private(folder)
    with contextlib.suppress(OSError):  # it is there, or the folder is somebody else's
        beside.mkdir(0o700)
    if is_safe(beside) and os.access(beside, os.W_OK):
        return beside
    if private is None:
        return None
    private.parent.parent.mkdir(parents=True, exist_ok=True)
    for directory in (private.parent, private):
        directory.mkdir(0o700, exist_ok=True)
        if not is_safe(directory):
            return None
    return private


def there(folder: Path) -> list[Path]:
    """The directories that a folder's cache may take room in: those of this user's, and no links."""
    places = [place for place in (_beside(folder), _private(folder)) if place]
    return [place for place in places if place.is_dir() and not place.is_symlink()]


def is_safe(directory: Path) -> bool:
    """Whether a directory is this user's, and nobody else may write to it."""
    try:
        about = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and is_own(about) and not about.st_mode & _WRITABLE_BY_OTHERS


def is_own(about: os.stat_result) -> bool:
    """Whether something belongs to this user."""
    return about.st_uid == os.geteuid()


def _beside(folder: Path) -> Path:
    return folder / layout.CACHE_DIR


def _private(folder: Path) -> Path | None:
    """A directory for a folder in $XDG_CACHE_HOME/cox or ~/.cache/cox; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - the standard says to ignore it then
        base = os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.home() raises without one
    try:
        about = folder.stat()
    except OSError:
        return None
    if not os.path.isabs(base):  # noqa: PTH117
        return None
    key = f"{os.path.realpath(folder)}\0{about.st_dev}\0{about.st_ino}"
    return Path(base, "cox", hashlib.sha256(os.fsencode(key)).hexdigest()[:32])
