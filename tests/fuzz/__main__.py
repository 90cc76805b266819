"""`python -m tests.fuzz journal|store|structure|pickle [SECONDS]`: fuzz a reader with atheris.

What comes out of a reader is rows, warnings of cox, or errors of cox. All else is a finding; its input is
kept in the directory that is printed first.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cox"]):
    from cox import safe_pickle
    from cox.storage import journal, layout, salvage, snapshot

import h5py

from cox.errors import CoxError, CoxWarning
from tests import structure
from tests.structure import make_run

SALT = 7


def read_all(run: layout.RunLayout) -> None:
    """Whatever reading can come to. Nothing but errors and warnings of cox is let out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CoxWarning)
        with contextlib.suppress(CoxError):
            now = snapshot.read(run)
            now.warn(run.root)
            for table in now.tables.values():
                for column in table.schema:
                    table.column(column)


def journals(folder: Path) -> Callable[[bytes], None]:
    """Records with good checksums and any payload; or any bytes behind a good header."""
    run = make_run(folder)
    path = run.journal_file("main", SALT)

    def one(data: bytes) -> None:
        if data[:1] > b"\x7f":
            path.write_bytes(journal.HEADER_1 + data[1:])
        else:
            records, rest = [], data[1:]
            while rest:
                size, rest = rest[0], rest[1:]
                payload, rest = rest[:size], rest[size:]
                head = struct.pack("<II", len(payload), zlib.crc32(payload, SALT))
                records.append(journal.MARK + head + payload)
            path.write_bytes(journal.HEADER_1 + b"".join(records))
        read_all(run)

    return one


def stores(folder: Path) -> Callable[[bytes], None]:
    """A good store file with some bytes changed: offset and new byte, three bytes a change."""
    run = make_run(folder)
    good = run.store_file.read_bytes()

    def one(data: bytes) -> None:
        changed = bytearray(good)
        for at in range(0, len(data) - 2, 3):
            changed[int.from_bytes(data[at : at + 2], "little") % len(good)] = data[at + 2]
        run.store_file.write_bytes(changed)
        read_all(run)

    return one


def structures(folder: Path) -> Callable[[bytes], None]:
    """A good store file with other attributes, datasets and groups in it: two bytes for each change."""
    run = make_run(folder)
    good, changes = run.store_file.read_bytes(), list(structure.MUTATIONS.items())

    def one(data: bytes) -> None:
        run.store_file.write_bytes(good)
        with contextlib.suppress(Exception), h5py.File(run.store_file, "r+", locking=False) as file:
            changed = set()
            for i in range(0, min(len(data), 12) - 1, 2):  # where one leaves nothing for the next, it is done
                name, change = changes[int.from_bytes(data[i : i + 2], "little") % len(changes)]
                what = name.partition(":")[0]
                if what not in changed:  # HDF5 takes seconds to replace a long attribute
                    changed.add(what)
                    change(file)
        read_all(run)
        with contextlib.suppress(CoxError):
            salvage.read(run)

    return one


def pickles(folder: Path) -> Callable[[bytes], None]:
    """The allow-list unpickler: a value, a refusal, or an error of unpickling; and nothing happens."""

    def one(data: bytes) -> None:
        with contextlib.suppress(Exception):  # an unpickler may raise anything; it may do nothing
            safe_pickle.loads(data)

    return one


TARGETS = {"journal": journals, "store": stores, "structure": structures, "pickle": pickles}


def main() -> None:
    """Run one target for a time."""
    target, seconds = sys.argv[1], int(float(sys.argv[2]) if len(sys.argv) > 2 else 60)
    folder = Path(tempfile.mkdtemp(prefix=f"cox-fuzz-{target}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    if target == "journal":
        for number, payload in enumerate(_examples()):
            (corpus / str(number)).write_bytes(payload)
    one = TARGETS[target](folder / "runs")
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-rss_limit_mb=4096", "-timeout=20"]
    print(json.dumps({"target": target, "seconds": seconds, "findings go to": os.fspath(folder)}), flush=True)
    atheris.Setup([sys.argv[0], *flags, os.fspath(corpus)], one)
    atheris.Fuzz()


def _examples() -> list[bytes]:
    """Inputs to begin with, made of the records of a real journal."""
    import msgspec

    encode = msgspec.msgpack.encode
    columns = [["step", "int", False], ["text", "str", False]]
    table, row, rewind = [1, 0, 0, "t", columns], [0, 1, 0, 0, 5, "x"], [2, 2, "t", 1]
    payloads = [[table], [table, row], [table, row, rewind], [rewind, table, row]]
    return [b"\x00" + b"".join(bytes([len(encode(p))]) + encode(p) for p in some) for some in payloads]


if __name__ == "__main__":
    main()
