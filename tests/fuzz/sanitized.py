"""`python -m tests.fuzz.sanitized make|read FOLDER`: odd store files, read by a HDF5 under AddressSanitizer.

`make` writes a run for each of `structure.MUTATIONS`, with the usual HDF5. `read` reads them, each in a fork
of its own, and ends with status 1 if one ended its process, or the sanitizers said something.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import h5py

from tests import structure

#: What HDF5 reads beyond its memory for, if nobody checks the file first.
_CONTROL = "a huge chunk that is short"
_REPORTS = ("ERROR: AddressSanitizer", "runtime error:")


def make(folder: Path) -> None:
    """Write the runs."""
    structure.make_run(folder / "template")
    for number, (name, change) in enumerate(structure.MUTATIONS.items()):
        runs = folder / "runs" / str(number)
        shutil.copytree(folder / "template", runs)
        (runs / "name").write_text(name)
        with h5py.File(runs / "run" / "store.h5", "r+", locking=False) as file:
            change(file)


def read(folder: Path) -> bool:
    """Read the runs. Returns whether nothing was found, and something would have been."""
    print(f"HDF5 {h5py.version.hdf5_version}", flush=True)
    runs = sorted((folder / "runs").iterdir(), key=lambda path: int(path.name))
    control = next(path for path in runs if (path / "name").read_text() == _CONTROL)
    _apart(_read_unchecked, control, folder / "control.log")
    if _REPORTS[0] not in (folder / "control.log").read_text(errors="replace"):
        print("the sanitizer does not see what HDF5 does by itself: it is not there")
        return False
    findings = 0
    for one in runs:
        log = folder / f"{one.name}.log"
        if (code := _findings(structure.read_everything, one, log)) is not None:
            findings += 1
            print(f"{(one / 'name').read_text()}: ended with {code}, see {log}", flush=True)
    print(f"{len(runs)} store files, {findings} findings")
    return not findings


def _read_unchecked(runs: Path) -> None:
    with h5py.File(runs / "run" / "store.h5", locking=False) as file:
        file["t/table"][:]


def _findings(act: Callable[[Path], None], runs: Path, log: Path) -> int | None:
    """How a fork ended in which something was said; None if it did what it was to do, and nothing was."""
    code = _apart(act, runs, log)
    text = log.read_text(errors="replace")
    return code if code or any(report in text for report in _REPORTS) else None


def _apart(act: Callable[[Path], None], runs: Path, log: Path) -> int:
    """The exit status of a fork that does something, and says to a file what is wrong."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), 2)
    try:
        act(runs)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    place = Path(sys.argv[2])
    sys.exit(not read(place) if sys.argv[1] == "read" else make(place))
