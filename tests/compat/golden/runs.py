"""What the makers of golden runs share: a process for each run, and no trace of the machine it ran on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cox.storage import layout


def main(
    program: str,
    exp_ids: Iterable[str],
    fill: Callable[[Path, str], None],
    described: Callable[[Path, str], dict[str, Any]],
) -> None:
    """Make golden runs under the directory that the command line names, which is not there yet.

    Args:
        program: The file of the maker, beside this one.
        exp_ids: The runs.
        fill: Makes one of them, and may kill its process.
        described: All that a run holds, as JSON has it.
    """
    maker = Path(program)
    if sys.argv[1] == "--fill":
        _, _, target, exp_id = sys.argv
        sys.argv = [maker.name]  # the command that the runs remember
        fill(Path(target), exp_id)
        return
    folder = maker.parent / sys.argv[1]
    folder.mkdir(parents=True)
    module = f"tests.compat.golden.{maker.stem}"
    for exp_id in exp_ids:
        subprocess.run([sys.executable, "-m", module, "--fill", folder, exp_id], check=False)
        run = layout.RunLayout(folder / exp_id)
        expected = described(folder, exp_id)
        (run.root / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")
        for empty in [path for path in run.root.rglob("*") if path.is_dir() and not any(path.iterdir())]:
            (empty / ".keep").touch()
        for path in run.meta_dir.rglob("*.json"):
            text = path.read_text().replace(os.uname().nodename, "somewhere")
            path.write_text(text.replace(os.uname().release, "6.1"))
