"""Whether stored objects are whole: nothing is unpickled here.

A file that cox wrote has its checksum in its name. Of one without, as upstream's are, the structure is
looked at: a pickle is walked opcode by opcode up to its STOP, an archive of torch's has checksums of its
own. That finds what was cut off and most of what was changed.
"""

from __future__ import annotations

import base64
import io
import mmap
import os
import pickletools
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

import crc32c

from cox.errors import IrregularFileError
from cox.objects import signing
from cox.schema import KINDS
from cox.storage import fs, layout


def flaw_of_cell(text: str) -> str:
    """What is wrong with an OBJECT cell; '' for nothing."""
    try:
        data = base64.b64decode(text)
    except ValueError as error:
        return f"no base64: {error}"
    return _flaw_of_pickle(io.BytesIO(data))


def flaw_of_file(path: Path, kind: str) -> str:
    """What is wrong with the file of a PICKLE or PYTORCH_STATE cell; '' for nothing.

    Args:
        path: The file.
        kind: The column's kind, 'pickle' or 'pytorch_state'.

    Raises:
        OSError: It cannot be looked into.
    """
    try:
        file = fs.open_regular(path)
    except FileNotFoundError:
        return "missing"
    except IrregularFileError:
        return "no regular file"
    with file:
        if not os.fstat(file.fileno()).st_size:
            return "empty"
        if not has_its_checksum(file, path.name):
            return "not the bytes that were written, by the checksum in its name"
        if KINDS[kind].by_torch and file.read(2) == b"PK":
            return _flaw_of_archive(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # before archives, torch wrote several pickles and then the numbers
            return _flaw_of_pickle(data, alone=not KINDS[kind].by_torch)


def has_its_checksum(file: BinaryIO, name: str) -> bool:
    """Whether an object's file has the bytes that its name says, as far as the name says it.

    Args:
        file: The file, open at its beginning, where it is left.
        name: Its name.
    """
    expected = layout.payload_checksum(name)
    if expected is None:
        return True
    if isinstance(file, io.BytesIO):
        return crc32c.crc32c(file.getvalue()) == expected  # no copy: those that it was made of
    checksum, block = 0, bytearray(1 << 20)
    view = memoryview(block)
    while size := file.readinto(block):  # type: ignore[attr-defined]  # a BufferedReader
        checksum = crc32c.crc32c(view[:size], checksum)
    file.seek(0)
    return checksum == expected


def _flaw_of_pickle(file: IO[bytes] | mmap.mmap, *, alone: bool = True) -> str:
    try:
        for _ in pickletools.genops(file):  # type: ignore[arg-type]  # a map has all that it asks for
            pass
    except Exception as error:  # noqa: BLE001 - damaged bytes make it raise all kinds
        return f"no whole pickle: {error}"
    rest = file.read() if alone else b""
    marks = (signing.MARK, signing.OLD_MARK)
    if rest and not (len(rest) == signing.SIGNATURE_SIZE and rest.startswith(marks)):
        return f"{len(rest)} bytes behind its end are no signature"
    return ""


def _flaw_of_archive(file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:  # noqa: BLE001 - as above
        return f"no whole archive: {error}"
    return f"{damaged!r} in it does not have the checksum that it should" if damaged else ""
