"""Claims: who may write a run, as told from locks, names, start times and heartbeats."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cox.errors import RunInUseError
from cox.storage import claims, fs

HOST = socket.gethostname()
#: A process that is certainly alive, and not this one.
ALIVE = 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "main.json"


@pytest.fixture(params=["flock", "no-flock"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With locks, and on a file system that has none."""
    if request.param == "no-flock":
        for_none(monkeypatch)
    return bool(request.param == "flock")


def for_none(monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOLCK) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


def write(path: Path, **holder: Any) -> None:
    path.write_text(json.dumps({"pid": ALIVE, "host": HOST, "started": claims._start_of(ALIVE), **holder}))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def held(path: Path) -> Iterator[claims.Claim]:
    claim = claims.Claim(path, "run x")
    yield claim
    claim.release()


@pytest.mark.usefixtures("locks")
def test_a_claim_says_who_holds_it(path: Path) -> None:
    claim = claims.Claim(path, "run x")
    holder = json.loads(path.read_bytes())
    assert (holder["pid"], holder["host"]) == (os.getpid(), HOST)
    assert holder["started"] == claims._start_of(os.getpid())
    with pytest.raises(
        RunInUseError, match=rf"run x is being written by process {os.getpid()} on host {HOST}"
    ):
        claims.Claim(path, "run x")
    assert claims.is_held(path)
    claim.release()


@pytest.mark.usefixtures("locks")
def test_a_released_claim_is_free(path: Path) -> None:
    for _ in range(3):
        claim = claims.Claim(path, "run x")
        claim.release()
        claim.release()
        assert path.read_bytes() == b""
        assert not claims.is_held(path)


def test_the_refusal_names_the_ways_out(held: claims.Claim, path: Path) -> None:
    with pytest.raises(RunInUseError, match="wait for it, stop it, open with mode='r' .* rank=") as refusal:
        claims.Claim(path, "run x")
    assert refusal.value.errno == errno.EBUSY
    assert refusal.value.filename == str(path)


