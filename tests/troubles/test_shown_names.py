"""Names of a stranger's run, shown: in TensorBoard, in plots, in notebooks, as files; and typed back.

Names of runs, tables, columns and parameters may have parts of paths, control characters, line breaks, what
turns text around, formulas, bytes that are not UTF-8, and any length.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cox
from cox.cli.commands.plot import _file_name
from cox.collection.dataset import directory_of, path_of, place_of
from cox.collection.naming import quoted, readable, resolve
from cox.display.text import printable
from cox.errors import RunNameError
from cox.storage.curvefiles import event_files
from cox.tensorboard import summaries, tfrecords
from cox.tensorboard.view import names
from cox.tensorboard.view.from_tables import TableEvents
from cox.tensorboard.view.links import LinkDirectory
from cox.tensorboard.view.selection import Selection
from cox.tensorboard_view import links
from tests.cli.conftest import Call, call

__all__ = ["call"]

RUNS = [
    "esc\x1b[31mred",
    "new\nline",
    "bidi\u202eoops",
    os.fsdecode(b"bad\xff"),
    "$a$b\\frac",
    "x" * 200,
    "-o",
]
PARAM = "p\x1b]0;x\x07$a$b\\frac_{"
TABLE = "up/\x1b[2J\u202e$x$ _{<script>"
LOSS, OTHER = "lo\x1b$s$\\q", "lo\x07$s$\\q"
#: Any name that a file system may have: bytes, but `/` and NUL.
_file_names = st.binary(min_size=1, max_size=40).map(
    lambda name: os.fsdecode(name.replace(b"/", b"-").replace(b"\0", b"-"))
)
_texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("/.\x1b\n%~ab"), max_size=300)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for number, name in enumerate(RUNS):
        with cox.Store(folder, f"run{number}") as store:
            store.tensorboard  # noqa: B018 - makes the directory
            store.add_table("metadata", {"lr": float, PARAM: str})
            store["metadata"].append_row({"lr": number / 10, PARAM: f"v\x1b\n{number}$\\frac$../../x"})
            table = store.add_table(TABLE, {"step": int, LOSS: float, OTHER: float})
            for step in range(4):
                table.append_row({"step": step, LOSS: step / 2, OTHER: 1.0})
        (folder / f"run{number}").rename(folder / name)
    return folder


def is_shown_safely(text: str) -> bool:
    return all(char.isprintable() or char in "\u00a0\u3000\u200c\u200d" for char in text)


# --- TensorBoard


def test_run_names_of_tensorboard_stay_in_its_directory(runs: Path, tmp_path: Path) -> None:
    (runs / "run0").mkdir()
    targets = links(runs, "../{lr}{" + PARAM + "}/../..")
    assert len(targets) == len(RUNS)
    assert all(is_shown_safely(name) and "/" not in name for name in targets)
    with LinkDirectory() as directory:
        directory.update(targets)
        assert {path.name for path in directory.path.iterdir()} == targets.keys()
        assert {path.readlink().parent.parent for path in directory.path.iterdir()} == {runs}


def test_tags_of_tables_are_printable_and_apart(runs: Path) -> None:
    selection = Selection(runs, needs_events=False)
    with TableEvents([TABLE]) as made:
        folders = made.targets(selection.first()).values()
        assert all(folder.parent == made.path for folder in folders)
        tags = {
            tag
            for folder in folders
            for file in event_files(folder)
            for data in tfrecords.contents(file.read_bytes())
            for tag, _ in summaries.read(data).scalars
        }
    assert len(tags) == 2  # both columns would be called lo_$s$\q
    assert all(map(is_shown_safely, tags))


@given(_texts, _texts, _texts, _texts)
def test_any_tag_is_printable_short_and_of_one_column(a: str, b: str, c: str, d: str) -> None:
    tag = names.tag(a, b)
    assert is_shown_safely(tag)
    assert len(tag.encode()) <= 520
    assert f"{a}/{b}" == f"{c}/{d}" or tag != names.tag(c, d)


# --- Files


def test_a_table_with_a_name_too_long_for_a_file_is_exported(tmp_path: Path) -> None:
    long = ["L" * 3000, "L" * 3000 + "M", "é" * 300]
    with cox.Store(tmp_path / "runs", "one") as store:
        for number, name in enumerate(long):
            store.add_table(name, {"x": int}).append_row({"x": number})
    dest = tmp_path / "dest"
    reader = cox.CollectionReader(tmp_path / "runs")
    assert reader.to_parquet(dest) == dict.fromkeys(long, 1)
    assert reader.to_parquet(dest) == dict.fromkeys(long, 0)
    back = cox.CollectionReader(dest)
    assert [back.df(name)["x"].tolist() for name in long] == [[0], [1], [2]]


@given(_texts, _texts)
def test_tables_of_any_two_names_have_directories_of_their_own(one: str, other: str) -> None:
    dest = Path("dest")
    first, second = directory_of(dest, one), directory_of(dest, other)
    assert first.parent == dest
    assert len(os.fsencode(first.name)) <= 255
    assert first.name[0] not in "._"
    assert one == other or first != second


def test_no_name_is_taken_for_one_that_was_cut() -> None:
    long = "L" * 3000
    directory = directory_of(Path(), long)
    assert directory_of(Path(), directory.name) != directory


def test_runs_of_names_that_are_not_utf8_are_exported(runs: Path, tmp_path: Path) -> None:
    reader = cox.CollectionReader(runs)
    dest = tmp_path / "dest"
    assert reader.to_parquet(dest)[TABLE] == len(RUNS)
    assert cox.CollectionReader(runs).to_parquet(dest)[TABLE] == 0
    back = cox.CollectionReader(dest)
    assert back.exp_ids == reader.exp_ids
    assert back.df(TABLE).equals(reader.df(TABLE))
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "dest"}


@given(_file_names)
def test_the_place_of_a_run_is_known_again(name: str) -> None:
    place = place_of("/", name)
    assert all(text.encode() for text in place)
    assert os.fsencode(path_of(place)) == os.fsencode(Path("/", name))


@given(_texts, _texts)
def test_the_file_of_a_plot_has_a_name(table: str, y: str) -> None:
    name = _file_name(table, y)
    assert Path(name).name == name
    assert len(name.encode()) <= 255
    assert name.isprintable()


def test_plots_of_names_that_look_the_same_are_two_files() -> None:
    assert _file_name("results", "loss,acc") == "results-loss_acc.png"
    assert _file_name("results/a", "loss") != _file_name("results:a", "loss")


# --- Plots and pages


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_plot_shows_names_as_they_are(runs: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = cox.CollectionReader(runs).plot(TABLE, "step", LOSS, hue=PARAM, path=path)
    texts = [ax.get_ylabel(), *(text.get_text() for text in ax.get_legend().get_texts())]
    assert all(map(is_shown_safely, texts))
    assert ax.get_ylabel() == r"lo?\$s\$\q"
    if suffix == "svg":
        ElementTree.parse(path)


def test_names_are_no_commands_of_tex(runs: Path) -> None:
    mpl = pytest.importorskip("matplotlib")
    with mpl.rc_context({"text.usetex": True}):
        ax = cox.CollectionReader(runs).plot(TABLE, "step", LOSS)
    assert ax.get_ylabel() == r"lo?\$s\$\textbackslash{}q"


def test_pages_of_a_notebook_show_no_code(runs: Path) -> None:
    reader = cox.CollectionReader(runs)
    store = cox.Store(runs, RUNS[0], mode="r")
    for shown in (reader, store, store[TABLE]):
        page = shown._repr_html_()
        page.encode()
        assert "<script" not in page
        assert all(map(str.isprintable, page.split("\n")))


# --- What was shown, typed


def test_what_ls_shows_can_be_typed(runs: Path, call: Call) -> None:
    shown = call("ls", runs, "--format", "table", "--all").stdout.splitlines()[1:]
    ids = [line.split("  ")[0] for line in shown if line]
    assert len(ids) == len(RUNS)
    found = {call("show", runs / name, "--json").stdout.split("\n")[1] for name in ids}
    assert len(found) == len(RUNS)
    assert PARAM in json.loads(call("show", runs / "bad?", "--json").stdout)["params"]
    assert call("tail", runs / "new?line", printable(TABLE), "-n", "1").stdout.endswith("3,1.5,1.0\n")


def test_names_that_are_shown_alike_are_told_as_they_are_typed(runs: Path, call: Call) -> None:
    (runs / "-o").rename(runs / "new\tline")
    told = call("show", runs / "new?line", status=1).stderr
    assert told == rf"Error: 2 runs are shown as {runs}/new?line: $'new\x09line', $'new\x0aline'" + "\n"
    (runs / "new\tline").rename(runs / "new?line")  # and now one is called so
    assert '"id": "new?line"' in call("show", runs / "new?line", "--json").stdout


def test_a_name_that_is_shown_comes_before_one_that_begins_so(runs: Path, call: Call) -> None:
    (runs / "-o").rename(runs / "new?line2")
    assert r'"id": "new\nline"' in call("show", runs / "new?line", "--json").stdout


def test_folders_that_are_shown_can_be_typed(runs: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "a\x1bb"
    runs.rename(folder)
    assert r'"id": "-o"' in call("show", tmp_path / "a?b" / "-o", "--json").stdout
    (tmp_path / "a\tb").mkdir()
    told = call("show", tmp_path / "a?b" / "-o", status=1).stderr
    assert rf"2 folders in {tmp_path} are shown as a?b: $'a\x09b', $'a\x1bb'" in told.replace(
        r"$'a\x1bb', $'a\x09b'", r"$'a\x09b', $'a\x1bb'"
    )


def test_tables_that_are_shown_alike_are_told(tmp_path: Path, call: Call) -> None:
    with cox.Store(tmp_path, "one") as store:
        for name in ("a\tb", "a\nb"):
            store.add_table(name, {"x": int}).append_row({"x": 1})
    told = call("tail", tmp_path / "one", "a?b", status=2).stderr
    assert r"2 tables of one are shown as a?b: $'a\x09b', $'a\x0ab'" in told
    assert call("tail", tmp_path / "one", "a\nb").stdout == "x\n1\n"
    assert r"2 tables are shown as a?b: $'a\x09b', $'a\x0ab'" in call("df", "a?b", tmp_path, status=1).stderr
    assert "a table 'c?d'" in call("df", "c?d", tmp_path, status=1).stderr


def test_tables_that_are_shown_can_be_typed(runs: Path, tmp_path: Path, call: Call) -> None:
    shown = printable(TABLE)
    assert len(call("df", shown, runs).stdout.splitlines()) > 4 * len(RUNS)
    assert call("compare", shown, OTHER, runs, "--by", "lr").exit_code == 0
    assert call("plot", shown, OTHER, runs, "-o", tmp_path / "plot.png").exit_code == 0


@given(st.lists(_file_names, min_size=1, max_size=5, unique=True))
def test_any_name_that_is_shown_once_is_the_run(found: list[str]) -> None:
    for name in found:
        assert resolve(name, found, name) == name
        shown = printable(readable(name))
        if shown in found:
            assert resolve(shown, found, shown) == shown
        elif sum(shown in _shown(other) for other in found) == 1:
            assert resolve(shown, found, shown) == name
        else:
            with pytest.raises(RunNameError):
                resolve(shown, found, shown)


def _shown(name: str) -> Sequence[str]:
    return printable(name), printable(readable(name))


def test_a_name_is_quoted_as_a_shell_reads_it() -> None:
    odd = ["it's\x1bb", "a\nb", os.fsdecode(b"\xffa\\"), "\u202eé"]
    for name in odd:
        read = subprocess.run(
            ["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True
        ).stdout
        assert read == os.fsencode(name)
    assert re.fullmatch(r"[ -~]+", quoted(odd[2]))
