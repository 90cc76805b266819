"""The first bytes of an HDF5 file, whose checksum HDF5 before 2.0 gets wrong in an image of an open file.

It takes back the mark that the file is open for writing, and leaves the checksum as it was with the mark.
No HDF5 opens a file with such an image.
"""

from __future__ import annotations

import struct

#: Where the checksum is, and what it covers: all before it. Of versions 2 and 3, with addresses of 8 bytes.
_CHECKSUM_AT = 44
_BITS = 0xFFFFFFFF


def sealed(image: bytes) -> bytes:
    """Return an image of a file with the right checksum of its superblock.

    Args:
        image: All bytes of a file, of version 2 or 3, that begins with its superblock.
    """
    checksum = struct.pack("<I", lookup3(image[:_CHECKSUM_AT]))
    stop = _CHECKSUM_AT + len(checksum)
    if image[_CHECKSUM_AT:stop] == checksum:
        return image
    return image[:_CHECKSUM_AT] + checksum + image[stop:]


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash, which HDF5 has for the checksums of what describes data.

    Args:
        data: One byte at least.
    """
    padded = data + bytes(-len(data) % 12)
    words = struct.unpack(f"<{len(padded) // 4}I", padded)
    a = b = c = (0xDEADBEEF + len(data)) & _BITS
    for i in range(0, len(words), 3):
        a, b, c = (a + words[i]) & _BITS, (b + words[i + 1]) & _BITS, (c + words[i + 2]) & _BITS
        if i + 3 < len(words):
            a, b, c = _mixed(a, b, c)
    return _final(a, b, c)


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for shift in (4, 6, 8, 16, 19, 4):  # the three change places, and are back after three or six times
        a = (a - c & _BITS) ^ _rotated(c, shift)
        c = c + b & _BITS
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for shift in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotated(b, shift) & _BITS
        a, b, c = b, c, a
    return b


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _BITS
