"""SPEC, 'What real programs do with it': each habit of the 41 repositories, as they have it."""

# ruff: noqa: PTH103, PTH117, PTH118

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cox.store
from cox.readers import CollectionReader
from cox.store import OBJECT, Store
from cox.utils import Parameters
from tests.spec.frames import listing

torch_only = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is optional")


def test_add_table_and_append_row(out: Path) -> None:
    store = Store(out)
    store.add_table("results", {"epoch": int, "train_loss": float, "val_acc": float, "time": float})
    for epoch in range(5):
        assert (
            store["results"].append_row(
                {"epoch": epoch, "train_loss": 1 / (epoch + 1), "val_acc": 0.5, "time": 0.1}
            )
            is None
        )
    assert len(store["results"].df) == 5
    store.close()


def test_schema_from_dict_of_the_arguments_of_a_parser(out: Path) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--resume")
    parser.add_argument("--widths", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--adv", action="store_true")
    args = parser.parse_args([])
    store = Store(out, "run")
    schema = cox.store.schema_from_dict(args.__dict__)
    assert schema == {
        "lr": float,
        "epochs": int,
        "arch": str,
        "resume": OBJECT,
        "widths": OBJECT,
        "adv": bool,
    }
    store.add_table("metadata", schema)
    store["metadata"].append_row(args.__dict__)
    store.close()
    with CollectionReader(out) as reader:
        row = reader.df("metadata").iloc[0]
        assert row[["lr", "epochs", "arch", "resume", "widths", "adv"]].tolist() == [
            0.1,
            3,
            "resnet18",
            None,
            [1, 2],
            False,
        ]


def test_schema_from_dict_of_parameters_gives_one_object_column(out: Path) -> None:
    args = Parameters({"lr": 0.1, "eps": None, "constraint": "2"})
    store = Store(out, "run")
    schema = cox.store.schema_from_dict(args.__dict__)
    assert schema == {"params": OBJECT}
    store.add_table("metadata", schema)
    store["metadata"].append_row(args.__dict__)
    assert args.as_dict() == {"lr": 0.1, "eps": None, "constraint": "2"}
    store.close()
    with CollectionReader(out) as reader:
        assert reader.df("metadata")["params"][0] == args.as_dict()


def test_a_metadata_row_built_by_two_updates(out: Path) -> None:
    """As robustness' setup_metadata_table: the second one with the store's path and the commit."""
    args = Parameters({"lr": 0.1})
    store = Store(out, "run")
    args_dict = args.__dict__
    schema = cox.store.schema_from_dict(args_dict)
    schema.update({"store_path": str, "git_commit": str})
    store.add_table("metadata", schema)
    store["metadata"].update_row(args_dict)
    store["metadata"].update_row({"store_path": store.path, "git_commit": "deadbeef"})
    store["metadata"].flush_row()
    assert args_dict == {"params": {"lr": 0.1}}
    row = store["metadata"].df.iloc[0]
    assert row["store_path"] == os.fspath(out / "run") == store.path
    assert os.path.isabs(row["store_path"])
    store.close()


def test_df_while_the_store_is_open_for_writing(out: Path) -> None:
    store = Store(out, "run")
    store.add_table("logs", {"epoch": int, "val_acc": float, "flag": bool, "s": str})
    for epoch in range(3):
        store["logs"].append_row({"epoch": epoch, "val_acc": epoch / 4, "flag": epoch > 1, "s": "x" * epoch})
        frame = store["logs"].df
        assert len(frame) == epoch + 1
        last = frame.iloc[-1]
        assert (last["epoch"], last["val_acc"]) == (epoch, epoch / 4)
        assert frame.to_dict("list")["epoch"] == list(range(epoch + 1))
        assert frame.to_dict()["val_acc"][epoch] == epoch / 4
        assert [row.epoch for row in frame.itertuples()] == list(range(epoch + 1))
        assert [row["s"] for _, row in frame.iterrows()] == ["x" * e for e in range(epoch + 1)]
        assert frame["val_acc"].max() == epoch / 4
        assert frame[frame["flag"]]["epoch"].tolist() == [2][: max(0, epoch - 1)]
        frame.loc[:, "epoch"] = -1  # the caller's own copy
        frame["new"] = 1
        del frame["s"]
    assert store["logs"].df["epoch"].tolist() == [0, 1, 2]
    assert list(store["logs"].df) == ["epoch", "val_acc", "flag", "s"]
    store.close()


def test_reopened_to_go_on_add_table_again_being_harmless(out: Path) -> None:
    def script(epochs: int) -> None:
        store = Store(out, "exp1")
        store.add_table("results", {"epoch": int, "loss": float})
        start = store["results"].nrows
        for epoch in range(start, epochs):
            store["results"].append_row({"epoch": epoch, "loss": 1 / (epoch + 1)})
        store.close()

    script(2)
    script(5)
    script(5)
    with Store(out, "exp1", mode="r") as store:
        assert store["results"].df["epoch"].tolist() == list(range(5))


def test_read_only_probes_over_folders_with_and_without_a_store(out: Path) -> None:
    with Store(out, "finished") as store:
        store.add_table("result", {"acc": float}).append_row({"acc": 0.5})
    with Store(out, "died early") as store:
        store.add_table("result", {"acc": float})
    (out / "no store").mkdir()
    (out / "broken").mkdir()
    (out / "broken" / "store.h5").write_bytes(b"half a file")
    (out / "a file").write_text("x")
    before = sorted(str(path) for path in out.rglob("*"))
    found = []
    for name in [*sorted(listing(out)), "not there"]:
        try:
            store = Store(out, name, mode="r")
            if "result" in store.keys:
                found.append((name, store["result"].df["acc"].iloc[-1]))
            store.close()
        except Exception:  # noqa: BLE001 - that is how they have it
            continue
    assert found == [("finished", 0.5)]
    assert sorted(str(path) for path in out.rglob("*")) == before
    with CollectionReader(out, exp_filter=lambda name: name != "broken") as reader:
        assert sorted(reader.stores) == ["died early", "finished"]


def test_if_store(out: Path) -> None:
    with Store(out) as store:
        if not store:
            pytest.fail("a Store is always true, also without tables")
        assert bool(store["empty"] if "empty" in store.keys else store)
        assert store.add_table("t", {"x": int})
    assert store
    assert Store(out, store.exp_id, mode="r")


def test_nan_in_float_columns(out: Path) -> None:
    store = Store(out, "run")
    store.add_table("logs", {"loss": float, "adv_loss": float, "n": int})
    for value in (float("nan"), np.nan, np.float32("nan"), "nan", math.inf, -math.inf, 0.0):
        store["logs"].append_row({"loss": value, "adv_loss": -1, "n": 1})
    store.close()
    with CollectionReader(out) as reader:
        losses = reader.df("logs")["loss"]
        assert losses.isna().tolist() == [True] * 4 + [False] * 3
        assert losses.iloc[4:].tolist() == [math.inf, -math.inf, 0.0]


def test_images_through_the_stores_tensorboard(out: Path) -> None:
    pytest.importorskip("tensorboardX", reason="images go to TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = Store(out, "run")
    store.tensorboard.add_image("input", np.zeros((3, 4, 4), dtype=np.float32), 0)
    store.writer.add_scalar("loss", 0.5, 3)
    store.close()
    events = EventAccumulator(store.tb_dir).Reload()
    assert events.Tags()["images"] == ["input"]
    assert events.Scalars("loss")[0].step == 3


@torch_only
def test_checkpoints_as_pytorch_states(out: Path) -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    store = Store(out, "run")
    schema = {
        "epoch": int,
        "training_prec1": float,
        "model": store.PYTORCH_STATE,
        "optimizer": store.PYTORCH_STATE,
    }
    store.add_table("ckpts", schema)
    for epoch in range(2):
        store["ckpts"].append_row(
            {
                "epoch": epoch,
                "training_prec1": torch.tensor(0.5),
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
        )
    best = store["ckpts"].df.sort_values("training_prec1").iloc[-1]
    state = store["ckpts"].get_state_dict(best["model"], map_location=torch.device("cpu"))
    model.load_state_dict(state)
    optimizer.load_state_dict(store["ckpts"].get_pytorch_state(best["optimizer"], map_location="cpu"))
    store.close()
    with CollectionReader(out) as reader:
        frame = reader.df("ckpts")
        names = set(listing(out / "run" / ".table_objects"))
        assert set(frame["model"]) | set(frame["optimizer"]) == names  # ids, as files are named
        path = out / "run" / ".table_objects" / frame["model"].iloc[0]
        assert torch.equal(torch.load(path, weights_only=True)["weight"], model.weight)


def test_get_pickle_and_get_object_of_cells(out: Path) -> None:
    store = Store(out, "run")
    store.add_table("t", {"o": store.OBJECT, "p": store.PICKLE})
    store["t"].append_row({"o": {"a": np.arange(3)}, "p": [{"b": "é"}]})
    frame = store["t"].df
    assert frame["o"].map(store["t"].get_object)[0]["a"].tolist() == [0, 1, 2]
    assert store["t"].get_pickle(frame["p"].iloc[0]) == [{"b": "é"}]
    assert frame["o"].apply(cox.utils.string_to_obj)[0]["a"].tolist() == [0, 1, 2]
    store.close()


def test_one_row_filled_from_three_functions_through_log_table_and_tb(out: Path) -> None:
    pytest.importorskip("tensorboardX", reason="it logs to TensorBoard")

    def train(store: Store) -> None:
        store.log_table_and_tb("logs", {"train_loss": 0.5})

    def evaluate(store: Store) -> None:
        store.log_table_and_tb("logs", {"val_loss": 0.25, "val_acc": np.float32(0.5)})

    def finish(store: Store, epoch: int) -> None:
        store["logs"].update_row({"epoch": epoch, "note": "ok"})
        store["logs"].flush_row()

    store = Store(out, "run")
    store.add_table(
        "logs", {"epoch": int, "train_loss": float, "val_loss": float, "val_acc": float, "note": str}
    )
    for epoch in range(3):
        train(store)
        evaluate(store)
        assert store["logs"].nrows == epoch
        finish(store, epoch)
    store.close()
    with CollectionReader(out) as reader:
        assert reader.df("logs").iloc[-1].tolist() == [2, 0.5, 0.25, 0.5, "ok", "run"]


def test_x_in_store_keys_is_live(out: Path) -> None:
    store = Store(out, "run")
    keys = store.keys
    assert "metadata" not in keys
    assert "metadata" not in store.tables
    store.add_table("metadata", {"x": int})
    assert "metadata" in keys
    assert "metadata" in store.keys
    assert list(store.keys) == list(store.tables.keys()) == ["metadata"]
    if "results" not in store.keys:
        store.add_table("results", {"x": int})
    assert list(keys) == ["metadata", "results"]
    assert dict(store.tables.items())["results"] is store["results"]
    store.close()


def test_save_dir_assigned_to(out: Path) -> None:
    store = Store(out, "run")
    assert type(store.save_dir) is str
    assert type(store.path) is str
    store.save_dir = os.path.join(store.path, "checkpoints")
    os.makedirs(store.save_dir)
    assert store.save_dir.endswith("checkpoints")
    store.add_table("t", {"x": int}).append_row({"x": 1})
    store.close()
    assert sorted(name for name in listing(store.path) if name[0] != ".") == [
        "checkpoints",
        "save",
        "store.h5",
        "tensorboard",
    ]


def test_nrows(out: Path) -> None:
    store = Store(out, "run")
    table = store.add_table("t", {"x": int})
    assert table.nrows == 0
    table.update_row({"x": 1})
    assert table.nrows == 0
    table.flush_row()
    assert table.nrows == store["t"].nrows == 1
    store.close()
    assert Store(out, "run", mode="r")["t"].nrows == 1


def test_a_subclass_that_overrides_log_table_and_tb(out: Path) -> None:
    pytest.importorskip("tensorboardX", reason="it logs to TensorBoard")

    class QuietStore(Store):
        def __init__(self, *args: Any, every: int = 2, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.every = every
            self.calls = 0

        def log_table_and_tb(self, table_name: str, update_dict: Any, summary_type: str = "scalar") -> None:  # type: ignore[override]
            self.calls += 1
            table = self.tables[table_name]
            if table.nrows % self.every == 0:
                for name, value in update_dict.items():
                    getattr(self.tensorboard, f"add_{summary_type}")(
                        f"{table_name}/{name}", value, table.nrows
                    )
            table.update_row(update_dict)

    store = QuietStore(out, "run", every=3)
    store.add_table("t", {"x": float})
    for step in range(6):
        store.log_table_and_tb("t", {"x": step})
        store["t"].flush_row()
    assert (store.calls, store["t"].nrows) == (6, 6)
    store.close()
    assert QuietStore(out, "run", mode="r")["t"].df["x"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


NO_CLOSE = """
import cox
from cox.store import Store
from cox.utils import Parameters
import sys

class Trainer:
    def __init__(self, args):
        self.args = args
        self.store = Store(args.out_dir, args.exp_id)
        self.store.add_table("results", {"epoch": int, "loss": float})
        self.store.add_table("final", {"acc": float})

    def train(self):
        for epoch in range(self.args.epochs):
            self.store.log_table_and_tb("results", {"loss": 1.0 / (epoch + 1)})
            self.store["results"].update_row({"epoch": epoch})
            self.store["results"].flush_row()
        self.store["final"].append_row({"acc": 0.75})

trainer = Trainer(Parameters({"out_dir": sys.argv[1], "exp_id": "run", "epochs": int(sys.argv[2])}))
trainer.train()
"""


def test_no_close_at_all(out: Path, start: Callable[..., Any]) -> None:
    import pandas as pd

    pytest.importorskip("tensorboardX", reason="it logs to TensorBoard")
    for session in range(2):  # and the step of TensorBoard goes on after reopening
        program = start(NO_CLOSE, out, 3)
        program.finish()
        assert program.errors == ""
        frame = pd.read_hdf(out / "run" / "store.h5", "results")
        assert frame["epoch"].tolist() == [0, 1, 2] * (session + 1)
        assert "final" in Store(out, "run", mode="r").keys
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(os.fspath(out / "run" / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("results/loss")] == [0, 1, 2, 3, 4, 5]
    assert not list((out / "run" / ".cox" / "journal").glob("*.log"))


NAMES = ["5_rewards", "lambda", "norm(w_t)", "FW gap", "mx^2", "a/b", "class", "2nd", "x.y", "λ", "acc (%)"]


def test_odd_names_of_columns_and_tables(out: Path) -> None:
    import pandas as pd

    store = Store(out, "run")
    store.add_table("L1 ball", dict.fromkeys(NAMES, float))
    store.add_table("5_rewards", {"lambda": str})
    for row in range(3):
        store["L1 ball"].append_row({name: at + row / 8 for at, name in enumerate(NAMES)})
    store["5_rewards"].append_row({"lambda": "x"})
    assert store["L1 ball"].df["FW gap"].tolist() == [3.0, 3.125, 3.25]
    store.close()
    with CollectionReader(out) as reader:
        frame = reader.df("L1 ball")
        assert list(frame) == [*NAMES, "exp_id"]
        assert frame.iloc[2].tolist()[:-1] == [at + 0.25 for at in range(len(NAMES))]
    assert list(pd.read_hdf(out / "run" / "store.h5", "L1 ball")) == NAMES


def test_the_callers_dict_is_not_changed(out: Path) -> None:
    class Loud(dict[str, Any]):
        """Says no to everything that would change it."""

        def refuse(self, *_: object, **__: object) -> Any:
            raise AssertionError("the caller's dict was changed")

        __setitem__ = __delitem__ = pop = popitem = update = setdefault = clear = refuse  # type: ignore[assignment]

    value = [1, {"a": 2}]
    row = Loud(x=np.float32(1.5), n=True, o=value, p=value)
    schema = Loud(x=float, n=int, o=cox.store.OBJECT, p=cox.store.PICKLE)
    with Store(out, "run") as store:
        store.add_table("t", schema)
        store["t"].append_row(row)
        store["t"].update_row(row)
        store["t"].flush_row()
        store.add_table_like_example("like", row)
        store["like"].append_row(types.MappingProxyType(row))
    assert type(row["x"]) is np.float32
    assert row["n"] is True
    assert row["o"] is value
    assert value == [1, {"a": 2}]
    assert list(row) == ["x", "n", "o", "p"]


def test_reopened_in_the_same_process_without_close(out: Path) -> None:
    """A notebook whose cell runs again: `store = Store(OUT, 'exp1')`."""
    frames = []
    for cell_run in range(3):
        store = Store(out, "exp1")
        table = store.add_table("t", {"run": int})
        for _ in range(2):
            table.append_row({"run": cell_run})
        frames.append(store["t"].df["run"].tolist())
    assert frames == [[0, 0], [0, 0, 1, 1], [0, 0, 1, 1, 2, 2]]
    store.close()
    del store, table
    import gc

    gc.collect()
    with Store(out, "exp1", mode="r") as reader:
        assert reader["t"].df["run"].tolist() == [0, 0, 1, 1, 2, 2]
    with Store(out, "exp1") as again:
        assert again["t"].nrows == 6


def test_two_stores_of_one_run_in_one_process_share_its_rows(out: Path) -> None:
    first, second = Store(out, "exp1"), Store(out, "exp1")
    one = first.add_table("t", {"x": int})
    one.append_row({"x": 0})
    other = second.add_table("t", {"x": int})
    other.append_row({"x": 1})
    one.update_row({"x": 2})
    other.append_row({"x": 3})  # each has a working row of its own
    one.flush_row()
    assert one.nrows == other.nrows == 4
    assert first["t"].df["x"].tolist() == second["t"].df["x"].tolist() == [0, 1, 3, 2]
    first.close()
    other.append_row({"x": 4})
    second.close()
    with Store(out, "exp1", mode="r") as reader:
        assert reader["t"].df["x"].tolist() == [0, 1, 3, 2, 4]


def test_stores_in_a_loop_without_close(out: Path) -> None:
    for seed in range(30):
        store = Store(out, f"seed{seed:02}")
        store.add_table("t", {"seed": int})
        store["t"].append_row({"seed": seed})
    with CollectionReader(out) as reader:
        assert reader.df("t")["seed"].tolist() == list(range(30))
    store.close()
    del store
    import gc

    gc.collect()


def test_folders_without_a_store_are_skipped(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
    for name in ("checkpoints", "logs", ".ipynb_checkpoints"):
        (out / name).mkdir()
        (out / name / "x.txt").write_text("x")
    with CollectionReader(out) as reader:
        assert reader.df("t")["exp_id"].tolist() == ["run"]


def test_frames_keep_the_stored_order_of_columns_then_exp_id(out: Path) -> None:
    schema = {"z": int, "a": str, "m": float, "b": bool, "aa": OBJECT, "A": int}
    for name in ("r1", "r2"):
        with Store(out, name) as store:
            table = store.add_table("t", schema)
            table.append_row({"A": 1, "aa": 1, "b": True, "m": 1.0, "a": "x", "z": 1})
            assert list(table.df) == list(schema)
    with CollectionReader(out) as reader:
        assert list(reader.df("t")) == [*schema, "exp_id"]
        assert list(reader.stores["r1"]["t"].df) == list(schema)


TORCHRUN = """
    import sys
    from cox.store import Store

    print("ready")
    sys.stdin.readline()
    try:
        store = Store(sys.argv[1], "run")
        store.add_table("results", {"epoch": int, "rank": int})
        for epoch in range(50):
            store["results"].append_row({"epoch": epoch, "rank": int(sys.argv[2])})
        print("acknowledged")
    except OSError as error:
        assert "rank=" in str(error), error
        print("refused")
    sys.stdin.readline()
"""


def test_every_rank_of_a_torchrun_job_opens_the_same_store(out: Path, start: Callable[..., Any]) -> None:
    """A rank may be refused; nothing that was acknowledged may be lost."""
    ranks = [start(TORCHRUN, out, rank) for rank in range(4)]
    for rank in ranks:
        assert rank.line() == "ready"
    for rank in ranks:
        rank.tell()
    said = [rank.line() for rank in ranks]
    for rank in ranks:
        rank.finish()
    assert said.count("refused") == 3
    with Store(out, "run", mode="r") as store:
        frame = store["results"].df
        assert set(frame["rank"]) == {said.index("acknowledged")}
        assert frame["epoch"].tolist() == list(range(50))
