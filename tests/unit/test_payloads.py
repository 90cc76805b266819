"""Stored objects, judged by their structure and never rebuilt."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from cox import objects, payloads, signing


class Trap:
    """What a stranger's pickle does."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was rebuilt",))


@pytest.fixture(params=["plain", "signed", "torch"])
def payload(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "payload"
    if request.param == "torch":
        torch = pytest.importorskip("torch")
        objects.write_torch({"weight": torch.arange(50.0)}, path)
        return path, "pytorch_state"
    objects.write_pickle({"a": list(range(50))} if request.param == "plain" else Trap, path)
    return path, "pickle"


def test_what_is_whole_has_no_flaw(payload: tuple[Path, str]) -> None:
    assert payloads.flaw_of_file(*payload) == ""


def test_what_is_cut_off_has_a_flaw(payload: tuple[Path, str]) -> None:
    path, kind = payload
    data = path.read_bytes()
    unsigned = len(data) - signing.SIGNATURE_SIZE  # a pickle by itself is one that nobody vouches for
    for length in range(0, len(data), max(1, len(data) // 60)):
        if length == unsigned:
            continue
        path.write_bytes(data[:length])
        assert payloads.flaw_of_file(path, kind), f"the first {length} of {len(data)} bytes"
    path.unlink()
    assert payloads.flaw_of_file(path, kind) == "missing"


def test_a_changed_byte_in_a_tensor_is_seen(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "state"
    objects.write_torch({"weight": torch.full((50,), 7.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\xe0\x40" * 10) + 3] ^= 1
    path.write_bytes(data)
    assert "checksum" in payloads.flaw_of_file(path, "pytorch_state")


def test_bytes_behind_a_pickle_are_a_signature_or_a_flaw(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(pickle.dumps([1]) + b"garbage")
    assert "7 bytes behind its end" in payloads.flaw_of_file(path, "pickle")


def test_nothing_is_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(pickle.dumps(Trap()))
    assert payloads.flaw_of_file(path, "pickle") == ""
    assert payloads.flaw_of_cell(objects.to_text(Trap)) == ""


def test_links_and_directories_are_no_payloads(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(pickle.dumps(1))
    (tmp_path / "link").symlink_to("file")
    assert payloads.flaw_of_file(tmp_path / "link", "pickle") == "no regular file"
    (tmp_path / "zeros").symlink_to("/dev/zero")
    assert payloads.flaw_of_file(tmp_path / "zeros", "pickle") == "no regular file"
    assert payloads.flaw_of_file(tmp_path, "pickle") == "no regular file"


@pytest.mark.parametrize("text", ["", "no base64 at all", "gAVd", "AAAA"])
def test_a_cell_that_is_no_object_has_a_flaw(text: str) -> None:
    assert payloads.flaw_of_cell(objects.to_text([1, {"a": 2.5}])) == ""
    assert payloads.flaw_of_cell(text)
