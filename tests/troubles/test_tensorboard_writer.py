"""What `store.tensorboard` writes into files of its own is as safe, as rewound and as single as the rest."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter

from cox.errors import ClosedError, CoxWarning, ForkError, RowError, StorageError, StorageWarning
from cox.store import Store
from cox.tensorboard import eventfile
from tests.spec.test_tensorboard import hparams_of

if TYPE_CHECKING:
    from tests.conftest import Program

Points = list[tuple[int, float]]


def points(directory: Path) -> dict[str, Points]:
    events = EventAccumulator(os.fspath(directory), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def log_both(store: Store, steps: range, value: float) -> None:
    for step in steps:
        store.tensorboard.add_scalars("loss", {"train": value, "val": -value}, step)


# --- add_scalars


def test_curves_of_one_chart_survive_a_kill(out: Path, start: Callable[..., Program]) -> None:
    program = start(
        """
        import sys, time
        from cox.store import Store

        store = Store(sys.argv[1], "run")
        for i in range(30):
            store.tensorboard.add_scalars("loss", {"train": i, "val": -i}, i)
        print("logged")
        time.sleep(600)
        """,
        out,
    )
    assert program.line() == "logged"
    program.kill()
    for tag, sign in (("train", 1), ("val", -1)):
        assert points(out / "run/tensorboard/loss" / tag) == {"loss": [(i, sign * i) for i in range(30)]}


def test_curves_of_one_chart_go_on_in_the_next_session(out: Path) -> None:
    for session in range(3):
        with Store(out, "run") as store:
            log_both(store, range(2 * session, 2 * session + 2), 1.0)
    assert points(out / "run/tensorboard/loss/val") == {"loss": [(step, -1.0) for step in range(6)]}


def test_curves_of_one_chart_of_a_rank_are_its_own(out: Path) -> None:
    with Store(out, "run", rank=0) as zero, Store(out, "run", rank=1) as one:
        log_both(zero, range(2), 1.0)
        log_both(one, range(2), 2.0)
        one.add_table("t", {"x": float}).append_row({"x": 1.0})
        zero.add_table("t", {"x": float}).append_row({"x": 1.0})
        zero.rewind("t", 0)
    folder = out / "run/tensorboard"
    assert points(folder / "loss/train") == {"loss": []}
    assert points(folder / "rank-1/loss/train") == {"loss": [(0, 2.0), (1, 2.0)]}


def test_curves_of_one_chart_are_rewound(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int})
        for step in range(10):
            log_both(store, range(step, step + 1), 1.0)
            table.append_row({"step": 100 + step})
    with Store(out, "run") as store:
        kept = store.tensorboard
        store.rewind("t", 6)
        assert store.tensorboard is kept
        log_both(store, range(6, 8), 2.0)
    expected = [(step, 1.0 if step < 6 else 2.0) for step in range(8)]
    assert points(out / "run/tensorboard/loss/train") == {"loss": expected}


def test_a_rewind_by_step_forgets_points_and_curves_of_one_chart_each_as_they_count(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int, "x": float})
        for step in range(0, 100, 10):
            store.log_table_and_tb("t", {"step": step, "x": 1.0})
            table.flush_row()
            log_both(store, range(step, step + 1), 1.0)
        store.rewind("t", step=50)
        store.tensorboard.add_scalar("after", 1.0, 0)
    assert [step for step, _ in points(out / "run/tensorboard")["t/x"]] == list(range(5))
    assert [step for step, _ in points(out / "run/tensorboard/loss/val")["loss"]] == list(range(0, 50, 10))


def test_mode_w_begins_curves_of_one_chart_anew_and_leaves_those_of_others(out: Path) -> None:
    with Store(out, "run") as store:
        log_both(store, range(5), 1.0)
        own = SummaryWriter(f"{store.tb_dir}/eval")
        own.add_scalar("mine", 1.0, 0)
        own.close()
    with Store(out, "run", mode="w") as store:
        assert sorted(path.name for path in Path(store.tb_dir).iterdir()) == ["eval"]
        log_both(store, range(2), 2.0)
    assert points(out / "run/tensorboard/loss/train") == {"loss": [(0, 2.0), (1, 2.0)]}
    assert points(out / "run/tensorboard/eval") == {"mine": [(0, 1.0)]}


def test_many_curves_of_one_chart_keep_few_files_open(out: Path) -> None:
    with Store(out, "run") as store:
        writer = store.tensorboard
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for step in range(2):
            writer.add_scalars("many", {f"{i:03}": i for i in range(150)}, step)
        assert len(os.listdir("/proc/self/fd")) <= before + eventfile._MOST_OPEN + 1
        assert len(list(Path(store.tb_dir).rglob("*tfevents*"))) == 151
    assert points(out / "run/tensorboard/many/007") == {"many": [(0, 7.0), (1, 7.0)]}


@pytest.mark.parametrize(("chart", "tag"), [("..", "x"), ("/tmp", "x"), ("a", "../../x"), (".", ".")])
def test_tags_that_lead_out_of_the_run_are_refused(out: Path, chart: str, tag: str) -> None:
    with Store(out, "run") as store:
        with pytest.raises(RowError, match="lead out of"):
            store.tensorboard.add_scalars(chart, {"fine": 1.0, tag: 1.0}, 0)
        assert len(list(Path(store.tb_dir).rglob("*tfevents*"))) == 1


def test_a_curve_that_is_refused_is_an_error_or_a_warning(out: Path) -> None:
    with Store(out, "run") as store, Store(out, "warned", on_error="warn") as warned:
        for one in (store, warned):
            Path(one.tb_dir, "loss").touch()
        with pytest.raises(StorageError, match="cannot make an event file"):
            store.tensorboard.add_scalars("loss", {"train": 1.0}, 0)
        with pytest.warns(StorageWarning, match="cannot make an event file"):
            warned.tensorboard.add_scalars("loss", {"train": 1.0}, 0)
        Path(warned.tb_dir, "loss").unlink()
        warned.tensorboard.add_scalars("loss", {"train": 1.0}, 1)
    assert points(out / "warned/tensorboard/loss/train") == {"loss": [(1, 1.0)]}


def test_scalars_can_be_exported(out: Path, tmp_path: Path) -> None:
    with Store(out, "run") as store:
        log_both(store, range(2), 1.0)
        store.tensorboard.export_scalars_to_json(tmp_path / "scalars.json")
    exported = json.loads((tmp_path / "scalars.json").read_text())
    train = exported[os.fspath(out / "run/tensorboard/loss/train")]
    assert [point[1:] for point in train] == [[0, 1.0], [1, 1.0]]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing else is done in the child
def test_a_forked_child_begins_no_curve(out: Path) -> None:
    with Store(out, "run") as store:
        writer = store.tensorboard
        child = os.fork()
        if child == 0:
            status = 1
            try:
                writer.add_scalars("loss", {"new": 1.0}, 0)
            except ForkError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert len(list(Path(store.tb_dir).rglob("*tfevents*"))) == 1


# --- add_hparams


def test_hparams_of_the_writer_are_those_of_the_run_itself(out: Path) -> None:
    with Store(out, "run") as store:
        store.tensorboard.add_hparams({"lr": 0.1, "arch": "vgg"}, {"acc": 0.5}, global_step=np.int64(7))
        store.tensorboard.add_hparams({"arch": "vgg", "lr": 0.1}, {"best": 0.75}, name="a name")
    assert [path.is_dir() for path in Path(store.tb_dir).iterdir()] == [False]
    assert hparams_of(out, "run") == [{"lr": 0.1, "arch": "vgg"}]
    assert points(out / "run/tensorboard") == {"acc": [(7, 0.5)], "best": [(0, 0.75)]}


def test_hparams_of_the_writer_are_told_once_in_every_session(out: Path) -> None:
    for _ in range(3):
        with Store(out, "run") as store:
            store.tensorboard.add_hparams({"lr": 0.1}, {})
    assert hparams_of(out, "run") == [{"lr": 0.1}]
    with Store(out, "run") as store:
        store.tensorboard.add_hparams({"lr": 0.1}, {})
        with pytest.warns(CoxWarning, match="TensorBoard has been told other parameters"):
            store.tensorboard.add_hparams({"lr": 0.2}, {})
        store.tensorboard.add_hparams({}, {"acc": 1.0})  # and metrics alone are no parameters
    assert points(out / "run/tensorboard") == {"acc": [(0, 1.0)]}


def test_hparams_of_several_ranks_are_those_of_one_run(out: Path) -> None:
    for rank in (0, 1):
        with Store(out, "run", rank=rank) as store:
            store.tensorboard.add_hparams({"lr": 0.1}, {"acc": 1.0})
    assert hparams_of(out, "run") == [{"lr": 0.1}]
    rank_1 = EventAccumulator(os.fspath(out / "run/tensorboard/rank-1")).Reload()
    assert rank_1.Tags()["scalars"] == ["acc"]
    with pytest.raises(KeyError):
        rank_1.PluginTagToContent("hparams")


def test_hparams_of_the_writer_that_are_none_are_refused(out: Path) -> None:
    with Store(out, "run") as store:
        with pytest.raises(RowError, match="metric 'acc'"):
            store.tensorboard.add_hparams({"lr": 0.1}, {"acc": "good"})
        with pytest.raises(RowError, match="step=0.5 is not a whole number"):
            store.tensorboard.add_hparams({"lr": 0.1}, {"acc": 1.0}, global_step=0.5)  # type: ignore[arg-type]
    assert hparams_of(out, "run") == []


def test_numbers_that_are_not_finite_are_missing_and_the_run_is_still_compared(out: Path) -> None:
    for name, clip in (("one", 1.0), ("inf", float("inf"))):
        with Store(out, name) as store:
            store.add_table("metadata", {"clip": float}).append_row({"clip": clip})
            store.tensorboard.add_scalar("x", 1.0, 0)
    assert (hparams_of(out, "one"), hparams_of(out, "inf")) == ([{"clip": 1.0}], [{}])


# --- add_embedding


def listed(folder: Path) -> list[str]:
    text = (folder / "projector_config.pbtxt").read_text(encoding="utf-8")
    return [line.split('"')[1] for line in text.splitlines() if line.startswith("tensor_path")]


def test_an_embedding_that_is_sent_again_takes_the_place_of_the_first(out: Path) -> None:
    for value in (1.0, 2.0):
        with Store(out, "run") as store:
            matrix = np.full((3, 2), value)
            store.tensorboard.add_embedding(matrix, metadata=list("abc"), global_step=5, tag="z")
            store.tensorboard.add_embedding(matrix, global_step=5, tag="other/one")
    folder = out / "run/tensorboard"
    assert listed(folder) == ["00005/z/tensors.tsv", "00005/other%2fone/tensors.tsv"]
    assert (folder / "00005/z/tensors.tsv").read_text() == "2.0\t2.0\n" * 3
    assert (folder / "00005/z/metadata.tsv").read_text() == "a\nb\nc\n"
    assert not list(folder.rglob(".tmp-*"))


def test_embeddings_are_rewound_and_begun_anew(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int})
        for step in (0, 10, 20, 30):
            table.append_row({"step": step})
            store.tensorboard.add_embedding(np.eye(2), global_step=step)
        store.rewind("t", step=20)
        folder = Path(store.tb_dir)
        assert listed(folder) == ["00000/default/tensors.tsv", "00010/default/tensors.tsv"]
        assert not (folder / "00020").exists()
    (folder / "00000/default/mine.txt").touch()
    Store(out, "run", mode="w").close()
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["mine.txt"]


def test_an_embedding_that_cannot_be_made_leaves_nothing(out: Path) -> None:
    with Store(out, "run") as store:
        with pytest.raises(AssertionError, match="should equal"):
            store.tensorboard.add_embedding(np.eye(2), metadata=["one"])
        with pytest.raises(RowError, match=r"tag='\.\.' cannot name a directory"):
            store.tensorboard.add_embedding(np.eye(2), tag="..")
        (Path(store.tb_dir) / "00003").touch()
        with pytest.raises(StorageError, match="cannot write an embedding"):
            store.tensorboard.add_embedding(np.eye(2), global_step=3)
        assert len(list(Path(store.tb_dir).iterdir())) == 2


# --- All methods


#: What these write goes through the event file, as one event.
THROUGH_THE_EVENT_FILE = {
    *("add_audio", "add_custom_scalars", "add_custom_scalars_marginchart", "add_figure", "add_graph"),
    *("add_custom_scalars_multilinechart", "add_histogram", "add_histogram_raw", "add_image", "add_images"),
    *("add_image_with_boxes", "add_mesh", "add_onnx_graph", "add_openvino_graph", "add_pr_curve"),
    *("add_pr_curve_raw", "add_scalar", "add_text", "add_video"),
}
#: These have files of their own, and are overridden; the last writes where it is told to.
OF_THEIR_OWN = {"add_embedding", "add_hparams", "add_scalars"}
OTHERS = {"close", "export_scalars_to_json", "flush", "use_metadata"}


def test_every_method_of_the_writer_is_looked_after() -> None:
    methods = {
        name for name, _ in inspect.getmembers(SummaryWriter, inspect.isfunction) if not name.startswith("_")
    }
    assert methods == THROUGH_THE_EVENT_FILE | OF_THEIR_OWN | OTHERS, "does a new one make files of its own?"
    for name in OF_THEIR_OWN:
        assert name in vars(eventfile.RunSummaryWriter)
    for name in THROUGH_THE_EVENT_FILE - {"add_figure"}:  # which is add_image
        assert "_get_file_writer()" in inspect.getsource(getattr(SummaryWriter, name))


# --- A writer that is kept


KEPT: dict[str, Callable[[Any], object]] = {
    "add_scalar": lambda writer: writer.add_scalar("x", 1.0, 1),
    "add_scalars": lambda writer: writer.add_scalars("x", {"y": 1.0}, 1),
    "add_hparams": lambda writer: writer.add_hparams({"lr": 0.1}, {"acc": 1.0}),
    "add_embedding": lambda writer: writer.add_embedding(np.eye(2)),
    "add_image": lambda writer: writer.add_image("x", np.zeros((3, 4, 4)), 1),
    "add_text": lambda writer: writer.add_text("x", "y", 1),
    "use_metadata": lambda writer: writer.use_metadata(global_step=1).__enter__(),
}


@pytest.fixture
def kept(out: Path) -> Iterator[tuple[Any, Path]]:
    with Store(out, "run") as store:
        writer = store.tensorboard
        writer.add_scalar("x", 0.0, 0)
        writer.add_scalars("both", {"a": 0.0}, 0)
    yield writer, Path(store.tb_dir)


@pytest.mark.parametrize("method", KEPT)
def test_a_kept_writer_of_a_closed_store_says_so(kept: tuple[Any, Path], method: str) -> None:
    writer, folder = kept
    before = {path: path.stat().st_size for path in folder.rglob("*")}
    with pytest.raises(ClosedError, match=rf"the store of run .*{folder.parent.name} is closed: open it"):
        KEPT[method](writer)
    writer.flush()
    writer.close()
    assert {path: path.stat().st_size for path in folder.rglob("*")} == before


def test_a_kept_writer_keeps_its_store_open(out: Path) -> None:
    writer = Store(out, "run").tensorboard
    gc.collect()
    writer.add_scalar("x", 1.0, 0)
    assert points(out / "run/tensorboard") == {"x": [(0, 1.0)]}


def test_an_event_file_that_was_removed_is_begun_anew(out: Path) -> None:
    with Store(out, "run") as store:
        for step in range(3):
            log_both(store, range(step, step + 1), 1.0)
            store.tensorboard.add_scalar("x", 1.0, step)
            if step == 1:
                for path in Path(store.tb_dir).rglob("*tfevents*"):
                    path.unlink()
    assert points(out / "run/tensorboard") == {"x": [(2, 1.0)]}
    assert points(out / "run/tensorboard/loss/val") == {"loss": [(2, -1.0)]}


def test_points_of_a_run_that_was_removed_are_an_error_and_bring_nothing_back(out: Path) -> None:
    store = Store(out, "run")
    writer = store.tensorboard
    log_both(store, range(2), 1.0)
    shutil.rmtree(out / "run")
    for method in ("add_scalar", "add_scalars"):
        with pytest.raises(StorageError, match="No such file or directory"):
            KEPT[method](writer)
    writer.close()
    with pytest.raises(StorageError, match="cannot make an event file"):
        writer.add_scalar("x", 1.0, 0)
    assert list(out.iterdir()) == []
    with contextlib.suppress(StorageError):
        store.close()


# --- log_table_and_tb(step=)


def test_a_step_is_where_tensorboard_shows_a_row_and_nothing_for_the_table(out: Path) -> None:
    torch = pytest.importorskip("torch")
    steps: list[Any] = [0, np.int32(100), torch.tensor(200), np.array([300]), 400.0]
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float, "note": str})
        for row, step in enumerate(steps):
            store.log_table_and_tb("t", {"x": row}, step=step)
            store.log_table_and_tb("t", {"note": "n"}, "text", step=step)
            table.flush_row()
        assert list(table.df) == ["x", "note"]
        assert table.df["x"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    events = EventAccumulator(store.tb_dir, size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Scalars("t/x")] == [0, 100, 200, 300, 400]
    assert [event.step for event in events.Tensors("t/note/text_summary")] == [0, 100, 200, 300, 400]
    assert set(events.Tags()["scalars"]) | set(events.Tags()["tensors"]) == {"t/x", "t/note/text_summary"}


@pytest.mark.parametrize("step", [0.5, float("nan"), float("inf"), "3", 2**63, True, [1], np.arange(2), 1j])
def test_a_step_that_is_not_a_whole_number_is_refused_before_anything_is_written(
    out: Path, step: Any
) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float | None})
        with pytest.raises(RowError, match="step=.* is not a whole number"):
            store.log_table_and_tb("t", {"x": 1.0}, step=step)
        table.flush_row()
        assert table.df["x"].isna().tolist() == [True]
        assert list(Path(store.tb_dir).iterdir()) == []


def test_a_rewind_by_rows_forgets_from_the_step_of_the_row(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float, "y": float | None})
        for row in range(10):
            store.log_table_and_tb("t", {"x": 1.0}, step=100 * row)
            table.flush_row()
    with Store(out, "run") as store:
        store.rewind("t", 6)
        store.log_table_and_tb("t", {"x": 2.0}, step=5000)
        store["t"].flush_row()
        store.log_table_and_tb("t", {"x": 2.0}, step=6000)
        store["t"].flush_row()
        store.rewind("t", 7)  # what was purged before does not count: row 6 is at 5000 by now
        store.tensorboard.add_scalar("after", 1.0, 0)
    steps = [step for step, _ in points(out / "run/tensorboard")["t/x"]]
    assert steps == [0, 100, 200, 300, 400, 500, 5000]


def test_a_rewind_by_a_column_forgets_from_the_step_of_the_row(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"epoch": int, "x": float})
        for epoch in range(10):
            store.log_table_and_tb("t", {"epoch": epoch, "x": 1.0}, step=7 * epoch)
            table.flush_row()
        store.rewind("t", step=4, column="epoch")
        store.tensorboard.add_scalar("after", 1.0, 0)
    assert [step for step, _ in points(out / "run/tensorboard")["t/x"]] == [0, 7, 14, 21]


def test_many_rows_of_few_steps_are_not_taken_for_numbers_of_rows(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"epoch": int, "x": float})
        for row in range(100):
            store.log_table_and_tb("t", {"epoch": row // 10, "x": 1.0}, step=row // 10)
            table.flush_row()
        store.rewind("t", step=5, column="epoch")
        assert table.nrows == 50
        store.tensorboard.add_scalar("after", 1.0, 0)
    assert max(step for step, _ in points(out / "run/tensorboard")["t/x"]) == 4


def test_rows_with_a_step_are_not_redrawn_by_their_number(out: Path) -> None:
    from cox.integrity.redraw import redraw

    with Store(out, "run") as store:
        table = store.add_table("t", {"x": float})
        for row in range(12):
            store.log_table_and_tb("t", {"x": 1.0}, step=3 * (row // 3))
            table.flush_row()
    assert redraw(out / "run") == {}
