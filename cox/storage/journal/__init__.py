"""The append-only log of one writer: the truth about a run's newest rows.

`format` is what a journal is made of, `reading` reads all of a run's, `writing` is the writer's own. Whoever
only reads loads neither that nor `compiled`, the fast way of a row into it; and `columnar`, the fast way out,
only where there is a journal.
"""

from cox.storage.journal.format import (
    COLUMN,
    HEAD_SIZE,
    HEADER_1,
    MARK,
    MOST_RECORDS,
    REWIND,
    ROW,
    TABLE,
    VERSION,
    Header,
    decode,
    pack_head,
)
from cox.storage.journal.reading import Journal, ReadRows, parse, read_journals

__all__ = [
    "COLUMN",
    "HEADER_1",
    "HEAD_SIZE",
    "MARK",
    "MOST_RECORDS",
    "REWIND",
    "ROW",
    "TABLE",
    "VERSION",
    "Header",
    "Journal",
    "ReadRows",
    "decode",
    "pack_head",
    "parse",
    "read_journals",
]
