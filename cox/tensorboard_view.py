"""`cox-tensorboard`: the runs of a folder in TensorBoard, under names made of their parameters.

A temporary directory of symbolic links, one for each run that passes the filters, is handed to the
real `tensorboard` program, and goes when that ends. Runs are only read. No shell is involved, and no
`--logdir_spec`, which has no way to hold a comma or a colon.

`links` selects and names, and changes nothing; `serve` makes the links and runs the server.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy as np

from cox import objects
from cox.errors import CollectionWarning, CoxError, CoxWarning, warn
from cox.readers import find_runs
from cox.schema import Column
from cox.storage import layout, snapshot
from cox.storage.columns import TableData

__all__ = ["ViewError", "links", "main", "serve"]

#: A run's own name is a parameter of every run, as it was upstream.
_EXP_ID = "exp_id"
#: How long a file name may be, in bytes.
_NAME_BYTES = 255
#: Seconds that `tensorboard` has to end by itself once it was told to.
_GRACE = 10.0

# control characters, line breaks, overrides of the direction of writing, halves of surrogate pairs
_GARBLING = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_NOT_FOR_TERMINALS = re.compile(f"[{_GARBLING}]")
_NOT_FOR_FILES = re.compile(f"[/{_GARBLING}]")
# format() makes as many characters as a width or a precision says
_TOO_WIDE = re.compile(r"\d{4,}")


class ViewError(CoxError, ValueError):
    """What was asked for cannot be shown."""


# --- Which runs, under which names


def links(
    logdir: str | os.PathLike[str],
    format_str: str,
    *,
    metadata_table: str = "metadata",
    filters: Iterable[tuple[str, str]] = (),
) -> dict[str, Path]:
    """The runs of a folder that pass all filters, under the names that TensorBoard is to show.

    A run that cannot be shown (no metadata, no TensorBoard directory, damage) is left out with a
    `CollectionWarning`.

    Args:
        logdir: The folder of runs.
        format_str: What a name begins with: `{param}`, or `{param:spec}` with a format spec of Python's,
            stands for a parameter. `-<exp_id>` is always appended.
        metadata_table: The table whose first row holds a run's parameters.
        filters: Pairs of a parameter and a regular expression: `re.match(regex, str(value))` keeps a run.

    Returns:
        Names to directories of event files, in the order of the runs. All names are distinct, and safe
        as file names.

    Raises:
        ViewError: There is nothing to show, or no such parameter; the error says what there is.

    Example:
        >>> links("runs", "lr-{lr}", filters=[("arch", "resnet")])
    """
    regexes = [(param, _compiled(param, regex)) for param, regex in filters]
    found = _read_metadata(Path(logdir).absolute(), metadata_table)
    known = sorted({_EXP_ID}.union(*(run.cells for run in found)))
    for param, _ in regexes:
        if param not in known:
            raise ViewError(_no_parameter("--filter-param", param, known))
    pieces = _parse_format(format_str, known)
    params = [param for param, _ in regexes] + [piece.param for piece in pieces if isinstance(piece, _Field)]
    whole = list(_with_values(found, params))
    kept = [
        (run, values)
        for run, values in whole
        if all(regex.match(str(values[param])) for param, regex in regexes)
    ]
    if not kept:
        raise ViewError(_nothing_left([values for _, values in whole], regexes, logdir))
    targets: dict[str, Path] = {}
    for run, values in kept:
        names = _names(_render(pieces, values, run.exp_id), run.exp_id)
        targets[next(name for name in names if name not in targets)] = run.layout.tensorboard_dir
    return targets


@dataclass(frozen=True, slots=True)
class _Run:
    """A run and the first row of its metadata table, objects still as they are stored."""

    layout: layout.RunLayout
    table: str
    cells: Mapping[str, tuple[Column, Any]]

    @property
    def exp_id(self) -> str:
        return self.layout.root.name

    def value(self, param: str) -> Any:
        """A parameter; None where the run lacks it."""
        column, cell = self.cells.get(param, (None, None))
        if param == _EXP_ID:
            return self.exp_id
        if column is None or cell is None:
            return None
        trust = objects.Trust(self.layout)
        where = f"column {param!r} of table {self.table!r} in run {self.layout.root}"
        if column.kind == "object":
            return objects.from_text(cell, trust, where)
        if column.kind == "pickle":
            return objects.read_pickle(self.layout.objects_dir / Path(cell).name, trust, where)
        return cell


def _read_metadata(logdir: Path, table: str) -> list[_Run]:
    if not logdir.is_dir():
        raise ViewError(f"--logdir: {logdir} is no directory of runs")
    runs = list(find_runs(logdir))
    if not runs:
        is_run = layout.RunLayout(logdir).store_file.exists()
        raise ViewError(
            f"--logdir: {logdir} {'is a run: give the folder it is in' if is_run else 'has no runs'}"
        )
    found: list[_Run] = []
    without: list[str] = []
    tables: set[str] = set()
    for run in runs:
        try:
            now = snapshot.read(run, tables=[table])
            rows = now.tables.get(table)
            cells = None if rows is None or rows.nrows == 0 else _first_row(rows)
        except (CoxError, OSError) as error:
            _warn_of_broken(run, error)
            continue
        now.warn(run.root.name)
        tables.update(now.tables)
        if cells is None:
            without.append(run.root.name)
        else:
            found.append(_Run(run, table, cells))
    if not found:
        raise ViewError(
            f"--metadata-table: no run in {logdir} has a row in a table {table!r}; "
            f"there are {sorted(tables)}{_did_you_mean(table, tables)}"
        )
    _warn_of(without, f"a row in the table {table!r}")
    return found


def _first_row(rows: TableData) -> dict[str, tuple[Column, Any]]:
    first = {}
    for column in rows.schema:
        values, missing = rows.column(column)
        is_missing = missing is not None and bool(missing[0])
        first[column.name] = (column, None if is_missing else values[:1].tolist()[0])
    return first


def _with_values(found: Iterable[_Run], params: Iterable[str]) -> Iterator[tuple[_Run, dict[str, Any]]]:
    """The runs that TensorBoard can show, each with these parameters decoded."""
    without = []
    wanted = list(params)
    for run in found:
        if not run.layout.tensorboard_dir.is_dir():
            without.append(run.exp_id)
            continue
        try:
            values = {param: run.value(param) for param in wanted}
        except (CoxError, OSError, ImportError, AttributeError) as error:  # the latter two: its class is gone
            _warn_of_broken(run.layout, error)
        else:
            yield run, values
    _warn_of(without, f"a directory {layout.TENSORBOARD_DIR!r}")


def _warn_of_broken(run: layout.RunLayout, error: Exception) -> None:
    warn(f"run {run.root.name} is left out: {error}", CollectionWarning)


def _warn_of(without: Sequence[str], what: str) -> None:
    if without:
        warn(f"left out, for want of {what}: {', '.join(without)}", CollectionWarning)


def _compiled(param: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise ViewError(f"--filter-param {param} {regex!r}: no regular expression: {error}") from error


def _no_parameter(option: str, param: str, known: Sequence[str]) -> str:
    return f"{option}: there is no parameter {param!r}; there are {known}{_did_you_mean(param, known)}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _nothing_left(
    there: Sequence[Mapping[str, Any]],
    regexes: Sequence[tuple[str, re.Pattern[str]]],
    logdir: str | os.PathLike[str],
) -> str:
    if not there:
        return f"--logdir: none of the runs in {os.fspath(logdir)} can be shown"
    asked = " ".join(f"--filter-param {param} {regex.pattern!r}" for param, regex in regexes)
    values = {param: Counter(str(values[param]) for values in there) for param, _ in regexes}
    shown = "; ".join(f"{param}: {_shortly(counts)}" for param, counts in values.items())
    return f"none of {len(there)} runs passes {asked}; the values there are: {shown}"


def _shortly(counts: Counter[str], most: int = 20) -> str:
    shown = [
        (f"{text!r}" if len(text) <= 80 else f"{text[:80]!r}…") + (f" ({runs} runs)" if runs > 1 else "")
        for text, runs in [*counts.items()][:most]
    ]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")


# --- Names


@dataclass(frozen=True, slots=True)
class _Field:
    """`{param:spec}` in a format string."""

    param: str
    spec: str


def _parse_format(text: str, known: Sequence[str]) -> list[str | _Field]:
    """A format string as text and fields. Not `str.format`, which reaches into objects.

    A parameter's name may hold anything, colons and braces too: the longest known one counts.
    """
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    piece = re.compile(r"([^{}]+|\{\{|\}\})|\{(?P<param>" + names + r")(?::(?P<spec>[^{}]*))?\}")
    pieces: list[str | _Field] = []
    at = 0
    while at < len(text):
        match = piece.match(text, at)
        if match is None:
            raise ViewError(_why_no_format(text, at, known))
        spec = match["spec"] or ""
        if _TOO_WIDE.search(spec):
            raise ViewError(f"--format-str {text!r}: {spec!r} asks for more than 999 characters")
        literal = {"{{": "{", "}}": "}"}.get(match[0], match[0])
        pieces.append(literal if match["param"] is None else _Field(match["param"], spec))
        at = match.end()
    return pieces


def _why_no_format(text: str, at: int, known: Sequence[str]) -> str:
    field = re.compile(r"\{([^{}]*)\}").match(text, at)
    if field is None:
        return f"--format-str {text!r}: the brace at position {at} has no partner; write it twice to show one"
    return _no_parameter(f"--format-str {text!r}", field[1], known)


def _render(pieces: Iterable[str | _Field], values: Mapping[str, Any], exp_id: str) -> str:
    made = []
    for piece in pieces:
        if isinstance(piece, str):
            made.append(piece)
            continue
        try:
            made.append(_show(values[piece.param], piece.spec))
        except (ValueError, OverflowError) as error:
            raise ViewError(
                f"--format-str: {piece.spec!r} cannot show {piece.param} of run {exp_id}, "
                f"{reprlib.repr(values[piece.param])}: {error}"
            ) from error
    return "".join(made)


def _show(value: Any, spec: str) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "None"  # under any spec: some run may lack the parameter
    if type(value) is list:
        value = ".".join(map(str, value))
    elif not isinstance(value, (int, float, str)):
        value = str(value)  # the spec must not reach the object
    return format(value, spec)


def _names(prefix: str, exp_id: str) -> Iterator[str]:
    """`<prefix>-<exp_id>` as a file name, then the same with a number, for where it is taken."""
    prefix, exp_id = _NOT_FOR_FILES.sub("_", prefix), _NOT_FOR_FILES.sub("_", exp_id)
    for number in count(1):
        mark = f" ({number})" if number > 1 else ""
        room = _NAME_BYTES - len(f"{mark}-{exp_id}".encode())
        if room >= 0:
            yield f"{_cut(prefix, room)}{mark}-{exp_id}"
        else:  # an exp_id that fills a name by itself
            yield _cut(exp_id, _NAME_BYTES - len(mark)) + mark


def _cut(text: str, room: int) -> str:
    """The text in at most so many bytes; an ellipsis, where there is room for it, says what was cut off."""
    if len(text.encode()) <= room:
        return text
    ellipsis = "…" if room >= len("…".encode()) else ""
    return text.encode()[: room - len(ellipsis.encode())].decode(errors="ignore") + ellipsis


# --- The server


def serve(targets: Mapping[str, Path], *, port: int = 6006, options: Iterable[str] = ()) -> int:
    """Run `tensorboard` on these directories until it ends, or until a signal ends it.

    SIGINT, SIGTERM, SIGHUP and SIGQUIT end the server. Whatever ends it, neither it nor the links are left.

    Args:
        targets: Names to directories of event files.
        port: The server's port; 0 lets it pick one.
        options: More command line arguments for `tensorboard`.

    Returns:
        Its exit status; 128 and the number of the signal, if one ended it.
    """
    server = _Server()
    with _signals_to(server.stop), _directory_of(targets) as logdir:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
        return server.run([*command, *options])


@contextmanager
def _directory_of(targets: Mapping[str, Path]) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cox-tensorboard-"))
    try:
        for name, target in targets.items():
            (directory / name).symlink_to(target, target_is_directory=True)
        yield directory
    finally:
        shutil.rmtree(directory)  # of a link it removes the link


@contextmanager
def _signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
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


class _Server:
    """A program that is waited for, and that a signal to this process ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None

    def run(self, command: Sequence[str]) -> int:
        """Run a program to its end and return its exit status, or 128 and the signal that ended it."""
        # a session of its own: a terminal's Ctrl-C would reach it too, and being told twice to end makes
        # it fail in the middle of cleaning up. Safe path: a random.py in the working directory is none of
        # its modules.
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        self._process = process
        if self._signal is not None:  # it came when there was nothing to end yet
            _end(process)
        status = process.wait()
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


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    deadline = threading.Timer(_GRACE, process.kill)
    deadline.daemon = True
    deadline.start()


