"""`cox-tensorboard` as a person uses it: started in a process of its own, and asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, ROOT

#: The signals that end it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def no_signal_ignored() -> Iterator[None]:
    """What is started in here heeds all signals, also where the tests run under nohup."""
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Viewer:
    """`cox-tensorboard` in a process of its own, with a directory of its own for temporary files."""

    def __init__(self, tmp_path: Path, *arguments: str | os.PathLike[str]) -> None:
        self.temporary = tmp_path / "temporary files"
        self.temporary.mkdir(exist_ok=True)
        self._said = tmp_path / "said"
        self._complained = tmp_path / "complained"
        with no_signal_ignored(), self._said.open("wb") as stdout, self._complained.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cox.tensorboard_view", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary)},
                start_new_session=True,  # its own process group, as a shell would give it
            )

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        # the directory of links is an argument of all the processes that may be left
        for pid in [self.process.pid, *self.server_processes()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    @property
    def complained(self) -> str:
        return self._complained.read_text(encoding="utf-8")

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """What `look` returns, as soon as that is something."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (seen := look()) is not None:
                return seen
            if self.process.poll() is not None:
                pytest.fail(
                    f"ended with {self.process.returncode} before {what}\n{self.said}{self.complained}"
                )
            time.sleep(0.05)
        return pytest.fail(f"waited in vain for {what}\n{self.said}{self.complained}")

    def url(self) -> str:
        """Where the server says that it is."""
        match = self.until(
            lambda: re.search(r"at (http://\S+:\d+)/", self.complained), "the server's address"
        )
        return str(match[1])

    def get(self, path: str, **query: str) -> Any:
        """What the server answers; None while it has no answer."""
        address = f"{self.url()}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return None

    def runs(self, expected: int) -> list[str]:
        """What TensorBoard shows, sorted, as soon as it shows as many."""

        def look() -> list[str] | None:
            shown = self.get("/data/runs")
            return sorted(shown) if shown is not None and len(shown) >= expected else None

        return list(self.until(look, f"{expected} runs"))

    def scalars(self, run: str, tag: str, expected: int) -> list[tuple[int, float]]:
        """The steps and values of a curve, as soon as it has so many."""

        def look() -> list[tuple[int, float]] | None:
            points = self.get("/data/plugin/scalars/scalars", run=run, tag=tag)
            return [(step, value) for _, step, value in points] if len(points or ()) >= expected else None

        return list(self.until(look, f"{expected} points of {tag} of {run}"))

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def server_processes(self) -> list[int]:
        """TensorBoard, and its data server: whatever has the directory of links among its arguments."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                arguments = process.joinpath("cmdline").read_bytes()
            except OSError:
                continue
            if b"cox-tensorboard-" in arguments and os.fsencode(self.temporary) in arguments:
                found.append(int(process.name))
        return found

    def command_lines(self) -> list[str]:
        """Those of the server's processes."""
        return [
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for pid in self.server_processes()
        ]

    def nothing_is_left(self) -> None:
        # the data server ends by itself, when it sees that TensorBoard is gone
        deadline = time.monotonic() + PATIENCE
        while self.server_processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.server_processes() == []
        # TensorBoard keeps a folder for the descriptions of running servers; there must be none in it
        assert [path.name for path in self.temporary.rglob("*") if path.name != ".tensorboard-info"] == []
