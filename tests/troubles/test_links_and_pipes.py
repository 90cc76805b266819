"""Links, pipes and endless files in a run: cox neither follows them out of the run nor waits for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cox
from cox.errors import CollectionWarning, CoxError, DamagedError, DamageWarning, IrregularFileError
from cox.integrity.repair import repair
from cox.integrity.verify import verify
from cox.storage import claims, fs, layout

#: Every file of a run that something reads or writes.
FILES = [
    "store.h5",
    ".cox/run.json",
    ".cox/journal/main-00000001.log",
    ".cox/claims/main.json",
    ".cox/fold.lock",
    ".cox/trusted.json",
]

#: All that reads or continues a run, one after the other; prints what each came to.
EVERYTHING = """
import sys, warnings
from pathlib import Path
import cox
from cox.objects.trust import read_vouched
from cox.cli import main
from cox.errors import CoxError, CoxWarning
from cox.integrity.repair import repair
from cox.storage import layout
from cox.integrity.verify import verify

warnings.simplefilter("ignore", CoxWarning)
folder = Path(sys.argv[1])

def write():
    with cox.Store(folder, "bad") as store:
        store["t"].append_row({"x": 2})

def command(*words):
    main(list(map(str, words)), standalone_mode=False)

def attempt(act):
    try:
        act()
    except CoxError as error:
        print(type(error).__name__, error)
    except SystemExit:
        pass

