"""The program that `serve` starts: `tensorboard`, which ends when the process that started it does.

It is run by its path, and needs nothing of cox. Its first argument is the descriptor of a pipe that nobody
writes to: reading from it returns when the other end is closed, however the process that holds it ended,
SIGKILL included. The other arguments are tensorboard's.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading
import time

#: Seconds that `tensorboard` has to end by itself.
GRACE = 10.0
#: What macOS takes for a limit of open files, whatever it says the hard limit is.
_OPEN_MAX = 10240


def main() -> None:
    """Run tensorboard in this process."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - nothing is imported for it
    sys.path[:] = [path for path in sys.path if path != here]  # the modules here are not tensorboard's
    lifeline = int(sys.argv.pop(1))
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _raise_open_files()
    runpy.run_module("tensorboard.main", run_name="__main__", alter_sys=True)


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one: tensorboard keeps some open for every run."""
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in (hard, _OPEN_MAX):
            if soft == limit:
                return
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                return


if __name__ == "__main__":
    main()
