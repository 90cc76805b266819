"""README and walkthroughs: every block runs, and prints what the page prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from cox import CollectionReader, Store
from cox.tensorboard_view import links, main
from tests.conftest import PATIENCE, ROOT
from tests.docs.page import Block, blocks
from tests.viewer import Viewer

WALKTHROUGHS = sorted((ROOT / "walkthroughs").glob("[0-9]*.md"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "walkthroughs/README.md", *WALKTHROUGHS]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Path]:
    """Run a page in a fresh directory, which is returned."""

    def read(page: Path, *options: str) -> Path:
        directory = tmp_path / page.stem
        directory.mkdir()
        done = subprocess.run(
            [sys.executable, ROOT / "tests/docs/page.py", page, *options],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": "error",
                "PYTHONUNBUFFERED": "1",  # as at a terminal: what was printed before a SIGKILL is seen
                # `python` in a console block is the one that runs the tests
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            },
            capture_output=True,
            encoding="utf-8",
            timeout=2 * PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        # what is raised where nobody can catch it: in a thread, in `__del__`
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr, done.stderr
        return directory

    return read


def command(page: Path, program: str) -> tuple[list[str], Block]:
    """The arguments of a command in one of a page's console blocks, and the block."""
    found = [
        (words[1:], block)
        for block in blocks(page)
        if block.language == "console"
        for line, _ in block.commands()
        if (words := shlex.split(line.replace("\\\n", " ")))[0] == program
    ]
    assert len(found) == 1, f"{page} shows {program} {len(found)} times"
    return found[0]


def without_ids(names: list[str]) -> list[str]:
    return [re.sub(r"(-[0-9a-f]+){5}$", "", name) for name in sorted(names)]


def test_c28_walkthrough_logging(read) -> None:
    directory = read(ROOT / "walkthroughs/1-logging.md")
    assert len(CollectionReader(directory / "grid").df("result")) == 9


def test_c28_walkthrough_tensorboard(read) -> None:
    page = ROOT / "walkthroughs/2-tensorboard.md"
    directory = read(page)
    assert len(CollectionReader(directory / "lines").df("line_graphs")) == 500
    arguments, _ = command(page, "cox-tensorboard")
    shown = next(block for block in blocks(page) if block.language == "text")
    with Viewer(directory, *arguments, "--port", "0") as viewer:
        assert without_ids(viewer.runs(3)) == without_ids(shown.text.split())


def test_c28_walkthrough_resuming(read) -> None:
    directory = read(ROOT / "walkthroughs/3-resuming.md")
    night = Store(directory / "runs", "night", mode="r")
    assert list(night["steps"].df["step"]) == list(range(60))


def test_testing(read) -> None:
    directory = read(ROOT / "docs/TESTING.md")
    assert len(list(directory.glob("full-*"))) > 20
    assert len(list(directory.glob("killed-*"))) > 3


def test_every_walkthrough_is_in_the_index() -> None:
    index = (ROOT / "walkthroughs/README.md").read_text(encoding="utf-8")
    assert WALKTHROUGHS
    assert all(f"({page.name})" in index for page in WALKTHROUGHS)


def test_readme(read) -> None:
    directory = read(ROOT / "README.md", "--python")
    arguments, _ = command(ROOT / "README.md", "cox-tensorboard")
    options = main.make_context("cox-tensorboard", arguments).params
    shown = links(directory / options["folder"], options["format_str"], filters=options["filter_param"])
    assert without_ids(list(shown)) == ["lr-0.1"]


def test_scripts_that_the_readme_names_are_there() -> None:
    named = re.findall(r"^\$ (scripts/\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    for script in named:
        assert os.access(ROOT / script, os.X_OK)


def test_options_in_the_walkthrough_are_the_options() -> None:
    text = (ROOT / "walkthroughs/2-tensorboard.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE))
    assert shown == {option.opts[0] for option in main.params if isinstance(option, click.Option)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture
def namespace(tmp_path: Path) -> dict[str, Any]:
    """What the walkthrough's recipes begin with, over three runs whose answers are known."""
    for name, step_size, final_opt in [("a", 0.01, 5.0), ("b", 1.0, 4.0), ("c", 0.1, 3.5)]:
        with Store(tmp_path, name) as store:
            store.add_table("metadata", {"step_size": float, "tolerance": float, "initial_x": float})
            store.add_table("result", {"final_x": float, "final_opt": float})
            store["metadata"].append_row({"step_size": step_size, "tolerance": 1e-6, "initial_x": 1.0})
            for later in (2.0, 0.0):
                store["result"].append_row({"final_x": 0.0, "final_opt": final_opt + later})
    return {"reader": CollectionReader(tmp_path)}


def run_recipe(namespace: dict[str, Any], marks: list[str]) -> None:
    page = ROOT / "walkthroughs/1-logging.md"
    for mark in marks:
        [block] = [b for b in blocks(page) if b.language == "python" and mark in b.text]
        exec(compile(block.text, str(page), "exec"), namespace)


def test_c22_recipe_filter_by_metadata(namespace: dict[str, Any]) -> None:
    run_recipe(namespace, ["exp_ids = set("])
    assert namespace["exp_ids"] == {"a", "c"}
    assert list(namespace["small_steps"]["exp_id"]) == ["a", "a", "c", "c"]


def test_c22_recipe_best_run(namespace: dict[str, Any]) -> None:
    run_recipe(namespace, ["exp_ids = set(", 'min(df["final_opt"]'])
    assert namespace["exp_id"] == "c"
    assert namespace["best"]["exp_id"].tolist() == ["c"]
    assert namespace["best"]["step_size"].tolist() == [0.1]


def test_c22_recipe_join(namespace: dict[str, Any]) -> None:
    run_recipe(namespace, ["exp_ids = set(", "df.merge("])
    assert list(namespace["both"]["step_size"]) == [0.01, 0.01, 0.1, 0.1, 1.0, 1.0]
    assert list(namespace["both"]["final_opt"]) == [5.0, 7.0, 3.5, 5.5, 4.0, 6.0]
