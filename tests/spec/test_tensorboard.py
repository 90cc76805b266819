"""SPEC C15, C17 to C19 and C25 to C27: TensorBoard, written and shown."""

from __future__ import annotations

import re
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter

from cox import tensorboard_view
from cox.errors import CollectionWarning, CoxWarning, IrregularFileError, RowError, TableNotFoundError
from cox.readers import CollectionReader
from cox.store import OBJECT, PICKLE, Store, schema_from_dict
from cox.tensorboard_view import ViewError, links
from cox.utils import Parameters
from tests.viewer import Viewer

if TYPE_CHECKING:
    from tests.conftest import Program

Points = list[tuple[int, float]]
#: Red, green and blue, each four by four.
PICTURE = np.zeros((3, 4, 4))


def accumulated(run: str | Path) -> EventAccumulator:
    """What TensorBoard's own reader finds in a run's event files."""
    events = EventAccumulator(str(Path(run, "tensorboard")), size_guidance={"scalars": 0, "histograms": 0})
    return events.Reload()


def curves(run: str | Path) -> dict[str, Points]:
    """Steps and values of every scalar."""
    events = accumulated(run)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def all_tags(run: str | Path) -> list[str]:
    """The tags of every kind of summary, sorted."""
    kinds = accumulated(run).Tags().values()
    return sorted({tag for tags in kinds if isinstance(tags, list) for tag in tags})


# --- C15


def test_c15_tensorboard_files_are_readable_at_once_after_close(out: Path) -> None:
    store = Store(out, "one")
    store.add_table("results", {"x": float})
    for x in range(1000):
        store.log_table_and_tb("results", {"x": x})
        store["results"].flush_row()
    store.close()
    assert curves(store.path) == {"results/x": [(x, x) for x in range(1000)]}


def test_c15_tensorboard_files_are_whole_where_a_program_never_closed(
    out: Path, run: Callable[..., list[str]]
) -> None:
    run(
        """
        import sys
        from cox.store import Store

        store = Store(sys.argv[1], "one")
        store.add_table("results", {"x": float})
        for x in range(100):
            store.log_table_and_tb("results", {"x": x})
            store["results"].flush_row()
        """,
        out,
    )
    assert curves(out / "one") == {"results/x": [(x, x) for x in range(100)]}


# --- C17


def test_c17_writer_is_tensorboard(out: Path) -> None:
    with Store(out, "one") as store:
        assert store.writer is store.tensorboard
        assert store.writer is store.writer
        assert isinstance(store.writer, SummaryWriter)
        assert store.writer.logdir == store.tb_dir
        for x in range(10):
            store.writer.add_scalar("line", 2 * x, x)
            store.tensorboard.add_scalar("parabola", x * x, x)
        store.tensorboard.add_image("picture", np.zeros((3, 4, 4)), 0)
    assert curves(store.path) == {
        "line": [(x, 2 * x) for x in range(10)],
        "parabola": [(x, x * x) for x in range(10)],
    }
    assert accumulated(store.path).Tags()["images"] == ["picture"]


def test_c17_a_run_that_uses_no_tensorboard_has_no_event_files(out: Path) -> None:
    with Store(out, "one") as store:
        store.add_table("results", {"x": float}).append_row({"x": 1.0})
    assert list(Path(store.tb_dir).iterdir()) == []


def test_c17_reopening_adds_to_what_is_there(out: Path) -> None:
    for step in range(3):
        with Store(out, "one") as store:
            store.writer.add_scalar("x", step, step)
    assert curves(out / "one") == {"x": [(0, 0), (1, 1), (2, 2)]}


# --- C18


def test_c18_one_point_a_row_under_table_and_column(out: Path) -> None:
    with Store(out, "one") as store:
        store.add_table("line graphs", {"mx": int, "mx^2": float, "on": bool})
        for x in range(10):
            store.log_table_and_tb("line graphs", {"mx": 3 * x, "mx^2": 0.5 * x * x, "on": x % 2 == 0})
            store["line graphs"].flush_row()
    assert curves(store.path) == {
        "line graphs/mx": [(x, 3 * x) for x in range(10)],
        "line graphs/mx^2": [(x, 0.5 * x * x) for x in range(10)],
        "line graphs/on": [(x, 1 - x % 2) for x in range(10)],
    }
    frame = Store(out, "one", mode="r")["line graphs"].df
    assert frame["mx"].tolist() == [3 * x for x in range(10)]


def test_c18_does_not_flush(out: Path) -> None:
    with Store(out, "one") as store:
        table = store.add_table("results", {"x": float})
        store.log_table_and_tb("results", {"x": 1})
        assert table.nrows == 0
        assert len(table.df) == 0
        store.log_table_and_tb("results", {"x": 2})  # the same row still, and so the same step
        table.flush_row()
        assert table.df["x"].tolist() == [2.0]
    assert curves(store.path) == {"results/x": [(0, 1), (0, 2)]}


@pytest.mark.parametrize(
    "column", ["f(x)", "mx^2", "a b", "a/b", "norm(w_t)", "é漢", "x:y,z", "-", "", "a\\b"]
)
def test_c18_tags_are_exactly_table_and_column(out: Path, column: str) -> None:
    # SummaryWriter.add_scalar writes `f_x_`, and would make one curve of `f(x)` and `f[x]`
    with Store(out, "one") as store:
        store.add_table("L1 ball", {column: float})
        store.log_table_and_tb("L1 ball", {column: 0.5})
        store["L1 ball"].flush_row()
    assert curves(store.path) == {f"L1 ball/{column}": [(0, 0.5)]}


