"""Stored objects, judged by their structure and never rebuilt."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cox
from cox.errors import DamagedError, UntrustedObjectError
from cox.objects import codec, payloads, signing
from cox.objects.signing import NOWHERE


class Trap:
    """What a stranger's pickle does."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was rebuilt",))


@pytest.fixture(params=["plain", "signed", "torch"])
def payload(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "payload"
    if request.param == "torch":
        torch = pytest.importorskip("torch")
        codec.write_torch({"weight": torch.arange(50.0)}, path, NOWHERE)
        return path, "pytorch_state"
    codec.write_pickle({"a": list(range(50))} if request.param == "plain" else Trap, path, NOWHERE)
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
    codec.write_torch({"weight": torch.full((50,), 7.0)}, path, NOWHERE)
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
    assert payloads.flaw_of_cell(codec.to_text(Trap, NOWHERE)) == ""


def test_links_and_directories_are_no_payloads(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(pickle.dumps(1))
    (tmp_path / "link").symlink_to("file")
    assert payloads.flaw_of_file(tmp_path / "link", "pickle") == "no regular file"
    (tmp_path / "zeros").symlink_to("/dev/zero")
    assert payloads.flaw_of_file(tmp_path / "zeros", "pickle") == "no regular file"
    assert payloads.flaw_of_file(tmp_path, "pickle") == "no regular file"


@pytest.mark.parametrize("text", ["", "no base64 at all", "gAVd", "AAAA"])
def test_a_cell_that_is_no_object_has_a_flaw(text: str) -> None:
    assert payloads.flaw_of_cell(codec.to_text([1, {"a": 2.5}], NOWHERE)) == ""
    assert payloads.flaw_of_cell(text)


@pytest.mark.parametrize("column", [cox.PICKLE, cox.PYTORCH_STATE], ids=["pickle", "pytorch_state"])
@pytest.mark.parametrize("damage", ["hole", "cut", "another"])
def test_an_object_whose_bytes_are_not_those_that_were_written_is_refused(
    tmp_path: Path, column: Any, damage: str
) -> None:
    """The bytes of numbers have no checksum in a pickle, nor does torch.load look at those of its archive."""
    value = {"weight": np.arange(100_000.0)}
    if column is cox.PYTORCH_STATE:
        torch = pytest.importorskip("torch")
        value = {"weight": torch.from_numpy(value["weight"])}
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"model": column})
        for _ in range(2):
            table.append_row({"model": value})
            value = {"weight": value["weight"] + 1}
        first, second = table.df["model"]
        get = table.get_pickle if column is cox.PICKLE else table.get_state_dict
        assert float(get(first)["weight"][-1]) == 99_999.0
        path = tmp_path / "run" / ".table_objects" / first
        data = path.read_bytes()
        if damage == "hole":
            data = data[:8192] + bytes(4096) + data[12288:]
        elif damage == "cut":
            data = data[:-1]
        else:
            data = path.with_name(second).read_bytes()
        path.write_bytes(data)
        with pytest.raises(DamagedError, match="table 't'.*not those that were written"):
            get(first)
        kind = "pickle" if column is cox.PICKLE else "pytorch_state"
        assert "checksum" in payloads.flaw_of_file(path, kind)
        assert float(get(second)["weight"][0]) == 1.0


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """To open a pipe that nobody writes to takes for ever."""
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"model": cox.PICKLE})
        table.append_row({"model": 1})
        (cell,) = table.df["model"]
        path = tmp_path / "run" / ".table_objects" / cell
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(UntrustedObjectError, match="not the name of a file of this run"):
            table.get_pickle(cell)
        assert payloads.flaw_of_file(path, "pickle") == "no regular file"
    assert cox.CollectionReader(tmp_path).df("t", keep_serialized=["model"]).shape == (1, 2)
