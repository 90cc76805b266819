"""What is trusted, and by whom."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from cox.errors import DamagedError, MissingExtraError, RebuildError, StorageError, UntrustedObjectError
from cox.objects import codec, signing
from cox.objects.signing import Origin
from cox.objects.trust import Place, Trust, read_vouched, vouch
from cox.storage import layout, runinfo

WHERE = Place("t", ("o",), "column 'o' of table 't' in run r")
ORIGIN = Origin("", "t", "o")


class Own:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.fixture
def nobody() -> Trust:
    return Trust()


@pytest.fixture
def run(tmp_path: Path) -> layout.RunLayout:
    made = layout.RunLayout(tmp_path / "run")
    made.objects_dir.mkdir(parents=True)
    return made


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is read from here on is read by somebody else."""
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "stranger"))
    return tmp_path / "stranger"


# --- Cells


def test_plain_data_carries_no_signature_and_makes_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Trust
) -> None:
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "fresh"))
    data = codec.to_bytes({"a": [1, 2]}, ORIGIN)
    assert signing.MARK not in data
    assert codec.from_bytes(data, nobody, WHERE) == {"a": [1, 2]}
    assert not (tmp_path / "fresh").exists()


def test_own_objects_are_signed_after_the_pickles_end(nobody: Trust) -> None:
    data = codec.to_bytes(Own(5), ORIGIN)
    assert data[-signing.SIGNATURE_SIZE :].startswith(signing.MARK)
    assert pickle.loads(data).x == 5  # other readers do not look there
    assert codec.from_bytes(data, nobody, WHERE).x == 5


def test_what_a_script_defines_is_stored_by_value(nobody: Trust) -> None:
    class Local(Own):
        def doubled(self) -> int:
            return self.x * 2

    for value in (Local(5), [Local(5)], lambda: Local(5)):
        made = codec.from_bytes(codec.to_bytes(value, ORIGIN), nobody, WHERE)
        made = made[0] if isinstance(made, list) else made
        made = made() if not hasattr(made, "doubled") else made
        assert made.doubled() == 10


@pytest.mark.parametrize("at", [0, 1, 10, -1, -signing.SIGNATURE_SIZE, -signing.SIGNATURE_SIZE - 1])
def test_one_changed_byte_breaks_the_trust(nobody: Trust, at: int) -> None:
    data = bytearray(codec.to_bytes(Own(5), ORIGIN))
    data[at] ^= 1
    with pytest.raises((UntrustedObjectError, DamagedError)):
        codec.from_bytes(bytes(data), nobody, WHERE)


def test_a_signature_is_good_for_its_own_object_only(nobody: Trust) -> None:
    one, other = codec.to_bytes(Own(1), ORIGIN), codec.to_bytes(Own(2), ORIGIN)
    for forged in (
        one[: -signing.SIGNATURE_SIZE] + other[-signing.SIGNATURE_SIZE :],
        one[: -signing.SIGNATURE_SIZE],
        one[:-1],
        one + b"x",
        pickle.dumps(Own(1)) + signing.MARK + bytes(32),
        pickle.dumps(Own(1)) + one,
    ):
        with pytest.raises(UntrustedObjectError):
            codec.from_bytes(forged, nobody, WHERE)


def test_the_refusal_names_the_cell_the_class_and_the_remedies(nobody: Trust, stranger: Path) -> None:
    data = pickle.dumps(Own(5))
    with pytest.raises(UntrustedObjectError) as refused:
        codec.from_bytes(data, nobody, WHERE)
    for told in (WHERE.where, "Own", "allow_pickle=True", "cox trust", "COX_ALLOW_PICKLE"):
        assert told in str(refused.value)


def test_another_users_secret_signs_nothing_for_me(
    nobody: Trust, stranger: Path, monkeypatch: pytest.MonkeyPatch, own_configuration: Path
) -> None:
    data = codec.to_bytes(Own(5), ORIGIN)  # by the stranger
    assert codec.from_bytes(data, nobody, WHERE).x == 5
    monkeypatch.setenv("COX_CONFIG_HOME", os.fspath(own_configuration))
    with pytest.raises(UntrustedObjectError):
        codec.from_bytes(data, nobody, WHERE)


