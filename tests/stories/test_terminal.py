"""A morning at a terminal: which runs are there, how is that one doing, watch it, take the rows along.

In a real terminal, through tmux. What was on the screen is kept beside the pictures of the browser tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from cox.store import Store
from tests.conftest import PATIENCE, ROOT

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: apt-get install tmux")

SCREENS = Path(os.environ.get("COX_PICTURES", ROOT / "build" / "pictures"))

TRAIN = """
    import sys, time
    from pathlib import Path
    from cox.store import Store

    with Store(sys.argv[1], "live-run") as store:
        store.add_table("metadata", {"lr": float, "arch": str}).append_row({"lr": 0.25, "arch": "resnet18"})
        results = store.add_table("results", {"step": int, "loss": float})
        step = 0
        while not Path(sys.argv[2]).exists():
            results.append_row({"step": step, "loss": 1 / (step + 1)})
            if step == 0:
                print("logging")
            step += 1
            time.sleep(0.2)
"""


class Terminal:
    """A terminal of 100 by 30 characters, and what stands on it."""

    def __init__(self, directory: Path) -> None:
        self._name = f"cox-{uuid.uuid4().hex[:8]}"
        self._screens: list[str] = []
        python = shlex.quote(str(Path(sys.executable).parent))
        paths = f"export PATH={python}:$PATH PYTHONPATH={shlex.quote(str(ROOT))} PS1='$ '"
        start = f"cd {shlex.quote(str(directory))}; {paths}"
        self._tmux("new-session", "-d", "-s", self._name, "-x", "100", "-y", "30", "bash --norc --noprofile")
        self.type(f'{start}; cox() {{ python -m cox.cli "$@"; }}; clear')
        self.wait(lambda seen: seen.strip() == "$")

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", *words], check=True, capture_output=True, text=True, timeout=PATIENCE
        ).stdout

    def type(self, line: str) -> None:
        """Type a line, and Return."""
        self._tmux("send-keys", "-t", self._name, "-l", line)
        self._tmux("send-keys", "-t", self._name, "Enter")

    def press(self, key: str) -> None:
        """Press a key."""
        self._tmux("send-keys", "-t", self._name, key)

    def wait(self, good: Callable[[str], object]) -> str:
        """What is on the screen, as soon as it is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            seen = self._tmux("capture-pane", "-p", "-t", self._name).rstrip()
            if good(seen):
                self._screens.append(seen)
                return seen
            assert time.monotonic() < deadline, f"waited in vain; the screen shows\n{seen}"
            time.sleep(0.1)

    def run(self, line: str) -> str:
        """What a command shows, once the prompt is back."""
        # what stood there before ends with a prompt, too, and stays there until the shell gets its turn
        end = f"end of {len(self._screens)}"
        self.type(f"clear; {line}; echo {end}")
        return self.wait(lambda seen: seen.endswith(f"\n{end}\n$"))

    def close(self, name: str) -> None:
        """End it; what was seen is kept."""
        subprocess.run(["tmux", "kill-session", "-t", self._name], check=False, capture_output=True)
        SCREENS.mkdir(parents=True, exist_ok=True)
        (SCREENS / f"{name}.txt").write_text(f"\n{'=' * 100}\n".join(self._screens), encoding="utf-8")


@pytest.fixture
def terminal(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    try:
        yield made
    finally:
        made.close(request.node.name)


@pytest.mark.slow
def test_ls_show_tail_and_export(terminal: Terminal, tmp_path: Path, start: Callable[..., object]) -> None:
    for seed in range(3):
        with Store(tmp_path / "runs", f"done-{seed}") as store:
            store.add_table("metadata", {"lr": float, "arch": str}).append_row(
                {"lr": 0.5 / (seed + 1), "arch": "vgg16"}
            )
            table = store.add_table("results", {"step": int, "loss": float})
            for step in range(20):
                table.append_row({"step": step, "loss": 1 / (step + 1 + seed)})
    stop = tmp_path / "stop"
    training = start(TRAIN, tmp_path / "runs", stop)
    assert training.line() == "logging"  # type: ignore[attr-defined]

    def is_there(seen: str) -> bool:
        return "live-run" in seen

    deadline = time.monotonic() + PATIENCE
    while not is_there(seen := terminal.run("cox ls runs")):
        assert time.monotonic() < deadline, seen
    assert re.search(r"live-run +running", seen)
    assert len(re.findall(r"done-\d +finished", seen)) == 3
    assert "4 runs" in seen
    assert "0.25" in seen
    assert "resnet18" in seen

    seen = terminal.run("cox show runs/live")
    assert re.search(r"state +running", seen)
    assert "step: int, loss: float" in seen

    terminal.type("clear; cox tail -f runs/live results -n 3")
    first = terminal.wait(lambda seen: len(re.findall(r"^ *\d+ +\S+$", seen, re.M)) >= 4)
    terminal.wait(lambda seen: len(re.findall(r"^ *\d+ +\S+$", seen, re.M)) >= 8)
    assert "step" in first
    stop.touch()
    ended = terminal.wait(lambda seen: "finished" in seen and seen.endswith("\n$"))
    assert "Traceback" not in ended
    training.finish()  # type: ignore[attr-defined]

    seen = terminal.run("cox export runs exported; cox compare results loss runs --by arch --over lr")
    assert re.search(r"vgg16 +3", seen)
    exported = pd.read_parquet(tmp_path / "exported" / "results")
    assert exported["exp_id"].nunique() == 4
    assert len(exported) >= 68
