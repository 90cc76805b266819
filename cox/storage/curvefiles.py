"""What a writer of a run has under `tensorboard/` beside its own event file, and how that is taken back.

`add_scalars` of a SummaryWriter makes a directory with an event file for each of its curves, and
`add_embedding` a directory for each matrix and a list of them, `projector_config.pbtxt`. Files that cox did
not make are left alone, and no link is followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cox.storage import fs, layout

#: The projector's list of embeddings, in the directory of the event file.
PROJECTOR_FILE = "projector_config.pbtxt"
_EMBEDDING_FILES = ("tensors.tsv", "metadata.tsv", "sprite.png")
_ENTRY = "embeddings {\n"
_PLACE = re.compile(r'^tensor_path: "((-?\d+)/([^/"]+))/tensors\.tsv"$', re.MULTILINE)
_RANK = re.compile(r"rank-\d+")


@dataclass(frozen=True, slots=True)
class Embedding:
    """An entry of the projector's list.

    Attributes:
        text: The entry.
        place: The directory of its files, relative to the list's; None for one that cox did not make.
        step: Its step.
    """

    text: str
    place: str | None
    step: int


def event_files(directory: Path, *, deep: bool = False) -> list[Path]:
    """The event files of a directory, in the order in which TensorBoard reads them. No link is followed.

    Args:
        directory: The directory.
        deep: Whether to look into the directories below it, too.
    """
    paths = directory.rglob(layout.EVENT_FILES) if deep else directory.glob(layout.EVENT_FILES)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def subdirectories(place: Path) -> list[Path]:
    """The directories below a writer's own one in which cox made an event file.

    Args:
        place: Where the writer's event files go; `RunLayout.events_dir`.

    Raises:
        OSError: One cannot be listed.
    """
    directories = []

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for path, names, files in os.walk(place, onerror=refuse):
        if path == os.fspath(place) and place.name == layout.TENSORBOARD_DIR:
            names[:] = [name for name in names if not _RANK.fullmatch(name)]  # other writers'
        elif any(map(layout.is_own_event_file, files)):
            directories.append(Path(path))
        names.sort()
    return directories


def remove(place: Path) -> None:
    """Remove what a writer has sent: its event files, and what cox made below them.

    Raises:
        OSError: The file system refused it.
    """
    for path in place.glob(layout.EVENT_FILES):
        if path.is_file():
            fs.unlink(path)
    for directory in subdirectories(place):
        for path in directory.glob(layout.EVENT_FILES):
            if layout.is_own_event_file(path.name):
                fs.unlink(path)
        _remove_empty(directory, place)
    drop_embeddings(place)


def read_embeddings(place: Path) -> list[Embedding]:
    """The embeddings of a writer.

    Raises:
        OSError: Their list cannot be read.
    """
    path = place / PROJECTOR_FILE
    if path.is_symlink() or not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    entries = []
    for part in re.split(f"^(?={_ENTRY})", text, flags=re.MULTILINE):
        found = _PLACE.search(part)
        is_own = found is not None and found[3] not in (".", "..")
        if found is not None and is_own:
            entries.append(Embedding(part, found[1], int(found[2])))
        elif part.strip():
            entries.append(Embedding(part, None, 0))
    return entries


def add_embedding(place: Path, scratch: Path, entry: Embedding) -> None:
    """Move an embedding to its place, with its entry in the list. It takes the place of one of the same name.

    Args:
        place: Where it goes.
        scratch: Where it was made, on the same file system.
        entry: Its entry.

    Raises:
        OSError: The file system refused it.
    """
    if entry.place is None:
        raise ValueError(entry)
    directory = place / entry.place
    fs.make_directories(directory)
    for name in _EMBEDDING_FILES:
        path = scratch / entry.place / name
        if path.exists():
            fs.rename(path, directory / name)
        else:
            fs.unlink(directory / name)
    others = [other for other in read_embeddings(place) if other.place != entry.place]
    write_embeddings(place, [*others, entry])


def write_embeddings(place: Path, entries: Iterable[Embedding]) -> None:
    """Replace the projector's list.

    Raises:
        OSError: The file system refused it.
    """
    text = "".join(entry.text for entry in entries)
    if text:
        fs.replace_bytes(place / PROJECTOR_FILE, text.encode("utf-8", "surrogateescape"))
    else:
        fs.unlink(place / PROJECTOR_FILE)


def drop_embeddings(place: Path, step: int | None = None) -> None:
    """Remove embeddings that cox made, with their files.

    Args:
        place: Where they are.
        step: Those from this step on; None for all.

    Raises:
        OSError: The file system refused it.
    """
    entries = read_embeddings(place)
    later = [entry for entry in entries if entry.place and (step is None or entry.step >= step)]
    if not later:
        return
    write_embeddings(place, (entry for entry in entries if entry not in later))
    for directory in {place / entry.place for entry in later if entry.place}:
        if not directory.is_symlink() and not directory.parent.is_symlink():
            for name in _EMBEDDING_FILES:
                fs.unlink(directory / name)
            _remove_empty(directory, place)


def _remove_empty(directory: Path, place: Path) -> None:
    """Remove a directory, and those above it up to `place`, as far as nothing is in them."""
    for path in (directory, *directory.parents):
        if path == place:
            return
        try:
            path.rmdir()
        except OSError:  # somebody else has something in it
            return