def test_c18_the_step_goes_on_after_reopening(out: Path) -> None:
    for value in (1.0, 2.0):
        with Store(out, "one") as store:
            store.add_table("results", {"x": float})
            store.log_table_and_tb("results", {"x": value})
            store["results"].flush_row()
    assert curves(out / "one") == {"results/x": [(0, 1), (1, 2)]}


def test_c18_missing_values_are_no_points(out: Path) -> None:
    with Store(out, "one") as store:
        store.add_table("results", {"x": float | None, "y": float})
        for x in (1.0, None, 3.0):
            store.log_table_and_tb("results", {"x": x, "y": float("nan")})
            store["results"].flush_row()
    points = curves(store.path)
    assert points["results/x"] == [(0, 1), (2, 3)]
    assert [step for step, _ in points["results/y"]] == [0, 1, 2]
    assert all(np.isnan(value) for _, value in points["results/y"])


def test_c18_whatever_a_column_takes_as_a_number_is_a_point(out: Path) -> None:
    torch = pytest.importorskip("torch")
    values: list[Any] = [
        np.float32(0.5),
        np.array([0.5]),
        torch.tensor(0.5, requires_grad=True),
        torch.tensor([0.5], dtype=torch.bfloat16),
        "0.5",
    ]
    with Store(out, "one") as store:
        store.add_table("results", {"x": float, "o": OBJECT})
        for value in values:
            store.log_table_and_tb("results", {"x": value, "o": np.float64(2)})
            store["results"].flush_row()
    points = curves(store.path)
    assert points["results/x"] == [(step, 0.5) for step in range(len(values))]
    assert points["results/o"] == [(step, 2.0) for step in range(len(values))]


@pytest.mark.parametrize(
    ("row", "summary_type", "named"),
    [
        ({"x": 9.0, "unknown": 1.0}, "scalar", ["'unknown'", "'x'", "'n'"]),
        ({"x": 9.0, "n": "many"}, "scalar", ["'results'", "'n'", "'many'"]),
        ({"x": 9.0, "n": 2**70}, "scalar", ["'results'", "'n'", str(2**70)]),
        ({"x": None}, "scalar", ["'results'", "'x'", "None"]),
        ({"x": 9.0, "text": "words"}, "scalar", ["'results'", "'text'", "'words'", "no scalar"]),
        ({"x": 9.0, "o": [1, 2]}, "scalar", ["'results'", "'o'", "[1, 2]", "no scalar"]),
        ({"x": 9.0, "p": {"a": 1}}, "scalar", ["'results'", "'p'", "no scalar"]),
        ({"x": 9.0, "o": 2**2000}, "scalar", ["'results'", "'o'", str(2**2000)[:99], "no scalar"]),
        ({"x": 9.0}, "no_such", ["'no_such'", "'scalar'", "'histogram'"]),
        ({"x": 9.0, "unknown": np.arange(3)}, "histogram", ["'unknown'"]),
        ({"x": 9.0, "o": "words"}, "histogram", ["'results'", "'o'", "type str", "'histogram'"]),
        ({"p": np.arange(3), "o": []}, "histogram", ["'results'", "'o'", "type list", "no element"]),
        ({"text": "fine", "o": 3}, "text", ["'o'", "type int", "'text'", "'encode'", "update_row"]),
        (
            {"o": PICTURE, "p": PICTURE[0]},
            "image",
            ["'p'", "type ndarray", "'image'", "(4, 4)", "update_row"],
        ),
        ({"o": PICTURE[None], "p": [PICTURE]}, "images", ["'p'", "type list", "'images'", "update_row"]),
        ({"o": {"a": 1}}, "figure", ["'o'", "type dict", "'figure'", "update_row"]),
        ({"o": "words"}, "audio", ["'o'", "type str", "'audio'", "update_row"]),
        ({"o": "words"}, "video", ["'o'", "type str", "'video'", "update_row"]),
    ],
)
def test_c18_what_is_refused_reaches_neither_side(
    out: Path, row: dict[str, Any], summary_type: str, named: list[str]
) -> None:
    with Store(out, "one") as store:
        table = store.add_table("results", {"x": float, "n": int, "text": str, "o": OBJECT, "p": PICKLE})
        store.log_table_and_tb("results", {"x": 1.0})
        with pytest.raises(RowError) as refused:
            store.log_table_and_tb("results", row, summary_type)
        assert [word for word in named if word not in str(refused.value)] == []
        table.update_row({"n": 1, "text": "t", "o": 0, "p": 0})
        table.flush_row()
        assert table.df["x"].tolist() == [1.0]
        objects = [path.name for path in Path(store.path, ".table_objects").iterdir()]
        assert objects == table.df["p"].tolist()  # nothing half-written beside the row's own
    assert curves(store.path) == {"results/x": [(0, 1.0)]}
    assert all_tags(store.path) == ["results/x"]


ONE_VALUE = {"audio", "figure", "histogram", "image", "images", "scalar", "text", "video"}


# of the rest, some want more than a value, and add_scalars, add_hparams and add_embedding make files
@pytest.mark.parametrize(
    "summary_type", sorted({name[4:] for name in dir(SummaryWriter) if name.startswith("add_")} - ONE_VALUE)
)
def test_c18_a_summary_that_is_made_of_more_than_a_value_is_refused(out: Path, summary_type: str) -> None:
    with Store(out, "one") as store:
        table = store.add_table("results", {"o": OBJECT})
        with pytest.raises(
            RowError, match=f"summary_type='{summary_type}': choose one of .*store.tensorboard"
        ):
            store.log_table_and_tb("results", {"o": {"a": 1.0}}, summary_type)
        with pytest.raises(RowError, match="'o'"):  # there is no working row
            table.flush_row()
    assert list(Path(store.tb_dir).iterdir()) == []


