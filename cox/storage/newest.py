"""Which journal is a writer's newest: said outside of the journals, for copies of a run that lack it.

cp, tar and rsync list a directory first and read its files later. Of a run that is folded in between they
get the old store file, while the journal whose rows went into the new one is gone. Such a copy looks like an
older state of the run; but it has this word on what is missing. It is written after a journal was made and
before the first record goes into it, and it is read before the journals are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cox.storage import fs, layout


@dataclass(frozen=True, slots=True)
class Newest:
    """A writer's newest journal.

    Attributes:
        writer: The writer.
        journal: The file's name.
        seq: The sequence number of its first record.
    """

    writer: str
    journal: str
    seq: int

    def missing(self, seq: int) -> str:
        """A sentence for a run that lacks it.

        Args:
            seq: The sequence number up to which the run has this writer's records.
        """
        before = f", and {self.seq - seq} records before them" if self.seq > seq else ""
        return (
            f"the journal {self.journal} is missing, and the newest rows with it{before}: it was removed, or "
            "the run was copied while it was written (copy it again; `cox copy` misses nothing)"
        )


class _About(msgspec.Struct):
    """What the file says."""

    journal: str
    seq: int


_decode = msgspec.json.Decoder(_About).decode


def write(run: layout.RunLayout, newest: Newest) -> None:
    """Say which journal a writer has begun."""
    about = {"journal": newest.journal, "seq": newest.seq}
    fs.replace_bytes(run.newest_file(newest.writer), json.dumps(about).encode())


def files(run: layout.RunLayout) -> list[Path]:
    """The files that say so, one for each writer that did."""
    return [run.newest_file(writer) for writer in _writers(run)]


def read(run: layout.RunLayout) -> list[Newest]:
    """Each writer's newest journal. Has to be called before the journals are read."""
    return [newest for writer in _writers(run) if (newest := _read(run, writer)) is not None]


def _writers(run: layout.RunLayout) -> list[str]:
    names = fs.names_in(run.inside(layout.META_DIR))
    return [writer for name in names if (writer := layout.parse_newest_name(name)) is not None]


def _read(run: layout.RunLayout, writer: str) -> Newest | None:
    path = run.inside(f"{layout.META_DIR}/{writer}{layout.NEWEST_SUFFIX}")
    try:
        about = _decode(fs.read_bytes(path))
    except (OSError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None  # it was not synced before a loss of power, say: no row depends on it
    known = layout.parse_journal_name(about.journal) is not None
    return Newest(writer, about.journal, about.seq) if known else None


def forget(run: layout.RunLayout, writer: str, journal: str) -> None:
    """Take it back for a journal that goes without having had a record."""
    newest = _read(run, writer)
    if newest is not None and newest.journal == journal:
        fs.unlink(run.newest_file(writer))
