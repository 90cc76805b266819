"""A notebook that shows the runs of a folder with `%tensorboard`."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest

from cox.store import Store
from tests.conftest import ROOT
from tests.docs.notebook import execute, texts

pytestmark = pytest.mark.slow

CELLS = (
    """
    from cox.tensorboard_view import logdir

    folder = logdir("runs", "lr-{lr}", where="lr < 0.3")
    """,
    "%load_ext tensorboard",
    "%tensorboard --logdir {folder} --port 0 --reload_interval 1",
    """
    import json, time, urllib.request
    from tensorboard import manager

    (server,) = manager.get_all()

    def shown(expected):
        for _ in range(600):
            with urllib.request.urlopen(f"http://localhost:{server.port}/data/runs") as answer:
                if len(runs := json.load(answer)) >= expected:
                    break
            time.sleep(0.1)
        return sorted(runs)

    print(shown(2))
    """,
    """
    from cox import Store

    for name, lr in (("three", 0.01), ("four", 0.4)):
        with Store("runs", name) as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": lr})
            store.writer.add_scalar("loss", 1.0, 0)
    print(shown(3))
    """,
    """
    import os, signal

    os.kill(server.pid, signal.SIGTERM)
    """,
)


def test_a_notebook_shows_runs_with_its_magic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))  # where TensorBoard notes which servers there are
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # also where there is no home
    # where an activated environment has its programs
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name, lr in (("one", 0.1), ("two", 0.2)):
        with Store(tmp_path / "runs", name) as store:
            store.add_table("metadata", {"lr": float}).append_row({"lr": lr})
            store.writer.add_scalar("loss", 1.0, 0)
    path = tmp_path / "notebook.ipynb"
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    printed = texts(execute(path, tmp_path))
    assert printed[3] == ["['lr-0.1-one', 'lr-0.2-two']\n"]
    assert printed[4] == ["['lr-0.01-three', 'lr-0.1-one', 'lr-0.2-two']\n"]
