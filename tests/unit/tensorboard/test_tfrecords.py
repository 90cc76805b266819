"""TensorBoard's event files, record by record."""

from __future__ import annotations

import struct

from tensorboardX.record_writer import masked_crc32c

from cox.tensorboard import tfrecords

EVENTS = [b"first", b"x" * 300, bytes(70), b"\xff" * 9]


def record(data: bytes) -> bytes:
    """A record, as TensorFlow describes it and tensorboardX computes it."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        [length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))]
    )


FILE = b"".join(map(record, EVENTS))
ENDS = [sum(len(record(event)) for event in EVENTS[:count]) for count in range(len(EVENTS) + 1)]


def test_whole_records_are_found() -> None:
    found = tfrecords.scan(FILE)
    assert found.good == list(zip(ENDS, ENDS[1:], strict=False))
    assert (found.bad, found.torn) == ([], 0)
    assert tfrecords.scan(b"") == tfrecords.Records()


def test_a_file_cut_off_anywhere_ends_in_a_torn_record() -> None:
    for length in range(len(FILE)):
        found = tfrecords.scan(FILE[:length])
        whole = max(end for end in ENDS if end <= length)
        assert found.bad == []
        assert [stop for _, stop in found.good] == [end for end in ENDS[1:] if end <= whole]
        assert found.torn == length - whole


def test_a_flipped_bit_anywhere_costs_the_record_it_is_in() -> None:
    for at in range(len(FILE)):
        broken = bytearray(FILE)
        broken[at] ^= 1 << at % 8
        found = tfrecords.scan(bytes(broken))
        hit = next(number for number, end in enumerate(ENDS[1:]) if at < end)
        assert found.bad == [(ENDS[hit], ENDS[hit + 1])]
        assert len(found.good) == len(EVENTS) - 1


def test_a_hole_costs_the_records_that_it_touches() -> None:
    broken = FILE[: ENDS[1] + 5] + bytes(ENDS[3] - ENDS[1] - 10) + FILE[ENDS[3] - 5 :]
    found = tfrecords.scan(broken)
    assert found.good == [(ENDS[0], ENDS[1]), (ENDS[3], ENDS[4])]
    assert found.bad == [(ENDS[1], ENDS[3])]


def test_a_long_stretch_of_zeros_is_passed_over_quickly() -> None:
    found = tfrecords.scan(FILE + bytes(2_000_000) + FILE)
    assert len(found.good) == 2 * len(EVENTS)
    assert found.bad == [(len(FILE), len(FILE) + 2_000_000)]
