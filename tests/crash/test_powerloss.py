"""A loss of power at any moment: what was promised is there, and nothing that never was.

Sessions are recorded (`powerloss.recorder`); all that a disk may hold of them after the power went
(`powerloss.trace`) is read, compared with what the session had been told by then, and gone on with
(`powerloss.oracle`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cox.storage import fold, fs, writer
from tests.crash.powerloss.oracle import Checker
from tests.crash.powerloss.recorder import Recorder
from tests.crash.powerloss.sessions import SESSIONS, Session, Stage, random_session
from tests.crash.powerloss.trace import Tree, losses

#: How many losses to try in each session beside the usual ones, and more random sessions with it. Thousands
#: take minutes.
SAMPLES = int(os.environ.get("COX_POWERLOSS", "10"))
SEED = int(os.environ.get("COX_SEED", "1"))


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FOLD_AT", 1500)
    monkeypatch.setenv("COX_CONFIG_HOME", "")  # each session and each state has its own
    for name in ("fsync", "fdatasync"):  # the recorder notes them; to wait for a real disk shows nothing here
        monkeypatch.setattr(os, name, lambda fd: None)


def lose_power(folder: Path, session: Session, sync: str | None) -> None:
    """Record a session, and let the power go at every moment of it."""
    stage = Stage(folder / "recorded", sync)
    stage.record(session)
    checker = Checker(stage, folder, thorough=SAMPLES >= 200)
    for moment, fates in losses(stage.recorder.trace, SAMPLES, SEED):
        try:
            checker.check(moment, fates)
        except Exception as error:
            raise AssertionError(f"{error}\n{checker.explain(moment, fates)}") from error
    assert checker.states > 10


#: What is known to be lost or wrong yet. Each is to be taken out with what mends it.
KNOWN: dict[str, str] = {}
KNOWN_BY_DEFAULT: dict[str, str] = {}
KNOWN_GUARDS: dict[str, str] = {}


def known(names: Iterable[str], bugs: dict[str, str]) -> list[Any]:
    """The names as parameters, of which some are expected to fail."""
    marks = {name: pytest.mark.xfail(strict=True, reason=reason) for name, reason in bugs.items()}
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]


@pytest.mark.parametrize("session", known(SESSIONS, KNOWN))
def test_sync_row_what_returned_survives_the_loss_of_power(tmp_path: Path, session: str) -> None:
    lose_power(tmp_path, SESSIONS[session], "row")


@pytest.mark.parametrize("session", known(SESSIONS, KNOWN_BY_DEFAULT))
def test_by_default_what_was_folded_or_closed_survives_the_loss_of_power(
    tmp_path: Path, session: str
) -> None:
    lose_power(tmp_path, SESSIONS[session], None)


@pytest.mark.parametrize("sync", ["row", None], ids=["sync-row", "default"])
@pytest.mark.parametrize("seed", range(1 + SAMPLES // 200))
def test_what_was_promised_survives_in_any_session(tmp_path: Path, seed: int, sync: str | None) -> None:
    lose_power(tmp_path, random_session(SEED + seed), sync)


#: What makes something survive, and a session that would lose something without it.
GUARDS: dict[str, tuple[Any, str, str, str | None]] = {
    "a row's bytes": (fs, "sync_data", "folds_by_itself", "row"),
    "a file's bytes": (fs, "sync_file", "folds_by_itself", None),
    "a name": (fs, "sync_directory", "folds_by_itself", None),
    "a directory's own name": (fs, "sync_directories", "folds_by_itself", "row"),
    "a payload's name": (fold, "_sync_payloads", "large_payload", None),
    "a journal that stays": (fold, "keep", "two_ranks", None),
}


@pytest.mark.parametrize("guard", known(GUARDS, KNOWN_GUARDS))
def test_without_its_guard_something_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    owner, name, session, sync = GUARDS[guard]
    monkeypatch.setattr(owner, name, lambda *args, **options: None)
    with pytest.raises(AssertionError, match="power lost after event"):
        lose_power(tmp_path, SESSIONS[session], sync)


# --- The model of a disk itself


def contents_after(folder: Path, program: Callable[[Path], object]) -> list[dict[str, bytes | None]]:
    """All that the end of a program may leave, without repetition."""
    root = folder / "disk"
    root.mkdir()
    (root / "old").write_bytes(b"old")
    recorder = Recorder(root)
    with recorder.recording():
        program(root)
    found: list[dict[str, bytes | None]] = []
    for moment, fates in losses(recorder.trace, 300, SEED):
        contents = recorder.trace.tree(moment, fates).contents()
        if moment == len(recorder.trace.events) and contents not in found:
            found.append(contents)
    return found


def write(path: Path, data: bytes, *, sync: bool = False) -> None:
    with path.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def test_bytes_that_were_not_synced_are_there_or_not_or_in_part(tmp_path: Path) -> None:
    def program(root: Path) -> None:
        fd = os.open(root / "old", os.O_RDWR)
        os.pwrite(fd, b"abcdef", 3)
        os.close(fd)

    found = [contents["old"] for contents in contents_after(tmp_path, program)]
    assert {b"old", b"oldabcdef", b"oldabc", b"old\0\0\0\0\0\0"} <= set(found)
    assert all(data is not None and data.startswith(b"old") for data in found), "what was safe stays"


def test_a_rename_before_a_sync_of_the_file_may_leave_it_empty(tmp_path: Path) -> None:
    def program(root: Path) -> None:
        write(root / "new", b"new")
        (root / "new").replace(root / "old")

    assert {"old": b""} in contents_after(tmp_path, program)


def test_a_rename_after_a_sync_of_the_file_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    def program(root: Path) -> None:
        write(root / "new", b"new", sync=True)
        (root / "new").replace(root / "old")

    assert {contents["old"] for contents in contents_after(tmp_path, program)} == {b"old", b"new"}


def test_a_name_is_safe_once_its_directory_is_synced_and_not_the_directorys_own(tmp_path: Path) -> None:
    def program(root: Path) -> None:
        (root / "folder").mkdir()
        write(root / "folder" / "file", b"data", sync=True)
        fs.sync_directory(root / "folder")

    folder: dict[str, bytes | None] = {"folder": None, "folder/file": b"data"}
    assert contents_after(tmp_path, program) == [{"old": b"old"}, {**folder, "old": b"old"}]


def test_what_is_removed_may_come_back(tmp_path: Path) -> None:
    found = contents_after(tmp_path, lambda root: (root / "old").unlink())
    assert sorted(found, key=len) == [{}, {"old": b"old"}]


def silently_written(root: Path) -> None:
    with open(root / "old", "wb") as file:  # noqa: PTH123 - past the recorder
        file.write(b"?")


def silently_made(root: Path) -> None:
    os.mknod(root / "another")


@pytest.mark.parametrize("program", [silently_written, silently_made])
def test_the_recorder_knows_when_something_escaped_it(
    tmp_path: Path, program: Callable[[Path], object]
) -> None:
    with pytest.raises(AssertionError, match="the trace does not have"):
        contents_after(tmp_path, program)


def everything(root: Path) -> Iterator[None]:
    (root / "a").mkdir()
    yield
    write(root / "a" / "x", b"one")
    yield
    os.link(root / "a" / "x", root / "y")
    yield
    with (root / "a" / "x").open("ab") as file:
        file.write(b" more")
    yield
    fd = os.open(root / "y", os.O_WRONLY)
    os.ftruncate(fd, 2)
    os.write(fd, b"X")
    os.close(fd)
    yield
    (root / "y").rename(root / "a" / "z")
    yield
    (root / "a" / "x").unlink()
    yield
    (root / "t").write_text("text")
    yield
    os.close(os.open(root / "a" / "z", os.O_WRONLY | os.O_TRUNC))
    yield
    (root / "a" / "z").unlink()
    (root / "a").rmdir()
    yield


def test_the_trace_replayed_whole_is_what_happened(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    recorder = Recorder(root)
    with recorder.recording():
        for _ in everything(root):
            trace = recorder.trace
            assert trace.tree(len(trace.events), {}).contents() == Tree.of(root).contents()
