"""What every test may rely on: a configuration of its own, and programs in processes of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Longer than anything takes on a slow machine, and short enough to wait for once.
PATIENCE = 300.0

# How long an example takes, or the making of it, is a matter of the machine and of what else runs on it.
hypothesis.settings.register_profile(
    "cox",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="COX_SEED" not in os.environ,  # a change is judged by the examples that the last one was
)
hypothesis.settings.load_profile("cox")
# Where it matters only whether there is a counterexample, and not which is the shortest.
hypothesis.settings.register_profile(
    "mutants",
    hypothesis.settings.get_profile("cox"),
    phases=set(hypothesis.Phase) - {hypothesis.Phase.shrink, hypothesis.Phase.explain},
)

_programs = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test touches the user's own secret, and none is trusted by accident.

    The environment of this process is changed for good, so that programs started by tests have it too.
    """
    home = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COX_CONFIG_HOME", os.fspath(home))
        patch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path_factory.mktemp("cache")))
        patch.delenv("COX_ALLOW_PICKLE", raising=False)
        yield home


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for runs, with a name that finds out whoever passes it through a shell or a URL."""
    folder = tmp_path / "out dir é'$x"
    folder.mkdir()
    return folder


class Program:
    """A Python program in a process of its own, spoken to line by line. It ends with its test."""

    def __init__(self, source: str, *args: object, cwd: Path, env: dict[str, str] | None = None) -> None:
        script = cwd / f"program_{next(_programs)}.py"
        script.write_text(textwrap.dedent(source), encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", os.fspath(script), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "PYTHONUTF8": "1", **(env or {})},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.errors = ""
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that it prints."""
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            self.end()
            pytest.fail(f"the program said nothing for {PATIENCE} s; its errors:\n{self.errors}")
        if line is None:
            self.process.wait(PATIENCE)
            pytest.fail(
                f"the program ended with status {self.process.returncode}; its errors:\n{self.errors}"
            )
        return line

    def tell(self, line: str = "") -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def rest(self) -> list[str]:
        """Every further line that it prints, once it has ended."""
        self._wait()
        lines = []
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            lines.append(line)
        return lines

    def finish(self, *, status: int = 0) -> list[str]:
        """Wait for its end, which has to be with `status`; returns the further lines."""
        lines = self.rest()
        assert self.process.returncode == status, f"status {self.process.returncode}\n{self.errors}"
        return lines

    def kill(self) -> None:
        """End it as the kernel does when memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """Leave nothing of it behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _wait(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
            pytest.fail(f"the program did not end within {PATIENCE} s; its errors:\n{self.errors}")
        for thread in self._threads:
            thread.join(PATIENCE)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program: `start(source, *arguments, cwd=…, env=…)`."""
    started: list[Program] = []

    def begin(
        source: str, *args: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> Program:
        program = Program(source, *args, cwd=cwd or tmp_path, env=env)
        started.append(program)
        return program

    yield begin
    for program in started:
        program.end()


@pytest.fixture
def run(start: Callable[..., Program]) -> Callable[..., list[str]]:
    """Run a program to its end, which has to be a good one: returns the lines that it printed."""

    def begin_and_finish(source: str, *args: object, **options: object) -> list[str]:
        return start(source, *args, **options).finish()

    return begin_and_finish