def test_allow_pickle_and_the_variable_vouch_for_everything(
    monkeypatch: pytest.MonkeyPatch, nobody: Trust
) -> None:
    data = pickle.dumps(Own(5))
    assert codec.from_bytes(data, Trust(allow_pickle=True), WHERE).x == 5
    for value, trusted in (("1", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv("COX_ALLOW_PICKLE", value)
        if trusted:
            assert codec.from_bytes(data, nobody, WHERE).x == 5
        else:
            with pytest.raises(UntrustedObjectError):
                codec.from_bytes(data, nobody, WHERE)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\x80\x05", b"\x80\x05K\x01", b"(lp0\n", b"\x80\xff.", b"0.", b"q\x01."]
)
def test_what_is_no_pickle_is_damaged(nobody: Trust, data: bytes) -> None:
    with pytest.raises(DamagedError, match="column 'o'"):
        codec.from_bytes(data, nobody, WHERE)
    with pytest.raises(DamagedError):
        codec.from_bytes(data, Trust(allow_pickle=True), WHERE)


def test_text_is_base64_of_the_pickle(nobody: Trust) -> None:
    text = codec.to_text({"a": 1}, ORIGIN)
    assert text.isascii()
    assert pickle.loads(base64.b64decode(text)) == {"a": 1}
    assert codec.from_text(text, nobody, WHERE) == {"a": 1}
    for wrong in ("é", "a", "=", "not base64!"):
        with pytest.raises(DamagedError, match="column 'o'"):
            codec.from_text(wrong, nobody, WHERE)


def test_what_nothing_can_store_raises() -> None:
    with pytest.raises(TypeError, match="generator"):
        codec.to_bytes((n for n in range(3)), ORIGIN)


# --- Files


def test_files_follow_the_same_rule(
    run: layout.RunLayout, nobody: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_file, own_file = run.objects_dir / "plain", run.objects_dir / "own"
    codec.write_pickle({"a": 1}, plain_file, ORIGIN)
    codec.write_pickle(Own(5), own_file, ORIGIN)
    assert signing.MARK not in plain_file.read_bytes()
    assert codec.read_pickle(plain_file, nobody, WHERE) == {"a": 1}
    assert codec.read_pickle(own_file, nobody, WHERE).x == 5
    with own_file.open("r+b") as file:
        file.seek(-50, os.SEEK_END)
        byte = file.read(1)
        file.seek(-50, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises((UntrustedObjectError, DamagedError)):
        codec.read_pickle(own_file, nobody, WHERE)


def test_a_file_is_signed_in_blocks(
    run: layout.RunLayout, nobody: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_BLOCK", 7)
    path = run.objects_dir / "own"
    codec.write_pickle([Own(5), b"x" * 1000], path, ORIGIN)
    assert codec.read_pickle(path, nobody, WHERE)[0].x == 5
    monkeypatch.undo()
    assert signing.is_signed(signing.sealed(io.BytesIO(path.read_bytes())), [ORIGIN])


def test_what_fails_half_way_leaves_no_file(run: layout.RunLayout) -> None:
    with pytest.raises(TypeError, match="generator"):
        codec.write_pickle([b"x" * 10_000, (n for n in range(3))], run.objects_dir / "x", ORIGIN)
    assert list(run.objects_dir.iterdir()) == []


def test_what_is_no_file_of_the_run_is_not_opened(
    run: layout.RunLayout, nobody: Trust, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_bytes(pickle.dumps("stolen"))
    (run.objects_dir / "link").symlink_to(tmp_path / "outside")
    for path in (run.objects_dir / "link", tmp_path / "outside"):
        with pytest.raises(UntrustedObjectError, match="not the name of a file"):
            codec.read_pickle(path, nobody, WHERE)
    with pytest.raises(DamagedError, match="missing"):
        codec.read_pickle(run.objects_dir / "missing", nobody, WHERE)


# --- The list of `cox trust`


def test_a_run_vouched_for_is_read(run: layout.RunLayout, nobody: Trust) -> None:
    data = pickle.dumps(Own(5))
    path = run.objects_dir / "own"
    path.write_bytes(pickle.dumps(Own(6)))
    assert read_vouched(run, None).digests == frozenset()
    vouch(run, [hashlib.sha256(data).hexdigest()])
    assert codec.from_bytes(data, Trust(run), WHERE).x == 5
    with pytest.raises(UntrustedObjectError):
        codec.read_pickle(path, Trust(run), WHERE)
    vouch(run, [hashlib.sha256(path.read_bytes()).hexdigest()])
    assert codec.read_pickle(path, Trust(run), WHERE).x == 6
    assert len(read_vouched(run, None).digests) == 2
    with pytest.raises(UntrustedObjectError):  # the list is that run's
        codec.from_bytes(data, nobody, WHERE)
    with pytest.raises(UntrustedObjectError):
        codec.from_bytes(pickle.dumps(Own(7)), Trust(run), WHERE)


@pytest.mark.parametrize("run_id", [None, "0" * 32])
def test_a_list_that_a_stranger_signed_or_changed_is_none(
    run: layout.RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_id: str | None
) -> None:
    monkeypatch.setattr(runinfo, "run_id", lambda run: run_id)
    data = pickle.dumps(Own(5))
    digest = hashlib.sha256(data).hexdigest()
    with monkeypatch.context() as patch:
        patch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "stranger"))
        vouch(run, [digest])
        assert read_vouched(run, run_id).digests == {digest}
    assert read_vouched(run, run_id).digests == frozenset()
    vouch(run, ["0" * 64])
    good = json.loads(run.trust_file.read_text())
    for changed in (
        {**good, "digests": [*good["digests"], digest]},
        {"digests": [digest]},
        {**good, "signature": ""},
        {**good, "signature": "zz"},
        {**good, "signature": 5},
        {**good, "digests": [5]},
        [digest],
        {"digests": 5, "signature": good["signature"]},
    ):
        run.trust_file.write_text(json.dumps(changed))
        with pytest.raises(UntrustedObjectError):
            codec.from_bytes(data, Trust(run), WHERE)
    run.trust_file.write_text("no json")
    with pytest.raises(UntrustedObjectError):
        codec.from_bytes(data, Trust(run), WHERE)


@pytest.mark.parametrize("run_id", [None, "0" * 32])
def test_a_list_signed_for_one_run_does_not_vouch_by_being_an_objects_signature(
    run: layout.RunLayout, nobody: Trust, monkeypatch: pytest.MonkeyPatch, run_id: str | None
) -> None:
    """What the user signed as a list must not pass as a signed pickle, nor the other way round."""
    monkeypatch.setattr(runinfo, "run_id", lambda run: run_id)
    vouch(run, ["0" * 64])
    listed = json.loads(run.trust_file.read_text())
    signature = bytes.fromhex(listed["signature"])
    for mark in (b"", signing.MARK, signing.OLD_MARK):
        with pytest.raises((UntrustedObjectError, DamagedError)):
            codec.from_bytes(json.dumps(listed["digests"]).encode() + mark + signature, nobody, WHERE)


# --- torch


def test_without_torch_the_error_names_the_extra(
    run: layout.RunLayout, nobody: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cox\[torch\]'"):
        codec.write_torch({}, run.objects_dir / "x", ORIGIN)
    with pytest.raises(MissingExtraError):
        codec.read_torch(run.objects_dir / "x", nobody, WHERE)


def test_torch_states(run: layout.RunLayout, nobody: Trust) -> None:
    torch = pytest.importorskip("torch", reason="torch is optional")
    path = run.objects_dir / "state"
    model = torch.nn.Linear(2, 1)
    codec.write_torch(model, path, ORIGIN)
    assert signing.MARK not in path.read_bytes()[-signing.SIGNATURE_SIZE :]
    assert torch.equal(codec.read_torch(path, nobody, WHERE)["weight"], model.weight)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], model.weight)


def test_torch_states_that_need_code_follow_the_same_rule(
    run: layout.RunLayout, nobody: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="torch is optional")
    path = run.objects_dir / "state"
    codec.write_torch({"own": Own(5), "f": lambda x: x + 1, "w": torch.ones(2)}, path, ORIGIN)
    read = codec.read_torch(path, nobody, WHERE, map_location="cpu")
    assert (read["own"].x, read["f"](1), read["w"].tolist()) == (5, 2, [1.0, 1.0])
    with monkeypatch.context() as patch:
        patch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "stranger"))
        with pytest.raises(UntrustedObjectError, match="column 'o'"):
            codec.read_torch(path, nobody, WHERE)
        assert codec.read_torch(path, Trust(allow_pickle=True), WHERE)["own"].x == 5
        assert codec.read_torch(path, nobody, WHERE, weights_only=False)["own"].x == 5  # the caller said so
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (os.fspath(mark),)

    torch.save(Hostile(), run.objects_dir / "hostile")
    with pytest.raises(UntrustedObjectError):
        codec.read_torch(run.objects_dir / "hostile", nobody, WHERE)
    assert not mark.exists()
    (run.objects_dir / "broken").write_bytes(path.read_bytes()[:100])
    with pytest.raises((DamagedError, UntrustedObjectError)):
        codec.read_torch(run.objects_dir / "broken", nobody, WHERE)


# --- The secret


def test_the_secret_is_made_once_and_for_this_user_only(stranger: Path) -> None:
    assert signing.secret_path() == stranger / "secret"
    signature = signing.sign(b"data", ORIGIN)
    assert (stranger / "secret").stat().st_mode & 0o777 == 0o600
    assert len((stranger / "secret").read_bytes()) == 32
    assert signing.sign(b"data", ORIGIN) == signature
    for data, expected in (
        (b"data" + signature, True),
        (b"Data" + signature, False),
        (signature[1:], False),
        (b"", False),
    ):
        assert signing.is_signed(signing.sealed(io.BytesIO(data)), [ORIGIN]) is expected
    assert [path.name for path in stranger.iterdir()] == ["secret"]


def test_where_the_secret_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COX_CONFIG_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(tmp_path))
    assert signing.secret_path() == tmp_path / "cox" / "secret"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", os.fspath(tmp_path / "home"))
    assert signing.secret_path() == tmp_path / "home" / ".config" / "cox" / "secret"


