"""The directory of links for a TensorBoard that somebody else starts: `%tensorboard` in a notebook."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable
from typing import Any

from cox.storage import layout
from cox.tensorboard.view import server
from cox.tensorboard.view.links import LinkDirectory
from cox.tensorboard.view.selection import Selection, named

_log = logging.getLogger("cox")
#: By what was asked for: a cell that is run again shows the same directory, and so the same TensorBoard.
_made: dict[Any, LinkDirectory] = {}
#: Held by whoever changes one of these directories.
_at_it = threading.Lock()


def logdir(
    folder: str | os.PathLike[str],
    format_str: str | None = None,
    *,
    metadata_table: str = layout.METADATA_TABLE,
    filters: Iterable[tuple[str, str]] = (),
    where: str | None = None,
    nested: bool = False,
) -> str:
    """A directory to hand to TensorBoard, in step with the runs of a folder until this process ends.

    Args:
        folder: The folder of runs.
        format_str: As for `links`, which has the other arguments, too.
        metadata_table: The table of the parameters.
        filters: Pairs of a parameter and a regular expression.
        where: A condition on the parameters.
        nested: Whether to look for runs deeper down.

    Raises:
        ViewError: No run passes the filters, or there is no such parameter; the error says what there is.

    Example:
        >>> %load_ext tensorboard
        >>> %tensorboard --logdir {cox.tensorboard_view.logdir("runs")}
    """
    pairs = tuple((param, regex) for param, regex in filters)
    asked = os.fspath(layout.absolute(folder)), format_str, metadata_table, pairs, where, nested
    selection = Selection(folder, format_str, metadata_table, pairs, where, nested=nested)
    targets = named(selection.first(wait=True))
    with _at_it:
        if asked in _made:
            _made[asked].update(targets)
            return str(_made[asked].path)
        directory = LinkDirectory()
        directory.update(targets)
        _made[asked] = directory
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(selection, directory, ended), daemon=True)
    watcher.start()
    atexit.register(_end, os.getpid(), directory, watcher, ended)
    return str(directory.path)


def _watch(selection: Selection, directory: LinkDirectory, ended: threading.Event) -> None:
    told: set[str] = set()
    while not ended.wait(server.EVERY):
        try:
            targets = named(selection.refreshed())
            with _at_it:
                if not ended.is_set():  # a look may take longer than its end is waited for
                    directory.update(targets)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be better
            if (said := f"{type(error).__name__}: {error}") not in told:
                told.add(said)
                _log.warning("the runs in TensorBoard stay as they are: %s", said)


def _end(pid: int, directory: LinkDirectory, watcher: threading.Thread, ended: threading.Event) -> None:
    if pid != os.getpid():  # a forked child, to whom it does not belong
        return
    ended.set()
    watcher.join(server.EVERY)
    with _at_it:
        directory.remove()