def test_a_refused_claim_changes_nothing(held: claims.Claim, path: Path) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(RunInUseError):
        claims.Claim(path, "run x")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_failing_claim_leaks_no_descriptor(held: claims.Claim, path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(RunInUseError):
            claims.Claim(path, "run x")
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize(
    "left",
    [b"", b"{", b"\0" * 40, b"[]", b"null", b'{"host": 5}', b"\xff\xfe", b'{"pid": "x", "host": "HOST"}'],
    ids=repr,
)
def test_what_a_dying_process_left_is_no_claim(path: Path, left: bytes) -> None:
    path.write_bytes(left.replace(b"HOST", HOST.encode()))
    age(path, 2 * claims.STALE_AFTER)
    assert not claims.is_held(path)
    claims.Claim(path, "run x").release()


@pytest.mark.usefixtures("locks")
def test_a_claim_of_a_process_that_is_gone_is_dead(path: Path) -> None:
    write(path, pid=2**22 + 1)
    assert not claims.is_held(path)
    claims.Claim(path, "run x").release()


@pytest.mark.usefixtures("locks")
def test_a_claim_of_an_earlier_process_of_that_number_is_dead(path: Path) -> None:
    write(path, started="0")
    assert not claims.is_held(path)
    claims.Claim(path, "run x").release()


def test_without_locks_the_process_itself_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_none(monkeypatch)
    write(path)
    assert claims.is_held(path)
    with pytest.raises(RunInUseError, match=f"process {ALIVE} on host {HOST}"):
        claims.Claim(path, "run x")


@pytest.mark.parametrize("done", [False, True], ids=["half-way", "done"])
def test_without_locks_a_dead_claim_goes_to_one_of_two_who_find_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    for_none(monkeypatch)
    write(path, pid=2**22 + 1)
    faster = json.dumps({"pid": ALIVE, "host": HOST, "started": claims._start_of(ALIVE)}).encode()
    create = fs.create_once

    def overtaken(at: Path, data: bytes, *, durable: bool) -> bool:
        monkeypatch.setattr(fs, "create_once", create)
        if done:
            path.write_bytes(faster)
        else:
            create(at, faster)
        return create(at, data)

    monkeypatch.setattr(fs, "create_once", overtaken)
    with pytest.raises(RunInUseError, match=f"process {ALIVE} on host {HOST}"):
        claims.Claim(path, "run x")


def test_with_locks_a_claim_of_this_host_that_is_not_locked_is_dead(path: Path) -> None:
    write(path)  # its process lives, but is another one by now, or let go
    assert not claims.is_held(path)
    claims.Claim(path, "run x").release()


@pytest.mark.usefixtures("locks")
def test_another_hosts_claim_lives_as_long_as_it_is_touched(path: Path) -> None:
    """A lock may reach no further than its host, so that to have got it says nothing."""
    write(path, host="elsewhere")
    assert claims.is_held(path)
    with pytest.raises(RunInUseError, match="on host elsewhere"):
        claims.Claim(path, "run x")
    age(path, claims.STALE_AFTER - 15)
    assert claims.is_held(path)
    age(path, claims.STALE_AFTER + 15)
    assert not claims.is_held(path)
    claims.Claim(path, "run x").release()


def test_a_heartbeat_makes_a_claim_young_again(held: claims.Claim, path: Path) -> None:
    age(path, 1000)
    held.heartbeat()
    assert time.time() - path.stat().st_mtime < 60
    held.abandon()
    held.heartbeat()  # of a store that was closed meanwhile: nothing


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_every_way_to_have_no_locks_is_known(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    for_none(monkeypatch, code)
    claims.Claim(path, "run x").release()
    with claims.exclusive(path, patience=10):
        pass


def test_an_error_that_is_not_about_locks_is_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_none(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        claims.Claim(path, "run x")
    with pytest.raises(OSError, match="Input/output"), claims.exclusive(path, patience=10):
        pass


def test_a_claim_that_is_only_looked_at_is_not_taken_for_held(path: Path) -> None:
    write(path, pid=2**22 + 1)
    with claims.borrowed(path):
        assert not claims.is_held(path)
        with claims.borrowed(path):
            pass


def test_to_look_at_a_claim_keeps_nobody_from_taking_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_BORROWED_FOR", 60.0)  # three that do nothing but look are many
    write(path, pid=2**22 + 1)  # of a killed process, whose name is still on it
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            claims.is_held(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(100):
            claims.Claim(path, "run x").release()
    finally:
        stop.set()
        for thread in lookers:
            thread.join()


def test_to_look_at_a_claim_hides_its_holder_from_nobody(held: claims.Claim, path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        assert claims.is_held(path)
        with pytest.raises(RunInUseError, match=f"process {os.getpid()} on host {HOST} writes as main"):
            claims.borrowed(path).__enter__()
    finally:
        os.close(fd)


def test_a_claim_that_may_only_be_read_can_be_looked_at(held: claims.Claim, path: Path) -> None:
    path.chmod(0o444)
    assert claims.is_held(path)


def test_borrowing_keeps_others_out(path: Path) -> None:
    claims.Claim(path, "run x").release()
    with claims.borrowed(path):
        fd = os.open(path, os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)


def test_a_held_claim_cannot_be_borrowed(held: claims.Claim, path: Path) -> None:
    with pytest.raises(RunInUseError), claims.borrowed(path):
        pass


def test_a_claim_that_nobody_ever_made_is_free(path: Path) -> None:
    assert not claims.is_held(path)
    assert not path.exists()


def test_an_abandoned_claim_stays_its_parents(path: Path) -> None:
    claim = claims.Claim(path, "run x")
    before = path.read_bytes()
    claim.abandon()
    claim.abandon()
    assert path.read_bytes() == before
    assert not claims.is_held(path), "without another holder of the same lock"


def test_exclusive_waits_for_its_turn(path: Path) -> None:
    order: list[int] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(10)
        with claims.exclusive(path, patience=10):
            order.append(2)

    thread = threading.Thread(target=second)
    thread.start()
    with claims.exclusive(path, patience=10):
        inside.set()
        thread.join(0.1)
        order.append(1)
    thread.join(10)
    assert order == [1, 2]


def test_descriptors_are_not_inherited_by_programs(held: claims.Claim) -> None:
    assert not os.get_inheritable(held._fd)


def test_exclusive_believes_another_host_whose_locks_do_not_reach_here(path: Path, locks: bool) -> None:
    """As on a file system that is mounted with locks that are local to each host."""
    mark = path.with_suffix(".held")
    mark.write_text(json.dumps({"pid": 7, "host": "elsewhere", "started": "1"}))
    with pytest.raises(BlockingIOError), claims.exclusive(path, patience=0):
        pass
    long_ago = time.time() - claims.STALE_AFTER - 60
    os.utime(mark, (long_ago, long_ago))
    with claims.exclusive(path, patience=0):
        assert json.loads(mark.read_bytes())["host"] == HOST
    assert not mark.exists()


def test_exclusive_is_not_kept_waiting_by_a_dead_process_of_this_host(path: Path, locks: bool) -> None:
    path.with_suffix(".held").write_text(json.dumps({"pid": 2**22 + 1, "host": HOST, "started": "1"}))
    with claims.exclusive(path, patience=0):
        pass


def test_a_claim_is_shown_to_other_hosts_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system sends what was written when a descriptor is closed."""
    shown: list[bytes] = []
    monkeypatch.setattr(fs, "show_to_other_hosts", lambda fd: shown.append(os.pread(fd, 4096, 0)))
    claim = claims.Claim(path, "run x")
    assert [json.loads(content)["pid"] for content in shown] == [os.getpid()]
    claim.release()
