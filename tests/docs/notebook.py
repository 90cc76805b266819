"""Run the notebooks of walkthroughs/: `python -m tests.docs.notebook [TO]`, in place unless told where to."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "walkthroughs").glob("*.ipynb"))


def execute(path: Path, directory: Path) -> Any:
    """A notebook, run from top to bottom in a directory; the first error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(directory)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def texts(notebook: Any) -> list[list[str]]:
    """What each code cell shows: first all that it prints, then the rest; of a picture that there is one."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    printed = ["".join(each.text for each in outputs if each.output_type == "stream") for outputs in cells]
    others = [[_text(each) for each in outputs if each.output_type != "stream"] for outputs in cells]
    return [[text, *shown] for text, shown in zip(printed, others, strict=True)]


def _text(output: Any) -> str:
    return "<picture>" if "image/png" in output.data else str(output.data.get("text/plain", ""))


def main() -> int:
    """Run all of them."""
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "walkthroughs"
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as directory:
            nbformat.write(execute(path, Path(directory)), to / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
