"""Which journals of a writer are its newest ones: said outside of them, for copies of a run that lack them.

cp, tar and rsync list a directory first and read its files later. Of a run that is folded in between they
get the old store file, while the journal whose rows went into the new one is gone. Such a copy looks like an
older state of the run; but it has this word on what is missing: an empty file beside the journals, made after
a journal and before the first record goes into it. All that it says is its name, so that who lists the
journals has read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cox.storage import fs, layout


@dataclass(frozen=True, slots=True)
class Newest:
    """A writer's newest journal.

    Attributes:
        writer: The writer.
        salt: The journal's salt.
        seq: The sequence number of its first record.
    """

    writer: str
    salt: int
    seq: int

    @property
    def journal(self) -> str:
        """The name of the journal."""
        return layout.journal_name(self.writer, self.salt)

    def path(self, run: layout.RunLayout) -> Path:
        """The file that says so."""
        return run.journal_dir / layout.newest_name(self.writer, self.salt, self.seq)

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


def write(run: layout.RunLayout, newest: Newest) -> None:
    """Say which journal a writer has begun.

    What was said of the one before stays: a listing of the directory that is under way may miss the new name.
    """
    os.close(fs.open_own(newest.path(run), os.O_WRONLY | os.O_CREAT))
    others = [other for other in read(run) if other.writer == newest.writer]
    before = max((other.seq for other in others if other.seq <= newest.seq and other != newest), default=None)
    for other in others:
        if other != newest and other.seq != before:
            fs.unlink(other.path(run))


def read(run: layout.RunLayout) -> list[Newest]:
    """The newest journals of each writer."""
    return among(fs.names_in(run.journal_dir))


def among(names: Iterable[str]) -> list[Newest]:
    """The newest journals of each writer, by the names in the directory of journals; older ones first."""
    parsed = [layout.parse_newest_name(name) for name in names]
    return sorted((Newest(*known) for known in parsed if known is not None), key=lambda newest: newest.seq)


def forget(run: layout.RunLayout, journal: str) -> None:
    """Take it back for a journal that goes without having had a record."""
    for newest in read(run):
        if newest.journal == journal:
            fs.unlink(newest.path(run))