# --- The command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--logdir", required=True, metavar="DIR", help="The folder of runs.")
@click.option(
    "--format-str",
    required=True,
    metavar="TEXT",
    help="What a run's name begins with: {param} stands for a parameter, as does {param:.3g}, with a format "
    "spec. -<exp_id> is always appended.",
)
@click.option("--port", default=6006, type=click.IntRange(0, 65535), help="The server's port; 0: a free one.")
@click.option("--metadata-table", default="metadata", metavar="NAME", help="The table of the parameters.")
@click.option(
    "--filter-param",
    multiple=True,
    nargs=2,
    metavar="PARAM REGEX",
    help="Show only runs whose PARAM begins with a match of REGEX: resnet keeps resnet18; end it with $ for "
    "the whole value. Can be given several times: a run has to pass all.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF TENSORBOARD]")
def main(
    logdir: str,
    format_str: str,
    port: int,
    metadata_table: str,
    filter_param: tuple[tuple[str, str], ...],
    options: tuple[str, ...],
) -> None:
    """Show the runs of a folder in TensorBoard, under names made of their parameters.

    Runs that begin later show after a restart.
    """
    _check_options(options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CoxWarning)
            warnings.showwarning = _show_warning
            targets = links(logdir, format_str, metadata_table=metadata_table, filters=filter_param)
        _say(f"Showing {len(targets)} runs of {logdir}")
        status = serve(targets, port=port, options=options)
    except (CoxError, OSError) as error:
        _say(f"Error: {error}", err=True)
        status = 2
    sys.exit(status)


def _check_options(options: Sequence[str]) -> None:
    if options and not options[0].startswith("-"):
        raise click.UsageError(f"unexpected argument {options[0]!r}: does a value want quotes?")
    for option in options:
        if re.match("--(logdir|port)", option):
            raise click.UsageError(f"{option!r} cannot be handed on to tensorboard: give it before the --")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"Warning: {message}", err=True)


def _say(text: str, *, err: bool = False) -> None:
    encoding = (sys.stderr if err else sys.stdout).encoding
    shown = _NOT_FOR_TERMINALS.sub("_", text).encode(encoding, "backslashreplace")
    click.echo(shown.decode(encoding), err=err)


if __name__ == "__main__":
    main()
