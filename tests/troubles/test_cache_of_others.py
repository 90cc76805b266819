"""A cache is believed only if nobody else can have made it up; else it is kept where only its user writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cox
from cox.cli import main
from cox.collection import cache
from cox.collection.cache import files, places
from cox.storage import layout
from tests import caching


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own place for caches."""
    folder = tmp_path / "home" / ".cache"
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(folder))
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    caching.kept_at_once(monkeypatch)
    folder = tmp_path / "runs"
    for name in "ab":
        caching.make(folder, name)
    caching.settle(folder)
    return folder


def read(runs: Path) -> None:
    with cox.CollectionReader(runs, cache=True) as reader:
        assert len(reader.df("t")) == 6


def kept(home: Path) -> list[Path]:
    return list(home.glob("cox/*/*.rows"))


def test_a_cache_is_made_for_its_user_only(runs: Path, home: Path) -> None:
    read(runs)
    directory = runs / layout.CACHE_DIR
    assert directory.stat().st_mode & 0o777 == 0o700
    assert set(cache.Cache(runs).states) == {"a", "b"}
    assert not kept(home)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
def test_a_cache_that_others_may_write_to_is_not_believed(mode: int, runs: Path, home: Path) -> None:
    read(runs)
    (runs / layout.CACHE_DIR).chmod(mode)
    assert cache.Cache(runs).states == {}
    before = sorted(os.listdir(runs / layout.CACHE_DIR))
    read(runs)
    assert sorted(os.listdir(runs / layout.CACHE_DIR)) == before
    assert kept(home)
    assert set(cache.Cache(runs).states) == {"a", "b"}
    assert (home / "cox").stat().st_mode & 0o777 == 0o700


def test_a_cache_of_another_user_is_not_believed(
    runs: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(runs)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert cache.Cache(runs).states == {}


def test_a_file_of_another_user_in_the_cache_is_not_believed(runs: Path, home: Path) -> None:
    read(runs)
    try:
        os.chown(runs / layout.CACHE_DIR / files.INDEX_FILE, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")
    assert cache.Cache(runs).states == {}


def test_nothing_is_written_or_removed_through_a_linked_cache(runs: Path, home: Path, tmp_path: Path) -> None:
    read(runs)
    elsewhere = tmp_path / "elsewhere"
    (runs / layout.CACHE_DIR).rename(elsewhere)
    (runs / layout.CACHE_DIR).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    assert cache.Cache(runs).states == {}
    read(runs)
    cache.clear(runs)
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_a_folder_that_may_not_be_written_to_has_its_cache_at_home(
    runs: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / layout.CACHE_DIR).write_text("no directory can be made here")  # root may write anywhere
    read(runs)
    assert kept(home)
    assert set(cache.Cache(runs).states) == {"a", "b"}


def test_folders_have_caches_of_their_own(runs: Path, home: Path) -> None:
    other = runs.with_name("other")
    for folder in (runs, other):
        folder.mkdir(exist_ok=True)
        (folder / layout.CACHE_DIR).write_text("")
    read(runs)
    assert cache.Cache(other).states == {}


@pytest.mark.parametrize("base", ["relative", ""])
def test_without_a_home_nothing_is_kept_and_nothing_fails(
    base: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / layout.CACHE_DIR).write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", base)
    monkeypatch.setattr(
        os.path, "expanduser", lambda path: path
    )  # as for a user that the system does not know
    monkeypatch.chdir(runs.parent)
    read(runs)
    assert not Path("relative").exists()
    assert places.of_saving(runs) is None


def test_cox_cache_shows_and_clears_both(runs: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(runs)
    (runs / layout.CACHE_DIR).chmod(0o777)
    read(runs)
    main(["cache", os.fspath(runs), "--clear"], standalone_mode=False)
    said = capsys.readouterr().out
    assert os.fspath(home) in said
    assert layout.CACHE_DIR in said
    assert not (runs / layout.CACHE_DIR).exists()
    assert not kept(home)