def test_c18_the_error_of_tensorboardx_is_the_cause(out: Path) -> None:
    with Store(out, "one") as store:
        store.add_table("results", {"o": OBJECT})
        with pytest.raises(RowError) as refused:
            store.log_table_and_tb("results", {"o": {"a": 1}}, "image")
    assert isinstance(refused.value.__cause__, NotImplementedError)
    assert str(refused.value).startswith(
        "table 'results', column 'o': TensorBoard cannot show a value of type dict as 'image' (NotImpl"
    )


def test_c18_a_package_that_is_missing_is_an_error(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    # what it does without moviepy: it logs that, and writes a summary with nothing in it
    monkeypatch.setattr("tensorboardX.summary.make_video", lambda *_: None)
    with Store(out, "one") as store:
        store.add_table("results", {"o": OBJECT})
        with pytest.raises(RowError, match="'o'.*'audio'.*soundfile"):
            store.log_table_and_tb("results", {"o": np.zeros(9)}, "audio")
        with pytest.raises(RowError, match="'o'.*'video'.*nothing"):
            store.log_table_and_tb("results", {"o": np.zeros((1, 2, 3, 4, 4))}, "video")
    assert list(Path(store.tb_dir).iterdir()) == []


def test_c18_a_table_that_is_not_there(out: Path) -> None:
    with Store(out, "one") as store:
        store.add_table("results", {"x": float})
        with pytest.raises(TableNotFoundError, match="'result'.*'results'"):
            store.log_table_and_tb("result", {"x": 1.0})
    assert list(Path(store.tb_dir).iterdir()) == []


def test_c18_other_summaries(out: Path) -> None:
    with Store(out, "one") as store:
        table = store.add_table("results", {"weights": OBJECT, "note": str})
        store.log_table_and_tb("results", {"weights": np.arange(10)}, "histogram")
        store.log_table_and_tb("results", {"note": "begun"}, summary_type="text")
        table.flush_row()
        assert table.get_object(table.df["weights"][0]).tolist() == list(range(10))
    events = accumulated(store.path)
    assert [(e.step, e.histogram_value.num) for e in events.Histograms("results/weights")] == [(0, 10)]
    assert events.Tensors("results/note/text_summary")[0].tensor_proto.string_val == [b"begun"]


def test_c18_pictures(out: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(1, 2), dpi=10)
    with Store(out, "one") as store:
        table = store.add_table("results", {"i": PICKLE, "batch": PICKLE, "figure": PICKLE})
        store.log_table_and_tb("results", {"i": PICTURE}, "image")
        store.log_table_and_tb("results", {"batch": np.stack([PICTURE, PICTURE])}, "images")
        store.log_table_and_tb("results", {"figure": figure}, "figure")
        table.flush_row()
    events = accumulated(store.path)
    sizes = {
        tag: [(e.step, e.width, e.height) for e in events.Images(tag)] for tag in events.Tags()["images"]
    }
    assert sizes == {"results/i": [(0, 4, 4)], "results/batch": [(0, 8, 4)], "results/figure": [(0, 10, 20)]}


@pytest.mark.parametrize(
    ("summary_type", "value"), [("histogram", np.arange(10)), ("text", "words"), ("image", PICTURE)]
)
def test_c18_other_summaries_have_exact_tags_too(out: Path, summary_type: str, value: Any) -> None:
    # SummaryWriter would call both `L1_ball/f_x_`
    with Store(out, "one") as store:
        table = store.add_table("L1 ball", {"f(x)": OBJECT, "f[x]": OBJECT, "tag/tag": OBJECT})
        store.log_table_and_tb("L1 ball", dict.fromkeys(table.schema, value), summary_type)
        table.flush_row()
    end = "/text_summary" if summary_type == "text" else ""
    assert all_tags(store.path) == [f"L1 ball/{column}{end}" for column in ("f(x)", "f[x]", "tag/tag")]


def test_c18_a_missing_value_is_not_shown(out: Path) -> None:
    with Store(out, "one") as store:
        table = store.add_table("results", {"note": str | None})
        table.add_column("o", OBJECT)
        table.add_column("p", PICKLE)
        for note in ("begun", None):
            store.log_table_and_tb("results", {"note": note, "o": None, "p": None}, "text")
            table.flush_row()
        assert table.nrows == 2
    events = accumulated(store.path)
    assert events.Tags()["tensors"] == ["results/note/text_summary"]
    assert [event.step for event in events.Tensors("results/note/text_summary")] == [0]


# --- C19


def test_c19_the_illustrative_example_runs(out: Path, run: Callable[..., list[str]]) -> None:
    printed = run(
        """
        import sys
        from cox.store import Store
        from cox.readers import CollectionReader

        OUT_DIR = sys.argv[1]

        def f(x, param):
            return (x - 50 * param) ** 2

        def g(x, param):
            return -x

        def run_experiment(param):
            store = Store(OUT_DIR)
            store.add_table("metadata", {"param": float})
            store["metadata"].append_row({"param": param})
            store.add_table("results", {"f(x)": float, "g(x)": float})
            for x in range(100):
                store.log_table_and_tb("results", {"f(x)": f(x, param)})
                store["results"].update_row({"g(x)": g(x, param)})
                store["results"].flush_row()
            store.close()

        for param in (0.5, 1.0, 1.5):
            run_experiment(param)

        reader = CollectionReader(OUT_DIR)
        df = reader.df("results")
        m_df = reader.df("metadata")
        exp_ids = set(m_df[m_df["param"] < 1.0]["exp_id"].tolist())
        print(len(df), len(df[df["exp_id"].isin(exp_ids)]))
        exp_id = df[df["f(x)"] == min(df["f(x)"].tolist())]["exp_id"].tolist()[0]
        print(m_df[m_df["exp_id"] == exp_id]["param"].tolist()[0] in (0.5, 1.0, 1.5))
        """,
        out,
    )
    assert printed == ["300 100", "True"]
    for _, (param, exp_id) in CollectionReader(out).df("metadata").iterrows():
        assert curves(out / exp_id) == {"results/f(x)": [(x, (x - 50 * param) ** 2) for x in range(100)]}
        frame = Store(out, exp_id, mode="r")["results"].df
        assert frame["f(x)"].tolist() == [(x - 50 * param) ** 2 for x in range(100)]
        assert frame["g(x)"].tolist() == [-x for x in range(100)]


# --- C25


@pytest.fixture
def shown(out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], int]]:
    """Call the command on two runs; what it shows, and on which port."""
    for exp_id, table, lr in (("a", "metadata", 0.1), ("b", "metadata", 0.2), ("c", "setup", 0.3)):
        with Store(out, exp_id) as store:
            store.add_table(table, {"lr": float, "arch": str}).append_row({"lr": lr, "arch": "resnet18"})
    seen: list[tuple[list[str], int]] = []

    def serve(targets: dict[str, Path], *, port: int, options: tuple[str, ...], **_: object) -> int:
        assert options == ()
        seen.append((list(targets), port))
        return 0

    monkeypatch.setattr(tensorboard_view, "serve", serve)

    def command(*arguments: object) -> tuple[list[str], int]:
        result = CliRunner().invoke(
            tensorboard_view.main, ["--logdir", str(out), *map(str, arguments)], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return seen.pop()

    return command


@pytest.mark.parametrize(
    ("arguments", "names", "port"),
    [
        (["--format-str", "lr-{lr}"], ["lr-0.1-a", "lr-0.2-b"], 6006),
        (["--format-str=lr-{lr}", "--port", 7007], ["lr-0.1-a", "lr-0.2-b"], 7007),
        (["--format-str", "x", "--metadata-table", "metadata"], ["x-a", "x-b"], 6006),
        (["--format-str", "{lr}", "--metadata-table", "setup"], ["0.3-c"], 6006),
        (["--format-str", "x", "--filter-param", "lr", "0.2"], ["x-b"], 6006),
        (
            ["--format-str", "x", "--filter-param", "arch", "res", "--filter-param", "lr", ".*1"],
            ["x-a"],
            6006,
        ),
    ],
)
def test_c25_the_options(
    shown: Callable[..., tuple[list[str], int]], arguments: list[object], names: list[str], port: int
) -> None:
    assert shown(*arguments) == (names, port)


def test_c25_the_argument_table() -> None:
    options = {
        option.opts[0]: (option.required, option.multiple, option.nargs, option.default)
        for option in tensorboard_view.main.params
        if isinstance(option, click.Option)
    }
    nothing = click.Option(["--x"]).default  # how this version of click says that there is none
    assert options == {
        "--logdir": (True, False, 1, nothing),
        "--format-str": (False, False, 1, nothing),
        "--port": (False, False, 1, 6006),
        "--metadata-table": (False, False, 1, "metadata"),
        "--filter-param": (False, True, 2, nothing),
        "--where": (False, False, 1, nothing),
        "--from-tables": (False, True, 1, nothing),
        "--nested": (False, False, 1, click.Option(["--x"], is_flag=True).default),
    }


def test_c25_what_is_required() -> None:
    result = CliRunner().invoke(tensorboard_view.main, ["--format-str", "x"])
    assert result.exit_code == 2
    assert "Missing option '--logdir'" in result.stderr


def test_c25_without_a_format_the_parameters_that_differ_are_shown(
    shown: Callable[..., tuple[list[str], int]],
) -> None:
    assert shown() == (["lr=0.1-a", "lr=0.2-b", "c"], 6006)  # c has no metadata
    assert shown("--where", "lr < 0.15 and arch == 'resnet18'") == (["lr=0.1-a"], 6006)


def test_c25_the_module_and_the_program_are_the_same_command(tmp_path: Path) -> None:
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    assert '\ncox-tensorboard = "cox.tensorboard_view:main"\n' in pyproject.read_text(encoding="utf-8")
    with Viewer(tmp_path, "--help") as view:
        assert view.end() == 0
        assert view.said.startswith("Usage: python -m cox.tensorboard_view [OPTIONS]")
        for option in (
            "--logdir",
            "--format-str",
            "--port",
            "--metadata-table",
            "--filter-param PARAM REGEX",
        ):
            assert option in view.said
        assert "end it with $" in view.said


# --- C26


def slopes(out: Path, *, names: tuple[str, ...] = ("run0", "run1", "run2", "run3", "run4")) -> None:
    """The runs of the seed's second walkthrough."""
    for slope, name in enumerate(names):
        with Store(out, name) as store:
            store.add_table("line_graphs", {"mx": int, "mx^2": int})
            store.add_table("metadata", {"slope": int}).append_row({"slope": slope})
            for x in range(10):
                store.log_table_and_tb("line_graphs", {"mx": slope * x, "mx^2": slope * x**2})
                store["line_graphs"].flush_row()


def test_c26_an_excluded_run_is_absent_from_tensorboard(out: Path, tmp_path: Path) -> None:
    slopes(out)
    arguments = ("--logdir", out, "--format-str", "slope-{slope}", "--filter-param", "slope", "[1-3]")
    with Viewer(tmp_path, *arguments, "--metadata-table", "metadata", "--port", "0") as view:
        assert view.runs(3) == ["slope-1-run1", "slope-2-run2", "slope-3-run3"]
        for slope in (1, 2, 3):
            name = f"slope-{slope}-run{slope}"
            assert view.scalars(name, "line_graphs/mx", 10) == [(x, slope * x) for x in range(10)]
            assert view.scalars(name, "line_graphs/mx^2", 10) == [(x, slope * x * x) for x in range(10)]
        assert sorted(view.get("/data/plugin/scalars/tags")) == view.runs(3)
        assert view.said == f"Showing 3 runs of {out}\n"


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ([("arch", "resnet")], ["resnet18", "resnet180"]),  # a match at the beginning is enough
        ([("arch", "resnet18$")], ["resnet18"]),
        ([("arch", "net")], []),
        ([("arch", ".*net")], ["resnet18", "resnet180", "xresnet"]),
        ([("arch", "(?i)RES")], ["resnet18", "resnet180"]),
        ([("lr", "0.1")], ["resnet18", "resnet180"]),
        ([("lr", "1e-05$")], ["xresnet"]),
        ([("on", "True")], ["resnet18"]),
        ([("arch", "resnet"), ("lr", "0.1$")], ["resnet18"]),
        ([("arch", "resnet"), ("arch", ".*0")], ["resnet180"]),  # upstream kept the last one only
        ([("arch", ".*0"), ("arch", "resnet")], ["resnet180"]),
    ],
)
def test_c26_filters_match_at_the_beginning_and_are_anded(
    out: Path, filters: list[tuple[str, str]], kept: list[str]
) -> None:
    for arch, lr, on in (("resnet18", 0.1, True), ("resnet180", 0.15, False), ("xresnet", 1e-5, False)):
        with Store(out, arch) as store:
            store.add_table("metadata", {"arch": str, "lr": float, "on": bool})
            store["metadata"].append_row({"arch": arch, "lr": lr, "on": on})
    if kept:
        assert list(links(out, "x", filters=filters)) == [f"x-{arch}" for arch in kept]
    else:
        with pytest.raises(ViewError, match="the values there are: arch: 'resnet18', 'resnet180', 'xresnet'"):
            links(out, "x", filters=filters)


