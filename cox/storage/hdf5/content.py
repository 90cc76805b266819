"""What a store file holds, and the names in it that reading and writing agree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cox.storage.columns import Part, TableData

VERSION = 2
RUN_ATTRIBUTE = "COX_RUN"
#: CRC-32 of the former's text, where that is so long that HDF5 keeps it outside of what it has checksums on.
CHECKSUM_ATTRIBUTE = "COX_RUN_CRC32"
CHECKSUM_FROM = 32 * 1024
UPSTREAM_ATTRIBUTE = "COX_DATA"
SIDECAR_GROUP = "_cox"

#: Tables with rows wider than memory likes are read and written in slices of this many bytes.
SLICE_BYTES = 32 * 1024 * 1024


@dataclass(slots=True)
class StoreFile:
    """What a store file holds.

    Attributes:
        tables: By name, in the order they were made. Without parts, if only the header was read.
        nrows: Rows of each table.
        writers: For each writer, the sequence number up to which its journal is in here, and how many
            rows of each table are its own.
        folded_bytes: Bytes of journal that went into the file so far.
        run_id: The id of the run; None in a file of upstream's, or of version 1.
        foreign: The paths of what else lies in the file: put there by the user, and kept.
        stored: For tables with all rows by cox, these rows as they were read. While a table begins with
            these very parts, its rows are in the file already.
    """

    tables: dict[str, TableData] = field(default_factory=dict)
    nrows: dict[str, int] = field(default_factory=dict)
    writers: dict[str, Any] = field(default_factory=dict)
    folded_bytes: int = 0
    run_id: str | None = None
    foreign: list[str] = field(default_factory=list)
    stored: dict[str, list[Part]] = field(default_factory=dict)
