"""The `tensorboard` program on a directory of links, and the end of both.

No shell is involved. Whatever ends this process, the server ends too. The links go with it; after a SIGKILL
the next start removes them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cox.errors import CollectionWarning, ViewError, warn
from cox.tensorboard.view import child
from cox.tensorboard.view.links import LinkDirectory

#: Seconds that `tensorboard` has to end by itself once it was told to.
GRACE = child.GRACE
#: Seconds between two looks at which runs there are.
EVERY = 2.0


def serve(
    targets: Mapping[str, Path],
    *,
    port: int = 6006,
    options: Iterable[str] = (),
    refresh: Callable[[], Mapping[str, Path]] | None = None,
    hold: Sequence[int] = (),
) -> int:
    """Run `tensorboard` on these directories until it ends, or until a signal ends it.

    SIGINT, SIGTERM, SIGHUP and SIGQUIT end the server, and so does the end of this process, by SIGKILL too.

    Args:
        targets: Names to directories of event files.
        port: The server's port; 0 lets it pick one.
        options: More command line arguments for `tensorboard`.
        refresh: Tells what the targets are by now. It is asked every few seconds.
        hold: File descriptors that are to stay open as long as the server runs.

    Returns:
        Its exit status; 128 and the number of the signal, if one ended it.

    Raises:
        ViewError: The port is taken; names one that is free.
    """
    _check_port(port)
    server = Server()
    with signals_to(server.stop), LinkDirectory() as directory, _lifeline() as lifeline:
        directory.update(targets)
        program = [sys.executable, child.__file__, str(lifeline)]
        arguments = ["--logdir", str(directory.path), "--port", str(port), *options]
        fds = [lifeline, *directory.fds, *hold]
        return server.run([*program, *arguments], refresh and _Update(directory, refresh), fds)


@contextmanager
def _lifeline() -> Iterator[int]:
    """Give the end of a pipe for a child to read from: it is at its end when this process is."""
    inner, outer = os.pipe()
    try:
        yield inner
    finally:
        os.close(inner)
        os.close(outer)


class _Update:
    """Brings the links up to date; what goes wrong is told once, and they stay as they are."""

    def __init__(self, directory: LinkDirectory, refresh: Callable[[], Mapping[str, Path]]) -> None:
        self._directory, self._refresh = directory, refresh
        self._told: set[str] = set()

    def __call__(self) -> None:
        try:
            self._directory.update(self._refresh())
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
            said = f"{type(error).__name__}: {error}"
            if said not in self._told:
                self._told.add(said)
                warn(f"what TensorBoard shows stays as it is: {said}", CollectionWarning)


def _check_port(port: int) -> None:
    if port and not _is_free(port):
        free = next((other for other in range(port + 1, min(port + 100, 65536)) if _is_free(other)), 0)
        raise ViewError(
            f"--port: {port} is taken; {free or 'let the system choose with 0:'} is free: --port {free}"
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have the signals that would end this process call `handler` instead."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    # what is ignored stays so: under nohup, and for jobs that a shell starts in the background
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def leave(number: int, _: FrameType | None) -> None:
    """Handle a signal by leaving all blocks, so that they clean up, with the exit status it stands for."""
    raise SystemExit(128 + number)


class Server:
    """A program that is waited for, and that a signal to this process ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None

    def run(
        self,
        command: Sequence[str],
        now_and_then: Callable[[], object] | None = None,
        fds: Sequence[int] = (),
    ) -> int:
        """Run a program to its end and return its exit status, or 128 and the signal that ended it.

        Args:
            command: The program.
            now_and_then: Called every `EVERY` seconds meanwhile, in this thread.
            fds: File descriptors that the program inherits.
        """
        # a session of its own: a terminal's Ctrl-C would reach it too, and being told twice to end makes
        # it fail in the middle of cleaning up. Safe path: a random.py in the working directory is none of
        # its modules.
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        process = subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=fds)
        self._process = process
        if self._signal is not None:  # it came when there was nothing to end yet
            _end(process)
        status = None
        try:
            while status is None:
                try:
                    status = process.wait(EVERY if now_and_then and self._signal is None else None)
                except subprocess.TimeoutExpired:
                    if now_and_then and self._signal is None:
                        now_and_then()
        finally:
            if status is None:
                _end_and_wait(process)
        if self._signal is not None:
            return 128 + self._signal
        return status if status >= 0 else 128 - status

    def stop(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: the first asks the program to end, a second one ends it.

        It never raises: an exception between any two lines could leave a process or a directory behind.
        """
        again, self._signal = self._signal is not None, number
        if self._process is None:
            return
        if again:
            self._process.kill()
        else:
            _end(self._process)


def _end_and_wait(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    deadline = threading.Timer(GRACE, process.kill)
    deadline.daemon = True
    deadline.start()