def test_where_no_secret_can_be_kept_objects_are_read_back_in_this_process_only(
    run: layout.RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with monkeypatch.context() as patch:
        patch.setenv("COX_CONFIG_HOME", os.fspath(tmp_path / "file"))
        data = codec.to_bytes(Own(5), ORIGIN)
        assert "allow_pickle=True" in caplog.text
        assert codec.from_bytes(data, Trust(), WHERE).x == 5
        with pytest.raises(StorageError, match="COX_CONFIG_HOME"):
            vouch(run, ["0" * 64])
    with pytest.raises(UntrustedObjectError):
        codec.from_bytes(data, Trust(), WHERE)
    assert codec.from_bytes(data, Trust(allow_pickle=True), WHERE).x == 5


def test_a_secret_of_another_length_is_not_used(stranger: Path, caplog: pytest.LogCaptureFixture) -> None:
    stranger.mkdir(mode=0o700)
    (stranger / "secret").write_bytes(b"short")
    (stranger / "secret").chmod(0o600)
    assert not signing.keeps_secret()
    assert "move it away" in caplog.text
    assert (stranger / "secret").read_bytes() == b"short"


def test_of_processes_that_start_at_once_one_secret_wins(stranger: Path, start: Any) -> None:
    source = """
        import sys
        from cox.objects import signing

        print("ready")
        sys.stdin.readline()
        print(signing.sign(b"data", signing.Origin("", "t", "o")).hex())
    """
    programs = [start(source) for _ in range(4)]
    for program in programs:
        assert program.line() == "ready"
    for program in programs:
        program.tell()
    signatures = {program.line() for program in programs}
    assert len(signatures) == 1
    assert signatures == {signing.sign(b"data", ORIGIN).hex()}


# --- Objects whose code is gone


@pytest.mark.parametrize("cell", ["object", "pickle", "torch"])
def test_an_object_whose_class_is_gone_is_an_error_of_its_cell(
    run: layout.RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    if cell == "torch":
        pytest.importorskip("torch", reason="PYTORCH_STATE needs torch")
    (tmp_path / "was_there_once.py").write_text("class Gone: pass")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        gone, path = importlib.import_module("was_there_once").Gone(), run.objects_dir / "uid"
        text = codec.to_text(gone, ORIGIN)
        (codec.write_torch if cell == "torch" else codec.write_pickle)(gone, path, ORIGIN)
    monkeypatch.delitem(sys.modules, "was_there_once")
    read = {
        "object": lambda: codec.from_text(text, Trust(run), WHERE),
        "pickle": lambda: codec.read_pickle(path, Trust(run), WHERE),
        "torch": lambda: codec.read_torch(path, Trust(run), WHERE),
    }[cell]
    with pytest.raises(RebuildError, match=r"column 'o' .* cannot be rebuilt: ModuleNotFoundError") as raised:
        read()
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)
