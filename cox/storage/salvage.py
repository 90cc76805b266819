"""What is left of a run: as `snapshot.read`, for a run whose store file cannot be read whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from cox.errors import DamagedError
from cox.storage import hdf5, journal, layout, ownership, runinfo, snapshot


@dataclass(slots=True)
class Remains:
    """What is left of a run.

    Attributes:
        now: Its tables, with the rows that can be read.
        damage: A sentence for each thing in the store file that cannot be; for the journals `now` has them.
        lost: How many rows of a table in the store file are lost, where any are.
    """

    now: snapshot.Snapshot
    damage: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def read(run: layout.RunLayout) -> Remains:
    """Read what can be read of a run. Of one that is whole, that is everything.

    Raises:
        RunNotFoundError: There is no store file, and no journal.
        FormatVersionError: A newer cox wrote it.
        StorageError: The file system refused to give a file out.
    """
    try:
        return Remains(snapshot.read(run))
    except DamagedError as error:
        journals = journal.read_journals(run.journal_dir)
        rescued = hdf5.salvage(run.store_file)
        damage = rescued.damage or [str(error)]
        damage += _rewinds(journals, rescued)
        now = snapshot.replay(rescued.content, journals, run_id=runinfo.id_of(runinfo.read(run)))
        ownership.recount(now.content)
        return Remains(now, damage, rescued.lost)


def _rewinds(journals: list[journal.Journal], rescued: hdf5.Salvage) -> list[str]:
    """Sentences on the rewinds that go by the numbers of rows of which some are lost."""
    found = {}
    for log in journals:
        folded = rescued.content.writers.get(log.writer, {"seq": 0})["seq"]
        for record in log.records:
            if record[0] == journal.REWIND and record[1] >= folded and record[2] in rescued.lost:
                found[record[2]] = (
                    f"table {record[2]!r} was rewound among rows that are lost: none of those that it was to "
                    "drop is back, but others may be gone"
                )
    return list(found.values())
