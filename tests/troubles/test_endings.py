"""How a program ends is how its run ends: by a status, by an exception, or by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cox.storage import layout
from cox.storage.status import Status, status_of
from tests.conftest import ROOT

BEGIN = """
import signal, sys, os, threading, multiprocessing
from sys import exit as early
from cox.store import Store
def store():
    s = Store(sys.argv[1], "run"); s.add_table("r", {"a": int}); s["r"].append_row({"a": 1})
    return s
"""

#: What a program does after it has opened a store that it does not close, and what its run failed of.
PROGRAMS = {
    "sys.exit(1)": "SystemExit: 1",
    "sys.exit('no data')": "SystemExit: no data",
    "sys.exit('')": "SystemExit: ",
    "raise SystemExit(3)": "SystemExit: 3",
    "exit(4)": "SystemExit: 4",
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); os.kill(os.getpid(), 15); signal.pause()": (
        "SystemExit: 143"
    ),
    "import argparse; argparse.ArgumentParser().error('bad')": "SystemExit: 2",
    "import click; click.command()(lambda: click.get_current_context().exit(5))([])": "SystemExit: 5",
    "try: 1 / 0\nexcept ZeroDivisionError: sys.exit(6)": "SystemExit: 6",
    "try: early(7)\nfinally: pass": "SystemExit: 7",
    "raise ValueError('diverged')": "ValueError: diverged",
    "sys.excepthook = lambda *_: None\nraise ValueError('diverged')": "ValueError: diverged",
    "import code, io; sys.stdin = io.StringIO('typo\\n'); code.interact(); raise OSError('mine')": (
        "OSError: mine"
    ),
    "sys.exit()": None,
    "sys.exit(0)": None,
    "sys.exit(False)": None,
    "raise SystemExit": None,
    "pass": None,
    "try: sys.exit(1)\nexcept SystemExit as error: assert error.code == 1": None,
    "try: raise SystemExit(1)\nexcept SystemExit: pass\nsys.exit(0)": None,
    "thread = threading.Thread(target=lambda: sys.exit(1)); thread.start(); thread.join()": None,
    "import code, io; sys.stdin = io.StringIO('typo\\n'); code.interact()": None,
}


def run_program(out: Path, *command: str, typed: str = "") -> tuple[int, Status]:
    done = subprocess.run(
        [sys.executable, *command],
        input=typed,
        text=True,
        cwd=out.parent,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "IPYTHONDIR": os.fspath(out.parent)},
        timeout=120,
        capture_output=True,
        check=False,
    )
    return done.returncode, status_of(layout.RunLayout(out / "run"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_leaves_with_a_status_fails_its_run(out: Path, program: str) -> None:
    returncode, status = run_program(out, "-c", f"{BEGIN}\ns = store()\n{program}", os.fspath(out))
    expected = PROGRAMS[program]
    assert (returncode != 0) == (expected is not None)
    assert status.state == ("finished" if expected is None else "failed")
    assert (status.error or "").endswith(expected or "")


@pytest.mark.parametrize("how", [("-m", "program"), ("program.py",)])
def test_however_the_program_is_started(out: Path, how: tuple[str, ...]) -> None:
    (out.parent / "program.py").write_text(f"{BEGIN}\ns = store()\ndef main(): sys.exit(9)\nmain()")
    returncode, status = run_program(out, *how, os.fspath(out))
    assert (returncode, status.state, status.error) == (9, "failed", "SystemExit: 9")


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("does", "state"), [("sys.exit(3)", "failed"), ("1 / 0", "failed"), ("0", "finished")]
)
def test_a_child_of_multiprocessing(out: Path, method: str, does: str, state: str) -> None:
    (out.parent / "program.py").write_text(
        BEGIN
        + textwrap.dedent(f"""
            def work():
                s = store()
                {does}
            if __name__ == "__main__":
                child = multiprocessing.get_context("{method}").Process(target=work)
                child.start(); child.join()
        """)
    )
    _, status = run_program(out, "program.py", os.fspath(out))
    assert status.state == state


TYPED = "s = store()\nnosuchname\ns['r'].append_row({'a': 2})\n"


def test_a_typo_at_the_prompt_is_not_the_end_of_the_run(out: Path) -> None:
    _, status = run_program(out, "-i", "-q", "-c", BEGIN, os.fspath(out), typed=TYPED)
    assert (status.state, status.error) == ("finished", None)


def test_a_typo_in_ipython_is_not_the_end_of_the_run(out: Path) -> None:
    pytest.importorskip("IPython")
    program = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        f"for cell in {[BEGIN, *TYPED.splitlines()]!r}: shell.run_cell(cell)\n"
    )
    _, status = run_program(out, "-c", program, os.fspath(out))
    assert (status.state, status.error) == ("finished", None)


def test_a_script_that_fails_before_the_prompt_has_failed(out: Path) -> None:
    program = f"{BEGIN}\ns = store()\nraise ValueError('diverged')"
    _, status = run_program(out, "-i", "-q", "-c", program, os.fspath(out), typed="1 + 1\n")
    assert (status.state, status.error) == ("failed", "ValueError: diverged")
