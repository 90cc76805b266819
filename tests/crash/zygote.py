"""A process that has imported everything and forks children on demand, so that a hundred kills are cheap.

The tests' end is `Zygote`; `main` is what runs in the process itself. A child calls one function of a
module of this suite, with plain arguments, and ends: by returning, or because it was killed. The zygote
opens no store, so that its children are processes like any other.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds after which a child that should have ended is taken for hanging.
PATIENCE = 300 + float(os.environ.get("COX_SECONDS", "0"))


class Zygote:
    """Starts children and waits for them.

    Args:
        errors: The file that gets what children and the zygote itself write to stderr.
    """

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # one thread each: a fork with threads is what a child must not begin with
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with errors.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", "from tests.crash.zygote import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(paths)},
            )

    def start(self, function: str, *args: Any) -> Child:
        """Fork a child that calls `module:name` with these arguments, which JSON can hold."""
        return Child(self, self._ask(["start", function, args]))

    def run(self, function: str, *args: Any) -> None:
        """Have a child call a function, and end well."""
        self.start(function, *args).join()

    def close(self) -> None:
        """End it. Its children are waited for, or killed, by the tests that started them."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(PATIENCE)
        self._process.stdout.close()  # type: ignore[union-attr]

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: list[Any]) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, f"the zygote is gone:\n{self.errors.read_text()[-4000:]}"
        return int(answer)


class Child:
    """One forked process."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self._zygote = zygote
        self.pid = pid
        self._status: int | None = None

    def kill(self) -> None:
        """SIGKILL it, unless it has ended by itself."""
        os.kill(self.pid, signal.SIGKILL)  # not reaped before `wait`, so that its pid is still its own

    def wait(self) -> int:
        """Wait for its end. Returns its exit code, or a signal's number with a minus before it."""
        if self._status is None:
            self._status = self._zygote._ask(["wait", self.pid])
        return self._status

    def join(self) -> None:
        """Wait for its end, which must be a good one."""
        status = self.wait()
        assert status == 0, f"a child ended with {status}:\n{self._zygote.errors.read_text()[-6000:]}"

    def was_killed(self) -> bool:
        """Wait for its end. Returns whether it was by SIGKILL; fails if it was by an error."""
        status = self.wait()
        if status not in (0, -signal.SIGKILL):
            self.join()
        return status != 0


def main() -> None:
    """Fork a child for each request, until there are no more."""
    for module in (
        "cox.store",
        "cox.readers",
        "cox.storage.hdf5",
        "cox.storage.fold",
        "cox.storage.snapshot",
    ):
        importlib.import_module(module)
    for module in ("cox.objects.codec", "cox.frames", "dill", "pandas", "tests.crash.children"):
        importlib.import_module(module)
    for line in sys.stdin:
        what, *about = json.loads(line)
        if what == "start":
            pid = os.fork()
            if pid == 0:
                _be_child(*about)
            print(pid, flush=True)
        else:
            print(_end_of(about[0]), flush=True)


def _end_of(pid: int) -> int:
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGABRT))
    signal.alarm(int(PATIENCE))
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.alarm(0)


def _be_child(function: str, args: list[Any]) -> None:
    os.close(0)
    os.dup2(2, 1)  # the zygote's answers go to stdout
    status = 1
    try:
        import faulthandler

        faulthandler.enable()  # SIGABRT of an impatient zygote says where the child hangs
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*args)
        status = 0
    except BaseException:  # noqa: BLE001 - a child must never go on as a second zygote
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