def test_c26_a_filter_that_takes_for_ever_is_stopped(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cox.tensorboard.view.selection._PATIENCE", 0.2)
    with Store(out, "run") as store:
        store.add_table("metadata", {"arch": str}).append_row({"arch": "a" * 60 + "!"})
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(
        ViewError, match=r"--filter-param arch '\(a\+\)\+\$': takes more than 0.2 s on .* of run run"
    ):
        links(out, "x", filters=[("arch", "(a+)+$")])
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    monkeypatch.setattr("cox.tensorboard.view.selection._PATIENCE", 60.0)
    assert list(links(out, "x", filters=[("arch", "a+!")])) == ["x-run"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--format-str", "x", "--filter-param", "slop", "1"],
            ["'slop'", "['exp_id', 'slope']", "did you mean 'slope'?"],
        ),
        (
            ["--format-str", "{slop}"],
            ["'slop'", "['exp_id', 'slope']", "did you mean 'slope'?"],
        ),
        (
            ["--format-str", "x", "--filter-param", "slope", "[7-9]"],
            ["--filter-param slope '[7-9]'", "slope: 0, 1, 2, 3, 4"],
        ),
        (["--format-str", "x", "--filter-param", "slope", "["], ["--filter-param slope '['", "position 0"]),
    ],
)
def test_c26_a_mistake_is_an_error_with_what_there_is(
    out: Path, tmp_path: Path, arguments: list[str], said: list[str]
) -> None:
    slopes(out)
    with Viewer(tmp_path, "--logdir", out, *arguments, "--port", "0") as view:
        assert view.end() == 2
        assert view.said == ""
        assert view.complained.startswith(
            "Error: --" if "none of" not in view.complained else "Error: none of"
        )
        assert view.complained.count("\n") == 1
        assert [words for words in said if words not in view.complained] == []
        view.nothing_is_left()


