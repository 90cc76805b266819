"""The door to the file system: whole files or none, and errors that say what to do."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cox.errors import CoxError, StorageError
from cox.storage import fs, layout


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# --- Replacing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def write(beside: Path) -> None:
        beside.write_bytes(b"ne")
        seen.append((path.read_bytes(), beside.parent == path.parent, beside.name))
        with beside.open("ab") as file:
            file.write(b"w")

    fs.replace_file(path, write, durable=True)
    ((before, is_beside, name),) = seen
    assert before == b"old"
    assert is_beside, "a rename does not leave a file system"
    assert name.startswith(layout.TEMPORARY_PREFIX)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "full"), RuntimeError("h5py"), KeyboardInterrupt()]
)
def test_a_failure_to_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(beside: Path) -> None:
        beside.write_bytes(b"half")
        raise failure

    with pytest.raises(type(failure)):
        fs.replace_file(path, write, durable=True)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["sync_file", "rename"])
def test_a_failure_to_sync_or_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(fs, name, failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        fs.replace_bytes(path, b"new", durable=True)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_order_of_a_durable_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes before the name, the name before the return: otherwise a power failure may leave neither."""
    order: list[str] = []
    for name in ("sync_file", "rename", "sync_directory"):
        real = getattr(fs, name)
        monkeypatch.setattr(fs, name, lambda *args, n=name, r=real: (order.append(n), r(*args))[1])
    fs.replace_bytes(tmp_path / "a", b"", durable=True)
    assert order == ["sync_file", "rename", "sync_directory", "sync_directory"]
    order.clear()
    fs.replace_bytes(tmp_path / "b", b"", durable=False)
    assert order == ["rename"]


def test_a_name_is_synced_in_its_directory_and_the_directorys_own_in_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(fs, "sync_directory", synced.append)
    fs.make_directories(tmp_path / "a" / "b" / "c", durable=True)
    assert synced == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    synced.clear()
    fs.make_directories(tmp_path / "a" / "b" / "c", durable=True)
    fs.make_directories(tmp_path / "d")
    assert synced == [], "there is nothing new to sync, or nobody asked for it"
    fs.replace_bytes(tmp_path / "a" / "b" / "c" / "file", b"", durable=True)
    assert synced == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b"]


def test_temporary_names_are_distinct_and_known(tmp_path: Path) -> None:
    made = {fs.temporary_beside(tmp_path / "x") for _ in range(100)}
    assert len(made) == 100
    assert all(path.parent == tmp_path and path.name.startswith(layout.TEMPORARY_PREFIX) for path in made)


# --- Making once


def test_a_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fs, "sync_file", lambda path: synced.append((path.read_bytes(), names(tmp_path))))
    synced: list[tuple[bytes, list[str]]] = []
    fs.create_once(tmp_path / "x", b"1")
    ((data, there),) = synced
    assert data == b"1"
    assert "x" not in there


def test_only_the_first_makes_a_file(tmp_path: Path) -> None:
    assert fs.create_once(tmp_path / "x", b"1")
    assert not fs.create_once(tmp_path / "x", b"2")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert names(tmp_path) == ["x"]


def test_of_many_threads_one_makes_a_file_and_nobody_sees_half_of_it(tmp_path: Path) -> None:
    data = [bytes([number]) * 100_000 for number in range(8)]
    made: list[bool] = []
    barrier = threading.Barrier(8)

    def make(own: bytes) -> None:
        barrier.wait()
        made.append(fs.create_once(tmp_path / "x", own))
        assert (tmp_path / "x").read_bytes() in data

    threads = [threading.Thread(target=make, args=(own,)) for own in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert names(tmp_path) == ["x"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    assert fs.create_once(tmp_path / "x", b"1")
    assert not fs.create_once(tmp_path / "x", b"2")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert names(tmp_path) == ["x"]


def test_a_new_file_that_fails_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), fs.new_file(tmp_path / "x") as file:
        file.write(b"half")
        file.flush()
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_new_file_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(FileExistsError), fs.new_file(tmp_path / "x"):
        pass
    assert (tmp_path / "x").read_bytes() == b"old"


# --- Small things


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    fd = os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR)
    try:
        fs.write_at(fd, b"0123456789", 2)
    finally:
        os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"\0\x000123456789"


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    fs.unlink(tmp_path / "x")


def test_making_directories_that_are_there_is_fine(tmp_path: Path) -> None:
    for _ in range(2):
        fs.make_directories(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_directory_that_cannot_be_synced_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (errno.EINVAL, errno.ENOTSUP):  # as some network file systems answer
        monkeypatch.setattr(os, "fsync", failing(code))
        fs.sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        fs.sync_directory(tmp_path)


def test_syncing_leaks_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"")
    gc.collect()  # what other tests left open is none of the matter
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    for _ in range(10):
        for sync in (fs.sync_directory, lambda path: fs.sync_file(path / "x")):
            with pytest.raises(OSError, match="Input/output"):
                sync(tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= before


# --- Errors


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "choose another directory, or open with mode='r'"),
        (errno.EACCES, "choose another directory, or open with mode='r'"),
        (errno.EPERM, "choose another directory, or open with mode='r'"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EEXIST, "a file stands where the directory should be"),
    ],
)
def test_a_refusal_says_what_was_done_why_it_failed_where_and_what_to_do(code: int, remedy: str) -> None:
    error = fs.refused(OSError(code, os.strerror(code)), "cannot write a row", Path("/runs/x"))
    assert isinstance(error, StorageError)
    assert isinstance(error, (CoxError, OSError))
    assert (error.errno, error.filename) == (code, "/runs/x")
    for part in ("cannot write a row", os.strerror(code), remedy, "/runs/x"):
        assert part in str(error)


def test_a_refusal_without_a_number_keeps_what_was_said() -> None:
    assert "something odd" in str(fs.refused(OSError("something odd"), "cannot write", "/x"))
