"""Several hosts that share a directory, with the weaker promises of a network file system (see `nfs`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cox
from cox.errors import RunInUseError
from cox.storage import claims, layout
from tests.crash.children import Counter
from tests.crash.test_concurrency import SECONDS, end, join, wait_until
from tests.crash.zygote import PATIENCE, ROOT, Zygote

CHILD = "tests.crash.children:on_host"

pytestmark = pytest.mark.skipif(
    not (
        importlib.util.find_spec("mfusepy")
        and shutil.which("fusermount3")
        and os.access("/dev/fuse", os.W_OK)
    ),
    reason="needs FUSE: mfusepy, fusermount3 and a /dev/fuse that may be written",
)


class Host:
    """A host with the shared directory mounted at `at`."""

    def __init__(self, server: Path, at: Path, locks: str) -> None:
        self.at = at
        at.mkdir()
        self._client = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nfs", server, at, locks],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: at.is_mount() or self._client.poll() is not None)
        if not at.is_mount():
            pytest.skip("cannot mount FUSE here")

    def die(self) -> None:
        """Lose what was not synced, and be gone."""
        self._client.kill()
        self.leave()

    def leave(self) -> None:
        """Take the mount down."""
        subprocess.run(["fusermount3", "-uz", self.at], check=False, capture_output=True)
        self._client.wait(PATIENCE)


@pytest.fixture(params=["none", "local"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts, without locks or with locks that do not reach the other one."""
    (tmp_path / "server").mkdir()
    made = [Host(tmp_path / "server", tmp_path / name, request.param) for name in ("a", "b")]
    try:
        yield made[0], made[1]
    finally:
        for host in made:
            host.leave()


@pytest.mark.slow
def test_readers_here_and_there_see_no_torn_or_missing_row(
    zygote: Zygote, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    here, there = hosts
    acks, ended = str(tmp_path / "acks"), str(tmp_path / "end")
    Counter(Path(acks)), Counter(Path(ended))
    counts = [str(tmp_path / f"readings-{number}") for number in range(3)]
    writing = zygote.start(CHILD, "a", "write_rows", str(here.at), SECONDS, acks, ended, counts[:1])
    reading = [zygote.start(CHILD, "a", "read_rows", str(here.at), acks, ended, counts[0])]
    for count in counts[1:]:
        reading.append(zygote.start(CHILD, "b", "read_rows_from_afar", str(there.at), ended, count))
    join(writing, *reading)
    rows = Counter(Path(acks)).value
    assert rows > 100
    for count in counts[1:]:
        assert Counter(Path(count)).value == rows


@pytest.mark.slow
def test_ranks_on_two_hosts_fold_at_once_and_lose_nothing(
    zygote: Zygote, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    go, rows = Counter(tmp_path / "go"), 150
    acks = [tmp_path / f"acks-{rank}" for rank in range(4)]
    hosts[0].at.joinpath("run").mkdir()
    children = [
        zygote.start(
            CHILD,
            "ab"[rank % 2],
            "write_as_rank",
            str(hosts[rank % 2].at),
            rank,
            rows,
            str(ack),
            str(tmp_path / "go"),
        )
        for rank, ack in enumerate(acks)
    ]
    go.value = 1
    join(*children)
    with cox.Store(tmp_path / "server", "run", mode="r") as store:
        frame = store["t"].df
    for rank in range(4):
        own = frame[frame["rank"] == rank]
        assert own["step"].tolist() == list(range(rows)), rank
        assert own["text"].tolist() == [f"{rank}/{step}" for step in range(rows)]


def test_a_host_that_dies_loses_no_synced_row_and_its_claim_expires(
    zygote: Zygote, tmp_path: Path, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = hosts
    acks = Counter(tmp_path / "acks")
    writing = zygote.start(CHILD, "a", "write_synced", str(here.at), str(tmp_path / "acks"))
    try:
        wait_until(lambda: acks.value > 50)
        monkeypatch.setattr(socket, "gethostname", lambda: "b")
        with pytest.raises(RunInUseError, match="on host a"):
            cox.Store(there.at, "run")
        here.die()
        acknowledged = acks.value
    finally:
        end(writing)
    with pytest.raises(RunInUseError, match="on host a"):
        cox.Store(there.at, "run")
    monkeypatch.setattr(claims, "STALE_AFTER", 0.0)
    with cox.Store(there.at, "run") as store:
        steps = store["t"].df["step"].tolist()
        assert steps == list(range(len(steps)))
        assert acknowledged <= len(steps) <= acknowledged + 1
        store["t"].append_row({"step": len(steps)})
    with cox.Store(tmp_path / "server", "run", mode="r") as store:
        assert store["t"].nrows == len(steps) + 1


def test_a_store_file_that_is_believed_missing_is_asked_for_again(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    (here.at / "run").mkdir()
    assert list(there.at.joinpath("run").iterdir()) == []  # so that the directory is known …
    assert not there.at.joinpath("run", "store.h5").exists()  # … and what was not in it is believed
    with cox.Store(here.at, "run") as store:
        table = store.add_table("t", {"step": int})
        table.append_row({"step": 0})
        assert store._writer is not None
        store._writer.fold_if_it_helps()
        table.append_row({"step": 1})
        store._writer.heartbeat()
        with cox.Store(there.at, "run", mode="r") as seen:
            assert seen["t"].df["step"].tolist() == [0, 1]


def test_an_object_that_is_being_read_elsewhere_does_not_keep_a_run_from_beginning_anew(
    hosts: tuple[Host, Host],
) -> None:
    here, there = hosts
    with cox.Store(here.at, "run") as store:
        store.add_table("t", {"model": cox.PICKLE}).append_row({"model": list(range(1000))})
        (cell,) = store["t"].df["model"]
    path = layout.RunLayout(there.at / "run").objects_dir / cell
    own = layout.RunLayout(here.at / "run").objects_dir / cell
    with path.open("rb"), own.open("rb"), cox.Store(here.at, "run", mode="w") as store:
        store.add_table("u", {"model": cox.PICKLE}).append_row({"model": [1]})
        (cell,) = store["u"].df["model"]
        assert store["u"].get_pickle(cell) == [1]
    with cox.Store(here.at, "run", mode="r") as store:
        assert list(store.tables) == ["u"]
        assert store["u"].get_pickle(cell) == [1]
