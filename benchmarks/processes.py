"""Timing of whole processes: from the start to a word on standard output."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cox


def until_word(program: str, *arguments: str) -> tuple[float, str]:
    """Run a Python program, and wait for the one line it prints.

    Args:
        program: Its source.
        arguments: Its `sys.argv[1:]`.

    Returns:
        Seconds from its start to the line, and the line.
    """
    # this very cox, also where it is not installed
    path = [str(Path(cox.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in path if part)}
    command = [sys.executable, "-c", program, *arguments]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        word = process.stdout.readline()
        taken = time.perf_counter() - start
    if process.returncode or not word:
        raise RuntimeError(f"a program of the benchmark failed with status {process.returncode}:\n{program}")
    return taken, word.strip()