# --- C27


def test_c27_names_are_exactly_as_promised(out: Path, tmp_path: Path) -> None:
    exp_id = str(uuid.uuid4())
    with Store(out, exp_id) as store:
        store.add_table("metadata", {"step_size": float}).append_row({"step_size": 1})
        store.writer.add_scalar("x", 0.5, 3)
    with Viewer(tmp_path, "--logdir", out, "--format-str", "ss-{step_size}", "--port", "0") as view:
        assert view.runs(1) == [f"ss-1.0-{exp_id}"]
        assert view.scalars(f"ss-1.0-{exp_id}", "x", 1) == [(3, 0.5)]


ODD = {
    "comma": "a,b",
    "colon": "a:b",
    "slash": "/etc/../x",
    "dots": "..",
    "space": " a  b ",
    "unicode": "é漢🙂",
    "shell": "$(touch ran) `touch ran`; touch ran & > ran | 'x' \"y\" \\",
    "escape": "\x1b[31m\n\0",
    "html": "<b>&amp;</b>%20#?",
    "long": "長" * 1000,
    "empty": "",
}


# TensorBoard's reader in Rust, and the one in Python
@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_c27_odd_characters_are_safe(out: Path, tmp_path: Path, load_fast: str) -> None:
    for exp_id, value in ODD.items():
        with Store(out, exp_id) as store:
            store.add_table("metadata", {"f(x)": str}).append_row({"f(x)": value})
            store.writer.add_scalar("x", len(value), 0)
    names = {exp_id: f"v={value}-{exp_id}" for exp_id, value in ODD.items()}
    names["slash"] = "v=_etc_.._x-slash"
    names["html"] = "v=<b>&amp;<_b>%20#?-html"
    names["escape"] = "v=_[31m__-escape"
    names["long"] = "v=" + "長" * 81 + "…-long"
    arguments = ("--logdir", out, "--format-str", "v={f(x)}", "--port", "0", "--", "--load_fast", load_fast)
    with Viewer(tmp_path, *arguments) as view:
        assert view.runs(len(ODD)) == sorted(names.values())
        for exp_id, name in names.items():
            assert view.scalars(name, "x", 1) == [(0, len(ODD[exp_id]))]
    assert list(tmp_path.rglob("ran")) == []