rows = cox.CollectionReader(folder, skip_errs=True, cache=False).df("t")
assert rows["exp_id"].tolist()[-1] == "good", rows
assert (rows["x"] == 1).all()
attempt(lambda: cox.Store(folder, "bad", mode="r")["t"].df)
attempt(lambda: verify(folder / "bad"))
attempt(lambda: read_vouched(layout.RunLayout(folder / "bad"), None))
attempt(lambda: command("ls", folder))
attempt(write)
attempt(lambda: repair(folder / "bad"))
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for name in ("bad", "good"):
        with cox.Store(folder, name) as store:
            store.add_table("t", {"x": int}).append_row({"x": 1})
    return folder


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_directory(path: Path) -> None:
    path.mkdir()


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may not be long
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def put_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("put", [put_pipe, put_endless, put_directory, put_socket, put_loop])
def test_what_is_not_a_file_is_neither_waited_for_nor_read_without_end(
    put: Callable[[Path], None], runs: Path
) -> None:
    for number, file in enumerate(FILES):
        folder = runs.with_name(f"runs{number}")
        shutil.copytree(runs, folder)
        path = folder / "bad" / file
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        put(path)
        program = subprocess.run(
            ["/bin/sh", "-c", 'ulimit -v 3000000; exec "$@"', "sh", sys.executable, "-c", EVERYTHING, folder],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert program.returncode == 0, f"{file}: {program.stderr[-3000:]}"


@pytest.mark.parametrize("file", ["store.h5", ".cox/journal/main-00000001.log", ".cox/run.json"])
def test_damage_names_the_pipe(file: str, runs: Path) -> None:
    path = runs / "bad" / file
    path.unlink(missing_ok=True)
    put_pipe(path)
    problems = [finding.problem for finding in verify(runs / "bad").findings]
    assert any(f"{path} is a named pipe" in problem for problem in problems)


def test_a_repair_moves_a_pipe_out_of_the_way_and_keeps_it(runs: Path) -> None:
    path = runs / "bad" / ".cox/journal/main-00000001.log"
    put_pipe(path)
    with pytest.warns(DamageWarning, match="named pipe"):
        assert len(cox.Store(runs, "bad", mode="r")["t"].df) == 1
    done = repair(runs / "bad")
    assert done.after.ok
    assert done.originals is not None
    assert (done.originals / ".cox/journal" / path.name).is_fifo()


def test_a_journal_of_holes_is_not_read_into_memory(runs: Path) -> None:
    path = runs / "bad" / ".cox/journal/main-00000001.log"
    path.touch()
    os.truncate(path, 2**43)
    with pytest.raises(DamagedError, match="claims to have 8796093022208 bytes"):
        cox.Store(runs, "bad", mode="r")


# --- Writing through links


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What is the user's own, and nobody may touch."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    (folder / ".tmp-mine").write_text("mine")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(runs: Path) -> None:
    with cox.Store(runs, "bad") as store:
        store["t"].append_row({"x": 2})
        store.log_table_and_tb("t", {"x": 3})
        store["t"].flush_row()


@pytest.mark.parametrize(
    "name", [".cox", ".cox/journal", ".cox/claims", ".table_objects", "tensorboard", "tensorboard/rank-1"]
)
def test_a_directory_that_leads_out_of_the_run_is_refused_with_the_remedy(
    name: str, runs: Path, home: Path
) -> None:
    path = runs / "bad" / name
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(home)
    before = contents(home)
    with pytest.raises(IrregularFileError, match=f"{name} is a link to .*home.*link the whole run"):
        cox.Store(runs, "bad", rank=1 if "rank" in name else None)
    with contextlib.suppress(CoxError):
        repair(runs / "bad")
    with contextlib.suppress(CoxError):
        write(runs)
    assert contents(home) == before


@pytest.mark.parametrize("name", [".cox", ".cox/journal"])
def test_journals_are_not_read_through_links(name: str, runs: Path, tmp_path: Path) -> None:
    shutil.move(runs / "good" / name, tmp_path / "elsewhere")
    (runs / "good" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IrregularFileError, match="is a link"):
        cox.Store(runs, "good", mode="r")
    with pytest.warns(CollectionWarning, match="run good is left out"):
        assert cox.CollectionReader(runs, skip_errs=True).df("t")["exp_id"].tolist() == ["bad"]
    assert not verify(runs / "good").ok


@pytest.mark.parametrize("name", ["store.h5", ".cox/claims/main.json", ".cox/fold.lock", ".cox/run.json"])
@pytest.mark.parametrize("target", ["thesis.tex", "not there"])
def test_a_file_that_leads_out_of_the_run_is_not_written_through(
    name: str, target: str, runs: Path, home: Path
) -> None:
    path = runs / "bad" / name
    path.unlink(missing_ok=True)
    path.symlink_to(home / target)
    before = contents(home)
    if name == ".cox/run.json":  # no row depends on it: it is replaced by name
        write(runs)
    else:
        with pytest.raises(IrregularFileError, match="is a link to"):
            write(runs)
    assert contents(home) == before


@pytest.mark.parametrize("name", [".cox/claims/main.json", ".cox/fold.lock", ".cox/run.json", "store.h5"])
def test_a_second_name_of_a_file_of_the_users_is_not_written_to(name: str, runs: Path, home: Path) -> None:
    path = runs / "bad" / name
    path.unlink(missing_ok=True)
    path.hardlink_to(home / "thesis.tex")
    before = contents(home)
    try:
        write(runs)
    except DamagedError:
        assert name == "store.h5"
    assert contents(home) == before


def test_a_claim_with_a_second_name_is_held_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.touch()
    path.with_name("backup").hardlink_to(path)
    claim = claims.Claim(path, "it")
    try:
        assert claims.is_held(path)
        assert path.with_name("backup").read_bytes() == b""
    finally:
        claim.release()
    assert not claims.is_held(path)


def test_a_snapshot_copy_does_not_go_through_a_link(runs: Path, home: Path) -> None:
    (runs / "good_snapshot").symlink_to(home)
    with cox.Store(runs, "good") as store, pytest.raises(IrregularFileError, match="is a link to"):
        store.snapshot_copy()
    assert not (home / "store.h5").exists()


@pytest.mark.parametrize("name", ["tensorboard", "tensorboard/rank-1"])
def test_mode_w_removes_nothing_behind_a_link(name: str, runs: Path, home: Path) -> None:
    (home / "rank-1").mkdir()
    curves = [place / "events.out.tfevents.1.mine" for place in (home, home / "rank-1")]
    for path in curves:
        path.touch()
    with cox.Store(runs, "good"):  # whose writer has looked for links already
        link = runs / "good" / name
        if link.exists():
            link.rmdir()
        link.symlink_to(home)
        cox.Store(runs, "good", mode="w").close()
    assert all(path.exists() for path in curves)
    with cox.Store(runs, "good", mode="r") as reader:
        assert not reader.tables


@pytest.mark.parametrize("name", ["00005", "00005/z"])
def test_no_embedding_is_removed_behind_a_link(name: str, runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine" / "z" if name == "00005" else tmp_path / "mine"
    target.mkdir(parents=True)
    (target / "tensors.tsv").write_text("mine")
    with cox.Store(runs, "good") as store:
        store.tensorboard.add_embedding(np.eye(2), global_step=5, tag="z")
        place = Path(store.tb_dir) / name
        shutil.rmtree(place)
        place.symlink_to(tmp_path / "mine")
        cox.Store(runs, "good", mode="w").close()
    assert (target / "tensors.tsv").read_text() == "mine"


# --- The user's own links


def test_the_users_own_links_of_runs_and_folders_stay_possible(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(runs)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "one").symlink_to(runs / "good")
    (runs / "good" / "save").rmdir()
    (tmp_path / "scratch").mkdir()
    (runs / "good" / "save").symlink_to(tmp_path / "scratch")
    with cox.Store(tmp_path / "project", "one") as store:
        store["t"].append_row({"x": 2})
        Path(store.save_dir, "model").write_text("weights")
    assert (tmp_path / "scratch" / "model").exists()
    assert cox.CollectionReader(tmp_path / "linked").df("t")["x"].tolist() == [1, 1, 2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("scratch/sweep/a", "scratch/single", "project/local/b"):
        path = tmp_path / name
        with cox.Store(path.parent, path.name) as store:
            store.add_table("t", {"x": int}).append_row({"x": 1})
    folder = tmp_path / "project"
    (folder / "sweep").symlink_to("../scratch/sweep")
    (folder / "single").symlink_to("../scratch/single")
    return folder


def test_nested_looks_into_linked_folders(project: Path) -> None:
    assert cox.CollectionReader(project, nested=True).exp_ids == ["local/b", "single", "sweep/a"]


def test_nested_ends_where_links_lead_back(project: Path) -> None:
    (project / "again").symlink_to(project)
    (project / "local" / "up").symlink_to("..")
    (project / "zweep").symlink_to("sweep")
    (project / "gone").symlink_to("nowhere")
    assert cox.CollectionReader(project, nested=True).exp_ids == ["local/b", "single", "sweep/a"]


def test_a_folder_keeps_its_own_name_beside_a_link_to_it(project: Path) -> None:
    (project / "a-link").symlink_to("local")
    assert cox.CollectionReader(project, nested=True).exp_ids == ["local/b", "single", "sweep/a"]


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", os.fspath(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with cox.Store("~/runs", "a") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    assert store.path == os.fspath(tmp_path / "home" / "runs" / "a")
    assert not Path("~").exists()
    assert len(cox.CollectionReader("~/runs").df("t")) == 1
    assert verify("~/runs/a").ok
    with cox.Store("./~", "b") as store:
        pass
    assert Path("~", "b").is_dir()


def test_open_own_says_what_is_in_the_way(tmp_path: Path) -> None:
    put_pipe(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name, kind in (("pipe", "a named pipe"), ("link", "a link to /etc/passwd"), (".", "a directory")):
        with pytest.raises(IrregularFileError, match=kind):
            fs.open_own(tmp_path / name)
    assert layout.RunLayout(tmp_path).save_dir not in layout.RunLayout(tmp_path).directories
