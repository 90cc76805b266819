"""Wrong numbers said calmly: runs averaged that differ, ranks taken for parameters, last rows by chance."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cox
from cox.analysis.parameters import identity
from cox.collection.lines import facts_of
from cox.collection.moment import Moment
from cox.errors import CollectionWarning, CompareError, PredicateError
from cox.objects.unreadable import Unreadable
from cox.readers import CollectionReader

STRANGER = """
import sys
from cox.store import Store
class Net:
    def __init__(self, depth): self.depth = depth
    def __repr__(self): return "Net(…)"
for depth, acc in ((1, 0.5), (1, 0.52), (2, 0.9)):
    with Store(sys.argv[1], f"d{depth}-{acc}") as store:
        row = {"lr": 0.1, "net": Net(depth), "seed": int(acc * 100)}
        store.add_table_like_example("metadata", row).append_row(row)
        store.add_table("results", {"step": int, "acc": float}).append_row({"step": 0, "acc": acc})
"""


@pytest.fixture
def of_a_stranger(out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("COX_CONFIG_HOME", str(tmp_path / "theirs"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", STRANGER, str(out)], check=True)
    monkeypatch.setenv("COX_CONFIG_HOME", str(tmp_path / "ours"))
    return out


def log(folder: Path, name: str, params: dict[str, Any], *rows: dict[str, Any], **how: Any) -> None:
    with cox.Store(folder, name, **how) as store:
        store.add_table_like_example("metadata", params).append_row(params)
        for row in rows:
            store.add_table_like_example("results", row).append_row(row)


def test_parameters_that_cannot_be_rebuilt_are_compared_by_what_is_stored(of_a_stranger: Path) -> None:
    reader = CollectionReader(of_a_stranger)
    nets = reader.params()["net"].tolist()
    assert all(isinstance(net, Unreadable) and "Net" in net and net.digest[:8] in net for net in nets)
    assert (nets[0] == nets[1], nets[0] == nets[2]) == (True, False)
    for average in (
        lambda: reader.compare("results", "acc", by="lr", over="seed"),
        lambda: reader.plot("results", "step", "acc", hue="lr", over="seed"),
    ):
        with pytest.raises(CompareError, match=r"'net'.*in the way: d2-0\.9 \(net=<.*Net"):
            average()
    assert reader.compare("results", "acc", by=["lr", "net"], over="seed")["n"].tolist() in ([1, 2], [2, 1])
    assert "net" in set(reader.diff("d1-0.5", "d2-0.9")["name"])
    assert "net" not in set(reader.diff("d1-0.5", "d1-0.52")["name"])


def test_objects_are_not_compared_by_how_they_print(of_a_stranger: Path) -> None:
    reader = CollectionReader(of_a_stranger, allow_pickle=True)
    assert set(map(repr, reader.params()["net"])) == {"Net(…)"}
    with pytest.raises(CompareError, match="'net'"):
        reader.compare("results", "acc", by="lr", over="seed")
    groups = reader.compare("results", "acc", by="net", over="seed")
    assert sorted(groups["n"]) == [1, 2]
    assert {type(net).__name__ for net in groups["net"]} == {"Net"}


def test_long_arrays_that_print_alike_differ() -> None:
    one, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1
    assert identity(one) != identity(other)
    assert identity({"a": one}) != identity({"a": other})
    assert identity(1) == identity(1.0) != identity(True)
    loop: list[Any] = []
    loop.append(loop)
    assert identity(loop) == identity(loop)


def test_the_rank_is_not_a_parameter(out: Path) -> None:
    for name, seed, rank in (("ddp0", 0, 0), ("ddp1", 1, 1), ("single", 2, None)):
        log(out, name, {"lr": 0.1, "seed": seed}, {"step": 0, "loss": 1.0 + seed}, rank=rank)
    for cache in (False, True, True):
        reader = CollectionReader(out, cache=cache)
        assert list(reader.params()) == ["lr", "seed"]
        assert reader.compare("results", "loss", by="lr", over="seed")["n"].tolist() == [3]
        assert "rank" not in set(reader.diff("ddp0", "ddp1")["name"])


@pytest.mark.parametrize("kind", [int, int | None], ids=["int", "nullable"])
def test_a_users_own_rank_is_a_parameter(out: Path, kind: Any) -> None:
    for rank in (4, 8):
        with cox.Store(out, f"lora{rank}") as store:
            store.add_table("metadata", {"lr": float, "rank": kind}).append_row({"lr": 0.1, "rank": rank})
            store.add_table("results", {"loss": float, "rank": kind}).append_row({"loss": 1.0, "rank": rank})
    reader = CollectionReader(out)
    assert reader.params()["rank"].tolist() == [4, 8]
    with pytest.raises(CompareError, match="'rank': 4, 8"):
        reader.compare("results", "loss")
    assert reader.wide()["results.rank.last"].tolist() == [4, 8]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("has_step", [True, False], ids=["step", "no step"])
def test_the_last_row_of_ranks_does_not_depend_on_who_closed_last(
    out: Path, order: tuple[int, ...], has_step: bool
) -> None:
    """By step and of one step the lowest rank's; without steps the lowest rank's."""
    kinds = {"step": int, "loss": float} if has_step else {"loss": float}
    for rank in order:
        with cox.Store(out, "run", rank=rank) as store:
            store.add_table("results", kinds)
            for step in range(3 if rank == 1 else 2):
                row = {"step": step, "loss": 10.0 * rank + step}
                store["results"].append_row({name: row[name] for name in kinds})
    last = 12.0 if has_step else 1.0
    for cache in (False, True, True):
        reader = CollectionReader(out, cache=cache)
        assert reader.runs()["results.loss"].tolist() == [last]
        assert reader.wide()["results.loss.last"].tolist() == [last]
        assert reader.compare("results", "loss")["mean"].tolist() == [last]
        assert facts_of(Moment(reader.source), "run")["results"]["results.loss"] == last


def test_an_error_names_the_runs_in_the_way(out: Path) -> None:
    for i in range(5):
        log(out, f"run{i}", {"lr": 0.5 if i == 3 else 0.1}, {"step": 0, "loss": 1.0})
    with pytest.raises(CompareError, match=r"'lr': 0\.1, 0\.5.*in the way: run3 \(lr=0\.5\)"):
        CollectionReader(out).compare("results", "loss")


def test_one_run_of_another_type_is_named(out: Path) -> None:
    for i in range(5):
        with cox.Store(out, f"run{i}") as store:
            kind = str if i == 3 else float
            store.add_table("results", {"step": int, "loss": kind}).append_row({"step": i, "loss": 0.5})
    reader = CollectionReader(out)
    with pytest.raises(CompareError, match="'loss' is str in run run3, and float in 4 others"):
        reader.compare("results", "loss")
    with pytest.raises(CompareError, match="run3"):
        reader.plot("results", "step", "loss")
    with pytest.raises(PredicateError, match="run3"):
        reader.df("results", where="loss < 1", union_schemas=True)


def test_numbers_among_objects_are_numbers(out: Path) -> None:
    for i in range(5):
        with cox.Store(out, f"run{i}") as store:
            kind = cox.OBJECT if i == 3 else float
            value = np.float32(0.25) if i == 3 else 0.5
            store.add_table("results", {"step": int, "loss": kind}).append_row({"step": i, "loss": value})
    reader = CollectionReader(out, log_warnings=False)
    assert reader.compare("results", "loss")["mean"].tolist() == [0.45]
    assert reader.df("results", where="loss < 0.3")["exp_id"].tolist() == ["run3"]
    with cox.Store(out, "run9") as store:
        store.add_table("results", {"step": int, "loss": cox.OBJECT}).append_row({"step": 9, "loss": [1]})
    reader = CollectionReader(out, log_warnings=False)
    with pytest.raises(CompareError, match="list in run run9"):
        reader.compare("results", "loss")
    with pytest.raises(PredicateError, match="list in run run9"):
        reader.df("results", where="loss < 0.3")


@pytest.mark.parametrize("where", ["beside it", "in a backup", "in a dataset"])
def test_a_run_that_is_there_more_than_once_is_named(out: Path, tmp_path: Path, where: str) -> None:
    """A run and its copy are one measurement: their interval has no width, which looks very certain."""
    for seed in (1, 2):
        log(out, f"s{seed}", {"lr": 0.1, "seed": seed}, {"step": 0, "acc": 0.5 + seed / 10})
    folders = [out]
    if where == "beside it":
        shutil.copytree(out / "s1", out / "s1 copy")
    elif where == "in a backup":
        shutil.copytree(out / "s1", tmp_path / "backup" / "s1")
        folders.append(tmp_path / "backup")
    else:
        CollectionReader(out, exp_filter="s1".__eq__).to_parquet(tmp_path / "dataset")
        folders.append(tmp_path / "dataset")
    reader = CollectionReader(folders)
    (copy,) = set(reader.exp_ids) - {"s1", "s2"}
    with pytest.warns(CollectionWarning, match=f"more than once.* s1 = {copy};"):
        reader.compare("results", "acc", over="seed")
    with pytest.warns(CollectionWarning, match="more than once"):
        reader.plot("results", y="acc", over="seed")
    found = reader.compare("results", "acc", over="seed", exp_filter=lambda name: name != copy)
    assert found["n"].tolist() == [2]


def test_runs_of_the_same_parameters_are_no_copies(out: Path) -> None:
    for name in ("a", "b"):
        log(out, name, {"lr": 0.1}, {"step": 0, "acc": 0.5})
    assert CollectionReader(out).compare("results", "acc")["n"].tolist() == [2]


def test_large_whole_numbers_beside_fractions_stay_apart(out: Path) -> None:
    for name, size, acc in (("a", 2**60, 0.1), ("b", 2**60 + 1, 0.9), ("c", 0.5, 0.5)):
        log(out, name, {"size": size}, {"step": 0, "acc": acc})
    reader = CollectionReader(out)
    found = reader.compare("results", "acc", by="size")
    assert found["n"].tolist() == [1, 1, 1] and found["size"].tolist() == [0.5, 2**60, 2**60 + 1]
    assert reader.params()["size"].tolist() == [2**60, 2**60 + 1, 0.5]
    with pytest.raises(CompareError, match="differ in 'size'"):
        reader.compare("results", "acc")
