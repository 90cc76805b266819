"""The notebooks run from top to bottom, and show what they showed when they were written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat

from tests.conftest import PATIENCE, ROOT
from tests.docs.notebook import NOTEBOOKS, texts


def test_notebooks_run_and_show_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.notebook", tmp_path],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        told, shown = nbformat.read(path, as_version=4), nbformat.read(tmp_path / path.name, as_version=4)
        assert texts(shown) == texts(told), f"{path.name}: run `python -m tests.docs.notebook` and look at it"
        pictures = [text for cell in texts(shown) for text in cell if text == "<picture>"]
        assert pictures