def test_c27_a_run_without_metadata_is_skipped_with_a_warning(out: Path, tmp_path: Path) -> None:
    slopes(out, names=("run0", "run1"))
    with Store(out, "bare") as store:
        store.writer.add_scalar("x", 0.5, 0)
    with pytest.warns(CollectionWarning, match="metadata.*: bare"):
        links(out, "{slope}")
    with Viewer(tmp_path, "--logdir", out, "--format-str", "{slope}", "--port", "0") as view:
        assert view.runs(2) == ["0-run0", "1-run1"]
        assert "Warning: left out, for want of a row in the table 'metadata': bare\n" in view.complained


def test_c27_no_shell_is_involved() -> None:
    folder = Path(tensorboard_view.__file__).parent
    files = [folder / "tensorboard_view.py", *folder.glob("tensorboard/**/*.py")]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    assert "tensorboard.main" in source  # what starts the server is among them
    assert not re.search(r"shell\s*=|os\.system|popen\(|getoutput|--logdir_spec['\"]", source)


@pytest.mark.slow
def test_c27_a_run_shows_while_it_is_written(
    out: Path, tmp_path: Path, start: Callable[..., Program]
) -> None:
    program = start(
        """
        import sys
        from cox.store import Store

        store = Store(sys.argv[1], "live")
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        store.add_table("results", {"loss": float})
        for loss in sys.stdin:
            store.log_table_and_tb("results", {"loss": loss})
            store["results"].flush_row()
            print(loss.strip())
        """,
        out,
    )
    program.tell("4.0")
    assert program.line() == "4.0"
    arguments = ("--logdir", out, "--format-str", "{lr}", "--port", "0", "--", "--reload_interval", "1")
    with Viewer(tmp_path, *arguments) as view:
        assert view.runs(1) == ["0.5-live"]
        assert view.scalars("0.5-live", "results/loss", 1) == [(0, 4.0)]
        program.tell("2.0")
        assert program.line() == "2.0"
        assert view.scalars("0.5-live", "results/loss", 2) == [(0, 4.0), (1, 2.0)]
        program.finish()


# --- HParams: runs compared by their parameters


def hparams_of(out: Path, exp_id: str) -> list[dict[str, Any]]:
    """The parameters that TensorBoard's plugin finds in a run, one mapping for each time they were told."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

    accumulator = EventAccumulator(str(out / exp_id / "tensorboard"))
    accumulator.Reload()
    try:
        found = accumulator.PluginTagToContent("hparams")
    except KeyError:
        return []
    return [
        {
            name: getattr(value, value.WhichOneof("kind"))
            for name, value in metadata.parse_session_start_info_plugin_data(content).hparams.items()
        }
        for tag, content in found.items()
        if tag == SESSION_START_INFO_TAG
    ]


def test_hparams_are_those_of_the_metadata(out: Path) -> None:
    with Store(out, "before") as store:
        metadata = {"lr": float, "arch": str, "deep": bool, "layers": OBJECT, "none": str | None}
        store.add_table("metadata", metadata).append_row(
            {"lr": 0.1, "arch": "resnet18", "deep": True, "layers": [1, 2]}
        )
        store.add_table("results", {"acc": float})
        store.log_table_and_tb("results", {"acc": 0.5})
        store["results"].flush_row()
    told = {"lr": 0.1, "arch": "resnet18", "deep": True, "layers": "[1, 2]"}
    assert hparams_of(out, "before") == [told]
    with Store(out, "after") as store:
        store.writer.add_scalar("loss", 1.0, 0)
        store.add_table("metadata", {"seed": int}).append_row({"seed": 3})
    assert hparams_of(out, "after") == [{"seed": 3}]
    with Store(out, "none") as store:
        store.writer.add_scalar("loss", 1.0, 0)
    assert hparams_of(out, "none") == []
    with Store(out, "of Parameters") as store:
        parameters = Parameters({"lr": 0.5})
        store.add_table("metadata", schema_from_dict(vars(parameters))).append_row(vars(parameters))
        store.writer.add_scalar("loss", 1.0, 0)
    assert hparams_of(out, "of Parameters") == [{"lr": 0.5}]


def test_hparams_can_be_chosen_and_there_must_be_some(out: Path) -> None:
    with Store(out, "run") as store:
        with pytest.raises(RowError, match="no parameters"):
            store.log_hparams()
        store.log_hparams({"lr": 0.1})
    assert hparams_of(out, "run") == [{"lr": 0.1}]
    assert len(list((out / "run" / "tensorboard").iterdir())) == 1  # and no run of its own


def test_chosen_hparams_come_before_those_of_the_metadata(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
        store.log_hparams({"lr": 0.1, "depth": 3})
        store.writer.add_scalar("loss", 1.0, 0)
        store.log_hparams({"depth": 3, "lr": 0.1}, metrics={"best": 1.0})  # again is no other
    assert hparams_of(out, "run") == [{"lr": 0.1, "depth": 3}]


def test_chosen_hparams_that_come_too_late_are_a_warning(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
        store.writer.add_scalar("loss", 1.0, 0)
        with pytest.warns(CoxWarning, match="run run: TensorBoard has been told other .* before anything"):
            store.log_hparams({"depth": 3})
        store.log_hparams(metrics={"best": 1.0})


def test_chosen_metrics_may_come_with_their_values(out: Path) -> None:
    with Store(out, "run") as store:
        with pytest.raises(RowError, match="metric 'final/acc': 'good' is no number"):
            store.log_hparams({"lr": 0.1}, metrics={"final/loss": 0.5, "final/acc": "good"})
        assert not list((out / "run" / "tensorboard").iterdir())
        store.log_hparams({"lr": 0.1}, metrics={"final/acc": np.float32(0.75), "final/loss": 1})
    assert hparams_of(out, "run") == [{"lr": 0.1}]
    assert curves(out / "run") == {"final/acc": [(0, 0.75)], "final/loss": [(0, 1.0)]}


def test_hparams_of_a_run_without_tensorboard_make_no_event_file(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.1})
    assert list((out / "run" / "tensorboard").iterdir()) == []


class Mute:
    def __repr__(self) -> str:
        raise ValueError("no word")


def test_hparams_of_any_value_stop_no_program(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = {
        "big": 2**70,
        "beyond": 10**400,
        "small": -(2**64),
        "half": "a\ud800",
        "nan": float("nan"),
        "inf": float("inf"),
        "mute": Mute(),
        "k\ud800": 1,
    }
    with Store(out, "run") as store:
        store.log_hparams(odd)
    told = hparams_of(out, "run")[0]
    assert "Mute object at" in told.pop("mute")
    assert told == {
        "big": 2.0**70,
        "small": -(2.0**64),
        "half": "a\\ud800",
        "k\\ud800": 1,
    }
    assert capfd.readouterr() == ("", "")


def test_hparams_by_themselves_never_cost_a_row(out: Path) -> None:
    values = {"lr": float("nan"), "half": "a\ud800", "big": 2**70, "of": {"x": float("inf")}}
    with Store(out, "run") as store:
        store.add_table("metadata", {"params": OBJECT, "mute": OBJECT})
        store["metadata"].append_row({"params": values, "mute": Mute()})
        store.add_table("results", {"acc": float})
        store.log_table_and_tb("results", {"acc": 0.5})
        store["results"].flush_row()
    assert curves(out / "run") == {"results/acc": [(0, 0.5)]}
    told = hparams_of(out, "run")[0]
    assert told.keys() == {"half", "big", "of", "mute"}
    assert (told["half"], told["big"]) == ("a\\ud800", 2.0**70)


def test_hparams_that_cannot_be_told_are_a_word_in_the_log(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("cox.tensorboard.summaries.hparams", fail)
    with Store(out, "run") as store:
        store.add_table("metadata", {"lr": float}).append_row({"lr": 0.5})
        store.writer.add_scalar("loss", 1.0, 0)
        with pytest.raises(RuntimeError):
            store.log_hparams()
    assert [record.message for record in caplog.records if "no such luck" in record.message] == [
        "run run: TensorBoard gets no parameters: RuntimeError('no such luck')"
    ]
    assert curves(out / "run") == {"loss": [(0, 1.0)]}


def test_metrics_without_values_are_refused(out: Path) -> None:
    with Store(out, "run") as store, pytest.raises(RowError, match="metrics='acc': give tags with their val"):
        store.log_hparams({"lr": 0.1}, metrics="acc")  # type: ignore[arg-type]
    assert not list((out / "run" / "tensorboard").iterdir())


def test_hparams_of_numpy_and_torch_are_numbers(out: Path) -> None:
    torch = pytest.importorskip("torch")
    with Store(out, "run") as store:
        store.log_hparams(
            {
                "int": np.int64(3),
                "float": np.float64(0.5),
                "bool": np.bool_(True),
                "tensor": torch.tensor(2.5),
            }
        )
    assert hparams_of(out, "run") == [{"int": 3.0, "float": 0.5, "bool": True, "tensor": 2.5}]


# --- Several ranks, and beginning anew


def test_each_rank_has_its_own_curves_and_the_first_tells_the_parameters(out: Path) -> None:
    for rank in (0, 1):
        with Store(out, "run", rank=rank) as store:
            store.add_table("metadata", {"lr": float})
            if rank == 0:
                store["metadata"].append_row({"lr": 0.1})
            store.add_table("t", {"x": float})
            for step in range(3):
                store.log_table_and_tb("t", {"x": 10.0 * rank + step})
                store["t"].flush_row()
    assert curves(out / "run") == {"t/x": [(0, 0.0), (1, 1.0), (2, 2.0)]}
    assert hparams_of(out, "run") == [{"lr": 0.1}]
    own = EventAccumulator(str(out / "run" / "tensorboard" / "rank-1")).Reload()
    assert [point.value for point in own.Scalars("t/x")] == [10.0, 11.0, 12.0]
    assert list(links(out)) == ["run"]  # and not rank=0-run


def test_mode_w_begins_the_curves_anew(out: Path) -> None:
    for lr, rows in ((0.1, 5), (0.9, 2)):
        with Store(out, "run", mode="w") as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": lr})
            store.add_table("t", {"x": float})
            for _ in range(rows):
                store.log_table_and_tb("t", {"x": lr})
                store["t"].flush_row()
    assert curves(out / "run") == {"t/x": [(0, pytest.approx(0.9)), (1, pytest.approx(0.9))]}
    assert hparams_of(out, "run") == [{"lr": 0.9}]


def test_mode_w_removes_event_files_and_nothing_else(out: Path) -> None:
    with Store(out, "run") as store:
        store.writer.add_scalar("x", 1.0, 0)
    folder = out / "run" / "tensorboard"
    (folder / "eval").mkdir()
    own = [folder / "notes on tfevents.md", folder / "eval" / "events.out.tfevents.1.host"]
    for path in own:
        path.write_text("mine")
    (folder / "old tfevents").mkdir()
    Store(out, "run", mode="w").close()
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(own)
    shared = out.parent / "shared"
    folder.rename(shared)
    folder.symlink_to(shared)
    (shared / "events.out.tfevents.2.other").touch()
    with pytest.raises(IrregularFileError, match="tensorboard is a link"):
        Store(out, "run", mode="w")
    assert (shared / "events.out.tfevents.2.other").exists()


def test_mode_w_of_a_rank_begins_its_own_curves_anew_beside_others(out: Path) -> None:
    with Store(out, "run", rank=0) as first:
        first.add_table("t", {"x": float})
        for value in (1.0, 2.0):
            with Store(out, "run", mode="w", rank=1) as second:
                second.add_table("t", {"x": float})
                second.log_table_and_tb("t", {"x": value})
                second["t"].flush_row()
        first.log_table_and_tb("t", {"x": 9.0})
        first["t"].flush_row()
    own = EventAccumulator(str(out / "run" / "tensorboard" / "rank-1")).Reload()
    assert [point.value for point in own.Scalars("t/x")] == [2.0]
    assert curves(out / "run") == {"t/x": [(0, 9.0)]}


def test_mode_w_leaves_the_curves_of_a_rank_that_is_at_it(out: Path) -> None:
    with Store(out, "run", rank=1) as other:
        other.add_table("t", {"x": float})
        other.log_table_and_tb("t", {"x": 1.0})
        other["t"].flush_row()
        Store(out, "run", mode="w", rank=0).close()
        assert list((out / "run" / "tensorboard" / "rank-1").iterdir())


# --- A rewind, and from where on it purges


def test_a_rewind_by_step_knows_the_rows_of_other_tables(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("val", {"acc": float})
        store.add_table("t", {"step": int, "x": float})
        for step in range(0, 1000, 100):
            store.log_table_and_tb("t", {"step": step, "x": 0.5})
            store["t"].flush_row()
        store.log_table_and_tb("val", {"acc": 0.5})
        store["val"].flush_row()
        store.rewind("t", step=500)
        store.writer.add_scalar("after", 1.0, 0)
    assert [step for step, _ in curves(out / "run")["t/x"]] == list(range(5))
    assert curves(out / "run")["val/acc"] == [(0, 0.5)]


@pytest.mark.parametrize("by_hand", [False, True], ids=["rows", "a curve of its own"])
def test_a_rewind_by_step_purges_what_counts_rows_by_rows(out: Path, by_hand: bool) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"step": int, "x": float})
        for step in range(0, 2000, 100):
            if by_hand:
                store.writer.add_scalar("loss", 0.5, step)
                store["t"].update_row({"step": step, "x": 0.5})
            else:
                store.log_table_and_tb("t", {"step": step, "x": 0.5})
            store["t"].flush_row()
        store.rewind("t", step=1000)
        store.writer.add_scalar("after", 1.0, 0)
    (found,) = curves(out / "run").keys() - {"after", "t/step"}
    steps = [step for step, _ in curves(out / "run")[found]]
    assert steps == list(range(0, 1000, 100) if by_hand else range(10))


def test_a_rewind_hides_no_point_of_a_curve_that_counts_otherwise(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("train", {"step": int, "loss": float})
        for step in range(0, 1000, 100):
            table.append_row({"step": step, "loss": 0.5})
            store.writer.add_scalar("train/loss", 0.5, step)  # under the tag that log_table_and_tb would take
            store.writer.add_scalar("lr", 0.1, step)
        store.rewind("train", step=500)
        store.writer.add_scalar("train/loss", 0.5, 500)
    assert [step for step, _ in curves(out / "run")["train/loss"]] == list(range(0, 600, 100))
    assert [step for step, _ in curves(out / "run")["lr"]] == list(range(0, 500, 100))


def test_a_rewind_purges_behind_a_large_picture_and_without_scalars(out: Path) -> None:
    with Store(out, "run") as store:
        store.writer.add_image("noise", np.random.default_rng(0).random((3, 200, 200)), 0)
        table = store.add_table("t", {"x": PICKLE})
        for row in range(4):
            store.log_table_and_tb("t", {"x": np.arange(5.0) + row}, "histogram")
            table.flush_row()
    with Store(out, "run") as store:
        store.rewind("t", 2)
        store.writer.add_scalar("after", 1.0, 0)
    found = EventAccumulator(str(out / "run" / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    assert [event.step for event in found.Histograms("t/x")] == [0, 1]


def test_a_rewind_purges_once(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": float})
        for x in (0.0, 1.0, 2.0):
            store.log_table_and_tb("t", {"x": x})
            store["t"].flush_row()
        store.rewind("t", 1)
        for x in (10.0, 20.0):
            store.log_table_and_tb("t", {"x": x})
            store["t"].flush_row()
            store.writer.close()  # the next point begins a new file
    assert curves(out / "run") == {"t/x": [(0, 0.0), (1, 10.0), (2, 20.0)]}


def test_a_rewind_without_a_tensorboard_directory_is_one(out: Path) -> None:
    with Store(out, "run") as store:
        store.add_table("t", {"x": float}).append_row({"x": 1.0})
        (out / "run" / "tensorboard").rmdir()
        store.rewind("t", 0)
        assert store["t"].nrows == 0
